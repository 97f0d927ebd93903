"""Pictures of one bright rectangle on black, whose box is therefore known, for tests of localisation."""

import io

import numpy as np
from PIL import Image

from verydeep.images.sources.source import ObjectBox, Sample, boxed_source, memory_source
from verydeep.images.sources.splits import Splits

CLASSES = ("flat", "tall")


def picture(rng, label, size=(48, 60)):
    """Make a picture: PNG bytes and (x0, y0, x1, y1)."""
    height, width = size
    sides = rng.integers(14, 24, 2)
    h, w = (int(min(sides)), int(max(sides)) + 8) if label == 0 else (int(max(sides)) + 8, int(min(sides)))
    top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[top : top + h, left : left + w] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue(), (left, top, left + w, top + h)


def boxed(count, seed, size=(48, 60)):
    """Make a source of so many pictures with their boxes."""
    rng = np.random.default_rng(seed)
    made = [picture(rng, index % 2, size) for index in range(count)]
    samples = tuple(
        Sample(data, index % 2, f"{CLASSES[index % 2]}/{index}.png") for index, (data, _) in enumerate(made)
    )
    boxes = tuple(ObjectBox(np.array(box, dtype=float), size) for _, box in made)
    return boxed_source(memory_source(classes=CLASSES, samples=samples), boxes)


def splits(regression="per-class", training=10, validation=6):
    """Make splits for a training."""
    parts = {"train": boxed(training, 0), "val": boxed(validation, 1)}
    return Splits(name="rectangles", sources=parts, regression=regression, whole_train="these")


def folder(place, training=10, validation=6):
    """Write the same splits as files, `boxes.csv` beside them, for the command line."""
    lines = []
    for part, source in splits(training=training, validation=validation).sources.items():
        for sample, found in zip(source, source.boxes, strict=True):
            name = sample.id.replace("/", f"/{part}-")
            (place / part / name).parent.mkdir(parents=True, exist_ok=True)
            (place / part / name).write_bytes(sample.data)
            lines.append(",".join([name, *(f"{edge:g}" for edge in found.box), CLASSES[sample.label]]))
    (place / "boxes.csv").write_text("\n".join(lines) + "\n")
    return place
