"""Exported files against PyTorch, at many sizes; what is refused; what is left when something fails."""

import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep import CONFIGURATIONS, Runtime, predict, runs, vgg
from verydeep.cli import main
from verydeep.deployment import export as exporting
from verydeep.deployment.checksum import SHA256, UNSTATED, state_checksum
from verydeep.deployment.comparison import Agreement, int8_errors
from verydeep.deployment.export import BrokenExportError, export
from verydeep.deployment.exported import compute_by_onnxruntime, compute_by_openvino, is_exported, load_exported
from verydeep.deployment.metadata import KEY, Metadata
from verydeep.evaluation.dense import score_map
from verydeep.evaluation.paired import bootstrap_interval
from verydeep.evaluation.passes import posteriors
from verydeep.evaluation.protocols import Protocol
from verydeep.images.sources import MemorySource, Sample

FILES = {"onnx": "net.onnx", "openvino": "net.xml", "torch": "net.pt2"}
CLASSES = ("dark", "grün", "light")


def network(name="D", crop=32, width=1 / 16, classes=3, batch_norm=False):
    """Random biases and statistics too, so that nothing that is left out would go unnoticed."""
    torch.manual_seed(1)
    net = vgg(name, classes=classes, crop=crop, width=width, batch_norm=batch_norm, mean_rgb=(120.0, 110.0, 90.0))
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
                module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5)
                module.bias.normal_(0, 0.1)
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 2)
        net.conv1_1.weight /= 64
    return net.eval()


def pictures(folder, each=4, size=(40, 46)):
    """Noise of three brightnesses, as a folder with train and val."""
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for index in range(each):
                pixels = (rng.integers(0, 90, (*size, 3)) + 80 * label).astype(np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")
    return str(folder)


def saved(net, folder, classes=CLASSES):
    runs.save_model(runs.Model(net=net, classes=classes, scale="256", flip=True), folder / "model")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, data):
    """A run, its network and one file of each kind, with the figures of its export."""
    folder = tmp_path_factory.mktemp("tiny")
    run = saved(network(), folder / "run")
    found = {to: export(run, folder / name, to=to, data=data) for to, name in FILES.items()}
    return run, runs.load(run), folder, found


def images(batch, height, width, seed=0):
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 255


def difference(found, expected):
    assert found.shape == expected.shape
    return ((found - expected).abs().max() / expected.abs().max()).item()


def as_its_users_have_it(file):
    """`logits` and `score_map` of the file by its own runtime, without this package."""
    if file.suffix == ".pt2":
        program = torch.export.load(file).module()
        return lambda x: program(x)
    if file.suffix == ".onnx":
        session = onnxruntime.InferenceSession(file)
        return lambda x: [torch.from_numpy(y) for y in session.run(["logits", "score_map"], {"images": x.numpy()})]
    import openvino

    compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda x: [torch.from_numpy(compiled(x.numpy())[name].copy()) for name in ("logits", "score_map")]


@pytest.fixture(scope="module")
def narrow_d(tmp_path_factory):
    """The paper's D, narrow, at crop 224."""
    folder = tmp_path_factory.mktemp("narrow")
    run = saved(network(crop=224), folder / "run")
    data = pictures(folder / "pictures", each=1, size=(256, 256))
    for to, name in FILES.items():
        export(run, folder / name, to=to, data=data)
    return runs.load(run), folder


@pytest.mark.parametrize("name", FILES.values())
def test_one_file_is_pytorch_at_every_size_and_batch(narrow_d, name):
    net, folder = narrow_d
    run = as_its_users_have_it(folder / name)
    for height, width in ((224, 224), (384, 384), (512, 640), (250, 301)):
        for batch in (1, 5):
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
def test_sizes_that_are_no_multiples_of_32(tiny, name):
    _, net, folder, _ = tiny
    run = as_its_users_have_it(folder / name)

    @settings(max_examples=40, deadline=None)
    @given(height=st.integers(32, 200), width=st.integers(32, 200), batch=st.integers(1, 3))
    def check(height, width, batch):
        x = images(batch, height, width, seed=height)
        with torch.inference_mode():
            assert difference(run(x)[1], net.score_map(x)) < 1e-4

    check()


