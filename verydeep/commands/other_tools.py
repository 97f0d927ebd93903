"""Verbs, options and values as other tools call them, for people who come from there."""

import os
import re
from collections.abc import Collection, Iterable, Sequence

from cyclopts import App, Argument, ArgumentCollection

_VERBS = {
    "fit": "train",
    "learn": "train",
    "finetune": "train --from WEIGHTS",
    "fine-tune": "train --from WEIGHTS",
    "val": "evaluate",
    "validate": "evaluate",
    "test": "evaluate",
    "eval": "evaluate",
    "score": "evaluate",
    "classify": "predict",
    "inference": "predict",
    "infer": "predict",
    "detect": "localise predict",
    "localize": "localise",
    "convert": "import for weights of other libraries, export for files of other runtimes",
    "summary": "describe",
    "info": "describe",
    "embed": "features",
    "upload": "push",
    "checks": "doctor",
    "install-completion": "completion",
}
"""Names of verbs there, and here."""

_OPTIONS: dict[str, tuple[str, ...]] = {
    "--lr": ("--learning-rate",),
    "--lr0": ("--learning-rate",),
    "--base-lr": ("--learning-rate",),
    "--bs": ("--batch",),
    "--b": ("--batch",),
    "-b": ("--batch",),
    "--batch-size": ("--batch",),
    "--imgsz": ("--crop", "--scales"),
    "--img": ("--crop",),
    "--img-size": ("--crop", "--scales"),
    "--image-size": ("--crop", "--scales"),
    "--input-size": ("--crop", "--input"),
    "--train-crop-size": ("--crop",),
    "--val-resize-size": ("--scales",),
    "--model": ("--network", "RUN", "RUNS"),
    "--arch": ("--network", "RUN", "RUNS"),
    "-a": ("--network", "RUN", "RUNS"),
    "--epoch": ("--epochs",),
    "--max-epochs": ("--epochs",),
    "--num-epochs": ("--epochs",),
    "--wd": ("--weight-decay",),
    "--lr-scheduler": ("--schedule",),
    "--sched": ("--schedule",),
    "--cos-lr": ("--schedule cosine",),
    "--warmup-epochs": ("--warm-up",),
    "--lr-warmup-epochs": ("--warm-up",),
    "--smoothing": ("--label-smoothing",),
    "--drop": ("--dropout",),
    "--hflip": ("--flip",),
    "--fliplr": ("--flip",),
    "--color-jitter": ("--colour-sd",),
    "--hsv-h": ("--colour-sd",),
    "--num-workers": ("--workers",),
    "-j": ("--workers",),
    "--gpu": ("--device cuda",),
    "--gpus": ("--device cuda",),
    "--no-cuda": ("--device cpu",),
    "--amp": ("--precision bf16",),
    "--half": ("--precision bf16",),
    "--fp16": ("--precision bf16",),
    "--torchcompile": ("--compile",),
    "--output": ("--out",),
    "--output-dir": ("--out",),
    "--save-dir": ("--out",),
    "--project": ("--out",),
    "--save-txt": ("--out",),
    "--checkpoint": ("--resume (and the run's --out)",),
    "--ckpt": ("--resume (and the run's --out)",),
    "--pretrained": ("--from WEIGHTS", "RUN", "RUNS"),
    "--weights": ("--from WEIGHTS", "RUN", "RUNS"),
    "--initial-checkpoint": ("--from WEIGHTS", "RUN", "RUNS"),
    "--val-split": ("--held-out",),
    "--validation-split": ("--held-out",),
    "--valid-pct": ("--held-out",),
    "--data": ("SOURCE", "IMAGES"),
    "--data-dir": ("SOURCE", "--data", "IMAGES"),
    "--data-path": ("SOURCE", "--data", "IMAGES"),
    "--dataset": ("SOURCE", "--data", "IMAGES"),
    "--train-dir": ("SOURCE",),
    "--source": ("IMAGES", "--data"),
    "--image": ("IMAGES",),
    "--input": ("IMAGES", "SOURCE"),
    "--num-classes": ("--classes",),
    "--nb-classes": ("--classes",),
    "--topk": ("--top",),
    "--top-k": ("--top",),
    "--format": ("--to",),
    "--include": ("--to",),
    "--cfg": ("--config",),
    "--save-results": ("--json",),
}
"""Names of options there, and possible ones here, depending on the verb; in capitals, an argument."""

