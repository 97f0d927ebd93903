"""Boxes matched to images, and where loaders say that they are: against the pixels themselves."""

import io
import json
from types import SimpleNamespace

import boxed_pictures as pictures
import numpy as np
import pytest
import torch
from PIL import Image

from verydeep.images.annotations.annotation import Annotation
from verydeep.images.boxes.checking import BadBoxError, BoxCheck, with_boxes
from verydeep.images.boxes.matching import boxes_by_split
from verydeep.images.boxes.options import BoxOptions
from verydeep.images.crops import TrainingView, centre_crop
from verydeep.images.decode import UnusableImageError, decode, image_sizes
from verydeep.images.loader import centre_batches, to_device, training_batches
from verydeep.images.open import open_boxed
from verydeep.images.rescaled import RescaledImages
from verydeep.images.sources.source import Sample, memory_source, subset
from verydeep.images.sources.splits import Splits

CPU = torch.device("cpu")


def png(height=40, width=50, **options):
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), dtype=np.uint8)).save(buffer, **{"format": "PNG", **options})
    return buffer.getvalue()


def source(*names, data=None):
    classes = tuple(dict.fromkeys(name.split("/")[0] for name in names))
    samples = tuple(Sample(data or png(), classes.index(name.split("/")[0]), name) for name in names)
    return memory_source(classes=classes, samples=samples)


def annotation(image, box=(1, 2, 30, 35), class_name=None, where="boxes.csv line 1", **more):
    return Annotation(image, tuple(map(float, box)), class_name, where, **more)


def matched(images, annotations, *, skip_bad=False):
    """The images of a source alone with their boxes, and what was found."""
    boxes = boxes_by_split({"train": images}, annotations, ["boxes.csv"])["train"]
    check = BoxCheck()
    options = BoxOptions(boxes=("boxes.csv",), skip_bad_boxes=skip_bad)
    return SimpleNamespace(source=with_boxes(images, boxes, options, check), check=check)


@pytest.mark.parametrize("name", ["1.jpg", "cat/1.jpg", "./cat/1.jpg", "/cat/1.jpg"])
def test_a_box_belongs_to_the_image_whose_path_ends_with_its_name(name):
    found = matched(source("cat/1.jpg", "dog/21.jpg"), [annotation(name), annotation("21.jpg")]).source
    assert found.ids == ("cat/1.jpg", "dog/21.jpg")
    assert [place.box.tolist() for place in found.boxes] == [[1, 2, 30, 35]] * 2
    assert [place.size for place in found.boxes] == [(40, 50)] * 2


def test_classes_tell_images_of_the_same_name_apart():
    boxes = [annotation("1.jpg", (0, 0, 9, 9), "dog"), annotation("1.jpg", (0, 0, 5, 5), "cat")]
    found = matched(source("cat/1.jpg", "dog/1.jpg"), boxes).source
    assert [place.box[2] for place in found.boxes] == [5, 9]
    with pytest.raises(ValueError, match=r"^boxes.csv line 1: 1.jpg may be cat/1.jpg or dog/1.jpg: write more"):
        matched(source("cat/1.jpg", "dog/1.jpg"), [annotation("1.jpg")])


def test_boxes_of_other_classes_and_images_are_ignored_and_several_of_one_class_are_left_out():
    boxes = [
        annotation("1.jpg", class_name="cat"),
        annotation("1.jpg", (0, 0, 3, 3), "dog"),
        annotation("2.jpg", class_name="cat"),
        annotation("2.jpg", (0, 0, 3, 3), "cat"),
        annotation("9.jpg", (0, 0, 0, 0), "cat"),
    ]
    found = matched(source("cat/1.jpg", "cat/2.jpg"), boxes)
    assert found.source.ids == ("cat/1.jpg",)
    assert (found.check.several, found.check.left_out) == (["cat/2.jpg"], {})


