"""Exported files against PyTorch, at many sizes; what is left when something fails."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import exported_runs as shared
import foreign_weights as foreign
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import verydeep
from verydeep import CONFIGURATIONS, Runtime, import_weights, predict
from verydeep.cli import main
from verydeep.conversion import export as exporting
from verydeep.conversion.export import BrokenExportError, export
from verydeep.evaluation.dense import score_map
from verydeep.evaluation.posteriors import posteriors
from verydeep.evaluation.protocols import Protocol
from verydeep.exported_networks.exported import is_exported, load_exported
from verydeep.exported_networks.formats import ExportOptions
from verydeep.exported_networks.metadata import KEY
from verydeep.images.sources.source import Sample, memory_source
from verydeep.runs.model import load, load_model

FILES, CLASSES = shared.FILES, shared.CLASSES
network, pictures, saved = shared.network, shared.pictures, shared.saved
images, difference = shared.images, shared.difference


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def tiny_and_program(tmp_path_factory, data):
    """Return the tiny run and its files, and its program and texts as PyTorch reads them, in five seconds."""
    texts, read, load_program = {f"{KEY}.json": ""}, [], torch.export.load
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "load", lambda file: read.append(load_program(file, extra_files=texts)) or read[0])
        return shared.exported(tmp_path_factory.mktemp("tiny"), data), (read[0], texts)


@pytest.fixture(scope="module")
def tiny(tiny_and_program):
    return tiny_and_program[0]


@pytest.fixture(scope="module")
def program(tiny_and_program):
    return tiny_and_program[1]


def as_its_users_have_it(file, program=None):
    """`logits` and `score_map` of the file by its own runtime, without this package."""
    if file.suffix == ".pt2":
        return (program or torch.export.load(file)).module()
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(file)
        return lambda x: [torch.from_numpy(y) for y in session.run(["logits", "score_map"], {"images": x.numpy()})]
    if file.name.endswith(".ncnn.param"):
        return by_ncnn(file)
    import openvino

    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: [torch.from_numpy(compiled(x.numpy())[name].copy()) for name in ("logits", "score_map")]


def by_ncnn(file):
    """`logits` and `score_map` of each image of a batch, with ncnn's options for phones off."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = torch.get_num_threads()
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    assert net.load_param(str(file)) == 0
    assert net.load_model(str(file.with_suffix(".bin"))) == 0

    def scores(image):
        extractor = net.create_extractor()
        extractor.input("images", ncnn.Mat(image).clone())
        return [torch.from_numpy(np.array(extractor.extract(name)[1])) for name in ("logits", "score_map")]

    return lambda x: [torch.stack(found) for found in zip(*map(scores, x.numpy()), strict=True)]


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """A at the paper's crop, narrow, with all kinds of layers that there are, and how to export it."""
    folder = tmp_path_factory.mktemp("narrow")
    run = saved(network("A-LRN", crop=224, batch_norm=True), folder / "run")
    data = pictures(folder / "pictures", each=1, size=(256, 256))

    def exported_to(to):
        export(run, folder / FILES[to], to=to, options=ExportOptions(data=data))
        return folder / FILES[to]

    return load(run), exported_to


TORCH_IN_BATTERY = ["onnx", "openvino", shared.NCNN, pytest.param("torch", marks=pytest.mark.battery)]
"""PyTorch takes ten seconds to write a program and to read it."""


