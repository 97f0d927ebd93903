"""The verb `push`."""

from pathlib import Path

from verydeep.commands.options import JsonFile
from verydeep.presentation.terminal import show


def push(
    run: Path, name: str, *, private: bool = False, license: str | None = None, json_file: JsonFile = None
) -> None:
    """Upload a run's model to the Hugging Face hub; everything that takes a RUN then takes hub:NAME too.

    Uploads config.json, model.safetensors and a page made from the run's record. Needs a login (hf auth login).

    Args:
        run: A run folder.
        name: hub:OWNER/MODEL; it is created if it does not exist.
        private: Create it for its owner only.
        license: Licence as the hub calls it, such as apache-2.0; for weights from elsewhere, that of their source.
        json_file: Write its address to this file as well (- for standard output instead).
    """
    from verydeep.runs.push import push as push_model

    address = push_model(run, name, private=private, license=license)
    show({"run": str(run), "name": name, "address": address}, json_file, f"{name}: {address}")
