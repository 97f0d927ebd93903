"""safetensors shards are read by their index."""

import hashlib
import json

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from verydeep import import_weights, load, load_model
from verydeep.commands.import_weights import import_
from verydeep.runs.push import _model_card
from verydeep.runs.record import read_record


@pytest.fixture
def folder(tmp_path):
    """Two shards and their index, as the hub has them."""
    state = foreign.state_dict(foreign.plain("A"), "torchvision")
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[:9], "model-00002-of-00002.safetensors": names[9:]}
    for file, held in parts.items():
        save_file({name: state[name].contiguous() for name in held}, tmp_path / file)
    index = {"metadata": {"total_size": 1}, "weight_map": {name: file for file, held in parts.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    return tmp_path


def sha256_of_list(folder):
    """As `sha256sum model.safetensors.index.json model-*.safetensors | cut -c -64 | sha256sum` writes it."""
    files = ["model.safetensors.index.json", *sorted(file.name for file in folder.glob("model-*.safetensors"))]
    digests = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files]
    return hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()


@pytest.mark.parametrize("named", ["", "model.safetensors.index.json"])
def test_shards_give_the_scores_of_the_whole(folder, named):
    import_weights(folder / named, folder / "run")
    images = foreign.images(64)
    with torch.no_grad():
        found = load(folder / "run")(torch.from_numpy(images)).numpy()
    assert np.abs(found - foreign.scores(foreign.plain("A"), foreign.torch_pixels(images))).max() < 1e-4


def test_the_config_beside_an_index_tells_mean_std_and_classes(folder):
    mean, std, names = (0.5, 0.4, 0.3), (0.5, 0.25, 0.125), [f"bird {number}" for number in range(6)]
    (folder / "config.json").write_text(json.dumps({"mean": mean, "std": std, "label_names": names}))
    import_weights(folder, folder / "run")
    images = foreign.images(64)
    with torch.no_grad():
        found = load(folder / "run")(torch.from_numpy(images)).numpy()
    assert np.abs(found - foreign.scores(foreign.plain("A"), foreign.torch_pixels(images, mean, std))).max() < 1e-4
    assert load_model(folder / "run").classes == tuple(names)


def test_an_index_that_lies_is_refused(folder):
    index = folder / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    for change, reason in (
        ({"classifier.6.bias": "model-00002-of-00002.safetensors"}, "lacks classifier.6.bias"),
        ({"classifier.6.bias": "../other.safetensors"}, "'../other.safetensors', which is not beside it"),
        ({"classifier.6.bias": 3}, "weight_map"),
    ):
        index.write_text(json.dumps({"weight_map": {**told["weight_map"], **change}}))
        with pytest.raises(ValueError, match=reason):
            import_weights(index, folder / "run")


def test_the_sha256_is_of_the_shards_too(folder, capsys):
    import_(str(folder), out=str(folder / "run"))
    record, expected = read_record(folder / "run"), sha256_of_list(folder)
    assert record.fingerprints["weights"] == record.imported["sha256"] == expected
    assert record.imported["beside"] == [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert f"SHA-256 of 3 files: {expected}" in _model_card(folder / "run", "someone/net")
    assert "SHA-256 of 3 files" in capsys.readouterr().out
    last = folder / "model-00002-of-00002.safetensors"
    save_file({name: value + 1 for name, value in load_file(last).items()}, last)
    assert import_weights(folder, folder / "other").sha256 == sha256_of_list(folder) != expected
