"""Shards that are damaged, incomplete or odd: refused by a message that says why, or read all the same."""

import gzip
import os
import re
import tarfile

import pytest
from shard_files import found, items, png, sample, samples, sizes, whole, write_shard

from verydeep.images.decode import UnusableImageError
from verydeep.images.open import open_for_training

# what is wrong with shards


def refused(name, message):
    with pytest.raises(ValueError, match=message) as caught:
        open_for_training(str(name))
    assert "\n" not in str(caught.value)


def test_shards_that_are_not_there_are_counted(tmp_path):
    write_shard(tmp_path / "000.tar", samples([0, 1]))
    write_shard(tmp_path / "002.tar", samples([0, 1]))
    first = re.escape(str(tmp_path / "001.tar"))
    refused(f"{tmp_path}/{{000..003}}.tar", rf"^no file {first} \(2 of 4 shards missing\)$")
    refused(f"{tmp_path}/001.tar", rf"^no file {first}$")
    refused(f"{tmp_path}/x*.tar", rf"^no file {re.escape(str(tmp_path))}/x\*\.tar$")


def test_braces_that_do_not_match_are_refused(tmp_path):
    write_shard(tmp_path / "000.tar", samples([0, 1]))
    refused(f"{tmp_path}/{{000..003.tar", r"000\.\.003\.tar: braces that do not match$")


@pytest.mark.parametrize("kind", ["compressed", "text", "empty file"])
def test_files_that_are_no_plain_tar_files_are_named(tmp_path, kind):
    path = write_shard(tmp_path / "a.tar", samples([0, 1]))
    content = {"compressed": gzip.compress(path.read_bytes()), "text": b"no tar at all\n" * 80, "empty file": b""}[kind]
    path.write_bytes(content)
    refused(path, f"^{re.escape(str(path))} is not a tar file that can be read at random: ")


@pytest.mark.parametrize("missing", ["half of an image", "a class file", "half of a header"])
def test_a_shard_that_was_cut_is_refused(tmp_path, missing):
    path = write_shard(tmp_path / "a.tar", samples([0, 1, 0, 1]))
    with tarfile.open(path) as archive:
        offsets = {member.name: (member.offset, member.offset_data) for member in archive}
    cut = {
        "half of an image": offsets["003.png"][1] + 20,
        "a class file": offsets["003.cls"][0],
        "half of a header": offsets["003.cls"][0] + 100,
    }[missing]
    os.truncate(path, cut)
    refused(
        path,
        f"^{re.escape(str(path))} "
        "(is not a tar file that can be read at random|has no class for 003.png|is cut off or damaged)",
    )


def test_an_image_without_a_class_is_named(tmp_path):
    path = write_shard(tmp_path / "a.tar", [*samples([0, 1]), ("cat/9.png", png(9)), ("dog/9.cls", b"0")])
    refused(path, rf"^{re.escape(str(path))} has no class for cat/9\.png: add a \.cls or \.json of the same name$")


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_an_empty_class_file_is_named(tmp_path, content):
    path = write_shard(tmp_path / "a.tar", [*samples([0, 1]), ("009.png", png(9)), ("009.cls", content)])
    refused(path, rf"^009\.cls in {re.escape(str(path))} names no class")


@pytest.mark.parametrize("content", ["{}", '{"width": 8}', '{"label": null}', '{"label": true}', '{"label": [1]}'])
def test_a_json_without_a_class_is_named(tmp_path, content):
    path = write_shard(tmp_path / "a.tar", [*samples([0, 1]), ("009.png", png(9)), ("009.json", content.encode())])
    refused(path, rf"^009\.json in {re.escape(str(path))} names no class: .* class_name, class, label, cls$")


@pytest.mark.parametrize(
    "member", [("009.json", b'{"label": '), ("009.cls", b"caf\xe9"), ("009.json", b"7"), ("009.json", b"[]")]
)
def test_a_class_that_cannot_be_read_is_named(tmp_path, member):
    path = write_shard(tmp_path / "a.tar", [*samples([0, 1]), ("009.png", png(9)), member])
    refused(path, rf"^{member[0]} in {re.escape(str(path))} cannot be read: ")


