"""Everything before the first step: images, first weights, the machinery, and where a stopped training stands."""

import math
import os
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from verydeep import runs
from verydeep.images.colour import SAMPLE, ColourStatistics, colour_statistics, shift_components
from verydeep.images.loader import RescaledImages, TrainingView, batches_per_epoch
from verydeep.images.quarantine import Quarantine
from verydeep.images.scan import check_images
from verydeep.images.sources import Source, Splits, Subset
from verydeep.images.tolerance import Tolerance
from verydeep.networks.arithmetic import describe
from verydeep.networks.configurations import InitialisationScheme, configuration
from verydeep.networks.initialisation import Initialisation, initialise, layers_with_weights
from verydeep.networks.scales import scale_in_pixels, scale_range
from verydeep.networks.vgg import VGG
from verydeep.processes import Processes, processes_here
from verydeep.runtime import Execution, Runtime, uses_bf16
from verydeep.training import checkpoint
from verydeep.training.checkpoint import Checkpoint, Position
from verydeep.training.parallel import bytes_sent, like, parallelised
from verydeep.training.recipe import Recipe, recipe_from
from verydeep.training.schedule import learning_rate
from verydeep.training.step import Machinery

OUT_OF_MEMORY_IS_SURVIVED = ("cuda",)
"""Devices on which an allocation that fails is an error; elsewhere the system ends the process."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What was asked for."""

    splits: Splits
    network: str
    recipe: Recipe
    runtime: Runtime
    execution: Execution
    tolerance: Tolerance
    out: Path
    device: torch.device
    processes: Processes


@dataclass(kw_only=True)
class Training:
    """What the steps of a training work on; of it only `position` and the weights change."""

    machinery: Machinery
    position: Position
    recipe: Recipe
    images: Source
    view: TrainingView
    validation: RescaledImages
    """This process's share of them."""
    validation_images: int
    """Of all processes."""
    bad_images: Quarantine
    bad_validation: Quarantine
    workers: int
    save_minutes: float
    out: Path

    @property
    def steps_per_epoch(self) -> int:
        """Every image once."""
        return batches_per_epoch(len(self.images), self.recipe.batch)

    @property
    def epoch(self) -> int:
        """Which one the last step belonged to, from 1."""
        return max(1, math.ceil(self.position.step / self.steps_per_epoch))

    @property
    def ended(self) -> bool:
        """Whether there is no further step."""
        return self.position.plateau.finished or self.position.step >= self.recipe.epochs * self.steps_per_epoch

    @property
    def rate(self) -> float:
        """Learning rate of the next step."""
        return self._rate(self.position.step)

    @property
    def last_rate(self) -> float:
        """Learning rate of the last step."""
        return self._rate(max(0, self.position.step - 1))

    def _rate(self, step: int) -> float:
        return learning_rate(self.recipe, self.position.plateau, step=step, steps_per_epoch=self.steps_per_epoch)


def prepare(order: Order) -> tuple[Training, list[str]]:
    """A training that is ready for its next step, and what to tell about it. Writes `run.json` if nothing was begun."""
    recipe, processes, splits = order.recipe, order.processes, order.splits
    images, validation = splits.part("train"), splits.part("val")
    net, initialisation, notes = _initial_network(order)
    if processes.first and not runs.is_begun(order.out):
        _write_record(order, initialisation)
    bad_images, bad_validation = (
        Quarantine(
            len(splits.part(split)),
            order.tolerance,
            split=split,
            file=order.out / runs.QUARANTINE if processes.first else None,
        )
        for split in ("train", "val")
    )
    colour = _looked_through(order, bad_images, bad_validation)
    if recipe.finetune is None:
        net.mean_rgb.copy_(torch.tensor(colour.mean))
    found, damaged = processes.from_first(lambda: checkpoint.load_latest(order.out / runs.CHECKPOINTS))
    if found is not None:
        net.load_state_dict(found.weights)
    machinery = _machinery(order, net, found)
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in scale_range(recipe.scale))
    share = Subset(source=validation, indices=tuple(range(processes.rank, len(validation), processes.count)))
    training = Training(
        machinery=machinery,
        position=found.position if found is not None else Position(),
        recipe=recipe,
        images=images,
        view=TrainingView(
            crop=recipe.crop,
            scale=(low, high),
            flip=recipe.flip,
            colour_sd=recipe.colour_sd,
            colour_components=shift_components(colour.covariance),
        ),
        validation=RescaledImages(share, max_pixels=order.tolerance.max_pixels),
        validation_images=len(validation),
        bad_images=bad_images,
        bad_validation=bad_validation,
        workers=order.runtime.workers,
        save_minutes=order.execution.save_minutes,
        out=order.out,
    )
    about = [*damaged, *_about(order, machinery), *notes, _about_colours(order, colour)]
    about += [
        f"{len(bad.reasons):,} images of {bad.split} cannot be used and are left out: {order.out / runs.QUARANTINE}"
        for bad in (bad_images, bad_validation)
        if bad.reasons
    ]
    about.append(f"resumed at step {training.position.step}" if training.position.step else str(initialisation))
    return training, about


