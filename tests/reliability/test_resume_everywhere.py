"""A training that is stopped after any of its steps goes on with the next images, and ends as one that is not."""

import hashlib
import os
import signal
from itertools import chain

import pytest
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from verydeep import Execution, Runtime, train
from verydeep.images import loader
from verydeep.machine.runtime import Stopped
from verydeep.networks.vgg import VGG
from verydeep.training.checkpoint import load_latest


class Watch:
    """The images and pixels of each applied step; sends SIGTERM after some of them."""

    def __init__(self):
        self.stops, self.images, self.pixels = set(), [], []
        self._drawn, self._shown = [], []

    def drawn(self, name):
        self._drawn.append(name)
        if 0 in self.stops:
            self.stop(0)

    def shown(self, module, arguments):
        if isinstance(module, VGG) and module.training:
            self._shown.append(hashlib.sha256(arguments[0].contiguous().numpy().tobytes()).hexdigest())

    def stepped(self, *_):
        self.images.append(self._drawn)
        self.pixels.append(self._shown)
        self._drawn, self._shown = [], []
        if len(self.images) in self.stops:
            self.stop(len(self.images))

    def stop(self, step):
        self.stops.remove(step)
        os.kill(os.getpid(), signal.SIGTERM)

    def begin(self):
        """Forget the images of a step that was not applied."""
        self._drawn, self._shown = [], []


@pytest.fixture
def watch(monkeypatch):
    found, training_crop = Watch(), loader.training_crop

    def noted(images, index, *arguments, **options):
        found.drawn(images.source[index].id)
        return training_crop(images, index, *arguments, **options)

    monkeypatch.setattr(loader, "training_crop", noted)
    hooks = [register_optimizer_step_post_hook(found.stepped), register_module_forward_pre_hook(found.shown)]
    yield found
    for hook in hooks:
        hook.remove()


def restarted(watch, run, stops, tiny, workers=(0, 0, 0)):
    """Stop the run after each of these steps, resume it, and return the images and pixels that it saw."""
    watch.images, watch.pixels = [], []
    kept = Execution(keep_checkpoints=True)
    options = {"network": "A", "out": run, "recipe": tiny.RECIPE, "execution": kept}
    for stop, count in zip(stops, workers, strict=False):
        watch.stops = {stop}
        watch.begin()
        with pytest.raises(Stopped):
            train(tiny.splits(), **options, runtime=Runtime(workers=count), resume=True)
        assert load_latest(run / "checkpoints")[0].progress.step == len(watch.images) == stop
    watch.begin()
    train(tiny.splits(), **options, runtime=Runtime(workers=workers[len(stops)]), resume=True)
    return watch.images, watch.pixels


def same_ends(run, whole, tiny):
    for model in ("best", "model"):
        assert (run / model / "model.safetensors").read_bytes() == (whole / model / "model.safetensors").read_bytes()
    assert tiny.digest(load_latest(run / "checkpoints")[0]) == tiny.digest(load_latest(whole / "checkpoints")[0])
    assert tiny.learning(run) == tiny.learning(whole)


def test_stopped_after_any_step_of_two_epochs_it_shows_the_same_images_and_ends_the_same(tiny, watch, figure, tmp_path):
    whole = restarted(watch, tmp_path / "whole", [], tiny)
    names = {sample.id for sample in tiny.splits().sources["train"]}
    steps = 2 * tiny.STEPS
    epochs = [list(chain(*whole[0][start : start + tiny.STEPS])) for start in (0, tiny.STEPS)]
    assert [sorted(epoch) for epoch in epochs] == [sorted(names)] * 2
    assert epochs[0] != epochs[1]
    assert len(set(chain(*whole[1]))) == steps
    everywhere = [[step] for step in range(steps + 1)] + [[1, 2], [4, 5]]
    for number, stops in enumerate(everywhere):
        run = tmp_path / str(number)
        assert restarted(watch, run, stops, tiny) == whole, f"stopped after {stops}"
        same_ends(run, tmp_path / "whole", tiny)
    told = f"stopped after each of {steps} steps, before the first, and twice in each epoch"
    figure(7, "resume everywhere", f"{told}: the same images in order, weights, momentum and metrics identical")


def test_resumed_with_other_numbers_of_workers_it_sees_the_same_pixels_and_ends_the_same(tiny, watch, figure, tmp_path):
    _, pixels = restarted(watch, tmp_path / "whole", [], tiny)
    assert restarted(watch, tmp_path / "run", [2, 4], tiny, workers=(0, 2, 1))[1] == pixels
    same_ends(tmp_path / "run", tmp_path / "whole", tiny)
    figure(8, "workers", "stopped and resumed with 0, 2, 1 workers: the same pixels in order, weights identical")
