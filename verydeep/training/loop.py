"""The training loop: `train`, `_train` and `_epochs` are the paper's recipe on one page, the rest their parts."""

import math
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import torch

from verydeep.images.loader import DeviceBatch, nothing
from verydeep.images.open import open_for_training
from verydeep.images.sources.splits import Splits, with_steering_images
from verydeep.images.tolerance import Tolerance, TooManyBadImagesError
from verydeep.images.workers import WorkerDiedError
from verydeep.machine.lock import WrittenElsewhereError, locked
from verydeep.machine.memory import freed_memory_kept
from verydeep.machine.peak_memory import begin_peak
from verydeep.machine.processes import joined
from verydeep.machine.runtime import Execution, Runtime, StopRequest, kernels_kept, stop_request, torch_device
from verydeep.machine.threads import threads_kept, use_threads
from verydeep.machine.torchrun import restarted, under_torchrun
from verydeep.presentation.terminal import Reporter, reporting
from verydeep.training.as_begun import features_kept_as_begun, note
from verydeep.training.checkpoint import Progress
from verydeep.training.curves import Curves, about_missing_images, bar_figures, epoch_metrics
from verydeep.training.decisions import GO_ON, SAVE, Arrived, Decision, arrivals, decide, settle
from verydeep.training.frozen_layers import frozen_features, images_kept, kept_before, validation_batches
from verydeep.training.guessing import about_guessing
from verydeep.training.job import TrainingJob, check_folder, is_done, remove_left_checkpoints
from verydeep.training.norms import StepNorms
from verydeep.training.parallel import same_statistics
from verydeep.training.preparation import prepare
from verydeep.training.recipe import Recipe, after_epoch
from verydeep.training.start import network_of
from verydeep.training.state import TrainingState, last_checkpoint, save_checkpoint, save_models
from verydeep.training.step import Abandoned, DivergedError, Outcome, descend, scores

_ANSWER = "finishing this step, then saving; again to quit without saving"

_WITH_A_LOWER_RATE = "train again in another folder with a lower learning rate"


def train(
    source: str | Path | Splits,
    *,
    out: str | Path,
    network: str | None = None,
    recipe: Recipe | None = None,
    held_out: float | None = None,
    runtime: Runtime | None = None,
    execution: Execution | None = None,
    tolerance: Tolerance | None = None,
    resume: bool = False,
) -> Path:
    """Train a network on a source's training images and leave a run folder (see `verydeep.runs.record`).

    The learning rate follows the error on the validation images, as centre crops at S; or, with `held_out`, on that
    share of each class's training images, always the same ones, so that the validation images can test. With
    `resume`, a run that was stopped goes on from its last checkpoint and ends with the same weights, to the bit, as one
    that was not (on the same CPU; CUDA kernels may add in another order): it computes as it was begun, and where it
    cannot, for want of memory or threads, it says so. One that has ended is left alone. Images that cannot be used are
    left out and listed in the run's quarantine.jsonl, up to the share that `tolerance` allows.

    Under torchrun its processes share every batch. Order, crops, flips, colours and dropout are those of one process,
    and so are the weights, up to rounding; the first process writes. After a restart by torchrun they resume by
    themselves.

    Raises:
        ValueError: unusable source, network, recipe or runtime; `out` exists and `resume` is not set, or it was
            made with other settings.
        TooManyBadImagesError: more images are unusable than is tolerated; a checkpoint of the steps was saved first.
        WorkerDiedError: a process that loads images was killed, say; a checkpoint of the steps was saved first.
        LostProcessError: another process of the training ended; the last checkpoint stays.
        Stopped: SIGINT, SIGTERM, SIGHUP or SIGQUIT; a checkpoint of the steps was saved first.
        DivergedError: loss or gradients became infinite or not a number; that step was not applied.
    """
    recipe, runtime, execution = recipe or Recipe(), runtime or Runtime(), execution or Execution()
    out, device = Path(out), torch_device(runtime.device)
    network = network_of(network, recipe, out)
    if execution.fc_parallel and not (under_torchrun() or restarted()):
        raise ValueError("--fc-parallel divides layers among processes: start several with torchrun")
    with (
        threads_kept(),
        kernels_kept(),
        ExitStack() as stack,
        joined(
            device, advice=_advice(resume), known=(DivergedError, WorkerDiedError, WrittenElsewhereError)
        ) as processes,
    ):
        use_threads(runtime.threads)
        processes.from_first(lambda: stack.enter_context(locked(out)))
        goes_on = resume or any(processes.all_of(restarted()))
        processes.from_first(lambda: check_folder(out, resume=goes_on))
        job = TrainingJob(
            splits=_splits(source, held_out),
            network=network,
            recipe=recipe,
            runtime=runtime,
            execution=execution,
            tolerance=tolerance or Tolerance(),
            out=out,
            device=device,
            processes=processes,
            resume=resume,
        )
        processes.check_alike(
            "images, classes or starting weights under this name", lambda: (job.splits.classes, job.fingerprints)
        )
        if processes.from_first(lambda: is_done(job)):
            processes.from_first(lambda: remove_left_checkpoints(job))
        else:
            with freed_memory_kept():
                _train(job)
    return out


