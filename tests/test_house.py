"""The house keeps its measures: short functions, few parameters, files that fit a screenful or three."""

import ast
import importlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tomllib
from collections import defaultdict
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
from array_shapes import check_shapes
from jaxtyping import Float, Int
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from verydeep.networks.vgg import LocalResponseNorm

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "verydeep").rglob("*.py"))


def code_lines(text):
    """Numbers of lines that are neither blank nor comment nor docstring."""
    nodes = list(ast.walk(ast.parse(text)))
    bodies = [node.body for node in nodes if isinstance(getattr(node, "body", None), list)]
    texts = [statement for body in bodies for statement in body if is_text(statement)]
    strings = [node for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant)]
    lines = enumerate(map(str.strip, text.split("\n")), 1)
    written = {number for number, line in lines if line and not line.startswith("#")}
    return (written | numbers(strings)) - numbers(texts)


def numbers(nodes):
    """Numbers of all lines of these nodes, also of lines that look blank or like comments in a string."""
    return {line for node in nodes for line in range(node.lineno, node.end_lineno + 1)}


def is_text(statement):
    is_constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return is_constant and isinstance(statement.value.value, str)


def is_property(function):
    """Properties are described as the fields of a dataclass are, by a noun phrase."""
    return any(ast.unparse(decorator).endswith("property") for decorator in function.decorator_list)


def functions():
    for path in MODULES:
        text = path.read_text()
        lines = code_lines(text)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                own = lines.intersection(range(node.lineno, node.end_lineno + 1))
                yield f"{path.relative_to(ROOT)}:{node.name}", len(own), parameters(node.args)


def parameters(arguments):
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return sum(name is not None and name.arg not in ("self", "cls") for name in named)


def test_functions_are_short_and_take_few_parameters():
    found = list(functions())
    lengths = sorted(length for _, length, _ in found)
    assert statistics.median(lengths) <= 8
    assert lengths[int(0.9 * len(lengths))] <= 25
    assert [name for name, length, _ in found if length > 75] == []
    assert [(name, count) for name, _, count in found if count > 10] == []


@pytest.mark.parametrize(("folder", "most"), [("verydeep", 350), ("tests", 500), ("benchmarks", 500)])
def test_files_are_short(folder, most):
    lengths = {path: len(path.read_text().splitlines()) for path in sorted((ROOT / folder).rglob("*.py"))}
    assert {str(path): length for path, length in lengths.items() if length > most} == {}


def test_texts_of_constants_and_fields_begin_with_what_they_are():
    texts = {
        f"{path.relative_to(ROOT)}:{statement.lineno}": statement.value.value
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        for statement in (node.body if isinstance(node, ast.Module | ast.ClassDef) else [])
        if is_text(statement)
    }
    assert {place: text for place, text in texts.items() if re.match(r"(Of|The same)\b", text)} == {}


def test_docstrings_begin_with_what_a_thing_does():
    odd = re.compile(r"(Of|The same|What|How|Whether|So)\b")
    first_lines = {
        f"{path.relative_to(ROOT)}:{node.name}": (ast.get_docstring(node) or "").partition("\n")[0]
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and not is_property(node)
    }
    assert {name: line for name, line in first_lines.items() if odd.match(line)} == {}


def test_names_used_in_one_module_alone_are_private():
    words = {path: set(re.findall(r"[A-Za-z_]\w*", path.read_text())) for path in MODULES}
    others = [ROOT / "verydeep/__init__.pyi", *(ROOT / "verydeep").rglob("*.jinja")]
    elsewhere = {word for path in others for word in re.findall(r"\w+", path.read_text())}
    alone = [
        f"{path.relative_to(ROOT)}:{node.name}"
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and node.name not in elsewhere
        if not any(node.name in words[other] for other in MODULES if other != path)
    ]
    assert [name for name in alone if not name.startswith("verydeep/commands/")] == []


def test_constants_that_nothing_else_uses_are_private():
    """Tests and benchmarks may compare with a constant."""
    others = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py"), *(ROOT / "docs").glob("*.py")]
    templates = (ROOT / "verydeep").rglob("*.jinja")
    words = {path: set(re.findall(r"\w+", path.read_text())) for path in [*MODULES, *others, *templates]}
    alone = [
        f"{path.relative_to(ROOT)}:{name}"
        for path in MODULES
        for node in ast.parse(path.read_text()).body
        for name in map(ast.unparse, getattr(node, "targets", []))
        if re.fullmatch(r"[A-Z][A-Z0-9_]*", name)
        and not any(name in its for other, its in words.items() if other != path)
    ]
    assert alone == []


