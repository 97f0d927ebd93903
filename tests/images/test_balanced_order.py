"""Epochs in which every class is drawn equally often: counted, and the same however they are divided."""

from collections import Counter
from itertools import chain

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from verydeep.images.order import batches_of_samples

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=40)


def epochs_of(labels, count, **options):
    """Return the samples of each epoch."""
    batches = list(batches_of_samples(len(labels), epochs=count, balanced=labels, **{"batch": 7, "seed": 3, **options}))
    in_epoch = -(-len(labels) // 7)
    return [list(chain(*batches[start : start + in_epoch])) for start in range(0, len(batches), in_epoch)]


@settings(max_examples=60)
@example([0] * 30 + [4])
@given(LABELS)
def test_classes_differ_by_one_at_most_and_so_do_the_images_of_a_class(labels):
    for epoch in epochs_of(labels, 2):
        assert len(epoch) == len(labels) == len(set(epoch)), "an image that is drawn again is another sample"
        by_image = Counter(index for _, index in epoch)
        by_class = [sum(by_image[index] for index, one in enumerate(labels) if one == label) for label in set(labels)]
        assert max(by_class) - min(by_class) <= 1
        for label in set(labels):
            times = [by_image[index] for index, one in enumerate(labels) if one == label]
            assert max(times) - min(times) <= 1


@settings(max_examples=30)
@given(LABELS, st.integers(0, 20), st.sampled_from([1, 2, 3]))
def test_steps_and_processes_divide_the_same_epochs(labels, first_step, processes):
    options = {"batch": 5, "epochs": 3, "seed": 8, "balanced": labels}
    whole = list(batches_of_samples(len(labels), **options))
    shares = [
        list(batches_of_samples(len(labels), **options, first_step=first_step, share=(rank, processes)))
        for rank in range(processes)
    ]
    for step, batch in enumerate(whole[first_step:]):
        assert [share[step] for share in shares] == [batch[rank::processes] for rank in range(processes)]
    assert all(len(share) == max(0, len(whole) - first_step) for share in shares)


def test_epochs_and_seeds_differ_and_every_image_has_its_turn():
    labels = [0] * 90 + [1] * 10
    first, second = epochs_of(labels, 2)
    assert {index for _, index in first} != {index for _, index in second}
    assert first != epochs_of(labels, 1, seed=4)[0]
    assert {index for epoch in epochs_of(labels, 20) for _, index in epoch} == set(range(100))


def test_two_fixed_views_alternate_where_an_image_is_drawn_again():
    (epoch,) = epochs_of([0] * 38 + [1, 1], 1)
    views = Counter((index, number % 2) for number, index in epoch if index >= 38)
    assert views == {(38, 0): 5, (38, 1): 5, (39, 0): 5, (39, 1): 5}


def test_the_order_is_mixed():
    """Positions of the two classes are no further apart in the mean than chance has them."""
    labels = np.array([0] * 900 + [1] * 100)
    (epoch,) = epochs_of(labels.tolist(), 1)
    shown = labels[[index for _, index in epoch]]
    places = np.arange(1000)
    assert abs(places[shown == 0].mean() - places[shown == 1].mean()) < 4 * 1000 / np.sqrt(12) * np.sqrt(2 / 500)
