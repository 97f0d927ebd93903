"""The training loop: `train` and `_epochs` are the paper's recipe on one page, the rest are what they name."""

import itertools
import math
import time
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch

from verydeep import runs
from verydeep.images.loader import centre_batches, training_batches
from verydeep.images.on_device import DeviceBatch, on_device
from verydeep.images.open_source import open_source
from verydeep.images.sources import Splits
from verydeep.images.tolerance import Tolerance, TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.networks.configurations import CONFIGURATIONS, configuration
from verydeep.networks.scales import middle_scale, scale_in_pixels
from verydeep.processes import LostProcessError, joined, restarted, under_torchrun
from verydeep.progress import Reporter, reporting
from verydeep.runtime import Execution, Runtime, Stopped, StopRequest, peak_memory, stop_request, torch_device
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Checkpoint, Position
from verydeep.training.curves import Curves, curves
from verydeep.training.parallel import whole
from verydeep.training.preparation import Order, Training, check_folder, check_same, prepare
from verydeep.training.recipe import Recipe
from verydeep.training.schedule import after_epoch
from verydeep.training.step import Abandoned, DivergedError, Outcome, descend, scores


def train(
    source: str | Splits,
    *,
    out: str | Path,
    network: str | None = None,
    recipe: Recipe | None = None,
    runtime: Runtime | None = None,
    execution: Execution | None = None,
    tolerance: Tolerance | None = None,
    resume: bool = False,
) -> Path:
    """Trains a network on a source's training images and leaves a run folder (see `verydeep.runs`).

    The learning rate follows the error on the validation images, as centre crops at S. With `resume`, a run
    that was stopped goes on from its last checkpoint and ends with the same weights, to the bit, as one that
    was not (on a CPU; CUDA kernels may add in another order); one that has ended is left alone. Images that cannot
    be used are left out and listed in the run's quarantine.jsonl, up to the share that `tolerance` allows.

    Under torchrun its processes share every batch. Order, draws and dropout are those of one process, and so are the
    weights, up to rounding; the first one writes. After a restart by torchrun they resume by themselves.

    Raises:
        ValueError: unusable source, network, recipe or runtime; `out` exists and `resume` is not set, or it was
            made with other settings.
        TooManyBadImagesError: more images are unusable than is tolerated; a checkpoint was saved first.
        WorkerDiedError: a process that loads images was killed, say; a checkpoint was saved first.
        LostProcessError: another process of the training ended; the last checkpoint stays.
        Stopped: SIGINT or SIGTERM; a checkpoint was saved first.
        DivergedError: loss or gradients became infinite or not a number; that step was not applied.
    """
    recipe, runtime, execution = recipe or Recipe(), runtime or Runtime(), execution or Execution()
    out, device = Path(out), torch_device(runtime.device)
    network = _network(network, recipe)
    if execution.fc_parallel and not under_torchrun():
        raise ValueError("--fc-parallel divides layers among processes: start several with torchrun")
    with joined(cuda=device.type == "cuda") as processes:
        processes.from_first(lambda: check_folder(out, resume=resume or restarted()))
        order = Order(
            splits=open_source(source) if isinstance(source, str) else source,
            network=network,
            recipe=recipe,
            runtime=runtime,
            execution=execution,
            tolerance=tolerance or Tolerance(),
            out=out,
            device=device,
            processes=processes,
        )
        if processes.from_first(lambda: _stands(order)):
            return out
        try:
            _train(order)
        except (RuntimeError, OSError) as error:
            # What a lost process leaves half sent fails in many ways.
            lost = None if isinstance(error, DivergedError | WorkerDiedError) else processes.lost()
            if lost is None:
                raise
            raise LostProcessError(f"{lost} ended or does not answer; {_last_checkpoint(out)}") from error
    return out


def _train(order: Order) -> None:
    training, about = prepare(order)
    recipe, step, first = training.recipe, training.position.step, order.processes.first
    total = recipe.epochs * training.steps_per_epoch
    with (
        stop_request() as stop,
        reporting(f"train {order.network}", total, done=step, quiet=not first) as report,
        curves(order.out, first_step=step, on=first) as plot,
    ):
        training.bad_images.say = training.bad_validation.say = report.say
        for line in about:
            report.say(line)
        _epochs(training, stop, report, plot)
    _save_models(training, order.splits.classes)


def _epochs(training: Training, stop: StopRequest, report: Reporter, plot: Curves) -> None:
    """Steps until the schedule or the epochs end, or a signal does."""
    steps = training.steps_per_epoch
    if training.position.seen and training.position.step % steps == 0:
        _end_epoch(training, stop, report, plot)  # it was stopped in the middle of that
    if training.ended:
        return
    with closing(_agreed(training, stop)) as batches:
        for batch, usable, fetched in batches:
            step, rate = training.position.step, training.rate
            outcome = Outcome()
            if any(usable):
                outcome = _descend(training, batch, usable, rate, stop)
                plot.step(step, loss=outcome.loss_sum / sum(usable), learning_rate=rate)
            training.position = _after(training.position, outcome, sum(usable), fetched)
            if training.position.step % steps == 0:
                _end_epoch(training, stop, report, plot)
            else:
                report.advance(figures=_figures(training))
            if training.ended:
                return


