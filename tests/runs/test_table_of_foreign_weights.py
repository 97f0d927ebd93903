"""The table in docs/FOREIGN_WEIGHTS.md: every row is written by its library, where that is installed, and held by a
test that is run everywhere."""

import os
import re
from pathlib import Path

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from torch import nn

from verydeep import TakenWeights, import_weights, load

os.environ.setdefault("KERAS_BACKEND", "torch")

TESTS = Path(__file__).parents[1]
CELLS = ("file", "library", "found", "difference", "held by")
SIDE = 64
COLOURS = np.array([[160, 20, 90], [10, 150, 40], [80, 90, 170]], np.uint8)
RGB = foreign.images(SIDE) // 3 + COLOURS[:, :, None, None]
PIXELS = RGB.transpose(0, 2, 3, 1).astype(np.float32)
MOST = 1e-4
A = ((1, 1, 8), (2, 1, 16), (3, 1, 32), (3, 2, 32), (4, 1, 64), (4, 2, 64), (5, 1, 64), (5, 2, 64))
"""Stage, position and channels of the convolutions."""


def table():
    """Return the rows of the table, cells by the names of the columns."""
    text = (TESTS.parent / "docs" / "FOREIGN_WEIGHTS.md").read_text()
    rows = re.findall(r"^\| (.+?) *\|$", text, flags=re.MULTILINE)
    return [dict(zip(CELLS, map(str.strip, row.split("|")), strict=True)) for row in rows if "---" not in row][1:]


# Keras


def lively(net, white=1):
    """Give every kernel of a Keras model weights that keep the variance of pixels in 0..white."""
    rng = np.random.default_rng(0)
    for one in net.weights:
        shape = tuple(one.shape)
        if len(shape) > 1:
            one.assign(rng.normal(size=shape) * (2 / np.prod(shape[:-1])) ** 0.5 / white)
            white = 1
        elif "variance" not in one.name and "count" not in one.name:
            one.assign(rng.normal(size=shape) * 0.1)
    return net


def convolutions(keras, *, named=True):
    """A network of A's layers, an eighth as wide, in Keras' names or without."""
    inner, before = [keras.Input((SIDE, SIDE, 3))], 1
    for stage, position, channels in A:
        if stage != before:
            inner.append(keras.layers.MaxPooling2D())
        name = {"name": f"block{stage}_conv{position}"} if named else {}
        inner.append(keras.layers.Conv2D(channels, 3, padding="same", activation="relu", **name))
        before = stage
    inner.append(keras.layers.MaxPooling2D())
    return keras.Sequential(inner)


def whole(*before_and_after):
    """Return what makes a Keras model of layers before the convolutions, `...` for these, and layers after."""

    def make(keras):
        layers = [layer(keras) if layer is not ... else convolutions(keras) for layer in before_and_after]
        return lively(keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers]))

    return make


def of(name, *arguments, **options):
    return lambda keras: getattr(keras.layers, name)(*arguments, **options)


RESCALING, GAP, FLATTEN = of("Rescaling", 1 / 255), of("GlobalAveragePooling2D"), of("Flatten")
SOFTMAX = of("Dense", 10, activation="softmax")


def functional(head, *, before=lambda keras, x: x, white=1):
    """Return what makes a Keras model of a graph: `before` the convolutions, and its head of their output."""

    def make(keras):
        pixels = keras.Input((SIDE, SIDE, 3))
        return lively(keras.Model(pixels, head(keras.layers, convolutions(keras)(before(keras, pixels)))), white)

    return make


def normalised_head(layers, x):
    x = layers.BatchNormalization()(layers.Dense(64)(layers.Flatten()(x)))
    return layers.Dense(1, activation="sigmoid")(layers.ReLU()(x))


def side_by_side(layers, x):
    pooled = [layers.GlobalAveragePooling2D()(x), layers.GlobalMaxPooling2D()(x)]
    return layers.Dense(10, activation="softmax")(layers.Concatenate()(pooled))


