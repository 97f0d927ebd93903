"""The end of a verb's help: an example and, if the verb takes SOURCE, an explanation of it."""

import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any

from cyclopts import App
from cyclopts.help import DefaultFormatter, HelpPanel
from rich.console import Console, ConsoleOptions

EXAMPLES = {
    "describe": "verydeep describe D --plot d.svg",
    "scan": "verydeep scan photos",
    "train": "verydeep train photos --from hub:timm/vgg16.tv_in1k --out runs/mine",
    "evaluate": "verydeep evaluate runs/mine --data photos --report page",
    "compare": "verydeep compare a.csv b.csv",
    "predict": "verydeep predict runs/mine picture.jpg --map maps",
    "serve": "verydeep serve runs/mine --port 8080",
    "import": "verydeep import vgg16.pth --out runs/vgg16",
    "export": "verydeep export runs/mine --to onnx --out mine.onnx",
    "push": "verydeep push runs/mine hub:me/mine",
    "reproduce": "verydeep reproduce photos --quick --out experiment",
    "findings": "verydeep findings experiment --margin 1",
    "features": "verydeep features runs/mine photos --split all --out photos.parquet",
    "transfer": "verydeep transfer runs/mine --data photos --split all",
    "localise train": "verydeep localise train photos --boxes boxes.csv --finetune runs/mine --out runs/boxes",
    "localise evaluate": "verydeep localise evaluate runs/boxes --data photos --boxes boxes.csv",
    "localise predict": "verydeep localise predict runs/boxes picture.jpg --classifier runs/mine --draw drawn",
    "doctor": "verydeep doctor",
    "completion": "verydeep completion bash",
}
"""A command line for every verb, which can be copied once its file names are changed."""

_SOURCE = (
    "SOURCE is a folder with one folder of images per class (or train/ and val/ that hold them); tar shards, "
    "'data/{000..099}.tar' or a folder of them; hub:NAME, a data set of the Hugging Face hub; or the word digits: "
    "1,797 real handwritten digits that need no download."
)

_COMMON = (
    "--from",
    "--finetune",
    "--trainable",
    "--crop",
    "--width",
    "--batch",
    "--learning-rate",
    "--epochs",
    "--seed",
)
"""Options of a recipe that most trainings choose."""


def common_first(console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
    """Print the options of a recipe in two panels: those that most trainings choose, and the others."""
    most_used = [entry for name in _COMMON for entry in panel.entries if name in entry.positive_names]
    others = [entry for entry in panel.entries if entry not in most_used]
    for title, entries in (("Recipe: most used", most_used), (panel.title, others)):
        DefaultFormatter()(console, options, panel.copy(title=title, entries=entries))


def register(app: App, verb: Callable[..., Any]) -> None:
    """Make a function a verb of the command line, its help ending with the example and, where it takes one, SOURCE."""
    name = verb.__name__.strip("_")
    words = " ".join((*app.name, name)).removeprefix("verydeep ")
    takes_source = {"source", "data"} & _names_taken(verb)
    ends = [f"Example: {EXAMPLES[words]}", *([_SOURCE] if takes_source else [])]
    app.command(verb, name=name, help_epilogue="\n\n".join(ends))


def _names_taken(verb: Callable[..., Any]) -> set[str]:
    """Return the names of a verb's parameters, and of the fields of those that are dataclasses of options."""
    taken = inspect.signature(verb).parameters
    options = [each.default for each in taken.values() if is_dataclass(each.default)]
    return {*taken, *(field.name for each in options for field in fields(each))}
