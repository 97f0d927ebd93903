"""Documents inside other files, or beside weights and runs, of any content: they end in a value or in one line."""

import json
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import foreign_weights as foreign
import keras_models
import numpy as np
import onnx
import pytest
import torch
from fuzzing import PYTHONS, refusal, tried
from safetensors.torch import save_file
from shard_files import items, png, sample, write_shard

from verydeep.exported_networks.exported import load_exported
from verydeep.exported_networks.metadata import KEY, SHA256, UNSTATED, state_checksum
from verydeep.images.open import open_for_testing
from verydeep.images.sources import shard_index
from verydeep.machine import lock
from verydeep.machine.documents import MOST_BYTES
from verydeep.networks.foreign import keras
from verydeep.networks.foreign.reader_program import CONFIGURATION
from verydeep.networks.foreign.weight_files import read_weights
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.stored_tests import file_of_test
from verydeep.reproduction.studies import STUDIES_BY_NAME
from verydeep.reproduction.study_report import write_studies
from verydeep.reproduction.study_runs import study_runs
from verydeep.runs.foreign_model import foreign_model
from verydeep.runs.import_weights import read_model
from verydeep.training.norms import LayerNorms, StepNorms, append_norms, read_norms

BEFORE = Path(__file__).parents[1] / "before" / "written_at_0046bf4"

EXPORTED = BEFORE / "exported"


@dataclass(frozen=True, kw_only=True)
class Inner:
    """A document, the file that it is put into, and what reads that."""

    text: str
    file: Path
    read: Any
    write: Any = None
    """By default the document is the file."""


def of_a_shard(folder, _):
    def write(document):
        write_shard(folder / "a.tar", [*sample("0", "cat"), ("1.png", png(1)), ("1.json", document)])

    def read(file):
        return items(open_for_testing(str(file), None).source("all"))

    return Inner(text='{"class_name": "dog", "label": 3, "x": [1]}', file=folder / "a.tar", read=read, write=write)


def read_foreign(file):
    return foreign_model(read_weights(file))


def index_of_shards(folder, _):
    state = foreign.state_dict(foreign.plain("A", window=1, classes=3), "torchvision")
    shards = {f"{number}.safetensors": sorted(state)[number::2] for number in range(2)}
    for file, names in shards.items():
        save_file({name: state[name].contiguous() for name in names}, folder / file)
    text = json.dumps({"weight_map": {name: file for file, names in shards.items() for name in names}})
    return Inner(text=text, file=folder / "model.safetensors.index.json", read=read_foreign)


def keras_configuration(layers):
    """Return a model whose configuration is changed; what reads its arrays in a process of its own does so once."""

    def of_keras(folder, request):
        monkeypatch = request.getfixturevalue("monkeypatch")
        net = foreign.plain("A", window=1, classes=3)
        head = keras_models.dense(keras_models.random(3, net.convolutions[-1][2].shape[0]), np.zeros(3, "f4"), "top")
        file = keras_models.write(
            folder / "a.h5", [*layers(), keras_models.base(net, 32), keras_models.layer("Flatten"), head]
        )
        arrays = keras.read_apart("keras", file)
        text = bytes(arrays.pop(CONFIGURATION).tolist()).decode()

        def write(document):
            told = torch.frombuffer(bytearray(document), dtype=torch.uint8) if document else torch.zeros(0).byte()
            monkeypatch.setattr(keras, "read_apart", lambda *_: {**arrays, CONFIGURATION: told})

        return Inner(text=text, file=file, read=read_foreign, write=write)

    return of_keras


def rescaling():
    return [
        keras_models.layer("InputLayer", batch_shape=[None, 32, 32, 3]),
        keras_models.layer("Rescaling", scale=[0.5, 0.5, 1], offset=-1.0),
        keras_models.layer("Normalization", mean=[1.0, 2, 3], variance=[1.0, 2, 3]),
    ]


