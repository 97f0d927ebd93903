"""Tell which Japanese pages have not been looked at since their English page changed, or note that they have.

Usage: python docs/translations.py            exit with 1 and name the pages that are missing or not looked at
       python docs/translations.py PAGE...    note that these Japanese pages say what their English pages say now

A Japanese page begins with `english: PATH`, relative to itself (`none` if it has no English page), and the `sha256`
of that page when the Japanese one was last looked at.
"""

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRANSLATED = {
    "README.md": "README.ja.md",
    "docs/index.md": "docs/ja/index.md",
    "docs/first-steps.md": "docs/ja/first-steps.md",
    "docs/tutorials/photographs.md": "docs/ja/photographs.md",
    "docs/tutorials/depth.md": "docs/ja/depth.md",
    "docs/explanations/paper.md": "docs/ja/paper.md",
}
"""Pages that are for everybody, so each has a Japanese one."""

ENGLISH_ALONE = (
    "[A-Z]*.md",
    "docs/[A-Z]*.md",
    "docs/serving.md",
    "docs/explanations/index.md",
    "docs/explanations/dense-and-crops.md",
    "docs/explanations/exactness.md",
    "docs/how-to/*.md",
    "docs/imagenette/**/*.md",
    "docs/project/*.md",
    "docs/reference/*.md",
    "docs/tutorials/index.md",
)
"""Guides, reference and records, which change with the code. A page must be in one of the two lists."""

_NOTE = re.compile(r"---\nenglish: (.+)\nsha256: (.*)\n---\n")


def main(arguments: list[str]) -> None:
    """Check all Japanese pages, or note those that are named."""
    for page in arguments:
        note(Path(page))
    if not arguments and (wrong := [*missing_pages(ROOT), *stale_pages(ROOT)]):
        sys.exit("\n".join([*wrong, "look at each, change what is needed, and run `python docs/translations.py PAGE`"]))


def japanese_pages(root: Path) -> list[Path]:
    """Return the Japanese pages of a copy of the repository."""
    return sorted([root / "README.ja.md", *(root / "docs" / "ja").rglob("*.md")])


def missing_pages(root: Path) -> list[str]:
    """Return a line for every page that lacks its Japanese one, or that is in neither list."""
    lines = [
        f"{japanese} is missing, or is not of {english}"
        for english, japanese in TRANSLATED.items()
        if not (root / japanese).is_file() or _english_of(root / japanese) != root / english
    ]
    pages = {path for pattern in ("*.md", "docs/**/*.md") for path in root.glob(pattern)}
    alone = {path for pattern in ENGLISH_ALONE for path in root.glob(pattern)}
    known = alone | {root / english for english in TRANSLATED} | set(japanese_pages(root))
    return [
        *lines,
        *(
            f"{page.relative_to(root)}: is there a Japanese one? Say so in docs/translations.py"
            for page in sorted(pages - known)
        ),
    ]


def _english_of(page: Path) -> Path:
    return (page.parent / _note_of(page)[0]).resolve()


def stale_pages(root: Path) -> list[str]:
    """Return a line for every Japanese page whose English page has changed."""
    lines = []
    for page in japanese_pages(root):
        english, known = _note_of(page)
        if english != "none" and known != _digest(page.parent / english):
            lines.append(f"{page.relative_to(root)}: {english} has changed since this page was looked at")
    return lines


def note(page: Path) -> None:
    """Write into a Japanese page that it says what its English page, if it has one, says now."""
    english, _ = _note_of(page)
    if english == "none":
        return
    text = page.read_text(encoding="utf-8")
    head = f"---\nenglish: {english}\nsha256: {_digest(page.parent / english)}\n---\n"
    page.write_text(_NOTE.sub(lambda _: head, text, count=1), encoding="utf-8")


def _note_of(page: Path) -> tuple[str, str]:
    found = _NOTE.match(page.read_text(encoding="utf-8"))
    if found is None:
        sys.exit(f"{page} does not begin with a note of its English page: ---, english: PATH, sha256: , ---")
    return found[1], found[2]


def _digest(page: Path) -> str:
    return hashlib.sha256(page.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(sys.argv[1:])
