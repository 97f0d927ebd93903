"""A classifier of features in `predict`: images and files as for a network; refused everywhere else."""

import csv
import io
import json
import multiprocessing
import os
import sys
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import several_commands as commands
from PIL import Image
from safetensors.numpy import load_file
from watched_images import watched

import verydeep
from verydeep.images.sources.given import given_images
from verydeep.prediction import pieces

status_of, refusal = commands.status_of, commands.refusal


@pytest.fixture
def bad(tmp_path):
    file = tmp_path / "bad.png"
    file.write_bytes(b"")
    return file


def test_every_kind_of_file_says_the_same(classifier, photos, bad, tmp_path, capsys, monkeypatch):
    on = ["predict", classifier, photos / "bee", bad, "--top", 3]
    files = {kind: tmp_path / f"p.{kind}" for kind in ("jsonl", "csv", "parquet", "json")}
    for kind in ("jsonl", "csv", "parquet"):
        assert status_of(*on, "--out", files[kind], "--json", files["json"]) == 1
        text = capsys.readouterr()
        assert text.out == ""
        assert "bad.png: undecodable (an empty file)\n" in text.err
        assert "verydeep: 1 of 6 images could not be used" in text.err
    assert status_of(*on, "--out", "-") == 1
    assert capsys.readouterr().out == files["jsonl"].read_text()
    lines = [json.loads(line) for line in files["jsonl"].read_text().splitlines()]
    expected = [one.to_dict() for one in verydeep.classify(classifier, [photos / "bee", bad])]
    assert [{**one, "classes": tuple(one["classes"]), "scores": tuple(one["scores"])} for one in lines] == expected
    assert json.loads(files["json"].read_text())["predictions"] == lines
    with files["csv"].open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    table = pyarrow.parquet.read_table(files["parquet"]).to_pylist()
    assert list(rows[0]) == list(table[0]) == ["id", "class_1", "score_1", "class_2", "score_2", "error"]
    for line, row, of_table in zip(lines, rows, table, strict=True):
        assert row["id"] == of_table["id"] == line["image"]
        for place in range(2):
            name, score = [*line["classes"], None, None][place], [*line["scores"], None, None][place]
            assert (of_table[f"class_{place + 1}"], of_table[f"score_{place + 1}"]) == (name, score)
            assert (row[f"class_{place + 1}"], row[f"score_{place + 1}"]) == (
                name or "",
                "" if name is None else repr(score),
            )
        assert (of_table["error"], row["error"]) == (line["error"], line["error"] or "")


def test_images_are_given_as_for_a_network(classifier, photos, capsys, monkeypatch):
    file = photos / "ant" / "0.png"
    (expected,) = verydeep.classify(classifier, file)
    given = [Image.open(file), np.asarray(Image.open(file)), file.read_bytes(), photos / "a*" / "0.*"]
    found = list(verydeep.classify(classifier, iter(given)))
    assert [one.image for one in found] == ["image 0", "image 1", "image 2", str(file)]
    assert {one.classes for one in found} == {expected.classes}
    np.testing.assert_allclose([one.scores for one in found], 4 * [expected.scores], atol=1e-5)
    for data in (file.read_bytes(), os.fsencode(file)):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        assert status_of("predict", classifier, "-", "--out", "-") == 0
        assert json.loads(capsys.readouterr().out)["scores"] == list(expected.scores)
    assert status_of("predict", classifier, photos / "a*" / "0.*", "--top", 1) == 0
    told = " ".join(capsys.readouterr().out.split())  # however the table breaks its lines
    assert f"{expected.classes[0]} {expected.scores[0]:+.2f}" in told
    assert "Score: distance from" in told


def test_scores_come_while_other_images_wait(classifier, photos, monkeypatch):
    monkeypatch.setattr(pieces, "FIRST_IMAGES", 2)
    source = watched(given_images(photos))
    found = verydeep.classify(classifier, source)
    assert source.reads == []
    assert next(found).image == source.ids[0]
    assert source.reads == [0, 1, 0, 1]  # at each scale
    assert [one.image for one in found] == list(source.ids[1:])


def test_processes_that_decode_start_once_and_refused_images_shift_no_other(classifier, photos, bad, monkeypatch):
    monkeypatch.setattr(pieces, "FIRST_IMAGES", 2)
    started, real = [], pieces.rescaled_images
    monkeypatch.setattr(
        pieces, "rescaled_images", lambda *given, **options: started.append(1) or real(*given, **options)
    )
    images = sorted(photos.rglob("*.png"))
    expected = list(verydeep.classify(classifier, images))
    started.clear()
    mixed = list(verydeep.classify(classifier, [images[0], bad, *images[1:]], runtime=verydeep.Runtime(workers=1)))
    assert len(started) == 2  # scales
    assert mixed.pop(1).error == "undecodable (an empty file)"
    assert [(one.image, one.classes) for one in mixed] == [(one.image, one.classes) for one in expected]
    np.testing.assert_allclose([one.scores for one in mixed], [one.scores for one in expected], atol=1e-5)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("pool", ["avg", "stack"])
