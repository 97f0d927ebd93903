"""Networks with random weights, computed plainly in NumPy, and written as other libraries write them.

`Plain` holds weights as the library's network sees them: kernels OIHW, its order of channels, fc6 [O, C, h, w].
"""

import json
import zipfile
from dataclasses import dataclass

import numpy as np
import torch

DEPTHS = {"A": (1, 1, 2, 2, 2), "B": (2, 2, 2, 2, 2), "C": (2, 2, 3, 3, 3), "D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}
CHANNELS, HIDDEN = (4, 8, 16, 32, 32), 256
WIDTH = 1 / 16

TORCH_MEAN, TORCH_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RGB_MEAN = (123.68, 116.779, 103.939)


@dataclass
class Plain:
    convolutions: list  # (stage, position, kernel, bias, None or (gamma, beta, mean, variance))
    connected: list  # (weights [O, I] or [O, C, h, w], bias)


def plain(network="D", *, batch_norm=False, window=2, classes=6, seed=0, kernel=3, white=1):
    """`white` is the largest pixel; scores are of the order of 1 with either."""
    rng = np.random.default_rng(seed)

    def random(*shape, fan):
        return (rng.normal(size=shape) * (2 / fan) ** 0.5).astype(np.float32)

    convolutions, inputs = [], 3
    for stage, (depth, outputs) in enumerate(zip(DEPTHS.get(network, (1,) * 5), CHANNELS, strict=True), 1):
        for position in range(1, depth + 1):
            side = 1 if network == "C" and position == 3 else kernel
            norm = None
            if batch_norm:
                norm = (
                    *(1 + 0.2 * rng.normal(size=(2, outputs)) * [[1], [0]] - [[0], [1]]).astype(np.float32),
                    rng.normal(size=outputs).astype(np.float32),
                    rng.uniform(0.5, 2, outputs).astype(np.float32),
                )
            weights = random(outputs, inputs, side, side, fan=inputs * side**2)
            convolutions.append((stage, position, weights, random(outputs, fan=50), norm))
            inputs = outputs
    if white == 255:
        convolutions[0] = (1, 1, convolutions[0][2] / 64, *convolutions[0][3:])
    connected = [
        (random(HIDDEN, inputs, window, window, fan=inputs * window**2), random(HIDDEN, fan=50)),
        (random(HIDDEN, HIDDEN, fan=HIDDEN), random(HIDDEN, fan=50)),
        (random(classes, HIDDEN, fan=HIDDEN), random(classes, fan=50)),
    ]
    return Plain(convolutions, connected)


def scores(net, pixels, flat=lambda x: x.reshape(len(x), -1)):
    """Logits [B, classes] of preprocessed images [B, 3, H, W], in float64; `flat` makes rows of pool5."""
    x = flat(features(net, pixels))
    for number, (weights, bias) in enumerate(net.connected):
        x = x @ weights.reshape(len(weights), -1).T.astype(np.float64) + bias
        x = np.maximum(x, 0) if number < 2 else x
    return x


def features(net, pixels):
    """pool5 [B, C, h, w] of preprocessed images."""
    x, before = pixels.astype(np.float64), 1
    for stage, _, kernel, bias, norm in net.convolutions:
        x = convolved(halved(x) if stage != before else x, kernel.astype(np.float64)) + bias[:, None, None]
        if norm is not None:
            gamma, beta, mean, variance = (value.astype(np.float64)[:, None, None] for value in norm)
            x = (x - mean) / np.sqrt(variance + 1e-5) * gamma + beta
        x, before = np.maximum(x, 0), stage
    return halved(x)


def convolved(x, kernel):
    side, (height, width) = kernel.shape[-1], x.shape[2:]
    padded = np.pad(x, [(0, 0), (0, 0), *[(side // 2, side // 2)] * 2])
    return sum(
        np.einsum("oi,bihw->bohw", kernel[:, :, i, j], padded[:, :, i : i + height, j : j + width])
        for i in range(side)
        for j in range(side)
    )


def halved(x):
    batch, channels, height, width = x.shape
    return x.reshape(batch, channels, height // 2, 2, width // 2, 2).max(axis=(3, 5))


def images(side, count=3):
    """RGB bytes [B, 3, H, W]."""
    return np.random.default_rng(7).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def torch_pixels(rgb, mean=TORCH_MEAN, std=TORCH_STD):
    return (rgb / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))


def caffe_pixels(rgb):
    return rgb[:, ::-1] - np.reshape(RGB_MEAN[::-1], (3, 1, 1))


def rgb_pixels(rgb, mean=RGB_MEAN):
    return rgb - np.reshape(mean, (3, 1, 1))


# state dicts of torchvision and timm


def state_dict(net, layout):
    found, number, before = {}, 0, 1
    for stage, _, kernel, bias, norm in net.convolutions:
        number += stage != before
        found |= {f"features.{number}.weight": kernel, f"features.{number}.bias": bias}
        if norm is not None:
            kinds = ("weight", "bias", "running_mean", "running_var")
            found |= {f"features.{number + 1}.{kind}": value for kind, value in zip(kinds, norm, strict=True)}
            found[f"features.{number + 1}.num_batches_tracked"] = np.array(17)
        number, before = number + (2 if norm is None else 3), stage
    names = {
        "torchvision": ("classifier.0", "classifier.3", "classifier.6"),
        "timm": ("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
    }[layout]
    for number, (name, (weights, bias)) in enumerate(zip(names, net.connected, strict=True)):
        if layout == "torchvision" and number == 0:
            weights = weights.reshape(len(weights), -1)
        if layout == "timm" and number == 1:
            weights = weights[:, :, None, None]
        found |= {f"{name}.weight": weights, f"{name}.bias": bias}
    return {name: torch.tensor(value) for name, value in found.items()}


# Keras


def keras_layers(net, block_names=True, top=True):
    """(name, kernel, bias) with kernels HWIO and IO."""
    layers = []
    for number, (stage, position, kernel, bias, _) in enumerate(net.convolutions):
        name = f"block{stage}_conv{position}" if block_names else "conv2d" + (f"_{number}" if number else "")
        layers.append((name, kernel.transpose(2, 3, 1, 0), bias))
    for number, (weights, bias) in enumerate(net.connected if top else ()):
        name = ("fc1", "fc2", "predictions")[number] if block_names else "dense" + (f"_{number}" if number else "")
        kernel = weights.transpose(2, 3, 1, 0).reshape(-1, len(weights)) if weights.ndim == 4 else weights.T
        layers.append((name, kernel, bias))
    return layers


def keras_scores(net, rgb):
    """With the rows of fc1 in the order in which Keras flattens [B, H, W, C]."""
    net = Plain(net.convolutions, [(kernel.T, bias) for _, kernel, bias in keras_layers(net)[-3:]])
    return scores(net, caffe_pixels(rgb), flat=lambda x: x.transpose(0, 2, 3, 1).reshape(len(x), -1))


def write_keras(net, path, *, form="legacy", **names):
    """`legacy` weights, or as `published` for Keras 1; a `whole` model; or Keras 3's `new` weights and `archive`."""
    import h5py

    if form == "archive":
        write_keras(net, path.with_suffix(".inner.h5"), form="new", **names)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", json.dumps({"class_name": "Functional"}))
            archive.write(path.with_suffix(".inner.h5"), "model.weights.h5")
        return
    layers = keras_layers(net, **names)
    with h5py.File(path, "w") as file:
        if form == "new":
            of_kind = {"conv2d": 0, "dense": 0}
            for name, kernel, bias in layers:
                kind = "conv2d" if kernel.ndim == 4 else "dense"
                group = file.create_group(f"layers/{kind}" + (f"_{of_kind[kind]}" if of_kind[kind] else "") + "/vars")
                of_kind[kind] += 1
                group.attrs["name"] = name
                group["0"], group["1"] = kernel, bias
            file.create_group("layers/flatten/vars")
            file["optimizer/vars/0"] = np.array(3)
            return
        root = file.create_group("model_weights") if form == "whole" else file
        if form == "whole":
            file.attrs["model_config"] = "{}"
        everything = ["input_1", *(name for name, _, _ in layers)]
        root.attrs["layer_names"] = [name.encode() for name in everything]
        root.create_group("input_1").attrs["weight_names"] = np.array([], dtype="S1")
        for name, kernel, bias in layers:
            group = root.create_group(name)
            entries = (
                [f"{name}_W_1:0", f"{name}_b_1:0"] if form == "published" else [f"{name}/kernel:0", f"{name}/bias:0"]
            )
            group.attrs["weight_names"] = [one.encode() for one in entries]
            for one, value in zip(entries, (kernel, bias), strict=True):
                group[one] = value


def numpy_layers(net):
    """Kernels HWIO, rows of fc6 in h, w, c order, under the paper's names."""
    names = [f"conv{stage}_{position}" for stage, position, *_ in net.convolutions] + ["fc6", "fc7", "fc8"]
    return {name: values for name, (_, *values) in zip(names, keras_layers(net), strict=False)}


def write_numpy(path, form, named):
    """A `npz`, or a `.npy` of a dictionary of `lists` or of `dictionaries`."""
    if form == "npz":
        arrays = {f"{name}_{kind}": v for name, values in named.items() for kind, v in zip("Wb", values, strict=True)}
        np.savez(path, **arrays)
    elif form == "lists":
        np.save(path, named, allow_pickle=True)
    else:
        pairs = {name: dict(zip(("weights", "biases"), values, strict=True)) for name, values in named.items()}
        np.save(path, pairs, allow_pickle=True)
    return path


# Caffe, by the wire format of protocol buffers


def varint(number):
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def field(number, content):
    """A number, or bytes with their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def caffe_blob(value, old):
    double = value.dtype == np.float64
    numbers = field(8 if double else 5, np.asarray(value, "<f8" if double else "<f4").tobytes())
    if old:
        shape = (1,) * (4 - value.ndim) + value.shape
        return b"".join(field(n, side) for n, side in enumerate(shape, 1)) + numbers
    return numbers + field(7, field(1, b"".join(map(varint, value.shape))))


def caffe_layers(net):
    layers = [(f"conv{stage}_{position}", kernel, bias) for stage, position, kernel, bias, _ in net.convolutions]
    heads = [(weights.reshape(len(weights), -1), bias) for weights, bias in net.connected]
    return [*layers, *((name, *head) for name, head in zip(("fc6", "fc7", "fc8"), heads, strict=True))]


def caffemodel(net, *, old, layers=None):
    """The bytes of a `.caffemodel`: `old` with V1LayerParameter, else with LayerParameter."""
    found = field(1, b"VGG") + field(3, b"input")  # names of the net and its input
    fields = {"name": 4, "kind": 5, "blobs": 6, "layer": 2} if old else {"name": 1, "kind": 2, "blobs": 7, "layer": 100}
    for name, *arrays in [("data",), ("relu1_1",), *(layers or caffe_layers(net))]:
        kind = field(fields["kind"], 4 if old else b"Convolution")
        blobs = b"".join(field(fields["blobs"], caffe_blob(value, old)) for value in arrays)
        found += field(fields["layer"], field(fields["name"], name.encode()) + kind + blobs)
    return found


# MatConvNet


def write_matconvnet(net, path, *, old, mean=RGB_MEAN, classes=None, compress=False):
    """`old` with `filters` and `biases` and a whole average image, else with `weights` and `meta`.

    `mean` is of three channels, or the image itself.
    """
    from scipy.io import savemat

    layers = []
    for stage, position, kernel, bias, _ in net.convolutions:
        layers += [(f"conv{stage}_{position}", kernel.transpose(2, 3, 1, 0), bias), (f"relu{stage}_{position}",)]
    for name, (weights, bias) in zip(("fc6", "fc7", "fc8"), net.connected, strict=True):
        four = weights if weights.ndim == 4 else weights[:, :, None, None]
        layers.append((name, four.transpose(2, 3, 1, 0), bias))
    cells = np.empty((1, len(layers)), dtype=object)
    for number, (name, *values) in enumerate(layers):
        if not values:
            cells[0, number] = {"type": "relu", "name": name, **({} if old else {"weights": np.empty((0, 0))})}
            continue
        kernel, bias = values[0], values[1][None]
        pair = np.empty((1, 2), dtype=object)
        pair[0, 0], pair[0, 1] = kernel, bias
        arrays = {"filters": kernel, "biases": bias} if old else {"weights": pair}
        cells[0, number] = {"type": "conv", "name": name, "stride": 1.0, **arrays}
    image = np.float32(mean)
    if image.ndim == 1:
        image = np.broadcast_to(image, (5, 5, 3)) if old else image.astype(np.float64)[None, None]
    told = {"normalization": {"averageImage": image, "imageSize": [[64.0, 64.0, 3.0]]}}
    if classes:
        names = np.empty((1, len(classes)), dtype=object)
        names[0, :] = classes
        told["classes"] = {"name": names}
    savemat(path, {"layers": cells, **(told if old else {"meta": told})}, do_compression=compress)


def lively(net):
    """Give a network of another library scores of the order of 1, and normalisations that do something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif value.ndim > 1:
                value.normal_(std=(2 / value[0].numel()) ** 0.5, generator=generator)
            elif value.is_floating_point():
                value.add_(torch.randn(value.shape, generator=generator), alpha=0.1)
    return net.eval()