def _advice(resume: bool) -> str:
    """Say how to go on after a loss: a command that resumes, as those of experiments always do, just again."""
    return f"the last checkpoint stays; {'repeat the command to continue' if resume else '--resume continues'} from it"


def _splits(source: str | Path | Splits, held_out: float | None) -> Splits:
    splits = open_for_training(source)
    return splits if held_out is None else with_steering_images(splits, held_out)


def _train(job: TrainingJob) -> None:
    begin_peak(job.device)
    state, lines = prepare(job)
    step, total, first = state.progress.step, job.recipe.epochs * state.steps_per_epoch, job.processes.first
    with stop_request(_ANSWER if first else None) as stop, ExitStack() as stack:
        lines = _pass_frozen_layers(state, stop, lines)
        what, epoch = f"train {job.network}", state.steps_per_epoch
        report = stack.enter_context(reporting(what, total, done=step, epoch=epoch, quiet=not first))
        plot = stack.enter_context(closing(Curves(job.out, first_step=step, on=first)))
        state.bad_images.say = state.bad_validation.say = report.say
        report.say_all(lines)
        with closing(_epochs(state, stop, report, plot)) as decisions:
            for decision in decisions:
                if decision.save:
                    save_checkpoint(state)
                if decision.ending is not None:
                    raise decision.ending
    save_models(state, say=report.say)


def _pass_frozen_layers(state: TrainingState, stop: StopRequest, lines: list[str]) -> list[str]:
    """Let steps begin behind frozen layers where that can be; say `lines` before it, or return them."""
    job = state.job
    first = kept_before(job, state.learner.net)
    kept_when_begun = job.processes.from_first(lambda: features_kept_as_begun(job))
    if first is None:
        if job.recipe.views is not None:
            job.processes.from_first(lambda: note(job, features_kept=False))
        return [*lines, *(["the frozen layers' features are no longer kept, unlike before"] if kept_when_begun else [])]
    if kept_when_begun is not False:
        with reporting("frozen layers", images_kept(job)) as report:
            state.bad_images.say = state.bad_validation.say = report.say
            report.say_all(lines)
            lines = []
            state.features = frozen_features(state, first, stop, report)
    note(job, features_kept=state.features is not None)
    if state.features is None:
        why = {
            None: "memory does not hold those of all views",
            True: "memory no longer holds those of all views",
            False: "as when it was begun",
        }[kept_when_begun]
        return [*lines, f"the frozen layers' features are computed in every step: {why}"]
    state.learner = replace(state.learner, first=first)
    return []


def _epochs(state: TrainingState, stop: StopRequest, report: Reporter, plot: Curves) -> Generator[Decision]:
    """Take steps until the schedule or the epochs end; yield the decision before and after each piece of work."""
    with closing(arrivals(state, stop)) as batches:
        while not state.ended:
            if state.validation_due:
                yield _end_epoch(state, stop, report, plot)
            else:
                arrived = next(batches)
                yield arrived.decision
                yield _step(state, arrived, stop, report, plot)


def _step(state: TrainingState, arrived: Arrived, stop: StopRequest, report: Reporter, plot: Curves) -> Decision:
    """Take one step, if the batch has any image that can be used, unless a signal comes in the middle of it."""
    progress, outcome, images = state.progress, Outcome(), sum(arrived.usable)
    if images:
        try:
            outcome = _descend(state, arrived, stop, report.say)
        except Abandoned:
            return decide(state.job.out, signal=stop.signal or 0)
        plot.step(progress.step, loss=outcome.loss_sum / images, learning_rate=state.rate(progress.step))
        if outcome.norms:
            plot.norms(StepNorms(step=progress.step, loss=outcome.loss_sum / images, layers=outcome.norms))
    state.progress = replace(
        progress,
        step=progress.step + 1,
        loss_sum=progress.loss_sum + outcome.loss_sum,
        wrong=progress.wrong + outcome.wrong,
        seen=progress.seen + images,
        seconds=progress.seconds + time.perf_counter() - arrived.asked,
        waited=progress.waited + arrived.waited,
    )
    report.advance(figures=bar_figures(state))
    return GO_ON