EVERY_NETWORK = [*((name, False) for name in CONFIGURATIONS), ("C", True)]


@pytest.mark.parametrize(
    ("name", "batch_norm", "to"),
    [*((*one, to) for one in EVERY_NETWORK for to in ("onnx", "openvino")), ("A-LRN", True, "torch")],
)
def test_every_network(tmp_path, data, name, batch_norm, to):
    run = saved(network(name, crop=64, batch_norm=batch_norm), tmp_path / "run")
    found = export(run, tmp_path / FILES[to], to=to, data=data, check_images=3)
    assert found.agreement.greatest_difference < 1e-4
    net, x = runs.load(run), images(2, 97, 131)
    with torch.inference_mode():
        assert difference(load_exported(tmp_path / FILES[to]).net.score_map(x), net.score_map(x)) < 1e-4


def test_a_program_goes_to_any_device(tiny):
    """Nothing in it stays on the CPU but two numbers, which are read there."""
    program = torch.export.load(tiny[2] / "net.pt2")
    placed = [str(node.target) for node in program.graph.nodes if "device" in node.kwargs]
    assert placed == ["aten.scalar_tensor.default"] * 2
    logits, found = program.module().to("meta")(torch.zeros(2, 3, 97, 131, device="meta"))
    assert (logits.shape, found.shape) == ((2, 3), (2, 3, 3, 4))
    assert (logits.device.type, found.device.type) == ("meta", "meta")


@pytest.mark.parametrize("to", FILES)
def test_what_is_read_back_is_the_run(tiny, to):
    run, net, folder, found = tiny
    model, original = load_exported(folder / FILES[to]), runs.load_model(run)
    assert is_exported(folder / FILES[to])
    assert not is_exported(run)
    assert replace(model, net=None) == replace(original, net=None)
    assert (model.net.crop, model.net.classes) == (32, 3)
    assert model.net.mean_rgb.tolist() == net.mean_rgb.tolist()
    x = images(3, 32, 32)
    with torch.inference_mode():
        assert difference(model.net.eval().to("cpu")(x), net(x)) < 1e-4
    figures = found[to].to_dict()
    json.dumps(figures)
    assert (figures["split"], figures["agreement"]["images"]) == ("val", 12)
    assert figures["agreement"]["top1_agreement"] == 100
    assert figures["weights_sha256"] == original.weights_sha256
    written = [folder / FILES[to], *([folder / "net.bin"] if to == "openvino" else [])]
    assert figures["bytes"] == sum(file.stat().st_size for file in written)


def test_metadata_stand_where_each_format_has_them(tiny):
    import openvino

    *_, folder, _ = tiny
    texts = [
        {entry.key: entry.value for entry in onnx.load(folder / "net.onnx").metadata_props}[KEY],
        openvino.Core().read_model(folder / "net.xml").get_rt_info([KEY]).astype(str),
    ]
    extra = {f"{KEY}.json": ""}
    torch.export.load(folder / "net.pt2", extra_files=extra)
    for text in (*texts, extra[f"{KEY}.json"]):
        facts = json.loads(text)
        assert facts["classes"] == list(CLASSES)
        assert (facts["network"], facts["crop"], facts["scale"], facts["flip"]) == ("D", 32, "256", True)
        assert "37 pixels, bilinear with antialiasing" in facts["preprocessing"]["resize"]
        assert "RGB, float32 in 0..255; the mean is subtracted inside" in facts["preprocessing"]["images"]


