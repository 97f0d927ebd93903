"""Damaged exported files end in one line that names them, and what is read of one is what was exported."""

import contextlib
import io
import random
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from damage import damaged

from verydeep.exported_networks.exported import load_exported, write_exported
from verydeep.runs.model import load_model

KINDS = {"onnx": "network.onnx", "openvino": "network.xml", "torch": "network.pt2"}
NCNN = "network.ncnn.param"
BESIDE = {"network.bin": "network.xml", "network.ncnn.bin": NCNN}
STORED = Path(__file__).parents[1] / "before/written_at_0046bf4"


@pytest.fixture(scope="module")
def whole(tmp_path_factory, battery):
    """A file of each kind, and its model; in the suite those that are stored, since a program takes ten seconds."""
    model, folder = load_model(STORED / "finished_run"), STORED / "exported"
    if battery:
        folder = tmp_path_factory.mktemp("whole")
        for to, name in KINDS.items():
            write_exported(model, folder / name, to=to)
    assert {file.name for file in folder.iterdir()} == {*KINDS.values(), "network.bin"}
    folders = [folder]
    if find_spec("ncnn"):  # which is written at once
        folders.append(tmp_path_factory.mktemp("ncnn"))
        write_exported(model, folders[-1] / NCNN, to="ncnn")
    return {file.name: file.read_bytes() for one in folders for file in sorted(one.iterdir())}, model


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_damaged_files_end_in_one_line(whole, battery, figure, tmp_path):
    files, model = whole
    image = torch.rand(1, 3, 40, 70, generator=torch.Generator().manual_seed(1)) * 255
    with torch.inference_mode():
        expected = model.net.score_map(image)
    rng, refused, count = random.Random(11), 0, 10_000 if battery else 200
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    printed = io.StringIO()
    for _ in range(count):
        name = rng.choice(sorted(files))
        (tmp_path / name).write_bytes(damaged(files[name], rng))
        opened = BESIDE.get(name, name)
        told = f"{tmp_path / opened} cannot be used: "
        try:
            with contextlib.redirect_stdout(printed), torch.inference_mode():
                read = load_exported(tmp_path / opened)
                assert read.classes == model.classes
                assert (read.net.score_map(image) - expected).abs().max() < 1e-4 * expected.abs().max()
        except ValueError as error:
            told, refused = str(error), refused + 1
        assert told.startswith(f"{tmp_path / opened} cannot be used: ")
        assert "\n" not in told
        (tmp_path / name).write_bytes(files[name])
    assert not printed.getvalue()
    told = f"{count:,} damaged .onnx, .xml, .bin, .pt2 and .ncnn.param: {refused:,} refused in one line"
    figure(22, "exported-file fuzz", f"{told}, {count - refused:,} still whole, with the right scores")
