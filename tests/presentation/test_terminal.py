"""What people read of an evaluation: every figure is there, whatever things are called."""

import io
import json
import shlex
import sys
from pathlib import Path

import made_up_evaluations
import numpy as np
import pytest
from rich.console import Console

from verydeep.evaluation.results import NO_TOP5
from verydeep.evaluation.tables import comparison_table, evaluation_tables
from verydeep.prediction.files import prediction_file
from verydeep.prediction.predict import Prediction
from verydeep.presentation.terminal import say_next, show

LONG = "/data/" + "-".join(f"folder{number}" for number in range(30)) + "/run"


def evaluation(taken, runs=("run",), classes=tuple("abcdef"), each=10, source="photos", unusable=()):
    """An evaluation of `each` images per class; of each run, the class that every image is taken for.

    That class has a probability of 0.6 and the right one of 0.3, or one has both; 0.1 is shared by all.
    """
    labels, one = np.repeat(np.arange(len(classes)), each), np.eye(len(classes))
    posteriors = [0.6 * one[places] + 0.3 * one[labels] + 0.1 / len(classes) for places in taken]
    left_out = dict.fromkeys(unusable, "no image")
    return made_up_evaluations.evaluation(runs, posteriors, labels, classes, source=source, unusable=left_out)


def places(wrong, classes=6, each=10):
    """The right classes but for so many images, the first of each class in turn, that are taken for the next one."""
    found = np.repeat(np.arange(classes), each)
    for number in range(wrong):
        found[number % classes * each + number // classes] = (number % classes + 1) % classes
    return found


def rendered(tables):
    """The text of each table, as `verydeep` prints it into a file."""
    texts = []
    for table in tables:
        console = Console(file=io.StringIO(), width=120, highlight=False, emoji=False)
        console.print(table)
        texts.append(console.file.getvalue())
    assert all("…" not in text and len(line) <= 120 for text in texts for line in text.splitlines())
    return texts


def lines(text):
    """Each line that has any words, with single spaces."""
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def unfolded(text, name):
    """Return the text of the cell that begins as this name does, put together again from its lines."""
    all_lines = text.splitlines()
    first = next(number for number, line in enumerate(all_lines) if name[:8] in line)
    at, found = all_lines[first].index(name[:8]), ""
    for line in all_lines[first:]:
        if len(found) < len(name):
            found += line[at:].split()[0]
    return found


def test_one_run_has_its_errors_their_intervals_and_its_classes():
    """9 of 60 are wrong, of which Wilson's interval is 8.10% to 26.11%.

    51 are right with a probability of 0.9167, 9 wrong with 0.6167: the error of calibration is 16.33%.
    """
    errors, by_class = rendered(evaluation_tables(evaluation([places(9)])))
    assert lines(errors)[0] == "photos, test: 60 images, dense evaluation"
    assert "run 224, 256 15.00 8.10 to 26.11 15.00 0.00 0.00 to 6.02" in lines(errors)
    assert lines(errors)[-1].endswith("Expected calibration error 16.33%.")
    assert "fused" not in errors
    assert lines(by_class)[0] == "Error of each class"
    assert "a b (2) 10 20.00 5.67 to 50.98" in lines(by_class)
    assert "f a (1) 10 10.00 1.79 to 40.42" in lines(by_class)


def test_several_runs_are_fused_and_compared():
    """The second errs on 3 of the 9 images that the first errs on; fused they err on the 3 that both err on."""
    found = evaluation([places(9), places(3)], runs=("one", "two"))
    errors, compared, _ = rendered(evaluation_tables(found))
    assert "one 224, 256 15.00 8.10 to 26.11 15.00 0.00 0.00 to 6.02" in lines(errors)
    assert "two 224, 256 5.00 1.71 to 13.70 5.00 0.00 0.00 to 6.02" in lines(errors)
    assert "fused 224, 256 5.00 1.71 to 13.70 5.00 0.00 0.00 to 6.02" in lines(errors)
    assert "Expected calibration error of the fused runs " in errors
    low, high = found.comparisons[0].difference_ci95
    title, *_ = shown = lines(compared)
    assert title == "Compared on the same 60 images"
    assert f"one two +10.00 {low:+.2f} to {high:+.2f} 6 0 0.031" in shown  # 2 / 2**6
    assert f"one fused +10.00 {low:+.2f} to {high:+.2f} 6 0 0.031" in shown
    assert "two fused +0.00 -4.76 to +4.76 0 0 1" in shown  # 2.001 times the root of 2 / 59 / 60
    assert "below 0 the first errs less. Exact McNemar test, not corrected for several comparisons." in " ".join(shown)


def test_a_single_comparison_needs_no_correction():
    pair = evaluation([places(3), places(9)], runs=("one", "two")).comparisons[0]
    (text,) = rendered([comparison_table([pair])])
    low, high = pair.difference_ci95
    assert f"one two -10.00 {low:+.2f} to {high:+.2f} 0 6 0.031" in lines(text)
    assert lines(text)[-1].endswith("Exact McNemar test.")


def test_with_five_classes_there_is_no_top5_error_and_the_reason_is_told():
    errors, _ = rendered(evaluation_tables(evaluation([places(9, classes=5)], classes=tuple("abcde"))))
    assert "run 224, 256 18.00 9.77 to 30.80 18.00 – –" in lines(errors)
    assert NO_TOP5 in " ".join(lines(errors))


def test_images_that_cannot_be_used_are_counted():
    errors, _ = rendered(evaluation_tables(evaluation([places(9)], unusable=("1.png", "2.png", "3.png"))))
    assert lines(errors)[0] == "photos, test: 60 images, dense evaluation, without 3 that cannot be used"


@pytest.mark.parametrize("name", ["[red]", "[/]", "[bold]x[/bold]", "[link=a]b", ":cat:", "[[x]]", "\\[red]"])
def test_names_that_look_like_markup_stand_there_as_they_are(name):
    taken, classes = [places(9, 3, 20), places(3, 3, 20)], (name, "b", "c")
    options = {"runs": (name, f"{name}2"), "classes": classes, "source": name, "each": 20}
    errors, compared, by_class = rendered(evaluation_tables(evaluation(taken, **options)))
    assert lines(errors)[0] == f"{name}, test: 60 images, dense evaluation"
    partly, *_ = rendered(evaluation_tables(evaluation(taken, unusable=[name], **options)))
    assert lines(partly)[0] == f"{lines(errors)[0]}, without 1 that cannot be used"
    for beginning, text in {
        f"{name} 224, 256 15.00": errors,
        f"{name} {name}2 +10.00": compared,
        f"{name} fused +10.00": compared,
        f"{name} b (1) 20 5.00": by_class,
        f"c {name} (1) 20 5.00": by_class,
    }.items():
        assert any(line.startswith(beginning) for line in lines(text))


def test_of_long_names_nothing_is_cut_off():
    runs, classes = ("/a" + LONG, "/b" + LONG), ("/c" + LONG, "/d" + LONG, *"efgh")
    found = evaluation([places(9), places(3)], runs=runs, classes=classes, source="/s" + LONG)
    errors, compared, by_class = rendered(evaluation_tables(found))
    assert "/s" + LONG in "".join(errors.split())
    for text, names in ((errors, runs), (compared, runs), (by_class, classes[:2])):
        assert [unfolded(text, name) for name in names] == list(names)
    assert "15.00 8.10 to 26.11 15.00 0.00 0.00 to 6.02" in " ".join(lines(errors))
    assert all(figure in compared for figure in ("+10.00", "0.031"))
    assert "10 10.00 1.79 to 40.42" in " ".join(lines(by_class))


def test_of_many_classes_the_worst_ten_are_shown():
    """Of class 11 all ten images are taken for another, seven of them for class 0, of class 10 nine and so on."""
    classes = tuple(f"class{number}" for number in range(12))
    taken = np.repeat(np.arange(12), 10)
    for number in range(2, 12):
        taken[10 * number : 10 * number + number - 1] = 0
    taken[110:113] = 1
    _, by_class = rendered(evaluation_tables(evaluation([taken], classes=classes)))
    title, _, _, *shown = lines(by_class)
    assert title == "Classes with the highest error"
    assert [line.split()[0] for line in shown] == [f"class{number}" for number in range(11, 1, -1)]
    assert shown[0] == "class11 class0 (7) 10 100.00 72.25 to 100.00"


def test_where_nothing_is_wrong_no_class_is_the_worst():
    (errors,) = rendered(evaluation_tables(evaluation([places(0)])))
    assert "run 224, 256 0.00 0.00 to 6.02 0.00 0.00 0.00 to 6.02" in lines(errors)


def test_the_next_command_is_quoted_as_a_shell_splits_it(capsys, monkeypatch):
    run = Path("runs/a b's")
    say_next([run], "verydeep", "predict", run, "picture.jpg")
    say_next([], "verydeep", "scan", "photos")
    say_next(["net.pth"])
    say_next([Path("-a")], "verydeep", "predict", Path("-a"), "--map", "maps")
    first, *others = capsys.readouterr().err.splitlines()
    wrote, _, command = first.partition("; next: ")
    assert (shlex.split(wrote), shlex.split(command)) == (
        ["wrote", str(run)],
        ["verydeep", "predict", str(run), "picture.jpg"],
    )
    assert others == [
        "next: verydeep scan photos",
        "wrote net.pth",
        "wrote ./-a; next: verydeep predict ./-a --map maps",
    ]
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    say_next([run])
    assert capsys.readouterr().err == ""


def test_columns_of_errors_are_whole_on_a_narrow_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    show({}, None, evaluation_tables(evaluation([places(0), places(1)], runs=("runs/a", "runs/b")))[0])
    shown = capsys.readouterr().out
    assert "\N{HORIZONTAL ELLIPSIS}" not in shown
    assert "balanced" in shown


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16"])
def test_json_is_json_in_every_encoding(monkeypatch, encoding):
    """An image's name need not be text, and other characters than ASCII's need not be in the encoding."""
    names = ["caf\u00e9", "\u732b", "\U0001f600", "bad\udce9.png"]
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    show({"classes": names}, Path("-"))
    with prediction_file(Path("-"), Prediction, most_classes=1) as write:
        write(Prediction(image=names[3], classes=tuple(names), probabilities=(1, 0, 0, 0)))
    *shown, line = out.buffer.getvalue().decode(encoding).splitlines()
    assert json.loads("".join(shown))["classes"] == json.loads(line)["classes"] == names
    assert (names[0] in line) == encoding.startswith("utf-8")