@pytest.mark.parametrize("name", FILES.values())
def test_labels_survive(tmp_path, name):
    """Run, export, predict: of 200 images the same names in the same order, with the same probabilities."""
    names = tuple(f"class {number:02}" for number in np.random.default_rng(0).permutation(20))
    run = saved(network("A", classes=20), tmp_path / "run", names)
    rng = np.random.default_rng(1)
    for index in range(200):
        size = rng.integers(32, 64, 2)
        smooth = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(index)) * 255
        pixels = torch.nn.functional.interpolate(smooth, size=tuple(map(int, size)), mode="bilinear")[0]
        place = tmp_path / "pictures" / names[index % 20]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.byte().permute(1, 2, 0).numpy()).save(place / f"{index}.png")
    to = next(to for to, file in FILES.items() if file == name)
    export(run, tmp_path / name, to=to, data=str(tmp_path / "pictures"), check_images=20)
    shutil.move(run, tmp_path / "elsewhere")
    expected = list(predict(tmp_path / "elsewhere", [tmp_path / "pictures"], runtime=Runtime(device="cpu")))
    found = list(predict(tmp_path / name, [tmp_path / "pictures"]))
    assert len(found) == 200
    assert len({prediction.classes for prediction in expected}) > 20
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.image, ours.classes) == (theirs.image, theirs.classes)
        assert ours.probabilities == pytest.approx(theirs.probabilities, abs=1e-5)


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_protocols_take_exported_networks(tiny, to):
    """Whole images, also in tiles, and crops."""
    _, net, folder, _ = tiny
    exported = load_exported(folder / FILES[to]).net
    samples = [Sample(path.read_bytes(), 0, path.name) for path in sorted((folder.parent).rglob("val/dark/*.png"))]
    source = MemorySource(classes=CLASSES, samples=tuple(samples[:4]))
    protocol = Protocol(scales=(256, 384), method="both")
    assert np.abs(posteriors(exported, source, protocol) - posteriors(net, source, protocol)).max() < 1e-5
    large = images(2, 351, 417)
    with torch.inference_mode():
        assert difference(score_map(exported, large, pixels=1), net.score_map(large)) < 1e-4


@pytest.mark.parametrize("crop", [64, 96])
def test_tiles_of_an_exported_network_see_what_they_need(tmp_path, data, crop):
    run = saved(network("B", crop=crop), tmp_path / "run")
    export(run, tmp_path / "net.onnx", to="onnx", data=data, check_images=1)
    net, exported = runs.load(run), load_exported(tmp_path / "net.onnx").net
    for size in ((crop, 500), (333, 290)):
        with torch.inference_mode():
            for pixels in (1, 60 * 1024):
                assert (
                    difference(score_map(exported, images(1, *size), pixels=pixels), net.score_map(images(1, *size)))
                    < 1e-4
                )


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


# --- INT8 ---


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    """A few seconds of training, well above chance."""
    from verydeep import Recipe, train

    folder = tmp_path_factory.mktemp("digits") / "run"
    recipe = Recipe(crop=32, width=1 / 8, batch=32, learning_rate=0.01, epochs=4, flip=False, seed=1)
    train("digits", network="A", out=folder, recipe=recipe)
    return folder


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_keeps_the_error_on_digits(digits_run, tmp_path, to):
    """The source is the one that the run names."""
    found = export(digits_run, tmp_path / FILES[to], to=to, int8=True)
    plain = export(digits_run, tmp_path / f"plain{Path(FILES[to]).suffix}", to=to, check_images=2)
    assert found.source == "digits"
    assert found.errors.images == 179
    assert found.errors.float32 < 50
    assert abs(found.errors.loss) <= 0.6  # of 179 images one is 0.56 points
    assert found.bytes < plain.bytes / 3
    assert found.agreement.top1_agreement > 95
    assert found.agreement.greatest_difference > 1e-4  # or it would not be in integers


@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_that_costs_too_much_is_not_written(digits_run, tmp_path, monkeypatch, to):
    """Calibrated on black images, its ranges are too narrow for all others."""
    monkeypatch.setattr(exporting, "_calibration", lambda *_: [torch.zeros(3, 32, 32, dtype=torch.uint8)] * 3)
    with pytest.raises(BrokenExportError, match=r"in INT8 [\d.]+% of 179 images are wrong, in float32") as refusal:
        export(digits_run, tmp_path / FILES[to], to=to, int8=True)
    assert not list(tmp_path.iterdir())
    errors = export(digits_run, tmp_path / FILES[to], to=to, int8=True, max_loss=100).errors
    assert (tmp_path / FILES[to]).is_file()
    assert errors.images == 179
    assert errors.loss == pytest.approx(errors.int8 - errors.float32)
    assert errors.loss > 2
    assert f"in INT8 {errors.int8:.2f}%" in str(refusal.value)
    assert f"in float32 {errors.float32:.2f}%" in str(refusal.value)


