"""What people see of long work: plain lines in a file, a bar on a terminal."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from verydeep.numbers import duration
from verydeep.presentation import terminal
from verydeep.presentation.terminal import reporting


def console(*, terminal=False, width=80):
    """Its output is in `.file`."""
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None, _environ={})


def test_a_file_gets_plain_lines_when_asked_to_tell():
    out = console()
    with reporting("train D", total=40, console=out) as report:
        for step in range(1, 41):
            report.advance(tell=step % 20 == 0, figures={"epoch": f"{step // 20}/2", "loss": "1.25"})
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 2
    assert re.fullmatch(r"train D  50%  epoch 1/2  loss 1\.25  \d+:\d\d left", lines[0])
    assert re.fullmatch(r"train D  100%  epoch 2/2  loss 1\.25", lines[1])


def test_a_file_gets_no_escape_codes_and_no_broken_lines():
    out = console(width=20)
    with reporting("evaluate a very long name of a split", total=2, console=out) as report:
        report.say("a line of text that is much longer than twenty columns")
        report.advance(tell=True, figures={"run": "some/very/long/path/to/a/run", "error": "12.5%"})
        report.advance()
    text = out.file.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    assert len(text.splitlines()) == 2


def test_a_file_gets_a_line_now_and_then_without_asking(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    out = console()
    with reporting("train D", total=100, console=out) as report:
        for _ in range(100):
            now[0] += 1
            report.advance(figures={"loss": "1"})
    lines = out.file.getvalue().splitlines()
    assert len(lines) == 3
    # A line at 31 s, when 31 of 100 one-second steps are done, then every 31 s.
    assert [line.split("  ")[-1] for line in lines] == ["1:09 left", "0:38 left", "0:07 left"]


def test_work_that_was_done_before_is_not_counted_in_the_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    out = console()
    with reporting("train D", total=100, done=90, console=out) as report:
        now[0] = 20.0
        report.advance(2, tell=True)
    line = out.file.getvalue().split("  ")
    assert (line[1], line[-1].strip()) == ("92%", "1:20 left")  # 8 more at 10 s each


def test_a_terminal_gets_a_bar_that_vanishes():
    out = console(terminal=True)
    with reporting("train D", total=4, console=out) as report:
        report.advance(2, figures={"loss": "1.25"})
        report.say("a new best")
    text = out.file.getvalue()
    assert "train D" in text
    assert "a new best" in text
    assert text.rstrip().endswith("\x1b[2K")  # the bar's line is erased


def test_nothing_is_written_to_standard_output(capsys):
    with reporting("train D", total=1) as report:
        report.advance(tell=True)
        report.say("done")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "train D" in captured.err
    assert "done" in captured.err


@pytest.mark.parametrize("name", ["runs/my[bold]run", "x[/b]", "[red]", "a[1]"])
def test_what_is_said_is_text_and_not_markup(name):
    out = console()
    with reporting("train D", total=1, console=out) as report:
        report.say(f"trained {name}")
    assert out.file.getvalue() == f"trained {name}\n"


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("name", ["runs/my[bold]run", "x[/b]"])
def test_figures_are_text_and_not_markup(name, terminal):
    out = console(terminal=terminal, width=200)
    with reporting(f"evaluate {name}", total=2, console=out) as report:
        report.advance(tell=True, figures={"run": name})
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.file.getvalue())
    assert f"evaluate {name}" in text
    assert f"run {name}" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (9, "0:09"),
        (59.6, "1:00"),
        (75.2, "1:15"),
        (3599.4, "59:59"),
        (3599.6, "1:00:00"),
        (4000, "1:06:40"),
        (360_000, "100:00:00"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


@given(hours=st.integers(0, 1000), minutes=st.integers(0, 59), seconds=st.integers(0, 59))
def test_a_duration_can_be_read_back(hours, minutes, seconds):
    found = [int(part) for part in duration(3600 * hours + 60 * minutes + seconds).split(":")]
    assert found == ([hours, minutes, seconds] if hours else [minutes, seconds])


def test_the_time_left_fits_on_a_terminal_of_80_columns():
    out = console(terminal=True)
    figures = {"epoch": "12/12", "loss": "0.553", "error": "19.2%", "images/s": "2,236"}
    with reporting("train A-LRN", total=40, console=out) as report:
        for _ in range(20):
            report.advance(figures=figures)
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.file.getvalue())
    assert "…" not in drawn
    assert re.search(r"train A-LRN +50%  epoch 12/12  loss 0\.553  error 19\.2%  \d+:\d\d left", drawn)


def test_the_first_step_of_many_tells_what_is_left_on_80_columns(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(terminal.time, "monotonic", lambda: now[0])
    out = console(terminal=True)
    with reporting("train D", total=10_000, console=out) as report:
        now[0] = 30.0
        report.advance(figures={"epoch": "1/74", "loss": "6.908", "error": "99.6%", "images/s": "9", "waiting": "0%"})
    drawn = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.file.getvalue())
    assert "--:--" not in drawn
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", drawn)]
    assert "train D  0%  epoch 1/74  loss 6.908  error 99.6%  images/s 9  83:19:30 left" in map(_single_spaced, lines)
    assert max(map(len, lines)) <= 80


def _single_spaced(line):
    return re.sub(r"^train D +", "train D  ", line)


def drawn_bars(out):
    """Return the last pair of bars on a terminal: how full each is, 0..1."""
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.file.getvalue())
    epoch, whole = re.findall(r"epoch ([━╸╺ ]+) all ([━╸╺ ]+)", text)[-1]
    return [len(re.match("[━╸]*", bar)[0]) / len(bar) for bar in (epoch, whole)]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize(
    ("before", "steps", "epoch", "whole"), [(0, 13, 0.3, 0.325), (20, 10, 1, 0.75), (0, 40, 1, 1), (25, 2, 0.7, 0.675)]
)
def test_epochs_have_a_bar_of_their_own(before, steps, epoch, whole, width):
    out = console(terminal=True, width=width)
    with reporting("train D", total=40, done=before, epoch=10, console=out) as report:
        for _ in range(steps):
            report.advance(figures={"epoch": "3/4", "loss": "1.25"})
        report._bar.refresh()
        # Without colours the rest of a bar is blank, so its length is that of its column.
        assert drawn_bars(out) == pytest.approx([epoch, whole], abs=0.04)
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.file.getvalue()).splitlines()
    assert max(map(len, lines)) <= width


def test_a_line_about_an_epoch_fits_a_terminal_and_is_whole_in_a_file():
    figures = {"epoch": "1/4", "loss": "1.25", "error": "30.1%", "validation": "33.5%", "images/s": "220"}
    more = {"waiting": "2%", "best": "33.5%", "rate": "0.01", "memory": "0.5 GB"}
    lines = []
    for out in (console(terminal=True), console()):
        with reporting("train D", total=40, epoch=10, console=out) as report:
            report.advance(10, tell=True, figures=figures | more)
        text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.file.getvalue())
        lines.append(next(line for line in re.split(r"[\r\n]+", text) if line.startswith("train D  25%")))
    assert len(lines[0]) <= 80
    assert "validation 33.5%" in lines[0]
    assert "memory 0.5 GB" in lines[1]


def test_a_file_gets_no_bars_of_epochs():
    out = console()
    with reporting("train D", total=40, epoch=10, console=out) as report:
        report.advance(10, tell=True, figures={"epoch": "1/4"})
    assert re.fullmatch(r"train D  25%  epoch 1/4  \d+:\d\d left\n", out.file.getvalue())
