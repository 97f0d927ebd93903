"""Kept figures of any content: what is damaged is said and computed again, and never anything else than at first."""

import os
import random
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import platformdirs
import pytest
from damage import damaged
from exported_runs import pictures
from in_time import in_time
from mutated_documents import mutated
from random_networks import save_network
from shard_files import found, samples, write_shard

from verydeep.descriptors import chunks
from verydeep.descriptors.features import Chunk
from verydeep.evaluation.posterior_cache import store, stored
from verydeep.images.colour import colour_statistics
from verydeep.images.decode import UnusableImageError
from verydeep.images.open import open_for_testing
from verydeep.machine import cache
from verydeep.transfer_learning.options import TransferOptions
from verydeep.transfer_learning.transfer import transfer

FEW = TransferOptions(train=2, test=1, splits=1)
SAID = "damaged, so they are computed again"


def numbers(_):
    return cache.remembered("numbers", "key", lambda: [1.5, 2.0, 1e300], list[float])


def indices_of_shards(place):
    shard = place.folder / "a.tar"
    if not shard.exists():
        write_shard(shard, samples(["cat", "dog", "cat"]))
    return found(open_for_testing(str(shard), None))


def colours(place):
    statistics = colour_statistics(place.source)
    return statistics.mean, statistics.covariance.tolist(), statistics.images


def posteriors(_):
    """Posteriors are made up here, where they are not known."""
    known = stored("key", list("abcd"), 3)
    if len(known.missing):
        known.values[:] = np.arange(12).reshape(4, 3)
        store("key", known)
    return known.values.tolist()


def features(place):
    return transfer(place.run, data=place.photos, split="val", options=FEW).to_dict()["descriptors"]


def test_where_nothing_can_be_kept_everything_is_computed(tmp_path, monkeypatch):
    """The name is too long for the system; a service may not even look into its user's folder."""
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / ("x" * 300)))
    assert numbers(None) == [1.5, 2.0, 1e300]


CACHES = {
    "numbers": (numbers, "*.json"),
    "indices of shards": (indices_of_shards, "*.json"),
    "colours": (colours, "*.json"),
    "posteriors": (posteriors, "*.safetensors"),
    "features": (features, "*.safetensors"),
    "hash of features": (features, "*.sha256"),
}
"""What is kept, and its file."""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    photos = pictures(tmp_path / "photos")
    source = open_for_testing(photos, None).source("val")
    run = save_network(tmp_path / "run")
    return SimpleNamespace(folder=tmp_path, photos=photos, source=source, run=run)


@pytest.mark.parametrize("by_library", [platformdirs.user_cache_path, lambda name: Path("~/.cache", name)])
def test_without_a_folder_of_the_user_nothing_is_kept(place, homeless, monkeypatch, by_library):
    """The verb `evaluate` says so about posteriors; features, which take long, need a place.

    Some versions of the library raise an error, others answer with a `~`.
    """
    monkeypatch.setattr(platformdirs, "user_cache_path", by_library)
    monkeypatch.chdir(homeless)
    assert numbers(place) == [1.5, 2.0, 1e300]
    assert np.isnan(stored("key", list("abcd"), 3).values).all()
    for keep in (posteriors, features):
        with pytest.raises(OSError, match="this user has no folder for caches: name one by VERYDEEP_CACHE"):
            keep(place)
    assert not Path("~").exists()


def changes(content, name, times):
    """Yield the bytes of a damaged file: of text also with another structure below a hash that was right."""
    for seed in range(times):
        rng = random.Random(f"{name} {seed}")
        digest, line, document = content.partition(b"\n")
        if line and name != "features" and rng.random() < 0.5:
            yield digest + line + mutated(document.decode(), "a.json", rng)
        else:
            yield damaged(content, rng)


@pytest.mark.parametrize("name", CACHES)
def test_what_is_kept_and_damaged_is_said_and_computed_again(name, place, capsys, battery, figure):
    compute, pattern = CACHES[name]
    times = (50 if "features" in name else 500) if battery else (2 if "features" in name else 8)
    first = compute(place)
    (file,) = cache.folder().rglob(pattern)
    content = file.read_bytes()
    capsys.readouterr()
    for damage in changes(content, name, times):
        file.write_bytes(damage)
        assert compute(place) == first
        said = capsys.readouterr().err
        # What posteriors are kept under stands in their file for people; their SHA-256 does not count it.
        assert (SAID in said) == (damage != content) or (name == "posteriors" and not said), damage
        file.write_bytes(content)
        assert compute(place) == first
        assert SAID not in capsys.readouterr().err
    figure(28, f"damaged {name}", f"{times:,} damages of kept figures: all said, and computed again")


@pytest.mark.parametrize("name", CACHES)
def test_a_pipe_in_the_place_of_what_is_kept_is_replaced(name, place, capsys):
    """Nobody reads it, so writing to it would wait for ever, as reading would."""
    compute, pattern = CACHES[name]
    first = compute(place)
    (file,) = cache.folder().rglob(pattern)
    file.unlink()
    os.mkfifo(file)
    with in_time():
        assert compute(place) == first
    assert SAID in capsys.readouterr().err
    assert file.is_file()
    assert compute(place) == first
    assert SAID not in capsys.readouterr().err


def test_a_damaged_chunk_of_features_is_refused_in_a_line(tmp_path, battery, figure):
    file, times = tmp_path / "0.safetensors", 1_000 if battery else 40
    values = {"fc7": np.ones((2, 3), np.float32), "pool5": np.zeros((2, 3, 1, 1), np.float32)}
    chunks.keep(file, Chunk([0, 2], values, [UnusableImageError("b.jpg", "undecodable", "an empty file")]))
    chunks.check(file)
    content, rng = file.read_bytes(), random.Random(0)
    for damage in (damaged(content, rng) for _ in range(times)):
        file.write_bytes(damage)
        if damage != content:
            with pytest.raises(ValueError, match=r"\w") as told:
                chunks.check(file)
            assert "\n" not in str(told.value)
    figure(28, "damaged chunks", f"{times:,} damages of kept features: all refused in a line")
