"""Predictions against the network applied by hand and against evaluation, however images are given."""

import csv
import io
import json
import multiprocessing
import os
import select
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import ExifTags, Image
from several_commands import status_of
from watched_images import watched

import verydeep.images.workers
import verydeep.prediction.predict
from verydeep import Prediction, evaluate, predict, vgg
from verydeep.exported_networks.exported import ExportedNet
from verydeep.exported_networks.metadata import metadata_of
from verydeep.images.sources.given import given_images
from verydeep.machine.runtime import Runtime, leave_signals_to_the_main_process
from verydeep.prediction import pieces
from verydeep.prediction.files import prediction_file
from verydeep.runs.model import Model, save_model

CLASSES = ("ant", "bee", "cow", "dog", "elk", "fox", "gnu")


def tiny_run(folder, flip=True):
    torch.manual_seed(3)
    net = vgg("A", classes=7, crop=32, width=0.1).eval()
    save_model(Model(net=net, classes=CLASSES, scale="256", flip=flip), folder / "model")
    return net


def picture(path, seed, size=(37, 37)):
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float()


def table_of(predictions):
    """Return probabilities [N, classes] in the order of the classes."""
    return np.array([[dict(zip(p.classes, p.probabilities, strict=True))[c] for c in CLASSES] for p in predictions])


@pytest.mark.parametrize("flip", [True, False])
def test_probabilities_are_the_networks(tmp_path, flip):
    net = tiny_run(tmp_path / "run", flip=flip)
    image = picture(tmp_path / "one.png", 0)  # already at Q = 256, which is 37 pixels at crop 32
    views = [image, image.flip(3)] if flip else [image]
    expected = sum(net.score_map(view)[0, :, 0, 0].softmax(0) for view in views) / len(views)
    (found,) = predict(tmp_path / "run", [tmp_path / "one.png"], top=3)
    assert found.classes == tuple(CLASSES[i] for i in expected.argsort(descending=True)[:3])
    assert found.probabilities == pytest.approx(expected.sort(descending=True).values[:3].tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("protocol", "scales"),
    [("dense", "single"), ("dense", [256, 300]), ("crops", "single"), ("both", "paper"), ("centre", [256, 300])],
)
def test_probabilities_are_the_posteriors_of_an_evaluation(model, run, photos, monkeypatch, protocol, scales):
    monkeypatch.setattr(pieces, "FIRST_IMAGES", 3)  # several pieces
    found = list(predict(model, photos, top=7, protocol=protocol, scales=scales))
    options = {"split": "all", "protocol": protocol, "scales": scales, "cache": False}
    expected = evaluate(run, data=str(photos), **options).images
    assert [p.image for p in found] == [str(photos / name) for name in expected.ids]
    assert np.abs(table_of(found) - expected.posteriors).max() < 1e-6
    assert len({p.classes[0] for p in found}) > 1


def test_one_bad_image_in_eight_changes_no_other(model, photos, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos / "ant", folder / "a")
    shutil.copy(photos / "bee" / "1.png", folder / "z.png")
    whole = list(predict(model, folder))
    assert len(whole) == 7
    (folder / "b.png").write_bytes(b"broken")
    found = list(predict(model, folder))
    assert [(p.image[-5:], p.error) for p in found if p.error] == [
        ("b.png", "undecodable (not an image of a known format)")
    ]
    assert found[6].classes == found[6].probabilities == ()
    others = [p for p in found if not p.error]
    assert [p.image for p in others] == [p.image for p in whole]
    assert [p.classes for p in others] == [p.classes for p in whole]
    np.testing.assert_allclose([p.probabilities for p in others], [p.probabilities for p in whole], atol=1e-6)


# how images are given