class Fetched(NamedTuple):
    """When a batch was asked for and when it came, in seconds of `time.perf_counter`."""

    asked: float
    came: float


def _agreed(training: Training, stop: StopRequest) -> Generator[tuple[DeviceBatch, list[int], Fetched]]:
    """This process's share of every batch and how many usable images each process has of it.

    Before each step all agree whether there is a next one. If not, a checkpoint is saved, and it ends as it has to.
    """
    recipe, processes, device = training.recipe, training.machinery.processes, training.machinery.device
    batches = training_batches(
        training.images,
        training.view,
        batch=recipe.batch,
        epochs=recipe.epochs,
        seed=recipe.seed,
        quarantine=training.bad_images,
        first_step=training.position.step,
        workers=training.workers,
        share=(processes.rank, processes.count),
    )
    bad, saved, failure = training.bad_images, time.monotonic(), None
    with closing(on_device(batches, device)) as shown:
        while True:
            asked, batch = time.perf_counter(), _nothing(training)
            try:
                batch = next(shown)
            except (WorkerDiedError, TooManyBadImagesError) as error:
                failure = error
            came = time.perf_counter()
            due = time.monotonic() - saved > 60 * training.save_minutes
            mine = [len(batch.labels), len(bad.waiting), failure is not None, stop.signal or 0, due]
            usable, waiting, failed, signals, overdue = processes.gathered(mine).T.int().tolist()
            if any(waiting):
                try:
                    bad.settle(itertools.chain(*processes.all_of(list(bad.waiting))))
                except TooManyBadImagesError as error:
                    failure = error
            if any(signals) or any(failed) or failure is not None:
                _save(training)
                _raise(failure, failed, max(signals), training.out)
            if overdue[0]:
                _save(training)
                saved = time.monotonic()
            yield batch, usable, Fetched(asked, came)


def _raise(failure: Exception | None, failed: list[int], signal: int, out: Path) -> NoReturn:
    """Ends a training of which a checkpoint was just saved."""
    if failure is not None:
        raise type(failure)(f"{failure}; what was done is saved in {out} and can be resumed") from failure
    if any(failed):
        raise LostProcessError(f"process {failed.index(1)} failed; what was done is saved in {out} and can be resumed")
    raise Stopped(signal, f"stopped, and saved in {out}: the same command with --resume goes on")


def _nothing(training: Training) -> DeviceBatch:
    """A batch without images."""
    device, crop = training.machinery.device, training.recipe.crop
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return DeviceBatch(torch.zeros(0, 3, crop, crop, device=device), none, none)


def _descend(training: Training, batch: DeviceBatch, usable: list[int], rate: float, stop: StopRequest) -> Outcome:
    """One step, or the end: without it if numbers are no longer finite or, on one process, if a signal comes."""
    step, alone = training.position.step, not training.machinery.processes.several
    try:
        return descend(
            training.machinery,
            training.recipe,
            batch,
            step=step,
            rate=rate,
            usable=usable,
            abandon=lambda: alone and stop.signal is not None,
        )
    except Abandoned:
        _save(training)
        _raise(None, [], stop.signal or 0, training.out)
    except DivergedError as error:
        _save(training)
        raise DivergedError(
            f"{error}; that step was not applied, {_last_checkpoint(training.out)}: train again in another folder with "
            "a lower learning rate"
        ) from None


def _after(position: Position, outcome: Outcome, images: int, fetched: Fetched) -> Position:
    return replace(
        position,
        step=position.step + 1,
        loss_sum=position.loss_sum + outcome.loss_sum,
        wrong=position.wrong + outcome.wrong,
        seen=position.seen + images,
        seconds=position.seconds + time.perf_counter() - fetched.asked,
        waited=position.waited + fetched.came - fetched.asked,
    )


def _end_epoch(training: Training, stop: StopRequest, report: Reporter, plot: Curves) -> None:
    """Validation error, schedule, a line of metrics, a checkpoint."""
    position = training.position
    if not position.seen:
        raise ValueError("none of the training images can be used")
    error, signal = _validation_error(training, stop)
    if signal:
        _save(training)
        _raise(None, [], signal, training.out)
    plateau = after_epoch(position.plateau, error, training.recipe)
    best = position.plateau.best is None or error < position.plateau.best
    report.advance(tell=True, figures={**_figures(training), "validation": f"{error:.1f}%"})
    plot.epoch(
        {
            "epoch": training.epoch,
            "step": position.step,
            "learning_rate": training.last_rate,
            "loss": position.loss_sum / position.seen,
            "training_error": 100 * position.wrong / position.seen,
            "validation_error": error,
            "images_per_second": position.seen / position.seconds,
            "seconds": position.seconds,
            "waiting": 100 * position.waited / position.seconds,
            "peak_memory_bytes": peak_memory(training.machinery.device),
        }
    )
    training.position = Position(
        step=position.step, plateau=plateau, best_step=position.step if best else position.best_step
    )
    _save(training)


