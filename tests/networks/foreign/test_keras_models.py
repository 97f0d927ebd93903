"""Whole Keras models give the scores of their layers, or are refused by the name of the layer that hinders it."""

import json
from itertools import pairwise

import foreign_weights as foreign
import numpy as np
import pytest
import torch

pytest.importorskip("h5py")
import h5py
import keras_models as keras
from keras_models import dense, layer, random

from verydeep import TakenWeights, import_weights, load, load_model
from verydeep.networks.foreign import keras as keras_files

SIDE, CHANNELS = 64, 32
RGB = foreign.images(SIDE)
INPUT = layer("InputLayer", "input_2", batch_shape=[None, SIDE, SIDE, 3])
GAP = layer("GlobalAveragePooling2D", "gap")


def softmax(scores):
    exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)


def posteriors(folder):
    with torch.no_grad():
        return load(folder)(torch.from_numpy(RGB)).double().softmax(dim=1).numpy()


def pool5(net, pixels):
    return foreign.features(net, pixels)


def mean(maps):
    return maps.mean(axis=(2, 3))


@pytest.mark.parametrize("form", ["net.h5", "net.keras", "places.keras"])
def test_rescaling_and_the_mean_of_pool5(tmp_path, form):
    net, weights, bias = keras.plain(), random(133, CHANNELS), random(133)
    layers = [INPUT, layer("RandomFlip", "flip"), layer("Rescaling", "rescaling", scale=1 / 255, offset=0.0)]
    layers += [keras.base(net, SIDE), GAP, layer("Dropout", "dropout"), dense(weights, bias, "dense", "softmax")]
    found = import_weights(keras.write(tmp_path / form, layers, named="places" not in form), tmp_path / "run")
    assert (found.layout, found.network, found.crop, found.classes) == ("keras", "A", SIDE, 133)
    assert found.mean_rgb == (0, 0, 0)
    assert found.notes == ("its head, the mean of pool5 and layers of 133, is written as fc6, fc7 and fc8",)
    expected = softmax(mean(pool5(net, RGB / 255)) @ weights.T + bias)
    assert np.abs(posteriors(tmp_path / "run") - expected).max() < 1e-4
    with torch.no_grad():
        relu7 = load(tmp_path / "run").activations(torch.from_numpy(RGB), ["relu7"])["relu7"].numpy()
    assert np.abs(relu7[:, :CHANNELS] - mean(pool5(net, RGB / 255))).max() < 1e-4  # what `features` describes images by
    assert not relu7[:, CHANNELS:].any()


def test_one_layer_of_all_positions_keeps_scores_of_both_signs(tmp_path):
    net, weights, bias = keras.plain(), random(20, 4 * CHANNELS), random(20)
    layers = [INPUT, layer("Rescaling", "rescaling", scale=1 / 127.5, offset=-1.0), keras.base(net, SIDE)]
    layers += [layer("Flatten"), dense(weights, bias, "dense", "softmax")]
    import_weights(keras.write(tmp_path / "net.keras", layers), tmp_path / "run")
    scores = keras.flat(pool5(net, RGB / 127.5 - 1)) @ weights.T + bias
    assert scores.min() < 0 < scores.max()
    assert np.abs(posteriors(tmp_path / "run") - softmax(scores)).max() < 1e-4


def test_normalisations_are_folded_and_a_sigmoid_is_two_classes(tmp_path):
    net, first, last = keras.plain(), random(64, 4 * CHANNELS), random(1, 64, seed=2)
    gamma, beta, centre, variance = (random(64, seed=n) for n in (3, 4, 5, 6))
    variance = 0.5 + variance**2
    layers = [
        INPUT,
        layer("Rescaling", "rescaling", scale=1 / 255, offset=0.0),
        keras.base(net, SIDE),
        layer("Flatten"),
    ]
    layers += [
        dense(first, random(64), "dense_1"),
        layer("BatchNormalization", "norm", [gamma, beta, centre, variance]),
    ]
    layers += [layer("Activation", "act", activation="relu"), dense(last, random(1), "dense_2", "sigmoid")]
    found = import_weights(keras.write(tmp_path / "net.h5", layers), tmp_path / "run")
    hidden = keras.flat(pool5(net, RGB / 255)) @ first.T + random(64)
    hidden = np.maximum((hidden - centre) / np.sqrt(variance + 1e-3) * gamma + beta, 0)
    expected = 1 / (1 + np.exp(-(hidden @ last.T + random(1))))
    assert found.notes[-1].endswith("the sigmoid of its one output is the second of two classes")
    assert load_model(tmp_path / "run").classes == ("class 0", "class 1")
    assert np.abs(posteriors(tmp_path / "run")[:, 1:] - expected).max() < 1e-4


