"""Evaluations on several processes: `several_processes.forked` calls this file with a list of jobs.

A job is a dict that JSON can hold: the runs, how many images there are, which of them are broken, what goes wrong.
Every process writes its results to OUT.RANK.json, where OUT is the job's name.
"""

import io
import json
import os
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image

import verydeep.evaluation.dense
import verydeep.evaluation.passes
import verydeep.evaluation.pixel_limits
from verydeep import Runtime, Tolerance, evaluate, vgg
from verydeep.images.sources.source import Sample, Source, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.runs.files import MODEL
from verydeep.runs.model import Model, save_model

CLASSES = tuple("abcdefg")
ASKED = []
"""Indices of the images that this process read."""

SIZES = ((33, 40), (40, 33), (36, 36), (33, 55))


def save_runs(folder):
    """Save two nets that prefer other classes for images of other colours; return their folders."""
    for seed, network in enumerate(("A", "B")):
        torch.manual_seed(seed)
        net = vgg(network, classes=7, crop=32, width=0.05).eval()
        colours = torch.rand(200, 3, 1, 1).expand(-1, -1, 32, 32) * 255
        with torch.no_grad():
            net.fc8.weight /= net(colours).std(dim=0)[:, None] / 2
            net.fc8.bias -= net(colours).mean(dim=0)
        save_model(Model(net=net, classes=CLASSES, scale="256", flip=True), folder / network / MODEL)
    return [str(folder / network) for network in ("A", "B")]


def pictures(count, bad=()):
    rng, samples = np.random.default_rng(count), []
    for index in range(count):
        buffer = io.BytesIO()
        grain = rng.integers(-60, 61, (*SIZES[index % len(SIZES)], 3))
        Image.fromarray((rng.integers(0, 256, 3) + grain).clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        samples.append(Sample(b"broken" if index in bad else buffer.getvalue(), index % 7, f"{index}.png"))
    return memory_source(classes=CLASSES, samples=tuple(samples))


class Watched(Source):
    """A source that notes which images are asked for."""

    def __getitem__(self, index):
        ASKED.append(index)
        return super().__getitem__(index)


def run(job):
    """Return the figures and posteriors of this process and the images that it read, or the error that it met."""
    rank = os.environ.get("RANK", "0")
    source = Watched(**vars(pictures(job["images"], job.get("bad", ()))))
    if job.get("other") == int(rank):
        source = Watched(**vars(memory_source(classes=CLASSES, samples=tuple(source)[::-1])))
    ASKED.clear()
    dense = verydeep.evaluation.dense.dense_posteriors

    def failing(*arguments, **options):
        if job.get("fails") == int(rank):
            raise ValueError("something is wrong here")
        return dense(*arguments, **options)

    met = {}
    with (
        patch.object(verydeep.evaluation.passes, "_images_between_meetings", lambda passes: job.get("between", 4)),
        patch.object(verydeep.evaluation.pixel_limits, "pixels_at_once", lambda nets, device: job.get("pixels", 10**6)),
        patch.object(verydeep.evaluation.dense, "dense_posteriors", failing),
    ):
        try:
            found = evaluate(
                job["runs"],
                data=Splits(name="noise", sources={"test": source}),
                protocol=job.get("protocol", "dense"),
                scales=job.get("scales", [256]),
                runtime=Runtime(device="cpu", workers=job.get("workers", 0)),
                tolerance=Tolerance(max_bad=job.get("max_bad", 50)),
                cache=job.get("cache", False),
            )
            met["figures"] = found.to_dict()
            if rank == "0":
                met["posteriors"] = found.images.posteriors.tolist()
        except Exception as error:
            met["error"], met["message"] = type(error).__name__, str(error)
    met["asked"] = sorted(ASKED)
    text = json.dumps(met)
    Path(f"{job['out']}.{rank}.json").write_text(text)
    return json.loads(text)


def run_all(jobs):
    for job in jobs:
        run(job)
