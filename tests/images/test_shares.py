"""Processes that share each batch, and trainings that go on where they stopped, against one that does it all."""

import io
from functools import cache
from itertools import islice

import numpy as np
import pytest
import torch
from equal_batches import equal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep.images.crops import TrainingView
from verydeep.images.loader import training_batches
from verydeep.images.order import batches_per_epoch
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.tolerance import Tolerance

CROP = 4
FIELDS = ("images", "mirrored", "shifts", "positions", "labels")


@cache
def source_of(images, bad=frozenset()):
    """Image i is noise of its own and has label i."""
    rng = np.random.default_rng(0)
    samples = []
    for number in range(images):
        height, width = rng.integers(6, 12, 2)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(buffer, "PPM")
        data = b"broken" if number in bad else buffer.getvalue()
        samples.append(Sample(data, number, f"image {number}"))
    return memory_source(classes=tuple(str(number) for number in range(images)), samples=tuple(samples))


def batches(source, **options):
    view = TrainingView(crop=CROP, scale=(5, 8), flip=True, colour_sd=0.1, colour_components=np.diag([30.0, 20, 10]))
    return list(training_batches(source, view, **{"seed": 7, **options}))


def interleaved(shares):
    """One image of each process in turn, until all are there."""
    found = []
    for place in range(max(len(share.labels) for share in shares)):
        found += [[field[place] for field in share[:5]] for share in shares if place < len(share.labels)]
    return [torch.stack(field) for field in zip(*found, strict=True)]


@settings(max_examples=40)
@example(processes=4, images=9, batch=4, epochs=2, first_step=0)  # the last batch has one image for four
@example(processes=4, images=7, batch=1, epochs=1, first_step=3)
@example(processes=2, images=8, batch=4, epochs=2, first_step=2)
@example(processes=4, images=6, batch=50, epochs=2, first_step=1)
@given(
    processes=st.sampled_from([1, 2, 4]),
    images=st.integers(1, 13),
    batch=st.integers(1, 15),
    epochs=st.integers(1, 3),
    first_step=st.integers(0, 12),
)
def test_processes_have_every_image_of_every_batch_between_them(processes, images, batch, epochs, first_step):
    options = {"batch": batch, "epochs": epochs, "first_step": first_step}
    alone = batches(source_of(images), **options)
    shares = [batches(source_of(images), share=(rank, processes), **options) for rank in range(processes)]
    steps = epochs * -(-images // batch) - first_step
    assert [len(share) for share in shares] == [max(0, steps)] * processes
    assert len(alone) == max(0, steps)
    for step, whole in enumerate(alone):
        parts = [share[step] for share in shares]
        sizes = [len(part.labels) for part in parts]
        assert sum(sizes) == len(whole.labels)
        assert max(sizes) - min(sizes) <= 1
        for part in parts:
            assert part.images.shape == (len(part.labels), 3, CROP, CROP)
            assert part.shifts.shape == (len(part.labels), 3)
            assert [field.dtype for field in part[:5]] == [field.dtype for field in whole[:5]]
        for name, found, expected in zip(FIELDS, interleaved(parts), whole[:5], strict=True):
            assert torch.equal(found, expected), name


def test_a_process_may_have_nothing_of_a_small_batch():
    shares = [batches(source_of(9), batch=4, epochs=1, share=(rank, 4)) for rank in range(4)]
    assert [[len(part.labels) for part in share] for share in shares] == [[1, 1, 1], [1, 1, 0], [1, 1, 0], [1, 1, 0]]


@pytest.mark.parametrize("workers", [0, 1])
def test_shares_are_the_same_from_workers(workers):
    for rank in range(2):
        options = {"batch": 3, "epochs": 1, "share": (rank, 2)}
        assert equal(batches(source_of(7), workers=workers, **options), batches(source_of(7), **options))


@pytest.mark.parametrize("processes", [2, 4])
def test_an_image_that_cannot_be_used_is_missing_for_one_process_only(processes):
    source = source_of(11, frozenset({2, 8}))
    given_up = [Quarantine(11, Tolerance(max_bad=50)) for _ in range(processes + 1)]
    alone = batches(source, batch=4, epochs=2, quarantine=given_up[-1])
    shares = [
        batches(source, batch=4, epochs=2, share=(rank, processes), quarantine=given_up[rank])
        for rank in range(processes)
    ]
    for step, whole in enumerate(alone):
        found = {int(label): image for share in shares for *image, label in zip(*share[step][:5], strict=True)}
        assert found.keys() == set(whole.labels.tolist())
        assert sum(len(share[step].labels) for share in shares) == len(whole.labels)
        for *image, label in zip(*whole[:5], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(found[int(label)], image, strict=True))
    assert set(given_up[-1].reasons) == {"image 2", "image 8"}
    assert set().union(*(quarantine.reasons for quarantine in given_up[:-1])) == {"image 2", "image 8"}


@pytest.mark.parametrize("stops", [(2, 5), (4, 8), (1, 2), (3, 11)])
def test_a_training_that_goes_on_twice_with_other_workers_sees_the_same(stops):
    """In the middle and at the end of an epoch; 2 workers are some batches ahead when they are stopped."""
    source, options = source_of(10), {"batch": 3, "epochs": 3}
    straight = batches(source, **options)
    assert len(straight) == 3 * batches_per_epoch(10, 3) == 12
    view = TrainingView(crop=CROP, scale=(5, 8), flip=True, colour_sd=0.1, colour_components=np.diag([30.0, 20, 10]))
    pieced = []
    for workers, begin, end in zip((0, 2, 1), (0, *stops), (*stops, 12), strict=True):
        going_on = training_batches(source, view, seed=7, first_step=begin, workers=workers, **options)
        pieced += islice(going_on, end - begin)
        going_on.close()
    assert len(pieced) == len(straight)
    assert [batch.labels.tolist() for batch in pieced] == [batch.labels.tolist() for batch in straight]
    differing = {
        name: sum(int((getattr(a, name) != getattr(b, name)).sum()) for a, b in zip(pieced, straight, strict=True))
        for name in FIELDS
    }
    values = sum(batch.images.numel() for batch in straight)
    print(f"{len(pieced)} batches in three pieces, 0, 2 and 1 workers: of {values} pixel values differ {differing}")
    assert equal(pieced, straight)
    for epoch in range(3):
        labels = [label for batch in pieced[4 * epoch : 4 * epoch + 4] for label in batch.labels.tolist()]
        assert sorted(labels) == list(range(10))
