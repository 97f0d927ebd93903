"""Both tests of boxes against loops over images and windows that are written out here."""

import boxed_pictures as pictures
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_boxes import naive

from verydeep import initialise
from verydeep.images.decode import decode
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.tolerance import Tolerance
from verydeep.images.views import rescale
from verydeep.localisation.evaluate import _centre_crop_boxes
from verydeep.localisation.full_test import FullTest, _window_corners, full_test
from verydeep.networks.architecture import Architecture
from verydeep.networks.vgg import VGG
from verydeep.runs.model import Model

CROP = 32


def model(regression=None, seed=0, classes=pictures.CLASSES, crop=CROP, flip=True, scale="256"):
    torch.manual_seed(seed)
    net = VGG(Architecture(network="A", classes=len(classes), crop=crop, width=0.05, boxes=regression)).eval()
    initialise(net)
    with torch.no_grad():
        net.fc8.weight *= 3 if regression is None else 1
        if regression is not None:
            net.fc8.bias[:] = torch.tensor([0.5, 0.5, 0.7, 0.6]).repeat(len(net.fc8.bias) // 4)
    return Model(net=net, classes=classes, scale=scale, flip=flip)


def full(*, scales=(), windows=None, **networks):
    return FullTest(**networks, scales=scales, windows=windows)


def pixels(source, index, side):
    return torch.from_numpy(rescale(decode(source[index].data), side).transpose(2, 0, 1).copy())


@settings(max_examples=100)
@given(height=st.integers(64, 200), width=st.integers(64, 200))
def test_windows_lie_32_pixels_apart_and_in_the_middle(height, width):
    tops, lefts = _window_corners((height, width), 64)
    with torch.inference_mode():
        shape = model(crop=64).net.score_map(torch.zeros(1, 3, height, width)).shape[2:]
    assert len(tops) == len(lefts) == shape.numel()
    rows, columns = tops.reshape(shape)[:, 0], lefts.reshape(shape)[0]
    for places, side, count in ((rows, height, shape[0]), (columns, width, shape[1])):
        assert np.diff(places).tolist() == [32] * (count - 1)
        assert places[0] >= 0
        assert side - (places[-1] + 64) - places[0] in (0, 1)


@pytest.mark.parametrize(
    ("regression", "scale", "side"), [("shared", "256", 37), ("per-class", "400", 57), ("per-class", "256:544", 57)]
)
def test_the_simplified_test_is_the_true_classes_box_of_the_centre_crop(regression, scale, side):
    source, tested = pictures.boxed(35, seed=2), model(regression, scale=scale)  # in two batches
    found = _centre_crop_boxes(tested, source, name="it", quarantine=Quarantine(35))
    for index in range(35):
        image = pixels(source, index, side)
        (height, width), (whole, broad) = source.boxes[index].size, image.shape[1:]
        top, left = (whole - CROP) // 2, (broad - CROP) // 2
        with torch.no_grad():
            heads = tested.net(image[None, :, top : top + CROP, left : left + CROP])[0].reshape(-1, 4)
        x, y, w, h = heads[source.labels[index] if regression == "per-class" else 0].tolist()
        edges = CROP * np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) + [left, top, left, top]
        edges *= [width / broad, height / whole] * 2
        np.testing.assert_allclose(found[index], edges.clip(0, [width, height] * 2), atol=1e-3)


def test_a_batch_of_images_that_cannot_be_used_is_passed_over():
    good = pictures.boxed(1, seed=0)
    bad = tuple(Sample(b"no image", 0, f"flat/{index}.png") for index in range(32))
    source = memory_source(classes=pictures.CLASSES, samples=(*bad, good[0]))
    found = _centre_crop_boxes(model("per-class"), source, name="it", quarantine=Quarantine(33, Tolerance(max_bad=100)))
    assert np.isnan(found[:32]).all()
    np.testing.assert_array_equal(
        found[32:], _centre_crop_boxes(model("per-class"), good, name="it", quarantine=Quarantine(1))
    )