def test_a_name_of_a_type_means_one_thing():
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.parse(path.read_text()).body:
            named = [node.name] if isinstance(node, ast.ClassDef) else map(ast.unparse, getattr(node, "targets", []))
            for name in named:
                if re.fullmatch(r"[A-Z]\w*[a-z]\w*", name):  # a class, or another name for a type
                    places[name].append(str(path.relative_to(ROOT)))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def defaults(node):
    """Yield the names of a function's arguments, or of a class's fields, with the values that they have by default."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        positional = [*node.args.posonlyargs, *node.args.args]
        with_default = positional[len(positional) - len(node.args.defaults) :]
        named = zip([*with_default, *node.args.kwonlyargs], [*node.args.defaults, *node.args.kw_defaults], strict=True)
        yield from ((argument.arg, value) for argument, value in named)
    if isinstance(node, ast.ClassDef):
        yield from ((each.target.id, each.value) for each in node.body if isinstance(each, ast.AnnAssign))


def test_no_number_or_word_is_written_twice_as_the_default_of_one_name():
    places = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            for name, value in defaults(node):
                written = value.value if isinstance(value, ast.Constant) else None
                if type(written) in (int, float, str) and written not in (0, 1, ""):
                    places[name, written].append(f"{path.relative_to(ROOT)}:{node.name}")
    assert {default: where for default, where in places.items() if len(where) > 1} == {}
    assert len(places) > 20


NOT_FOR_PEOPLE = {
    "verydeep/conversion/export.py :g": "an option, as it is typed",
    "verydeep/networks/foreign/preprocessing.py :.0g": "rounds, and is read again",
    "verydeep/reproduction/steering.py :g": "an option, as it is typed",
    "verydeep/serving/page.html.jinja %g": "page.js reads it",
    "verydeep/serving/results.html.jinja %.4f": "a width in SVG",
    "verydeep/training/start.py :g": "an option, as it is typed",
}
"""Numbers that machines read, by file and format, and what they are."""

PERCENT_FORMAT = r"%[-+ #\d.]*[eEfFgGd]"
BRACE_FORMAT = r"\{\w*(:[-+ ,_.\d]*(?:,|[eEfFgGn]|\.\d+%))\}"


def formats_in_code(text):
    """Yield formats that write figures: not zeros in front of file names, hexadecimal digits, or columns of text."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
            spec = "".join(part.value if is_written(part) else "0" for part in node.format_spec.values)
            if not re.fullmatch(r"[<>^]?\d*[dx]?", spec):
                yield f":{spec}"
        if is_written(node):
            yield from re.findall(BRACE_FORMAT, node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod) and is_written(node.left):
            yield from re.findall(PERCENT_FORMAT, node.left.value)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "format":
            yield ast.unparse(node)


def is_written(node):
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def formats_in_template(text):
    """Yield formats of figures between quotes, which may be escaped as in the catalogue of translations."""
    found = re.finditer(rf"""["']({PERCENT_FORMAT})\\?["']|{BRACE_FORMAT}""", text)
    return [one.group(1) or one.group(2) for one in found]


def test_numbers_are_written_by_the_functions_of_numbers():
    found = {
        f"{path.relative_to(ROOT)} {spec}"
        for path in MODULES
        if path != ROOT / "verydeep" / "numbers.py"
        for spec in formats_in_code(path.read_text())
    }
    templates = [*(ROOT / "verydeep").rglob("*.jinja"), *(ROOT / "verydeep").rglob("*.toml")]
    found |= {
        f"{path.relative_to(ROOT)} {spec}" for path in templates for spec in formats_in_template(path.read_text())
    }
    assert found == set(NOT_FOR_PEOPLE)


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("f'{a:,} {b:.1f} {c:+z.{digits}f} {d:{width}.2g}'", [":,", ":.1f", ":+z.0f", ":0.2g"]),
        ("'{:.2f} and {share:.1%}'.format(a, share=b)", [":.2f", ":.1%"]),
        ("'%.3f of %d' % (a, b)", ["%.3f", "%d"]),
        ("format(a, '.2f')", ["format(a, '.2f')"]),
        ("f'step-{a:08d} {b:04x} {c:<10} {d:0{digits}}'", []),
        ("'{a} of 5% or {b: c}'", []),
        ("b'P6 %d' % a", []),
    ],
)
def test_formats_of_numbers_are_found_in_code(text, specs):
    assert sorted(formats_in_code(text)) == sorted(specs)


