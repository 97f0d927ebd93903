"""Formats of exported files: all that is said of each."""

from typing import get_args

import pytest

from verydeep.exported_networks.formats import FORMATS, Format, format_module
from verydeep.machine.libraries import EXTRAS


def test_every_format_is_listed_with_a_suffix_of_its_own():
    assert set(FORMATS) == set(get_args(Format))
    assert len({known.suffix for known in FORMATS.values()}) == len(FORMATS)


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_is_written_and_read_in_one_file(to):
    module = format_module(to)
    assert all(callable(getattr(module, name)) for name in ("write", "read", "reread"))
    assert {*FORMATS[to].libraries, *(FORMATS[to].int8_libraries or ())} <= EXTRAS.keys()