def test_pixels_pillow_and_bytes_are_the_file(model, photos):
    file = photos / "ant" / "0.png"
    array = np.asarray(Image.open(file))
    (expected,) = predict(model, file)
    one = [list(predict(model, image)) for image in (str(file), array, Image.open(file), file.read_bytes())]
    together_ = list(predict(model, [array, Image.open(file), file, array.transpose(1, 0, 2)[:, ::-1]]))
    assert [p.image for p in together_] == ["image 0", "image 1", str(file), "image 3"]
    for found in [*(p for (p,) in one), *together_[:3]]:
        assert found.classes == expected.classes
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-6)
    assert not np.allclose(together_[3].probabilities, expected.probabilities, atol=1e-4)
    assert len(list(predict(model, np.stack([array, array])))) == 2


def test_pillow_images_are_turned_upright_and_laid_over_white(model):
    rng = np.random.default_rng(0)
    upright = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise
    Image.fromarray(np.rot90(upright)).save(file, "PNG", exif=exif)
    clear = Image.fromarray(np.dstack([upright, np.full((40, 50), 0, np.uint8)]))
    white = np.full((40, 50, 3), 255, np.uint8)
    found = list(predict(model, [upright, Image.open(file), white, clear]))
    assert found[0].probabilities == pytest.approx(found[1].probabilities, abs=1e-6)
    assert found[2].probabilities == pytest.approx(found[3].probabilities, abs=1e-6)
    assert found[0].probabilities != pytest.approx(found[2].probabilities, abs=1e-3)


