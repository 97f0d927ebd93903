"""Pages name what there is: every public name has its place, every file that is named exists."""

import re
from pathlib import Path

import pytest
import yaml

import verydeep

ROOT = Path(__file__).parents[2]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*/*.md"))


def test_every_public_name_is_in_the_reference_once():
    page = (ROOT / "docs/reference/python.md").read_text()
    listed = re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", page, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(verydeep.__all__)  # docs/from_the_program.py adds those that are not listed


@pytest.mark.parametrize("page", PAGES)
def test_files_that_a_page_names_exist(page):
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:\w+/)+\w+\.(?:py|tsv|jinja))`", text)) | set(re.findall(r"`(tests(?:/\w+)+)`", text))
    assert {name for name in named if not any((ROOT / place / name).exists() for place in ("", "verydeep"))} == set()


def test_citation_has_the_version_and_the_licence():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (cited["version"], cited["license"]) == (verydeep.__version__, "Apache-2.0")


def test_readme_fits_a_few_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
