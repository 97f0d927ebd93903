"""safetensors shards are read by their index."""

import json

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from verydeep import import_weights, load


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


@pytest.mark.parametrize("named", ["", "model.safetensors.index.json"])
def test_shards_give_the_scores_of_the_whole(folder, named):
    import_weights(folder / named, folder / "run")
    images = foreign.images(64)
    with torch.no_grad():
        found = load(folder / "run")(torch.from_numpy(images)).numpy()
    assert np.abs(found - foreign.scores(foreign.plain("A"), foreign.torch_pixels(images))).max() < 1e-4


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
