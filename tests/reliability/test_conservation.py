"""Nothing is lost: images used, unusable and left out are all files that there are, in any tree that is made here."""

import io
import os
import tarfile
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from verydeep import predict, scan, vgg
from verydeep.images.open import open_for_testing, open_for_training, open_one_split
from verydeep.images.sources.given import given_images
from verydeep.runs.model import Model


def encoded(kind):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, kind)
    return buffer.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")
CONTENTS = {"png": PNG, "jpeg": JPEG, "page": b"<html>", "none": b""}
NAMES = ("a.png", "b.JPG", "c", "d.v2.jpg", "e.txt", "f.nef", ".g.png", "h.png~", "Thumbs.db", "i.dat")
FOLDERS = ("x", "y.z", ".hidden", "@eaDir")
TARGETS = ("..", ".", "../..", "x", "../x", "a.png", "nowhere", "../../store", "../cat", "../dog/x")

files = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(sorted(CONTENTS)), max_size=5)
links = st.dictionaries(st.sampled_from(("l", "m.jpg", ".n", "o.txt")), st.sampled_from(TARGETS), max_size=3)
trees = st.recursive(
    st.tuples(files, links, st.just({})),
    lambda inner: st.tuples(files, links, st.dictionaries(st.sampled_from(FOLDERS), inner, max_size=3)),
    max_leaves=6,
)


def build(folder, tree):
    its_files, its_links, folders = tree
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in its_files.items():
        (folder / name).write_bytes(CONTENTS[content])
    for name, target in its_links.items():
        if name not in its_files and name not in folders:
            (folder / name).symlink_to(target)
    for name, inner in folders.items():
        if name not in its_files:
            build(folder / name, inner)


def reached(root, seen=None):
    """Every file that there is, as plainly as it can be said: a folder once, those that links lead to last.

    In hidden folders no link is followed. Of a folder that was seen already, the link to it is a file.
    """
    seen = (
        {os.path.realpath(folder) for folder in (root, *Path(os.path.realpath(root)).parents)} if seen is None else seen
    )
    found, waiting = [], []
    own = [Path(root)]
    while own or waiting:
        folder = own.pop(0) if own else waiting.pop(0)
        real = os.path.realpath(folder)
        if folder != root and real in seen:
            found.append(str(folder))
            continue
        seen.add(real)
        for path in sorted(folder.iterdir()):
            if path.name in (".hidden", "@eaDir") and not path.is_symlink() and path.is_dir():
                found += [str(inner) for inner in path.rglob("*") if inner.is_symlink() or not inner.is_dir()]
            elif path.is_dir() and path.name != ".n":
                (waiting if path.is_symlink() else own).append(path)
            else:
                found.append(str(path))
    return found


def check_printed(inventory):
    """What is printed of what is left out adds up to it; folders without files do not count as files."""
    lines = [line for line in inventory.lines() if "without files" not in line]
    counts = [int(line.removeprefix("left out ").partition(" ")[0].replace(",", "")) for line in lines]
    assert sum(counts) == inventory.total.left_out


def check_scanned(splits):
    """Images that `scan` can use, those that it cannot, labels and what is left out are all files."""
    scanned = scan(splits)
    unusable = sum(len(part.unusable) for part in scanned.splits)
    usable = sum(part.images for part in scanned.splits) - unusable
    total = scanned.inventory.total
    assert usable + unusable + total.labels + total.left_out == total.files
    check_printed(scanned.inventory)


def check(root):
    given = given_images(root)
    assert given.inventory.total.files == len(reached(root))
    assert given.inventory.total.images == len(given) == len(set(given.ids))
    check_printed(given.inventory)


def check_predicted(root, net):
    """Images that `predict` tells classes of, those that it cannot use, and what is left out are all files."""
    source = given_images(root)
    predictions = list(predict(net, source))
    usable = [one.image for one in predictions if one.error is None and one.classes]
    unusable = [one.image for one in predictions if one.error is not None and not one.classes]
    assert sorted(usable + unusable) == sorted(source.ids)
    assert len(usable) + len(unusable) + source.inventory.total.left_out == len(reached(root))


@pytest.fixture(scope="module")
def net():
    """Nothing is learned: only what becomes of each image counts."""
    module = vgg("A", classes=2, crop=32, width=0.05)
    return Model(net=module.eval(), classes=("cat", "dog"), scale="256", flip=False)


def test_images_predicted_unusable_and_left_out_are_all_files_of_a_folder(net, battery, figure):
    examples = 200 if battery else 8
    limits = settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)

    def check_tree(tree):
        with TemporaryDirectory() as folder:
            build(Path(folder) / "store", ({"s.png": "png", "s.txt": "none"}, {"back": "../photos"}, {}))
            build(Path(folder) / "photos", tree)
            for name, content in (("used.png", "png"), ("page.jpg", "page")):  # one of each at least
                (Path(folder) / "photos" / name).write_bytes(CONTENTS[content])
            check_predicted(Path(folder) / "photos", net)

    limits(given(trees)(check_tree))()
    figure(27, "files predicted", f"{examples} random folders: predicted, unusable and left out add up")


def test_images_and_what_is_left_out_are_all_files_of_a_folder(battery, figure):
    examples = 600 if battery else 20
    limits = settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    classes = st.fixed_dictionaries({"cat": trees, "dog": trees})
    limits(given(classes, st.tuples(files, links, st.just({})))(check_folder))()
    figure(27, "files found", f"{examples} random folders: used, unusable and left out add up")


