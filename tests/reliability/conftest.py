"""A training that takes a second."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Use one thread, as the processes that are started do: with more, sums differ in the last bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tiny():
    """Return the module tiny.py, which the scripts import by its name."""
    import tiny

    return tiny


@pytest.fixture(scope="session")
def source(tiny, tmp_path_factory):
    """Return the folder of its images."""
    return str(tiny.folder(tmp_path_factory.mktemp("source")))
