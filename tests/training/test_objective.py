"""The objectives against formulas."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from verydeep import Recipe
from verydeep.images.boxes.geometry import CORRECT_IOU, boxes_in_image, intersection_over_union
from verydeep.images.loader import DeviceBatch
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.training import learner
from verydeep.training.learner import box_regression, classification


def batch(boxes, labels):
    count = len(labels)
    images, places = torch.zeros(count, 3, 32, 32), torch.arange(count)
    return DeviceBatch(images, places, torch.tensor(labels), torch.tensor(boxes, dtype=torch.float32))


def drawn(outputs, count=7, seed=0):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.normal(0.5, 0.3, (count, 2)), rng.uniform(0.2, 1.5, (count, 2))], axis=1)
    labels = rng.integers(0, 3, count)
    return rng.normal(0.5, 0.5, (count, outputs)), boxes, labels


@pytest.mark.parametrize("regression", ["shared", "per-class"])
def test_loss_and_gradients_are_those_of_half_the_squared_distance(regression):
    outputs, boxes, labels = drawn(4 if regression == "shared" else 12)
    given = torch.tensor(outputs, dtype=torch.float64, requires_grad=True)
    shown = batch(boxes, labels.tolist())
    loss = box_regression(regression).loss(given, shown)
    loss.backward()
    expected, gradients = 0.0, np.zeros_like(outputs)
    for row, (box, label) in enumerate(zip(shown.boxes.double().numpy(), labels, strict=True)):
        first = 0 if regression == "shared" else 4 * label
        away = outputs[row, first : first + 4] - box
        expected += (away**2).sum() / 2
        gradients[row, first : first + 4] = away
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(given.grad.numpy(), gradients, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("regression", ["shared", "per-class"])
def test_an_image_is_wrong_where_boxes_overlap_by_half_or_less(regression):
    outputs, boxes, labels = drawn(4 if regression == "shared" else 12, count=400, seed=1)
    rng = np.random.default_rng(2)
    for row, label in enumerate(labels):  # near enough that both occur, and some with sides below 0
        first = 0 if regression == "shared" else 4 * label
        outputs[row, first : first + 4] = boxes[row] + rng.normal(0, 0.25, 4)
    found = box_regression(regression).wrong(torch.tensor(outputs, dtype=torch.float32), batch(boxes, labels.tolist()))
    heads = outputs.reshape(400, -1, 4)
    chosen = heads[np.arange(400), labels if regression == "per-class" else 0]
    overlaps = intersection_over_union(*(boxes_in_image(one, 1, top=0, left=0) for one in (chosen, boxes)))
    assert found.tolist() == (~(overlaps > CORRECT_IOU)).tolist()
    assert 50 < found.sum() < 350
    assert (chosen[:, 2:] < 0).any()


def test_exactly_half_is_wrong_and_nothing_is_too():
    shown = batch([[0.5, 0.5, 1, 1]] * 3, [0, 0, 0])
    outputs = torch.tensor([[0.5, 0.5, 0.5, 1], [0.5, 0.5, 0.51, 1], [0.5, 0.5, 0, 0]])
    assert box_regression("shared").wrong(outputs, shown).tolist() == [True, False, True]


def test_a_share_without_images_has_no_loss():
    empty = DeviceBatch(torch.zeros(0, 3, 32, 32), torch.zeros(0).long(), torch.zeros(0).long())
    for regression, width in (("shared", 4), ("per-class", 12)):
        outputs = torch.zeros(0, width, requires_grad=True)
        objective = box_regression(regression)
        objective.loss(outputs, empty).backward()
        assert objective.wrong(outputs, empty).shape == (0,)


def test_images_without_boxes_are_refused():
    shown = DeviceBatch(torch.zeros(1, 3, 32, 32), torch.zeros(1).long(), torch.zeros(1).long())
    with pytest.raises(ValueError, match="no boxes to learn"):
        box_regression("shared").loss(torch.zeros(1, 4), shown)


def test_classification_is_cross_entropy_and_the_most_probable_class():
    outputs, _, labels = drawn(3)
    shown = batch(np.zeros((7, 4)), labels.tolist())
    log = outputs - np.log(np.exp(outputs).sum(axis=1, keepdims=True))
    right = log[np.arange(7), labels]
    given = torch.tensor(outputs)
    assert classification().loss(given, shown).item() == pytest.approx(-right.sum())
    smooth = classification(label_smoothing=0.3).loss(given, shown).item()
    assert smooth == pytest.approx(-(0.7 * right + 0.3 * log.mean(axis=1)).sum())
    assert classification().wrong(given, shown).tolist() == (outputs.argmax(axis=1) != labels).tolist()


def test_with_class_weights_every_class_has_the_same_part_of_the_loss():
    """Eight of ten images are dark: each weighs 10 / (2 x 8), the light ones 10 / (2 x 2)."""
    logits, labels = torch.randn(10, 2), torch.tensor([0] * 8 + [1] * 2)
    samples = tuple(Sample(b"", label, str(number)) for number, label in enumerate(labels.tolist()))
    source = memory_source(classes=("dark", "light"), samples=samples)
    job = SimpleNamespace(
        recipe=Recipe(class_weights=True),
        splits=Splits(name="made up", sources={"train": source}),
        device=torch.device("cpu"),
    )
    batch = DeviceBatch(torch.zeros(10, 3, 32, 32), torch.arange(10), labels)
    each = -logits.log_softmax(1)[range(10), labels]
    expected = 10 * (each[:8].mean() + each[8:].mean()) / 2
    assert learner._classification(job).loss(logits, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_class_weights_weigh_the_smoothed_loss_of_each_image():
    logits, labels, weights = torch.randn(5, 3), torch.tensor([0, 2, 2, 1, 0]), torch.tensor([0.5, 2.0, 1.0])
    log = logits.log_softmax(1)
    each = -(0.9 * log[range(5), labels] + 0.1 * log.mean(1))
    batch = DeviceBatch(torch.zeros(5, 3, 32, 32), torch.arange(5), labels)
    loss = classification(label_smoothing=0.1, class_weights=weights).loss(logits, batch)
    assert loss.item() == pytest.approx((each * weights[labels]).sum().item(), rel=1e-5)
