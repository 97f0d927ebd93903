"""The list of images that cannot be used: each once, exactly as many as are tolerated, and whole after a crash."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from several_commands import status_of

from verydeep import Recipe, Tolerance, load, train
from verydeep.images.decode import UnusableImageError
from verydeep.images.quarantine import Quarantine, TooManyBadImagesError, read_quarantine
from verydeep.images.tolerance import LARGEST_MAX_PIXELS, MAX_PIXELS

QUICKEST = ["--network", "A", "--crop", "32", "--width", "0.05", "--epochs", "1", "--batch", "8"]


def refusal(name="cats/1.jpg", kind="truncated", detail="the file ends"):
    return UnusableImageError(name, kind, detail)


def lines(file):
    return [json.loads(line) for line in file.read_bytes().removesuffix(b"\n").split(b"\n")]


@pytest.mark.parametrize(
    ("images", "max_bad", "allowed"),
    [
        (100, 1, 1),
        (199, 1, 1),
        (200, 1, 2),
        (99, 1, 0),
        (1000, 0.1, 1),
        (1000, 5, 50),
        (3, 100, 3),
        (1_281_167, 1, 12_811),
        (7, 0, 0),
        (1000, 0.7, 7),
        (1000, 2.3, 23),
    ],
)
def test_as_many_as_are_tolerated_are_and_one_more_is_not(images, max_bad, allowed):
    quarantine = Quarantine(images, Tolerance(max_bad=max_bad))
    for number in range(allowed):
        quarantine.add(refusal(f"{number}"))
    if allowed < images:
        with pytest.raises(TooManyBadImagesError, match=f"^{allowed + 1:,} of {images:,} given images cannot be used"):
            quarantine.add(refusal("one more"))


def test_the_same_image_counts_once():
    told = []
    quarantine = Quarantine(100, Tolerance(max_bad=1), split="val", say=told.append)
    for _ in range(5):
        quarantine.add(refusal())
    assert quarantine.reasons == {"cats/1.jpg": "truncated (the file ends)"}
    assert told == ["left out val image cats/1.jpg: truncated (the file ends)"]
    with pytest.raises(TooManyBadImagesError):
        quarantine.add(refusal("cats/2.jpg"))


def test_without_being_told_no_image_may_be_bad():
    with pytest.raises(TooManyBadImagesError, match=r"cats/1\.jpg: truncated"):
        Quarantine(1_000_000).add(refusal())


def test_what_is_too_much_is_told_with_everything_needed_to_go_on(tmp_path):
    quarantine = Quarantine(10, Tolerance(max_bad=2.5), split="train", file=tmp_path / "list.jsonl")
    with pytest.raises(TooManyBadImagesError) as error:
        quarantine.add(refusal())
    message = str(error.value)
    for part in ("1 of 10 train images", "2.5%", str(tmp_path / "list.jsonl"), "cats/1.jpg: truncated", "--max-bad"):
        assert part in message
    assert "\n" not in message
    assert read_quarantine(tmp_path / "list.jsonl")[0]["image"] == "cats/1.jpg"  # that one is listed too


def test_an_image_that_is_already_listed_still_is_too_much(tmp_path):
    """As when a run is resumed with the limit that it was stopped by."""
    file = tmp_path / "list.jsonl"
    for _ in range(2):
        with pytest.raises(TooManyBadImagesError):
            Quarantine(10, split="train", file=file).add(refusal())
    assert len(lines(file)) == 1


def test_the_file_is_a_json_object_a_line(tmp_path):
    file = tmp_path / "list.jsonl"
    assert not file.exists()
    quarantine = Quarantine(10, Tolerance(max_bad=50), split="train", file=file)
    assert not file.exists()  # there only if there are some
    quarantine.add(refusal("Füchse/[1].jpg"))
    quarantine.add(refusal("two\nlines.jpg", "undecodable", 'a "quoted" word'))
    assert file.read_bytes().endswith(b"\n")
    assert lines(file) == [
        {"split": "train", "image": "Füchse/[1].jpg", "reason": "truncated (the file ends)"},
        {"split": "train", "image": "two\nlines.jpg", "reason": 'undecodable (a "quoted" word)'},
    ]


def test_splits_are_kept_apart_in_one_file(tmp_path):
    file = tmp_path / "list.jsonl"
    options = {"tolerance": Tolerance(max_bad=10), "file": file}
    train_images, val_images = (Quarantine(10, split=split, **options) for split in ("train", "val"))
    train_images.add(refusal("1.jpg"))
    val_images.add(refusal("1.jpg"))
    assert [(entry["split"], entry["image"]) for entry in lines(file)] == [("train", "1.jpg"), ("val", "1.jpg")]
    assert list(train_images.reasons) == list(val_images.reasons) == ["1.jpg"]
    with pytest.raises(TooManyBadImagesError):
        val_images.add(refusal("2.jpg"))
    assert list(Quarantine(10, split="train", **options).reasons) == ["1.jpg"]
    assert list(Quarantine(10, split="val", **options).reasons) == ["1.jpg", "2.jpg"]
    assert list(Quarantine(10, split="test", **options).reasons) == []


def test_a_list_goes_on_where_it_was(tmp_path):
    file, told = tmp_path / "list.jsonl", []
    Quarantine(100, Tolerance(max_bad=2), split="train", file=file).add(refusal("1.jpg"))
    again = Quarantine(100, Tolerance(max_bad=2), split="train", file=file, say=told.append)
    assert again.reasons == {"1.jpg": "truncated (the file ends)"}
    again.add(refusal("1.jpg"))
    assert told == []
    again.add(refusal("2.jpg"))
    assert [entry["image"] for entry in lines(file)] == ["1.jpg", "2.jpg"]
    with pytest.raises(TooManyBadImagesError, match="3 of 100"):
        again.add(refusal("3.jpg"))


@pytest.mark.parametrize(
    "mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\udcff", "\x7f", "\U0001f98a"]
)
def test_names_of_any_characters_come_back_as_they_were(tmp_path, mark):
    """A Linux file name has any bytes but / and 0; some programs take characters for line ends that JSON does not."""
    file, name = tmp_path / "list.jsonl", f"cats/a{mark}b.jpg"
    Quarantine(10, Tolerance(max_bad=50), split="train", file=file).add(refusal(name))
    again = Quarantine(10, Tolerance(max_bad=50), split="train", file=file)
    assert list(again.reasons) == [name]
    again.add(refusal(name))
    assert len(lines(file)) == 1


TORN = [
    '{"split": "train", "image": "2.jp',
    '{"split": "train"',
    "{",
    '{"split": "train", "image": "2.jpg", "reason": "truncated (the file ends)"',
    '{"split": "train", "image": "Fü'.encode()[:-1],
]


def write_torn(file, torn):
    Quarantine(100, Tolerance(max_bad=5), split="train", file=file).add(refusal("1.jpg"))
    with file.open("ab") as stream:
        stream.write(torn if isinstance(torn, bytes) else torn.encode())


@pytest.mark.parametrize("torn", TORN)
def test_a_line_torn_by_a_crash_is_ignored(tmp_path, torn):
    file = tmp_path / "list.jsonl"
    write_torn(file, torn)
    assert [entry["image"] for entry in read_quarantine(file)] == ["1.jpg"]
    assert list(Quarantine(100, split="train", file=file).reasons) == ["1.jpg"]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_line_does_not_tear_the_next(tmp_path, torn):
    file = tmp_path / "list.jsonl"
    write_torn(file, torn)
    again = Quarantine(100, Tolerance(max_bad=5), split="train", file=file)
    for name in ("2.jpg", "3.jpg"):
        again.add(refusal(name))
    assert [entry["image"] for entry in read_quarantine(file)] == ["1.jpg", "2.jpg", "3.jpg"]


@pytest.mark.parametrize("line", ["", "[]", "7", "null", '"train"', '{"split": "train", "image": "2.jpg"}'])
def test_lines_that_are_no_entries_are_ignored(tmp_path, line):
    file = tmp_path / "list.jsonl"
    file.write_text(f'{line}\n{{"split": "val", "image": "1.jpg", "reason": "too large"}}\n')
    assert read_quarantine(file) == [{"split": "val", "image": "1.jpg", "reason": "too large"}]


def test_no_list_is_an_empty_one(tmp_path):
    assert read_quarantine(None) == []
    assert read_quarantine(tmp_path / "none.jsonl") == []


def test_a_tolerance_that_cannot_be_is_refused():
    assert Tolerance() == Tolerance(max_bad=1, max_pixels=MAX_PIXELS)
    for max_bad in (0, 0.001, 100):
        assert Tolerance(max_bad=max_bad).max_bad == max_bad
    for max_bad in (-0.001, 100.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="max_bad must be from 0 to 100 percent"):
            Tolerance(max_bad=max_bad)
    for max_pixels in (1, LARGEST_MAX_PIXELS):
        assert Tolerance(max_pixels=max_pixels).max_pixels == max_pixels
    for max_pixels in (0, -5, LARGEST_MAX_PIXELS + 1):
        with pytest.raises(ValueError, match=r"max_pixels must be from 1 to 178,956,970"):
            Tolerance(max_pixels=max_pixels)


def test_the_largest_limit_is_pillows():
    """Beyond twice its own limit Pillow refuses by itself, whatever is asked for."""
    assert LARGEST_MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS


# the command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """In train ten images of 20 x 30, in val five; one in each split is of 40 x 50."""
    root = tmp_path_factory.mktemp("folder")
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("val", 5)):
        for number in range(count):
            size = (40, 50, 3) if number == 3 else (20, 30, 3)
            name = ("a", "b")[number % 2]
            (root / split / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    recipe = Recipe(crop=32, width=0.05, batch=8, epochs=1)
    return train(str(folder), network="A", out=tmp_path_factory.mktemp("runs") / "run", recipe=recipe)


TOO_LARGE = "too large (50 x 40 pixels, more than the 600 allowed)"


def one_line(capsys):
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert error.count("verydeep: ") == 1
    return error.splitlines()[-1]


def test_train_takes_both_limits(folder, run, tmp_path, capsys):
    command = ["train", folder, *QUICKEST, "--out", tmp_path / "run", "--max-pixels", 600]
    assert status_of(*command) == 1
    assert f"b/3.png: {TOO_LARGE}" in one_line(capsys)
    assert status_of(*command, "--max-bad", 9.9) == 1
    capsys.readouterr()
    assert status_of(*command, "--max-bad", 20) == 0
    entries = read_quarantine(tmp_path / "run" / "quarantine.jsonl")
    assert entries == [{"split": split, "image": "b/3.png", "reason": TOO_LARGE} for split in ("train", "val")]
    again = [*command[:-3], tmp_path / "again", *command[-2:], "--max-bad", 20]  # now its colours are known
    assert status_of(*again) == 0
    assert read_quarantine(tmp_path / "again" / "quarantine.jsonl") == entries
    other, same = load(tmp_path / "run").mean_rgb, load(run).mean_rgb
    assert not other.equal(same)  # without the larger image


def test_evaluate_takes_both_limits(folder, run, capsys):
    command = ["evaluate", run, "--data", folder, "--max-pixels", 600, "--json", "-"]
    assert status_of(*command) == 1
    assert f"b/3.png: {TOO_LARGE}" in one_line(capsys)
    assert status_of(*command, "--max-bad", 20) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["n"], found["unusable"]) == (4, {"b/3.png": TOO_LARGE})


def test_scan_takes_both_limits(folder, capsys):
    assert status_of("scan", folder, "--max-pixels", 600, "--max-bad", 15) == 0
    text = capsys.readouterr().out
    assert f"train/b/3.png: {TOO_LARGE}" in text
    assert "Over 15% of val cannot be used" in text
    assert status_of("scan", folder, "--max-bad", 0) == 0
    assert "cannot be used" not in capsys.readouterr().out


def test_predict_takes_the_limit_on_pixels_and_lets_the_others_go_on(folder, run, capsys):
    images = [folder / "val" / name for name in ("a/0.png", "b/3.png", "b/1.png")]
    assert status_of("predict", run, *images, "--max-pixels", 600, "--json", "-") == 1
    captured = capsys.readouterr()
    predictions = json.loads(captured.out)["predictions"]
    assert [prediction["error"] for prediction in predictions] == [None, TOO_LARGE, None]
    assert [len(prediction["classes"]) for prediction in predictions] == [2, 0, 2]
    assert captured.err == "verydeep: 1 of 3 images could not be used\n"
    assert status_of("predict", run, *images, "--max-pixels", 2000) == 0


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--max-bad", 101, "max_bad must be from 0 to 100 percent"),
        ("--max-bad", -1, "max_bad must be from 0 to 100 percent"),
        ("--max-bad", "nan", "max_bad must be from 0 to 100 percent"),
        ("--max-bad", "many", "many"),
        ("--max-pixels", 0, "max_pixels must be from 1 to"),
        ("--max-pixels", 10**9, "max_pixels must be from 1 to"),
    ],
)
@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "scan"])
def test_limits_that_cannot_be_are_wrong_use(folder, run, tmp_path, capsys, verb, option, value, problem):
    command = {
        "train": ["train", folder, *QUICKEST, "--out", tmp_path / "run"],
        "evaluate": ["evaluate", run, "--data", folder],
        "predict": ["predict", run, folder / "val"],
        "scan": ["scan", folder],
    }[verb]
    assert status_of(*command, option, value) == 2
    line = one_line(capsys)
    assert problem in line or (verb == "predict" and option == "--max-bad")  # it has no such option
    assert not (tmp_path / "run").exists()


def test_names_in_predictions_and_evaluations_are_printed_as_they_are(run, tmp_path, capsys, monkeypatch):
    """Brackets are not markup, colons not emoji."""
    monkeypatch.chdir(tmp_path)
    images = Path("x[bold]") / "a"
    images.mkdir(parents=True)
    Image.new("RGB", (20, 20), "red").save(images / "x[red]:100:.png")
    (images / "[b]:cat:.png").write_bytes(b"")
    assert status_of("predict", run, "x[bold]") == 1
    text = capsys.readouterr().out
    assert " x[bold]/a/x[red]:100:.png " in text
    assert " x[bold]/a/[b]:cat:.png " in text
    Path("x[b]run:100:").symlink_to(run)
    assert status_of("evaluate", "x[b]run:100:", "--data", "x[bold]", "--max-bad", 50) == 0
    assert " x[b]run:100: " in capsys.readouterr().out


def test_a_name_may_begin_with_a_bracket(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20), "red").save("[1].png")
    assert status_of("predict", run, "[1].png", "--json", "-") == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["predictions"][0]["image"] == "[1].png"