def test_folders_and_patterns_stand_for_the_images_that_they_hold(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    (photos / "bee" / "notes.txt").write_text("no image")
    ant, bee = (
        [f"{name}/{n}.png" for n in sorted(map(str, numbers))]
        for name, numbers in (("ant", range(0, 11, 2)), ("bee", range(1, 10, 2)))
    )
    assert given_images(["bee", "ant/2.png"]).ids == (*bee, "ant/2.png")
    assert given_images("**/*").ids == (*ant, *bee)
    assert given_images("*/1*.png").ids == ("ant/10.png", "bee/1.png")
    (photos / "[1].png").write_bytes(b"")
    assert given_images("[1].png").ids == ("[1].png",)
    (photos / "[1].png").unlink()
    with pytest.raises(ValueError, match="no image files fit"):
        given_images("*/*.txt")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_standard_input_is_an_image_if_it_begins_as_one(kind):
    file = io.BytesIO()
    Image.new("RGB", (300, 300), "white").save(file, kind)
    found = given_images("-", standard_input=file.getvalue)
    assert (found.ids, found[0].data) == (("-",), file.getvalue())
    assert given_images("-", standard_input=lambda: b"\xff\xd8 broken \0").ids == ("-",)


def test_standard_input_is_otherwise_a_list_of_paths(photos):
    lines = f"{photos}/bee\r\n\n{photos}/nothing here.png\n{photos}/ant/0.png"
    found = given_images([photos / "ant" / "2.png", "-"], standard_input=lines.encode)
    assert [Path(name).name for name in found.ids] == [
        "2.png",
        "1.png",
        "3.png",
        "5.png",
        "7.png",
        "9.png",
        "nothing here.png",
        "0.png",
    ]
    with pytest.raises(ValueError, match="standard input is empty"):
        given_images("-", standard_input=lambda: b" \n")


def test_an_impossible_path_is_an_unreadable_image(model, photos):
    line = 300 * "x"
    source = given_images("-", standard_input=f"{line}\n{photos}/ant/0.png\n".encode)
    assert source.fingerprint
    bad, good = predict(model, source)
    assert (bad.image, bad.classes) == (line, ())
    assert bad.error == "unreadable (File name too long)"
    assert good.classes
    with pytest.raises(ValueError, match="no file"):
        given_images(line)


def test_addresses_are_named_as_they_are_given(model, photos):
    address = "https://example.org//a//b.jpg"
    bad, good = predict(model, given_images("-", standard_input=f"{address}\n{photos}/ant/0.png\n".encode))
    assert bad.to_dict()["image"] == address
    assert bad.error == "unreadable (it is an address: download the image, and name its file)"
    assert good.classes
    with pytest.raises(ValueError, match=f"^{address} is an address: download the image"):
        predict(model, [address])


def test_a_fingerprint_depends_on_the_upright_pixels(model, photos):
    flat = np.arange(2400, dtype=np.uint8)
    grey = Image.fromarray(flat[:600].reshape(20, 30))
    paletted = [grey.convert("P"), grey.convert("P")]
    paletted[1].putpalette(list(range(255, -1, -1)) * 3)
    broken = Image.open(io.BytesIO((photos / "ant" / "0.png").read_bytes()[:200]))
    images = [flat.reshape(20, 40, 3), flat.reshape(40, 20, 3), *paletted, broken, flat.tobytes()]
    assert len({given_images([image]).fingerprint for image in images}) == len(images)
    assert given_images(flat.reshape(20, 40, 3)).fingerprint == given_images([flat.reshape(20, 40, 3)]).fingerprint
    (found,) = predict(model, broken)
    assert found.error.startswith("undecodable (")


def test_impossible_choices_are_refused_before_any_work(tmp_path, model, photos):
    tiny_run(tmp_path / "run")
    with pytest.raises(ValueError, match="no file"):
        predict(tmp_path / "run", [tmp_path / "nothing.png"])
    with pytest.raises(ValueError, match="top must be 1 or more"):
        predict(tmp_path / "run", [tmp_path], top=0)
    with pytest.raises(ValueError, match="are distinct whole numbers from there up"):
        predict(tmp_path / "run", [photos], scales=[100])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        predict(tmp_path / "run", [tmp_path / "empty"])
    for pixels, problem in (
        (np.zeros((40, 40, 3)), r"image 0 must be uint8 \[H, W, 3\], RGB, not float64 \[40, 40, 3\]"),
        (np.zeros((3, 40, 40), np.uint8), "image 0 must be"),
    ):
        with pytest.raises(ValueError, match=problem):
            predict(model, pixels)
    with pytest.raises(ValueError, match="image 1 is a Tensor"):
        predict(model, [np.zeros((40, 40, 3), np.uint8), torch.zeros(3, 40, 40)])


# how predictions are presented


def test_predictions_come_while_other_images_wait(model, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "FIRST_IMAGES", 2)
    source = watched(given_images(photos))
    file = tmp_path / "p.jsonl"
    found = predict(model, source)
    assert source.reads == []
    with prediction_file(file, Prediction, most_classes=5) as write:
        write(next(found))
        assert source.reads == [0, 1]
        assert len(file.read_text().splitlines()) == 1
        for prediction in found:
            write(prediction)
    assert source.reads == list(range(11))
    assert [json.loads(line)["image"] for line in file.read_text().splitlines()] == list(source.ids)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_file_of_lines_that_cannot_grow_is_named(tmp_path):
    file = tmp_path / "p.jsonl"
    file.symlink_to("/dev/full")
    no_room = pytest.raises(OSError, match=f"^cannot write {file}: No space left on device$")
    with no_room, prediction_file(file, Prediction, most_classes=1) as write:
        write(Prediction(image="one.png", classes=(), probabilities=()))


def slow_start(folder, worker):
    time.sleep(0.6)
    (folder / str(os.getpid())).touch()
    leave_signals_to_the_main_process(worker)


def test_processes_that_start_slowly_are_started_once(model, photos, tmp_path, monkeypatch):
    """Otherwise every piece would take 1.2 seconds or more, and none would be followed by a larger one."""
    sizes, of_piece = [], verydeep.prediction.predict._of_piece
    monkeypatch.setattr(verydeep.images.workers, "leave_signals_to_the_main_process", partial(slow_start, tmp_path))
    monkeypatch.setattr(pieces, "FIRST_IMAGES", 1)
    monkeypatch.setattr(pieces, "SECONDS_BETWEEN_RESULTS", 2.0)
    noting = lambda order, indices, *others: sizes.append(len(indices)) or of_piece(order, indices, *others)  # noqa: E731
    monkeypatch.setattr(verydeep.prediction.predict, "_of_piece", noting)
    expected = list(predict(model, photos, scales=[256, 300]))
    sizes.clear()
    found = list(predict(model, photos, scales=[256, 300], runtime=Runtime(workers=1)))
    assert max(sizes) > sizes[0] == 1
    assert len(list(tmp_path.iterdir())) == 2  # one for each scale
    assert [p.image for p in found] == [p.image for p in expected]
    np.testing.assert_allclose([p.probabilities for p in found], [p.probabilities for p in expected], atol=1e-6)
    assert not multiprocessing.active_children()


def test_predictions_that_are_never_read_leave_nothing_behind(python, run, photos):
    script = """if True:
        import sys, verydeep
        left = verydeep.predict(sys.argv[1], sys.argv[2], runtime=verydeep.Runtime(workers=1))
        print(next(left).image)
    """
    done = python(script, run, photos).ended()
    assert (done.returncode, done.stderr, done.stdout) == (0, "", f"{photos}/ant/0.png\n")


def test_every_kind_of_file_says_the_same(run, photos, tmp_path, capsys):
    bad = photos.parent / "bad\udce9.png"
    bad.write_bytes(b"")
    images = [photos / "bee", bad]
    files = {kind: tmp_path / f"p.{kind}" for kind in ("jsonl", "csv", "parquet", "json")}
    for kind in ("jsonl", "csv", "parquet"):
        assert status_of("predict", run, *images, "--top", 2, "--out", files[kind], "--json", files["json"]) == 1
        assert r"bad\udce9.png: undecodable (an empty file)" in capsys.readouterr().err
    assert status_of("predict", run, *images, "--top", 2, "--out", "-") == 1
    printed = capsys.readouterr().out
    assert printed == files["jsonl"].read_text()
    lines = [json.loads(line) for line in printed.splitlines()]
    assert json.loads(files["json"].read_text())["predictions"] == lines
    with files["csv"].open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    table = pyarrow.parquet.read_table(files["parquet"]).to_pylist()
    assert len(rows) == len(table) == 6
    for line, row, of_table in zip(lines, rows, table, strict=True):
        name = line["image"].encode(errors="backslashreplace").decode()
        assert row["id"] == of_table["id"] == name
        for place in range(2):
            expected = [*line["classes"], None, None][place], [*line["probabilities"], None, None][place]
            assert (of_table[f"class_{place + 1}"], of_table[f"probability_{place + 1}"]) == expected
            assert row[f"class_{place + 1}"] == (expected[0] or "")
            assert row[f"probability_{place + 1}"] == ("" if expected[1] is None else repr(expected[1]))
        assert (of_table["error"], row["error"]) == (line["error"], line["error"] or "")


def test_a_wrong_command_line_is_refused_in_a_line(run, photos, tmp_path, capsys):
    for arguments, problem in (
        ([photos, "--out", tmp_path / "p.txt"], "are written to .jsonl, .parquet, .csv files"),
        ([photos, "--out", "-", "--json", "-"], "cannot hold the predictions twice"),
        ([photos, "--method", "grad-cam"], "--method goes with --map"),
        ([photos, "--map", tmp_path / "maps", "--method", "cam"], "write --method score-map, which takes the place"),
        ([photos, "--scales", "all"], "--scales takes whole numbers"),
        ([photos, "--topp", "3"], "unknown option --topp"),
        ([photos, "--map", photos / "ant" / "0.png"], "is a file: name a folder"),
        ([], "name one or more images"),
    ):
        assert status_of("predict", run, *arguments) == 2
        assert problem in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_standard_input_of_a_command(run, photos, capsys, monkeypatch):
    file = photos / "ant" / "0.png"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(file.read_bytes())))
    assert status_of("predict", run, "-", "--out", "-") == 0
    assert json.loads(capsys.readouterr().out)["image"] == "-"


