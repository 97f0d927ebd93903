"""Whatever is in a shard is a sample, or counted and named: archives as tools and people make them, built here."""

import io
import tarfile

import pytest
from shard_files import found, items, png, sample, samples, whole, write_shard

from verydeep.images.decode import decode
from verydeep.images.open import open_for_testing, open_for_training


def archive(path, members):
    """Write members: (name, content) for a file, (name, kind of link, target) for a link."""
    with tarfile.open(path, "w") as tar:
        for name, *what in members:
            member = tarfile.TarInfo(name)
            if len(what) == 2:
                member.type, member.linkname = what
                tar.addfile(member)
            else:
                member.size = len(what[0])
                tar.addfile(member, io.BytesIO(what[0]))
    return path


def opened(path):
    splits = open_for_testing(str(path), None)
    return found_in_all(splits), splits.inventory


def found_in_all(splits):
    source = splits.source("all")
    return {sample.id.split("/", 1)[1]: (sample.data, source.classes[sample.label]) for sample in items(source)}


@pytest.mark.parametrize("own", [True, False])
def test_names_with_dots_are_samples(tmp_path, own):
    """`img.v2.jpg` has its class in `img.v2.cls`, or in `img.cls`."""
    members = samples([0, 1])
    for number, name in enumerate(("img.v2", "IMG.2020.01.02"), 2):
        label = name if own else name.split(".", 1)[0]
        members += [(f"{name}.png", png(number)), (f"{label}.cls", b"%d" % (number % 2))]
    images, inventory = opened(write_shard(tmp_path / "a.tar", members))
    assert images == {
        "000.png": (png(0), "0"),
        "001.png": (png(1), "1"),
        "img.v2.png": (png(2), "0"),
        "IMG.2020.01.02.png": (png(3), "1"),
    }
    assert inventory.lines() == []
    assert (inventory.total.images, inventory.total.labels) == (4, 4)


def test_what_else_there_is_of_a_sample_is_counted(tmp_path):
    members = samples([0, 1, 0, 1])
    for key in ("000", "001", "002"):
        members += [(f"{key}.mask.png", png(9)), (f"{key}.seg", png(9)), (f"{key}.txt", b"words")]
    members += [("000.json", b'{"width": 8}'), ("README", b"words"), ("004.cls", b"0")]
    images, inventory = opened(write_shard(tmp_path / "a.tar", members))
    assert sorted(images) == [f"{n:03}.png" for n in range(4)]
    assert dict(inventory.total.other_kinds) == {".png": 3, ".seg": 3, ".txt": 3, "": 1, ".cls": 1, ".json": 1}
    assert (inventory.total.images, inventory.total.labels, inventory.total.files) == (4, 4, len(members))


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_are_samples(tmp_path, kind):
    """A whole class of them: hard links name a member, symbolic ones a path from where they are."""
    members = [("store/1.png", png(1)), ("store/2.png", png(2)), *samples([0, 0])]
    for number in (1, 2):
        target = f"store/{number}.png" if kind == tarfile.LNKTYPE else f"../store/{number}.png"
        members += [(f"dog/{number}.png", kind, target), (f"dog/{number}.cls", b"dog")]
        members += [
            (f"store/{number}.cls", kind, f"dog/{number}.cls" if kind == tarfile.LNKTYPE else f"../dog/{number}.cls")
        ]
    images, inventory = opened(archive(tmp_path / "a.tar", members))
    assert {name: value for name, value in images.items() if value[1] == "dog"} == {
        f"{folder}/{number}.png": (png(number), "dog") for folder in ("dog", "store") for number in (1, 2)
    }
    assert inventory.lines() == []
    assert inventory.total.files == len(members)


def test_links_that_lead_nowhere_and_odd_members_are_named(tmp_path):
    members = [
        *(("./" + name, content) for name, content in samples([0, 1, 0, 1])),
        ("gone.png", tarfile.SYMTYPE, "nowhere.png"),
        ("round.png", tarfile.SYMTYPE, "about.png"),
        ("about.png", tarfile.LNKTYPE, "round.png"),
        ("linked", tarfile.SYMTYPE, "store"),
        ("store/a.txt", b""),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("__MACOSX/._000.png", b""),
        (".hidden.png", b""),
    ]
    path = archive(tmp_path / "a.tar", members)
    images, inventory = opened(path)
    assert sorted(images) == [f"./{n:03}.png" for n in range(4)]
    assert inventory.lines() == [
        "left out 1 file of other kinds: 1 .txt",
        "left out 2 hidden files or leftovers of programs",
        "left out 3 broken links: a.tar/about.png, a.tar/gone.png, a.tar/round.png",
        "left out 1 folder already taken under another path: a.tar/linked",
        "left out 1 pipe, socket or device: a.tar/pipe",
    ]
    assert inventory.total.files == len(members)
    assert opened(path)[1] == inventory  # from the kept index


