"""Going on from another run: the paper's S = 384 and jittered stages, new classes on old weights, frozen layers."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from verydeep import Recipe, load, train
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.runs.model import load_model
from verydeep.runs.record import read_metrics, read_record

TINY = {"crop": 32, "width": 0.05, "batch": 5, "epochs": 2, "seed": 3}
STILL = {**TINY, "epochs": 1, "learning_rate": 1e-30, "weight_decay": 0.0}
"""Options of a training in which nothing moves, so that first weights can be looked at."""

WEIGHTS_OF_A = [
    *("conv1_1", "conv2_1", "conv3_1", "conv3_2", "conv4_1", "conv4_2", "conv5_1", "conv5_2"),
    *("fc6", "fc7", "fc8"),
]


def pictures(count, seed, classes):
    """Make noise that is the lighter the later its class comes in the alphabet."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        label = index % len(classes)
        buffer = io.BytesIO()
        pixels = rng.integers(0, 60, (40, 44, 3)) + 60 * sorted(classes).index(classes[label])
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), label, f"{index}.png"))
    return memory_source(classes=classes, samples=tuple(samples))


def source(*classes):
    return Splits(name="noise", sources={"train": pictures(15, 0, classes), "val": pictures(9, 1, classes)})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "a"
    return train(source("ant", "bee", "cat"), network="A", out=out, recipe=Recipe(**TINY, learning_rate=0.01))


def state(run):
    return load(run).state_dict()


def changed(one, other):
    """Return the layers whose weights differ; a bias that was 0 may have become 1e-30."""
    moved = {name.split(".")[0] for name in one if not torch.equal(one[name], other[name])}
    return {name for name in moved if not torch.allclose(one[f"{name}.weight"], other[f"{name}.weight"], 0, 1e-20)}


def test_all_layers_and_the_mean_come_from_the_run(trained, tmp_path):
    out = train(source("ant", "bee", "cat"), out=tmp_path / "run", recipe=Recipe(**STILL, finetune=str(trained)))
    assert changed(state(trained), state(out)) == set()
    record = read_record(out)
    assert record.network == "A"
    assert record.initialisation == f"copied: {', '.join(WEIGHTS_OF_A)}"
    assert set(record.fingerprints) == {"train", "val", "finetune"}


def test_the_papers_stages_start_at_a_tenth_of_the_rate(trained, tmp_path):
    """S = 384 from S = 256, then S in [256;512] from S = 384."""
    recipe = Recipe(**TINY, finetune=str(trained), scale="384")
    larger = train(source("ant", "bee", "cat"), out=tmp_path / "384", recipe=recipe)
    assert [epoch.learning_rate for epoch in read_metrics(larger)] == [0.001, 0.001]
    recipe = Recipe(**TINY, finetune=str(larger), scale="256:512")
    jittered = train(source("ant", "bee", "cat"), out=tmp_path / "jitter", recipe=recipe)
    assert load_model(jittered).scale == "256:512"
    assert Recipe(**TINY).first_rate == 0.01
    assert Recipe(**TINY, finetune="run", learning_rate=0.5).first_rate == 0.5
    assert len(changed(state(larger), state(jittered))) == len(WEIGHTS_OF_A)


def test_other_classes_get_a_new_fc8_and_that_is_said(trained, tmp_path, capsys):
    out = train(source("dog", "elk"), out=tmp_path / "run", recipe=Recipe(**STILL, finetune=str(trained)))
    before, after = state(trained), state(out)
    assert after["fc8.weight"].shape == (2, 205)
    assert all(torch.allclose(before[name], after[name], 0, 1e-20) for name in before if not name.startswith("fc8"))
    assert after["fc8.bias"].tolist() == pytest.approx([0, 0], abs=1e-20)
    assert f"fc8 is new: the classes are not the 3 of {trained}" in capsys.readouterr().err
    assert load_model(out).classes == ("dog", "elk")
    assert torch.equal(load(out).mean_rgb, load(trained).mean_rgb)


def test_the_same_classes_in_another_order_keep_their_scores(trained, tmp_path):
    out = train(source("cat", "ant", "bee"), out=tmp_path / "run", recipe=Recipe(**STILL, finetune=str(trained)))
    images = torch.rand(4, 3, 32, 32) * 255
    one, other = load_model(trained), load_model(out)
    with torch.no_grad():
        expected, found = one.net(images), other.net(images)
    for name in ("ant", "bee", "cat"):
        assert torch.allclose(found[:, other.classes.index(name)], expected[:, one.classes.index(name)], atol=1e-6)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        ("B", {}, "--network A --crop 32 --width 0.05, with --network B --crop 32"),
        (None, {"crop": 64}, "--network A --crop 32 --width 0.05, with --network A --crop 64"),
        ("A", {"width": 0.1}, "with --network A --crop 32 --width 0.1"),
        ("A", {"batch_norm": True}, "--width 0.05 --batch-norm"),
    ],
)
def test_another_architecture_is_refused_with_what_to_say(trained, tmp_path, network, options, message):
    recipe = Recipe(**{**TINY, **options}, finetune=str(trained))
    with pytest.raises(ValueError, match=r"cannot go on from .*, which is --network A") as refused:
        train(source("ant", "bee", "cat"), network=network, out=tmp_path / "run", recipe=recipe)
    assert message in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_not_there_is_refused(tmp_path):
    for network in ("A", None):
        with pytest.raises(ValueError, match="no model in it"):
            train(source("a", "b"), network=network, out=tmp_path / "r", recipe=Recipe(**TINY, finetune=str(tmp_path)))


