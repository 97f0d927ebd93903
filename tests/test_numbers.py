"""Numbers as people read them."""

import pytest

from verydeep.numbers import counted, number, size, trimmed


@pytest.mark.parametrize(
    ("value", "written"),
    [(2.0, "2"), (2, "2"), (0.125, "0.125"), (0.1 + 0.2, "0.3"), (1e-05, "1e-05"), (0, "0"), (-1.50, "-1.5")],
)
def test_a_number_without_zeros_at_its_end(value, written):
    assert trimmed(value) == written
    assert float(written) == pytest.approx(value)


def test_whole_numbers_have_separators_and_their_noun_follows_them():
    assert number(1234567) == "1,234,567"
    assert [counted(n, "byte") for n in (0, 1, 2048)] == ["0 bytes", "1 byte", "2,048 bytes"]


def test_a_size_has_the_unit_that_shows_it():
    assert [size(value) for value in (8.6e6, 99.9e6, 0.1e9, 3.14e9, 2e12)] == [
        "8.6 MB",
        "99.9 MB",
        "0.1 GB",
        "3.1 GB",
        "2,000.0 GB",
    ]
