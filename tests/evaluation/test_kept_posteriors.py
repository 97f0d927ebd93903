"""Posteriors that are kept: what is computed again and what is not, and that nobody gets another's."""

import io
import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import cache, runs, vgg
from verydeep.evaluation import passes, posterior_cache
from verydeep.evaluation.evaluate import evaluate
from verydeep.images import loader
from verydeep.images.sources import MemorySource, Sample, Splits, contents_digest
from verydeep.images.tolerance import Tolerance, TooManyBadImagesError
from verydeep.runtime import Runtime

CLASSES = tuple("abcdef")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / posterior_cache.KIND


@pytest.fixture
def decoded(monkeypatch):
    """Names of the images that are decoded, one after the other."""
    names, real = [], loader.decode_for
    monkeypatch.setattr(loader, "decode_for", lambda data, name, **o: names.append(name) or real(data, name, **o))
    monkeypatch.setattr(loader, "CACHE_BYTES", 0)
    return names


def run(folder, network="A", seed=0, crop=32, flip=True):
    torch.manual_seed(seed)
    net = vgg(network, classes=len(CLASSES), crop=crop, width=0.05)
    runs.save_model(runs.Model(net=net, classes=CLASSES, scale="256", flip=flip), folder / runs.MODEL)
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
    return Splits(name="noise", parts={"test": MemorySource(classes=CLASSES, samples=tuple(samples))})


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
    dense, crops = evaluated(one), evaluated(one, protocol="crops")
    assert len(decoded) == 18
    both = evaluated(one, protocol="both")
    assert both.from_cache == 1
    assert np.allclose(both.images.posteriors, (dense.images.posteriors + crops.images.posteriors) / 2, atol=1e-12)
    other = evaluated(two)
    assert len(decoded) == 27
    fused = evaluated([one, two])
    assert (fused.from_cache, len(decoded)) == (1, 27)
    assert np.allclose(fused.images.posteriors, (dense.images.posteriors + other.images.posteriors) / 2, atol=1e-12)


def test_an_image_is_decoded_once_for_all_runs_and_views(tmp_path, decoded):
    """Also for runs with other crops, where they want it at the same size: Q = 256 at crop 64 is 512 at crop 32."""
    folders = [run(tmp_path / "a"), run(tmp_path / "b", "B", seed=1), run(tmp_path / "c", crop=64)]
    evaluated(folders, protocol="both", scales=[256, 512])
    assert sorted(decoded) == sorted(3 * [f"{index}.bmp" for index in range(9)])  # 37, 73 and 146 pixels


@pytest.mark.parametrize(
    "change",
    ["weights", "network", "flip", "contents", "order", "protocol", "scale", "max_pixels"],
)
def test_nothing_is_taken_for_something_else(tmp_path, change):
    """A-LRN has the same weights as A; the changed image is a file of the same name, size and class."""
    folder, other, data, options = run(tmp_path / "run"), None, None, {}
    first = evaluated(folder)
    match change:
        case "weights":
            other = run(tmp_path / "other", seed=1)
        case "network":
            other = run(tmp_path / "other", "A-LRN")
            assert runs.weights_fingerprint(other) == runs.weights_fingerprint(folder)
        case "flip":
            other = run(tmp_path / "other", flip=False)
        case "contents":
            data = images(change=3)
            sizes = [[len(sample.data) for sample in splits.part("test").samples] for splits in (data, images())]
            assert sizes[0] == sizes[1]
        case "order":
            part = images().part("test")
            data = Splits(name="noise", parts={"test": MemorySource(classes=CLASSES, samples=part.samples[::-1])})
        case "protocol":
            options = {"protocol": "crops"}
        case "scale":
            options = {"scales": [257]}  # 37 pixels as well: the same images, so the same posteriors
            assert evaluated(folder, **options).from_cache == 1
            options = {"scales": [263]}
        case "max_pixels":
            options = {"tolerance": Tolerance(max_pixels=1440, max_bad=100)}
    found = evaluated(other or folder, data, **options)
    assert found.from_cache == 0
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
    folder, real, calls = run(tmp_path / "run"), passes.dense_posteriors, []

    def interrupted(*arguments, **options):
        calls.append(1)
        if len(calls) == 4:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(passes, "pixels_at_once", lambda nets, device: 1)  # every image a batch
    monkeypatch.setattr(passes, "dense_posteriors", interrupted)
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
    monkeypatch.setattr(passes, "IMAGES_BETWEEN_MEETINGS", 2)
    monkeypatch.setattr(passes, "SECONDS_BETWEEN_SAVES", 0)
    monkeypatch.setattr(passes, "pixels_at_once", lambda nets, device: 1)
    monkeypatch.setattr(passes, "store", lambda key, found: kept.append(len(found.missing)))
    evaluated(run(tmp_path / "run"))
    assert kept == [7, 5, 3, 1, 0, 0]


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
    monkeypatch.setattr(posterior_cache, "MOST_BYTES", 3 * files[0].stat().st_size)
    evaluated(folder, scales=[380])
    assert evaluated(folder, scales=[256]).from_cache == 1
    assert evaluated(folder, scales=[380]).from_cache == 1
    assert evaluated(folder, scales=[340]).from_cache == 1
    assert evaluated(folder, scales=[300]).from_cache == 0


def test_the_digest_of_contents_is_of_all_bytes_and_their_order():
    part = images().part("test")
    digests = {contents_digest(splits.part("test")) for splits in (images(), images(change=8), images(8))}
    digests.add(contents_digest(MemorySource(classes=CLASSES, samples=part.samples[::-1])))
    assert len(digests) == 4
    renamed = MemorySource(classes=CLASSES, samples=tuple(s._replace(id="x", label=0) for s in part.samples))
    assert contents_digest(renamed) == contents_digest(part)


def test_the_cache_is_where_the_variable_says(own_cache):
    assert cache.folder() / posterior_cache.KIND == own_cache