@pytest.mark.parametrize(
    ("box", "message"),
    [
        (
            (104, 38, 126, 38),
            r"^b.csv line 7: the box 104,38,126,38 of cat/1.jpg has no area: fix .* --skip-bad-boxes$",
        ),
        ((9, 2, 8, 5), "the box 9,2,8,5 of cat/1.jpg has no area: fix"),
        ((1, 2, 52, 5), r"^b.csv line 7: the box 1,2,52,5 of cat/1.jpg is not in the image, which is 50 x 40"),
        ((-1.5, 2, 9, 5), "is not in the image"),
        ((1, -9, 9, 5), "is not in the image"),
        ((1, 2, 9, 42), "is not in the image"),
        ((50, 2, 51, 9), "has no area in the image"),
        ((5, 40, 9, 41), "has no area in the image"),
    ],
)
def test_bad_boxes_are_refused_by_name_with_file_and_line(box, message):
    images = source("cat/1.jpg", "cat/2.jpg")
    boxes = [annotation("1.jpg", box, where="b.csv line 7"), annotation("2.jpg")]
    with pytest.raises(BadBoxError, match=message):
        matched(images, boxes)
    found = matched(images, boxes, skip_bad=True)
    assert found.source.ids == ("cat/2.jpg",)
    assert list(found.check.left_out) == ["cat/1.jpg"]
    assert "b.csv line 7" in found.check.left_out["cat/1.jpg"]


@pytest.mark.parametrize(
    ("options", "size", "message"),
    [
        ({}, (400, 500), r"cat/1.jpg is of an image of 500 x 400, not of this one, which is 50 x 40: fix"),
        ({}, (50, 40), r"cat/1.jpg is of an image of 40 x 50, not of this one, which is 50 x 40: fix"),
        ({"orientation": 6}, (50, 40), None),
        (
            {"orientation": 6},
            (40, 50),
            r"image of 50 x 40, not of this one, which is 40 x 50 when turned upright by EXIF \(stored as 50 x 40\); "
            "boxes are in pixels of the upright image: fix",
        ),
        ({"orientation": 3}, (40, 50), None),
    ],
)
def test_a_size_that_a_file_states_is_that_of_the_upright_image(options, size, message):
    exif = Image.Exif()
    exif[0x0112] = options.get("orientation", 1)
    images = source("cat/1.jpg", data=png(format="JPEG", exif=exif))
    box = annotation("1.jpg", (1, 2, 30, 35), size=size)
    if message is None:
        assert matched(images, [box]).source.boxes[0].size == size
    else:
        with pytest.raises(BadBoxError, match=message):
            matched(images, [box])


def test_a_box_of_stored_pixels_that_does_not_fit_is_told_from_where_it_may_come():
    exif = Image.Exif()
    exif[0x0112] = 8
    images = source("cat/1.jpg", data=png(format="JPEG", exif=exif))
    with pytest.raises(BadBoxError, match=r"is not in the image, which is 40 x 50 when turned upright by EXIF"):
        matched(images, [annotation("1.jpg", (1, 2, 49, 35))])


def test_an_image_without_a_box_is_refused_by_name():
    images = source("cat/1.jpg", "cat/2.jpg", "cat/3.jpg")
    with pytest.raises(
        BadBoxError, match=r"^cat/2.jpg has no box in boxes.csv \(and 1 more image\): fix .*-bad-boxes$"
    ):
        matched(images, [annotation("1.jpg")])
    assert list(matched(images, [annotation("1.jpg")], skip_bad=True).check.left_out) == ["cat/2.jpg", "cat/3.jpg"]
    feline = "cat/1.jpg has no box of class cat: boxes.csv line 1 is of feline"
    with pytest.raises(BadBoxError, match=rf"^{feline} \(and 2 more images\): fix"):
        matched(images, [annotation("1.jpg", class_name="feline")])
    many = [annotation("2.jpg", (0, 0, x, x)) for x in (8, 9)]
    none = rf"^no image has exactly one box of its class, but 1 with several, 2 with none that can be used: {feline}"
    with pytest.raises(ValueError, match=none):
        matched(images, [annotation("1.jpg", class_name="feline"), *many], skip_bad=True)


def test_equal_boxes_count_once():
    found = matched(source("cat/1.jpg"), [annotation("1.jpg"), annotation("1.jpg", class_name="cat")])
    assert (found.source.ids, found.check.several) == (("cat/1.jpg",), [])