def test_a_normalisation_of_all_of_pool5_is_no_matrix(tmp_path, monkeypatch):
    """At a crop of 224 it would have 25,088 x 25,088 numbers."""
    monkeypatch.setattr(torch.Tensor, "diag", None)
    net, weights, bias = keras.plain(), random(6, 4 * CHANNELS), random(6)
    gamma, beta, centre, variance = (random(4 * CHANNELS, seed=n) for n in (3, 4, 5, 6))
    arrays = [gamma, beta, centre, 0.5 + variance**2]
    norms = [layer("BatchNormalization", name, arrays) for name in ("norm", "norm_1")]
    layers = [INPUT, layer("Rescaling", "rescaling", scale=1 / 255, offset=0.0), keras.base(net, SIDE)]
    layers += [layer("Flatten"), *norms, dense(weights, bias, "dense", "softmax")]
    import_weights(keras.write(tmp_path / "net.keras", layers), tmp_path / "run")
    x = keras.flat(pool5(net, RGB / 255))
    for _ in norms:
        x = (x - centre) / np.sqrt(0.5 + variance**2 + 1e-3) * gamma + beta
    assert np.abs(posteriors(tmp_path / "run") - softmax(x @ weights.T + bias)).max() < 1e-4


NUMBERS = {"class_name": "__tensor__", "config": {"value": [[-103.939, -116.779, -123.68]]}}
ELLIPSIS = {"class_name": "__ellipsis__", "config": {}}


def tensor(name):
    return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}


def operation(kind, name, *arguments):
    return {**layer(kind, name), "inbound_nodes": [{"args": list(arguments), "kwargs": {}}]}


def new_preprocessing(order=(2, 1, 0)):
    """`preprocess_input` as Keras 3 leaves it in a model: the channels one by one, then together, then the mean."""
    for channel in order:
        yield operation("GetItem", f"item_{channel}", tensor("input_2"), [ELLIPSIS, channel])
    yield operation("Stack", "stack", [tensor(f"item_{channel}") for channel in order])
    yield operation("Add", "add", tensor("stack"), NUMBERS)


def old_preprocessing():
    """As TensorFlow 2 does."""
    cut = {"slice_spec": [{"class_name": "__ellipsis__"}, {"start": None, "stop": None, "step": -1}]}
    function = layer("SlicingOpLambda", "getitem", function="__operators__.getitem")
    yield {**function, "inbound_nodes": [["input_2", 0, 0, cut]]}
    function = layer("TFOpLambda", "bias_add", function="nn.bias_add")
    numbers = {"bias": NUMBERS["config"]["value"][0], "data_format": "NHWC"}
    yield {**function, "inbound_nodes": [["getitem", 0, 0, numbers]]}


@pytest.mark.parametrize("form", [new_preprocessing, old_preprocessing])
def test_preprocessing_in_the_model_is_that_of_the_run(tmp_path, form):
    net, weights, bias = keras.plain(white=255), random(5, CHANNELS), random(5)
    layers = [INPUT, *form(), keras.base(net, SIDE), GAP, dense(weights, bias, "dense", "softmax")]
    found = import_weights(keras.write(tmp_path / "net.keras", layers), tmp_path / "run")
    assert found.mean_rgb == pytest.approx(foreign.RGB_MEAN, abs=1e-4)
    expected = softmax(mean(pool5(net, foreign.caffe_pixels(RGB))) @ weights.T + bias)
    assert np.abs(posteriors(tmp_path / "run") - expected).max() < 1e-4


