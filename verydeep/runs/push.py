"""Upload of a run's model to the Hugging Face hub, with a page about it."""

import re
from pathlib import Path
from typing import Any

from verydeep.networks.arithmetic import describe_architecture
from verydeep.presentation.pages import render
from verydeep.runs import model_hub
from verydeep.runs.files import BEST
from verydeep.runs.model import load_config, load_model, model_files
from verydeep.runs.record import best_epoch, read_metrics, record_of, run_of

_CARD = "README.md"


def push(run: str | Path, name: str, *, private: bool = False, license: str | None = None) -> str:
    """Upload `config.json`, `model.safetensors` and a model card to `hub:NAME`; return the address of its page.

    Everything that takes a RUN takes `hub:NAME` too. `private` applies to a model that is not there yet; `license` is
    the hub's name of a licence (`apache-2.0`), that of the source for weights that came from elsewhere.

    Raises:
        ValueError: unusable run, not a name of the hub or of a licence, no login, or no right to write there.
        OSError: the hub cannot be reached.
    """
    if not model_hub.is_named(name):
        raise ValueError(f"models of the hub are called hub:OWNER/MODEL, not {name!r}")
    if license is not None and not re.fullmatch(r"[\w.+-]+", license):
        raise ValueError(f"{license!r} is not the name of a licence, such as apache-2.0")
    card = _model_card(run, name, license=license)
    files: dict[str, Path | bytes] = {**model_files(run), _CARD: card.encode(errors="backslashreplace")}
    message = f"{load_config(run).network}, by verydeep"
    return model_hub.upload(name, files, private=private, message=message)


def _model_card(run: str | Path, name: str, *, license: str | None = None) -> str:
    """Return the page of a model, Markdown with a head that the hub reads; it tells only facts that the run records."""
    model = load_model(run)
    record, trained = record_of(run), run_of(run)
    epochs = read_metrics(trained) if trained else []
    from_hub = record and record.imported and re.fullmatch(r"hub:[\w.-]+/[\w.-]+(@[\w./-]+)?", record.source)
    values: dict[str, Any] = {
        "name": name,
        "license": license,
        "base_model": model_hub.repository(record.source) if record and from_hub else None,
        "net": model.net.architecture,
        "network": describe_architecture(model.net.architecture),
        "model": model,
        "mean": [round(value, 3) for value in model.net.mean_rgb.tolist()],
        "record": record,
        "source": record and Path(record.source).name,  # its place on this machine is private
        "epochs": epochs,
        "best": best_epoch(epochs) if epochs and Path(run).absolute().name == BEST else None,
    }
    return render("runs/model-card.md", values)
