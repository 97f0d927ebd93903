"""What every test runs under: caches of its own and no network."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when `datasets` is imported


@pytest.fixture(autouse=True, scope="session")
def _own_caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    os.environ["VERYDEEP_CACHE"] = str(folder / "verydeep")
    os.environ["HF_HOME"] = str(folder / "huggingface")