def _initial_network(order: Order) -> tuple[VGG, Initialisation, list[str]]:
    """The network with its first weights, how it got them, and what is worth a word about that."""
    recipe, classes = order.recipe, order.splits.classes
    net = VGG(
        configuration(order.network),
        classes=len(classes),
        crop=recipe.crop,
        batch_norm=recipe.batch_norm,
        width=recipe.width,
        dropout=recipe.dropout,
    )
    generator = torch.Generator().manual_seed(recipe.seed)
    notes: list[str] = []
    if recipe.start is None:
        initialisation = initialise(net, cast(InitialisationScheme, recipe.init), generator=generator)
    elif recipe.finetune is None:
        seed = runs.load_model(recipe.start)
        if seed.classes != classes:
            raise ValueError(f"cannot start from {recipe.init}: it was trained for other classes, so fc8 does not fit")
        initialisation = initialise(net, recipe.init_rest or "glorot", seed_from=seed.net, generator=generator)
    else:
        initialisation, notes = _gone_on_from(recipe.finetune, net, classes, generator)
    if recipe.freeze is not None:
        notes.append(f"frozen: {', '.join(_freeze(net, recipe.freeze))}")
    return net, initialisation, notes


def _gone_on_from(
    run: str, net: VGG, classes: tuple[str, ...], generator: torch.Generator
) -> tuple[Initialisation, list[str]]:
    """Copies all layers and the mean of a run; fc8 is drawn anew where the classes are others."""
    trained = runs.load_model(run)
    theirs, ours = _shape(trained.net), _shape(net)
    if theirs != ours:
        raise ValueError(f"cannot go on from {run}, which is {theirs}, with {ours}: say the same")
    net.mean_rgb.copy_(trained.net.mean_rgb)
    layers = layers_with_weights(trained.net)
    notes: list[str] = []
    if set(trained.classes) == set(classes):
        order = [trained.classes.index(name) for name in classes]
        with torch.no_grad():
            trained.net.fc8.weight.copy_(trained.net.fc8.weight[order])
            trained.net.fc8.bias.copy_(trained.net.fc8.bias[order])
    else:
        layers = tuple(name for name in layers if name != "fc8")
        notes.append(f"fc8 is new: the classes are not the {len(trained.classes):,} of {run}")
    return initialise(net, seed_from=trained.net, layers=layers, generator=generator), notes


def _shape(net: VGG) -> str:
    """What has to be the same, as options say it."""
    norm = " --batch-norm" if net.batch_norm else ""
    return f"--network {net.configuration.name} --crop {net.crop} --width {net.width:g}{norm}"


def _freeze(net: VGG, last: str) -> tuple[str, ...]:
    """Excludes the layers up to `last` from learning; their names."""
    if last not in net.layer_names:
        raise ValueError(f"freeze: no layer {last!r}; this network has {', '.join(net.layer_names)}")
    upto = net.layer_names[: net.layer_names.index(last) + 1]
    frozen = tuple(name for name in layers_with_weights(net) if name in upto)
    if "fc8" in frozen:
        raise ValueError("freeze fc8 leaves nothing to train: name an earlier layer")
    for name in frozen:
        net.get_submodule(name).requires_grad_(False)
    return frozen