@pytest.mark.parametrize("label", ["2", "wasp"])
def test_a_class_that_the_list_lacks_is_named(tmp_path, label):
    (tmp_path / "classes.txt").write_text("ant\nbee\n")
    path = write_shard(tmp_path / "a.tar", samples([0, 1, label]))
    refused(
        path, rf"^{re.escape(str(path))} has a sample of class {label}, which classes\.txt beside it does not list$"
    )


@pytest.mark.parametrize("names", ["ant\nbee\nant\n", "ant\n\nbee\n"])
def test_a_list_of_classes_names_each_once(tmp_path, names):
    (tmp_path / "classes.txt").write_text(names)
    refused(write_shard(tmp_path / "a.tar", samples([0, 1])), r"classes\.txt must name each class once, a line each")


def test_two_images_of_one_name_are_refused(tmp_path):
    path = write_shard(tmp_path / "a.tar", [*samples([0, 1]), ("001.jpg", png(9))])
    refused(path, f"^{re.escape(str(path))} has two images of the name 001$")


def test_a_shard_of_no_split_among_others_is_named(tmp_path):
    for number, name in enumerate(("train-0.tar", "val-0.tar", "more-0.tar")):
        write_shard(tmp_path / name, samples([0, 1], start=2 * number))
    refused(
        tmp_path, rf"^{re.escape(str(tmp_path))}/more-0\.tar belongs to no split, while others have train or val in"
    )


def test_two_names_for_validation_are_refused(tmp_path):
    for number, split in enumerate(("train", "val", "validation")):
        write_shard(tmp_path / f"{split}-0.tar", samples([0, 1], start=2 * number))
        write_shard(tmp_path / "folders" / split / "0.tar", samples([0, 1], start=2 * number))
    refused(f"{tmp_path}/*.tar", "has both val and validation: keep one of them")
    refused(tmp_path / "folders", "has both val and validation: keep one of them")


def test_shards_without_training_images_are_refused(tmp_path):
    for number, split in enumerate(("val", "test")):
        write_shard(tmp_path / split / "0.tar", samples([0, 1], start=2 * number))
    refused(tmp_path, r"has val, test but no train folder$")


def test_shards_without_images_are_refused(tmp_path):
    path = write_shard(tmp_path / "a.tar", [("000.cls", b"0"), ("001.txt", b"nothing to see")])
    refused(path, f"^no images in {re.escape(str(path))}: samples are an image and a .cls or .json of the same name$")
    refused(write_shard(tmp_path / "b.tar", []), "^no images in ")


def test_an_image_that_a_shard_has_no_more_cannot_be_used(tmp_path):
    path = write_shard(tmp_path / "a.tar", samples([0, 0, 1, 1]))
    with tarfile.open(path) as archive:
        last = archive.getmember("003.png")
    source = whole(path, ("0", "1"))
    os.truncate(path, last.offset_data + last.size)
    assert [data for data, _, _ in items(source)] == [png(n) for n in range(4)]
    os.truncate(path, last.offset_data + last.size - 1)
    assert source[2].data == png(2)
    with pytest.raises(UnusableImageError, match=r"^a\.tar/003\.png: unreadable \(.*has become shorter") as caught:
        source[3]
    assert (caught.value.name, caught.value.kind) == ("a.tar/003.png", "unreadable")
    path.unlink()
    with pytest.raises(UnusableImageError, match=r"^a\.tar/000\.png: unreadable \(No such file or directory\)$"):
        source[0]


# what should be refused, or read


@pytest.mark.parametrize("end", ["cut between samples", "damaged header", "two archives in one"])
def test_a_shard_whose_end_is_missing_is_refused(tmp_path, end):
    path = write_shard(tmp_path / "a.tar", samples([0, 1, 0, 1, 0, 1, 0, 1]))
    with tarfile.open(path) as archive:
        middle = archive.getmember("004.png").offset
    content = path.read_bytes()
    path.write_bytes(
        {
            "cut between samples": content[:middle],
            "damaged header": content[:middle] + b"\xff" * 100 + content[middle + 100 :],
            "two archives in one": content + write_shard(tmp_path / "b.tar", samples([0, 1], start=8)).read_bytes(),
        }[end]
    )
    refused(path, re.escape(str(path)))