def without_names(keras):
    layers = [of("Rescaling", 1 / 255)(keras), convolutions(keras, named=False), keras.layers.GlobalAveragePooling2D()]
    for units in (128, 64):
        layers += [keras.layers.Dense(units), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    return lively(
        keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers, keras.layers.Dense(7, activation="softmax")])
    )


def own_normalisation(keras):
    return of("Normalization", mean=[100.0, 110.0, 120.0], variance=[3000.0, 3500.0, 4000.0])(keras)


def vgg16(keras):
    return lively(keras.applications.VGG16(weights=None, classes=10, input_shape=(SIDE, SIDE, 3)), white=255)


def caffe_pixels(keras):
    return keras.applications.vgg16.preprocess_input(PIXELS.copy())


def check_posteriors(file, expected, folder, **options):
    import_weights(file, folder / "run", **options)
    with torch.no_grad():
        found = load(folder / "run")(torch.from_numpy(RGB)).softmax(dim=1).numpy()
    assert expected.std(axis=0).max() > 5e-4, "the network does not tell pictures apart"
    found = found[:, 1:] if expected.shape[1] == 1 else found
    return np.abs(found - expected).max()


def check_scores(file, expected, folder, **options):
    import_weights(file, folder / "run", **options)
    with torch.no_grad():
        found = load(folder / "run")(torch.from_numpy(RGB)).numpy()
    return np.abs(found - expected).max() / max(1, np.abs(expected).max())


def check_pool5(file, expected, folder, **options):
    import_weights(file, folder / "run", **options)
    with torch.no_grad():
        found = load(folder / "run").activations(torch.from_numpy(RGB), ["pool5"])["pool5"].numpy()
    return np.abs(found - expected).max() / max(1, np.abs(expected).max())


def array(outputs):
    """Return the outputs of a Keras model on PyTorch or TensorFlow."""
    return (outputs.detach() if hasattr(outputs, "detach") else outputs).numpy()


def saved_keras(make, suffix, pixels=lambda keras: PIXELS):
    """Return the check of a model that Keras itself saves."""

    def check(keras, folder):
        net, file = make(keras), str(folder / f"net{suffix}")
        net.save(file)
        return check_posteriors(file, array(net(pixels(keras), training=False)), folder)

    return check


def saved_convolutions(keras, folder):
    net, file = convolutions(keras), str(folder / "net.weights.h5")
    lively(net, white=255).save_weights(file)
    pool5 = array(net(caffe_pixels(keras))).transpose(0, 3, 1, 2)
    return check_pool5(file, pool5, folder)


def refused_keras(make, suffix, *told):
    def check(keras, folder):
        net, file = make(keras), str(folder / f"net{suffix}")
        net.save(file)
        return refusal(file, folder, *told)

    return check


def refusal(file, folder, *told, **options):
    with pytest.raises(ValueError, match=".*".join(told)) as caught:
        import_weights(file, folder / "run", **options)
    assert "\n" not in str(caught.value)
    return 0.0


# PyTorch


def torch_pixels():
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return (torch.from_numpy(RGB) / 255 - mean[:, None, None]) / std[:, None, None]


def computed(net):
    with torch.no_grad():
        return net(torch_pixels()).numpy()


def vgg11(torchvision, *head, pool=None):
    net = torchvision.models.vgg11()
    net.avgpool, net.classifier = pool or nn.Identity(), nn.Sequential(*head)
    return foreign.lively(net)


def averaged(torchvision):
    return vgg11(torchvision, nn.Linear(512, 133), pool=nn.AdaptiveAvgPool2d(1))


def two_layers(torchvision):
    return vgg11(torchvision, nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, 102), nn.LogSoftmax(dim=1))


def saved_module(make, check, *, wrapped=lambda state: state, suffix=".pth", **options):
    """Return the check of a state dict, `wrapped` as training scripts do."""

    def run(torchvision, folder):
        net, file = make(torchvision), folder / f"net{suffix}"
        torch.save(wrapped(net.state_dict()), file)
        expected = computed(net)
        return check(file, np.exp(expected) if check is check_posteriors else expected, folder, **options)

    return run


