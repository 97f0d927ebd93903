"""Batches that depend on nothing but (seed, epoch, index); every image has a class of its own, to be recognised."""

import io
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from equal_batches import equal
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from verydeep.images import order, rescaled
from verydeep.images.crops import TrainingView, training_crop
from verydeep.images.decode import decode
from verydeep.images.loader import centre_batches, training_batches
from verydeep.images.order import _epoch_order, batches_per_epoch
from verydeep.images.quarantine import Quarantine, TooManyBadImagesError
from verydeep.images.rescaled import RescaledImages, rescaled_images
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.tolerance import Tolerance
from verydeep.images.views import rescale

IMAGES, EPOCHS, BATCH = 11, 3, 4
STEPS = 3  # 4 + 4 + 3 images


def source_of(*images):
    """Image i has label i."""
    samples = []
    for number, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), number, f"image {number}"))
    return memory_source(classes=tuple(f"class {number}" for number in range(len(images))), samples=tuple(samples))


@cache
def noise_source():
    rng = np.random.default_rng(0)
    sizes = rng.integers(34, 60, (IMAGES, 2))
    return source_of(*(rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes))


def places(height, width):
    """An image whose every pixel says where it is: red its row, green its column."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([y, x, np.zeros_like(y)], axis=2).astype(np.uint8)


def view(**changes):
    choices = {
        "crop": 32,
        "scale": (36, 44),
        "flip": True,
        "colour_sd": 0.1,
        "colour_components": np.diag([30.0, 20.0, 10.0]),
    }
    return TrainingView(**{**choices, **changes})


def strict(source):
    return Quarantine(len(source), Tolerance(max_bad=0), split="train")


def batches(source=None, choices=None, **changes):
    source = source or noise_source()
    options = {"batch": BATCH, "epochs": EPOCHS, "seed": 5, "quarantine": strict(source)}
    return list(training_batches(source, choices or view(), **{**options, **changes}))


def test_shapes_and_types_of_a_batch():
    images, mirrored, shifts, positions, labels, boxes = batches()[0]
    assert boxes is None
    assert positions.tolist() == list(range(len(labels)))
    assert (images.shape, images.dtype) == ((BATCH, 3, 32, 32), torch.uint8)
    assert (mirrored.shape, mirrored.dtype) == ((BATCH,), torch.bool)
    assert (shifts.shape, shifts.dtype) == ((BATCH, 3), torch.float32)
    assert (labels.shape, labels.dtype) == ((BATCH,), torch.int64)


def test_every_image_comes_once_in_every_epoch():
    found = batches()
    assert len(found) == EPOCHS * STEPS
    orders = []
    for epoch in range(EPOCHS):
        part = found[epoch * STEPS : (epoch + 1) * STEPS]
        assert [len(batch.labels) for batch in part] == [4, 4, 3]
        orders.append(torch.cat([batch.labels for batch in part]).tolist())
        assert sorted(orders[-1]) == list(range(IMAGES))
    assert len({tuple(order) for order in orders}) == EPOCHS


def test_images_go_with_their_labels_and_keep_their_axes():
    """Each image is flat except for its upper half, which is brighter: labels, channels and rows must all agree."""
    images = [np.full((40, 40, 3), (10 * n, 0, 200), dtype=np.uint8) for n in range(8)]
    for image in images:
        image[:20, :, 1] = 100
    choices = view(scale=(40, 40))
    for batch in batches(source_of(*images), choices, batch=3, epochs=2, seed=0):
        for image, label in zip(batch.images, batch.labels.tolist(), strict=True):
            assert (image[0] == 10 * label).all()
            assert (image[2] == 200).all()
            assert (image[1, 0] == 100).all()
            assert (image[1, -1] == 0).all()


@pytest.mark.parametrize("first_step", range(EPOCHS * STEPS + 1))
def test_from_any_step_the_rest_is_the_same(first_step):
    assert equal(batches(first_step=first_step), batches()[first_step:])


@pytest.mark.parametrize("first_step", [0, 4])
def test_two_workers_give_the_same_batches(first_step):
    assert equal(batches(first_step=first_step, workers=2), batches()[first_step:])


@pytest.mark.parametrize("workers", [0, 2])
def test_whole_images_come_rescaled_in_the_order_of_the_source(workers):
    found = list(rescaled_images(noise_source(), 36, workers=workers))
    assert [index for index, _ in found] == list(range(IMAGES))
    for (_, image), sample in zip(found, noise_source(), strict=True):
        assert image.dtype == torch.uint8
        assert np.array_equal(image.permute(1, 2, 0), rescale(decode(sample.data), 36))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_refused_in_the_same_words(workers):
    samples = (*noise_source(), Sample(b"broken", 0, "cats/tom.jpg"))
    broken = memory_source(classes=noise_source().classes, samples=samples)
    for items in (
        training_batches(broken, view(), batch=4, epochs=1, seed=0, workers=workers, quarantine=strict(broken)),
        centre_batches(RescaledImages(broken), crop=32, scale=36, batch=4, workers=workers, quarantine=strict(broken)),
    ):
        with pytest.raises(
            TooManyBadImagesError, match=r"cats/tom\.jpg: undecodable \(not an image of a known format\)"
        ):
            list(items)
    (index, refusal) = list(rescaled_images(broken, 36, workers=workers))[-1]
    assert (index, str(refusal)) == (IMAGES, "cats/tom.jpg: undecodable (not an image of a known format)")


@pytest.mark.parametrize("workers", [0, 2])
def test_some_of_the_images_come_in_the_order_asked_for(workers):
    chosen = [5, 0, 7]
    found = list(rescaled_images(noise_source(), 36, indices=chosen, workers=workers))
    assert [index for index, _ in found] == chosen
    for index, image in found:
        assert np.array_equal(image.permute(1, 2, 0), rescale(decode(noise_source()[index].data), 36))


def test_another_seed_gives_other_batches():
    some, others = batches(), batches(seed=6)
    assert equal(some, batches())
    assert [batch.labels.tolist() for batch in some] != [batch.labels.tolist() for batch in others]
    assert not any(torch.equal(a.shifts, b.shifts) for a, b in zip(some, others, strict=True))


def test_what_is_drawn_for_an_image_does_not_depend_on_the_batch_size():
    def by_epoch_and_image(batch):
        steps = batches_per_epoch(IMAGES, batch)
        return {
            (step // steps, int(label)): drawn
            for step, found in enumerate(batches(batch=batch))
            for *drawn, _position, label in zip(*found[:5], strict=True)
        }

    small, large = by_epoch_and_image(2), by_epoch_and_image(11)
    assert len(small) == EPOCHS * IMAGES
    assert small.keys() == large.keys()
    for key, drawn in small.items():
        assert all(torch.equal(a, b) for a, b in zip(drawn, large[key], strict=True))


@settings(max_examples=100)
@given(images=st.integers(1, 500), batch=st.integers(1, 64))
def test_an_epoch_has_as_many_steps_as_batches_begin(images, batch):
    assert batches_per_epoch(images, batch) == len(range(0, images, batch))


def test_a_draw_is_a_crop_of_the_rescaled_image_its_mirror_half_of_the_time():
    height, width, crop = 40, 52, 36
    image, images = places(height, width), RescaledImages(source_of(places(height, width)))
    choices = view(scale=(height, height), crop=crop)
    mirrored, corners = 0, set()
    for epoch in range(400):
        found = training_crop(images, 0, choices, seed=0, epoch=epoch)
        mirrored += found.mirrored
        top, left = int(found.image[0, 0, 0]), int(found.image[0, 0, 1])
        assert np.array_equal(found.image, image[top : top + crop, left : left + crop])
        corners.add((top, left, found.mirrored))
    assert 150 < mirrored < 250
    assert {top for top, _, _ in corners} == set(range(5))
    assert {left for _, left, _ in corners} == set(range(17))


def test_without_flips_nothing_is_mirrored():
    images = RescaledImages(source_of(places(40, 52)))
    for epoch in range(50):
        assert not training_crop(images, 0, view(scale=(40, 40), flip=False), seed=0, epoch=epoch).mirrored


def test_every_scale_of_the_range_is_drawn():
    asked = []

    class Noting(RescaledImages):
        def crop(self, index, scale, size, locate):
            asked.append(scale)
            return super().crop(index, scale, size, locate)

    images = Noting(source_of(places(40, 52)))
    for epoch in range(300):
        training_crop(images, 0, view(scale=(40, 45)), seed=0, epoch=epoch)
    assert {scale: asked.count(scale) > 25 for scale in asked} == dict.fromkeys(range(40, 46), True)


def test_ten_thousand_draws_share_no_random_number():
    images = RescaledImages(source_of(*(places(2, 2) for _ in range(100))))
    choices = view(crop=2, scale=(2, 2), flip=False, colour_sd=1.0, colour_components=np.eye(3))
    shifts = np.array(
        [[training_crop(images, i, choices, seed=3, epoch=e).shift for i in range(100)] for e in range(100)]
    )
    print(f"10,000 draws: {len(np.unique(shifts)):,} different numbers of 30,000")
    assert len(np.unique(shifts)) == 30_000
    assert np.std(shifts) == pytest.approx(1, abs=0.03)
    next_epoch, next_image = (shifts[1:], shifts[:-1]), (shifts[:, 1:], shifts[:, :-1])
    for some, others in (next_epoch, next_image):
        assert abs(np.corrcoef(some.ravel(), others.ravel())[0, 1]) < 0.03


def test_ten_thousand_streams_do_not_overlap(figure):
    """Long stretches of each: a stream that began a little further on in its neighbour's would repeat its numbers."""
    keys = [(seed, epoch, stream) for seed in (0, 1) for epoch in range(10) for stream in (0, 1)]
    raw = [
        order._generator(seed, epoch, stream, index).bit_generator.random_raw(32)
        for seed, epoch, stream in keys
        for index in range(250)
    ]
    different = len(np.unique(np.concatenate(raw)))
    figure(14, "random streams", f"10,000 streams: {different:,} different 64-bit numbers of 320,000")
    assert different == 10_000 * 32