def _write_record(order: Order, initialisation: Initialisation) -> None:
    record = runs.Record(
        network=configuration(order.network).name,
        recipe=asdict(order.recipe),
        runtime={**asdict(order.runtime), **asdict(order.execution), "processes": order.processes.count},
        source=order.splits.name,
        fingerprints=_fingerprints(order.splits, order.recipe),
        images={split: len(order.splits.part(split)) for split in ("train", "val")},
        classes=order.splits.classes,
        initialisation=str(initialisation),
        command=runs.command(),
        versions=runs.versions(),
    )
    runs.write_record(order.out, record)
    (order.out / runs.QUARANTINE).unlink(missing_ok=True)


def _looked_through(order: Order, *listed: Quarantine) -> ColourStatistics:
    """Colours of the training images, and which validation images cannot be used. One process looks for all."""
    bad_images, bad_validation = listed
    splits, workers = order.splits, order.runtime.workers * processes_here()

    def look() -> tuple[ColourStatistics, list[dict[str, str]]]:
        colour = colour_statistics(splits.part("train"), quarantine=bad_images, workers=workers)
        check_images(splits.part("val"), quarantine=bad_validation, workers=workers)
        return colour, [quarantine.reasons for quarantine in listed]

    colour, reasons = order.processes.from_first(look)
    for quarantine, known in zip(listed, reasons, strict=True):
        quarantine.reasons.update(known)
        quarantine.waits = order.processes.several
    return colour


def _machinery(order: Order, net: VGG, found: Checkpoint | None) -> Machinery:
    """The network on its device, together with the other processes, and the optimiser with its momentum."""
    recipe, execution, processes, device = order.recipe, order.execution, order.processes, order.device
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = execution.precision != "fp32"
        torch.backends.cudnn.benchmark = True
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    bf16 = uses_bf16(execution.precision, device)
    micro_batch = execution.micro_batch or _micro_batch_that_fits(order, net, bf16=bf16)
    forward = parallelised(net, processes, device, fc_parallel=execution.fc_parallel)
    if execution.compile:
        forward = cast(nn.Module, torch.compile(forward))
    optimiser = _optimiser(net, recipe, device)
    for name, value in net.named_parameters():
        if found is not None and name in found.momentum:
            optimiser.state[value]["momentum_buffer"] = like(found.momentum[name], value)
    return Machinery(
        net=net,
        forward=forward,
        optimiser=optimiser,
        processes=processes,
        device=device,
        bf16=bf16,
        micro_batch=micro_batch,
        fc_parallel=execution.fc_parallel,
    )


def _optimiser(net: VGG, recipe: Recipe, device: torch.device) -> torch.optim.SGD:
    """Momentum descent; one kernel for all weights where there is one (none for sharded ones)."""
    learning = [value for value in net.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in learning if isinstance(value, DTensor) == sharded], "fused": fused}
        for sharded, fused in ((False, device.type == "cuda"), (True, False))
    ]
    return torch.optim.SGD(
        [group for group in groups if group["params"]],
        lr=recipe.first_rate,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )


def _micro_batch_that_fits(order: Order, net: VGG, *, bf16: bool) -> int:
    """Images that can be computed at once on every process: all of its share, or a half, a quarter, ... of it."""
    share, device = math.ceil(order.recipe.batch / order.processes.count), order.device
    if device.type not in OUT_OF_MEMORY_IS_SURVIVED:
        return _micro_batch_by_arithmetic(order, share)

    def try_out(images: int) -> None:
        shown = torch.zeros(images, 3, net.crop, net.crop, device=device).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
            loss = net(shown).float().logsumexp(1).sum()
        loss.backward()

    momentum = [torch.empty_like(value) for value in net.parameters()]  # which will have to fit, too
    fits = largest_that_fits(share, try_out, forget=lambda: net.zero_grad(set_to_none=True))
    del momentum
    return int(order.processes.gathered([fits]).min())


def _micro_batch_by_arithmetic(order: Order, images: int) -> int:
    """The first of `images`, a half, a quarter, ... whose activations and their gradients take half of the memory."""
    recipe = order.recipe
    size = describe(
        order.network,
        input=recipe.crop,
        classes=len(order.splits.classes),
        width=recipe.width,
        batch_norm=recipe.batch_norm,
    ).activation_bytes
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / processes_here()
    while images > 1 and 2 * size * images > memory / 2:
        images = math.ceil(images / 2)
    return images


