"""Tell which Japanese pages have not been looked at since their English page changed, or note that they have.

Usage: python docs/translations.py            exit with 1 and name the pages that have not been looked at
       python docs/translations.py PAGE...    note that these Japanese pages say what their English pages say now

A Japanese page begins with `english: PATH`, relative to itself (`none` if it has no English page), and the `sha256`
of that page when the Japanese one was last looked at.
"""

import hashlib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_NOTE = re.compile(r"---\nenglish: (.+)\nsha256: (.*)\n---\n")


def main(arguments: list[str]) -> None:
    """Check all Japanese pages, or note those that are named."""
    for page in arguments:
        note(Path(page))
    if not arguments and (stale := stale_pages(ROOT)):
        sys.exit("\n".join([*stale, "look at each, change what is needed, and run `python docs/translations.py PAGE`"]))


def japanese_pages(root: Path) -> list[Path]:
    """Return the Japanese pages of a copy of the repository."""
    return sorted([root / "README.ja.md", *(root / "docs" / "ja").rglob("*.md")])


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
