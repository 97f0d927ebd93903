"""Help of every verb: an example that works, common options first, SOURCE where there is one; shells complete."""

import re
import shlex
import subprocess

import pytest
from several_commands import refusal, status_of

from verydeep.cli import app
from verydeep.commands import other_tools
from verydeep.commands.help_pages import EXAMPLES
from verydeep.commands.options import RecipeChanges, split_lists
from verydeep.training.start import FEW_PHOTOGRAPHS
from verydeep.version import __version__


def verbs(group=app, words=()):
    """Return every verb's words."""
    found = []
    for word in group:
        if not word.startswith("-"):
            own = (*words, word)
            found += verbs(group[word], own) if group[word].default_command is None else [own]
    return found


VERBS = verbs()


PAGES = {}


def help_of(capsys, *words):
    """Return a help page without its frames, in one line."""
    if words not in PAGES:
        assert status_of(*words, "--help") == 0
        PAGES[words] = " ".join(re.sub("[│╭╮─╰╯]", " ", capsys.readouterr().out).split())
    return PAGES[words]


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_every_verb_has_an_example_that_is_a_command(capsys, words):
    text = help_of(capsys, *words)
    example = EXAMPLES[" ".join(words)]
    assert f"Example: {example}" in text
    program, *tokens = shlex.split(example)
    app.config = (split_lists,)
    command, _, ignored = app.parse_args(tokens, exit_on_error=False, print_error=False)
    assert (program, ignored) == ("verydeep", {})
    assert command.__name__.strip("_") == words[-1]
    assert tuple(tokens[: len(words)]) == words


@pytest.mark.parametrize("words", VERBS, ids=" ".join)
def test_source_is_explained_where_one_is_taken(capsys, words):
    text = help_of(capsys, *words)
    verb = app
    for word in words:
        verb = verb[word]
    takes_one = bool({"SOURCE", "--data"} & other_tools.names_of(verb.assemble_argument_collection()))
    assert ("SOURCE is a folder" in text) == takes_one
    assert "--empty-" not in text
    assert "(see verydeep --help)" not in text
    first = [text.find(name) for name in (" Arguments ", " Parameters ") if name in text]
    last = [text.find(f" {name} --") for name in ("Runtime", "Images", "Execution") if f" {name} --" in text]
    assert last == sorted(last)
    assert max(first) < min([*last, len(text)])


@pytest.mark.parametrize("words", [("train",), ("reproduce",), ("localise", "train")], ids=" ".join)
def test_most_used_options_of_a_recipe_come_first_and_none_is_lost(capsys, words):
    text = help_of(capsys, *words)
    first, rest = text.index(" Recipe: most used "), text.index(" Recipe (")
    assert first < text.index(" --epochs INT") < rest < text.index(" --momentum FLOAT")
    recipe = [f"--{name.replace('_', '-')}" for name in vars(RecipeChanges())]
    assert [name for name in recipe if len(re.findall(f" {name} (INT|FLOAT|STR|CHOICE|--no-)", text)) != 1] == []


def test_what_follows_from_weights_and_from_quick_is_told_as_it_is(capsys):
    train, reproduce = (" ".join(help_of(capsys, verb).replace("│", " ").split()) for verb in ("train", "reproduce"))
    assert ", ".join(f"{name} {value}" for name, value in FEW_PHOTOGRAPHS.items()) in train
    assert "crop 32, width 0.25, 14 epochs" in reproduce


def test_a_training_of_boxes_does_not_offer_to_find_its_own_options(capsys):
    """`verydeep train` refuses to resume its runs."""
    pages = [help_of(capsys, *words).partition("--resume")[2] for words in (("train",), ("localise", "train"))]
    assert all("Continue a run that was stopped" in page for page in pages)
    assert ["takes them from the run" in page for page in pages] == [True, False]


def test_every_example_is_of_a_verb():
    assert set(EXAMPLES) == {" ".join(words) for words in VERBS}


def test_the_version_is_told_in_a_word(capsys):
    assert status_of("--version") == 0
    assert capsys.readouterr().out.split() == [__version__]


def completed(script, line):
    """Return what bash offers at the end of a line, once it has read a script."""
    *_, before, word = words = line.split(" ")
    ask = f"""{script}
COMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}
complete=$(complete -p verydeep | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$complete verydeep {shlex.quote(word)} {shlex.quote(before)}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return [word.strip() for word in done.stdout.split("\n") if word.strip()]


def test_bash_completes_verbs_options_and_values(capsys):
    assert status_of("completion", "bash") == 0
    script = capsys.readouterr().out
    assert completed(script, "verydeep ev") == ["evaluate"]
    assert {"--quick", "--epochs", "--out"} <= set(completed(script, "verydeep train --"))
    assert {"train", "evaluate", "predict"} <= set(completed(script, "verydeep localise "))
    assert set(completed(script, "verydeep predict runs/a --protocol ")) == {"dense", "crops", "both", "centre"}


@pytest.mark.parametrize(
    ("shell", "begins"), [("zsh", "#compdef verydeep"), ("fish", "# Fish completion for verydeep")]
)
def test_zsh_and_fish_have_every_verb_and_option(capsys, shell, begins):
    assert status_of("completion", shell) == 0
    script = capsys.readouterr().out
    assert script.startswith(begins)
    for words in VERBS:
        assert words[-1] in script
    assert all(word in script for word in ("label-smoothing", "grad-cam", "per-class"))


def test_other_shells_are_refused(capsys):
    assert "choose" in refusal(capsys, "completion", "tcsh").lower()
