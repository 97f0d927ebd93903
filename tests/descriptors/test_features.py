"""Features against one image at a time with hooks on the layers; files against other readers; kills."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from several_commands import status_of

import verydeep
import verydeep.descriptors.extraction
import verydeep.descriptors.features
from verydeep import Descriptor, features, write_features
from verydeep.descriptors import file_formats, files
from verydeep.images.tolerance import Tolerance, TooManyBadImagesError
from verydeep.runs.model import Model

LAYERS = ("conv3_2", "relu3_2", "pool5", "fc6", "relu7")
Q_IN_PIXELS = {224: 32, 256: 37, 288: 41, 384: 55}


def hooked(net, images, layers):
    """Return the outputs of modules while the network computes its scores densely, [C, h, w] each."""
    found = {}

    def note(name):
        def hook(module, given, value):
            found[name] = value[0]

        return hook

    handles = [getattr(net, name).register_forward_hook(note(name)) for name in layers]
    with torch.no_grad():
        net.score_map(images)
    for handle in handles:
        handle.remove()
    # Densely, a Linear layer is applied to the rows of a matrix, its outputs last.
    return {
        name: v.movedim(-1, 0) if isinstance(getattr(net, name), torch.nn.Linear) else v for name, v in found.items()
    }


def rescaled(pixels, scale):
    shorter, (height, width) = Q_IN_PIXELS[scale], pixels.shape[:2]
    size = (round(height * shorter / min(height, width)), round(width * shorter / min(height, width)))
    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    return F.interpolate(whole, size=size, mode="bilinear", antialias=True).float()


def naive(net, file, layers, *, scales, mirror):
    """Return each layer's average [C] over positions and mirror images, for each scale."""
    found = {name: [] for name in layers}
    for scale in scales:
        image = rescaled(np.array(Image.open(file)), scale)
        views = [hooked(net, view, layers) for view in ([image, image.flip(3)] if mirror else [image])]
        for name in layers:
            means = [view[name].double().flatten(1).mean(dim=1) for view in views]
            found[name].append((sum(means) / len(means)).numpy())
    return found


def close(found, expected):
    """Assert that they agree within 1e-5 of the largest number."""
    return np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("pool", ["avg", "stack"])