def test_normalization_of_pixels_is_mean_and_std(tmp_path):
    net, weights, bias = keras.plain(), random(5, CHANNELS), random(5)
    centre, variance = np.float32([100, 110, 120]), np.float32([3000, 3500, 4000])
    normal = layer("Normalization", "normal", mean=centre.tolist(), variance=variance.tolist(), axis=-1)
    layers = [INPUT, normal, keras.base(net, SIDE), GAP, dense(weights, bias, "dense", "softmax")]
    found = import_weights(keras.write(tmp_path / "net.keras", layers), tmp_path / "run")
    assert found.mean_rgb == pytest.approx(centre, abs=1e-4)
    pixels = (RGB - centre[:, None, None]) / np.sqrt(variance)[:, None, None]
    expected = softmax(mean(pool5(net, pixels)) @ weights.T + bias)
    assert np.abs(posteriors(tmp_path / "run") - expected).max() < 1e-4


@pytest.mark.parametrize(("named", "first"), [(True, 0), (False, 0), (False, 1), (False, 9)])
def test_three_layers_of_other_widths_and_unnamed_classes(tmp_path, named, first):
    """Where a file goes by places, one layer's place may be the name of another one."""
    net = keras.plain()
    sizes = (CHANNELS, 64, 64, 7)
    weights = [random(outputs, inputs, seed=number) for number, (inputs, outputs) in enumerate(pairwise(sizes))]
    biases = [random(outputs, seed=number) for number, outputs in enumerate(sizes[1:])]
    layers = [INPUT, layer("Rescaling", "rescaling", scale=1 / 255, offset=0.0), keras.base(net, SIDE), GAP]
    for number, kind in enumerate(("relu", "relu", "linear")):
        layers.append(dense(weights[number], biases[number], f"dense_{first + number}", kind))
    import_weights(keras.write(tmp_path / "net.keras", layers, named=named), tmp_path / "run")
    x = mean(pool5(net, RGB / 255))
    for number in range(3):
        x = x @ weights[number].T + biases[number]
        x = np.maximum(x, 0) if number < 2 else x
    assert np.abs(posteriors(tmp_path / "run") - softmax(x)).max() < 1e-4


def test_images_of_150_have_the_positions_of_128(tmp_path):
    layers = [
        keras.base(keras.plain(white=255), 150),
        layer("Flatten"),
        dense(random(2, 16 * CHANNELS), random(2), "dense"),
    ]
    found = import_weights(keras.write(tmp_path / "net.h5", layers), tmp_path / "run")
    assert found.crop == 128
    assert found.notes[0].startswith("its images are of 150 x 150, which is not a multiple of 32")


def head_of(*layers):
    return [INPUT, keras.base(keras.plain(white=255), SIDE), *layers]


DENSE = dense(random(5, CHANNELS), random(5), "dense", "softmax")
MORE = [dense(random(40, inputs), random(40), f"dense_{n}", "relu") for n, inputs in enumerate((CHANNELS, 40, 40))]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (head_of(GAP, dense(random(5, CHANNELS), random(5), "top", "sigmoid")), "its 5 outputs have a sigmoid each"),
        (head_of(GAP, dense(random(5, CHANNELS), random(5), "top", "tanh")), "the layer top has the activation tanh"),
        (head_of(GAP, dense(random(1, CHANNELS), random(1), "top")), "its one output has no sigmoid"),
        (head_of(GAP, dense(random(5, 30), random(5), "top")), "takes 30 numbers"),
        (head_of(GAP, *MORE, dense(random(5, 40), random(5), "top")), "4 layers with ReLUs between them"),
        (
            head_of(GAP, dense(random(300, CHANNELS), random(300), "a", "relu"), dense(random(5, 300), random(5), "b")),
            "300",
        ),
        (head_of(layer("GlobalMaxPooling2D", "gmp"), DENSE), "the layer gmp is a GlobalMaxPooling2D"),
        (head_of(GAP, layer("Concatenate", "both"), DENSE), "the layer both is a Concatenate"),
        (head_of(layer("LayerNormalization", "norm"), GAP, DENSE), "the layer norm is a LayerNormalization"),
    ],
)
def test_heads_that_cannot_be_expressed_leave_the_convolutions(tmp_path, layers, message):
    file = keras.write(tmp_path / "net.keras", layers)
    with pytest.raises(ValueError, match=rf"{message}.*for its convolutions alone add --convolutions-only") as caught:
        import_weights(file, tmp_path / "run")
    assert "\n" not in str(caught.value)
    found = import_weights(file, tmp_path / "run", taken=TakenWeights(convolutions_only=True))
    assert load_model(tmp_path / "run").random_layers == ("fc6", "fc7", "fc8")
    assert found.crop == SIDE