def test_errors_of_int8_are_counted_image_by_image():
    """[images, classes]: right and wrong before and after, and one that cannot be used."""
    labels = np.array([0, 0, 1, 2, 2, 1, 0])
    before, after = [0, 1, 1, 0, 2, 1, 0], [0, 0, 2, 1, 2, 0, 0]
    float32, int8 = (0.1 + 0.7 * np.eye(3)[classes] for classes in (before, after))
    float32[6] = int8[6] = np.nan
    found = int8_errors(float32, int8, labels)
    assert (found.images, found.lost, found.won, found.changed) == (6, 2, 1, 4)
    assert (found.float32, found.int8, found.loss) == pytest.approx((100 * 2 / 6, 100 * 3 / 6, 100 / 6))
    assert found.loss_ci95 == bootstrap_interval(2, 1, 6)


@pytest.mark.parametrize(
    ("images", "lost", "won", "refused"),
    [
        (179, 1, 0, False),
        (179, 3, 2, False),
        (179, 2, 0, True),
        (400, 2, 0, False),
        (400, 3, 0, True),
        (9, 0, 9, False),
    ],
)
def test_one_image_more_may_be_wrong(images, lost, won, refused):
    """Of 179 images one is 0.56 points, of 400 two are 0.50."""
    wrong = np.arange(images)
    labels = np.zeros(images, dtype=np.int64)
    float32, int8 = np.full((2, images, 2), (0.9, 0.1))
    int8[wrong < lost], float32[wrong >= images - won] = (0.1, 0.9), (0.1, 0.9)
    errors = int8_errors(float32, int8, labels)
    agrees = Agreement(images=images, greatest_difference=0.1, top1_agreement=99.0)
    with pytest.raises(BrokenExportError) if refused else nullcontext():
        exporting._refuse_broken(Path("net.onnx"), agrees, errors, 0.5)


@pytest.mark.parametrize(("name", "batch_norm"), [("D", False), ("C", True), ("A-LRN", False)])
@pytest.mark.parametrize("to", ["onnx", "openvino"])
def test_int8_takes_every_size_and_batch(tmp_path, name, batch_norm, to):
    """Compared at other sizes than it was calibrated at, on parts of the same images: ranges hold what is met there."""
    model = runs.Model(net=network(name, crop=64, batch_norm=batch_norm), classes=CLASSES, scale="256", flip=True)
    noise = images(3, 160, 171).byte()
    exporting.write_exported(model, tmp_path / FILES[to], to=to, calibration=list(noise))
    exported = load_exported(tmp_path / FILES[to]).net
    for batch, height, width in ((3, 97, 131), (1, 64, 64), (2, 160, 90)):
        x = noise[:batch, :, :height, :width]
        with torch.inference_mode():
            assert 1e-4 < difference(exported.score_map(x), model.net.score_map(x)) < 0.4


# --- what is refused, and what is left ---


