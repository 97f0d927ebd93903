"""A checkpoint that has changed on the disk is noticed, said, and the one before it is used."""

import random
import shutil

import pytest

from verydeep import Execution, train
from verydeep.runs.model import load_model
from verydeep.training.checkpoint import Checkpoint, Progress, load_latest, save

FILES = ("weights.safetensors", "momentum.safetensors", "state.json", "manifest.json")


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """A run with its checkpoints of the steps 3 (the best), 5 and 6."""
    out, often = tmp_path_factory.mktemp("whole") / "run", Execution(save_minutes=1e-9, keep_checkpoints=True)
    train(tiny.splits(), network="A", out=out, recipe=tiny.RECIPE, execution=often)
    assert [place.name[-1] for place in sorted((out / "checkpoints").iterdir())] == ["3", "5", "6"]
    return out


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def flipped(content, rng):
    place = rng.randrange(len(content))
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def test_every_flip_and_every_cut_of_every_file_is_noticed(tiny, battery, figure, run):
    rng, checkpoints, noticed = random.Random(5), run / "checkpoints", 0
    before = tiny.digest(load_latest(shutil.copytree(checkpoints, run / "older", ignore=newest))[0])
    damages = [flipped] * (1_000 if battery else 60) + [cut] * (200 if battery else 20)
    for number, damage in enumerate(damages):
        file = checkpoints / "step-00000006" / FILES[number % len(FILES)]
        content = file.read_bytes()
        file.write_bytes(damage(content, rng))
        found, passed_over = load_latest(checkpoints)
        assert tiny.digest(found) == before, f"{damage.__name__} of {file.name}, number {number}"
        assert [note.partition(": ")[0] for note in passed_over] == [f"passed over {file.parent}"]
        file.write_bytes(content)
        noticed += 1
    found, passed_over = load_latest(checkpoints)
    assert (found.progress.step, passed_over) == (6, [])
    told = f"{damages.count(flipped):,} byte flips and {damages.count(cut)} truncations: {noticed:,} noticed"
    figure(5, "bit rot", f"{told}, the previous checkpoint used, and said")


def newest(_folder, names):
    return [name for name in names if name == "step-00000006"]


@pytest.mark.parametrize("file", FILES)
def test_a_resumed_run_says_what_it_passed_over_and_ends_as_a_whole_one(tiny, whole, run, file, capsys):
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "best")
    place = run / "checkpoints" / "step-00000006"
    (place / file).write_bytes(flipped((place / file).read_bytes(), random.Random(0)))
    kept = Execution(keep_checkpoints=True)
    train(tiny.splits(), network="A", out=run, recipe=tiny.RECIPE, execution=kept, resume=True)
    said = capsys.readouterr().err
    assert f"passed over {place}: " in said
    assert "resumed at step 5" in said
    for model in ("best", "model"):
        assert (run / model / "model.safetensors").read_bytes() == (whole / model / "model.safetensors").read_bytes()
    assert tiny.digest(load_latest(run / "checkpoints")[0]) == tiny.digest(load_latest(whole / "checkpoints")[0])
    assert tiny.learning(run) == tiny.learning(whole)


def test_a_best_checkpoint_that_is_damaged_is_never_replaced_by_the_last_one_in_silence(tiny, run, capsys):
    """The run's best/ is written from it, when the training has ended."""
    shutil.rmtree(run / "model")
    shutil.rmtree(run / "best")
    place = run / "checkpoints" / "step-00000003"
    file = place / "weights.safetensors"
    file.write_bytes(flipped(file.read_bytes(), random.Random(0)))
    train(tiny.splits(), network="A", out=run, recipe=tiny.RECIPE, resume=True)
    assert f"{place} is damaged or gone, so there is no {run / 'best'}" in capsys.readouterr().err
    assert not (run / "best").exists()
    assert load_model(run).classes == tiny.CLASSES


def test_checkpoints_that_are_damaged_do_not_push_out_those_that_come_after(tmp_path):
    """Two that are passed over stay in the folder; the training goes on from before them."""

    def saved(step):
        return save(tmp_path, Checkpoint(weights={}, momentum={}, progress=Progress(step=step)))

    for step in (10, 20):
        (saved(step) / "state.json").write_text("{}")
    for step in (5, 6, 7):
        assert saved(step).is_dir()
        assert load_latest(tmp_path)[0].progress.step == step
    assert {place.name for place in tmp_path.iterdir()} >= {"step-00000006", "step-00000007"}
