"""Trainings from WEIGHTS: what is taken over and learned, and frozen layers that see every view once."""

import re
import signal
from dataclasses import asdict, replace

import pytest
import tiny
import torch
from several_commands import status_of

from verydeep import Execution, Recipe, load, recipe_from_weights, train, vgg, write_weights
from verydeep.machine.runtime import Stopped
from verydeep.networks.vgg import VGG
from verydeep.runs.model import load_config, load_model, save
from verydeep.runs.record import read_record
from verydeep.training import frozen_layers, learner, start
from verydeep.training.checkpoint import load_latest
from verydeep.training.norms import read_norms

SMALL = {"batch": 4, "epochs": 5, "learning_rate": 1e-3, "seed": 3, "views": 2}

FULLY_CONNECTED = {"fc6", "fc7", "fc8"}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Seven classes, crop 64, in torchvision's format."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    net = vgg("A", classes=7, crop=64, width=0.05)
    save(net, folder / "model", scale="320", flip=False)
    write_weights(folder / "model", folder / "vgg.pth", layout="torchvision")
    return folder


@pytest.fixture
def forwards(monkeypatch):
    """Count the images that the first and the last layer see in each training."""
    seen = {"conv1_1": 0, "fc8": 0}
    build = VGG.__init__

    def counting(net, *arguments, **options):
        build(net, *arguments, **options)
        for name in seen:
            net.get_submodule(name).register_forward_hook(
                lambda _module, inputs, _output, name=name: seen.update({name: seen[name] + len(inputs[0])})
            )

    monkeypatch.setattr(VGG, "__init__", counting)
    return seen


def moved(run, weights):
    """Return the layers that are not those of the weights."""
    ours, theirs = load(run).state_dict(), load(weights).state_dict()
    return {name.split(".")[0] for name in theirs if not torch.equal(ours[name], theirs[name])}


KEPT = Execution(keep_checkpoints=True)


def trained(weights, out, **options):
    recipe = recipe_from_weights(str(weights), **{**SMALL, **options})
    return train(tiny.splits(), out=out, recipe=recipe, execution=KEPT)


def test_network_crop_width_and_scale_are_those_of_the_weights(weights):
    recipe = recipe_from_weights(str(weights / "model"))
    assert (recipe.crop, recipe.width, recipe.batch_norm, recipe.scale, recipe.flip) == (64, 0.05, False, "320", False)
    assert (recipe.trainable, recipe.first_rate, recipe.views) == ("fc", 0.001, 2)
    assert recipe_from_weights(str(weights / "vgg.pth")).scale == "256"


def test_fully_connected_layers_learn_on_frozen_convolutional_ones(weights, tmp_path):
    run = trained(weights / "model", tmp_path / "run")
    assert moved(run, weights / "model") == FULLY_CONNECTED
    assert load_model(run).classes == tiny.CLASSES
    assert load_config(run).scale == "320"
    assert set(read_record(run).fingerprints) == {"train", "val", "from"}


@pytest.mark.parametrize(
    ("trainable", "learning"),
    [("fc8", {"fc8"}), ("conv5", {"conv5_1", "conv5_2", *FULLY_CONNECTED}), ("all", None)],
)
def test_other_layers_learn_if_asked_to(weights, tmp_path, trainable, learning):
    run = trained(weights / "vgg.pth", tmp_path / "run", trainable=trainable, epochs=1)
    changed = moved(run, weights / "model") - {"mean_rgb"}
    assert changed - {"conv1_1"} == (learning or {*FULLY_CONNECTED} | changed - {"conv1_1"})
    assert ("conv2_1" in changed) == (trainable == "all")


def test_frozen_layers_see_every_view_of_an_image_once(weights, tmp_path, forwards):
    trained(weights / "model", tmp_path / "run")
    assert forwards["conv1_1"] == 2 * tiny.IMAGES + 6
    assert forwards["fc8"] == 5 * (tiny.IMAGES + 6)


@pytest.mark.parametrize("trainable", ["fc", "fc8", "conv5"])
def test_what_is_kept_of_frozen_layers_changes_nothing(weights, tmp_path, monkeypatch, trainable):
    kept = trained(weights / "model", tmp_path / "kept", trainable=trainable)
    monkeypatch.setattr(frozen_layers, "_SHARE_OF_MEMORY", 0)
    anew = trained(weights / "model", tmp_path / "anew", trainable=trainable)
    for name, value in load(kept).state_dict().items():
        assert torch.allclose(value, load(anew).state_dict()[name], rtol=1e-4, atol=1e-6)
    assert tiny.learning(kept)[-1]["loss"] == pytest.approx(tiny.learning(anew)[-1]["loss"], rel=1e-4)