def seen_on(terminal):
    """Return what was written to a terminal, by its end that people look at; 0.2 s without anything more is the end."""
    shown = b""
    while select.select([terminal], [], [], 0.2)[0]:
        shown += os.read(terminal, 4096)
    return shown.decode()


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_bar_on_standard_error_takes_nothing_from_standard_output(run, photos, tmp_path, monkeypatch, is_terminal):
    monkeypatch.setenv("TERM", "xterm")
    controlling, terminal = os.openpty()
    with open(terminal, "w") as bar, open(os.dup(terminal) if is_terminal else tmp_path / "out", "w") as out:
        monkeypatch.setattr(sys, "stderr", bar)
        monkeypatch.setattr(sys, "stdout", out)
        images = [*(photos / "bee").glob("*.png")]
        assert status_of("predict", run, *images, "--out", "-") == 0
        shown = seen_on(controlling)
    os.close(controlling)
    printed = shown if is_terminal else (tmp_path / "out").read_text()
    assert [json.loads(line)["image"] for line in printed.splitlines()] == [*map(str, images)]
    assert ("predict" in shown) != is_terminal


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "RUN", "PHOTOS", "--out", "-"],
        ["describe", "--json", "-"],
        ["describe", "A"],
        ["describe", "--help"],
    ],
)
def test_a_reader_that_stops_ends_it_in_silence(run, photos, arguments):
    arguments = [{"RUN": run, "PHOTOS": photos}.get(each, each) for each in arguments]
    command = [sys.executable, "-m", "verydeep", *arguments]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    told = [line for line in done.stderr.splitlines() if line != "left out 1 file of other kinds: 1 .txt"]
    assert (done.returncode, told) == (141, [])