@pytest.mark.parametrize("scales", [(256, 400), ()])
@pytest.mark.parametrize("windows", ["dense", "crops"])
def test_the_full_test_is_what_its_parts_give(windows, scales):
    """Two box networks of either kind, two classification networks with classes in another order; S of each differs."""
    source = pictures.boxed(3, seed=6)
    nets = [model("shared", 1, scale="256"), model("per-class", 2, scale="400")]
    classifiers = [model(None, 3), model(None, 4, classes=pictures.CLASSES[::-1], flip=False, scale="320")]
    test = full(box_models=nets, classifiers=classifiers, groups=[[0], [1], [0, 1]], scales=scales, windows=windows)
    found = dict(full_test(test, source, quarantine=Quarantine(3)))
    assert list(found) == [0, 1, 2]
    for index, seen in found.items():
        boxes, scores, wholes = [[], []], [[], []], [[], []]
        for q, side in ((256, 37), (320, 46), (400, 57)):
            image = pixels(source, index, side)
            boxes_here, scores_here, whole = by_hand(nets, classifiers, image, source.boxes[index].size, windows)
            for which in (0, 1):
                if q in (scales or [(256,), (400,)][which]):
                    boxes[which] += boxes_here[which]
                    scores[which] += scores_here
                if q in (scales or [(256,), (320,)][which]):
                    wholes[which].append(whole[which])
        np.testing.assert_allclose(seen.posterior, np.mean([np.mean(its, 0) for its in wholes], 0), atol=1e-6)
        assert 0.01 < seen.posterior[0] < 0.99
        height, width = source.boxes[index].size
        for group, members in enumerate(test.groups):
            for label in range(2):
                candidates = [heads[label % len(heads)] for net in members for heads in boxes[net]]
                rated = [one[label] for net in members for one in scores[net]]
                expected = np.clip(naive(candidates, rated)[0][0], 0, [width, height] * 2)
                np.testing.assert_allclose(seen.boxes[group, label], expected, atol=1e-2)


def test_what_a_network_finds_does_not_depend_on_the_others():
    source = pictures.boxed(2, seed=6)
    nets = [model("shared", 1, scale="256"), model("per-class", 2, scale="400")]
    parts = {"classifiers": [model(None, 3, scale="320")]}
    both = dict(full_test(full(**parts, box_models=nets, groups=[[0], [1]]), source, quarantine=Quarantine(2)))
    for place, net in enumerate(nets):
        alone = full_test(full(**parts, box_models=[net], groups=[[0]]), source, quarantine=Quarantine(2))
        for index, seen in alone:
            np.testing.assert_array_equal(seen.boxes[0], both[index].boxes[place])
            np.testing.assert_array_equal(seen.posterior, both[index].posterior)


def test_a_class_may_have_its_other_name_in_a_classification_network():
    source = pictures.boxed(2, seed=6)
    nets = [model("per-class", 2, classes=("n01440764", "n01443537"))]
    seen = [
        list(full_test(full(box_models=nets, classifiers=[one], groups=[[0]]), source, quarantine=Quarantine(2)))
        for one in (model(None, 3, classes=("tench", "goldfish")), model(None, 3, classes=("n01440764", "n01443537")))
    ]
    for (_, one), (_, other) in zip(*seen, strict=True):
        np.testing.assert_array_equal(one.posterior, other.posterior)
        np.testing.assert_array_equal(one.boxes, other.boxes)


