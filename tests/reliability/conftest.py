"""A training that takes a second."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread):
    """Let every check have it."""


@pytest.fixture(scope="session")
def tiny():
    """Return the module tiny.py, which the scripts import by its name."""
    import tiny

    return tiny


@pytest.fixture(scope="session")
def source(tiny, tmp_path_factory):
    """Return the folder of its images."""
    return str(tiny.folder(tmp_path_factory.mktemp("source")))