@pytest.mark.parametrize("to", FILES)
def test_a_broken_export_is_not_written_and_the_old_file_stays(tiny, tmp_path, data, monkeypatch, to):
    run, *_ = tiny
    (tmp_path / FILES[to]).write_bytes(b"old")
    write = exporting.write_exported

    def off_by_a_bias(_, file, **options):
        wrong = runs.load_model(run)
        with torch.no_grad():
            wrong.net.fc8.bias += 0.1
        write(wrong, file, **options)

    monkeypatch.setattr(exporting, "write_exported", off_by_a_bias)
    with pytest.raises(BrokenExportError, match="was not written: its scores differ from PyTorch's"):
        export(run, tmp_path / FILES[to], to=to, data=data)
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
        export(run, tmp_path / FILES[to], to=to, data=data)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_cleared_away(tiny, tmp_path, data):
    run, *_ = tiny
    left = tmp_path / f".net.onnx.{os.getpid() + 1}.partial"
    left.mkdir()
    (left / "net.onnx").write_bytes(b"half")
    export(run, tmp_path / "net.onnx", to="onnx", data=data, check_images=1)
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "tflite", "out": "a.onnx"}, "exported to onnx, openvino, torch, not to 'tflite'"),
        ({"to": "onnx", "out": "a.xml"}, "ends in .onnx, not"),
        ({"to": "onnx", "out": "nowhere/a.onnx"}, "there is no folder"),
        ({"to": "torch", "out": "a.pt2", "int8": True}, "float32 only"),
        ({"to": "onnx", "out": "a.onnx", "max_loss": -1.0}, "max_loss is 0 or more"),
        ({"to": "onnx", "out": "a.onnx", "check_images": 0}, "check_images must be 1 or more"),
        ({"to": "onnx", "out": "a.onnx"}, "does not say what it was trained on"),
        ({"to": "onnx", "out": "a.onnx", "data": "nowhere"}, "no folder 'nowhere'.*--data names other images"),
        ({"to": "onnx", "out": "a.onnx", "data": "digits"}, "classes that training lacks"),
    ],
)
def test_options_that_cannot_be(tiny, tmp_path, options, message):
    run, *_ = tiny
    with pytest.raises(ValueError, match=message):
        export(run, tmp_path / options.pop("out"), **options)
    assert not list(tmp_path.iterdir())


def test_a_missing_library_is_named_with_its_extra(tiny, tmp_path, monkeypatch):
    run, _, folder, _ = tiny
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ValueError, match=re.escape("pip install 'verydeep[openvino]'")):
        export(run, tmp_path / "net.xml", to="openvino", data="digits")
    with pytest.raises(ValueError, match=re.escape("pip install 'verydeep[openvino]'")):
        load_exported(folder / "net.xml")


def copies(folder, place):
    for name in (*FILES.values(), "net.bin"):
        shutil.copy(folder / name, place / name)


@pytest.mark.parametrize("name", FILES.values())
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.99])
def test_truncated_files_are_refused_in_one_line(tiny, tmp_path, name, share):
    copies(tiny[2], tmp_path)
    for file in (name, "net.bin") if name == "net.xml" else (name,):
        copies(tiny[2], tmp_path)
        whole = (tmp_path / file).read_bytes()
        (tmp_path / file).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=rf"^.*{name} cannot be used: .*$") as refusal:
            load_exported(tmp_path / name)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", FILES.values())
def test_changed_weights_are_noticed(tiny, tmp_path, name):
    for seed in range(8):
        copies(tiny[2], tmp_path)
        file = tmp_path / ("net.bin" if name == "net.xml" else name)
        data = bytearray(file.read_bytes())
        middle = np.random.default_rng(seed).integers(len(data) // 4, len(data) // 2)  # all weights there
        data[middle] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match=f"{name} cannot be used: "):
            load_exported(tmp_path / name)


def test_foreign_files_are_refused_by_what_is_missing(tiny, tmp_path):
    import openvino

    copies(tiny[2], tmp_path)
    model = onnx.load(tmp_path / "net.onnx")
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "net.onnx")
    openvino.save_model(openvino.Core().read_model(tmp_path / "net.onnx"), tmp_path / "net.xml")
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.ones(2),)), tmp_path / "net.pt2")
    for name in FILES.values():
        with pytest.raises(ValueError, match=f"{name} cannot be used: it has no metadata 'verydeep'"):
            load_exported(tmp_path / name)
    (tmp_path / "photo.jpg").write_bytes(b"jpeg")
    with pytest.raises(ValueError, match="neither a run folder nor an exported network"):
        load_exported(tmp_path / "photo.jpg")


def saved_onnx(model, file):
    """With the SHA-256 that it has as it is now."""
    next(entry for entry in model.metadata_props if entry.key == SHA256).value = UNSTATED
    file.write_bytes(model.SerializeToString())
    state_checksum(file)


def outside(name="outside"):
    """A tensor whose values are in another file, which could be any of the machine."""
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[3])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="outside")
    return tensor


def node(**attributes):
    return onnx.helper.make_node("Constant", [], ["value"], **attributes)


