"""A wheel holds all that the package needs, and works without a copy of the repository, with weights of the hub."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path

import foreign_weights
import pytest
from hub_server import hub_of
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.battery


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if not find_spec("hatchling"):
        pytest.skip("hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    pip = ["pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT]
    hatchling = ["hatchling", "build", "--target", "wheel", "--directory", folder]
    built = [sys.executable, "-m", *(pip if find_spec("pip") else hatchling)]
    subprocess.run(built, cwd=ROOT, capture_output=True, check=True)
    (file,) = folder.glob("verydeep-*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The command of an environment that has the wheel, and other packages from the environment of the tests."""
    place = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place], check=True)
    packages = next(place.glob("lib*/python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, wheel], capture_output=True, check=True)
    return place / "bin" / "verydeep"


def test_a_wheel_holds_every_file_of_the_package(wheel):
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("git, which knows the files of the package, is not here")
    known = subprocess.run(["git", "ls-files", "-z", "verydeep"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {name for name in known.stdout.split("\0") if name}
    assert {Path(name).suffix for name in files} >= {".py", ".pyi", ".jinja", ".tsv", ".css", ".js"}
    assert "verydeep/py.typed" in files
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("verydeep/")}
        assert files - held == set()
        assert [name for name in files if archive.read(name) != (ROOT / name).read_bytes()] == []


def test_the_short_way_goes_without_a_copy_of_the_repository(installed, tiny, tmp_path):
    """With weights of the hub, which a server on this machine stands for; a second time they come from the cache."""
    model = tmp_path / "hub" / "someone" / "vgg16"
    model.mkdir(parents=True)
    save_file(foreign_weights.state_dict(foreign_weights.plain("D", classes=6), "timm"), model / "model.safetensors")
    mean_std = {"mean": foreign_weights.TORCH_MEAN, "std": foreign_weights.TORCH_STD}
    (model / "config.json").write_text(json.dumps({"architecture": "vgg16", "pretrained_cfg": mean_std}))
    tiny.folder(tmp_path / "photos")
    without = ("PYTHONPATH", "HF_HUB_OFFLINE")
    own = {name: value for name, value in os.environ.items() if name not in without}

    def verydeep(line, endpoint):
        environment = {**own, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
        done = subprocess.run(
            [installed, *line.split()], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
        )
        return done.returncode, done.stdout + done.stderr

    with hub_of(tmp_path / "hub") as (address, asked):
        status, said = verydeep("train photos --from hub:someone/vgg16 --epochs 1 --out run", address)
        assert status == 0, said
        assert "fc8 is new: the classes are not the 6 of hub:someone/vgg16" in said
        assert any(path.endswith("/model.safetensors") for path in asked)
        status, said = verydeep("train photos --from hub:someone/none --epochs 1 --out none", address)
        assert (status, "there is no hub:someone/none on the hub" in said) == (2, True), said
        asked.clear()
        assert verydeep("train photos --from hub:someone/vgg16 --epochs 1 --out again", address)[0] == 0
        assert not any(path.startswith("GET") and path.endswith(".safetensors") for path in asked)
    nowhere = "http://127.0.0.1:9"
    status, said = verydeep("train photos --from hub:someone/never --epochs 1 --out never", nowhere)
    assert (status, said.count("\n"), "the hub cannot be reached" in said) == (1, 1, True), said
    for line in (
        "evaluate run --data photos --json run.json --report report",
        "export run --to onnx --out run.onnx",
        "predict run.onnx photos/val --out predicted.jsonl",
        "describe D",
    ):
        status, said = verydeep(line, nowhere)
        assert status == 0, said
    assert json.loads((tmp_path / "run.json").read_text())["n"] == 6
    assert (tmp_path / "report" / "evaluation.html").is_file()
    assert len((tmp_path / "predicted.jsonl").read_text().splitlines()) == 6