@pytest.mark.parametrize(
    ("last", "learning"),
    [
        ("conv1_1", WEIGHTS_OF_A[1:]),
        ("conv3_1", WEIGHTS_OF_A[3:]),
        ("pool5", ["fc6", "fc7", "fc8"]),
        ("drop7", ["fc8"]),
    ],
)
def test_frozen_layers_stay_as_they_are_and_the_others_learn(trained, tmp_path, capsys, last, learning):
    recipe = Recipe(**TINY, finetune=str(trained), freeze=last, weight_decay=0.1)
    out = train(source("ant", "bee", "cat"), out=tmp_path / "run", recipe=recipe)
    before, after = state(trained), state(out)
    assert changed(before, after) == set(learning)
    assert all(torch.equal(before[name], after[name]) for name in before if name.split(".")[0] not in learning)
    frozen = ", ".join(name for name in WEIGHTS_OF_A if name not in learning)
    assert f"frozen: {frozen}\n" in capsys.readouterr().err


def test_statistics_of_frozen_batch_normalisations_stay_too(tmp_path):
    data, options = source("ant", "bee", "cat"), {**TINY, "batch_norm": True}
    first = train(data, network="A", out=tmp_path / "first", recipe=Recipe(**options))
    recipe = Recipe(**options, finetune=str(first), freeze="pool2")
    before, after = state(first), state(train(data, out=tmp_path / "second", recipe=recipe))
    assert torch.equal(before["bn2_1.weight"], after["bn2_1.weight"])
    same = {
        name.split(".")[0]
        for name in before
        if name.endswith("running_mean") and torch.equal(before[name], after[name])
    }
    assert same == {"bn1_1", "bn2_1"}


def test_seeded_networks_can_be_frozen_too(trained, tmp_path):
    recipe = Recipe(**TINY, init=str(trained), freeze="conv1_1")
    before, after = (
        state(trained),
        state(train(source("ant", "bee", "cat"), network="D", out=tmp_path / "d", recipe=recipe)),
    )
    assert torch.equal(before["conv1_1.weight"], after["conv1_1.weight"])
    assert not torch.equal(before["conv2_1.weight"], after["conv2_1.weight"])


def test_layers_that_were_just_drawn_are_not_frozen(trained, tmp_path):
    recipe = Recipe(**TINY, init=str(trained), freeze="conv2_1")
    with pytest.raises(ValueError, match="freeze conv2_1 would keep conv1_2 at random weights"):
        train(source("ant", "bee", "cat"), network="D", out=tmp_path / "d", recipe=recipe)
    assert not (tmp_path / "d").exists()


def test_a_convolution_is_frozen_with_its_batch_normalisation(tmp_path, capsys):
    data, options = source("ant", "bee", "cat"), {**TINY, "batch_norm": True}
    first = train(data, network="A", out=tmp_path / "first", recipe=Recipe(**options))
    train(data, out=tmp_path / "second", recipe=Recipe(**options, finetune=str(first), freeze="conv2_1"))
    assert "frozen: conv1_1, bn1_1, conv2_1, bn2_1\n" in capsys.readouterr().err


def test_a_new_fc8_is_drawn_as_the_recipe_says(trained, tmp_path):
    recipe = Recipe(**{**STILL, "width": 0.05}, finetune=str(trained), init="paper")
    out = train(source("dog", "elk"), out=tmp_path / "run", recipe=recipe)
    assert read_record(out).initialisation.endswith("; paper initialisation: fc8")
    assert load(out).fc8.weight.std().item() == pytest.approx(0.01, rel=0.2)


@pytest.mark.parametrize(
    ("last", "message"),
    [("fc8", "leaves nothing to train"), ("conv9_9", "no layer 'conv9_9'; this network has conv1_1, relu1_1")],
)
def test_what_cannot_be_frozen_is_refused(trained, tmp_path, last, message):
    with pytest.raises(ValueError, match=message):
        train(
            source("ant", "bee", "cat"), out=tmp_path / "r", recipe=Recipe(**TINY, finetune=str(trained), freeze=last)
        )
    assert not (tmp_path / "r").exists()


def test_a_finetuning_resumes_only_with_the_same_start(trained, tmp_path):
    recipe = Recipe(**TINY, finetune=str(trained))
    out = train(source("ant", "bee", "cat"), out=tmp_path / "run", recipe=recipe)
    with pytest.raises(ValueError, match=r"was made with other settings \(run to go on from\)"):
        train(source("ant", "bee", "cat"), out=out, network="A", recipe=Recipe(**TINY), resume=True)