def graph(*nodes):
    value = onnx.helper.make_tensor_value_info("value", onnx.TensorProto.FLOAT, [3])
    return onnx.helper.make_graph(nodes, "inner", [], [value])


def sparse():
    return onnx.helper.make_sparse_tensor(outside(), onnx.numpy_helper.from_array(np.arange(3), "indices"), [3])


def an_initializer(model):
    next(one for one in model.graph.initializer if one.name == "fc8.bias").CopyFrom(outside("fc8.bias"))


def a_constant(model):
    """In place of the bias."""
    del model.graph.initializer[[one.name for one in model.graph.initializer].index("fc8.bias")]
    model.graph.node.insert(0, onnx.helper.make_node("Constant", [], ["fc8.bias"], value=outside()))


def a_function(model):
    opsets = [onnx.helper.make_opsetid("", 18)]
    model.functions.append(onnx.helper.make_function("own", "f", [], ["value"], [node(value=outside())], opsets))


def tensors_of_an_attribute(model):
    attribute = model.graph.node[0].attribute.add(name="many", type=onnx.AttributeProto.TENSORS)
    attribute.tensors.append(outside())


HIDDEN = (
    an_initializer,
    a_constant,
    a_function,
    tensors_of_an_attribute,
    lambda model: model.graph.sparse_initializer.append(sparse()),
    lambda model: model.graph.node.append(node(sparse_value=sparse())),
    lambda model: model.graph.node.append(
        onnx.helper.make_node("If", ["c"], ["v"], then_branch=graph(node(value=outside())))
    ),
)


@pytest.mark.parametrize("hide", HIDDEN)
def test_weights_in_other_files_are_refused(tiny, tmp_path, hide):
    (tmp_path / "outside").write_bytes(bytes(12))
    model = onnx.load(tiny[2] / "net.onnx")
    hide(model)
    saved_onnx(model, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match="its weights are in other files"):
        load_exported(tmp_path / "net.onnx")
    if hide in (an_initializer, a_constant):
        onnxruntime.InferenceSession(tmp_path / "net.onnx")  # which would read them


def another_operator(model):
    next(one for one in model.graph.node if one.op_type == "Relu").op_type = "Abs"


def another_attribute(model):
    next(one for one in model.graph.node if one.op_type == "MaxPool").attribute[0].ints[0] = 1


def another_class(model):
    stated = next(entry for entry in model.metadata_props if entry.key == KEY)
    stated.value = stated.value.replace("dark", "bark")


@pytest.mark.parametrize("change", [another_operator, another_attribute, another_class])
def test_a_changed_graph_is_noticed(tiny, tmp_path, change):
    model = onnx.load(tiny[2] / "net.onnx")
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    load_exported(tmp_path / "net.onnx")
    change(model)
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match=r"net.onnx cannot be used: it is not what was exported"):
        load_exported(tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("old", "new"), [('type="ReLU"', 'type="Abs"'), ("dark", "bark"), ('kernel="2, 2"', 'kernel="1, 2"')]
)
def test_a_changed_xml_is_noticed(tiny, tmp_path, old, new):
    copies(tiny[2], tmp_path)
    text = (tmp_path / "net.xml").read_text()
    assert old in text
    (tmp_path / "net.xml").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"net.xml cannot be used: it is not what was exported"):
        load_exported(tmp_path / "net.xml")


@pytest.mark.parametrize("to", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["dark", "light"]}, "say 2 classes at crop 32, for which it gives scores of shapes (1, 3)"),
        ({"classes": list("abcd")}, "say 4 classes"),
        ({"crop": 64}, "say 3 classes at crop 64"),
        ({"crop": 33}, "crop 33 is not a multiple of 32"),
        ({"crop": 10**30 * 32}, "no network has crop"),
        ({"crop": None}, "cannot be read"),
        ({"width": 0}, "width must be a positive number"),
        ({"width": "wide"}, "cannot be read"),
        ({"mean_rgb": [1.0]}, "no network has"),
        ({"scale": 256}, "cannot be read"),
    ],
)
def test_metadata_that_do_not_fit_the_graph_are_refused(tiny, tmp_path, monkeypatch, to, change, message):
    """Written with a right SHA-256, by a program that is wrong."""
    run, *_ = tiny
    metadata = exporting.metadata_of(runs.load_model(run), int8=False)
    wrong = json.dumps({**json.loads(metadata.to_json()), **change})
    monkeypatch.setattr(Metadata, "to_json", lambda _: wrong)
    exporting.write_exported(runs.load_model(run), tmp_path / FILES[to], to=to)
    with pytest.raises(ValueError, match=f"{FILES[to]} cannot be used: .*{re.escape(message)}"):
        load_exported(tmp_path / FILES[to])