# an exported network


def exported(model):
    """Return a model as if read from an exported file, but computed by the network itself."""

    def compute(images):
        with torch.inference_mode():
            scores = model.net.score_map(torch.from_numpy(images))
        return scores.mean(dim=(2, 3)), scores

    return replace(model, net=ExportedNet(metadata_of(model, int8=False), compute))


@pytest.mark.parametrize("protocol", ["dense", "both", "centre"])
def test_an_exported_network_needs_no_layers(model, photos, tmp_path, protocol):
    options = {"top": 7, "protocol": protocol, "scales": "paper"}
    expected = list(predict(model, photos, **options))
    found = list(predict(exported(model), photos, **options, maps=tmp_path / "maps"))
    assert np.abs(table_of(found) - table_of(expected)).max() < 1e-6
    assert len(list((tmp_path / "maps").iterdir())) == 11


def test_an_exported_network_has_no_gradients(model, photos, tmp_path):
    with pytest.raises(
        ValueError, match=r"^an exported file has no gradients for grad-cam: use its run or a \.pt2, or"
    ):
        predict(exported(model), photos, maps=tmp_path / "maps", method="grad-cam")
    assert not (tmp_path / "maps").exists()


def test_an_exported_network_has_the_centred_grid_alone(model, photos):
    with pytest.raises(ValueError, match=r"^an exported file has the centred grid only: use the run for --grid ceil$"):
        predict(exported(model), photos, grid="ceil")
    floor, ceil = (list(predict(model, photos, top=7, grid=grid)) for grid in ("floor", "ceil"))
    assert np.abs(table_of(floor) - table_of(ceil)).max() > 1e-4


def test_an_exported_network_computes_on_the_cpu_alone(model, photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # what `auto` would take
    predict(exported(model), photos)
    with pytest.raises(ValueError, match="an exported network computes on the CPU, not on cuda"):
        predict(exported(model), photos, runtime=Runtime(device="cuda"))