def operations():
    def taken(name):
        return {"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}}

    def operation(kind, name, *arguments):
        return {**keras_models.layer(kind, name), "inbound_nodes": [{"args": list(arguments), "kwargs": {}}]}

    every = {"class_name": "__ellipsis__", "config": {}}
    numbers = {"class_name": "__numpy__", "config": {"value": [[[[-1.0, -2.0, -3.0]]]], "dtype": "float32"}}
    old = keras_models.layer("TFOpLambda", "bias_add", function="nn.bias_add")
    return [
        keras_models.layer("InputLayer", "input_2", batch_shape=[None, 32, 32, 3]),
        *(operation("GetItem", f"item_{one}", taken("input_2"), [every, one]) for one in (2, 1, 0)),
        operation("Stack", "stack", [taken(f"item_{one}") for one in (2, 1, 0)]),
        operation("Add", "add", taken("stack"), numbers),
        {**old, "inbound_nodes": [["add", 0, 0, {"bias": [-1.0, -2, -3], "data_format": "NHWC"}]]},
    ]


def config_of_the_hub(folder, _):
    state = foreign.state_dict(foreign.plain("A", window=1, classes=3), "timm")
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors")
    told = {"architecture": "vgg11", "label_names": ["a", "b", "c"], "mean": [0.4, 0.4, 0.4]}
    told["pretrained_cfg"] = {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}
    return Inner(text=json.dumps(told), file=folder / "config.json", read=lambda file: read_model(file.parent))


def norms(folder, _):
    layers = {name: LayerNorms(activation=1.5, gradient=0.1, weight=2.0) for name in ("conv1_1", "fc8")}
    lines = [json.dumps(asdict(StepNorms(step=step, loss=2.0, layers=layers))) for step in (0, 100)]
    return Inner(text="\n".join(lines), file=folder / "norms.jsonl", read=lambda file: read_norms(file.parent))


HOLD = """
import fcntl, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
print(flush=True)
sys.stdin.read()
"""


def holder_of_a_lock(folder, request):
    monkeypatch = request.getfixturevalue("monkeypatch")
    file = folder / ".run.lock"
    text = json.dumps({"process": 1, "host": "here", "since": "2020-01-01 00:00:00 UTC"})
    file.write_text(text)
    monkeypatch.setattr(lock, "_TIMES", 1)
    monkeypatch.setattr(lock.time, "sleep", lambda _: None)
    with ExitStack() as stack:
        holder = subprocess.Popen([sys.executable, "-c", HOLD, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        stack.enter_context(holder)  # whose input is closed in the end
        assert holder.stdout.readline()
        request.addfinalizer(stack.pop_all().close)

    def read(file):
        refused = pytest.raises(lock.WrittenElsewhereError, match=r"is being written by .*: wait for it")
        with refused as told, lock.locked(folder / "run"):
            pass
        assert len(str(told.value)) < 5000

    return Inner(text=text, file=file, read=read)


def member_of_a_program(name):
    """Return a document in a `.pt2`; its checksum in the archive is right."""

    def of_a_program(folder, _):
        with zipfile.ZipFile(EXPORTED / "network.pt2") as archive:
            members = {member.filename: archive.read(member) for member in archive.infolist()}
        (member,) = [member for member in members if member.endswith(name)]

        def write(document):
            with zipfile.ZipFile(folder / "a.pt2", "w") as archive:
                for one, content in members.items():
                    archive.writestr(one, document if one == member else content)

        return Inner(text=members[member].decode(), file=folder / "a.pt2", read=load_exported, write=write)

    return of_a_program


def metadata_of_onnx(folder, _):
    graph, file = onnx.load(EXPORTED / "network.onnx"), folder / "a.onnx"
    (text,) = [entry.value for entry in graph.metadata_props if entry.key == KEY]

    def write(document):
        onnx.helper.set_model_props(graph, {KEY: document.decode(errors="replace"), SHA256: UNSTATED})
        onnx.save(graph, file)
        state_checksum(file)

    return Inner(text=text, file=file, read=load_exported, write=write)


def run_of_a_study(name, studied=("gradients",)):
    """Return a document of a training, or of its test, that studies look at."""

    def of_a_study(folder, request):
        grid, seeds = Grid(only=("A",), tables=(3,), studies=studied), {0: folder / "runs" / "seed-0"}
        layers = {layer: LayerNorms(activation=1.5, gradient=0.1, weight=2.0) for layer in ("conv1_1", "fc8")}
        for training in (*grid.trainings, *grid.studied):
            run = shutil.copytree(
                BEFORE / "finished_run", seeds[0] / training.name, ignore=lambda *_: ["best", "model"]
            )
            for step in (0, 100):
                append_norms(run, StepNorms(step=step, loss=2.0, layers=layers))
        if "gradients" in studied:
            (seeds[0] / "A-256-paper" / "diverged.json").write_text('{"diverged": "its loss is inf"}')
        for entry in (*grid.entries, *grid.study_entries):
            file = file_of_test(folder, entry, 0)
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(BEFORE / "experiment" / "evaluations" / "seed-0" / "A-256 dense single.json", file)
        file = folder / (name if name.startswith("evaluations") else f"runs/seed-0/{name}")

        def read(_):
            for study in studied:
                study_runs(STUDIES_BY_NAME[study], grid=grid, folders=seeds, out=folder)
            if request.getfixturevalue("battery"):  # figures take half a second
                write_studies(folder, grid=grid, folders=seeds, source="photos")

        return Inner(text=file.read_text(), file=file, read=read)

    return of_a_study


INNER = {
    "shard.json": of_a_shard,
    "index of shards.json": index_of_shards,
    "keras rescaling.json": keras_configuration(rescaling),
    "keras operations.json": keras_configuration(operations),
    "hub config.json": config_of_the_hub,
    "norms.jsonl": norms,
    "study norms.jsonl": run_of_a_study("A-256/norms.jsonl"),
    "study run.json": run_of_a_study("A-256/run.json"),
    "study metrics.jsonl": run_of_a_study("A-256/metrics.jsonl", ("initialisation", "images")),
    "study diverged.json": run_of_a_study("A-256-paper/diverged.json"),
    "study test.json": run_of_a_study("evaluations/seed-0/A-256 dense single.json", ("regularisation", "images")),
    "lock.json": holder_of_a_lock,
    "pt2 metadata.json": member_of_a_program("verydeep.json"),
    "pt2 weights.json": member_of_a_program("model_weights_config.json"),
    "onnx metadata.json": metadata_of_onnx,
}


@pytest.mark.parametrize("name", INNER)
def test_an_inner_document_ends_in_a_value_or_a_line(name, tmp_path, request, battery, figure):
    inner, times = INNER[name](tmp_path, request), 500 if battery else 8
    write = inner.write or inner.file.write_bytes
    write(inner.text.encode())
    assert refusal(inner.read, inner.file) == []
    lines = tried(
        inner.file, inner.text.encode(), name, times, lambda file: refusal(inner.read, file), write=inner.write
    )
    assert [line for _, line in lines if PYTHONS.search(line) or len(line) > 2100] == []
    figure(28, f"fuzzed {name}", f"{times:,} mutations, {len(lines):,} refused in a line, the others read")


@pytest.mark.parametrize("name", ["verydeep.json", "model_weights_config.json"])
def test_a_document_that_grows_when_it_is_unpacked_is_refused_by_its_claim(name, tmp_path, monkeypatch):
    inner = member_of_a_program(name)(tmp_path, None)
    monkeypatch.setattr(zipfile, "ZipFile", partial(zipfile.ZipFile, compression=zipfile.ZIP_DEFLATED))
    inner.write(b" " * (MOST_BYTES + 1))
    assert inner.file.stat().st_size < 10**6
    with pytest.raises(ValueError, match=rf"{name} has 67,108,865 bytes, more than the 67,108,864 that are read"):
        inner.read(inner.file)


def test_a_shards_label_of_any_size_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_index, "MOST_BYTES", 100)
    shard = write_shard(tmp_path / "a.tar", sample("0", "x" * 101))
    with pytest.raises(ValueError, match=r"0.cls in .*a.tar has 101 bytes, too many for a file that names a class"):
        open_for_testing(str(shard), None)