def test_orders_are_permutations_that_differ_and_mix():
    orders = [_epoch_order(50, seed=0, epoch=epoch).tolist() for epoch in range(200)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 200
    first = [order[0] for order in orders]
    assert len(set(first)) > 40
    neighbours = sum(abs(a - b) == 1 for order in orders for a, b in pairwise(order))
    assert neighbours / (200 * 49) == pytest.approx(2 / 50, abs=0.01)


@pytest.mark.parametrize("varying", [False, True])
def test_rescaled_images_are_the_same_from_memory_and_beyond_it(varying):
    source = photographs()
    kept, unkept = RescaledImages(source, varying=varying), RescaledImages(source, memory=0)
    for _ in range(2):
        for index in range(len(source)):
            for scale in (36, 41, 20, 77, 36):
                assert np.array_equal(kept.whole(index, scale), unkept.whole(index, scale))
                assert min(kept.whole(index, scale).shape[:2]) == scale
                some, others = (
                    images.crop(index, scale, 20, lambda size: (3 * (size[0] > 22), size[1] - 20))
                    for images in (kept, unkept)
                )
                assert np.array_equal(some, others)


def photographs():
    """Noise as JPEG, which is decoded smaller for a small S, some of it turned; and as PNG."""
    rng, samples = np.random.default_rng(0), []
    for index, (height, width) in enumerate([(150, 200), (200, 153), (80, 160), (45, 60)]):
        buffer, exif = io.BytesIO(), Image.Exif()
        exif[ExifTags.Base.Orientation] = (1, 6, 1, 1)[index]
        noise = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        noise.save(buffer, "PNG" if index == 2 else "JPEG", exif=exif)
        samples.append(Sample(buffer.getvalue(), 0, f"{index}"))
    return memory_source(classes=("a",), samples=samples)


@pytest.fixture
def decoded(monkeypatch):
    """Note what is decoded, by name and reduction."""
    found, real = [], rescaled.decode_for

    def noted(data, name, **options):
        result = real(data, name, **options)
        found.append((name, result.reduction))
        return result

    monkeypatch.setattr(rescaled, "decode_for", noted)
    return found


def test_images_of_a_fixed_scale_are_decoded_once(decoded):
    images = RescaledImages(noise_source())
    for _ in range(5):
        for index in range(IMAGES):
            images.whole(index, 36)
            images.crop(index, 36, 20, lambda size: (0, 0))
    assert sorted(name for name, _ in decoded) == sorted(sample.id for sample in noise_source())


def test_images_of_a_varying_scale_are_decoded_once_at_each_size(decoded):
    images = RescaledImages(photographs(), varying=True)
    for scale in [*range(16, 80), *range(16, 80)]:
        for index in range(4):
            images.crop(index, scale, 12, lambda size: (0, 0))
    assert sorted(decoded) == sorted(set(decoded))
    assert {reduction for _, reduction in decoded} == {1, 2, 4, 8}


def test_memory_is_bounded():
    images = RescaledImages(source_of(*(places(36, 36) for _ in range(9))), memory=(5 * 36 * 36 * 3 + 100) / 2**30)
    assert sum(images.whole(index, 36) is images.whole(index, 36) for index in range(9)) == 5
    images.crop(7, 36, 20, lambda size: (0, 0))
    assert images.whole(7, 36) is not images.whole(7, 36)


@pytest.mark.parametrize("batch", [1, 4, 11, 50])
def test_centre_batches_are_all_images_in_order_each_cropped_in_the_middle(batch):
    source = noise_source()
    images = RescaledImages(source)
    found = list(centre_batches(images, crop=32, scale=36, batch=batch, quarantine=strict(source)))
    assert torch.cat([part.labels for part in found]).tolist() == list(range(IMAGES))
    assert max(len(part.labels) for part in found) <= batch
    assert not torch.cat([part.shifts for part in found]).any()
    images = torch.cat([part.images for part in found])
    for index in range(IMAGES):
        whole = RescaledImages(source).whole(index, 36)
        top, left = (whole.shape[0] - 32) // 2, (whole.shape[1] - 32) // 2
        expected = whole[top : top + 32, left : left + 32]
        assert np.array_equal(images[index].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize(("max_pixels", "told"), [(4000, "100,000,000"), (150_000_000, "150,000,000")])
def test_an_image_that_would_be_too_large_when_rescaled_is_refused_by_name(max_pixels, told):
    """Before anything of its size is made."""
    source = noise_source()
    (index, refusal), *_ = rescaled_images(source, 30_000, indices=[2], max_pixels=max_pixels)
    assert index == 2
    assert str(refusal).startswith(f"{source[2].id}: too large (")
    assert f"when rescaled, more than {told}" in str(refusal)