@pytest.mark.parametrize(
    ("text", "specs"),
    [
        ("""{{ "%g" | format(c) }}, {{ '%.3f' % score }}""", ["%g", "%.3f"]),
        (r"""{{ \"%g\" | format(c) }}""", ["%g"]),
        ("""{{ "{:,.1f} MB".format(size) }}""", [":,.1f"]),
        ("""<style>a{width:50%}</style><p style="width: 50%">{% if "a" %}{{ c | decimal(2) }}{% endif %}""", []),
    ],
)
def test_formats_of_numbers_are_found_in_templates(text, specs):
    assert formats_in_template(text) == specs


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.name)
def test_benchmarks_import_what_there_is(path):
    imports = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    wanted = [(node.module, name.name) for node in imports for name in node.names if node.module.startswith("verydeep")]
    assert [found for found in wanted if not hasattr(importlib.import_module(found[0]), found[1])] == []


def test_what_two_test_files_need_is_written_once():
    """As lines: parsing all tests takes seconds."""
    places = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for name, block in re.findall(
            r"^(?:def|class) (\w+)(.*?)(?=^\S|\Z)", path.read_text(), re.MULTILINE | re.DOTALL
        ):
            lines = re.sub(r'\n    """.*?"""\n', "\n", block, count=1, flags=re.DOTALL).split("\n")
            lines = [line for line in lines if line]
            if len(lines) > 3:
                places["\n".join(lines)].append(f"{path.relative_to(ROOT)}:{name}")
    assert [where for where in places.values() if len(where) > 1] == []


def test_make_battery_runs_every_file_that_is_longer_in_it():
    recipe = re.search(r"^battery:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)[1]
    named = [ROOT / word for word in recipe.split() if word.startswith("tests")]
    asks = re.compile(r"mark\.battery\b|\bbattery\b[,)]")  # by the mark, or by the fixture
    longer = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if asks.search(path.read_text())]
    assert [path.name for path in longer if not any(path.is_relative_to(place) for place in named)] == []
    assert len(longer) > 20


def test_an_archive_of_the_sources_holds_every_file():
    builder = pytest.importorskip("hatchling.builders.sdist").SdistBuilder(str(ROOT))
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("git, which knows the files, is not here")
    known = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    held = {file.distribution_path for file in builder.recurse_included_files()}
    assert set(known.stdout.split("\0")) - held == {"", ".gitignore", "pyproject.toml"}  # hatchling adds these itself