@pytest.mark.parametrize("to", TORCH_IN_BATTERY)
def test_one_file_is_pytorch_at_every_size_and_batch(narrow, to):
    net, exported_to = narrow
    run = as_its_users_have_it(exported_to(to))
    for batch, height, width in ((1, 224, 224), (5, 224, 224), (2, 384, 384), (1, 512, 640), (3, 250, 301)):
        x = images(batch, height, width)
        with torch.inference_mode():
            logits, found = run(x)
            expected = net.score_map(x)
        assert expected.shape[2:] == (height // 32 - 6, width // 32 - 6)
        assert difference(found, expected) < 1e-4
        assert difference(logits, expected.mean(dim=(2, 3))) < 1e-3
        if (height, width) == (224, 224):
            assert difference(logits, net(x).detach()) < 1e-4


@pytest.mark.parametrize("name", FILES.values())
def test_sizes_that_are_no_multiples_of_32(tiny, program, name):
    _, net, folder, _ = tiny
    run = as_its_users_have_it(folder / name, program[0])

    @settings(max_examples=25)
    @given(height=st.integers(32, 170), width=st.integers(32, 170), batch=st.integers(1, 3))
    def check(height, width, batch):
        x = images(batch, height, width, seed=height)
        with torch.inference_mode():
            assert difference(run(x)[1], net.score_map(x)) < 1e-4

    check()


EVERY_NETWORK = [*((name, False) for name in CONFIGURATIONS), ("C", True)]


@pytest.mark.parametrize("to", ["onnx", "openvino", shared.NCNN])
@pytest.mark.parametrize(("name", "batch_norm"), EVERY_NETWORK)
def test_every_network(tmp_path, data, name, batch_norm, to):
    run = saved(network(name, crop=64, batch_norm=batch_norm), tmp_path / "run")
    found = export(run, tmp_path / FILES[to], to=to, options=ExportOptions(data=data, check_images=3))
    assert found.agreement.greatest_difference < 1e-4
    net, x = load(run), images(2, 97, 131)
    with torch.inference_mode():
        assert difference(load_exported(tmp_path / FILES[to]).net.score_map(x), net.score_map(x)) < 1e-4


def test_a_program_goes_to_any_device(program):
    """Nothing in it stays on the CPU but two numbers, which are read there."""
    program, _ = program
    placed = [str(node.target) for node in program.graph.nodes if "device" in node.kwargs]
    assert placed == ["aten.scalar_tensor.default"] * 2
    logits, found = program.module().to("meta")(torch.zeros(2, 3, 97, 131, device="meta"))
    assert (logits.shape, found.shape) == ((2, 3), (2, 3, 3, 4))
    assert (logits.device.type, found.device.type) == ("meta", "meta")


@pytest.mark.parametrize("to", FILES)
def test_what_is_read_back_is_the_run(tiny, to):
    run, net, folder, found = tiny
    model, original = load_exported(folder / FILES[to]), load_model(run)
    assert is_exported(folder / FILES[to])
    assert not is_exported(run)
    assert model.exported
    assert original.exported == ()
    assert replace(model, net=None, exported=()) == replace(original, net=None)
    assert (model.net.architecture.crop, model.net.architecture.classes) == (32, 3)
    assert model.net.mean_rgb.tolist() == net.mean_rgb.tolist()
    x = images(3, 32, 32)
    with torch.inference_mode():
        assert difference(model.net.eval().to("cpu")(x), net(x)) < 1e-4
    figures = found[to].to_dict()
    json.dumps(figures)
    assert (figures["split"], figures["agreement"]["images"]) == ("val", 12)
    assert figures["agreement"]["top1_agreement"] == 100
    assert figures["weights_sha256"] == original.weights_sha256
    written = {FILES[to], shared.BESIDE.get(FILES[to], FILES[to])}
    assert figures["bytes"] == sum((folder / name).stat().st_size for name in written)


def test_metadata_stand_where_each_format_has_them(tiny, program):
    import openvino

    *_, folder, _ = tiny
    texts = [
        {entry.key: entry.value for entry in onnx.load(folder / "net.onnx").metadata_props}[KEY],
        openvino.Core().read_model(folder / "net.xml").get_rt_info([KEY]).astype(str),
    ]
    for text in (*texts, program[1][f"{KEY}.json"]):
        facts = json.loads(text)
        assert facts["classes"] == list(CLASSES)
        assert (facts["network"], facts["crop"], facts["scale"], facts["flip"]) == ("A", 32, "256", True)
        assert "37 pixels, bilinear with antialiasing" in facts["preprocessing"]["resize"]
        assert "RGB, float32 in 0..255; the mean is subtracted inside" in facts["preprocessing"]["images"]


@pytest.mark.parametrize("to", TORCH_IN_BATTERY)
def test_labels_survive(tmp_path, to, battery, figure):
    """Run, export, predict: the same names in the same order, with the same probabilities."""
    names = tuple(f"class {number:02}" for number in np.random.default_rng(0).permutation(20))
    run = saved(network("A", classes=20), tmp_path / "run", names)
    rng = np.random.default_rng(1)
    count = 200 if battery else 60
    for index in range(count):
        size = rng.integers(32, 64, 2)
        smooth = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(index)) * 255
        pixels = torch.nn.functional.interpolate(smooth, size=tuple(map(int, size)), mode="bilinear")[0]
        place = tmp_path / "pictures" / names[index % 20]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.byte().permute(1, 2, 0).numpy()).save(place / f"{index}.png")
    export(run, tmp_path / FILES[to], to=to, options=ExportOptions(data=str(tmp_path / "pictures"), check_images=20))
    shutil.move(run, tmp_path / "elsewhere")
    expected = list(predict(tmp_path / "elsewhere", [tmp_path / "pictures"], runtime=Runtime(device="cpu")))
    found = list(predict(tmp_path / FILES[to], [tmp_path / "pictures"]))
    assert len(found) == count
    assert len({prediction.classes for prediction in expected}) > 20
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.image, ours.classes) == (theirs.image, theirs.classes)
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)
    figure(19, f"labels survive, {to}", f"{count} images, {len(names)} classes: the same names in the same order")


