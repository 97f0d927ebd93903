"""Posteriors that are kept: what is computed again and what is not, and that nobody gets another's."""

import hashlib
import io
import os
import shutil
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import vgg
from verydeep.evaluation import crops, dense, passes, pixel_limits, posterior_cache
from verydeep.evaluation.evaluate import evaluate
from verydeep.images import rescaled
from verydeep.images.sources.source import Sample, contents_digests, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance, TooManyBadImagesError
from verydeep.machine import cache
from verydeep.machine.runtime import Runtime, ended_by_signals
from verydeep.runs.files import MODEL
from verydeep.runs.model import Model, save_model, weights_fingerprint

CLASSES = tuple("abcdef")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / posterior_cache.KIND


@pytest.fixture
def decoded(monkeypatch):
    """Names of the images that are decoded, one after the other."""
    names, real = [], rescaled.decode_for
    monkeypatch.setattr(rescaled, "decode_for", lambda data, name, **o: names.append(name) or real(data, name, **o))
    monkeypatch.setattr(rescaled.RescaledImages, "_has_room", lambda *_: False)
    return names


def run(folder, network="A", seed=0, crop=32, flip=True):
    torch.manual_seed(seed)
    net = vgg(network, classes=len(CLASSES), crop=crop, width=0.05)
    save_model(Model(net=net, classes=CLASSES, scale="256", flip=flip), folder / MODEL)
    return folder


def images(count=9, *, bad=(), change=None):
    rng, samples = np.random.default_rng(0), []
    for index in range(count):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (36, 36 + 4 * (index % 3), 3)).astype(np.uint8)
        if index == change:
            pixels[0, 0] ^= 255
        Image.fromarray(pixels).save(buffer, "BMP")
        data = b"no image" if index in bad else buffer.getvalue()
        samples.append(Sample(data, index % len(CLASSES), f"{index}.bmp"))
    return Splits(name="noise", sources={"test": memory_source(classes=CLASSES, samples=tuple(samples))})


def evaluated(folder, data=None, **options):
    options = {"scales": [256], "runtime": Runtime(device="cpu"), **options}
    return evaluate(folder, data=data or images(), **options)


def same(one, other):
    return np.array_equal(one.images.posteriors, other.images.posteriors)


def test_what_was_computed_is_not_computed_again(tmp_path, decoded):
    folder = run(tmp_path / "run")
    first = evaluated(folder, scales=[256, 300])
    assert (first.from_cache, len(decoded)) == (0, 18)
    assert first.images_per_second > 0
    again = evaluated(folder, scales=[256, 300])
    assert (again.from_cache, again.images_per_second, len(decoded)) == (1, None, 18)
    assert same(first, again)
    more = evaluated(folder, scales=[256, 300, 340])
    assert (more.from_cache, len(decoded)) == (pytest.approx(2 / 3), 27)


def test_a_second_protocol_and_a_fusion_reuse_it(tmp_path, decoded):
    one, two = run(tmp_path / "one"), run(tmp_path / "two", seed=1)
    by_dense, by_crops = evaluated(one), evaluated(one, protocol="crops")
    assert len(decoded) == 18
    both = evaluated(one, protocol="both")
    assert both.from_cache == 1
    assert np.allclose(
        both.images.posteriors, (by_dense.images.posteriors + by_crops.images.posteriors) / 2, atol=1e-12
    )
    other = evaluated(two)
    assert len(decoded) == 27
    fused = evaluated([one, two])
    assert (fused.from_cache, len(decoded)) == (1, 27)
    assert np.allclose(fused.images.posteriors, (by_dense.images.posteriors + other.images.posteriors) / 2, atol=1e-12)


def test_an_image_is_decoded_once_for_all_runs_and_views(tmp_path, decoded):
    """Also for runs with other crops, where they want it at the same size: Q = 256 at crop 64 is 512 at crop 32."""
    folders = [run(tmp_path / "a"), run(tmp_path / "b", "B", seed=1), run(tmp_path / "c", crop=64)]
    evaluated(folders, protocol="both", scales=[256, 512])
    assert sorted(decoded) == sorted(3 * [f"{index}.bmp" for index in range(9)])  # 37, 73 and 146 pixels