@pytest.mark.parametrize(("kind", "host"), [(socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")])
@pytest.mark.parametrize("way", ["connect", "connect_ex"])
def test_tests_connect_to_no_other_machine(kind, host, way):
    with socket.socket(kind) as connection:
        connection.setblocking(False)
        with pytest.raises(pytest.fail.Exception, match=host):
            getattr(connection, way)((host, 9))


def wanted_by(requirement, *, anywhere):
    """Yield what an installed package requires, on this platform or on any."""
    try:
        written = requires(requirement.name) or ()
    except PackageNotFoundError:
        return
    for one in map(Requirement, written):
        extras = set(re.findall(r"extra == ['\"](.*?)['\"]", str(one.marker)))
        asked = [extra for extra in ("", *requirement.extras) if extra in extras or not extras]
        if any(anywhere or one.marker is None or one.marker.evaluate({"extra": extra}) for extra in asked):
            yield one


def pulled_in(*, anywhere):
    """Return the packages that an install with all extras pulls in; not what those do that are not here, nor Ray."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    left, seen = [Requirement(one) for its in (project["dependencies"], *extras) for one in its], set()
    while left:
        requirement = left.pop()
        if str(requirement) not in seen and requirement.name != "verydeep":
            seen.add(str(requirement))
            left += [] if requirement.name == "ray" else wanted_by(requirement, anywhere=anywhere)
    return {canonicalize_name(Requirement(one).name) for one in seen}


def fixed_versions():
    """Return the packages whose versions are fixed."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}


def test_fixed_versions_take_the_oldest_python_that_the_project_takes():
    """Debian 12 has 3.11.2: `make install` failed there by a version of 3.11.5 and later."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = f"{wanted.removeprefix('>=')}.0"
    here = [one for one in distributions() if canonicalize_name(one.name) in fixed_versions()]
    assert len(here) > 50
    assert [one.name for one in here if oldest not in SpecifierSet(one.metadata["Requires-Python"] or "")] == []


def test_versions_are_fixed_of_what_an_install_pulls_in_and_of_nothing_else():
    fixed = fixed_versions()
    for_cuda = re.compile("nvidia-|cuda-|triton$")  # PyTorch's own wheels fix these
    assert {name for name in pulled_in(anywhere=False) - fixed if not for_cuda.match(name)} == set()
    assert fixed - pulled_in(anywhere=True) == set()


def test_the_map_is_that_of_the_code():
    done = subprocess.run([sys.executable, ROOT / "docs" / "map.py", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("shape", "says"), [((2, 3), "LocalResponseNorm.forward"), ((2, 3, 4, 4), None)])
def test_shapes_in_types_are_checked_at_every_call(shape, says):
    layer = LocalResponseNorm()
    with pytest.raises(jaxtyping.TypeCheckError, match=says) if says else nullcontext():
        layer(torch.zeros(shape))


@pytest.mark.parametrize(
    ("rows", "sizes", "says"),
    [
        (np.ones((2, 2)), np.ones(2, int), None),
        (np.ones((3, 3)), None, None),
        (np.ones((2, 2)), np.ones(3, int), "sizes is int64"),
        (np.ones((2, 2)), np.ones(2), "sizes is float64"),
        (np.ones((2, 2), int), None, "rows is int64"),
        (np.ones((2, 3)), np.ones(2, int), "its result is float64"),
    ],
)
def test_what_fitted_before_lets_nothing_else_through(rows, sizes, says):
    def taken(rows: Float[np.ndarray, "N K"], sizes: Int[np.ndarray, " N"] | None = None) -> Float[np.ndarray, " K"]:
        return rows[0] if sizes is None else rows[:, 0]

    checked = check_shapes(taken, jaxtyping.jaxtyped.args[0])
    for _ in range(2):
        checked(np.ones((2, 3)))
        checked(np.ones((2, 2)), np.ones(2, int))
        with pytest.raises(jaxtyping.TypeCheckError, match=says) if says else nullcontext():
            checked(rows, sizes)


def written_by_hand():
    """Return what ARCHITECTURE.md says beside its map."""
    before, _, rest = (ROOT / "docs" / "ARCHITECTURE.md").read_text().partition("<!-- map: written by docs/map.py -->")
    return before + rest.partition("<!-- end of the map -->")[2]


def defined_in(path):
    """Return the names of the functions of a module, those of its classes as `Class.method`."""
    for node in ast.parse(path.read_text()).body:
        yield node.name if isinstance(node, ast.FunctionDef) else None
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}.{own.name}" for own in node.body if isinstance(own, ast.FunctionDef))


def test_every_decision_has_a_number_and_a_reason():
    decisions = re.split(r"\n(?=\d+\. )", written_by_hand().partition("## Decisions")[2])[1:]
    assert [int(text.partition(".")[0]) for text in decisions] == list(range(1, len(decisions) + 1))
    assert [text for text in decisions if "Why: " not in " ".join(text.split())] == []


def test_the_way_of_one_image_goes_through_functions_that_there_are():
    way = written_by_hand().partition("## The way of one image")[2].partition("\n## ")[0]
    room, module, missing, count = "", "", [], 0
    for rooms, functions in re.findall(r"^\|(.*?)\|(.*?)\|", way, re.MULTILINE):
        room = next(iter(re.findall("`(.*?)`", rooms)), room)
        for name in re.findall("`(.*?)`", functions):
            *folders, function = re.fullmatch(r"((?:[a-z]\w*\.)*)((?:[A-Z]\w*\.)?\w+)", name).groups()
            module = folders[0].strip(".").replace(".", "/") or module
            count += 1
            if function not in set(defined_in(ROOT / "verydeep" / room / f"{module}.py")):
                missing.append(name)
    assert missing == []
    assert count > 20


def test_files_and_names_in_the_page_of_the_house_are_there():
    quoted = set(re.findall(r"`([^`\s]+)`", written_by_hand()))
    files = {name for name in quoted if re.search(r"\.(py|jinja|md|ci)$", name)}
    folders = [ROOT / name for name in ("verydeep", "tests", "docs", "benchmarks", "examples")]
    there = [path.as_posix() for path in (*ROOT.iterdir(), *(file for each in folders for file in each.rglob("*.*")))]
    assert [name for name in files if not any(path.endswith(f"/{name}") for path in there)] == []
    words = {word for path in [*MODULES, ROOT / "pyproject.toml"] for word in re.findall(r"\w+", path.read_text())}
    names = {name for name in quoted if re.fullmatch(r"_?[a-zA-Z]\w*(\.\w+)*", name)} - files
    assert [name for name in names if not words.issuperset(name.split("."))] == []
