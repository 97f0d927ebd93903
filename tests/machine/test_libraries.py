"""Optional libraries are imported when needed; one that is missing is named with the extra that installs it."""

import importlib
import re
import sys
import tomllib
from pathlib import Path

import pytest

from verydeep.machine.libraries import EXTRAS, MissingLibraryError, library

ROOT = Path(__file__).parents[2]
MODULES = {"pyyaml": "yaml"}


def test_extras_are_those_of_pyproject():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = {
        extra: {MODULES.get(name, name) for name in (re.match(r"[\w-]+", each)[0] for each in requirements)}
        for extra, requirements in declared.items()
        if extra != "dev"
    }
    assert set(EXTRAS) == set().union(*packages.values())
    assert all(package in packages[extra] for package, extra in EXTRAS.items())


def test_a_library_whose_inner_parts_are_used_has_an_upper_bound():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["serve"]
    pinned = dict(re.findall(r"^([\w-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), re.M))
    bounds = {re.match(r"\w+", each)[0]: each for each in declared}
    for name in ("h11", "starlette", "uvicorn"):
        low, high = re.fullmatch(rf"{name}>=([\d.]+),<([\d.]+)", bounds[name]).groups()
        below, ours, above = ([int(part) for part in one.split(".")] for one in (low, pinned[name], high))
        assert below <= ours < above


def test_no_other_place_says_how_to_install_a_library():
    files = [file for file in (ROOT / "verydeep").rglob("*.py") if "pip install 'verydeep[" in file.read_text()]
    assert [file.name for file in files] == ["libraries.py"]


def test_a_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(
        MissingLibraryError, match=r"^this needs the package pyarrow: pip install 'verydeep\[parquet\]'$"
    ):
        library("pyarrow")
    told = r"^a Parquet file needs the package pyarrow: pip install 'verydeep\[parquet\]' or name a \.csv file$"
    with pytest.raises(ValueError, match=told):
        library("pyarrow", needed_by="a Parquet file", alternative="name a .csv file")


def test_a_library_that_is_broken_is_not_taken_for_missing(monkeypatch):
    def broken(_name):
        raise ImportError("libhdf5.so:\ncannot open")

    monkeypatch.setattr(importlib, "import_module", broken)
    told = r"^x needs the package h5py, which cannot be imported \(libhdf5\.so: cannot open\): pip install"
    with pytest.raises(MissingLibraryError, match=told):
        library("h5py", needed_by="x")