def prefixed(state):
    return {"state_dict": {f"model.module._orig_mod.{name}": value for name, value in state.items()}, "epoch": 3}


def refused_module(torchvision, folder):
    torch.save(averaged(torchvision).state_dict(), folder / "net.pth")
    return refusal(folder / "net.pth", folder, "--crop 32 or --crop 224")


def with_normalisation(timm, folder):
    from safetensors.torch import save_file

    net = foreign.lively(timm.create_model("vgg11_bn", num_classes=10))
    save_file(net.state_dict(), folder / "net.safetensors")
    larger = np.random.default_rng(7).integers(0, 256, (1, 3, 224, 224), dtype=np.uint8)
    import_weights(folder / "net.safetensors", folder / "run")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = net((torch.from_numpy(larger) / 255 - mean[:, None, None]) / std[:, None, None]).numpy()
        found = load(folder / "run")(torch.from_numpy(larger)).numpy()
    return np.abs(found - expected).max() / max(1, np.abs(expected).max())


def perceptual(lpips, folder):
    net = foreign.lively(lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=True, verbose=False))
    torch.save(net.state_dict(), folder / "net.pth")
    with torch.no_grad():
        relu5_3 = net.net(torch_pixels()).relu5_3
    pool5 = nn.functional.max_pool2d(relu5_3, 2).numpy()
    return check_pool5(folder / "net.pth", pool5, folder)


def script(torchvision, folder):
    torch.jit.trace(averaged(torchvision), torch_pixels()).save(folder / "net.pt")
    return refusal(folder / "net.pt", folder, "TorchScript", r"net\.state_dict\(\)")


def pickled(torchvision, folder):
    torch.save(averaged(torchvision), folder / "net.pth")
    return refusal(folder / "net.pth", folder, r"state_dict\(\)")


BOTH = ("keras", "tf_keras")
WITH_GAP = whole(RESCALING, ..., GAP, of("Dense", 133, activation="softmax"))
PREPROCESSED = functional(
    normalised_head, before=lambda keras, x: keras.applications.vgg16.preprocess_input(x), white=255
)
BOTH_SIGNS = whole(of("Rescaling", 1 / 127.5, -1), ..., FLATTEN, of("Dense", 20, activation="softmax"))
TANH = whole(RESCALING, ..., GAP, of("Dense", 64, activation="tanh"), SOFTMAX)
SIGMOIDS = whole(RESCALING, ..., GAP, of("Dense", 5, activation="sigmoid"))
MAXIMUM = whole(RESCALING, ..., of("GlobalMaxPooling2D"), SOFTMAX)
RESCALED = functional(side_by_side, before=lambda keras, x: keras.layers.Rescaling(1 / 255)(x))
LAMBDA = whole(of("Lambda", lambda x: x / 255), ..., GAP, SOFTMAX)
NORMALIZED = whole(own_normalisation, ..., GAP, of("Dense", 5, activation="softmax"))
ALONE = "--convolutions-only"

