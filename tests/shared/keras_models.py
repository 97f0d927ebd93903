"""Whole Keras models as Keras writes them: what they compute is told by their configuration."""

import json
import zipfile
from pathlib import Path

import foreign_weights as foreign
import h5py
import numpy as np


def layer(kind, name=None, arrays=(), **config):
    return {"class_name": kind, "config": {"name": name or kind.lower(), **config}, "arrays": list(arrays)}


def dense(weights, bias, name, activation="linear"):
    """A layer of weights [O, I]."""
    return layer("Dense", name, [weights.T, bias], units=len(bias), activation=activation)


def base(net, side, activation="relu"):
    """A network within the network, as `applications.VGG16(include_top=False)` is."""
    layers, before = [layer("InputLayer", "input_1", batch_shape=[None, side, side, 3])], 1
    for stage, position, kernel, bias, _ in [*net.convolutions, (6, 0, None, None, None)]:
        if stage != before:
            layers.append(
                layer("MaxPooling2D", f"block{before}_pool", pool_size=[2, 2], strides=[2, 2], padding="valid")
            )
        if kernel is not None:
            name, arrays = f"block{stage}_conv{position}", [kernel.transpose(2, 3, 1, 0), bias]
            layers.append(layer("Conv2D", name, arrays, strides=[1, 1], padding="same", activation=activation))
        before = stage
    for number, one in enumerate(layers):
        one["inbound_nodes"] = [[[layers[number - 1]["config"]["name"], 0, 0, {}]]] if number else []
    return {"class_name": "Functional", "config": {"name": "vgg16", "layers": layers}}


def write(path, layers, *, named=True):
    """A `.h5`, or a `.keras`, `named` as from Keras 3.6 on or only by their places."""
    told = json.dumps(
        {"class_name": "Sequential", "config": {"name": "sequential", "layers": [_bare(one) for one in layers]}}
    )
    if path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file.attrs["model_config"] = told
            _write_legacy(file.create_group("model_weights"), layers)
        return path
    inner = Path(f"{path}.inner")
    with h5py.File(inner, "w") as file:
        _write_new(file.create_group("layers"), layers, named)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", told)
        archive.write(inner, "model.weights.h5")
    inner.unlink()
    return path


def _bare(one):
    bare = {key: value for key, value in one.items() if key != "arrays"}
    if "layers" in one["config"]:
        bare["config"] = {**one["config"], "layers": [_bare(inner) for inner in one["config"]["layers"]]}
    return bare


def _write_legacy(root, layers):
    root.attrs["layer_names"] = [one["config"]["name"].encode() for one in layers]
    for one in layers:
        group, names = root.create_group(one["config"]["name"]), []
        for inner in one["config"].get("layers", [one]):
            for number, value in enumerate(inner["arrays"]):
                names.append(f"{inner['config']['name']}/array_{number}:0".encode())
                group[names[-1]] = value
        group.attrs["weight_names"] = np.array(names, dtype="S60") if names else np.array([], dtype="S1")


PLACES = {"Conv2D": "conv2d", "MaxPooling2D": "max_pooling2d", "BatchNormalization": "batch_normalization"}


def _write_new(root, layers, named):
    counted = {}
    for one in layers:
        kind = PLACES.get(one["class_name"], one["class_name"].lower())
        counted[kind] = counted.get(kind, -1) + 1
        group = root.create_group(f"{kind}_{counted[kind]}" if counted[kind] else kind)
        if "layers" in one["config"]:
            _write_new(group.create_group("layers"), one["config"]["layers"], named)
            continue
        values = group.create_group("vars")
        if named:
            values.attrs["name"] = one["config"]["name"]
        for number, value in enumerate(one["arrays"]):
            values[str(number)] = value


def flat(pool5):
    """Rows of pool5 [B, C, h, w] in Keras' order."""
    return pool5.transpose(0, 2, 3, 1).reshape(len(pool5), -1)


def random(*shape, seed=1):
    """Weights [O, I] or a bias, of the usual size."""
    scale = (2 / shape[1]) ** 0.5 if len(shape) > 1 else 0.2
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def plain(**more):
    return foreign.plain("A", **more)
