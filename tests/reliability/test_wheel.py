"""A wheel holds all that the package needs: templates, tables, styles and scripts as well as modules."""

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.battery
def test_a_wheel_holds_every_file_of_the_package(tmp_path):
    if not find_spec("hatchling"):
        pytest.skip("hatchling, which builds the wheel, is not installed")
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("git, which knows the files of the package, is not here")
    known = subprocess.run(["git", "ls-files", "-z", "verydeep"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {name for name in known.stdout.split("\0") if name}
    assert {Path(name).suffix for name in files} >= {".py", ".pyi", ".jinja", ".tsv", ".css", ".js"}
    assert "verydeep/py.typed" in files
    pip = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", tmp_path, ROOT]
    hatchling = ["hatchling", "build", "--target", "wheel", "--directory", tmp_path]
    built = [sys.executable, "-m", *(pip if find_spec("pip") else hatchling)]
    subprocess.run(built, cwd=ROOT, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("verydeep-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("verydeep/")}
        assert files - held == set()
        assert [name for name in files if archive.read(name) != (ROOT / name).read_bytes()] == []