_WITHOUT = {
    "--num-classes": "classes are the folders of SOURCE",
    "--nb-classes": "classes are the folders of SOURCE",
    "--opt": "training is SGD with --momentum, as in the paper",
    "--optimizer": "training is SGD with --momentum, as in the paper",
    "--loss": "training is the cross-entropy, with --label-smoothing and --class-weights",
    "--metrics": "evaluate prints top-1, top-5 and class-balanced errors",
    "--model-ema": "as in the paper, weights are not averaged",
    "--mixup": "as in the paper, images are not mixed",
    "--cutmix": "as in the paper, images are not mixed",
    "--auto-augment": "images are cropped, mirrored and shifted in colour: --scale, --flip, --colour-sd",
    "--aa": "images are cropped, mirrored and shifted in colour: --scale, --flip, --colour-sd",
    "--test-only": "verydeep evaluate tests a run",
    "--evaluate": "verydeep evaluate tests a run",
    "--batch": "as many images are computed at once as memory holds",
    "--batch-size": "as many images are computed at once as memory holds",
    "--half": "networks are used in float32; verydeep export has --int8 and, for OpenVINO, --precision bf16",
    "--fp16": "networks are used in float32; verydeep export has --int8 and, for OpenVINO, --precision bf16",
    "--conf": "every image is given its --top classes, each with its probability",
    "--dist-url": "torchrun --nproc-per-node 4 -m verydeep starts several processes",
    "--world-size": "torchrun --nproc-per-node 4 -m verydeep starts several processes",
    "--log-wandb": "a run has metrics.jsonl and event files for TensorBoard",
    "--exist-ok": "--resume continues a run; another --out makes a new one",
    "--print-freq": "progress is printed every 30 seconds; terminals show a bar",
    "--verbose": "progress is printed every 30 seconds; terminals show a bar",
}
"""Options that have no counterpart here, and advice for those who look for them."""

_ASSIGNMENT = re.compile(r"([a-z][a-z0-9_]*)=(\S+)")
_NUMBERED_DEVICE = re.compile(r"(cuda|gpu)?:?(\d+)(,\d+)*")
_DEVICES = {"gpu": "cuda", "nvidia": "cuda", "rocm": "cuda", "amd": "cuda", "metal": "mps", "apple": "mps"}
"""Names of devices there, and here."""


def known_verb(word: str) -> str | None:
    """Say what another tool's verb is called here; None if it is not known."""
    here = _VERBS.get(word.replace("_", "-").lower())
    return here and f"there is no verb {word}: it is {here}"


def display_name(argument: Argument) -> str:
    """Return the name of an option, `--out`, or of an argument in capitals, `SOURCE`."""
    return argument.name if argument.index is None else argument.name.lstrip("-").upper()


def names_of(arguments: Iterable[Argument]) -> set[str]:
    """Return all names of a verb's options, and of its arguments in capitals too."""
    return {name for one in arguments if one.names for name in (*one.names, display_name(one))}


def refuse_unknown_options(_app: App, _commands: Sequence[str], arguments: ArgumentCollection) -> None:
    """Refuse words among IMAGES that look like options, unless there is a file of that name; for `App.config`.

    Raises:
        ValueError: an unknown option; the message has its name here if it is another tool's.
    """
    for argument in arguments:
        for token in argument.tokens if "IMAGES" in argument.names else ():
            word = token.value
            if word.startswith("-") and word != "-" and not os.path.lexists(word):
                known = known_here_as(names_of(arguments), [word])
                raise ValueError(known or f"unknown option {word}, and there is no file of that name")


def known_here_as(options: Collection[str], tokens: Sequence[str]) -> str | None:
    """Say what other tools' options in a line are called here, or what is here instead; None if there are none.

    Args:
        options: names of a verb's options, and of its arguments in capitals: `SOURCE`.
        tokens: a command line without its verb.
    """
    told = [line for token in tokens if (line := _told(token, options))]
    return "; ".join(dict.fromkeys(told)) or None


def known_value(option: str, value: str) -> str | None:
    """Say how another tool's value of an option is written here; None if it is not known."""
    if option == "--device" and (number := _NUMBERED_DEVICE.fullmatch(value)):
        return f"--device {value}: write --device cuda; CUDA_VISIBLE_DEVICES={number[2]} before it chooses the device"
    if option == "--device" and (device := _DEVICES.get(value.lower())):
        others = " (mps on a Mac)" if value.lower() == "gpu" else ""
        return f"--device {value}: write --device {device}{others}, or auto, which takes a GPU where there is one"
    if option == "--method" and value.lower().replace("-", "") in ("cam", "gradcam", "gradcam++"):
        here = "score-map, which takes the place of CAM in these networks" if value.lower() == "cam" else "grad-cam"
        return f"--method {value}: write --method {here}"
    return None


def _told(token: str, options: Collection[str]) -> str | None:
    if assigned := _ASSIGNMENT.fullmatch(token):
        name = f"--{assigned[1].replace('_', '-')}"
        here = name if name in options else _here(name, options)
        return here and f"write {_with_value(here, assigned[2])}, not {token}"
    given = token.partition("=")[0]
    theirs = given.replace("_", "-")
    if theirs in options:
        return None
    if here := _here(theirs, options):
        is_option = here.startswith("-")
        return f"there is no {given}: {f'it is called {here}' if is_option else f'name {here} without an option'}"
    return f"there is no {given}: {_WITHOUT[theirs]}" if theirs in _WITHOUT else None


def _with_value(here: str, value: str) -> str:
    """Return an option, an argument in capitals, or `--device cuda`, as it is written for another tool's value."""
    if here.isupper():
        return value
    if "WEIGHTS" in here and value.lower() != "true":
        return here.replace("WEIGHTS", value)
    return here if " " in here or value.lower() == "true" else f"{here} {value}"


def _here(theirs: str, options: Collection[str]) -> str | None:
    """Return the first name that an option may have here and that the verb knows."""
    return next((ours for ours in _OPTIONS.get(theirs, ()) if ours.split()[0] in options), None)