def test_shards_may_be_links_to_files_elsewhere(tmp_path):
    for number, split in enumerate(("train", "val")):
        write_shard(tmp_path / "store" / f"{number}.tar", samples([0, 1], start=2 * number))
        (tmp_path / "bugs" / split).mkdir(parents=True)
        (tmp_path / "bugs" / split / "0.tar").symlink_to(tmp_path / "store" / f"{number}.tar")
    splits = open_for_training(str(tmp_path / "bugs"))
    assert {split: [data for data, _, _ in items(part)] for split, part in splits.sources.items()} == {
        "train": [png(0), png(1)],
        "val": [png(2), png(3)],
    }


def test_a_shard_beside_folders_of_shards_is_refused(tmp_path):
    for number, name in enumerate(("old.tar", "train/0.tar", "val/0.tar")):
        write_shard(tmp_path / name, samples([0, 1, 0, 1], start=4 * number))
    refused(tmp_path, r"old\.tar")


def test_a_json_about_something_else_may_come_before_the_class(tmp_path):
    members = []
    for n in range(4):
        members += [(f"{n}.json", b'{"width": 8}'), (f"{n}.cls", b"%d" % (n % 2)), (f"{n}.png", png(n))]
    splits = open_for_training(str(write_shard(tmp_path / "a.tar", members)))
    assert found(splits) == {f"{n}.png": (png(n), str(n % 2)) for n in range(4)}


def test_a_folder_of_class_folders_may_be_called_tar(tmp_path):
    for label in ("ant", "bee"):
        (tmp_path / "bugs.tar" / label).mkdir(parents=True)
        for n in range(2):
            (tmp_path / "bugs.tar" / label / f"{n}.png").write_bytes(png(n))
    assert sizes(open_for_training(str(tmp_path / "bugs.tar"))) == {"train": 2, "val": 2}


def test_names_in_shards_may_be_in_an_old_encoding(tmp_path):
    members = [(name.encode("latin1").decode("utf-8", "surrogateescape"), b) for name, b in sample("café", 0, 9)]
    splits = open_for_training(str(write_shard(tmp_path / "a.tar", [*samples([0, 1, 1]), *members])))
    assert sorted(data for data, _ in found(splits).values()) == sorted([png(0), png(1), png(2), png(9)])


def test_each_folder_of_shards_has_a_list_of_its_own(tmp_path):
    write_shard(tmp_path / "one" / "a.tar", samples([0, 0, 1, 1]))
    write_shard(tmp_path / "two" / "b.tar", samples([0, 0, 1, 1], start=4))
    (tmp_path / "one" / "classes.txt").write_text("ant\nbee\n")
    (tmp_path / "two" / "classes.txt").write_text("bee\nant\n")
    splits = open_for_training(f"{tmp_path}/{{one/a,two/b}}.tar")
    labels = [label for _, (_, label) in sorted(found(splits).items())]
    assert labels == ["ant", "ant", "bee", "bee", "bee", "bee", "ant", "ant"]


def test_a_shard_without_the_list_that_others_have_is_named(tmp_path):
    write_shard(tmp_path / "one" / "a.tar", samples([0, 0, 1, 1]))
    write_shard(tmp_path / "two" / "b.tar", samples([0, 0, 1, 1], start=4))
    (tmp_path / "one" / "classes.txt").write_text("ant\nbee\n")
    with pytest.raises(ValueError, match=r"two/b\.tar has a sample of class 0, but no classes\.txt beside it"):
        open_for_training(f"{tmp_path}/{{one/a,two/b}}.tar")


def test_a_list_of_classes_may_lie_above_the_folders_of_the_splits(tmp_path):
    for number, split in enumerate(("train", "val")):
        write_shard(tmp_path / split / "0.tar", samples([0, 1], start=2 * number))
    (tmp_path / "classes.txt").write_text("wasp\nant\n")
    assert open_for_training(str(tmp_path)).classes == ("wasp", "ant")


def test_numbers_as_names_are_not_confused_with_places(tmp_path):
    """Where classes are listed a number is always a place in the list."""
    (tmp_path / "classes.txt").write_text("1\n0\n")
    source = whole(write_shard(tmp_path / "a.tar", samples([0, 1, 1, 1])), ("0", "1"))
    assert sorted(source.labels) == [0, 0, 0, 1]
