"""The command line as people of other tools, and shells, use it."""

from pathlib import Path
from typing import get_args

import pytest
import several_commands as commands

from verydeep.cli import app
from verydeep.commands import other_tools

TRAIN = ("train", "digits", "--network", "A", "--out", "/nowhere/run")

OF_OTHER_TOOLS = {
    "fit photos": "there is no verb fit: it is train",
    "val runs/a": "there is no verb val: it is evaluate",
    "classify a.jpg": "there is no verb classify: it is predict",
    "finetune photos": "it is train --from WEIGHTS",
    "train photos --epochs 5 --lr 0.01": "there is no --lr: it is called --learning-rate",
    "train photos --lr0=0.01 --imgsz 64 --bs 32": (
        "no --lr0: it is called --learning-rate; there is no --imgsz: it is called --crop; there is no --bs: it is "
        "called --batch (see verydeep train --help)"
    ),
    "train --data photos --model vgg16": "no --data: name SOURCE without an option; there is no --model: it is called",
    "train data=photos epochs=10 lr0=0.1": (
        "write photos, not data=photos; write --epochs 10, not epochs=10; write --learning-rate 0.1, not lr0=0.1"
    ),
    "train pretrained=True gpu=0 half=true": (
        "write --from WEIGHTS, not pretrained=True; write --device cuda, not gpu=0; write --precision bf16, not half="
    ),
    "train photos weights=a.pth": "write --from a.pth, not weights=a.pth",
    "train photos --network A --out run --device cuda:1": "write --device cuda; CUDA_VISIBLE_DEVICES=1 before it",
    "train photos --network A --out run --device 0,1": "write --device cuda; CUDA_VISIBLE_DEVICES=0 before it",
    "train photos --network A --out run --resume a.pth": "unexpected argument a.pth: --resume takes no value",
    "train photos --pretrained --amp": "it is called --from WEIGHTS; there is no --amp: it is called --precision bf16",
    "train photos --weights a.pth": "it is called --from WEIGHTS",
    "train photos --opt adamw": "there is no --opt: training is SGD with --momentum",
    "train photos --num-classes 10": "classes are the folders of SOURCE",
    "train photos --num_classes 10": "there is no --num_classes: classes are the folders of SOURCE",
    "train photos --wd 1e-4 -j 8 -b 64": "--weight-decay; there is no -j: it is called --workers; there is no -b",
    "train photos --valid-pct 0.2": "it is called --held-out",
    "train photos --mixup 0.2": "as in the paper, images are not mixed",
    "train photos --epochs ten": "train needs --out",
    "evaluate --weights runs/a --imgsz 256": "name RUNS without an option; there is no --imgsz: it is called --scales",
    "describe D --num-classes 10": "there is no --num-classes: it is called --classes",
    "compare a.csv b.csv c.csv": "unexpected argument c.csv (see verydeep compare --help)",
    "evaluate runs/a digits": "evaluate needs --data",
    "evaluate runs/a --data digits --batch-size 8": "as many images are computed at once as memory holds",
    "predict --model runs/a --source a.jpg": "name RUN without an option; there is no --source: name IMAGES without",
    "predict runs/a a.jpg --topk 3": "there is no --topk: it is called --top",
    "predict runs/a a.jpg --imgsz=224": "there is no --imgsz: it is called --scales",
    "predict runs/a a.jpg --conf 0.5": "every image is given its --top classes",
    "export runs/a --format onnx --half": "called --to; there is no --half: it is called --precision bf16",
    "serve --model runs/a": "name RUN without an option",
}


@pytest.mark.parametrize("line", OF_OTHER_TOOLS)
def test_words_of_other_tools_are_told_by_their_names_here(capsys, line):
    assert OF_OTHER_TOOLS[line] in commands.refusal(capsys, *line.split())


def verbs(app, chain=()):
    """Yield every verb with its options and arguments."""
    if app.default_command:
        yield chain, [one for one in app.assemble_argument_collection() if one.names and not one.children]
    for word in app:
        if not word.startswith("-"):
            yield from verbs(app[word], (*chain, word))


def holds(hint, kind):
    return kind in (hint, *get_args(hint))


def test_the_names_here_are_names_of_options():
    here = {ours.split()[0] for several in other_tools._OPTIONS.values() for ours in several}
    assert here <= set().union(*(other_tools.names_of(arguments) for _, arguments in verbs(app)))
    assert {ours.split()[0] for ours in other_tools._VERBS.values()} <= set(app)
    assert not set(other_tools._VERBS) & set(app)


def test_choices_are_listed(capsys):
    told = commands.refusal(capsys, "export", "run", "--to", "coreml", "--out", "x.onnx")
    assert '"coreml": choose one of onnx, openvino, ncnn, torch, torchvision, timm (see' in told


