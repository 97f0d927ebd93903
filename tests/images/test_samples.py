"""Samples of a source: nested, stratified, and the same whenever they are taken."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verydeep.images.open import open_for_training
from verydeep.images.sources.samples import _nested_sample, sampled


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    seed=st.integers(0, 2**63 - 1),
    one_in=st.integers(1, 9),
    times=st.integers(1, 4),
)
def test_each_class_has_its_share_and_a_larger_sample_holds_a_smaller(labels, seed, one_in, times):
    larger, smaller = (_nested_sample(labels, one_in=n, seed=seed) for n in (one_in, one_in * times))
    assert set(smaller) <= set(larger) <= set(range(len(labels)))
    assert larger == sorted(set(larger))
    found, there = Counter(labels[index] for index in larger), Counter(labels)
    assert found.keys() == there.keys()
    for label, count in there.items():
        assert found[label] == 1 or abs(found[label] - count / one_in) <= 0.5
    assert _nested_sample(labels, one_in=1, seed=seed) == list(range(len(labels)))


def test_it_depends_on_the_seed_and_on_nothing_else():
    labels = [index % 3 for index in range(90)]
    assert _nested_sample(labels, one_in=4, seed=1) == _nested_sample(labels, one_in=4, seed=1)
    assert _nested_sample(labels, one_in=4, seed=1) != _nested_sample(labels, one_in=4, seed=2)
    others = [label for label in labels if label != 2]  # the same images of a class, whatever the others are
    chosen = [labels[:index].count(0) for index in _nested_sample(labels, one_in=4, seed=1) if labels[index] == 0]
    again = [others[:index].count(0) for index in _nested_sample(others, one_in=4, seed=1) if others[index] == 0]
    assert chosen == again


def test_a_sampled_source_has_those_images():
    digits = open_for_training("digits").source("train")
    few = sampled(digits, one_in=8, seed=3)
    assert few.ids == tuple(digits.ids[index] for index in _nested_sample(digits.labels, one_in=8, seed=3))
    assert len(few) == pytest.approx(len(digits) / 8, abs=5)
    assert few.fingerprint not in (digits.fingerprint, sampled(digits, one_in=8, seed=4).fingerprint)
    assert sampled(digits, one_in=1, seed=3) is digits
