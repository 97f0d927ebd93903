"""A model that does what each test asks for, and its service."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from served import encoded, files, service_of, serving

from verydeep.prediction.predict import Prediction
from verydeep.serving.image_outcomes import ImageAnswer
from verydeep.serving.served_model import ServedModel

ABOUT = {
    "kind": "network",
    "network": "A",
    "classes": ["ant"],
    "protocol": "dense",
    "scales": [256],
    "mirror": False,
    "grid": "centred",
    "crop": 32,
    "weights_sha256": "0" * 64,
}


class Gate:
    """A model that computes when it is let, unless it is broken; a side of 33 spoils every batch."""

    def __init__(self, seconds=0.0, for_each=0.0):
        self.open, self.batches = threading.Event(), []
        self.open.set()
        self.computing = threading.Event()
        self.seconds, self.for_each = seconds, for_each
        self.clock = 0.0
        """Seconds that it has computed, whatever else the machine does."""
        self.broken = False

    def predict(self, images, wanted):
        self.computing.set()
        assert self.open.wait(20)
        seconds = self.seconds + self.for_each * len(images) ** 1.3
        self.clock += seconds
        time.sleep(seconds)
        if wanted[0].name != "black":
            self.batches.append([one.name for one in wanted])
        if self.broken or any(33 in size for image in images for size in image.sizes):
            raise RuntimeError("out of memory")
        return [
            ImageAnswer(prediction=Prediction(image=one.name, classes=("ant",), probabilities=(1.0,))) for one in wanted
        ]

    def model(self):
        return ServedModel(
            about=ABOUT,
            classes=("ant",),
            numbers="probabilities",
            has_maps=False,
            sides=(32,),
            batch_pixels=2**20,
            work=lambda image: image.area,
            predict=self.predict,
        )


@contextmanager
def served_gate(gate, **limits):
    service = service_of(gate.model(), **limits)
    with serving(service) as client, ThreadPoolExecutor(40) as threads:
        gate.batches.clear()
        try:
            yield service, client, lambda *images: threads.submit(client.post, "/v1/predict", files=files(*images))
        finally:
            gate.open.set()


def busy_with_one(gate, post):
    """Let the computing thread be busy with an image of a size of its own."""
    gate.open.clear()
    gate.computing.clear()
    first = post(encoded(size=(32, 90)))
    assert gate.computing.wait(20)
    return first
