"""The grid on a few made-up images: what is trained from what, what is repeated, what is refused."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from verydeep import Recipe, reproduce
from verydeep.experiments.reproduce import QUICK, quick_recipe
from verydeep.images.sources import MemorySource, Sample, Splits
from verydeep.runs import read_record

TINY = Recipe(crop=32, width=0.05, batch=8, epochs=1, learning_rate=1e-3)


def splits():
    rng = np.random.default_rng(0)

    def pictures(count):
        samples = []
        for index in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(buffer, "PNG")
            samples.append(Sample(buffer.getvalue(), index % 6, f"{index}.png"))
        return MemorySource(classes=tuple("abcdef"), samples=tuple(samples))

    return Splits(name="noise", parts={"train": pictures(12), "val": pictures(6)})


def test_deeper_networks_start_from_a_and_the_others_from_random_weights(tmp_path):
    reproduce(splits(), out=tmp_path, recipe=TINY)
    names = ("A", "A-LRN", "B", "B-5x5", "C", "D", "E")
    starts = {name: read_record(tmp_path / "runs" / name).initialisation for name in names}
    from_a = "copied: conv1_1, conv2_1, conv3_1, conv3_2, fc6, fc7, fc8; "
    assert {name for name, start in starts.items() if start.startswith(from_a)} == set("BCDE")
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["n"] for row in results["one_scale"]] == [6] * 8
    assert results["initialisations"] == starts


def test_without_a_all_start_from_random_weights_and_the_report_says_so(tmp_path):
    reproduce(splits(), out=tmp_path, recipe=replace(TINY, batch_norm=True), networks=("D", "B"))
    assert all(
        read_record(tmp_path / "runs" / name).initialisation.startswith("glorot initialisation: ") for name in "BD"
    )
    page = (tmp_path / "report.html").read_text()
    assert "start from layers of trained A" not in page
    assert ", with batch normalisation, " in page


def test_the_rest_of_seeded_networks_is_drawn_like_a(tmp_path):
    reproduce(splits(), out=tmp_path, recipe=replace(TINY, init="paper"), networks=("A", "B"))
    assert "; paper initialisation: conv1_2" in read_record(tmp_path / "runs" / "B").initialisation


@pytest.mark.parametrize("networks", [(), ("A", "Z")])
def test_networks_that_are_not_there_are_refused_before_anything_is_written(tmp_path, networks):
    with pytest.raises(ValueError, match=r"one network or more|unknown network 'Z'"):
        reproduce(splits(), out=tmp_path / "out", recipe=TINY, networks=networks)
    assert not (tmp_path / "out").exists()


def test_only_what_was_found_on_other_weights_is_tested_again(tmp_path):
    reproduce(splits(), out=tmp_path, recipe=TINY, networks=("A", "D"))
    good, other = tmp_path / "evaluations" / "A-single.json", tmp_path / "evaluations" / "D-single.json"
    right, times = other.read_text(), good.stat().st_mtime_ns
    stale = json.loads(right)
    stale["tested"]["weights"], stale["top1_error"] = ["of another network"], 99.0
    other.write_text(json.dumps(stale))
    reproduce(splits(), out=tmp_path, recipe=TINY, networks=("A", "D"))
    assert json.loads(other.read_text())["tested"] == json.loads(right)["tested"]
    assert json.loads(other.read_text())["top1_error"] == json.loads(right)["top1_error"]
    assert good.stat().st_mtime_ns == times


def test_a_folder_of_another_experiment_is_refused_with_what_differs(tmp_path):
    reproduce(splits(), out=tmp_path, recipe=TINY, networks=("A",))
    with pytest.raises(ValueError, match="begun with another networks, seed: choose another folder"):
        reproduce(splits(), out=tmp_path, recipe=replace(TINY, seed=1), networks=("A", "B"))


def test_quick_is_the_papers_recipe_but_for_what_it_names():
    changed = {name for name, value in vars(QUICK).items() if value != vars(Recipe())[name]}
    assert changed == {"crop", "width", "batch", "learning_rate", "epochs", "patience"}
    assert quick_recipe("digits") == replace(QUICK, flip=False)
    assert quick_recipe("photos") == QUICK