def test_every_class_of_the_training_images_needs_a_box(tmp_path):
    splits = Splits(
        name="them", sources={"train": source("cat/1.jpg", "dog/2.jpg"), "val": source("cat/3.jpg", "dog/4.jpg")}
    )
    for text, why in (
        ("2.jpg,1,1,1,1\n", "b.csv line 3: the box 1,1,1,1 of dog/2.jpg has no area"),
        ("2.jpg,1,1,9,9\n2.jpg,1,1,8,8\n", "dog/2.jpg has several boxes"),
        ("2.jpg,1,1,9,9,Dog\n", "dog/2.jpg has no box of class dog: .*b.csv line 3 is of Dog"),
    ):
        (tmp_path / "b.csv").write_text(f"1.jpg,1,1,9,9\n3.jpg,1,1,9,9\n{text}")
        options = BoxOptions(boxes=(tmp_path / "b.csv",), skip_bad_boxes=True)
        with pytest.raises(ValueError, match=f"^no training image of class dog has a box that can be used: .*{why}$"):
            open_boxed(splits, ["train", "val"], options, every_class_of="train")
        assert open_boxed(splits, ["train", "val"], options)[0]["train"].ids == ("cat/1.jpg",)
    (tmp_path / "b.csv").write_text("1.jpg,1,1,9,9\n2.jpg,1,1,9,9\n3.jpg,1,1,9,9\n")  # val may lack a class
    assert len(open_boxed(splits, ["train", "val"], options, every_class_of="train")[0]["train"]) == 2


def test_crowds_are_no_objects_and_told(tmp_path):
    images = [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}]
    annotations = [
        {"image_id": n, "bbox": [0, 0, 9, 9 - crowd], "iscrowd": crowd} for n, crowd in ((1, 0), (1, 1), (2, 1))
    ]
    file = tmp_path / "b.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    splits = Splits(name="them", sources={"train": source("cat/1.jpg", "cat/2.jpg")})
    found, check = open_boxed(splits, ["train"], BoxOptions(boxes=(file,), skip_bad_boxes=True))
    assert found["train"].boxes[0].box.tolist() == [0, 0, 9, 9]
    told = f"2 boxes around many objects (iscrowd) ignored: {file} annotation 2, {file} annotation 3"
    assert check.lines()[0] == told
    assert check.left_out == {"cat/2.jpg": f"cat/2.jpg has no box in {file}"}
    file.write_text(json.dumps({"images": images, "annotations": annotations[1:]}))
    with pytest.raises(ValueError, match=r"^no boxes in .*b.json"):
        open_boxed(splits, ["train"], BoxOptions(boxes=(file,)))


def test_a_pixel_of_rounding_is_cut_off_and_told():
    found = matched(source("cat/1.jpg"), [annotation("1.jpg", (-1, 2, 51, 40.5))])
    assert found.source.boxes[0].box.tolist() == [0, 2, 50, 40]
    assert found.check.lines() == ["1 image with a box that reached out by up to 1 pixel, cut off: cat/1.jpg"]


def test_files_and_parts_are_put_together(tmp_path):
    (tmp_path / "a.csv").write_text("1.jpg,1,2,3,4\n")
    (tmp_path / "b.csv").write_text("2.jpg,1,2,3,4\n3.jpg,1,2,1,4\n")
    splits = Splits(name="them", sources={"train": source("cat/1.jpg", "cat/3.jpg"), "val": source("cat/2.jpg")})
    options = BoxOptions(boxes=(tmp_path / "a.csv", tmp_path / "b.csv"), skip_bad_boxes=True)
    parts, check = open_boxed(splits, ["train", "val"], options)
    assert [part.ids for part in parts.values()] == [("cat/1.jpg",), ("cat/2.jpg",)]
    assert check.lines()[0].startswith("1 image left out for its box: ")
    assert f"{tmp_path / 'b.csv'} line 2" in check.left_out["cat/3.jpg"]
    with pytest.raises(ValueError, match="no boxes in no file"):
        open_boxed(splits, ["train"], BoxOptions(boxes=()))


