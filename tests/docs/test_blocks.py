"""Every block of shell or Python in README and docs runs, on small images; one that does not says why, and is parsed.

A comment before a block, `<!-- not run: why -->`, keeps it from being run. Commands run in this process, each of them
once, whichever page has it, with smaller numbers where they train.
"""

import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import several_commands as commands
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

from verydeep.cli import app
from verydeep.commands.options import refuse_fractions, split_lists
from verydeep.commands.paths import expand_home
from verydeep.images.sources import digits
from verydeep.images.sources.source import memory_source

ROOT = Path(__file__).parents[2]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]

REASON = re.compile(r"<!-- not run: (.{10,}) -->\n\Z")
BEFORE_VERB = re.compile(r"(?:^|\| )(torchrun [^|]* -m verydeep|uvx --from \S+ verydeep|verydeep) ")
SMALLER = {"--crop": "32", "--width": "0.02", "--epochs": "1", "--batch": "64", "--train": "2"}
IN_PYTHON = {option.removeprefix("--"): value for option, value in SMALLER.items()}
SELDOM = ("docs/how-to/", "docs/reference/", "docs/explanations/")
"""Pages whose blocks run with --battery, as continuous integration does; without, they are parsed."""


def python(example):
    """Run a block in its page's names."""
    small = re.sub(r"\b224\b", "32", example.parsed).replace("crop=32", "crop=32, width=0.02")
    for name, value in IN_PYTHON.items():
        small = re.sub(rf"\b{name}=[\d.]+\b", f"{name}={value}", small)
    exec(compile("\n" * example.line + small, example.path, "exec"), example.namespace)


def shell(example):
    """Run the commands of a block that have not run yet."""
    for line in lines_of(example.parsed):
        tokens = tokens_of(line)
        assert tokens is not None, f"say before the block why it is not run: {line}"
        if shlex.join(tokens) not in example.namespace["done"]:
            example.namespace["done"].add(shlex.join(tokens))
            run(tokens)


def run(tokens):
    small = smaller(tokens)
    folder = small[small.index("--out") + 1] if "--out" in small else None
    if "--dry-run" in small and folder:
        small[small.index("--out") + 1] = f"{folder}-not-yet"
    elif small[0] in ("train", "reproduce", "localise", "import") and folder and "--resume" not in small:
        shutil.rmtree(folder, ignore_errors=True)
    assert commands.status_of(*small) == 0, shlex.join(small)


def smaller(tokens):
    """Return a command that does the same with a small network and few steps."""
    small = [SMALLER.get(before, token) for before, token in zip(["", *tokens], tokens, strict=False)]
    trains = tokens[0] in ("train", "reproduce") or tokens[:2] == ["localise", "train"]
    taken_over = {"--from", "--finetune"} & set(tokens)
    if tokens[0] == "transfer" and "--train" not in tokens:
        small += ["--train", SMALLER["--train"]]
    added = ("--epochs", "--batch", *(() if taken_over else ("--crop", "--width"))) if trains else ()
    return [*small, *(word for option in added if option not in tokens for word in (option, SMALLER[option]))]


def lines_of(block):
    """Return the commands of a block, with continued lines joined."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def tokens_of(line):
    """Return the arguments of the command `verydeep` in a line; None if it has none."""
    found = BEFORE_VERB.search(f"{line} ")
    return shlex.split(re.split(r" [|>] ", line[found.end() :])[0], comments=True) if found else None


def is_run(example):
    """Whether no comment before a block says why it is not run."""
    return REASON.search(example.document.text[: example.start]) is None


def blocks_of(page):
    """Return the blocks of a page as parameters of a test."""
    name = page.relative_to(ROOT).as_posix()
    parsers = [CodeBlockParser("python", python), CodeBlockParser("sh", shell)]
    seldom = [pytest.mark.battery] if name.startswith(SELDOM) else []
    for example in Sybil(parsers).parse(page).examples():
        yield pytest.param(example, id=f"{name}:{example.line}", marks=seldom if is_run(example) else [])


BLOCKS = [block for page in sorted(PAGES) for block in blocks_of(page)]


@pytest.fixture(scope="session")
def done():
    return set()


@pytest.fixture(scope="session")
def few_digits():
    return memory_source(classes=digits.CLASSES, samples=tuple(digits._digits())[::18])


@pytest.mark.parametrize("example", [block for block in BLOCKS if is_run(block.values[0])])
def test_block_runs(example, workplace, monkeypatch, done, few_digits):
    monkeypatch.chdir(workplace)
    monkeypatch.setattr(digits, "_digits", lambda: few_digits)
    example.namespace["done"] = done
    example.evaluate()


def parsed(tokens):
    app.config = (expand_home, split_lists, refuse_fractions)
    return app.parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.mark.parametrize("example", [pytest.param(*block.values, id=block.id) for block in BLOCKS])
def test_block_is_no_mistake(example, workplace, monkeypatch):
    monkeypatch.chdir(workplace)
    if example.region.evaluator is python:
        compile(example.parsed, example.path, "exec")
        return
    for line in lines_of(example.parsed):
        tokens = tokens_of(line)
        if tokens:
            parsed(tokens)
        check_other_programs(line)


def check_other_programs(line):
    """What a line wants of this repository is there: extras, targets of make, scripts."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = [name for found in re.findall(r"verydeep[^\s\[]*\[([\w,]+)\]", line) for name in found.split(",")]
    assert set(named) <= set(extras)
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z]+)", line)) <= set(targets)
    assert all((ROOT / script).exists() for script in re.findall(r"python (\S+\.py)", line))


def test_a_wrong_option_is_noticed():
    with pytest.raises(Exception, match="--widht"):
        parsed(["train", "digits", "--widht", "1", "--out", "runs/z"])