@pytest.mark.parametrize(
    "change",
    [
        "weights",
        "network",
        "flip",
        "contents",
        "order",
        "crops",
        "centre",
        "floor",
        "ceil",
        "scale",
        "max_pixels",
        "torch",
        "pillow",
        "HEIC",
    ],
)
def test_nothing_is_taken_for_something_else(tmp_path, change, monkeypatch):
    """A-LRN has the same weights as A; the changed image is a file of the same name, size and class."""
    folder, other, data, options = run(tmp_path / "run"), None, None, {}
    first = evaluated(folder)
    match change:
        case "weights":
            other = run(tmp_path / "other", seed=1)
        case "network":
            other = run(tmp_path / "other", "A-LRN")
            assert weights_fingerprint(other) == weights_fingerprint(folder)
        case "flip":
            other = run(tmp_path / "other", flip=False)
        case "contents":
            data = images(change=3)
            sizes = [[len(sample.data) for sample in splits.source("test")] for splits in (data, images())]
            assert sizes[0] == sizes[1]
        case "order":
            part = images().source("test")
            data = Splits(name="noise", sources={"test": memory_source(classes=CLASSES, samples=tuple(part)[::-1])})
        case "crops" | "centre":
            options = {"protocol": change}
        case "floor" | "ceil":
            options = {"grid": change}
        case "scale":
            options = {"scales": [257]}  # 37 pixels as well: the same images, so the same posteriors
            assert evaluated(folder, **options).from_cache == 1
            options = {"scales": [263]}
        case "max_pixels":
            options = {"tolerance": Tolerance(max_pixels=1440, max_bad=100)}
        case "torch":
            monkeypatch.setattr(torch, "__version__", "2.99.0")
        case "pillow":
            monkeypatch.setattr("verydeep.evaluation.evaluate.version", lambda package: f"another {package}")
        case "HEIC":
            monkeypatch.setattr("verydeep.evaluation.evaluate.missing_for_heif", lambda: "its package")
    found = evaluated(other or folder, data, **options)
    assert found.from_cache == 0
    if change in ("torch", "pillow", "HEIC"):
        return
    assert found.images.posteriors.shape != first.images.posteriors.shape or not same(found, first)


