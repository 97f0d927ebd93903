"""Files of `verydeep export`, tested as their runs are."""

import exported_runs as shared
import numpy as np
import pytest

from verydeep.cli import main
from verydeep.evaluation.evaluate import evaluate
from verydeep.exported_networks.exported import write_exported
from verydeep.runs.model import load_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return a run, the folder of one file of each kind, and pictures."""
    folder = tmp_path_factory.mktemp("exported")
    run = shared.saved(shared.network("A"), folder / "run")
    for to, name in shared.FILES.items():
        write_exported(load_model(run), folder / name, to=to)
    return run, folder, shared.pictures(folder / "pictures")


@pytest.mark.parametrize("protocol", ["dense", "both"])
@pytest.mark.parametrize("name", shared.FILES.values())
def test_a_files_posteriors_are_its_runs(made, name, protocol):
    run, folder, data = made
    of_run, of_file = (evaluate(one, data=data, protocol=protocol, cache=False) for one in (run, folder / name))
    np.testing.assert_allclose(of_file.images.posteriors, of_run.images.posteriors, atol=1e-5)
    assert (of_file.n, of_file.scales) == (of_run.n, of_run.scales) == (12, (224, 256, 288))


def test_a_file_is_fused_with_a_run(made):
    run, folder, data = made
    fused = evaluate([folder / "net.onnx", run], data=data, cache=False)
    alone = evaluate(run, data=data, cache=False)
    np.testing.assert_allclose(fused.images.posteriors, alone.images.posteriors, atol=1e-5)


def test_what_is_kept_of_a_file_is_not_taken_for_its_runs(made, tmp_path, monkeypatch):
    """An INT8 file states the run's weights too, and has scores of its own."""
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path))
    run, folder, data = made
    assert evaluate(run, data=data).from_cache == 0
    for name in shared.FILES.values():
        assert evaluate(folder / name, data=data).from_cache == 0
        assert evaluate(folder / name, data=data).from_cache == 1


def test_of_a_folder_without_splits_a_file_is_tested_on_what_a_training_holds_out(made, capsys):
    _, folder, data = made
    held_out = evaluate(folder / "net.onnx", data=f"{data}/val", cache=False)
    assert held_out.split == "val"
    assert held_out.n < 12
    told = " ".join(capsys.readouterr().err.split())
    assert "net.onnx does not say which images trained it: only images that training on this folder holds out" in told
    assert evaluate(folder / "net.onnx", data=f"{data}/val", split="all", cache=False).n == 12
    assert "the error is too low" in " ".join(capsys.readouterr().err.split())


def test_the_command_tests_a_file_and_shows_it(made, tmp_path, capsys, monkeypatch):
    _, folder, data = made
    monkeypatch.chdir(folder)
    main(["evaluate", "net.xml", "--data", data, "--report", str(tmp_path / "page"), "--no-cache"])
    assert "net.xml" in capsys.readouterr().out
    assert (tmp_path / "page" / "evaluation.html").is_file()


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_grids_that_a_file_lacks_are_refused(made, name):
    _, folder, data = made
    with pytest.raises(ValueError, match="has the centred grid only"):
        evaluate(folder / name, data=data, grid="floor")