def _validation_error(training: Training, stop: StopRequest) -> tuple[float, int]:
    """Top-1 error in percent of the validation images' centre crops at S; and the signal that cut it short, or 0."""
    recipe, machinery, processes = training.recipe, training.machinery, training.machinery.processes
    batches = centre_batches(
        training.validation,
        crop=recipe.crop,
        scale=scale_in_pixels(middle_scale(recipe.scale), recipe.crop),
        batch=machinery.micro_batch,
        quarantine=training.bad_validation,
        workers=training.workers,
    )
    # Who shares layers calls the network as often as the others: this often.
    calls = math.ceil(math.ceil(training.validation_images / processes.count) / machinery.micro_batch)
    wrong = seen = 0
    finite = True
    with closing(on_device(batches, machinery.device)) as shown:
        for batch in itertools.islice(itertools.chain(shown, itertools.repeat(_nothing(training))), calls):
            if stop.signal is not None and not machinery.fc_parallel:
                break
            logits = scores(machinery, batch.images)
            finite = finite and bool(logits.isfinite().all())
            wrong += int((logits.argmax(1) != batch.labels).sum())
            seen += len(batch.labels)
    everyone = processes.gathered([wrong, seen, not finite, stop.signal or 0]).int()
    wrong, seen, unusual, _ = everyone.sum(0).tolist()
    signal = int(everyone[:, 3].max())
    if unusual:
        raise DivergedError(
            f"training diverged: scores of validation images are not finite; {_last_checkpoint(training.out)}: train "
            "again in another folder with a lower learning rate"
        )
    if not seen and not signal:
        raise ValueError("none of the validation images can be used")
    return 100 * wrong / max(1, seen), signal


def _save(training: Training) -> None:
    """A checkpoint; every process calls it, because layers may be shared, and the first one writes."""
    net, optimiser = training.machinery.net, training.machinery.optimiser
    weights = {name: whole(value) for name, value in net.state_dict().items()}
    buffers = {name: optimiser.state[value].get("momentum_buffer") for name, value in net.named_parameters()}
    found = Checkpoint(
        weights=weights,
        momentum={name: whole(buffer) for name, buffer in buffers.items() if buffer is not None},
        position=training.position,
    )
    training.machinery.processes.from_first(lambda: checkpoint.save(training.out / runs.CHECKPOINTS, found))


def _save_models(training: Training, classes: tuple[str, ...]) -> None:
    """The network as it is now, and as it was when the validation error was lowest."""
    net, position, out = training.machinery.net, training.position, training.out
    weights = {name: whole(value) for name, value in net.state_dict().items()}

    def write() -> None:
        best = None if position.best_step is None else checkpoint.load_step(out / runs.CHECKPOINTS, position.best_step)
        for folder, found in ((runs.BEST, best.weights if best is not None else weights), (runs.MODEL, weights)):
            model = runs.Model(
                net=net.with_weights(found), classes=classes, scale=training.recipe.scale, flip=training.recipe.flip
            )
            runs.save_model(model, out / folder)

    training.machinery.processes.from_first(write)


def _last_checkpoint(out: Path) -> str:
    found = checkpoint.newest(out / runs.CHECKPOINTS)
    return f"the last checkpoint is {found}" if found else "there is no checkpoint yet"


def _network(network: str | None, recipe: Recipe) -> str:
    """The paper's name of it."""
    if network is not None:
        return configuration(network).name
    if recipe.finetune is None:
        raise ValueError(f"say which --network: {', '.join(CONFIGURATIONS)}")
    return runs.load_config(recipe.finetune)["network"]


def _stands(order: Order) -> bool:
    """Whether the training has ended before.

    Raises:
        ValueError: it was begun with other settings.
    """
    if runs.has_record(order.out) and runs.is_begun(order.out):
        check_same(runs.read_record(order.out), order)
        return runs.is_finished(order.out)
    return False


def _figures(training: Training) -> dict[str, str]:
    """The most important ones first: the last ones are left out where there is no room."""
    position = training.position
    seen, seconds = max(1, position.seen), max(position.seconds, 1e-9)
    best = {} if position.plateau.best is None else {"best": f"{position.plateau.best:.1f}%"}
    return {
        "epoch": f"{training.epoch}/{training.recipe.epochs}",
        "loss": f"{position.loss_sum / seen:.3f}",
        "error": f"{100 * position.wrong / seen:.1f}%",
        "images/s": f"{seen / seconds:,.0f}",
        "waiting": f"{100 * position.waited / seconds:.0f}%",
        **best,
        "rate": f"{training.last_rate:.2g}",
        "memory": f"{peak_memory(training.machinery.device) / 1e9:.1f} GB",
    }