def test_an_image_of_another_name_is_known_by_its_bytes_if_it_has_a_class(tmp_path):
    members = [*samples([0, 1]), ("002.image", png(2)), ("002.cls", b"0"), ("003", png(3)), ("003.cls", b"1")]
    images, inventory = opened(write_shard(tmp_path / "a.tar", members))
    assert images["002.image"] == (png(2), "0")
    assert images["003"] == (png(3), "1")
    assert inventory.lines() == []


@pytest.mark.parametrize("extension", ["cls", "json"])
def test_text_stays_text(tmp_path, extension):
    """`007` is not `7`, and `07` and `7` are two classes; a number of JSON is its digits."""
    names = ["007", "07", "7", "8"]
    members = []
    for number, name in enumerate(2 * names):
        content = name if extension == "cls" else f'{{"class_name": "{name}"}}'
        members += sample(f"{number}", content, number, extension)
    members += sample("9", "8" if extension == "cls" else '{"label": 8}', 9, extension)
    splits = open_for_training(str(write_shard(tmp_path / "a.tar", members)))
    assert splits.classes == ("007", "07", "7", "8")
    assert {name: label for name, (_, label) in found(splits).items()} == {
        **{f"{number}.png": name for number, name in enumerate(2 * names)},
        "9.png": "8",
    }


def test_a_folders_run_takes_its_shards_with_padded_numbers(tmp_path):
    for start, name in enumerate(("007", "07", "7")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            (tmp_path / "photos" / name / f"{number}.png").write_bytes(png(3 * start + number))
    trained = open_for_training(str(tmp_path / "photos")).classes
    members = [
        member for n, name in enumerate(trained) for member in sample(f"{n}", f'{{"class_name": "{name}"}}', n, "json")
    ]
    source = whole(write_shard(tmp_path / "a.tar", members), trained)
    assert [int(decode(item.data)[0, 0, 0]) for item in items(source)] == [0, 1, 2]
    assert list(source.labels) == [0, 1, 2]


def test_padded_numbers_are_places_in_a_list_that_does_not_name_them(tmp_path):
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    assert {label for _, label in opened(write_shard(tmp_path / "a.tar", samples(["00", "01"])))[0].values()} == {
        "ant",
        "bee",
    }
    (tmp_path / "classes.txt").write_text("01\n00\n")
    images, _ = opened(write_shard(tmp_path / "b.tar", samples(["00", "01"])))
    assert [label for _, (_, label) in sorted(images.items())] == ["00", "01"]


def test_what_lies_beside_shards_is_counted(tmp_path):
    for number, split in enumerate(("train", "val")):
        write_shard(tmp_path / split / "0.tar", samples([0, 1, 0, 1], start=4 * number))
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    (tmp_path / "val" / "1.tar.gz").write_bytes(b"x")
    (tmp_path / "val" / "stray.png").write_bytes(png(1))
    inventory = open_for_training(str(tmp_path)).inventory
    assert inventory.lines() == [
        "left out 1 file of other kinds: 1 .gz",
        "left out 1 image without a class: val/stray.png",
    ]
    assert (inventory.total.images, inventory.total.labels) == (8, 9)


def test_a_member_that_is_there_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"a\.tar has two files called 000\.cls$"):
        open_for_training(str(write_shard(tmp_path / "a.tar", [*samples([0, 1]), ("000.cls", b"1")])))


def test_a_class_is_one_in_both_forms_of_unicode(tmp_path):
    members = [
        member for n, name in enumerate(("caf\u00e9", "cafe\u0301", "tea")) for member in sample(f"{n}", name, n)
    ]
    source = open_for_testing(str(write_shard(tmp_path / "a.tar", members)), ("cafe\u0301", "tea")).source("all")
    assert list(source.labels) == [0, 0, 1]