def check_folder(classes, beside):
    with TemporaryDirectory() as folder:
        root = Path(folder) / "photos"
        build(Path(folder) / "store", ({"s.png": "png", "s.txt": "none"}, {"back": "../photos"}, {}))
        for name, tree in classes.items():
            build(root / name, tree)
            for number in range(2):
                (root / name / f"{number}.png").write_bytes(PNG)
            check(root / name)
        build(root, (*beside[:2], {}))
        beside_names = [path for path in root.iterdir() if path.name not in classes]
        splits = open_for_training(str(root))
        counts = Counter(source.classes[label] for source in splits.sources.values() for label in source.labels)
        ids = [name for source in splits.sources.values() for name in source.ids]
        assert len(ids) == len(set(ids)) == splits.inventory.total.images
        for name in classes:
            found = splits.inventory.places[name]
            assert found.files == len(reached(root / name))
            assert found.images == counts[name]
        linked_classes = [name for name in splits.inventory.places if name not in (*classes, "")]
        assert splits.inventory.total.files == sum(
            [*(len(reached(root / name)) for name in (*classes, *linked_classes))]
            + [path.name not in linked_classes and path.name not in splits.inventory.empty for path in beside_names]
        )
        check_scanned(splits)
        features = open_one_split(str(root))
        assert sorted(features.ids) == sorted(ids)
        assert features.inventory == splits.inventory


# archives

KEYS = ("a", "b/c", "IMG.2020.01", "d e")
SAMPLES = ("plain", "own", "shared", "mask", "hard link", "symbolic link")
KINDS = (*SAMPLES, "text", "hidden", "dangling", "pipe")
archives = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(KINDS), st.sampled_from("xyz")), max_size=14)


def members_of(number, key, kind, label):
    """Members of an archive, (name, type, contents or target), and the image that they make, if they make one."""
    base = f"{number}-{key}" if "/" not in key else f"{number}/{key}"
    stem = base.split("/")[-1].split(".")[0]
    folder = base.rpartition("/")[0]
    first = f"{folder}/{stem}" if folder else stem
    image, text = tarfile.REGTYPE, label.encode()
    if kind == "plain":
        return [(f"{base}.png", image, PNG), (f"{base}.cls", image, text)], f"{base}.png"
    if kind == "own":
        return [(f"{base}.v2.PNG", image, PNG), (f"{base}.v2.cls", image, text)], f"{base}.v2.PNG"
    if kind == "shared":
        return [(f"{first}.v2.png", image, PNG), (f"{first}.cls", image, text)], f"{first}.v2.png"
    if kind == "mask":
        made = [(f"{first}.png", image, PNG), (f"{first}.cls", image, text), (f"{first}.mask.png", image, PNG)]
        return made, f"{first}.png"
    if kind in ("hard link", "symbolic link"):
        up = "../" * base.count("/") if kind == "symbolic link" else ""
        link = tarfile.LNKTYPE if kind == "hard link" else tarfile.SYMTYPE
        return [(f"{base}.png", link, f"{up}first.png"), (f"{base}.cls", image, text)], f"{base}.png"
    types = {"dangling": tarfile.SYMTYPE, "pipe": tarfile.FIFOTYPE}
    names = {"text": f"{base}.txt", "hidden": f"{base}/.h.png", "dangling": f"{base}.jpg", "pipe": f"{base}.fifo"}
    return [(names[kind], types.get(kind, image), "nowhere" if kind in types else b"words")], None


def check_archive(parts):
    members, expected = [], {"first.png": "x", "second.png": "y"}
    for name, label in expected.items():
        members += [(name, tarfile.REGTYPE, PNG), (f"{name[:-4]}.cls", tarfile.REGTYPE, label.encode())]
    for number, (key, kind, label) in enumerate(parts):
        made, image = members_of(number, key, kind, label)
        members += made
        expected |= {image: label} if image else {}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.tar"
        with tarfile.open(path, "w") as archive:
            for name, kind, content in members:
                member = tarfile.TarInfo(name)
                member.type = kind
                if kind == tarfile.REGTYPE:
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
                else:
                    member.linkname = content
                    archive.addfile(member)
        splits = open_for_testing(str(path), None)
        source = splits.source("all")
        names = (name.removeprefix("a.tar/") for name in source.ids)
        found = dict(zip(names, (source.classes[label] for label in source.labels), strict=True))
        assert found == expected
        assert all(source[index].data == PNG for index in range(len(source)))
        total = splits.inventory.total
        assert (total.files, total.images) == (len(members), len(source))
        trained = open_for_training(str(path)) if min(Counter(expected.values()).values()) > 1 else splits
        assert sorted(name for part in trained.sources.values() for name in part.ids) == sorted(source.ids)
        check_scanned(trained)
        features = open_one_split(str(path))
        assert (sorted(features.ids), features.inventory) == (sorted(source.ids), splits.inventory)


def test_images_and_what_is_left_out_are_all_members_of_an_archive(battery, figure):
    examples = 2_000 if battery else 40
    limits = settings(max_examples=examples, suppress_health_check=list(HealthCheck), database=None)
    limits(given(archives)(check_archive))()
    figure(27, "members found", f"{examples} random archives: used and left out add up, by class too")
