"""Makes written_at_0046bf4/: small folders and files of every kind, which later versions must go on reading.

They were made once, by the version of commit 0046bf4, with `python tests/before/make.py` and the dependencies that
constraints.txt names. With another version this makes other files: what it has changed is then not seen any more.

What is no longer needed is left out: checkpoints and curves of finished runs, the report's page and its pictures, and
stack traces.
"""

import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.optim.optimizer import register_optimizer_step_post_hook
from verydeep.runtime import Stopped

import verydeep

HERE = Path(__file__).resolve().parent
OUT = HERE / "written_at_0046bf4"
FIGURES = runpy.run_path(str(HERE / "figures.py"))

COLOURS = {"flat": (200, 90, 60), "tall": (60, 120, 210)}
IMAGES = {"train": 6, "val": 3}
"""Images of each class."""

FEATURE_CHANNELS = (1, 2, 4, 8, 8)
"""Channels of the stages, at a width of 1/64."""


def make():
    images()
    verydeep.train(FIGURES["IMAGES"], network="A", out="finished_run", recipe=FIGURES["RECIPE"])
    stopped_run()
    models()
    boxes_run()
    torch.save(torchvision_features(), "vgg11.pth")
    verydeep.import_weights("vgg11.pth", "imported_without_fc")
    options = FIGURES["TRANSFER"]
    verydeep.transfer("finished_run", data=FIGURES["IMAGES"], split="train", options=options, out="classifier")
    verydeep.reproduce(FIGURES["IMAGES"], out="experiment", recipe=FIGURES["GRID_RECIPE"], grid=FIGURES["GRID"])
    exported()
    tables()
    Path("vgg11.pth").unlink()
    text = json.dumps(FIGURES["everything"](), indent=1)
    Path("expected.json").write_text(text + "\n")


def images():
    """One coloured rectangle each, on a darker colour, lying or standing; and their boxes."""
    rng, lines = np.random.default_rng(0), []
    for part, count in IMAGES.items():
        for name, colour in COLOURS.items():
            for number in range(count):
                h, w = sorted(rng.integers(14, 24, 2) + np.array([0, 8]), reverse=name == "tall")
                top, left = rng.integers(0, 48 - h + 1), rng.integers(0, 60 - w + 1)
                pixels = np.empty((48, 60, 3), dtype=np.uint8)
                pixels[:] = rng.integers(0, 60, 3)
                pixels[top : top + h, left : left + w] = colour + rng.integers(-40, 41, 3)
                file = f"{name}/{part}-{number}.png"
                place = Path("images", part, file)
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(place, optimize=True)
                lines.append(f"{file},{left},{top},{left + w},{top + h},{name}\n")
    Path(FIGURES["BOXES"]).write_text("".join(lines))


def stopped_run():
    """By SIGTERM in its second epoch."""
    steps = 0

    def stepped(*_):
        nonlocal steps
        steps += 1
        if steps == FIGURES["STOPPED"]:
            signal.raise_signal(signal.SIGTERM)

    hook = register_optimizer_step_post_hook(stepped)
    try:
        verydeep.train(FIGURES["IMAGES"], network="A", out="stopped_run", recipe=FIGURES["STOPPED_RECIPE"])
    except Stopped:
        hook.remove()
    else:
        raise RuntimeError("it was not stopped")


def models():
    """With random weights; those of normalisation are not the first ones either."""
    torch.manual_seed(1)
    net = verydeep.vgg("A", 2, 32, width=1 / 64)
    net.fc8.weight.data *= 10
    verydeep.save(net, "model", classes=("flat", "tall"), scale="256:512")
    net = verydeep.vgg("C", 3, 32, batch_norm=True, width=1 / 64, dropout=0.25, mean_rgb=(100, 110, 120))
    for name, values in net.state_dict().items():
        if name.startswith("bn") and values.is_floating_point():
            lowest = 0.5 if name.endswith(("weight", "var")) else -0.5
            values.uniform_(lowest, lowest + 1)
    net.fc8.weight.data *= 10
    verydeep.save(net, "model_with_batch_norm", classes=("é", "b c", "<&>"), flip=False)


def boxes_run():
    options = FIGURES["BOX_OPTIONS"]
    splits, _ = verydeep.localisation_splits(FIGURES["IMAGES"], regression="per-class", options=options)
    verydeep.train(splits, out="boxes_run", recipe=FIGURES["BOX_RECIPE"])


def torchvision_features():
    """A state dict of torchvision for features only: its fully connected layers are NaN."""
    torch.manual_seed(2)
    found, inputs = {}, 3
    for number, stage in zip((0, 3, 6, 8, 11, 13, 16, 18), (0, 1, 2, 2, 3, 3, 4, 4), strict=True):
        outputs = FEATURE_CHANNELS[stage]
        found[f"features.{number}.weight"] = torch.randn(outputs, inputs, 3, 3) * (2 / inputs / 9) ** 0.5
        found[f"features.{number}.bias"] = torch.rand(outputs)
        inputs = outputs
    for number, outputs in zip((0, 3, 6), (64, 64, 2), strict=True):
        found[f"classifier.{number}.weight"] = torch.full((outputs, inputs), torch.nan)
        found[f"classifier.{number}.bias"] = torch.full((outputs,), torch.nan)
        inputs = outputs
    return found


def exported():
    Path("exported").mkdir()
    for to, out in zip(("torch", "onnx", "openvino"), FIGURES["EXPORTED"], strict=True):
        subprocess.run(
            [sys.executable, "-m", "verydeep", "export", "finished_run", "--to", to, "--out", out], check=True
        )

    without_stack_traces(Path(FIGURES["EXPORTED"][0]))


def without_stack_traces(program):
    """Cuts out of a .pt2 where on this machine the lines of code lie that its nodes come from."""
    with zipfile.ZipFile(program) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    for name in files:
        if name.endswith("models/model.json"):
            model = json.loads(files[name])
            for node in model["graph_module"]["graph"]["nodes"]:
                node["metadata"].pop("stack_trace", None)
            files[name] = json.dumps(model).encode()
    with zipfile.ZipFile(program, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def tables():
    """Predictions of two tests of the same images, and features."""
    for protocol, run, file in zip(("dense", "crops"), ("finished_run", "model"), FIGURES["PREDICTIONS"], strict=True):
        verydeep.write_predictions(verydeep.evaluate(run, data=FIGURES["IMAGES"], protocol=protocol), file)
    for file in FIGURES["FEATURES"]:
        verydeep.write_features("finished_run", FIGURES["IMAGES"], file, descriptor=FIGURES["DESCRIPTOR"], split="val")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        os.environ["VERYDEEP_CACHE"] = str(Path(place) / "cache")
        made = Path(place) / "made"
        made.mkdir()
        os.chdir(made)
        make()
        for run in (Path("finished_run"), Path("boxes_run"), *Path("experiment/runs").glob("*/*")):
            shutil.rmtree(run / "checkpoints")
        for curves in Path().rglob("tensorboard"):
            shutil.rmtree(curves)
        for shown in (Path("experiment/report.html"), *Path("experiment").glob("*.svg")):
            shown.unlink()
        shutil.rmtree(OUT, ignore_errors=True)
        shutil.copytree(made, OUT)
