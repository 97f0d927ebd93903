"""Options as other tools call them, for people who come from there."""

from collections.abc import Collection, Sequence

_NAMES = {
    "--lr": "--learning-rate",
    "--lr0": "--learning-rate",
    "--base-lr": "--learning-rate",
    "--bs": "--batch",
    "--b": "--batch",
    "--batch-size": "--batch",
    "--imgsz": "--crop",
    "--img-size": "--crop",
    "--image-size": "--crop",
    "--input-size": "--crop",
    "--model": "--network",
    "--arch": "--network",
    "--epoch": "--epochs",
    "--max-epochs": "--epochs",
    "--num-epochs": "--epochs",
    "--wd": "--weight-decay",
    "--lr-scheduler": "--schedule",
    "--sched": "--schedule",
    "--warmup-epochs": "--warm-up",
    "--smoothing": "--label-smoothing",
    "--drop": "--dropout",
    "--num-workers": "--workers",
    "-j": "--workers",
    "--gpu": "--device cuda",
    "--amp": "--precision bf16",
    "--output": "--out",
    "--output-dir": "--out",
    "--save-dir": "--out",
    "--project": "--out",
    "--checkpoint": "--resume (and the run's --out)",
    "--pretrained": "--from WEIGHTS",
    "--weights": "--from WEIGHTS",
    "--topk": "--top",
    "--format": "--to",
}
"""What it is called there, and here."""


def known_here_as(options: Collection[str], tokens: Sequence[str]) -> str | None:
    """Say what an option of another tool in a line is called here, among a verb's `options`; None if there is none."""
    for token in tokens:
        theirs = token.partition("=")[0].replace("_", "-")
        ours = _NAMES.get(theirs)
        if ours is not None and theirs not in options and ours.split()[0] in options:
            return f"there is no {token.partition('=')[0]}: it is called {ours}"
    return None
