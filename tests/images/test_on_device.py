"""Mirror images and colour shifts against NumPy; the images have no symmetry, so that a wrong axis shows."""

import numpy as np
import pytest
import torch

from verydeep.images.loader import Batch, on_device, to_device

CPU = torch.device("cpu")
HEIGHT, WIDTH = 5, 7
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def batch_of(mirrored, shifts=None, *, seed=0):
    """As the loader makes them: channels last."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (len(mirrored), HEIGHT, WIDTH, 3), dtype=np.uint8)
    shifts = rng.normal(0, 20, (len(mirrored), 3)) if shifts is None else np.reshape(shifts, (-1, 3))
    return Batch(
        torch.from_numpy(images).permute(0, 3, 1, 2),
        torch.tensor(mirrored, dtype=torch.bool),
        torch.from_numpy(shifts.astype(np.float32)),
        torch.arange(len(mirrored)),
        torch.arange(10 * seed, 10 * seed + len(mirrored)),
    )


def expected_of(batch):
    """Pixel by pixel."""
    found = np.empty((len(batch.labels), 3, HEIGHT, WIDTH), dtype=np.float32)
    for number, (image, mirrored, shift) in enumerate(zip(batch.images, batch.mirrored, batch.shifts, strict=True)):
        for x in range(WIDTH):
            column = image[:, :, WIDTH - 1 - x if mirrored else x].numpy().astype(np.float32)
            found[number, :, :, x] = column + shift.numpy()[:, None]
    return found


def test_only_what_is_to_be_mirrored_is_mirrored_along_its_width():
    batch = batch_of([True, False, False, True], np.zeros((4, 3)))
    found = to_device(batch, CPU).images
    for number, (mirrored, image) in enumerate(zip([True, False, False, True], batch.images, strict=True)):
        rows = image.tolist()
        expected = [[row[::-1] if mirrored else row for row in channel] for channel in rows]
        assert found[number].tolist() == expected


def test_each_channel_of_each_image_is_shifted_by_its_own():
    shifts = [[1.5, -20.25, 300.0], [0.0, 0.5, -0.125]]
    batch = batch_of([False, True], shifts)
    moved = to_device(batch, CPU).images - to_device(batch_of([False, True], np.zeros((2, 3))), CPU).images
    for number, image_shift in enumerate(shifts):
        for channel, shift in enumerate(image_shift):
            assert moved[number, channel].unique().tolist() == [shift]


def test_colours_may_leave_the_range_of_bytes():
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(3, 1).reshape(1, 3, 1, 2)
    batch = Batch(images, torch.tensor([False]), torch.tensor([[-10.5, 0.25, 10.5]]), *torch.zeros(2, 1))
    assert to_device(batch, CPU).images.tolist() == [[[[-10.5, 244.5]], [[0.25, 255.25]], [[10.5, 265.5]]]]


@pytest.mark.parametrize("seed", range(5))
def test_batches_are_what_was_drawn_for_them(seed):
    mirrored = np.random.default_rng(seed).random(6) < 0.5
    batch = batch_of(mirrored.tolist(), seed=seed)
    assert np.array_equal(to_device(batch, CPU).images.numpy(), expected_of(batch))


def test_bytes_come_in_and_floats_go_out_channels_last():
    batch = batch_of([True, False])
    before = [tensor.clone() for tensor in batch[:5]]
    images, _, labels, _ = to_device(batch, CPU)
    assert (batch.images.dtype, images.dtype, labels.dtype) == (torch.uint8, torch.float32, torch.int64)
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(labels, before[4])
    assert all(torch.equal(now, then) for now, then in zip(batch[:5], before, strict=True))


def test_images_in_another_memory_format_come_out_the_same():
    batch = batch_of([True, False])
    planes = batch._replace(images=batch.images.contiguous())
    images = to_device(planes, CPU).images
    assert torch.equal(images, to_device(batch, CPU).images)
    assert images.is_contiguous(memory_format=torch.channels_last)


class Watched(torch.Tensor):
    """Notes the type of everything that is sent to a device."""

    sent = ()

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.Tensor.to and any(isinstance(to, torch.device) for to in (*args, *kwargs.values())):
            Watched.sent = (*Watched.sent, (args[0].dtype, tuple(args[0].shape)))
        return super().__torch_function__(function, types, args, kwargs)


def test_images_are_sent_as_bytes():
    batch = batch_of([True, False])
    Watched.sent = ()
    to_device(batch._replace(images=batch.images.as_subclass(Watched)), CPU)
    assert Watched.sent[0] == (torch.uint8, (2, 3, HEIGHT, WIDTH))
    assert len([shape for _, shape in Watched.sent if len(shape) == 4 and shape[2:] == (HEIGHT, WIDTH)]) == 1


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=needs_cuda)])
def test_a_batch_of_no_images_is_none(device):
    (batch,) = on_device([batch_of([])], device)
    assert batch.images.shape == (0, 3, HEIGHT, WIDTH)
    assert batch.images.dtype == torch.float32
    assert batch.labels.shape == (0,)


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=needs_cuda)])
def test_all_batches_come_in_order(count, device):
    batches = [batch_of([True, False, True][: 1 + seed % 3], seed=seed) for seed in range(count)]
    found = list(on_device(iter(batches), device))
    assert [batch.labels.tolist() for batch in found] == [batch.labels.tolist() for batch in batches]
    for batch, given in zip(found, batches, strict=True):
        assert np.array_equal(batch.images.cpu().numpy(), expected_of(given))


@needs_cuda
def test_cuda_gives_what_the_cpu_gives():
    """Large batches from pinned memory, and work on each that is still going on when the next one is copied."""
    rng = np.random.default_rng(0)
    batches = [
        Batch(
            torch.from_numpy(rng.integers(0, 256, (32, 96, 96, 3), dtype=np.uint8)).permute(0, 3, 1, 2).pin_memory(),
            torch.from_numpy(rng.random(32) < 0.5).pin_memory(),
            torch.from_numpy(rng.normal(0, 20, (32, 3)).astype(np.float32)).pin_memory(),
            torch.arange(32).pin_memory(),
            torch.from_numpy(rng.integers(0, 10, 32)).pin_memory(),
        )
        for _ in range(5)
    ]
    cuda = torch.device("cuda")
    weights = torch.randn(2048, 2048, device=cuda)
    found = []
    for batch in on_device(iter(batches), cuda):
        for _ in range(20):
            weights = torch.tanh(weights @ weights)
        assert batch.images.device.type == batch.labels.device.type == "cuda"
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        found.append((batch.images * 1, batch.labels * 1))
    for (images, labels), batch in zip(found, on_device(batches, CPU), strict=True):
        assert torch.equal(images.cpu(), batch.images)
        assert torch.equal(labels.cpu(), batch.labels)
