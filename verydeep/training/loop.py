"""The training loop: `train` and `_epochs` are the paper's recipe on one page, the rest are what they name."""

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from verydeep.images.on_device import DeviceBatch
from verydeep.images.sources.open import open_source
from verydeep.images.sources.source import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.processes import joined, restarted, under_torchrun
from verydeep.machine.runtime import Execution, Runtime, StopRequest, peak_memory, stop_request, torch_device
from verydeep.networks.configurations import CONFIGURATIONS, configuration
from verydeep.presentation.numbers import billions, decimal, percent
from verydeep.presentation.progress import Reporter, reporting
from verydeep.runs.model import load_config
from verydeep.runs.record import has_record, is_begun, is_finished, read_record
from verydeep.training.agreement import Fetched, agreed_batches, end
from verydeep.training.checkpoint import Position
from verydeep.training.curves import Curves, curves
from verydeep.training.job import Order
from verydeep.training.preparation import Training, prepare
from verydeep.training.recipe import Recipe
from verydeep.training.run_folder import check_folder, check_same
from verydeep.training.saving import last_checkpoint, save_checkpoint, save_models
from verydeep.training.schedule import after_epoch
from verydeep.training.step import Abandoned, DivergedError, Outcome, descend
from verydeep.training.validation import validation_error


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
    """Trains a network on a source's training images and leaves a run folder (see `verydeep.runs.record`).

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
    out, network, device = Path(out), _network(network, recipe), torch_device(runtime.device)
    if execution.fc_parallel and not (under_torchrun() or restarted()):
        raise ValueError("--fc-parallel divides layers among processes: start several with torchrun")
    advice = "the last checkpoint stays, --resume goes on from it"
    with joined(device, advice=advice, known=(DivergedError, WorkerDiedError)) as processes:
        goes_on = resume or any(processes.all_of(restarted()))
        processes.from_first(lambda: check_folder(out, resume=goes_on))
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
        processes.check_alike(
            "images, classes or starting weights under this name", lambda: (order.splits.classes, order.fingerprints)
        )
        if not processes.from_first(lambda: _stands(order)):
            _train(order)
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
    save_models(training, order.splits, say=report.say)


def _epochs(training: Training, stop: StopRequest, report: Reporter, plot: Curves) -> None:
    """Steps until the schedule or the epochs end, or a signal does."""
    steps = training.steps_per_epoch
    if training.position.seen and training.position.step % steps == 0:
        _end_epoch(training, stop, report, plot)  # it was stopped in the middle of that
    if training.ended:
        return
    with closing(agreed_batches(training, stop)) as batches:
        for batch, usable, fetched in batches:
            outcome = Outcome()
            if any(usable):
                outcome = _descend(training, batch, usable, stop, report.say)
                plot.step(training.position.step, loss=outcome.loss_sum / sum(usable), learning_rate=training.rate)
            training.position = _after(training.position, outcome, sum(usable), fetched)
            if training.position.step % steps == 0:
                _end_epoch(training, stop, report, plot)
            else:
                report.advance(figures=_figures(training))
            if training.ended:
                return


def _descend(
    training: Training, batch: DeviceBatch, usable: list[int], stop: StopRequest, say: Callable[[str], None]
) -> Outcome:
    """One step, in smaller pieces if memory asks for it; or the end, if numbers are not finite or a signal comes."""
    step, alone = training.position.step, not training.machinery.processes.several
    while True:
        try:
            return descend(
                training.machinery,
                training.recipe,
                batch,
                step=step,
                rate=training.rate,
                usable=usable,
                abandon=lambda: alone and stop.signal is not None,
            )
        except Abandoned:
            save_checkpoint(training)
            end(training.out, signal=stop.signal or 0)
        except DivergedError as error:  # the weights of this step may be what it comes from: they are not saved
            raise DivergedError(
                f"{error}; that step was not applied, {last_checkpoint(training.out)}: train again in another folder "
                "with a lower learning rate"
            ) from None
        except torch.OutOfMemoryError as error:
            smaller = math.ceil(training.machinery.micro_batch / 2)
            if not alone or training.machinery.micro_batch == 1:
                raise RuntimeError(
                    f"out of memory at step {step}; {last_checkpoint(training.out)}: go on with --resume "
                    f"--micro-batch {smaller}"
                ) from error
        say(f"out of memory at step {step}: it is done again in pieces of {smaller}")
        training.machinery = replace(training.machinery, micro_batch=smaller)
        if training.machinery.device.type == "cuda":
            torch.cuda.empty_cache()


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
    error = validation_error(training, stop)
    plateau = after_epoch(position.plateau, error, training.recipe)
    best = position.plateau.best is None or error < position.plateau.best
    report.advance(tell=True, figures={**_figures(training), "validation": f"{percent(error)}%"})
    _tell_missing(training, report)
    plot.epoch(
        {
            "epoch": training.epoch,
            "step": position.step,
            "learning_rate": training.last_rate,
            "loss": position.loss_sum / position.seen,
            "training_error": 100 * position.wrong / position.seen,
            "validation_error": error,
            "images": position.seen,
            "images_per_second": position.seen / position.seconds,
            "seconds": position.seconds,
            "waiting": 100 * position.waited / position.seconds,
            "peak_memory_bytes": peak_memory(training.machinery.device),
        }
    )
    training.position = Position(
        step=position.step, plateau=plateau, best_step=position.step if best else position.best_step
    )
    save_checkpoint(training)


def _tell_missing(training: Training, report: Reporter) -> None:
    """What an epoch lacked beside the images that cannot be used: those whose object no crop showed."""
    usable = training.bad_images.images - len(training.bad_images.reasons)
    missing = usable - training.position.seen
    if missing > 0:
        report.say(
            f"epoch {training.epoch} went without {missing:,} of {usable:,} images: none of the crops that were drawn "
            "of them showed enough of their object"
        )


def _network(network: str | None, recipe: Recipe) -> str:
    """The paper's name of it."""
    if network is not None:
        return configuration(network).name
    if recipe.finetune is None:
        raise ValueError(f"say which --network: {', '.join(CONFIGURATIONS)}")
    return load_config(recipe.finetune)["network"]


def _stands(order: Order) -> bool:
    """Whether the training has ended before.

    Raises:
        ValueError: it was begun with other settings.
    """
    if has_record(order.out) and is_begun(order.out):
        check_same(read_record(order.out), order)
        return is_finished(order.out)
    return False


def _figures(training: Training) -> dict[str, str]:
    """The most important ones first: the last ones are left out where there is no room."""
    position = training.position
    seen, seconds = max(1, position.seen), max(position.seconds, 1e-9)
    best = {} if position.plateau.best is None else {"best": f"{percent(position.plateau.best)}%"}
    return {
        "epoch": f"{training.epoch}/{training.recipe.epochs}",
        "loss": decimal(position.loss_sum / seen, 3),
        "error": f"{percent(100 * position.wrong / seen)}%",
        "images/s": f"{seen / seconds:,.0f}",
        "waiting": f"{percent(100 * position.waited / seconds, 0)}%",
        **best,
        "rate": f"{training.last_rate:.2g}",
        "memory": f"{billions(peak_memory(training.machinery.device))} GB",
    }