def test_what_a_runtime_refuses_is_said_in_one_line(tiny, tmp_path, capfd):
    """When the file is read, and when it computes."""
    model = onnx.load(tiny[2] / "net.onnx")
    next(one for one in model.graph.node if one.op_type == "Relu").op_type = "Unheard"
    saved_onnx(model, tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=r"^.*cannot be used: the runtime cannot compute net.onnx: .*Unheard.*$"):
        load_exported(tmp_path / "net.onnx")
    four_channels = np.zeros((1, 4, 32, 32), np.float32)
    for compute_by, name in ((compute_by_onnxruntime, "net.onnx"), (compute_by_openvino, "net.xml")):
        compute = compute_by(tiny[2] / name)
        with pytest.raises(ValueError, match=rf"^the runtime cannot compute {name}: .*$"):
            compute(four_channels)
    assert capfd.readouterr() == ("", "")


class Payload:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


def rewritten(file, change):
    """A .pt2 with other contents under some names."""
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    for name, data in change(entries).items():
        entries[name] = data
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def test_a_program_never_runs_what_is_in_it(tiny, tmp_path):
    """Payloads as pickles and as an expression: PyTorch runs both, here neither is looked at."""
    copies(tiny[2], tmp_path)
    touched = tmp_path / "touched"

    def pickled(entries):
        config = next(name for name in entries if name.endswith("weights_config.json"))
        table = json.loads(entries[config])
        first = table["config"]["net.conv1_1.weight"]
        first["use_pickle"] = True
        place = f"{config.rpartition('/')[0]}/{first['path_name']}"
        return {config: json.dumps(table).encode(), place: pickle.dumps(Payload(touched))}

    def expression(entries):
        graph = next(name for name in entries if name.endswith("models/model.json"))
        code = f"__import__('pathlib').Path({str(touched)!r}).touch()"
        found = re.sub(r'"expr_str": "[^"]*"', lambda _: '"expr_str": ' + json.dumps(code), entries[graph].decode())
        return {graph: found.encode()}

    for change, usable in ((pickled, False), (expression, True)):
        copies(tiny[2], tmp_path)
        rewritten(tmp_path / "net.pt2", change)
        with nullcontext() if usable else pytest.raises(ValueError, match="is not of"):
            load_exported(tmp_path / "net.pt2")
        assert not touched.exists()
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it says, it has run
            torch.export.load(tmp_path / "net.pt2")
        assert touched.exists(), "the payload is none"
        touched.unlink()


def test_no_telemetry_is_imported(tiny, tmp_path):
    """Nor while NNCF quantises, which would tell of that."""
    model = runs.load_model(tiny[0])
    exporting.write_exported(model, tmp_path / "net.xml", to="openvino", calibration=[torch.zeros(3, 32, 32)])
    assert {"openvino", "nncf"} <= sys.modules.keys()
    assert "openvino_telemetry" not in sys.modules


def test_other_devices_are_refused(tiny):
    *_, folder, _ = tiny
    assert load_exported(folder / "net.onnx", "auto").net.mean_rgb.device.type == "cpu"
    with pytest.raises(ValueError, match="computes on the CPU"):
        load_exported(folder / "net.onnx").net.to("meta")
    net = load_exported(folder / "net.onnx").net
    with pytest.raises(ValueError, match=re.escape("images must be [B, 3, 32, 32]")):
        net(images(1, 33, 32))
    with pytest.raises(ValueError, match="sides from 32"):
        net.score_map(images(1, 31, 40))