@pytest.mark.parametrize("to", ["onnx", "openvino", shared.NCNN])
def test_protocols_take_exported_networks(tiny, to):
    """Whole images, also in tiles, and crops."""
    _, net, folder, _ = tiny
    exported = load_exported(folder / FILES[to]).net
    samples = [Sample(path.read_bytes(), 0, path.name) for path in sorted((folder.parent).rglob("val/dark/*.png"))]
    source = memory_source(classes=CLASSES, samples=tuple(samples[:4]))
    protocol = Protocol(scales=(256, 384), method="both")
    assert np.abs(posteriors(exported, source, protocol) - posteriors(net, source, protocol)).max() < 1e-5
    large = images(2, 351, 417)
    with torch.inference_mode():
        assert difference(score_map(exported, large, pixels=1), net.score_map(large)) < 1e-4


@pytest.mark.parametrize("crop", [64, 96])
def test_tiles_of_an_exported_network_see_what_they_need(tmp_path, data, crop):
    run = saved(network("B", crop=crop), tmp_path / "run")
    export(run, tmp_path / "net.onnx", to="onnx", options=ExportOptions(data=data, check_images=1))
    net, exported = load(run), load_exported(tmp_path / "net.onnx").net
    for size in ((crop, 500), (333, 290)):
        with torch.inference_mode():
            for pixels in (1, 60 * 1024):
                assert (
                    difference(score_map(exported, images(1, *size), pixels=pixels), net.score_map(images(1, *size)))
                    < 1e-4
                )


def test_the_public_function_writes_and_checks_a_file(tmp_path, data):
    run = saved(network("A"), tmp_path / "run")
    options = verydeep.ExportOptions(data=data, check_images=2)
    found = verydeep.export(run, tmp_path / "net.onnx", to="onnx", options=options)
    assert isinstance(found, verydeep.Export)
    assert (found.agreement.images, found.agreement.greatest_difference < 1e-4) == (2, True)
    x = images(2, 40, 46)
    with torch.inference_mode():
        assert difference(as_its_users_have_it(tmp_path / "net.onnx")(x)[1], load(run).score_map(x)) < 1e-4


def test_the_command_line_prints_figures_and_predicts_with_the_file(tiny, tmp_path, data, capsys):
    run, _, _, found = tiny
    main(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "net.onnx"), "--data", data, "--json", "-"])
    figures = json.loads(capsys.readouterr().out)
    same = {name: value for name, value in found["onnx"].to_dict().items() if name not in ("file", "seconds")}
    assert {name: figures[name] for name in same} == json.loads(json.dumps(same))
    main(["export", str(run), "--to", "onnx", "--out", str(tmp_path / "net.onnx"), "--data", data])
    text = capsys.readouterr().out
    assert "(onnx, " in text
    assert f"{figures['agreement']['greatest_difference']:.1e}" in text
    main(["predict", str(tmp_path / "net.onnx"), f"{data}/val/light/0.png"])
    assert any(name in capsys.readouterr().out for name in CLASSES)


# --- what is refused, and what is left ---


@pytest.mark.parametrize("to", TORCH_IN_BATTERY)
def test_a_broken_export_is_not_written_and_the_old_file_stays(tiny, tmp_path, data, monkeypatch, to):
    run, *_ = tiny
    (tmp_path / FILES[to]).write_bytes(b"old")
    write = exporting.write_exported

    def off_by_a_bias(_, file, **options):
        wrong = load_model(run)
        with torch.no_grad():
            wrong.net.fc8.bias += 0.1
        write(wrong, file, **options)

    monkeypatch.setattr(exporting, "write_exported", off_by_a_bias)
    with pytest.raises(BrokenExportError, match="was not written: its scores differ from PyTorch's"):
        export(run, tmp_path / FILES[to], to=to, options=ExportOptions(data=data))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {FILES[to]: b"old"}


