"""Two results on the same images: what is counted, and which of them errs more."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paired_outcomes import outcomes

from verydeep.statistics import _mcnemar, paired_comparison


def test_nothing_that_differs_is_no_evidence():
    wrong, _ = outcomes(0, 0, 3, 4)
    found = paired_comparison("a", "b", wrong, wrong.copy())
    assert (found.only_first_wrong, found.only_second_wrong) == (0, 0)
    assert (found.p_value, found.difference, found.difference_ci95) == (1, 0, pytest.approx((-53.40, 53.40), abs=0.01))


@settings(max_examples=50)
@given(pairs=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_a_comparison_counts_images_one_by_one(pairs):
    wrong, other = np.array(pairs).T
    found = paired_comparison("one", "two", wrong, other)
    assert (found.first, found.second, found.n) == ("one", "two", len(pairs))
    assert (found.only_first_wrong, found.only_second_wrong) == (pairs.count((True, False)), pairs.count((False, True)))
    errors = [100 * sum(pair[which] for pair in pairs) / len(pairs) for which in (0, 1)]
    assert found.difference == pytest.approx(errors[0] - errors[1])
    assert found.difference_ci95[0] <= found.difference <= found.difference_ci95[1]
    assert found.p_value == _mcnemar(found.only_first_wrong, found.only_second_wrong)
    assert json.loads(json.dumps(found.to_dict())) == {
        **found.to_dict(),
        "difference_ci95": list(found.difference_ci95),
    }


def test_who_errs_more_often_has_the_difference_above_0():
    wrong, other = outcomes(30, 10, 20, 140)
    found, swapped = paired_comparison("a", "b", wrong, other), paired_comparison("b", "a", other, wrong)
    assert (found.difference, swapped.difference) == (10, -10)
    assert 0 < found.difference_ci95[0] < 10 < found.difference_ci95[1]
    assert swapped.difference_ci95 == pytest.approx([-end for end in reversed(found.difference_ci95)])
    assert swapped.p_value == found.p_value < 0.01


def test_one_that_is_always_wrong_against_one_that_never_is():
    found = paired_comparison("a", "b", np.ones(20, dtype=bool), np.zeros(20, dtype=bool))
    low, high = found.difference_ci95
    assert 80 < low < found.difference == high == 100
    assert found.p_value == pytest.approx(2 / 2**20)


@pytest.mark.parametrize(("one", "other"), [(3, 4), (0, 0), (0, 1)])
def test_results_on_other_numbers_of_images_are_refused(one, other):
    with pytest.raises(ValueError, match=f"on the same images can be compared, not on {one} and {other}"):
        paired_comparison("a", "b", np.ones(one, dtype=bool), np.ones(other, dtype=bool))
