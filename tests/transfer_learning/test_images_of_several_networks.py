"""Networks that are compared decode each image once at each side, and have the features that they have alone."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from random_networks import save_network

import verydeep.descriptors.extraction
from verydeep.descriptors import files
from verydeep.exported_networks.exported import write_exported
from verydeep.images import rescaled
from verydeep.images.tolerance import Tolerance
from verydeep.machine.runtime import Runtime
from verydeep.runs.model import load_model
from verydeep.transfer_learning import compared_descriptors
from verydeep.transfer_learning import features as transfer_features
from verydeep.transfer_learning.options import TransferOptions
from verydeep.transfer_learning.transfer import transfer

EACH, IMAGES, BYTES = 5, 11, 3 * 37 * 41
"""Images of each class, of both with one that cannot be used, and bytes of one at Q = 256, by crops of 32."""


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Two runs, pictures with one that is none, and the names of all that are decoded for networks."""
    rng, names, real = np.random.default_rng(0), [], rescaled.decode_for
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = rng.integers(0, 40, (40, 44, 3))
            pixels[..., label] += 210
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photos" / name / f"{number}.bmp")
    (tmp_path / "photos" / "bee" / "7.bmp").write_bytes(b"none")
    monkeypatch.setattr(rescaled, "decode_for", lambda data, name, **o: names.append(name) or real(data, name, **o))
    monkeypatch.setattr(verydeep.descriptors.extraction, "IMAGES_AT_ONCE_ON_CPU", 4)  # three chunks
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    runs = [save_network(tmp_path / name, name=name, seed=seed) for seed, name in enumerate("AB")]
    return SimpleNamespace(place=tmp_path, photos=tmp_path / "photos", runs=runs, decoded=names, patch=monkeypatch)


def compared(made, runs, *, scales=(256,), workers=0, cache="cache", baseline=True):
    """Return what `transfer` says, the files that it keeps, and how many images it decoded."""
    made.patch.setenv("VERYDEEP_CACHE", str(made.place / cache))
    made.decoded.clear()
    options = TransferOptions(train=3, test=2, splits=1, scales=scales, baseline=baseline)
    found = transfer(
        runs,
        data=made.photos,
        options=options,
        runtime=Runtime(device="cpu", workers=workers),
        tolerance=Tolerance(max_bad=40),
    )
    kept = {file.name: file.read_bytes() for file in (made.place / cache / "features").iterdir()}
    return found, kept, len(made.decoded)


def bound_memory(made, memory):
    made.patch.setattr(compared_descriptors, "SharedImages", partial(rescaled.SharedImages, memory=memory))


@pytest.mark.parametrize(("scales", "sides"), [((256,), 1), ((256, 320), 2)])
def test_several_networks_decode_each_image_once_and_keep_the_bytes_that_each_keeps_alone(made, scales, sides):
    alone = {}
    for run in made.runs:
        _, kept, decodings = compared(made, run, scales=scales, baseline=False, cache=f"alone {run.name}")
        alone |= kept
        assert decodings == IMAGES * sides
    found, together, decodings = compared(made, made.runs, scales=scales)
    assert list(found.unusable) == ["bee/7.bmp"]
    assert len(together) == 2 * 4
    assert {name: together[name] for name in alone} == alone
    assert decodings == sides * (IMAGES + 3), "the refused one is tried again"
    if len(scales) == 1:
        assert compared(made, made.runs, scales=scales, workers=2, cache="by workers")[1] == together


def test_files_left_out_are_told_once_for_all_networks(made, capsys):
    (made.photos / "notes.txt").write_text("mine")
    compared(made, made.runs)
    assert capsys.readouterr().err.count("left out 1 file of other kinds: 1 .txt") == 1


def test_what_does_not_fit_is_decoded_again(made):
    _, kept, _ = compared(made, made.runs, cache="all fit")
    bound_memory(made, 6.5 * BYTES / 2**30)
    _, found, decodings = compared(made, made.runs)
    assert (found, decodings) == (kept, 4 * IMAGES - 3 * 6)


def test_only_networks_that_are_computed_count(made):
    """A network alone keeps nothing; neither does one beside others whose features are kept already."""
    later, real = [], rescaled.SharedImages.decoder

    def noted(images, **asked):
        later.append(set(asked["later"]))
        return real(images, **asked)

    made.patch.setattr(rescaled.SharedImages, "decoder", noted)
    compared(made, made.runs[1], baseline=False)
    assert later == [set()]
    compared(made, made.runs, baseline=False)
    assert later[1:] == [set(), set()]
    write_exported(load_model(made.runs[0]), made.place / "a.onnx", to="onnx")
    compared(made, [made.runs[0], made.place / "a.onnx"])  # without training they are one network
    assert later[3:] == [{37}, {37}, set(), set()]


def test_networks_of_other_crops_share_the_sides_that_they_have_in_common(made):
    """Q = 256 at a crop of 64 is Q = 512 at 32."""
    other = save_network(made.place / "64", crop=64)
    _, _, decodings = compared(made, [made.runs[0], other], scales=(256, 512), baseline=False)
    assert decodings == 3 * IMAGES + 1


def test_stopped_and_continued_it_keeps_the_same_bytes(made):
    _, whole, _ = compared(made, made.runs, cache="whole")
    extract, left = files.extract, [5]

    def stopped(*given):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return extract(*given)

    with made.patch.context() as patch:
        patch.setattr(files, "extract", stopped)
        with pytest.raises(KeyboardInterrupt):
            compared(made, made.runs)
    _, found, decodings = compared(made, made.runs)
    assert found == whole
    assert decodings == IMAGES + 2, "of B, whose first chunk is kept, all but 4, and those 4 for the next network"


@pytest.mark.parametrize(("memory", "unusable"), [(1.0, ["bee/7.bmp"]), (0.0, ["bee/7.bmp", "ant/1.bmp"])])
def test_an_image_that_changes_between_two_networks_is_never_another(made, memory, unusable):
    bound_memory(made, memory)
    _, before, _ = compared(made, made.runs, baseline=False, cache="before")
    write, changing = transfer_features.write_features, made.photos / "ant" / "1.bmp"

    def changed(*given, **more):
        write(*given, **more)
        Image.new("RGB", (44, 40), "blue").save(changing)

    made.patch.setattr(transfer_features, "write_features", changed)
    found, after, _ = compared(made, made.runs, baseline=False)
    assert list(found.unusable) == unusable
    assert (after == before) == (len(unusable) == 1)