def test_memory_that_runs_out_on_kept_features_is_followed_by_smaller_pieces(weights, tmp_path, monkeypatch):
    """In steps and in validations, which had been kept in larger batches."""
    whole, cross_entropy = trained(weights / "model", tmp_path / "whole"), torch.nn.functional.cross_entropy

    def at_most_2(outputs, *arguments, **options):
        if len(outputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return cross_entropy(outputs, *arguments, **options)

    monkeypatch.setattr(learner.F, "cross_entropy", at_most_2)
    run = trained(weights / "model", tmp_path / "run")
    for name, value in load(whole).state_dict().items():
        assert torch.allclose(value, load(run).state_dict()[name], rtol=1e-4, atol=1e-6)
    assert [one["validation_error"] for one in tiny.learning(run)] == [
        one["validation_error"] for one in tiny.learning(whole)
    ]


def test_norms_of_every_layer_are_recorded_also_of_frozen_ones(weights, tmp_path):
    recipe = recipe_from_weights(str(weights / "model"), **SMALL)
    run = train(tiny.splits(), out=tmp_path / "run", recipe=recipe, execution=Execution(norms_every=1))
    assert all(one.activation > 0 for step in read_norms(run) for one in step.layers.values())


def test_weights_that_were_never_trained_are_told_before_the_training(weights, tmp_path, capsys):
    """First weights have biases of zero; a training moves them all."""
    warning = "all biases of {} are zero, as in weights that were never trained"
    train(tiny.splits(), out=tmp_path / "a", recipe=recipe_from_weights(str(weights / "vgg.pth"), epochs=1, batch=4))
    said = capsys.readouterr().err
    assert said.index(warning.format(weights / "vgg.pth")) < said.index("epoch 1/1")
    train(tiny.splits(), out=tmp_path / "b", recipe=recipe_from_weights(str(tmp_path / "a"), epochs=1, batch=4))
    assert "all biases" not in capsys.readouterr().err


def test_frozen_layers_without_fixed_views_are_told_of_them(weights, tmp_path, capsys):
    for views, told in ((None, True), (2, False)):
        trained(weights / "model", tmp_path / f"run{views}", views=views, epochs=1)
        assert (
            "with --views 2, for example, each image goes through the frozen layers only twice"
            in capsys.readouterr().err
        ) == told


def test_balanced_classes_are_drawn_from_what_is_kept_and_from_crops_alike(weights, tmp_path, monkeypatch, capsys):
    """Of 8 dark images and 2 light ones, as many of each."""
    splits, changed = tiny.splits(), (0, 0, 0, 0, 0, 0, 0, 0, 1, 1)
    splits = replace(splits, sources={**splits.sources, "train": replace(splits.source("train"), labels=changed)})
    recipe = recipe_from_weights(str(weights / "model"), **{**SMALL, "views": 3, "balanced": True})
    losses = []
    for share in (0.5, 0):
        monkeypatch.setattr(frozen_layers, "_SHARE_OF_MEMORY", share)
        losses.append([one["loss"] for one in tiny.learning(train(splits, out=tmp_path / f"{share}", recipe=recipe))])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert "unequal classes" not in capsys.readouterr().err


def test_without_views_every_epoch_has_new_ones(weights, tmp_path, forwards):
    trained(weights / "model", tmp_path / "run", views=None)
    assert forwards["conv1_1"] == forwards["fc8"] == 5 * (tiny.IMAGES + 6)


def test_a_training_on_kept_features_resumes_to_the_bit(weights, tmp_path, monkeypatch):
    """SIGTERM in the second epoch, and in the fourth."""
    whole = trained(weights / "model", tmp_path / "whole")
    recipe = recipe_from_weights(str(weights / "model"), **SMALL)
    steps, cross_entropy = [], torch.nn.functional.cross_entropy

    def noted(*arguments, **options):
        steps.append(1)
        if len(steps) in (5, 10):
            signal.raise_signal(signal.SIGTERM)
        return cross_entropy(*arguments, **options)

    monkeypatch.setattr(learner.F, "cross_entropy", noted)
    for resume in (False, True):
        with pytest.raises(Stopped):
            train(tiny.splits(), out=tmp_path / "run", recipe=recipe, resume=resume)
    run = train(tiny.splits(), out=tmp_path / "run", recipe=recipe, execution=KEPT, resume=True)
    one, other = (tiny.digest(load_latest(folder / "checkpoints")[0]) for folder in (run, whole))
    assert one == other


def test_a_training_that_is_resumed_needs_its_weights_no_more(weights, tmp_path, monkeypatch, capsys):
    """By the command, which has its options from them; unless it was stopped before it had anything."""
    photos, file, run = str(tiny.folder(tmp_path / "photos")), tmp_path / "vgg.pth", str(tmp_path / "run")
    file.write_bytes((weights / "vgg.pth").read_bytes())
    command = ["train", photos, "--from", str(file), "--epochs", "3", "--batch", "4", "--out", run, "--resume"]
    steps, cross_entropy = [], torch.nn.functional.cross_entropy

    def noted(*arguments, **options):
        steps.append(1)
        if len(steps) == 5:
            signal.raise_signal(signal.SIGTERM)
        return cross_entropy(*arguments, **options)

    monkeypatch.setattr(learner.F, "cross_entropy", noted)
    assert status_of(*command) == 128 + signal.SIGTERM
    file.unlink()
    capsys.readouterr()
    assert status_of(*command) == 0
    assert "resumed at step" in capsys.readouterr().err
    assert status_of(*command) == 0  # it is done
    assert status_of(*command[:-2], str(tmp_path / "other")) == 2
    assert "vgg.pth" in capsys.readouterr().err


def test_other_weights_under_the_same_name_are_refused(weights, tmp_path, capsys):
    photos, file, run = str(tiny.folder(tmp_path / "photos")), tmp_path / "vgg.pth", str(tmp_path / "run")
    command = ["train", photos, "--from", str(file), "--epochs", "1", "--batch", "4", "--out", run]
    file.write_bytes((weights / "vgg.pth").read_bytes())
    assert status_of(*command) == 0
    write_weights(run, file, layout="torchvision")
    capsys.readouterr()
    assert status_of(*command, "--resume") == 2
    assert "made with other settings (weights to go on from)" in capsys.readouterr().err


def test_a_file_of_weights_is_read_once(weights, tmp_path, monkeypatch):
    """For the options that follow from it, and for what it holds."""
    read, files = start.read_model, []
    monkeypatch.setattr(start, "read_model", lambda name: files.append(name) or read(name))
    trained(weights / "vgg.pth", tmp_path / "run", epochs=1)
    assert files == [str(weights / "vgg.pth")]
    trained(weights / "vgg.pth", tmp_path / "again", epochs=1)
    assert len(files) == 2  # it was not kept


@pytest.mark.parametrize(
    ("needed", "of_import"),
    [
        ("say --channels bgr, as in Caffe, or --channels rgb", True),
        ("for its convolutions alone add --convolutions-only", True),
        ("say which by --crop 32 or --crop 224", True),
        ("has no model yet: finish it with --resume", False),
        ("is not a model of verydeep: verydeep import a --out RUN may read it", False),
    ],
)
def test_only_options_of_import_are_said_to_be_its(weights, monkeypatch, needed, of_import):
    def refused(name):
        raise ValueError(f"{name}: {needed}")

    monkeypatch.setattr(start, "read_model", refused)
    with pytest.raises(ValueError, match=re.escape(needed)) as error:
        recipe_from_weights(str(weights / "model"))
    assert ("options of verydeep import, whose run --from takes" in str(error.value)) == of_import


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": "a", "finetune": "b"}, "finetune and from both say where to start"),
        ({"weights": "a", "trainable": "fc", "freeze": "conv1_1"}, "trainable and freeze both say"),
        ({"weights": "a", "trainable": "fc7"}, "trainable is one of fc8, fc, conv5"),
        ({"trainable": "fc"}, "so it needs finetune, from, or a RUN as init"),
        ({"views": 0}, "views must be 1 or more"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Recipe(**options)


def test_options_of_the_command_follow_from_the_weights(weights, tmp_path):
    """And those that are given stay, 224 too, which would be the default."""
    photos = str(tiny.folder(tmp_path / "photos"))
    model, run = str(weights / "model"), str(tmp_path / "run")
    command = ["train", photos, "--from", model, "--epochs", "1", "--batch", "4"]
    assert status_of(*command, "--out", run) == 0
    recipe = read_record(run).recipe
    expected = recipe_from_weights(model, epochs=1, batch=4)
    assert recipe == asdict(expected)
    assert status_of(*command, "--out", str(tmp_path / "other"), "--crop", "224") == 2
    assert status_of("train", photos, "--finetune", run, "--epochs", "1", "--out", str(tmp_path / "further")) == 0
    further = read_record(tmp_path / "further")
    assert (further.network, further.recipe["crop"], further.recipe["scale"]) == ("A", 64, "320")
    assert (further.recipe["batch"], further.recipe["trainable"], further.recipe["flip"]) == (256, None, False)


def test_a_quick_training_is_small_where_nothing_else_is_said(tmp_path, capsys):
    photos = str(tiny.folder(tmp_path / "photos"))
    command = ["train", photos, "--quick", "--epochs", "1", "--width", "0.05"]
    assert status_of(*command, "--out", str(tmp_path / "run")) == 0
    told = f"{tmp_path / 'run'} is the network after the last epoch, which is the best."
    assert told.replace(" ", "") in "".join(capsys.readouterr().out.split())
    recipe = read_record(tmp_path / "run").recipe
    assert (recipe["crop"], recipe["width"], recipe["batch"], recipe["epochs"]) == (64, 0.05, 32, 1)
    assert status_of(*command, "--finetune", str(tmp_path / "run"), "--out", str(tmp_path / "other")) == 2