def over_space(classifier, image, way):
    """Return outputs [outputs, h, w] of the score map, or of every window by itself."""
    if way == "dense":
        return classifier.net.score_map(image[None])[0]
    height, width = image.shape[1:]
    rows = []
    for top in range(height % 32 // 2, height - CROP + 1, 32):
        lefts = range(width % 32 // 2, width - CROP + 1, 32)
        rows.append(
            torch.stack([classifier.net(image[None, :, top : top + 32, left : left + 32])[0] for left in lefts], 1)
        )
    return torch.stack(rows, 1)


def by_hand(nets, classifiers, image, size, way):
    """Return boxes of each net [windows][heads][4], posteriors of the windows, and each classifier's of the image."""
    tall, broad = image.shape[1:]
    with torch.no_grad():
        maps = [over_space(net, image, way) for net in nets]
        classes = []
        for classifier in classifiers:
            order = [classifier.classes.index(name) for name in pictures.CLASSES]
            views = [image, image.flip(-1)] if classifier.flip else [image]
            classes.append([over_space(classifier, view, way)[order].double() for view in views])
    rows, columns = maps[0].shape[1:]
    boxes, scores = [[] for _ in nets], []
    for row in range(rows):
        for column in range(columns):
            left, top = broad % 32 // 2 + 32 * column, tall % 32 // 2 + 32 * row
            for its, found in zip(boxes, maps, strict=True):
                heads = []
                for x, y, w, h in found[:, row, column].reshape(-1, 4).tolist():
                    edges = CROP * np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) + [left, top, left, top]
                    heads.append(edges * ([size[1] / broad, size[0] / tall] * 2))
                its.append(heads)
            scores.append(torch.stack([views[0][:, row, column].softmax(0) for views in classes]).mean(0).tolist())
    whole = [torch.stack([view.mean((1, 2)).softmax(0) for view in views]).mean(0).numpy() for views in classes]
    return boxes, scores, whole


@pytest.mark.parametrize(("crop", "windows"), [(32, "crops"), (192, "crops"), (224, "dense"), (256, "dense")])
def test_small_crops_are_cut_out_unless_said_otherwise(crop, windows):
    parts = {"box_models": [model("shared", crop=crop)], "classifiers": [model(crop=crop)]}
    assert full(**parts, groups=[[0]], scales=[256]).windows_used == windows
    assert full(**parts, groups=[[0]], scales=[256], windows="dense").windows_used == "dense"


def test_images_that_cannot_be_used_are_none():
    good = pictures.boxed(2, seed=0)
    samples = (good[0], Sample(b"no image", 0, "flat/bad.png"), good[1])
    source = memory_source(classes=pictures.CLASSES, samples=samples)
    quarantine = Quarantine(3, Tolerance(max_bad=50))
    test = full(box_models=[model("shared")], classifiers=[model()], groups=[[0]], scales=[256])
    found = dict(full_test(test, source, quarantine=quarantine))
    assert [seen is None for seen in found.values()] == [False, True, False]
    assert list(quarantine.reasons) == ["flat/bad.png"]


@pytest.mark.parametrize("scales", [[223], [256, 256]])
def test_scales_that_cannot_be_are_refused(scales):
    with pytest.raises(ValueError, match="are distinct whole numbers from there up"):
        full(box_models=[model("shared")], classifiers=[model()], groups=[[0]], scales=scales)


@pytest.mark.parametrize(
    ("classifiers", "message"),
    [
        ([], "name a classification run"),
        ([{"crop": 64}], "crops differ .32 and 64."),
        ([{"classes": ("flat", "round")}], "classes of the runs differ: round, tall are not in all"),
        ([{}, {"classes": ("flat", "tall", "wide")}], "classes of the runs differ: wide are not in all"),
    ],
)
def test_networks_that_do_not_go_together_are_refused(classifiers, message):
    nets = [model(**one) for one in classifiers]
    with pytest.raises(ValueError, match=message):
        full(box_models=[model("shared")], classifiers=nets, groups=[[0]])


def test_networks_of_boxes_with_classes_in_another_order_are_refused():
    nets = [model("per-class"), model("per-class", classes=pictures.CLASSES[::-1])]
    with pytest.raises(ValueError, match="in another order or under other names"):
        full(box_models=nets, classifiers=[model()], groups=[[0]])
