"""A Japanese page that was not looked at since its English page changed fails the check."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "translations.py"


@pytest.fixture
def copy(tmp_path):
    """A repository with every page that is translated, in few words, checked by the same program."""
    texts = {"docs/translations.py": SCRIPT.read_text(encoding="utf-8")}
    texts["docs/ja/glossary.md"] = "---\nenglish: none\nsha256: \n---\n# 用語集\n"
    for english, japanese in runpy.run_path(str(SCRIPT))["TRANSLATED"].items():
        texts[english] = f"# {english}\n"
        from_there = os.path.relpath(english, Path(japanese).parent)
        texts[japanese] = f"---\nenglish: {from_there}\nsha256: \n---\n# はじめに\n"
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    pages = [name for name in texts if ".ja." in name or "/ja/" in name]
    assert check(tmp_path, *pages) == (0, "")
    return tmp_path


def check(place, *pages):
    command = [sys.executable, "docs/translations.py", *pages]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_stale_page_is_named_until_it_is_looked_at(copy):
    assert check(copy) == (0, "")
    (copy / "docs/first-steps.md").write_text("# First\n\nAnd another sentence.\n")
    status, said = check(copy)
    assert status == 1
    assert "docs/ja/first-steps.md: ../first-steps.md has changed" in said
    assert "README.ja.md:" not in said
    assert check(copy, "docs/ja/first-steps.md") == (0, "")
    assert check(copy) == (0, "")
    assert (copy / "docs/ja/first-steps.md").read_text().endswith("---\n# はじめに\n")


def test_a_page_without_a_note_is_refused(copy):
    (copy / "docs/ja/other.md").write_text("# 別\n")
    status, said = check(copy)
    assert (status, "does not begin with a note" in said) == (1, True)


def test_a_page_that_was_never_translated_is_told_from_one_that_need_not_be(copy):
    (copy / "docs/how-to").mkdir()
    (copy / "docs/how-to/cook.md").write_text("# A guide\n")
    assert check(copy) == (0, "")
    for cats in (copy / "docs/tutorials/cats.md", copy / "docs/how-to/cook/cats.md"):
        cats.parent.mkdir(exist_ok=True)
        cats.write_text("# Cats\n")
        status, said = check(copy)
        assert (status, f"{cats.relative_to(copy)}: is there a Japanese one?" in said) == (1, True)
        cats.unlink()
    (copy / "docs/ja/depth.md").unlink()
    status, said = check(copy)
    assert (status, "docs/ja/depth.md is missing, or is not of docs/tutorials/depth.md" in said) == (1, True)
    (copy / "docs/ja/depth.md").write_text((copy / "docs/ja/paper.md").read_text())
    assert "docs/ja/depth.md is missing" in check(copy)[1]