def test_scales_that_are_one_side_in_pixels_change_no_score(run, photos, tmp_path, monkeypatch, pool):
    """At a crop of 32 the Q 256 and 257 are both 37 pixels; a network that was trained at 256:258 has three such."""
    monkeypatch.setattr(pieces, "FIRST_IMAGES", 2)
    few = verydeep.TransferOptions(train=3, test=2, splits=1, scales=(256, 257, 300), pool=pool)
    verydeep.transfer([run], data=str(photos), options=few, out=tmp_path / "classifier")
    svm = load_file(tmp_path / "classifier" / "classifier.safetensors")
    images = sorted(photos.rglob("*.png"))
    together = list(verydeep.classify(tmp_path / "classifier", images))
    for image, found in zip(images, together, strict=True):
        (alone,) = verydeep.classify(tmp_path / "classifier", image)
        (described,) = verydeep.features(run, image, descriptor=few.descriptor)
        expected = np.sort(svm["weights"] @ described.values["relu7"] + svm["biases"])[::-1]
        np.testing.assert_allclose([found.scores, alone.scores], 2 * [expected], atol=1e-5)


def test_a_decoder_that_is_asked_twice_for_the_same_images_says_so(photos):
    source = given_images(photos)
    with pieces.decoding(source, share=range(len(source)), workers=0, max_pixels=10**6) as decoder:
        assert [index for index, _ in decoder(37, range(len(source)))] == list(range(len(source)))
        with pytest.raises(ValueError, match="shorter"):
            list(decoder(37, range(len(source))))


def test_options_without_a_meaning_are_refused(classifier, photos, tmp_path, capsys, monkeypatch):
    for option in (["--protocol", "dense"], ["--scales", "single"], ["--map", tmp_path / "maps"]):
        assert "leave out --protocol, --scales, --grid, --map and --method" in refusal(
            capsys, "predict", classifier, photos, *option
        )
    for scales, why in (("", "--scales is empty"), (",", "--scales takes whole numbers")):
        assert why in refusal(capsys, "predict", classifier, photos, "--scales", scales)
    assert "top must be 1 or more" in refusal(capsys, "predict", classifier, photos, "--top", 0)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert "start this without torchrun" in refusal(capsys, "predict", classifier, photos)


def test_verbs_that_take_runs_say_that_it_is_a_classifier(classifier, run, photos, tmp_path, capsys):
    out, boxes = ["--out", tmp_path / "out"], tmp_path / "boxes.csv"
    lines = [f"{file.relative_to(photos)},1,1,9,9,{file.parent.name}" for file in photos.rglob("*.png")]
    boxes.write_text("\n".join(["file,x0,y0,x1,y1,class", *lines]))
    crop = ["--crop", 32, "--width", 0.1]
    for arguments in (
        ["evaluate", classifier, "--data", photos],
        ["features", classifier, photos, "--out", tmp_path / "f.safetensors"],
        ["export", classifier, "--to", "onnx", "--out", tmp_path / "a.onnx"],
        ["export", classifier, "--to", "timm", "--out", tmp_path / "a.pth"],
        ["push", classifier, "hub:owner/net"],
        ["import", classifier, *out],
        ["train", photos, "--network", "B", "--init", classifier, *crop, *out],
        ["train", photos, "--finetune", classifier, *crop, *out],
        ["transfer", classifier, "--data", photos],
        ["localise", "train", photos, "--boxes", boxes, "--finetune", classifier, *crop, *out],
        ["localise", "evaluate", classifier, "--data", photos, "--boxes", boxes],
        ["localise", "predict", classifier, photos, "--classifier", run],
    ):
        text = refusal(capsys, *arguments)
        assert f"{classifier} is a classifier of features, not a run: verydeep predict takes it" in text, arguments
        assert "verydeep.classify" in text
    for call in (
        verydeep.load,
        verydeep.load_model,
        lambda folder: verydeep.predict(folder, photos),
        lambda folder: verydeep.evaluate(folder, data=str(photos)),
        lambda folder: next(verydeep.features(folder, str(photos))),
    ):
        with pytest.raises(ValueError, match=r"is a classifier of features, .* verydeep\.classify"):
            call(classifier)
    with pytest.raises(ValueError, match="holds no classifier"):
        verydeep.classify(run, photos)


def test_images_that_are_too_large_cannot_be_used(classifier, photos):
    file = photos / "ant" / "0.png"
    (found,) = verydeep.classify(classifier, file, max_pixels=40 * 50 - 1)
    assert "50 x 40 pixels, more than the 1,999 allowed" in found.error
    (found,) = verydeep.classify(classifier, file, max_pixels=40 * 50)
    assert found.error is None
