"""Pages name what there is: every public name has its place, every file that is named exists."""

import re
from pathlib import Path

import pytest

import verydeep

ROOT = Path(__file__).parents[2]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*/*.md"))


def test_every_public_name_is_in_the_reference():
    page = (ROOT / "docs/reference/python.md").read_text()
    listed = re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", page, re.MULTILINE)
    assert sorted(listed) == sorted(set(verydeep.__all__) - {"__version__"})


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|tsv|jinja))`", text)) | set(re.findall(r"`(tests(?:/\w+)+)`", text))
    assert {name for name in named if not any((ROOT / place / name).exists() for place in ("", "verydeep"))} == set()
