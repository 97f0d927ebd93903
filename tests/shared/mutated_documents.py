"""Documents with changes: JSON, JSON lines, XML, and tables and lists of any kind."""

import io
import json
import re
from xml.etree import ElementTree

import numpy as np

VALUES = [None, True, 0, -1, 1.5, 10**18, 10**25, 1e308, float("nan"), float("inf"), "", "x", "\x1b[2J"]
VALUES += ["\ud800", [], {}, [1], {"a": 1}, "9" * 100_000]
ENCODINGS = ["utf-16", "utf-32", "utf-8-sig", "cp1252", "utf-7"]
JUNK = [b"", b"\0", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b'"' * 1000, b"," * 1000, b"\r", b"\n" * 1000]
JUNK += [
    b"<a>" * 100_000,
    b"<a>" * 100_000 + b"</a>" * 100_000,
    b"&x;",
    b"- " * 100_000,
    b"!!python/name:os.system ",
    b"*x\t",
    b"'" * 3,
]

LAUGHS = b"<!DOCTYPE a [<!ENTITY a0 'ha'>%b]>" % b"".join(
    b"<!ENTITY a%d '%b'>" % (level, b"&a%d;" % (level - 1) * 10) for level in range(1, 12)
)
"""Entities of entities: a text of 2e11 characters, if they are replaced."""

_CELLS = re.compile(r"([,;|=:\t\n ])")
"""What divides tables and lists of any kind."""

_DTYPES = ["u1", "i8", "f8", "?", "c16", "U3", "S2", "M8[s]"]


def places(value, path=()):
    """Yield the path of every value in JSON."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        yield from places(inner, (*path, key))


def changed_json(value, rng):
    """Return JSON with another value in a place, without it, with it twice, or deep in lists."""
    *above, last = rng.choice([*places(value)][1:] or [()]) or (None,)
    if last is None:
        return rng.choice(VALUES)
    holder = value
    for key in above:
        holder = holder[key]
    match rng.randrange(4):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, dict):
            holder[f"{last}s"] = holder[last]
        case 2:
            for _ in range(rng.choice([1, 90, 150])):
                holder[last] = [holder[last]]
        case _:
            holder[last] = rng.choice(VALUES)
    return value


def changed_xml(text, rng):
    """Return XML with another text in an element, without it, with it twice, under another name, or with deep ones."""
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        return text
    parent, element = rng.choice([(parent, child) for parent in root.iter() for child in parent] or [(root, root)])
    match rng.randrange(6):
        case 0 if parent is not element:
            parent.remove(element)
        case 1:
            parent.append(ElementTree.fromstring(ElementTree.tostring(element)))
        case 2:
            element.tag = rng.choice(["x", "object", "{n}name", "bndbox"])
        case 3:
            levels = rng.choice([1, 150])
            return text.replace("</", f"{'<a>' * levels}{'</a>' * levels}</", 2)
        case 4 if rng.random() < 0.1:  # the parser takes most of a second to refuse it
            return text.replace("<", LAUGHS.decode() + "<", 1).replace("</name>", "&a11;</name>", 1)
        case _:
            element.text = re.sub("[^\t\n -~]", "?", str(rng.choice(VALUES)))
    return ElementTree.tostring(root, "unicode")


def changed_cells(text, rng):
    """Return a table or a list with another value in a cell or in place of what divides cells, or a cell elsewhere."""
    cells = _CELLS.split(text)  # what divides them has the odd places
    at = rng.randrange(0, len(cells), 2)
    match rng.randrange(8):
        case 0:
            cells[at - 1] = rng.choice(cells)
        case 1:
            cells[at] += cells[at - 1] + cells[at]
        case 2:
            cells[at] = rng.choice(cells[::2])
        case _:
            cells[at] = str(rng.choice(VALUES)).encode("utf-8", "replace").decode()
    return "".join(cells)


def changed(text, name, rng):
    """Return a text with one change to its structure, by its file's name."""
    if name.endswith(".json"):
        return json.dumps(changed_json(json.loads(text), rng)) if len(text) < 10**5 else text
    if name.endswith(".jsonl"):
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at] = json.dumps(changed_json(json.loads(lines[at]), rng))
        return "\n".join(lines)
    return changed_xml(text, rng) if name.endswith(".xml") else changed_cells(text, rng)


def mutated(text, name, rng):
    """Return the bytes of a file: mostly changed in its structure, sometimes in its encoding or its bytes."""
    for _ in range(rng.choice([1, 1, 2, 5])):
        text = changed(text, name, rng)
    data = text.encode("utf-8", "surrogatepass")
    match rng.randrange(12):
        case 0:
            return text.encode(rng.choice(ENCODINGS), "replace")
        case 1:
            at = rng.randrange(len(data) + 1)
            return data[:at] + rng.choice(JUNK) + data[at:]
        case 2:
            return data[: rng.randrange(len(data) + 1)]
    return data


def mutated_arrays(content, rng):
    """Return the bytes of an `.npz` file in which an array has another type, shape or name, or is missing."""
    arrays = dict(np.load(io.BytesIO(content)))
    name = rng.choice(sorted(arrays))
    array = arrays.pop(name)
    match rng.randrange(6):
        case 0:
            arrays[name] = np.zeros(rng.choice([(), (0,), (3,), (2, 0), (1, 5), (2, 2, 2)]), array.dtype)
        case 1:
            arrays[name] = np.zeros(array.shape, rng.choice(_DTYPES))
        case 2:
            arrays[name] = np.full_like(array, rng.choice([0, 1, 255]))
        case 3:
            arrays[rng.choice(["", "x", "images", "images/", f"{name} ", name.upper(), "\x1b[2J"])] = array
        case 4:
            arrays[name] = np.array(rng.choice([-1, 10**12, 2**63 - 1]))
    file = io.BytesIO()
    rng.choice([np.savez, np.savez_compressed])(file, **arrays)
    return file.getvalue()
