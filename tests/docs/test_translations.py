"""A Japanese page that was not looked at since its English page changed fails the check."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "docs" / "translations.py"


@pytest.fixture
def copy(tmp_path):
    """A repository of two pages and their translations, checked by the same program."""
    for name, text in {
        "docs/translations.py": SCRIPT.read_text(encoding="utf-8"),
        "README.md": "# A tool\n",
        "docs/first.md": "# First\n",
        "README.ja.md": "---\nenglish: README.md\nsha256: \n---\n# 道具\n",
        "docs/ja/first.md": "---\nenglish: ../first.md\nsha256: \n---\n# はじめに\n",
        "docs/ja/glossary.md": "---\nenglish: none\nsha256: \n---\n# 用語集\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def check(place, *pages):
    command = [sys.executable, "docs/translations.py", *pages]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_a_stale_page_is_named_until_it_is_looked_at(copy):
    assert check(copy, "README.ja.md", "docs/ja/first.md", "docs/ja/glossary.md") == (0, "")
    assert check(copy) == (0, "")
    (copy / "docs/first.md").write_text("# First\n\nAnd another sentence.\n")
    status, said = check(copy)
    assert status == 1
    assert "docs/ja/first.md: ../first.md has changed" in said
    assert "README.ja.md:" not in said
    assert check(copy, "docs/ja/first.md") == (0, "")
    assert check(copy) == (0, "")
    assert (copy / "docs/ja/first.md").read_text().endswith("---\n# はじめに\n")


def test_a_page_without_a_note_is_refused(copy):
    (copy / "docs/ja/other.md").write_text("# 別\n")
    status, said = check(copy)
    assert (status, "does not begin with a note" in said) == (1, True)
