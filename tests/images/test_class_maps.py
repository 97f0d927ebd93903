"""Which number a class has is said by the training images, or by the net: never by the split at hand.

Every image shows its class: its grey level. Each test prints what came of its case, for each kind of source.
"""

import importlib
import io
import re
import tarfile

import pytest
from PIL import Image

from verydeep.images.open import open_for_testing, open_for_training

GREYS = {"ant": 10, "bee": 20, "cat": 30, "dog": 40, "wasp": 50, "0": 60, "1": 70, "2": 80, "9": 90, "10": 100}


def png(name, number):
    buffer = io.BytesIO()
    Image.new("RGB", (8 + number, 6), (GREYS[name],) * 3).save(buffer, "PNG")
    return buffer.getvalue()


def shown(data):
    """The class that an image shows."""
    grey = Image.open(io.BytesIO(data)).getpixel((0, 0))[0]
    return next(name for name, level in GREYS.items() if level == grey)


def write_folders(root, splits):
    for split, counts in splits.items():
        for name in reversed(counts):  # made in an order that is not that of the alphabet
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(counts[name]):
                (folder / f"{number}.png").write_bytes(png(name, number))
    return str(root)


def write_shards(root, splits, *, listed=True):
    """With their classes as places in a list beside them, in the order of `splits`; or by name."""
    for split, counts in splits.items():
        (root / split).mkdir(parents=True)
        if listed:
            (root / split / "classes.txt").write_text("".join(f"{name}\n" for name in counts))
        with tarfile.open(root / split / "0.tar", "w") as archive:
            for place, (name, count) in enumerate(counts.items()):
                for number in range(count):
                    label = str(place) if listed else name
                    for extension, content in (("png", png(name, number)), ("cls", label.encode())):
                        member = tarfile.TarInfo(f"{number}-of-{len(counts) - place}.{extension}")
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
    return str(root)


def write_shards_by_name(root, splits):
    return write_shards(root, splits, listed=False)


def write_hub(root, splits, *, listed=True):
    """With their classes as places in the list of the column, in the order of `splits`; or by name."""
    hf = importlib.import_module("datasets")
    hf.disable_progress_bars()
    sets = {}
    for split, counts in splits.items():
        rows = [(name, number) for number in range(max(counts.values())) for name in counts if number < counts[name]]
        label = hf.ClassLabel(names=list(counts)) if listed else hf.Value("string")
        sets[split] = hf.Dataset.from_dict(
            {
                "image": [{"bytes": png(name, number), "path": None} for name, number in rows],
                "label": [list(counts).index(name) if listed else name for name, _ in rows],
            },
            features=hf.Features({"image": hf.Image(), "label": label}),
        )
    hf.DatasetDict(sets).save_to_disk(root)
    return f"hub:{root}"


def write_hub_by_name(root, splits):
    return write_hub(root, splits, listed=False)


KINDS = {
    "class folders": write_folders,
    "shards, listed": write_shards,
    "shards, named": write_shards_by_name,
    "hub, listed": write_hub,
    "hub, named": write_hub_by_name,
}
LISTED = ("shards, listed", "hub, listed")


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture
def write(kind, tmp_path):
    return lambda splits: KINDS[kind](tmp_path / "source", splits)


def check(splits, classes, counts):
    """Every image of every part has the number of what it shows; returns how many there are."""
    images = 0
    for split, part in splits.sources.items():
        assert tuple(part.classes) == classes
        items = [part[index] for index in range(len(part))]
        assert (
            [item.label for item in items] == list(part.labels) == [classes.index(shown(item.data)) for item in items]
        )
        if split in counts:
            held = [shown(item.data) for item in items]
            assert {name: held.count(name) for name in counts[split]} == counts[split]
            assert len(items) == sum(counts[split].values())
        images += len(items)
    return images


def refusal(call, *arguments):
    with pytest.raises(ValueError, match="has classes that training lacks: ") as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# in training


def test_classes_that_validation_lacks_leave_the_numbers_alone(kind, write):
    splits = {"train": {"ant": 2, "bee": 3, "cat": 2, "dog": 2}, "val": {"dog": 1, "bee": 2}}
    images = check(open_for_training(write(splits)), ("ant", "bee", "cat", "dog"), splits)
    assert images == 12
    print(f"{kind}; classes missing in validation: all {images} images mapped by name")


