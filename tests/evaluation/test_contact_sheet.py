"""The sheet of wrong images: which they are, in which order, in which place, and what stands below them."""

import io

import made_up_evaluations
import numpy as np
import pytest
from PIL import Image

from verydeep.evaluation import contact_sheet as module
from verydeep.evaluation.contact_sheet import contact_sheet, sheet_of
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits

CLASSES = ("ant <b>", "caf\udce9", "c")
SIZES = ((40, 60), (60, 40), (300, 600))


def source_of(labels):
    """Make images whose colour is their index."""
    samples = []
    for index, label in enumerate(labels):
        buffer = io.BytesIO()
        pixels = np.full((*SIZES[index % 3], 3), (10 * index, 255 - 10 * index, 90), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), label, f"folder/{index}.png"))
    return memory_source(classes=CLASSES, samples=tuple(samples))


@pytest.fixture(scope="module")
def tested():
    """Twenty images, nine of them wrong."""
    rng = np.random.default_rng(0)
    labels, wrong = [index % 3 for index in range(20)], rng.permutation(20)[:9]
    posteriors = np.zeros((20, 3))
    for index, label in enumerate(labels):
        sure = rng.uniform(0.5, 1)
        taken = (label + 1) % 3 if index in wrong else label
        posteriors[index] = (1 - sure) / 2
        posteriors[index, taken] = sure
    source = source_of(labels)
    found = made_up_evaluations.evaluation(["run"], [posteriors], labels, CLASSES, ids=source.ids)
    order = sorted(wrong, key=lambda index: -posteriors[index].max())
    return found, source, order, posteriors


def places(count, columns=6, side=224, gap=12, top=52, high=224 + 3 * 19 + 12):
    """Yield the middle of every picture on the sheet: x, y."""
    for place in range(count):
        yield gap + place % columns * (side + gap) + side // 2, top + place // columns * high + side - 20


def test_the_most_confident_errors_come_first(tested, monkeypatch):
    found, source, order, posteriors = tested
    written, write = [], module._write
    monkeypatch.setattr(
        module,
        "_write",
        lambda sheet, at, text, *rest, **more: written.append(text) or write(sheet, at, text, *rest, **more),
    )
    sheet = np.asarray(sheet_of(found, source))
    assert sheet.shape == (52 + 2 * (224 + 57 + 12), 12 + 6 * 236, 3)
    for index, (x, y) in zip(order, places(9), strict=True):
        assert sheet[y, x].tolist() == [10 * index, 255 - 10 * index, 90]
    assert written[0] == "9 of 9 wrong images among 20: the most confident first"
    captions = [written[1 + 3 * place :][:3] for place in range(9)]
    for index, (taken, true, name) in zip(order, captions, strict=True):
        assert taken == f"{100 * posteriors[index].max():.1f}% {CLASSES[(index + 1) % 3]}"
        assert (true, name) == (f"true: {CLASSES[index % 3]}", f"{index}.png")


def test_a_sheet_has_so_many_images_and_none_without_errors(tested):
    found, source, *_ = tested
    data = Splits(name="made up", sources={"test": source})
    sheet = np.asarray(contact_sheet(found, data=data, most=4))
    assert len(sheet) == 52 + 224 + 57 + 12
    assert (sheet[:, -40 - 224 :][60:] == 255).all()  # two places of the row are free
    with pytest.raises(ValueError, match="1 image or more, not 0"):
        contact_sheet(found, data=data, most=0)
    right = np.eye(3)[[index % 3 for index in range(20)]]
    flawless = made_up_evaluations.evaluation(["run"], [right], source.labels, CLASSES, ids=source.ids)
    assert sheet_of(flawless, source).height == 52
    other = made_up_evaluations.evaluation(["run"], [right], source.labels, CLASSES, ids=range(20))
    with pytest.raises(ValueError, match="not those of this source"):
        sheet_of(other, source)