def test_home_is_found_after_an_equals_sign_and_in_toml(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    for home, told in (("~/taken", f"{tmp_path}/taken is a file"), ("~", f"{tmp_path} exists and is not a run")):
        (tmp_path / "o.toml").write_text(f'out = "{home}"')
        for words in ((f"--out={home}",), ("--config", tmp_path / "o.toml"), ("--config=~/o.toml",)):
            assert told in commands.refusal(capsys, "train", "digits", "--network", "A", *words)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["o.toml", "taken"]


def test_a_word_alone_may_be_a_file_that_is_called_like_home(capsys, tmp_path, monkeypatch):
    """As a shell writes it in place of a pattern."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert "no file '~'" in commands.refusal(capsys, "predict", "run", "~")


@pytest.mark.usefixtures("homeless")
def test_a_folder_of_a_user_without_one_is_not_found(capsys):
    assert "no folder '~/photos'" in commands.refusal(capsys, "scan", "~/photos")


@pytest.mark.parametrize("verb", ["evaluate run", "localise evaluate run", "transfer run"])
def test_a_language_without_a_report_is_refused(capsys, tmp_path, monkeypatch, verb):
    """With a report, the next fault is another: there is no run."""
    monkeypatch.chdir(tmp_path)
    words = [*verb.split(), "--data", "digits", "--language"]
    for language in ("ja", "en"):
        told = commands.refusal(capsys, *words, language)
        assert told == "verydeep: --language goes with --report: add --report FOLDER, or leave out --language\n"
    boxes = ["--boxes", tmp_path] if verb.startswith("localise") else []
    assert "--language" not in commands.refusal(capsys, *words, "ja", "--report", "page", *boxes)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_value_is_refused_wherever_one_is_taken(capsys, tmp_path, monkeypatch):
    """An empty path would be the current folder, in which a run or pictures would then lie."""
    monkeypatch.chdir(tmp_path)
    tried = 0
    for chain, arguments in verbs(app):
        before = []
        for argument in arguments:
            if holds(argument.hint, bool):
                continue
            is_option = argument.index is None
            told = commands.refusal(capsys, *chain, *before, *([argument.name, ""] if is_option else [""]))
            assert f"{other_tools.display_name(argument)} is empty: give it a value" in told, (chain, argument.name)
            before += [] if is_option else ["x"]
            tried += 1
    (tmp_path / "o.toml").write_text('out = ""')
    assert "--out is empty" in commands.refusal(capsys, "train", "digits", "--config", "o.toml")
    assert tried > 200
    assert [entry.name for entry in tmp_path.iterdir()] == ["o.toml"]


ADDRESS = "https://example.org//a//b.jpg"


def test_addresses_are_refused_as_they_were_given_wherever_there_is_a_path(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for chain, arguments in verbs(app):
        before = []
        for argument in arguments:
            is_option = argument.index is None
            if holds(argument.hint, Path):
                given = [argument.name, ADDRESS] if is_option else [ADDRESS]
                told = commands.refusal(capsys, *chain, *before, *given)
                assert f"{ADDRESS} is an address: " in told, (chain, argument.name)
            before += [] if is_option else ["x"]
    for words in (
        ("scan", ADDRESS),
        ("import", ADDRESS),
        ("train", "--finetune", ADDRESS),
        ("predict", "run", "S3://b//c"),
    ):
        assert f"{words[-1]} is an address: download" in commands.refusal(capsys, *words)
    assert "is an address: name a place" in commands.refusal(capsys, "train", "digits", "--out", ADDRESS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_called_like_an_address(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:" / "x").mkdir(parents=True)
    assert "no images in http:/x" in commands.refusal(capsys, "predict", "run", "http://x")


@pytest.mark.parametrize("words", [("./-x.jpg",), ("--", "-x.jpg")])
def test_files_may_begin_with_a_hyphen(capsys, tmp_path, monkeypatch, words):
    """They get as far as the run, which is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.jpg").write_bytes(b"\xff\xd8\xff")
    assert "is not a run" in commands.refusal(capsys, "predict", tmp_path, *words)


@pytest.mark.parametrize(
    "pattern", ["{0..99999999}.tar", "{0..9999}{0..9999}.tar", "{" + "0," * 9 + "1}" + "{a,b}" * 30 + ".tar"]
)
def test_braces_are_counted_before_they_are_written_out(capsys, pattern):
    assert "stands for more than 1,000,000 shards" in commands.refusal(capsys, "scan", f"shards/{pattern}")


def test_bounds_are_stated(capsys):
    assert "workers must be from 0 to 1,024" in commands.refusal(capsys, "scan", "digits", "--workers", 100_000)
    assert "S goes from 224 to 10,000" in commands.refusal(capsys, *TRAIN, "--scale", 99_999_999)
