"""The picture of a network's layers, against what `describe` counts and Table 1."""

import json
from xml.etree import ElementTree

import pytest
from several_commands import refusal, status_of

from verydeep import describe

SVG = "{http://www.w3.org/2000/svg}"


def drawn(network):
    """Return texts of every line by its height, and the bars there: (class, x, width)."""
    root = ElementTree.fromstring(network.to_svg())
    texts, bars = {}, {}
    for one in root.iter(f"{SVG}text"):
        texts.setdefault(float(one.get("y")), []).append(one.text)
    for one in root.iter(f"{SVG}rect"):
        if one.get("rx"):
            bars.setdefault(float(one.get("y")) + 14, []).append(
                (one.get("class"), float(one.get("x")), float(one.get("width")))
            )
    return root, [(texts[y], bars[y]) for y in sorted(bars)]


@pytest.mark.parametrize("name", ["D", "A-LRN", "B-5x5"])
def test_every_layer_has_a_line_with_its_figures(name):
    network = describe(name)
    root, lines = drawn(network)
    assert len(lines) == len(network.layers)
    stride = 1
    for layer, (texts, bars) in zip(network.layers, lines, strict=True):
        stride *= 2 if layer.kind == "pool" else 1
        figures = [layer.name, " × ".join(map(str, layer.output)), str(stride), str(layer.receptive_field)]
        assert texts == figures + ([f"{layer.parameters:,}"] if layer.parameters else [])
        assert layer.stride == stride
        assert len(bars) == (2 if layer.parameters else 1)
    assert name in root.get("aria-label")
    assert float(root.get("width")) == 1280


def test_bars_are_as_long_as_what_they_stand_for_and_in_the_middle():
    network = describe("D")
    root, lines = drawn(network)
    (crop,) = [one for one in root.iter(f"{SVG}rect") if one.get("class") == "crop"]
    centre, pixel = float(crop.get("x")) + float(crop.get("width")) / 2, float(crop.get("width")) / 224
    most = max(layer.parameters for layer in network.layers)
    for layer, (_, bars) in zip(network.layers, lines, strict=True):
        kind, x, width = bars[0]
        assert width == pytest.approx(pixel * layer.receptive_field, abs=0.1)
        assert x + width / 2 == pytest.approx(centre, abs=0.1)
        assert kind == {"conv": "conv", "linear": "linear"}.get(layer.kind, "other")
        if layer.parameters > most / 100:
            assert bars[1][2] / lines[-3][1][1][2] == pytest.approx(layer.parameters / most, rel=0.02)


def test_it_is_dark_where_that_is_asked_for_and_needs_no_other_file():
    text = describe("A").to_svg()
    assert "prefers-color-scheme: dark" in text
    assert text.count("http") == 1  # the name of SVG itself
    assert "<script" not in text


def test_a_command_draws_one_network(capsys, tmp_path):
    file = tmp_path / "d.svg"
    assert status_of("describe", "D", "--plot", file, "--json", "-") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["networks"][0]["layers"][2]["stride"] == 2
    assert f"wrote {file}" in captured.err
    assert file.read_text() == describe("D").to_svg()
    for words in (["--plot", file], ["D", "E", "--plot", file], ["D", "--plot", tmp_path / "d.png"]):
        assert "--plot draws a single network" in refusal(capsys, "describe", *words)
