"""Pages name what there is: every public name has its place, every file that is named exists."""

import re
from importlib import import_module
from pathlib import Path

import pytest
import yaml
from sphinx.application import Sphinx

import verydeep

ROOT = Path(__file__).parents[2]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*/*.md"))


def test_every_public_name_is_in_the_reference_once():
    page = (ROOT / "docs/reference/python.md").read_text()
    listed = re.findall(r"^\.\. auto\w+:: (?:[\w.]+\.)?(\w+)$", page, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) <= set(verydeep.__all__)  # docs/from_the_program.py adds those that are not listed


def test_a_page_follows_the_program_though_its_file_has_not_changed(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    (tmp_path / "reference").mkdir()
    (tmp_path / "reference/http.md").write_text("# HTTP\n\n<!-- paths: from docs/from_the_program.py -->\n")
    (tmp_path / "index.md").write_text("# All\n")
    for words in ("said before", "said now"):
        monkeypatch.setattr(import_module("from_the_program"), "http_tables", lambda words=words: words)
        built = [tmp_path / "built", tmp_path / "doctrees"]
        site = Sphinx(tmp_path, ROOT / "docs", *built, "dummy", status=None, warning=None)
        site.build()
        assert words in site.env.get_doctree("reference/http").astext()


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