@pytest.mark.parametrize(
    ("to", "error"), [("onnx", KeyboardInterrupt), ("onnx", OSError("disk full")), ("openvino", SystemExit(143))]
)
def test_an_export_that_is_stopped_leaves_nothing(tiny, tmp_path, data, monkeypatch, to, error):
    run, *_ = tiny

    def stopped(*_):
        raise error

    monkeypatch.setattr(exporting, "agreement", stopped)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        export(run, tmp_path / FILES[to], to=to, options=ExportOptions(data=data))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_told_with_the_path(tiny, tmp_path, data, monkeypatch):
    run, *_ = tiny

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporting, "write_exported", full)
    with pytest.raises(OSError, match=r"^cannot write .*net\.onnx: No space left on device$"):
        export(run, tmp_path / "net.onnx", to="onnx", options=ExportOptions(data=data, check_images=1))
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_cleared_away(tiny, tmp_path, data):
    run, *_ = tiny
    killed = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = tmp_path / f".net.onnx.{int(killed.stdout)}.partial"
    left.mkdir()
    (left / "net.onnx").write_bytes(b"half")
    export(run, tmp_path / "net.onnx", to="onnx", options=ExportOptions(data=data, check_images=1))
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite", "out": "a.onnx"}, "exported to onnx, openvino, ncnn, torch, not to 'tflite'"),
        ({"to": "onnx", "out": "a.xml"}, "ends in .onnx, not"),
        ({"to": "onnx", "out": "nowhere/a.onnx"}, "there is no folder"),
        ({"to": "torch", "out": "a.pt2", "int8": True}, "float32 only"),
        ({"to": "ncnn", "out": "a.param"}, "ends in .ncnn.param, not"),
        ({"to": "ncnn", "out": "a.ncnn.param", "int8": True}, "float32 only: INT8 goes to onnx or openvino"),
        ({"to": "onnx", "out": "a.onnx", "max_loss": -1.0}, "max_loss is 0 or more"),
        ({"to": "onnx", "out": "a.onnx", "check_images": 0}, "check_images must be 1 or more"),
        ({"to": "onnx", "out": "a.onnx"}, "does not say what it was trained on"),
        ({"to": "onnx", "out": "a.onnx", "data": "nowhere"}, "no folder 'nowhere'.*--data names other images"),
        ({"to": "onnx", "out": "a.onnx", "data": "digits"}, "classes that training lacks"),
    ],
)
def test_options_that_cannot_be(tiny, tmp_path, options, message):
    run, *_ = tiny
    file, to = tmp_path / options.pop("out"), options.pop("to")
    with pytest.raises(ValueError, match=message):
        export(run, file, to=to, options=ExportOptions(**options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_a_network_that_no_onnx_graph_holds_is_refused_before_its_images_are_read(tiny, tmp_path, monkeypatch, to):
    run, *_ = tiny
    size = 4 * sum(value.numel() for value in load(run).parameters())
    monkeypatch.setattr(exporting, "_images", lambda *_: pytest.fail("images were opened"))
    monkeypatch.setattr(exporting, "_LARGEST_GRAPH", size)
    with pytest.raises(ValueError, match=r"a graph in ONNX holds less than .*: --to torch$"):
        export(run, tmp_path / FILES[to], to=to)


def test_an_imported_run_says_nothing_of_images(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A"), "torchvision"), tmp_path / "net.pth")
    import_weights(tmp_path / "net.pth", tmp_path / "run")
    with pytest.raises(ValueError, match=r"run does not say what it was trained on: name images .* \(--data\)$"):
        export(tmp_path / "run", tmp_path / "net.onnx", to="onnx")
    assert not (tmp_path / "net.onnx").exists()


def test_a_missing_library_is_named_with_its_extra(tiny, tmp_path, monkeypatch):
    run, _, folder, _ = tiny
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'verydeep[openvino]'")):
        export(run, tmp_path / "net.xml", to="openvino", options=ExportOptions(data="digits"))
    with pytest.raises(ValueError, match=re.escape("pip install 'verydeep[openvino]'")):
        load_exported(folder / "net.xml")