@pytest.mark.parametrize("extra", [("cat",), ("0", "cat")])
def test_classes_that_training_lacks_are_named_and_refused(kind, write, extra):
    """An extra class may come before, between or after those of the training images."""
    splits = {"train": {"ant": 2, "bee": 2, "dog": 2}, "val": {"ant": 2, **dict.fromkeys(extra, 1), "bee": 2, "dog": 1}}
    message = refusal(open_for_training, write(splits))
    assert message.endswith(f" has classes that training lacks: {', '.join(extra)}; it has ant, bee, dog")
    assert "val" in message.split(" has classes ")[0]
    print(f"{kind}; {len(extra)} extra in validation: refused, {message.split(' classes that ')[1]}")


def test_an_extra_class_in_the_test_split_is_refused_as_well(kind, write):
    counts = {"ant": 2, "dog": 2}
    message = refusal(open_for_training, write({"train": counts, "val": counts, "test": {**counts, "cat": 1}}))
    assert message.endswith(": cat; it has ant, dog")
    print(f"{kind}; extra in the test split: refused, {message.split(' classes that ')[1]}")


@pytest.mark.parametrize("empty", ["cat", "wasp"])
def test_a_class_without_any_image_in_validation_does_not_count(kind, write, empty):
    """One that training has, or one that it lacks: there is nothing to be wrong about."""
    splits = {"train": {"ant": 2, "bee": 2, "cat": 2}, "val": {empty: 0, "bee": 1, "ant": 2}}
    images = check(open_for_training(write(splits)), ("ant", "bee", "cat"), splits)
    assert images == 9
    print(f"{kind}; {empty} without images in validation: all {images} images mapped by name")


def test_a_class_without_any_image_in_training_does_not_count(kind, write):
    splits = {"train": {"ant": 2, "bee": 0, "cat": 2}, "val": {"ant": 1, "cat": 2}}
    images = check(open_for_training(write(splits)), ("ant", "cat"), splits)
    assert images == 7
    print(f"{kind}; class without images in training: left out, all {images} images mapped by name")


def test_a_class_with_images_in_validation_only_is_refused_though_training_lists_it(kind, write):
    splits = {"train": {"ant": 2, "bee": 0, "cat": 2}, "val": {"ant": 1, "bee": 1, "cat": 2}}
    message = refusal(open_for_training, write(splits))
    assert message.endswith(": bee; it has ant, cat")
    print(f"{kind}; listed in training, without images there: refused, {message.split(' classes that ')[1]}")


def test_another_order_of_the_classes_in_validation_changes_nothing(kind, write):
    splits = {
        "train": {"ant": 2, "bee": 3, "cat": 2},
        "val": {"cat": 1, "ant": 2, "bee": 1},
        "test": {"bee": 1, "cat": 2, "ant": 3},
    }
    images = check(open_for_training(write(splits)), ("ant", "bee", "cat"), splits)
    assert images == 17
    print(f"{kind}; another order in validation and test: all {images} images mapped by name")


def test_the_order_is_that_of_the_training_list_where_there_is_one(kind, write):
    splits = {"train": {"cat": 2, "ant": 3, "bee": 2}, "val": {"ant": 1, "bee": 2, "cat": 1}}
    classes = ("cat", "ant", "bee") if kind in LISTED else ("ant", "bee", "cat")
    images = check(open_for_training(write(splits)), classes, splits)
    assert images == 11
    print(f"{kind}; training in the order cat, ant, bee: {', '.join(classes)}, all {images} images mapped by name")


def test_what_is_held_out_has_the_numbers_of_training(kind, write):
    splits = open_for_training(write({"train": {"cat": 10, "ant": 5, "bee": 15}}))
    classes = ("cat", "ant", "bee") if kind in LISTED else ("ant", "bee", "cat")
    counts = {"train": {"cat": 8, "ant": 4, "bee": 12}, "val": {"cat": 2, "ant": 1, "bee": 3}}
    images = check(splits, classes, counts)
    print(f"{kind}; held out from training: all {images} images mapped by name")


# for a net


NET = ("dog", "ant", "cat", "bee")


