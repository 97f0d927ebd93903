"""Keys of cached features, continuing from them, and notes on images."""

import json
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from random_networks import save_network
from several_commands import status_of as run
from shard_files import write_shard

from verydeep.descriptors import chunks, files
from verydeep.descriptors.features import _too_large, any_usable_now
from verydeep.exported_networks import run_or_file
from verydeep.exported_networks.exported import write_exported
from verydeep.images.image_kinds import missing_for_heif
from verydeep.images.open import open_for_testing
from verydeep.images.tolerance import Tolerance, TooManyBadImagesError
from verydeep.runs.model import load_model, save_model
from verydeep.transfer_learning import features as transfer_features
from verydeep.transfer_learning import transfer as transfer_module
from verydeep.transfer_learning.classify import classify
from verydeep.transfer_learning.features import pixel_features, untrained
from verydeep.transfer_learning.labels import labelled_images, transfer_splits
from verydeep.transfer_learning.options import TransferOptions
from verydeep.transfer_learning.paper import TABLE_11
from verydeep.transfer_learning.transfer import transfer

CLASSES, EACH = ("ant", "bee"), 5
FEW = TransferOptions(train=3, test=2, splits=1)
BASELINE = replace(FEW, baseline=True)


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A network, pictures whose classes differ by their colour, a cache of their own, and the files written there."""
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = rng.integers(0, 40, (40, 44, 3))
            pixels[..., label] += 210
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.bmp")
    written, write = [], transfer_features.write_features

    def counted(model, source, file, **more):
        written.append(file)
        return write(model, source, file, **more)

    monkeypatch.setattr(transfer_features, "write_features", counted)
    return SimpleNamespace(
        place=tmp_path, photos=tmp_path / "photos", run=save_network(tmp_path / "A"), written=written, patch=monkeypatch
    )


def vectors_of(made, runs, **asked):
    """Return the result of `transfer`, and the vectors of each descriptor."""
    kept, original = [], transfer_module.svm_outcomes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            transfer_module,
            "svm_outcomes",
            lambda one, *given, **more: kept.append(one) or original(one, *given, **more),
        )
        found = transfer(runs, data=made.photos, **asked)
    return found, [one.images.vectors for one in kept[0]]


def configured(made, **changes):
    file = made.run / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def mirrored_file(made):
    file = made.photos / CLASSES[0] / "0.bmp"
    Image.open(file).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(file)  # of the same size


def repeated(made):
    """Repeat the transfer."""


CHANGES = {
    "nothing": (repeated, {}, 0),
    "weights": (lambda made: save_network(made.run, seed=1), {}, 2),
    "network": (lambda made: configured(made, network="A-LRN"), {}, 2),
    "scale": (lambda made: configured(made, scale="320"), {}, 2),
    "flip": (lambda made: configured(made, flip=False), {}, 2),
    "file": (mirrored_file, {}, 2),
    "version": (lambda made: made.patch.setattr(transfer_features, "__version__", "0"), {}, 2),
    "PyTorch": (lambda made: made.patch.setattr(torch, "__version__", "9.9.0"), {}, 2),
    "device": (
        lambda made: made.patch.setattr(transfer_features, "torch_device", lambda _: SimpleNamespace(type="other")),
        {},
        2,
    ),
    "scales": (repeated, {"options": replace(BASELINE, scales=(256, 320))}, 2),
    "stacked scales": (repeated, {"options": replace(BASELINE, scales=(256,), pool="stack")}, 2),
    "seed": (repeated, {"options": replace(BASELINE, seed=1)}, 1),
    "max_pixels": (repeated, {"tolerance": Tolerance(max_pixels=10**6)}, 2),
    "max_bad": (repeated, {"tolerance": Tolerance(max_bad=50)}, 0),
    "splits": (repeated, {"options": replace(BASELINE, splits=2, train=2, test=1)}, 0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_cached_features_depend_on_all_their_inputs(made, change):
    transfer(made.run, data=made.photos, options=BASELINE)
    assert len(set(made.written)) == 2
    alter, asked, anew = CHANGES[change]
    alter(made)
    transfer(made.run, data=made.photos, **{"options": BASELINE, **asked})
    assert (len(made.written), len(set(made.written))) == (2 + anew, 2 + anew)


def test_an_untrained_network_has_other_features_for_each_seed(made):
    _, (trained, drawn, _) = vectors_of(made, made.run, options=BASELINE)
    _, (again, other, _) = vectors_of(made, made.run, options=replace(BASELINE, seed=1))
    assert np.array_equal(trained, again)
    assert not np.allclose(trained, drawn, atol=1e-3)
    assert not np.allclose(drawn, other, atol=1e-3)
    model = untrained(load_model(made.run), seed=1)
    (made.place / "drawn").mkdir()
    save_model(model, made.place / "drawn" / "model")
    _, (wanted,) = vectors_of(made, made.place / "drawn", options=FEW)
    assert np.array_equal(other, wanted)


def test_an_untrained_network_has_the_same_architecture(made):
    old = load_model(save_network(made.place / "bn", batch_norm=True))
    new = untrained(old, seed=0)
    assert {name: value.shape for name, value in new.net.state_dict().items()} == {
        name: value.shape for name, value in old.net.state_dict().items()
    }
    assert new.net.architecture.batch_norm
    assert not new.net.training


def test_tolerating_more_bad_images_continues_and_tolerating_fewer_is_refused(made, monkeypatch):
    (made.photos / CLASSES[0] / "9.bmp").write_bytes(b"")
    more = Tolerance(max_bad=10)
    with pytest.raises(TooManyBadImagesError, match="1 of 11 images cannot be used"):
        transfer(made.run, data=made.photos, options=FEW)
    (parts,) = (made.place / "cache" / "features").iterdir()
    assert parts.name.endswith(".parts")
    with monkeypatch.context() as patch:
        patch.setattr("verydeep.descriptors.files.extract", None)  # nothing is left to compute
        found = transfer(made.run, data=made.photos, options=FEW, tolerance=more)
    assert (found.n, len(found.unusable)) == (10, 1)
    (file,) = (made.place / "cache" / "features").glob("*.safetensors")
    assert file.suffix == ".safetensors"
    transfer(made.run, data=made.photos, options=FEW, tolerance=Tolerance(max_bad=20))
    assert len(made.written) == 2
    with pytest.raises(TooManyBadImagesError, match=r"1 of 11 images.*9\.bmp: undecodable \([^()]*\)\)"):
        transfer(made.run, data=made.photos, options=FEW, tolerance=Tolerance(max_bad=9))
    assert len(made.written) == 2
    transfer(made.run, data=made.photos, options=FEW, tolerance=more)


@pytest.mark.parametrize("max_bad", [1, 10])
def test_an_image_that_could_not_be_read_is_read_when_it_is_there_again(made, max_bad):
    """As on a server that was away: its contents are those that the kept features are known by."""
    file, options = made.photos / CLASSES[0] / "0.bmp", {"options": FEW, "tolerance": Tolerance(max_bad=max_bad)}
    content, read_once = file.read_bytes(), transfer_features.read_once

    def then_gone(source):
        read = read_once(source)
        assert read.fingerprint  # for which the sizes of files are asked
        file.unlink()
        return read

    with made.patch.context() as patch, pytest.raises(TooManyBadImagesError) if max_bad < 10 else nullcontext():
        patch.setattr(transfer_module, "read_once", then_gone)
        assert list(transfer(made.run, data=made.photos, **options).unusable.values()) == [
            "unreadable (No such file or directory)"
        ]
    file.write_bytes(content)
    again = transfer(made.run, data=made.photos, **options)
    assert (again.n, again.unusable) == (10, {})
    assert len(made.written) == 2
    transfer(made.run, data=made.photos, **options)
    assert len(made.written) == 2


def test_an_image_that_still_cannot_be_read_is_not_a_reason_to_compute_again(made):
    file, read_once = made.photos / CLASSES[0] / "0.bmp", transfer_features.read_once
    content = file.read_bytes()

    def gone(source):
        assert source.fingerprint
        file.unlink()
        return read_once(source)

    made.patch.setattr(transfer_module, "read_once", gone)
    with pytest.raises(TooManyBadImagesError, match="unreadable"):
        transfer(made.run, data=made.photos, options=FEW)
    made.patch.setattr(files, "extract", None)  # nothing is left to compute
    for _ in range(2):
        file.write_bytes(content)
        assert transfer(made.run, data=made.photos, options=FEW, tolerance=Tolerance(max_bad=10)).n == 9
    assert len(made.written) == 2


def test_images_that_there_was_no_memory_for_are_computed_when_there_is_some(made):
    """As on a device that another process had filled; how much it has is not what kept features are known by."""
    with made.patch.context() as patch:
        for most, compute in ((40, files.extract), (40, None), (39, None)):  # later there is nothing to compute again
            patch.setattr("verydeep.descriptors.extraction.MOST_PIXELS", 37 * most)  # images are 37 x 41
            patch.setattr(files, "extract", compute)
            with pytest.raises(TooManyBadImagesError, match="more than the 1,480 that are computed at once"):
                transfer(made.run, data=made.photos, options=FEW)
    assert transfer(made.run, data=made.photos, options=FEW).n == 10


@pytest.mark.parametrize(("most", "usable"), [(41 * 37 - 1, False), (41 * 37, True)])
def test_features_that_were_kept_without_an_image_are_computed_again_if_it_fits(most, usable):
    refusal = _too_large("a.bmp", torch.zeros(3, 37, 41), 1480)
    assert any_usable_now([], {"a.bmp": refusal.reason}, range(0), most_pixels=most) == usable


def test_images_that_only_lacked_a_package_are_computed_once_it_is_there(made):
    (made.photos / CLASSES[0] / "9.bmp").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    for package in (None, SimpleNamespace(register_heif_opener=lambda: None)):
        with made.patch.context() as patch:
            patch.setitem(sys.modules, "pillow_heif", package)
            missing_for_heif.cache_clear()
            with pytest.raises(TooManyBadImagesError) as caught:
                transfer(made.run, data=made.photos, options=FEW)
            assert ("HEIC needs the package" in str(caught.value)) == (package is None)
    missing_for_heif.cache_clear()


def test_shards_of_another_name_are_described_under_it(made):
    """They have the fingerprint and the contents that they had, and images of other names."""
    members = []
    for file in sorted(made.photos.rglob("*.bmp")):
        key = f"{file.parent.name}-{file.stem}"
        members += [(f"{key}.bmp", file.read_bytes()), (f"{key}.cls", file.parent.name.encode())]
    shard = write_shard(made.place / "one.tar", members)
    before = transfer(made.run, data=str(shard), options=FEW)
    after = transfer(made.run, data=str(shard.rename(made.place / "two.tar")), options=FEW)
    assert (after.n, after.descriptors[0].means) == (before.n, before.descriptors[0].means)
    assert before.n == 10


def test_unusable_images_of_every_descriptor_are_reported(made):
    (made.photos / CLASSES[0] / "9.bmp").write_bytes(b"")
    other = save_network(made.place / "B", name="B")
    found = transfer([made.run, other], data=made.photos, options=FEW, tolerance=Tolerance(max_bad=10))
    assert [Path(name).name for name in found.unusable] == ["9.bmp"]


def test_pixels_leave_out_images_that_are_too_large(made):
    Image.new("RGB", (50, 50)).save(made.photos / CLASSES[0] / "9.bmp")
    source = open_for_testing(str(made.photos), None).source("all")
    found = pixel_features(source, Tolerance(max_bad=10, max_pixels=40 * 44))
    assert [Path(name).name for name in found.unusable] == ["9.bmp"]
    assert len(found.ids) == len(found.vectors) == 10


def test_too_few_images_are_refused_before_any_work(made, monkeypatch):
    for work in ("read_once", "compared_descriptors"):
        monkeypatch.setattr(transfer_module, work, None)
    with pytest.raises(ValueError, match="needs 6 images of each class or more"):
        transfer(made.run, data=made.photos, options=replace(FEW, train=5))


def test_a_source_that_is_open_is_not_called_by_all_of_its_images(made):
    source = open_for_testing(str(made.photos), None).source("all")
    with pytest.raises(ValueError, match=r"^the source has fewer than two classes"):
        transfer(made.run, data=replace(source, classes=source.classes[:1]), options=FEW)


def test_only_the_papers_networks_have_its_rows(made):
    runs = {
        name: save_network(made.place / name, name=name[0], seed=seed) for seed, name in enumerate(("D", "D2", "E"))
    }
    rows = {row.networks: row for row in TABLE_11}
    twice = transfer([runs["D"], runs["D2"]], data=made.photos, options=FEW)
    assert [one.paper for one in twice.descriptors] == [rows["D"], rows["D"], None]
    both = transfer([runs["E"], runs["D"]], data=made.photos, options=FEW)
    assert [one.paper for one in both.descriptors] == [rows["E"], rows["D"], rows["D + E"]]


def test_a_run_is_stacked_once_whatever_it_is_called(made, monkeypatch):
    (made.place / "link").symlink_to(made.run)
    monkeypatch.chdir(made.place)
    for other in (made.place / "link", Path("A"), f"{made.run}/../A/"):
        with pytest.raises(ValueError, match="name one or more runs, each once"):
            transfer([made.run, other], data=made.photos, options=FEW)
    with pytest.raises(ValueError, match="name one or more runs, each once"):
        transfer([], data=made.photos, options=FEW)
    for one in (made.run, str(made.run)):
        assert transfer(one, data=made.photos, options=FEW).runs == (str(made.run),)


def test_a_run_with_random_layers_needs_others(made, capsys):
    save_network(made.run, random_layers=("fc6", "fc7", "fc8"))
    assert run("transfer", made.run, "--data", made.photos, "--train", 3) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "relu7 would be of random weights: take a run with fc6 and fc7, or" in line
    save_network(made.run, random_layers=("fc7", "fc8"))
    assert run("transfer", made.run, "--data", made.photos, "--train", 3) == 2
    assert "take a run with fc7, or of this one drop6 or an earlier layer" in capsys.readouterr().err
    save_network(made.run, random_layers=("fc8",))
    assert run("transfer", made.run, "--data", made.photos, "--train", 3) == 0


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_an_exported_file_is_tested_as_its_run_and_has_features_of_its_own(made, name):
    file, model = made.place / name, load_model(made.run)
    write_exported(model, file, to="onnx" if name == "net.onnx" else "torch")
    _, (trained, drawn, _) = vectors_of(made, made.run, options=BASELINE)
    _, (again, drawn_again, _) = vectors_of(made, file, options=BASELINE)
    assert np.allclose(again, trained, atol=1e-5)
    assert np.array_equal(drawn_again, drawn)
    assert len(set(made.written)) == 3
    transfer(file, data=made.photos, options=FEW)
    assert len(made.written) == 3
    stacked, _ = vectors_of(made, [made.run, file], options=FEW)
    assert [one.kind for one in stacked.descriptors] == ["network", "network", "stacked"]


def test_a_file_that_another_processor_computes_in_another_precision_has_features_of_its_own(made, monkeypatch):
    """A file for bfloat16 is computed in float32 where the processor does not multiply in bfloat16."""
    file, load = made.place / "net.onnx", run_or_file.load_exported
    write_exported(load_model(made.run), file, to="onnx")

    def in_bfloat16(*given):
        loaded = load(*given)
        loaded.net.precision = "bf16"
        return loaded

    transfer(file, data=made.photos, options=FEW)
    with monkeypatch.context() as patch:
        patch.setattr(run_or_file, "load_exported", in_bfloat16)
        transfer(file, data=made.photos, options=FEW)
        assert len(set(made.written)) == 2
        transfer(file, data=made.photos, options=FEW)
    transfer(file, data=made.photos, options=FEW)
    assert len(made.written) == 2


def test_a_classifier_takes_a_program_and_no_file_without_weights(made, monkeypatch):
    files = {"torch": made.place / "net.pt2", "onnx": made.place / "net.onnx"}
    for to, file in files.items():
        write_exported(load_model(made.run), file, to=to)
    out, told = made.place / "classifier", []
    for one in (made.run, files["torch"]):
        transfer(one, data=made.photos, options=FEW, out=out)
        told.append([found.scores for found in classify(out, made.photos)])
    assert np.allclose(*told, atol=1e-4)
    monkeypatch.setattr(transfer_module, "read_once", None)
    with pytest.raises(ValueError, match=r"^a classifier has copies of its networks, which .*net\.onnx cannot give: "):
        transfer([made.run, files["onnx"]], data=made.photos, options=FEW, out=out)


HOLD = """
import fcntl, sys
lock = open(sys.argv[1], "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_another_process_that_computes_the_same_is_reported(made, capsys):
    transfer(made.run, data=made.photos, options=FEW)
    (file,) = made.written
    file.unlink()
    lock = file.with_name(f".{file.name}.lock")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "held\n"
        assert run("transfer", made.run, "--data", made.photos, "--train", 3) == 1
    told = "verydeep: another verydeep transfer computes the same features: wait for it"
    assert capsys.readouterr().err.splitlines() == [told]
    assert run("transfer", made.run, "--data", made.photos, "--train", 3) == 0


def test_a_cache_that_cannot_be_written_is_named(made, capsys, monkeypatch):
    (made.place / "file").write_text("")
    monkeypatch.setenv("VERYDEEP_CACHE", str(made.place / "file" / "cache"))
    folder = made.place / "file" / "cache" / "features"
    assert run("transfer", made.run, "--data", made.photos, "--train", 3) == 1
    wanted = f"verydeep: features cannot be kept in {folder}: Not a directory (VERYDEEP_CACHE names another folder)"
    assert capsys.readouterr().err.splitlines() == [wanted]


def test_a_full_disk_is_reported_with_the_folder(made, capsys, monkeypatch):
    def full(file, part):
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise OSError(f"cannot write {file} (9 bytes): {error}") from error

    monkeypatch.setattr(chunks, "keep", full)
    assert run("transfer", made.run, "--data", made.photos, "--train", 3) == 1
    folder = made.place / "cache" / "features"
    told = f"features cannot be kept in {folder}: No space left on device (VERYDEEP_CACHE names another folder)"
    assert capsys.readouterr().err.splitlines() == [f"verydeep: {told}"]


def test_test_images_that_copy_training_images_are_counted(made, capsys):
    images = [sorted((made.photos / name).iterdir()) for name in CLASSES]
    images[0][1].write_bytes(images[0][0].read_bytes())
    images[1][3].write_bytes(images[0][0].read_bytes())  # of another class
    source = open_for_testing(str(made.photos), None).source("all")
    data = [source[index].data for index in range(len(source))]
    _, labelled = labelled_images(source, None, FEW)
    (made.photos / CLASSES[0] / "-.bmp").write_bytes(b"")  # the first one, which is unusable
    counts = set()
    for options in (replace(FEW, seed=seed, splits=splits) for seed in range(4) for splits in (1, 2)):
        splits = transfer_splits(labelled, options)
        wanted = {row for train, test in splits for row in test if any(data[row] == data[other] for other in train)}
        found = transfer(made.run, data=made.photos, options=options, tolerance=Tolerance(max_bad=10))
        assert found.copies == len(wanted)
        told = f"test images that are exact copies of training images: {len(wanted)};" in capsys.readouterr().err
        assert told == bool(wanted)
        counts.add(len(wanted))
    assert len(counts) > 1


def test_nothing_is_reported_if_images_differ_and_features_are_not_zero(made, capsys):
    assert transfer(made.run, data=made.photos, options=FEW).copies == 0
    assert capsys.readouterr().err == ""


def test_features_that_are_all_zero_are_reported(made, capsys):
    model = load_model(made.run)
    with torch.no_grad():
        model.net.fc7.weight.zero_()
        model.net.fc7.bias.fill_(-1)
    save_model(model, made.run / "model")
    transfer(made.run, data=made.photos, options=FEW)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{made.run}: all features of 10 of 10 images are 0, so nothing tells them apart"