def test_a_fingerprint_follows_from_images_and_boxes():
    one, same, *others = (
        matched(source("cat/1.jpg", data=data), [annotation("1.jpg", box)]).source.fingerprint
        for box, data in (
            ((1, 2, 3, 4), None),
            ((1, 2, 3, 4), None),
            ((1, 2, 3, 5), None),
            ((1, 2, 3, 4), png(format="BMP")),
        )
    )
    assert one == same
    assert one not in others
    assert len(set(others)) == 2


def test_boxes_go_with_a_part_of_a_source():
    whole = pictures.boxed(5, seed=0)
    part = subset(subset(whole, (4, 2, 0)), (2, 1))
    assert [found.box.tolist() for found in part.boxes] == [whole.boxes[index].box.tolist() for index in (0, 2)]


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_size_in_the_head_is_that_of_the_upright_image(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = png(40, 50, format=kind, exif=exif)
    assert image_sizes(data)[0] == decode(data).shape[:2]


def test_what_has_no_size_is_refused_as_it_would_be_when_decoded():
    with pytest.raises(UnusableImageError, match=r"a.png: undecodable"):
        image_sizes(b"no image", "a.png")
    with pytest.raises(UnusableImageError, match="too large"):
        image_sizes(png(), max_pixels=10)


def bright(image):
    """Edges of what is not black, [3, H, W] or [H, W, 3] in 0..255, as far as it is in the image."""
    mask = (image.numpy().max(axis=0) if image.shape[0] == 3 else image.numpy().max(axis=2)) > 127
    rows, columns = np.nonzero(mask)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def view(scale):
    return TrainingView(crop=32, scale=scale, flip=True, colour_sd=0, colour_components=np.zeros((3, 3)))


@pytest.mark.parametrize("workers", [0, 1])
def test_boxes_of_training_crops_are_where_their_pixels_are(workers):
    """Rescaled, cropped and half of them mirrored; of what is beyond the crop only the box knows."""
    images = pictures.boxed(12, seed=3)
    batches = training_batches(images, view((40, 70)), batch=5, epochs=8, seed=1, workers=workers)
    seen, beyond = 0, 0
    for batch in (to_device(batch, CPU) for batch in batches):
        for image, (x, y, width, height) in zip(batch.images, batch.boxes.tolist(), strict=True):
            edges = 32 * np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            assert np.abs(bright(image) - edges.clip(0, 32)).max() <= 1
            seen, beyond = seen + 1, beyond + bool(edges.min() < -1 or edges.max() > 33)
    assert seen > 80
    assert beyond > 20


def test_boxes_of_centre_crops_are_where_their_pixels_are():
    images = pictures.boxed(12, seed=4, size=(40, 44))
    for batch in centre_batches(RescaledImages(images), crop=32, scale=36, batch=5):
        for image, (x, y, width, height) in zip(batch.images, batch.boxes.tolist(), strict=True):
            edges = 32 * np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
            assert np.abs(bright(image) - edges.clip(0, 32)).max() <= 1


def test_images_whose_object_is_never_shown_are_missing_from_their_batch(monkeypatch):
    monkeypatch.setattr("verydeep.images.boxes.geometry.TRIES", 1)
    batches = list(
        training_batches(pictures.boxed(20, seed=5, size=(48, 200)), view((40, 40)), batch=20, epochs=1, seed=0)
    )
    (found,) = batches
    assert 0 < len(found.labels) < 20
    assert len(found.boxes) == len(found.labels) == len(found.positions)
    assert sorted(set(range(20)) - set(found.positions.tolist()))


def test_an_image_that_cannot_be_read_is_the_quarantines():
    images = source("cat/1.jpg", "cat/2.jpg", data=b"no image")
    found = matched(images, [annotation("1.jpg"), annotation("2.jpg")]).source
    assert [place.size for place in found.boxes] == [None, None]
    with pytest.raises(UnusableImageError, match=r"cat/1.jpg: undecodable"):
        centre_crop(RescaledImages(found), 0, scale=40, crop=32)