def test_a_net_s_order_of_the_classes_is_kept(kind, write):
    splits = {"train": {"ant": 2, "bee": 2, "cat": 2, "dog": 2}, "val": {"bee": 1, "ant": 1, "dog": 2, "cat": 3}}
    images = check(open_for_testing(write(splits), NET), NET, splits)
    assert images == 15
    print(f"{kind}; a net of another order: all {images} images mapped by name")


def test_a_net_may_know_more_classes_than_there_are_images_of(kind, write):
    splits = {"val": {"bee": 2, "dog": 1}}
    opened = open_for_testing(write(splits), NET)
    images = check(opened, NET, {})
    assert images >= 3
    print(f"{kind}; classes missing for a net: all {images} images mapped by name")


def test_a_class_that_the_net_does_not_know_is_named_and_refused(kind, write):
    splits = {"val": {"bee": 2, "wasp": 1, "dog": 1}, "train": dict.fromkeys(NET, 1)}
    message = refusal(open_for_testing, write(splits), NET)
    assert message.endswith(f": wasp; it has {', '.join(NET)}")
    print(f"{kind}; extra for a net: refused, {message.split(' classes that ')[1]}")


def test_images_without_splits_have_the_net_s_numbers_in_every_part(kind, write, tmp_path):
    name = write({"train": {"bee": 5, "ant": 10, "dog": 5}})
    if not name.startswith("hub:"):  # the class folders or shards themselves
        name += "/train"
    opened = open_for_testing(name, NET)
    assert {"train", "val"} < {*opened.sources, "all"}
    counts = {"val": {"bee": 1, "ant": 2, "dog": 1}, "all": {"bee": 5, "ant": 10, "dog": 5}}
    images = check(opened, NET, counts)
    print(f"{kind}; without splits for a net: all {images} images of {', '.join(opened.sources)} mapped by name")


def test_numbers_are_not_taken_for_places_among_a_net_s_names(kind, write):
    message = refusal(open_for_testing, write({"val": {"0": 2, "1": 2}, "train": {"0": 2, "1": 2}}), ("ant", "bee"))
    assert re.search(r": 0, 1; it has ant, bee$", message)
    print(f"{kind}; numbers for a net with names: refused, {message.split(' classes that ')[1]}")


NUMBERED = {"train": {"10": 2, "2": 3, "9": 2}, "val": {"9": 1, "10": 2, "2": 1}}


@pytest.mark.parametrize("net", [("2", "9", "10"), ("10", "2", "9"), ("0", "1", "10", "2", "9")])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "shards, listed"])
def test_a_net_s_numbers_are_names_and_no_places(kind, write, net):
    """Class 2 is the net's class 2, wherever that stands among its outputs."""
    images = check(open_for_testing(write(NUMBERED), net), net, NUMBERED)
    assert images == 11
    print(f"{kind}; a net with numbers for names in the order {', '.join(net)}: all {images} images mapped by name")


# what should be so


def test_numbers_in_a_list_of_classes_are_places_or_refused(tmp_path):
    """With classes 10, 2, 9 in a list beside it, a shard's 2 is the place of class 9."""
    name = write_shards(tmp_path / "source", NUMBERED)
    try:
        splits = open_for_training(name)
    except ValueError as refusal:
        assert "classes.txt" in str(refusal)  # noqa: PT017
    else:
        check(splits, splits.classes, NUMBERED)


def test_what_is_held_out_does_not_depend_on_the_net_s_order(kind, write):
    """Otherwise a net is tested on images that it was trained on."""
    name = write({"train": {"ant": 20, "bee": 20}})
    parts = [open_for_training(name).source("val"), open_for_testing(name, ("bee", "ant")).source("val")]
    held_out = [{part[index].data for index in range(len(part))} for part in parts]
    assert held_out[0] == held_out[1]


def test_digits_are_refused_for_a_net_that_knows_something_else():
    message = refusal(open_for_testing, "digits", ("cat", "dog"))
    assert "0, 1, 2, 3, 4 and 5 others" in message


def test_numbers_as_classes_have_one_order_in_all_kinds_of_sources(tmp_path):
    counts = {"train": {"2": 2, "9": 2, "10": 2}}
    orders = {kind: open_for_training(write(tmp_path / kind, counts)).classes for kind, write in KINDS.items()}
    print(orders)
    assert len(set(orders.values())) == 1