def _descend(state: TrainingState, arrived: Arrived, stop: StopRequest, say: Callable[[str], None]) -> Outcome:
    """Apply one step, in smaller pieces if memory asks for it.

    Raises:
        Abandoned: a signal came; on several processes it waits for the next decision.
        DivergedError: numbers are not finite; the weights of this step may be the cause, so they are not saved.
        RuntimeError: memory does not hold one image, or several processes would have to divide the step alike.
    """
    step, alone = state.progress.step, not state.job.processes.several
    every = state.job.execution.norms_every or 0
    while True:
        try:
            return descend(
                state.learner,
                arrived.batch,
                step=step,
                rate=state.rate(step),
                usable=arrived.usable,
                abandon=lambda: alone and stop.signal is not None,
                record=bool(every) and step % every == 0,
            )
        except DivergedError as error:
            raise DivergedError(
                error.what,
                f"that step was not applied, {last_checkpoint(state.job.out)}: {_WITH_A_LOWER_RATE}",
            ) from None
        except torch.OutOfMemoryError as error:
            smaller = math.ceil(state.learner.micro_batch / 2)
            last = smaller == state.learner.micro_batch
            if last or not alone:
                advice = "once there is memory for one image" if last else f"--micro-batch {smaller}"
                again = f"repeat the command{'' if last else ' with'}" if state.job.resume else "go on with --resume"
                raise RuntimeError(
                    f"out of memory at step {step}; {last_checkpoint(state.job.out)}: {again} {advice}"
                ) from error
        say(f"out of memory at step {step}: it is done again in pieces of {smaller}")
        state.learner = replace(state.learner, micro_batch=smaller)
        note(state.job, micro_batch=smaller)
        if state.job.device.type == "cuda":
            torch.cuda.empty_cache()


def _end_epoch(state: TrainingState, stop: StopRequest, report: Reporter, plot: Curves) -> Decision:
    """Compute the validation error, note a line of metrics, and let the schedule follow the error."""
    progress = state.progress
    if not progress.seen:
        raise ValueError("none of the training images can be used")
    errors = _validation_errors(state, stop)
    if isinstance(errors, Decision):
        return errors
    error, class_balanced = errors
    report.advance(0, tell=True, figures=bar_figures(state, error))
    metrics = epoch_metrics(state, error, class_balanced)
    guessing = about_guessing(metrics, state.job.images_per_class.values(), state.job.recipe, state.job.network)
    report.say_all(line for line in (about_missing_images(state), guessing) if line)
    plot.epoch(metrics)
    best = progress.plateau.best is None or error < progress.plateau.best
    state.progress = Progress(
        step=progress.step,
        plateau=after_epoch(progress.plateau, error, state.job.recipe),
        best_step=progress.step if best else progress.best_step,
    )
    return SAVE


def _validation_errors(state: TrainingState, stop: StopRequest) -> tuple[float, float] | Decision:
    """Return error and class-balanced error in percent, on centre crops at S; or the decision that cuts it short.

    The error is the share of all processes' images whose class, or box, is wrong; the class-balanced one is the mean of
    the classes' shares. A validation that was cut short is repeated as a whole.

    Raises:
        DivergedError: scores are not finite.
        ValueError: no validation image can be used.
    """
    learner, processes = state.learner, state.job.processes
    same_statistics(learner.net, processes)
    failures: list[Exception] = []
    classes, not_finite = len(state.job.splits.classes), 0
    wrong_of, images_of = torch.zeros(2, classes, dtype=torch.float64)
    for batch in _shares(state, failures):
        if (stop.signal is not None or failures) and not state.job.execution.fc_parallel:
            break
        outputs = scores(learner, batch.images)
        not_finite += not outputs.isfinite().all()
        labels, wrong = batch.labels.cpu(), learner.objective.wrong(outputs, batch).cpu()
        wrong_of += torch.bincount(labels, weights=wrong.double(), minlength=classes)
        images_of += torch.bincount(labels, minlength=classes)
    too_many = settle(state.bad_validation, processes)
    failure = next(iter(failures), too_many)
    own = [not_finite, failure is not None, stop.signal or 0, *wrong_of.tolist(), *images_of.tolist()]
    told = processes.gathered(own)
    failed, signals = told[:, 1].long().tolist(), told[:, 2].long().tolist()
    if any(failed) or any(signals):
        return decide(state.job.out, failure=failure, failed=failed, signal=max(signals))
    if told[:, 0].any():
        raise DivergedError(
            f"training diverged: scores of validation images are not finite after step {state.progress.step - 1}",
            f"{last_checkpoint(state.job.out)}: {_WITH_A_LOWER_RATE}",
        )
    wrong_of, images_of = told[:, 3:].sum(0).unflatten(0, (2, classes))
    if not images_of.any():
        raise ValueError("none of the validation images can be used")
    there = images_of > 0
    class_balanced = 100 * float((wrong_of[there] / images_of[there]).mean())
    return 100 * int(wrong_of.sum()) / int(images_of.sum()), class_balanced


def _shares(state: TrainingState, failures: list[Exception]) -> Generator[DeviceBatch]:
    """Yield this process's batches; then, and after a failure, empty ones until all processes have had as many.

    Processes that share layers have to call the network equally often. Features are kept where there is one process.
    """
    if state.features is not None:
        yield from state.features.validation_batches(state.job.device, images=state.learner.micro_batch)
        return
    job, recipe, micro_batch = state.job, state.job.recipe, state.learner.micro_batch
    batches_each = math.ceil(math.ceil(len(job.splits.source("val")) / job.processes.count) / micro_batch)
    with closing(validation_batches(state)) as batches:
        for _ in range(batches_each):
            batch = nothing(recipe.crop, job.device)
            try:
                batch = next(batches, batch)
            except (WorkerDiedError, TooManyBadImagesError) as failure:
                failures.append(failure)
            yield batch
