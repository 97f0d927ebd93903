"""Colour statistics against loops over pixels, the colour shift against its definition by eigenvectors."""

import errno
import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from shard_files import samples, whole, write_shard

from verydeep.images import colour
from verydeep.images.colour import colour_shift, shift_components
from verydeep.images.open import open_for_testing
from verydeep.images.quarantine import Quarantine, TooManyBadImagesError
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.tolerance import Tolerance


def colour_statistics(source, *, max_bad=0.0, **options):
    quarantine = Quarantine(len(source), Tolerance(max_bad=max_bad), split="train")
    return colour.colour_statistics(source, quarantine=quarantine, **options)


def source_of(*images):
    samples = []
    for number, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), 0, f"image {number}"))
    return memory_source(classes=("only",), samples=tuple(samples))


def flat(red, green, blue, height=3, width=5):
    return np.tile(np.array([red, green, blue], dtype=np.uint8), (height, width, 1))


def correlated(height, width, seed):
    """Noise whose channels hang together differently."""
    rng = np.random.default_rng(seed)
    common = rng.integers(0, 90, (height, width))
    own = rng.integers(0, 60, (height, width, 3))
    return np.stack([common + own[..., 0], 200 - 2 * common + own[..., 1] // 4, own[..., 2]], axis=2).astype(np.uint8)


def covariance(*, seed=0):
    """Return a covariance of pixels in 0..255, of full rank and about as large as that of photographs."""
    factors = np.random.default_rng(seed).normal(size=(3, 3))
    return factors @ factors.T * 1200


def test_statistics_are_those_of_a_loop_over_all_pixels():
    images = [correlated(7, 9, 0), correlated(4, 5, 1), correlated(12, 3, 2)]
    mean = [0.0, 0.0, 0.0]
    for image in images:
        for pixel in image.reshape(-1, 3).tolist():
            for i in range(3):
                mean[i] += pixel[i] / (image.shape[0] * image.shape[1]) / len(images)
    expected = np.zeros((3, 3))
    for image in images:
        for pixel in image.reshape(-1, 3).tolist():
            for i in range(3):
                for j in range(3):
                    product = (pixel[i] - mean[i]) * (pixel[j] - mean[j])
                    expected[i, j] += product / (image.shape[0] * image.shape[1]) / len(images)
    found = colour_statistics(source_of(*images))
    assert found.mean == pytest.approx(mean, abs=1e-9)
    assert np.allclose(found.covariance, expected, atol=1e-8)
    assert found.covariance.shape == (3, 3)


def test_statistics_of_two_colours_are_known():
    """Half red, half blue of unequal strength: deviations of +-100 in red and -+50 in blue."""
    found = colour_statistics(source_of(flat(200, 30, 0, 2, 2), flat(0, 30, 100, 9, 9)))
    assert found.mean == (100.0, 30.0, 50.0)
    assert np.allclose(found.covariance, [[10_000, 0, -5_000], [0, 0, 0], [-5_000, 0, 2_500]])


def test_of_a_large_source_a_seeded_sample_is_looked_at():
    images = source_of(*(flat(number, 0, 0) for number in range(200)))
    found = colour_statistics(images, sample=50)
    chosen = np.random.Generator(np.random.PCG64(0)).choice(200, 50, replace=False)
    assert found.images == 50
    assert found.mean[0] == pytest.approx(chosen.mean())
    assert found.covariance[0, 0] == pytest.approx(chosen.var())
    for enough in (200, 1000):
        whole = colour_statistics(images, sample=enough)
        assert (whole.images, whole.mean[0]) == (200, pytest.approx(99.5))


def test_a_broken_image_is_passed_over_or_too_many():
    whole = source_of(*(flat(n, 2, 3) for n in range(9)))
    broken = memory_source(classes=("only",), samples=(*whole, Sample(b"broken", 0, "cats/tom.jpg")))
    found = colour_statistics(broken, max_bad=10)
    assert (found.images, found.mean) == (9, (4.0, 2.0, 3.0))
    other = memory_source(classes=("one",), samples=tuple(broken))
    with pytest.raises(TooManyBadImagesError, match=r"cats/tom\.jpg: undecodable"):
        colour_statistics(other, max_bad=9)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_is_looked_through_once(monkeypatch, workers):
    source = source_of(*(correlated(6, 7, 100 + workers + n) for n in range(5)))
    first = colour_statistics(source, workers=workers)
    monkeypatch.setattr(colour, "decode", None)
    again = colour_statistics(source, workers=workers)
    assert again.mean == first.mean
    assert np.array_equal(again.covariance, first.covariance)


def test_files_of_the_same_names_and_sizes_are_not_mistaken_for_one_another(tmp_path):
    for level in (10, 200):
        for name in ("a/0", "a/1", "b/0", "b/1"):
            file = tmp_path / str(level) / f"{name}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(flat(level, 1, 2, 9, 9)).save(file)
        assert colour_statistics(open_for_testing(str(tmp_path / str(level)), None).source("all")).mean[0] == level


def test_an_image_that_could_not_be_read_once_is_looked_at_again():
    source = source_of(*(flat(n, 50, 3) for n in range(10)))
    samples = [*source]

    def read(index):
        if index == 9:
            raise OSError(errno.EIO, "Input/output error")
        return samples[index].data

    for n, (data, images) in enumerate([(read, 9), (source.read, 10), (read, 9)]):
        quarantine = Quarantine(10, Tolerance(max_bad=10))
        found = colour.colour_statistics(replace(source, read=data), quarantine=quarantine)
        assert (found.images, len(quarantine.reasons)) == (images, 10 - images), n


def test_the_eigenvectors_of_a_known_covariance_are_recovered():
    """Pixels drawn with covariance C: the components are along C's eigenvectors, as long as its eigenvalues."""
    axes = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    variances = np.array([900.0, 250.0, 40.0])
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(40, 64 * 64, 3)) * np.sqrt(variances) @ axes.T + 128
    source = source_of(*pixels.round().clip(0, 255).astype(np.uint8).reshape(40, 64, 64, 3))
    found = colour_statistics(source)
    components = shift_components(found.covariance)
    lengths = np.linalg.norm(components, axis=1)
    for number, place in enumerate(np.argsort(-lengths)):
        along = abs(components[place] @ axes[:, number]) / lengths[place]
        print(f"eigenvector {number}: cosine {along:.6f}, eigenvalue {lengths[place] * 255:.1f} of {variances[number]}")
        assert along > 0.9999
        assert lengths[place] * 255 == pytest.approx(variances[number], rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_components_are_eigenvectors_as_long_as_their_eigenvalues(seed):
    """By the definition, for pixels in 0..1: C p = lambda p, |p| = 1; the shift goes back to 0..255."""
    small = covariance(seed=seed) / 255**2
    components = shift_components(covariance(seed=seed)) / 255
    lengths = np.sqrt((components**2).sum(axis=1))
    for component, eigenvalue in zip(components, lengths, strict=True):
        assert np.allclose(small @ component, eigenvalue * component, atol=1e-12)
    assert np.allclose(np.sort(lengths), np.sort(np.linalg.svd(small, compute_uv=False)), atol=1e-12)
    assert lengths.sum() == pytest.approx(np.trace(small))
    between = components @ components.T
    assert np.allclose(between - np.diag(np.diag(between)), 0, atol=1e-12)


def test_components_of_a_covariance_without_correlation_are_its_axes():
    found = shift_components(np.diag([255.0**2 * 0.04, 255.0**2 * 0.01, 0]))
    assert np.allclose(np.sort(np.abs(found).sum(axis=0)), [0, 2.55, 10.2])
    assert np.allclose(np.abs(found).sum(axis=0), [10.2, 2.55, 0])


def test_shifts_have_the_spread_that_the_paper_asks_for():
    """Covariance of sum_i alpha_i lambda_i p_i: sd^2 sum_i lambda_i^2 p_i p_i^T, which is sd^2 C C."""
    sd, small = 0.1, covariance() / 255**2
    rng = np.random.default_rng(0)
    components = shift_components(covariance())
    shifts = np.stack([colour_shift(components, sd, rng) for _ in range(20_000)])
    expected = sd**2 * (small @ small) * 255**2
    assert shifts.shape == (20_000, 3)
    assert np.abs(np.cov(shifts.T, bias=True) - expected).max() < 0.04 * expected.max()
    assert np.abs(shifts.mean(axis=0)).max() < 4 * np.sqrt(expected.max() / 20_000)
    # Normal: 4.55% lie beyond two standard deviations.
    beyond = np.abs(shifts[:, 0]) > 2 * np.sqrt(expected[0, 0])
    assert beyond.mean() == pytest.approx(0.0455, abs=0.006)


def test_no_shift_without_spread():
    assert np.array_equal(colour_shift(shift_components(covariance()), 0.0, np.random.default_rng(0)), np.zeros(3))


def test_shifts_of_photographs_are_a_few_grey_levels():
    """With pixels in 0..255 in place of 0..1 they would be hundreds."""
    rng = np.random.default_rng(0)
    components = shift_components(np.full((3, 3), 4500.0) + np.diag([500.0, 300.0, 700.0]))
    sizes = [np.abs(colour_shift(components, 0.1, rng)).mean() for _ in range(1000)]
    assert 1 < np.mean(sizes) < 10


@pytest.mark.parametrize("content", ["", "[]", '{"mean": 3}', "{", '"text"'])
def test_what_was_remembered_and_makes_no_sense_is_computed_again(tmp_path, monkeypatch, content):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path))
    source = source_of(flat(1, 2, 3), flat(3, 2, 1))
    first = colour_statistics(source)
    (file,) = (tmp_path / "colour").iterdir()
    file.write_text(content)
    assert colour_statistics(source).mean == first.mean == (2.0, 2.0, 2.0)


def test_what_cannot_be_used_is_remembered_too():
    whole = source_of(*(flat(n, 5, 3) for n in range(9)))
    broken = memory_source(classes=("only",), samples=(*whole, Sample(b"broken", 0, "cats/tom.jpg")))
    found = []
    for _ in range(2):
        quarantine = Quarantine(10, Tolerance(max_bad=10), split="train")
        colour.colour_statistics(broken, quarantine=quarantine)
        found.append(quarantine.reasons)
    assert found[0] == found[1] == {"cats/tom.jpg": "undecodable (not an image of a known format)"}


def test_what_was_remembered_has_the_names_that_images_have_now(tmp_path):
    """A shard that is renamed has the same fingerprint, but its images other names."""
    members = [*samples(["ant", "bee"] * 2), ("x.png", b"broken"), ("x.cls", b"ant")]
    for name in ("a.tar", "b.tar"):
        source = whole(write_shard(tmp_path / name, members), ("ant", "bee"))
        quarantine = Quarantine(len(source), Tolerance(max_bad=50))
        colour.colour_statistics(source, quarantine=quarantine)
        assert list(quarantine.reasons) == [f"{name}/x.png"]
