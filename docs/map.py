"""Write the map of the house in ARCHITECTURE.md from the first lines of docstrings, or check that it is up to date.

Usage: python docs/map.py [--check]

Rooms stand in the order of import-linter's layers in pyproject.toml, from the door down.
"""

import ast
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "ARCHITECTURE.md"
BEGIN, END = "<!-- map: written by docs/map.py -->\n", "<!-- end of the map -->\n"


def main(arguments: list[str]) -> None:
    """Write the map; with `--check` exit with 1 if the page has another one."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    new = f"{before}{BEGIN}{house_map()}{END}{after}"
    if arguments == ["--check"]:
        if new != page:
            sys.exit("docs/ARCHITECTURE.md has an old map: run `make map`")
    else:
        PAGE.write_text(new, encoding="utf-8")


def house_map() -> str:
    """Return the map as Markdown: a heading for each room, a line for each module."""
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][
        0
    ]
    modules = [name.strip() for layer in layers["layers"] for name in layer.split("|")]
    places = [ROOT.joinpath(*name.split(".")) for name in modules]
    rooms = [place for place in places if place.is_dir()]
    alone = [place.with_suffix(".py") for place in places if not place.is_dir()]
    return "\n".join(["", *(_room(room) for room in rooms), _table("Beside the rooms", "", alone)])


def _room(room: Path) -> str:
    title = f"`{room.relative_to(ROOT).as_posix()}/`"
    modules = sorted(path for path in room.rglob("*.py") if path.name != "__init__.py")
    return _table(title, _first_line(room / "__init__.py"), modules, room)


def _table(title: str, about: str, modules: list[Path], room: Path = ROOT / "verydeep") -> str:
    rows = [f"| `{path.relative_to(room).as_posix()}` | {_first_line(path)} |" for path in modules]
    return "\n".join(
        [f"### {title}\n", *([f"{about}\n"] if about else []), "| file | what is in it |", "|---|---|", *rows, ""]
    )


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].replace("|", "\\|")


if __name__ == "__main__":
    main(sys.argv[1:])