def largest_that_fits(images: int, try_out: Callable[[int], None], *, forget: Callable[[], None]) -> int:
    """The first of `images`, a half, a quarter, ... that `try_out` has memory for.

    Raises:
        ValueError: not even one.
    """
    while True:
        try:
            try_out(images)
        except torch.OutOfMemoryError:
            if images == 1:
                raise ValueError(
                    "not even one image fits into the device's memory: take a smaller --width or --crop"
                ) from None
        else:
            return images
        finally:
            forget()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        images = math.ceil(images / 2)


def _about(order: Order, machinery: Machinery) -> list[str]:
    """What is trained, on what, and how it is computed."""
    net, recipe, splits, count = machinery.net, order.recipe, order.splits, order.processes.count
    low, high = (scale_in_pixels(scale, recipe.crop) for scale in scale_range(recipe.scale))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    lines = [
        f"{net.configuration.name}, {parameters:,} parameters; {len(splits.part('train')):,} training and "
        f"{len(splits.part('val')):,} validation images in {len(splits.classes)} classes; crop {recipe.crop}, S "
        f"{low if low == high else f'from {low} to {high}'} pixels"
    ]
    share = math.ceil(recipe.batch / count)
    pieces = math.ceil(share / machinery.micro_batch)
    how = [
        f"on {order.device}" + (f" and {count - 1} more" if count > 1 else ""),
        "bfloat16 products" if machinery.bf16 else "float32",
        "channels last",
        *(["compiled"] if order.execution.compile else []),
        *([f"batches of {recipe.batch} in {pieces} pieces of {machinery.micro_batch}"] if pieces > 1 else []),
    ]
    lines.append(", ".join(how))
    if count > 1:
        plain, sharded = (
            bytes_sent(net, count, batch=recipe.batch, fc_parallel=fc_parallel) / 1e6 for fc_parallel in (False, True)
        )
        here, other, word = (sharded, plain, "without") if machinery.fc_parallel else (plain, sharded, "with")
        lines.append(f"each process sends {here:,.1f} MB a step ({other:,.1f} {word} --fc-parallel)")
    return lines


def _about_colours(order: Order, colour: ColourStatistics) -> str:
    sampled = ", a seeded sample" if len(order.splits.part("train")) > SAMPLE else ""
    mean = ", ".join(f"{value:.1f}" for value in colour.mean)
    kept = "; the network keeps that of its first training" if order.recipe.finetune else ""
    return f"mean RGB {mean} of {colour.images:,} training images{sampled}{kept}"


def _fingerprints(splits: Splits, recipe: Recipe) -> dict[str, str]:
    images = {split: splits.part(split).fingerprint for split in ("train", "val")}
    start = (
        {"init" if recipe.finetune is None else "finetune": runs.weights_fingerprint(recipe.start)}
        if recipe.start
        else {}
    )
    return {**images, **start}


def check_folder(out: Path, *, resume: bool) -> None:
    """Refuses to write where something else lies.

    Raises:
        ValueError: it does.
    """
    if out.is_file():
        raise ValueError(f"{out} is a file: choose a folder")
    if not out.is_dir() or not any(out.iterdir()) or (runs.has_record(out) and not runs.is_begun(out)):
        return
    if not resume:
        raise ValueError(f"{out} exists: add --resume to go on with it, or choose another folder")
    if not runs.has_record(out):
        raise ValueError(f"{out} is no run to resume (it has no {runs.RECORD}): choose another folder")


def check_same(before: runs.Record, order: Order) -> None:
    """Refuses to resume a run with another network, recipe or other images.

    Raises:
        ValueError: something is not as it was.
    """
    old = {
        **asdict(recipe_from(before.recipe)),
        **before.fingerprints,
        "network": before.network,
        "classes": before.classes,
    }
    new = {
        **asdict(order.recipe),
        **_fingerprints(order.splits, order.recipe),
        "network": configuration(order.network).name,
        "classes": order.splits.classes,
    }
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        raise ValueError(
            f"{order.out} was made with another {', '.join(changed)}: resume it with its own settings "
            f"({before.command}), or choose another folder"
        )