POOLINGS = [layer("MaxPooling2D", f"pool{n}", pool_size=[2, 2], strides=[2, 2]) for n in range(5)]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([INPUT, layer("Lambda", "halved"), keras.base(keras.plain(), SIDE), GAP, DENSE], "halved is a Lambda.*--mean"),
        (
            [INPUT, keras.base(keras.plain(), SIDE, activation="tanh"), GAP, DENSE],
            "block1_conv1 has the activation tanh",
        ),
        ([layer("InputLayer", "input_2", batch_shape=[None, 64, 96, 3])], "only square ones"),
        ([INPUT, layer("Rescaling", "r", scale=-1.0, offset=255.0), keras.base(keras.plain(), SIDE)], "not above 0"),
        ([INPUT, *new_preprocessing((2, 0, 1)), keras.base(keras.plain(), SIDE)], "the layer stack is a Stack"),
        ([INPUT, layer("Rescaling", "r"), keras.base(keras.plain(), SIDE)], "damaged or of an unknown version"),
        ([INPUT, layer("Rescaling", "r", scale=[1, 2], offset=0.0)], "the layer r computes with 2 numbers"),
        ([INPUT, layer("Rescaling", "r", scale=1.0, offset=[0, 1, 2, 3])], "the layer r computes with 4 numbers"),
        ([INPUT, layer("Normalization", "n", mean=[1, 2, 3], variance=[1, 2])], "the layer n computes with 2 numbers"),
        ([INPUT, layer("Normalization", "n", mean=[1, 2], variance=[1])], "the layer n computes with 2 numbers"),
        ([INPUT, {"class_name": "Dense"}], "has arrays of"),
        ([INPUT, GAP, DENSE], "it has 0 poolings of 2 x 2"),
        ([INPUT, *POOLINGS], "the layer pool0 comes before its first convolution"),
    ],
)
def test_what_comes_before_pool5_is_refused_by_name(tmp_path, layers, message):
    for one in layers:
        one.setdefault("config", {"name": "?"}), one.setdefault("arrays", [])
    with pytest.raises(ValueError, match=message) as caught:
        import_weights(keras.write(tmp_path / "net.h5", layers), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_an_array_that_many_layers_share_does_not_fill_memory(tmp_path, monkeypatch):
    """Arrays of half precision are copied wherever they are used."""
    copies, times = [], 4
    monkeypatch.setattr(keras_files, "allowed_bytes", lambda size: times * size)
    monkeypatch.setattr(torch.Tensor, "float", lambda value: copies.append(value) or value.to(torch.float32))
    kernel = random(3, 3, CHANNELS, CHANNELS).astype(np.float16)
    conv = layer("Conv2D", "conv", [kernel], strides=[1, 1], padding="same", activation="relu")
    file = keras.write(tmp_path / "net.h5", [INPUT, conv])
    with h5py.File(file, "r+") as opened:
        model = json.loads(opened.attrs["model_config"])
        model["config"]["layers"] += model["config"]["layers"][1:] * 300
        opened.attrs["model_config"] = json.dumps(model)
    with pytest.raises(ValueError, match=r"cannot be read: with the layer conv .* share an array") as caught:
        import_weights(file, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert len(copies) <= times * file.stat().st_size // (4 * kernel.size) + 1
