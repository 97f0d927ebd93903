"""Rescaled images that several networks share: what is decoded again, and that they are those of a fresh decoder."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep.images import rescaled
from verydeep.images.decode import UnusableImageError
from verydeep.images.open import open_for_testing
from verydeep.images.rescaled import SharedImages, rescaled_images
from verydeep.images.sources.source import contents_digests, unchanged

SIDE, BYTES = 20, 3 * 20 * 30


@pytest.fixture
def source(tmp_path):
    """Six images of one size, and one that is none."""
    for number, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (6, 40, 60, 3)).astype(np.uint8)):
        (tmp_path / "class").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "class" / f"{number}.bmp")
    (tmp_path / "class" / "9.bmp").write_bytes(b"none")
    return open_for_testing(str(tmp_path), None).source("all")


@pytest.fixture
def asked(monkeypatch):
    """Count how often each image is decoded at each side, by workers too."""
    counts, real = Counter(), rescaled.rescaled_images

    def counted(source, side, *, indices, **options):
        counts.update((side, index) for index in indices)
        return real(source, side, indices=indices, **options)

    monkeypatch.setattr(rescaled, "rescaled_images", counted)
    return counts


def same(found, expected):
    """Return whether images and refusals are the same."""
    return len(found) == len(expected) and all(
        index == its_index and (torch.equal(image, its) if isinstance(image, torch.Tensor) else str(image) == str(its))
        for (index, image), (its_index, its) in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fit", [0, 2, 6])
def test_images_that_fit_are_decoded_once_and_are_the_same(source, asked, workers, fit):
    expected = list(rescaled_images(source, SIDE))
    shared = SharedImages(source, workers=workers, memory=(fit + 0.5) * BYTES / 2**30)
    for network, later in enumerate([{SIDE, 99}, {SIDE}, set()]):
        decoder = shared.decoder(later=later)
        found = [one for start in (0, 4) for one in decoder(SIDE, range(start, min(start + 4, 7)))]
        assert same(found, expected)
        assert sum(asked.values()) == 7 + network * (7 - fit), "a refused one is tried again"


def test_what_no_other_network_looks_at_is_not_kept_and_leaves_room(source, asked):
    shared = SharedImages(source, memory=3.5 * BYTES / 2**30)
    for later in (set(), {SIDE + 1}, {SIDE}):
        list(shared.decoder(later=later)(SIDE, range(3)))
    assert set(asked.values()) == {3}
    list(shared.decoder(later={SIDE})(SIDE, range(3, 6)))
    list(shared.decoder(later=set())(SIDE, range(6)))
    assert [asked[SIDE, index] for index in range(6)] == [3, 3, 3, 2, 2, 2]
    for later in ({SIDE}, set()):
        list(shared.decoder(later=later)(SIDE, range(3, 6)))
    assert [asked[SIDE, index] for index in range(6)] == [3, 3, 3, 3, 3, 3], "the first three have made room"


@pytest.mark.parametrize(("memory", "refused"), [(1.0, False), (0.0, True)])
def test_an_image_that_changes_is_what_it_was_or_refused(source, memory, refused):
    once = unchanged(source, contents_digests(source))
    shared, before = SharedImages(once, memory=memory), list(rescaled_images(once, SIDE))
    assert same(list(shared.decoder(later={SIDE})(SIDE, range(7))), before)
    changed = replace(once, read=lambda index: source.read((index + 1) % 6))
    shared.source = changed
    found = list(shared.decoder(later=set())(SIDE, range(6)))
    assert all(isinstance(image, UnusableImageError) == refused for _, image in found)
    assert refused or same(found, before[:6])