WRITERS = {
    ("`applications.VGG16`, `.keras`", "keras"): [saved_keras(vgg16, ".keras", caffe_pixels)],
    ("the same, `.h5`", "tf_keras"): [saved_keras(vgg16, ".h5", caffe_pixels)],
    ("Rescaling(1/255), GlobalAveragePooling2D, Dense(133), `.keras`", "keras"): [saved_keras(WITH_GAP, ".keras")],
    ("Rescaling(1/255), GlobalAveragePooling2D, Dense(133), `.h5`", "both"): [saved_keras(WITH_GAP, ".h5")],
    (
        "preprocess_input, Flatten, Dense(64), BatchNormalization, ReLU, Dense(1, sigmoid), `.h5`",
        "tf_keras",
    ): [saved_keras(PREPROCESSED, ".h5")],
    ("Rescaling(1/127.5, -1), Flatten, Dense(20), `.keras` and `.h5`", "both"): [
        saved_keras(BOTH_SIGNS, ".keras"),
        saved_keras(BOTH_SIGNS, ".h5"),
    ],
    ("layers without names, mean, BatchNormalization, Dense 128, 64, 7, `.keras` and `.h5`", "both"): [
        saved_keras(without_names, ".keras"),
        saved_keras(without_names, ".h5"),
    ],
    ("Normalization of pixels, mean, Dense(5), `.keras` and `.h5`", "both"): [
        saved_keras(NORMALIZED, ".keras"),
        saved_keras(NORMALIZED, ".h5"),
    ],
    ("convolutions alone, `.weights.h5`", "both"): [saved_convolutions],
    ("Dense(64, tanh)", "both"): [refused_keras(TANH, ".keras", "tanh", ALONE)],
    ("Dense(5, sigmoid)", "both"): [refused_keras(SIGMOIDS, ".h5", "a sigmoid each", ALONE)],
    ("GlobalMaxPooling2D", "both"): [refused_keras(MAXIMUM, ".keras", "GlobalMaxPooling2D", ALONE)],
    ("average and maximum side by side", "both"): [refused_keras(RESCALED, ".keras", ALONE)],
    ("Lambda(x / 255)", "both"): [refused_keras(LAMBDA, ".h5", "Lambda", "--mean")],
    ("vgg11, AdaptiveAvgPool2d(1), Linear(133), `.pth`, with `--crop`", "torchvision"): [
        saved_module(averaged, check_scores, taken=TakenWeights(crop=SIDE))
    ],
    ("the same without `--crop`", "torchvision"): [refused_module],
    ("vgg11, Linear 256 and 102, LogSoftmax, under the key `net`, `.pth`", "torchvision"): [
        saved_module(two_layers, check_posteriors, wrapped=lambda state: {"net": state, "epoch": 3})
    ],
    ("the same under Lightning's, DDP's and torch.compile's prefixes, `.ckpt`", "torchvision"): [
        saved_module(two_layers, check_posteriors, wrapped=prefixed, suffix=".ckpt")
    ],
    ("vgg11_bn, `.safetensors`", "timm"): [with_normalisation],
    ("LPIPS, `.pth`", "lpips"): [perceptual],
    ("TorchScript, `.pt`", "torchvision"): [script],
    ("a whole module, `.pth`", "torchvision"): [pickled],
}
"""Of each row, by its file and its library, what writes the file and returns how far scores are apart."""

CASES = [
    pytest.param(library, write, id=f"{row[:40]}, {library} {number}")
    for (row, libraries), writers in WRITERS.items()
    for library in (BOTH if libraries == "both" else (libraries,))
    for number, write in enumerate(writers)
]


@pytest.mark.filterwarnings("ignore")  # of the libraries
@pytest.mark.parametrize(("library", "write"), CASES)
def test_what_the_library_writes(request, tmp_path, library, write, figure):
    found = pytest.importorskip(library, reason=f"{library} is not installed, so it cannot write its file")
    difference = write(found, tmp_path)
    figure(27, request.node.callspec.id, f"{difference:.0e}")
    assert difference < MOST


def test_every_row_is_written_and_held_by_a_test():
    """Twenty files and more of eight kinds and more, with those that only tests write."""
    rows = table()
    written = {(row["file"], row["library"]) for row in rows if row["library"] != "by hand"}
    assert written == set(WRITERS)
    code = "".join(file.read_text() for room in ("networks/foreign", "runs") for file in (TESTS / room).glob("*.py"))
    for row in rows:
        names = re.findall(r"`(test_\w+)`", row["held by"])
        assert names, row
        assert [name for name in names if f"def {name}(" not in code] == []
        refused = row["found"].startswith("refused: ")
        assert refused or row["difference"] == "< 1e-4" or float(row["difference"].split()[0]) < MOST, row
    assert len(rows) >= 20