@pytest.mark.parametrize(("scales", "mirror"), [((256,), False), ((288, 224, 384), True)])
def test_features_are_those_of_hooks_on_single_images(model, photos, monkeypatch, pool, scales, mirror):
    monkeypatch.setattr(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", 4)
    descriptor = Descriptor(layers=LAYERS, scales=scales, pool=pool, mirror=mirror)
    found = list(features(model, photos, descriptor=descriptor))
    assert [one.id for one in found] == [
        *(f"ant/{n}.png" for n in ("0", "10", "2", "4", "6", "8")),
        *(f"bee/{n}.png" for n in range(1, 10, 2)),
    ]
    assert [one.label for one in found] == 6 * [0] + 5 * [1]
    assert [one.index for one in found] == list(range(11))
    for one in found:
        expected = naive(model.net, photos / one.id, LAYERS, scales=sorted(scales), mirror=mirror)
        for name in LAYERS:
            together = np.concatenate(expected[name]) if pool == "stack" else np.mean(expected[name], axis=0)
            assert one.values[name].dtype == np.float32
            assert close(one.values[name], together), name


def test_the_mirror_follows_the_training_and_vectors_are_normalised(model, photos):
    file = photos / "ant" / "0.png"
    unlike = Model(net=model.net, classes=model.classes, scale="256", flip=False)
    for one, flip in ((model, True), (unlike, False)):
        (expected,) = naive(model.net, file, ["pool5"], scales=[256], mirror=flip)["pool5"]
        (plain,) = features(one, file, descriptor=Descriptor(layers=["pool5"]))
        assert close(plain.values["pool5"], expected)
        (unit,) = features(one, file, descriptor=Descriptor(layers=["pool5"], normalise=True))
        assert close(unit.values["pool5"], expected / np.sqrt((expected**2).sum()))


@pytest.mark.parametrize(
    ("most", "batches"), [(1.9, 10 * [1]), (2, 5 * [2]), (5.9, [4, 4, 2]), (6, [6, 4]), (100, [10])]
)
def test_images_go_through_with_their_mirror_images_if_so_many_pixels_may(model, tmp_path, monkeypatch, most, batches):
    """`most` is stated in views, of which five images of one size have ten."""
    seen, compute, pixels = [], model.net.activations, np.random.default_rng(0).integers(0, 256, (5, 40, 40, 3))
    for number, image in enumerate(pixels.astype(np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(
        model.net, "activations", lambda x, *more, **how: seen.append(len(x)) or compute(x, *more, **how)
    )
    monkeypatch.setattr(verydeep.descriptors.features, "pixels_at_once", lambda *_: int(most * Q_IN_PIXELS[256] ** 2))
    found = list(features(model, tmp_path, descriptor=Descriptor(layers=("pool5", "relu7"), scales=[256], mirror=True)))
    assert seen == batches
    for one in found:
        expected = naive(model.net, tmp_path / one.id, ["pool5", "relu7"], scales=[256], mirror=True)
        assert all(close(one.values[name], value[0]) for name, value in expected.items())


def test_without_pooling_layers_are_those_of_the_centre_crop(model, photos):
    descriptor = Descriptor(layers=("relu3_2", "relu7"), pool="none")
    for one in features(model, photos, descriptor=descriptor):
        image = rescaled(np.array(Image.open(photos / one.id)), 256)
        top, left = (image.shape[2] - 32) // 2, (image.shape[3] - 32) // 2
        expected = hooked(model.net, image[:, :, top : top + 32, left : left + 32], ["relu3_2", "relu7"])
        assert one.values["relu3_2"].shape == (26, 8, 8)
        assert close(one.values["relu3_2"], expected["relu3_2"].numpy())
        assert close(one.values["relu7"], expected["relu7"].numpy().ravel())


@pytest.mark.parametrize(("network", "batch_norm"), [("A-LRN", False), ("C", True)])
def test_every_layer_can_be_asked_for(photos, network, batch_norm):
    net = verydeep.vgg(network, classes=3, crop=64, width=0.05, batch_norm=batch_norm)
    one = Model(net=net, classes=("a", "b", "c"), scale="256", flip=True)
    for pool in ("none", "stack"):
        (found,) = features(one, photos / "ant" / "0.png", descriptor=Descriptor(layers=net.layer_names, pool=pool))
        assert tuple(found.values) == net.layer_names
        assert all(np.isfinite(values).all() for values in found.values.values())


def test_sources_of_other_classes_and_of_none(model, photos, tmp_path):
    of_folder = {one.id: one for one in features(model, photos)}
    pictures = [np.asarray(Image.open(photos / "bee" / f"{n}.png")) for n in (1, 3)]
    for data, names in (
        (photos / "bee", ["1.png", "3.png", "5.png", "7.png", "9.png"]),
        ([photos / "bee" / "1.png", pictures[1]], ["1.png", "3.png"]),
    ):
        found = list(features(model, data))
        assert [one.label for one in found] == len(names) * [-1]
        for one, name in zip(found, names, strict=True):
            assert close(one.values["relu7"], of_folder[f"bee/{name}"].values["relu7"])
    shutil.copytree(photos / "bee", tmp_path / "other" / "train" / "zebra")
    shutil.copytree(photos / "ant", tmp_path / "other" / "train" / "yak")
    shutil.copytree(photos / "ant", tmp_path / "other" / "val" / "zebra")
    found = list(features(model, str(tmp_path / "other"), split="val"))
    assert [one.label for one in found] == 6 * [1]
    with pytest.raises(ValueError, match="has splits: say which of train, val"):
        features(model, str(tmp_path / "other"))
    with pytest.raises(ValueError, match="have no splits"):
        features(model, photos / "bee", split="val")


@pytest.mark.parametrize(
    ("descriptor", "problem"),
    [
        ({"layers": ["fc9", "fc7"]}, "no layer 'fc9': this network has conv1_1, "),
        ({"layers": []}, "layers are one or more distinct ones"),
        ({"layers": ["fc7", "fc7"]}, "layers are one or more distinct ones"),
        ({"scales": [100]}, "are distinct whole numbers from there up"),
        ({"scales": [256, 256]}, "are distinct whole numbers from there up"),
        ({"scales": "paper", "pool": "none"}, "of one scale, not of 224, 256, 288"),
        ({"pool": "max"}, "pool is one of avg, stack, none, not max"),
        ({"dtype": "int8"}, "dtype is one of float32, float16, not int8"),
        ({"pool": "none", "mirror": True}, "they need pool avg or stack"),
    ],
)
def test_impossible_choices_are_refused_before_any_work(model, photos, descriptor, problem):
    with pytest.raises(ValueError, match=problem):
        features(model, photos, descriptor=Descriptor(**descriptor))


def test_a_model_that_is_loaded_is_not_called_by_all_of_its_layers(model, photos):
    with pytest.raises(ValueError, match=r"^the model was imported without fc7, so relu7 would be of random weights"):
        features(replace(model, random_layers=("fc7",)), photos)


def test_an_image_too_large_to_compute_whole_is_not_called_broken(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(verydeep.descriptors.extraction, "MOST_PIXELS", 37 * 50)
    options = {"descriptor": Descriptor(scales=[256]), "tolerance": Tolerance(max_bad=50)}
    found = write_features(model, photos, tmp_path / "f.parquet", **options)
    assert found.unusable == {  # 64 x 41 pixels, so 58 x 37
        f"{name}.png": "too large (37 x 58 pixels when rescaled, more than the 1,850 that are computed at once: "
        "take smaller scales)"
        for name in ("ant/4", "bee/9")
    }
    assert len(list(features(model, photos, descriptor=Descriptor(pool="none")))) == 11  # crops


# files


@pytest.fixture
def with_a_bad_one(photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    (folder / "ant" / "3.png").write_bytes(b"broken")
    return folder


def test_both_kinds_of_files_hold_the_features(model, run, photos, with_a_bad_one, tmp_path, monkeypatch):
    monkeypatch.setattr(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", 5)
    options = {
        "descriptor": Descriptor(layers=("relu7", "pool5"), scales=(224, 256)),
        "tolerance": Tolerance(max_bad=10),
    }
    rows = list(features(model, with_a_bad_one, **options))
    for row, unspoilt in zip(rows, features(model, photos, descriptor=options["descriptor"]), strict=True):
        assert (row.id, row.label) == (unspoilt.id, unspoilt.label)
        assert close(row.values["relu7"], unspoilt.values["relu7"])
    files = [tmp_path / f"f.{kind}" for kind in ("safetensors", "parquet")]
    found = [write_features(run, with_a_bad_one, file, **options) for file in files]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.parquet", "f.safetensors", "photos"]
    for one in found:
        assert one.unusable == {"ant/3.png": "undecodable (not an image of a known format)"}
        assert (one.images, one.layers, one.scales, one.mirror) == (
            11,
            {"relu7": (410,), "pool5": (51,)},
            (224, 256),
            True,
        )
    tensors, table = load_file(files[0]), pyarrow.parquet.read_table(files[1])
    with safe_open(files[0], "numpy") as opened:
        about = {key: json.loads(text) for key, text in opened.metadata().items()}
        assert np.array_equal(opened.get_slice("relu7")[3:5], tensors["relu7"][3:5])
    ids = about.pop("ids")
    assert about == {key.decode(): json.loads(text) for key, text in table.schema.metadata.items()}
    assert (about["classes"], about["layers"], about["scales"]) == (["ant", "bee"], ["relu7", "pool5"], [224, 256])
    assert about["weights_sha256"] == model.weights_sha256
    assert about["unusable"] == found[0].unusable
    assert ids == table["id"].to_pylist() == [row.id for row in rows]
    assert tensors["labels"].tolist() == table["label"].to_pylist() == [row.label for row in rows]
    for name in ("relu7", "pool5"):
        expected = np.stack([row.values[name] for row in rows])
        assert np.array_equal(tensors[name], expected)
        assert np.array_equal(np.array(table[name].to_pylist(), dtype=np.float32), expected)


@pytest.mark.parametrize("kind", ["safetensors", "parquet"])
def test_half_precision_and_layers_in_space(model, photos, tmp_path, kind):
    file = tmp_path / f"f.{kind}"
    whole = np.stack([one.values["pool4"] for one in features(model, photos / "bee", descriptor=of_space("float32"))])
    found = write_features(model, photos / "bee", file, descriptor=of_space("float16"))
    assert found.layers == {"pool4": (51, 2, 2)}
    if kind == "safetensors":
        tensors = load_file(file)
        assert list(tensors) == ["pool4"]  # no classes, no labels
        values = tensors["pool4"]
    else:
        table = pyarrow.parquet.read_table(file)
        assert table.column_names == ["id", "pool4"]
        values = np.array(table["pool4"].to_pylist(), dtype=np.float16).reshape(whole.shape)
    assert np.array_equal(values, whole.astype(np.float16))


def of_space(dtype):
    return Descriptor(layers=["pool4"], pool="none", dtype=dtype)


def test_too_many_bad_images_stop_it_and_computed_features_are_kept(model, with_a_bad_one, tmp_path, monkeypatch):
    monkeypatch.setattr(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", 2)
    file = tmp_path / "f.parquet"
    with pytest.raises(TooManyBadImagesError, match="1 of 12 images cannot be used"):
        list(features(model, with_a_bad_one))
    with pytest.raises(TooManyBadImagesError, match="1 of 12 images cannot be used"):
        write_features(model, with_a_bad_one, file)
    assert not file.exists()
    kept = sorted(path.name for path in (tmp_path / "f.parquet.parts").glob("*/*"))
    assert kept == ["000000.safetensors", "000001.safetensors"]
    with pytest.raises(TooManyBadImagesError, match="1 of 12 images cannot be used"):
        write_features(model, with_a_bad_one, file)
    (with_a_bad_one / "ant" / "3.png").unlink()  # these are other images, of which no chunk is kept
    found = write_features(model, with_a_bad_one, file)
    assert (found.images, found.unusable) == (11, {})
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("f.")] == ["f.parquet"]


@pytest.mark.parametrize("changed", ["an image", "the network"])
def test_chunks_of_other_images_and_weights_are_not_used(model, tmp_path, monkeypatch, changed):
    """The names, sizes and the file of weights stay the same."""
    monkeypatch.setattr(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", 2)
    folder, file = tmp_path / "photos", tmp_path / "f.safetensors"
    folder.mkdir()
    for name in "abcdx":
        Image.new("RGB", (40, 40), (200, 10 * ord(name) % 256, 0)).save(folder / f"{name}.ppm")
    (folder / "x.ppm").write_bytes(b"broken")
    mine = replace(model, net=copy.deepcopy(model.net))
    options = {"descriptor": Descriptor(layers=["fc7"])}
    with pytest.raises(TooManyBadImagesError):
        write_features(mine, folder, file, **options)
    assert len(list(tmp_path.glob("f.safetensors.parts/*/*"))) == 3
    if changed == "an image":
        Image.new("RGB", (40, 40), (0, 0, 250)).save(folder / "a.ppm")
    else:
        with torch.no_grad():
            mine.net.fc7.bias += 1
    options["tolerance"] = Tolerance(max_bad=50)
    write_features(mine, folder, file, **options)
    expected = [one.values["fc7"] for one in features(mine, folder, **options)]
    assert np.array_equal(load_file(file)["fc7"], expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.safetensors", "photos"]


def test_other_files_are_not_deleted_or_overwritten(model, photos, tmp_path):
    file, notes = tmp_path / "f.parquet", tmp_path / "f.parquet.parts" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    held = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    command = [sys.executable, "-c", held, tmp_path / ".f.parquet.lock"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(OSError, match=r"f\.parquet is being written by another process: wait for it"):
            write_features(model, photos, file)
        other.kill()
    write_features(model, photos, file)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "f.parquet",
        "f.parquet.parts",
        "f.parquet.parts/notes.txt",
    ]


@pytest.mark.parametrize("place", ["classes", "a class", "flat"])
@pytest.mark.parametrize("kind", ["safetensors", "parquet"])
def test_a_file_among_the_images_is_continued_too(run, photos, tmp_path, monkeypatch, place, kind):
    """The folder that keeps its work is not a class, and changes nothing about which images there are."""
    source = tmp_path / "photos"
    shutil.copytree(photos / "ant" if place == "flat" else photos, source)
    file = (source / "ant" if place == "a class" else source) / f"f.{kind}"
    monkeypatch.setattr(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", 2)
    write_features(run, source, tmp_path / f"whole.{kind}")
    computed, extract = [], files.extract

    def stopped(extraction, indices, decoder):
        computed.append(indices.start)
        if computed == [0, 2]:
            raise KeyboardInterrupt
        return extract(extraction, indices, decoder)

    monkeypatch.setattr(files, "extract", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_features(run, source, file)
    assert len(list(source.rglob(f"f.{kind}.parts/*/*"))) == 1
    write_features(run, source, file)
    assert computed == [0, 2, *range(2, 6 if place == "flat" else 11, 2)]
    assert file.read_bytes() == (tmp_path / f"whole.{kind}").read_bytes()
    assert not list(source.rglob("*.parts"))


def test_names_too_long_for_the_header_are_refused_before_the_work(model, photos, tmp_path, monkeypatch):
    """Names are counted as they are written: in UTF-8, and with escapes for what is not valid text."""
    names = [10 * "\N{CJK UNIFIED IDEOGRAPH-6F22}" + "\udce9" + str(n) for n in range(5)]
    (tmp_path / "source" / "c").mkdir(parents=True)
    for name in names:
        shutil.copy(photos / "ant" / "0.png", tmp_path / "source" / "c" / f"{name}.png")
    ids, source = [f"c/{name}.png" for name in names], tmp_path / "source"
    file, calls = tmp_path / "f.safetensors", []
    limit = 5 * (30 + 7 + len('c/0.png\\"\\",'))
    assert sum(map(len, ids)) < 0.5 * limit
    monkeypatch.setattr(file_formats, "LONGEST_HEADER", limit)
    monkeypatch.setattr(files, "extract", lambda *_: calls.append(1))
    with pytest.raises(ValueError, match=r"too long for a \.safetensors file.*name a \.parquet one"):
        write_features(model, source, file)
    assert calls == []
    monkeypatch.undo()
    write_features(model, source, file)
    with safe_open(file, "numpy") as opened:
        assert json.loads(opened.metadata()["ids"]) == ids
    assert ids[0][:12].encode() in file.read_bytes()
    header = int.from_bytes(file.read_bytes()[:8], "little")
    monkeypatch.setattr(file_formats, "LONGEST_HEADER", header - 8)
    with pytest.raises(ValueError, match="too long"):
        write_features(model, source, tmp_path / "g.safetensors")


# kills

KILLED = """
import json, os, signal, sys
from unittest.mock import patch
import torch
import verydeep.machine.atomic
from verydeep.descriptors import chunks, extraction, file_formats, files
from verydeep import Descriptor, write_features

torch.set_num_threads(1)
run, photos, kinds, places = json.loads(sys.argv[1])
descriptor = Descriptor(layers=("relu7", "pool5"), scales=(224, 256))
extraction.IMAGES_AT_ONCE_ON_CPU = 3  # four chunks

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def nth(number, function):
    def counted(*arguments, **options):
        counted.left -= 1
        return kill() if counted.left == 0 else function(*arguments, **options)
    counted.left = number
    return counted

def at(place):
    match place:
        case "computing": return patch.object(files, "extract", nth(2, files.extract))
        case "keeping": return patch.object(verydeep.machine.atomic.os, "fsync", nth(3, os.fsync))
        case "writing": return patch.object(chunks, "read_layer", nth(5, chunks.read_layer))
        case "clearing": return patch.object(chunks, "clear", kill)
        case _: return patch.object(file_formats, "LONGEST_HEADER", file_formats.LONGEST_HEADER)

def written(folder, kind, place):
    told, tell = os.pipe()
    pid = os.fork()
    if not pid:
        os.makedirs(folder, exist_ok=True)
        os.chdir(folder)
        with at(place):
            compute = files.extract
            files.extract = lambda *given: (os.write(tell, b"."), compute(*given))[1]
            write_features(run, photos, f"f.{kind}", descriptor=descriptor)
        os._exit(0)
    os.close(tell)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return place, status, len(os.read(told, 100)), sorted(os.listdir(folder))

print(json.dumps({
    kind: [written(f"whole-{kind}", kind, "nowhere"), *(written(f"killed-{kind}", kind, place) for place in places)]
    for kind in kinds
}))
"""


def test_killed_several_times_it_ends_with_the_same_bytes(run, photos, tmp_path):
    kinds, places = ["safetensors", "parquet"], ["computing", "keeping", "writing", "clearing", "nowhere"]
    order = json.dumps([str(run), str(photos), kinds, places])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(verydeep.__file__).parents[1])}
    command = [sys.executable, "-W", "ignore", "-c", KILLED, order]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, env=environment)
    assert done.returncode == 0, done.stderr
    died = -signal.SIGKILL
    for kind, (left_alone, *found) in json.loads(done.stdout).items():
        name = f"f.{kind}"
        assert left_alone == ["nowhere", 0, 4, [name]]
        assert [each[:3] for each in found] == [
            ["computing", died, 2],  # and the first chunk is kept
            ["keeping", died, 2],  # the second is in its place, the third not yet
            ["writing", died, 2],
            ["clearing", died, 0],
            ["nowhere", 0, 0],
        ]
        assert [name in each[3] for each in found] == [False, False, False, True, True]
        assert f".{name}." in "".join(found[2][3])  # it was half written
        assert found[-1][3] == [name]
        whole, killed = ((tmp_path / f"{which}-{kind}" / name).read_bytes() for which in ("whole", "killed"))
        assert killed == whole


# the command


def test_the_command_writes_a_file_and_describes_it(run, photos, tmp_path, capsys):
    file, told = tmp_path / "f.safetensors", tmp_path / "f.json"
    options = ["--layers", "fc7,pool5", "--scales", "256,384", "--pool", "stack", "--no-mirror", "--normalise"]
    assert status_of("features", run, photos, "--out", file, *options, "--json", told) == 0
    text = capsys.readouterr().out
    assert f"{file}: 11 images at Q = 256, 384" in text
    assert "mirror" not in text
    found = json.loads(told.read_text())
    assert found["layers"] == {"fc7": [820], "pool5": [102]}
    lengths = np.linalg.norm(load_file(file)["fc7"], axis=1)
    assert lengths == pytest.approx(np.ones(11), abs=1e-5)
    for arguments, problem in (
        ([photos, "--out", tmp_path / "f.pt"], "ends in .safetensors or .parquet"),
        ([photos, "--out", file, "--json", file], "cannot hold both"),
        ([photos, "--out", file, "--layers", "fc9"], "no layer 'fc9'"),
        ([photos, "--out", file, "--scales", "many"], "--scales takes whole numbers"),
        ([tmp_path / "nothing", "--out", file], "no folder"),
        ([photos], "--out"),
    ):
        assert status_of("features", run, *arguments) == 2
        assert problem in capsys.readouterr().err