def test_a_copy_of_a_run_and_of_its_images_is_known(tmp_path):
    folder = run(tmp_path / "run")
    evaluated(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert evaluated(tmp_path / "copy", images()).from_cache == 1


def test_without_the_cache_nothing_is_read_or_kept(tmp_path, own_cache):
    folder = run(tmp_path / "run")
    first = evaluated(folder, cache=False)
    assert not own_cache.exists()
    evaluated(folder)
    found = evaluated(folder, cache=False)
    assert found.from_cache == 0
    assert same(first, found)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_a_damaged_file_is_computed_again(tmp_path, own_cache, damage):
    folder = run(tmp_path / "run")
    first = evaluated(folder)
    (file,) = own_cache.iterdir()
    data = bytearray(file.read_bytes())
    match damage:
        case "flip":
            data[-5] ^= 4
        case "cut":
            del data[-7:]
        case "empty":
            data.clear()
        case "other":
            data[:] = b"{}" * 100
    file.write_bytes(data)
    found = evaluated(folder)
    assert (found.from_cache, same(first, found)) == (0, True)
    assert evaluated(folder).from_cache == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_what_was_done_before_an_interruption_is_kept(tmp_path, decoded, monkeypatch, error):
    folder, real, calls = run(tmp_path / "run"), dense.dense_posteriors, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(pixel_limits, "pixels_at_once", lambda nets, device: 1)  # every image a batch
    monkeypatch.setattr(dense, "dense_posteriors", interrupted)
    with pytest.raises(error):
        evaluated(folder)
    assert len(decoded) == 4
    found = evaluated(folder)
    assert found.from_cache == pytest.approx(3 / 9)
    assert decoded[4:] == [f"{index}.bmp" for index in range(3, 9)]
    assert same(found, evaluated(folder, cache=False))


def test_a_long_evaluation_is_kept_from_time_to_time(tmp_path, monkeypatch):
    """Not even a SIGKILL loses it all."""
    kept = []
    monkeypatch.setattr(passes, "_SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr(pixel_limits, "pixels_at_once", lambda nets, device: 1)
    monkeypatch.setattr(passes, "store", lambda key, found: kept.append(len(found.missing)))
    evaluated(run(tmp_path / "run"))
    assert kept == [8, 7, 6, 5, 4, 3, 2, 1, 0, 0]


def test_unusable_images_are_remembered_with_their_reasons(tmp_path, decoded):
    folder, data = run(tmp_path / "run"), images(bad=(2, 5))
    first = evaluated(folder, data, tolerance=Tolerance(max_bad=30))
    again = evaluated(folder, data, tolerance=Tolerance(max_bad=30))
    assert again.from_cache == 1
    assert first.unusable == again.unusable
    assert set(first.unusable) == {"2.bmp", "5.bmp"}
    assert (first.n, again.n) == (7, 7)
    assert len(decoded) == 9
    with pytest.raises(TooManyBadImagesError):
        evaluated(folder, data, tolerance=Tolerance(max_bad=20))


def test_where_nothing_can_be_written_it_works_all_the_same(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "file"))
    folder = run(tmp_path / "run")
    assert evaluated(folder).from_cache == evaluated(folder).from_cache == 0


def test_what_was_not_used_for_long_makes_room(tmp_path, own_cache, monkeypatch):
    folder = run(tmp_path / "run")
    for scale in (256, 300, 340):
        evaluated(folder, scales=[scale])
    files = sorted(own_cache.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    for age, file in enumerate(files):
        os.utime(file, (1000 + age, 1000 + age))
    evaluated(folder, scales=[256])  # used now
    monkeypatch.setattr(posterior_cache, "_MOST_BYTES", 3 * files[0].stat().st_size)
    evaluated(folder, scales=[380])
    assert evaluated(folder, scales=[256]).from_cache == 1
    assert evaluated(folder, scales=[380]).from_cache == 1
    assert evaluated(folder, scales=[340]).from_cache == 1
    assert evaluated(folder, scales=[300]).from_cache == 0


def test_digests_are_of_every_files_bytes():
    part = images(bad=(4,)).source("test")
    assert contents_digests(part) == [hashlib.sha256(sample.data).digest() for sample in part]


def test_the_cache_is_where_the_variable_says(own_cache):
    assert cache.folder() / posterior_cache.KIND == own_cache


def failing(read, index):
    """Read an image whose file cannot be read for a while, or has changed since it was read first."""
    READS.append(index)
    if index == 4 and READS.count(4) == 2:
        if FAILS == ["gone"]:
            raise OSError("stale file handle")
        return images(change=4).source("test")[4].data
    return read(index)


READS, FAILS = [], []


@pytest.mark.parametrize("fails", ["gone", "changed"])
def test_a_passing_failure_is_not_remembered(tmp_path, fails):
    """A file that fails or changes between its digest and its decoding."""
    READS.clear()
    FAILS[:] = [fails]
    folder, part = run(tmp_path / "run"), images().source("test")
    images_that_fail = replace(part, read=partial(failing, part.read), fingerprint_of=lambda _: part.fingerprint)
    data = Splits(name="noise", sources={"test": images_that_fail})
    found = evaluated(folder, data, tolerance=Tolerance(max_bad=20))
    assert (found.n, list(found.unusable)) == (8, ["4.bmp"])
    reason = "stale file handle" if fails == "gone" else "its file has changed since it was first read"
    assert found.unusable["4.bmp"] == f"unreadable ({reason})"
    again = evaluated(folder, data)
    assert (again.n, again.from_cache) == (9, pytest.approx(8 / 9))
    whole = evaluated(folder, cache=False)
    assert np.allclose(again.images.posteriors, whole.images.posteriors, atol=1e-6)


def test_an_unusable_image_is_called_what_it_is_called_now(tmp_path):
    folder, part = run(tmp_path / "run"), images(bad=(2,)).source("test")
    renamed = memory_source(classes=CLASSES, samples=tuple(s._replace(id=f"new {s.id}") for s in part))
    for source, name in ((part, "2.bmp"), (renamed, "new 2.bmp")):
        data = Splits(name="noise", sources={"test": source})
        found = evaluated(folder, data, tolerance=Tolerance(max_bad=20))
        assert list(found.unusable) == [name]
    assert found.from_cache == 1


def test_of_passes_that_are_partly_known_only_the_missing_images_are_computed(tmp_path, monkeypatch):
    folder, computed = run(tmp_path / "run"), {"dense": 0, "crops": 0}
    for view, module, name in (("dense", dense, "dense_posteriors"), ("crops", crops, "crop_posteriors")):

        def counted(net, batch, real=getattr(module, name), view=view, **options):
            computed[view] += len(batch)
            if computed == {"dense": 4, "crops": 0}:
                raise RuntimeError
            return real(net, batch, **options)

        monkeypatch.setattr(module, name, counted)
    monkeypatch.setattr(pixel_limits, "pixels_at_once", lambda nets, device: 1)
    with pytest.raises(RuntimeError):
        evaluated(folder)
    found = evaluated(folder, protocol="both")
    assert computed == {"dense": 4 + 6, "crops": 9}
    assert found.from_cache == pytest.approx(3 / 18)


def test_a_signal_waits_until_all_is_kept(tmp_path, monkeypatch, capsys):
    """torchrun sends SIGTERM to those that are left when one process ends: while they keep what they have."""
    folder, real, stored = run(tmp_path / "run"), passes.store, []

    def interrupted(key, found):
        os.kill(os.getpid(), signal.SIGTERM)
        real(key, found)
        stored.append(key)

    monkeypatch.setattr(passes, "store", interrupted)
    with pytest.raises(SystemExit) as left, ended_by_signals():
        evaluated([folder, run(tmp_path / "other", seed=1)])
    assert (left.value.code, len(stored)) == (143, 2)
    assert "what was computed is kept: repeat the command to continue" in capsys.readouterr().err
    monkeypatch.setattr(passes, "store", real)
    assert evaluated(folder).from_cache == 1


def test_two_evaluations_at_once_lose_nothing_of_each_other(tmp_path, monkeypatch):
    """The one that is stopped later knows less than what stands there by then."""
    folder, real, calls = run(tmp_path / "run"), dense.dense_posteriors, []

    def other_in_between(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            evaluated(folder)
            raise RuntimeError
        return real(*arguments, **options)

    monkeypatch.setattr(pixel_limits, "pixels_at_once", lambda nets, device: 1)
    monkeypatch.setattr(dense, "dense_posteriors", other_in_between)
    with pytest.raises(RuntimeError):
        evaluated(folder)
    assert evaluated(folder).from_cache == 1


def test_that_nothing_can_be_kept_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "file"))
    evaluated(run(tmp_path / "run"))
    assert "cannot be kept for later" in capsys.readouterr().err
    evaluated(tmp_path / "run", cache=False)
    assert "kept" not in capsys.readouterr().err


def test_files_that_others_rename_or_remove_meanwhile_are_no_reason_to_keep_nothing(tmp_path, own_cache, capsys):
    """A link to nothing is listed but has no status, like a file that is gone by the time that it is looked at."""
    own_cache.mkdir(parents=True)
    for name in (".a.safetensors.1.partial", "b.safetensors"):
        (own_cache / name).symlink_to("nowhere")
    folders = [run(tmp_path / "run"), run(tmp_path / "other", seed=1)]
    evaluated(folders)
    assert "cannot be kept" not in capsys.readouterr().err
    assert evaluated(folders).from_cache == 1


def test_what_a_killed_process_left_half_written_is_removed(tmp_path, own_cache):
    own_cache.mkdir(parents=True)
    old, new = own_cache / ".a.safetensors.1.partial", own_cache / ".b.safetensors.2.partial"
    for file in (old, new):
        file.write_bytes(b"x")
    os.utime(old, (1000, 1000))
    evaluated(run(tmp_path / "run"))
    assert not old.exists()
    assert new.exists()
