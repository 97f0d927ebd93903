"""A training step, ours against loops that one would write in PyTorch: prints JSON.

All start from the same weights and see the same batch of noise, which lies on the device already (benchmarks/loading.py
measures what comes before). They are timed in turn, pass by pass; figures are medians over the passes, and ratios are
taken within a pass. A ratio above 1 says that ours is faster.

- plain: the network as `nn.Sequential`, float32, default memory format, `torch.optim.SGD`, all with default settings.
- torchvision, where it is installed: its own network, channels last, on CUDA with automatic mixed precision in float16
  (and its loss scaling) and once more in bfloat16. Only at crop 224 and width 1: at others it is another network.
- ours: `descend` with the learner that `verydeep train` chooses on the device; on CUDA also compiled.
- matrix_product: a large one, bfloat16 on CUDA and float32 elsewhere. `share_of_matrix_rate` is how much of its rate a
  step reaches, which is counted as three forward passes: one forward, two of as many multiply-adds backward.

    python benchmarks/training.py [--network D] [--crop 224] [--batch 256] [--device cuda]

On a CPU that others use as well, look at the processor time (it still counts threads that wait for each other: set
OMP_NUM_THREADS=1 to avoid that too).

Without options: D, crop 224, batch 256 on CUDA; A, crop 64, batch 32 elsewhere; 10 classes.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from verydeep.images.loader import DeviceBatch
from verydeep.images.sources.source import memory_source
from verydeep.images.sources.splits import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Execution, Runtime, torch_device
from verydeep.networks.architecture import Architecture, Layer, configuration
from verydeep.networks.arithmetic import describe_architecture
from verydeep.networks.initialisation import vgg
from verydeep.networks.vgg import ILSVRC_MEAN_RGB, VGG
from verydeep.runs.record import versions
from verydeep.training.job import TrainingJob
from verydeep.training.learner import learner_of
from verydeep.training.precision import with_precision
from verydeep.training.recipe import Recipe
from verydeep.training.step import descend
from verydeep.training.threads import with_threads

CLASSES = 10
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4

RATE = 1e-6
"""Small enough to descend on noise with random labels forever."""

TORCHVISION = {"A": "vgg11", "B": "vgg13", "D": "vgg16", "E": "vgg19"}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The default measurement on a kind of device."""

    network: str
    crop: int
    batch: int
    passes: int
    steps: int
    """Steps in a pass."""
    warm_up: int
    """Steps before the first pass: kernels are chosen, and float16 finds its loss scale."""
    matrix: int
    """Side of the matrices."""
    products: int
    """Matrix products in a pass."""


SCALES = {
    "cuda": Scale(network="D", crop=224, batch=256, passes=15, steps=5, warm_up=12, matrix=8192, products=50),
    "other": Scale(network="A", crop=64, batch=32, passes=25, steps=1, warm_up=2, matrix=2048, products=2),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """The task of all competitors."""

    recipe: Recipe
    net: VGG
    """Holds the first weights, on the CPU."""
    device: torch.device
    images: Tensor
    labels: Tensor

    @property
    def mean(self) -> Tensor:
        """Mean RGB, which is subtracted."""
        return self.net.mean_rgb.to(self.device)[:, None, None]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the whole process; a competitor's are restored before each of its passes."""

    flags: dict[str, bool]
    """Of the CUDA libraries."""
    threads: int
    """Of an operation on the CPU."""


@dataclass(kw_only=True)
class Work:
    """One of the competitors."""

    step: Callable[[], object]
    repetitions: int
    """Steps in a pass."""
    settings: Settings
    """As this competitor leaves them."""
    resident: int = 0
    """Bytes held between steps."""
    seconds: list[float] = field(default_factory=list)
    """Seconds per step, of each pass."""
    processor_seconds: list[float] = field(default_factory=list)
    """Seconds of the CPU per step, of all threads together."""
    peaks: list[int] = field(default_factory=list)


FLAGS: dict[str, tuple[Any, str]] = {
    "matmul_tf32": (torch.backends.cuda.matmul, "allow_tf32"),
    "cudnn_tf32": (torch.backends.cudnn, "allow_tf32"),
    "cudnn_benchmark": (torch.backends.cudnn, "benchmark"),
}


def settings_now() -> Settings:
    """Return the settings of the process."""
    flags = {name: getattr(owner, attribute) for name, (owner, attribute) in FLAGS.items()}
    return Settings(flags=flags, threads=torch.get_num_threads())


def set_all(settings: Settings) -> None:
    """Set what `settings_now` returns."""
    for name, value in settings.flags.items():
        owner, attribute = FLAGS[name]
        setattr(owner, attribute, value)
    torch.set_num_threads(settings.threads)


@contextmanager
def only_here() -> Iterator[None]:
    """Restore the settings at the end of the block."""
    before = settings_now()
    try:
        yield
    finally:
        set_all(before)


def plain_layer(layer: Layer) -> nn.Module:
    """Return the library's layer of that kind."""
    match layer.kind:
        case "conv":
            return nn.Conv2d(layer.inputs, layer.outputs, layer.kernel, padding=layer.kernel // 2)
        case "relu":
            return nn.ReLU()
        case "lrn":
            return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)  # which divides alpha by 5
        case "pool":
            return nn.MaxPool2d(layer.kernel)
        case "linear":
            return nn.Linear(layer.inputs * layer.kernel**2, layer.outputs)
        case "dropout":
            return nn.Dropout()
        case "batch_norm":
            return nn.BatchNorm2d(layer.outputs)


def plain_network(net: VGG) -> nn.Sequential:
    """Return the network as one would write it by hand, with its weights."""
    plan = net.architecture.layers()
    first_linear = next(index for index, layer in enumerate(plan) if layer.kind == "linear")
    modules = [plain_layer(layer) for layer in plan]
    return with_weights_of(net, nn.Sequential(*modules[:first_linear], nn.Flatten(), *modules[first_linear:]))


def with_weights_of(net: VGG, other: nn.Module) -> Any:
    """Copy the weights of `net` to `other`, and check that it computes the same."""
    with torch.no_grad():
        for theirs, ours in zip(other.parameters(), net.parameters(), strict=True):
            theirs.copy_(ours)
        images = torch.randint(0, 256, (2, 3, net.architecture.crop, net.architecture.crop)).float()
        expected = net.eval()(images)
        scores = other.eval()(images - net.mean_rgb[:, None, None])
    torch.testing.assert_close(scores, expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))
    return other.train()


def plain(task: Task) -> Callable[[], float]:
    """Return a step of a tutorial's loop."""
    net = plain_network(task.net).to(task.device)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    mean = task.mean

    def step() -> float:
        optimiser.zero_grad()
        loss = F.cross_entropy(net(task.images - mean), task.labels)
        loss.backward()
        optimiser.step()
        return loss.item()

    return step


def torchvisions(task: Task, models: ModuleType, dtype: torch.dtype | None) -> Callable[[], float]:
    """Return a step of its network, in mixed precision unless `dtype` is None; cuDNN chooses kernels by trying them."""
    torch.backends.cudnn.benchmark = True
    build = getattr(models, TORCHVISION[task.net.architecture.network])
    net = with_weights_of(task.net, build(weights=None, num_classes=task.net.architecture.classes))
    net = net.to(task.device, memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    scaler = torch.amp.GradScaler(task.device.type, enabled=dtype == torch.float16)
    images, mean = task.images.to(memory_format=torch.channels_last), task.mean

    def precision() -> AbstractContextManager[object]:
        return nullcontext() if dtype is None else torch.autocast(task.device.type, dtype)

    def step() -> float:
        optimiser.zero_grad()
        with precision():
            loss = F.cross_entropy(net(images - mean), task.labels)
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        return loss.item()

    return step


def ours(task: Task, execution: Execution, runtime: Runtime = Runtime()) -> Callable[[], float]:
    """Return a step of `verydeep train`, with the precision and the threads that it chooses."""
    source = memory_source(classes=tuple(map(str, range(task.net.architecture.classes))), samples=())
    job = TrainingJob(
        splits=Splits(name="noise", sources={"train": source, "val": source}),
        network=task.net.architecture.network,
        recipe=task.recipe,
        runtime=runtime,
        execution=execution,
        tolerance=Tolerance(),
        out=Path("nowhere"),
        device=task.device,
        processes=Processes(),
    )
    net = task.net.with_weights({name: value.clone() for name, value in task.net.state_dict().items()})
    learner = learner_of(with_threads(with_precision(job, net), net), net)
    batch = DeviceBatch(
        task.images.to(memory_format=torch.channels_last),
        torch.arange(len(task.images), device=task.device),
        task.labels,
    )
    done = 0

    def step() -> float:
        nonlocal done
        done += 1
        outcome = descend(learner, batch, step=done, rate=RATE, usable=[len(batch.labels)])
        return outcome.loss_sum / len(batch.labels)

    return step


def matrix_product(side: int, device: torch.device) -> Callable[[], object]:
    """Return a product of two square matrices."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right, result = (torch.randn(side, side, device=device).to(dtype) for _ in range(3))
    return lambda: torch.mm(left, right, out=result)


def competitors(task: Task) -> dict[str, Callable[[], Callable[[], object]]]:
    """Return the competitors, each with a function that builds its step."""
    on_cuda = task.device.type == "cuda"
    builders: dict[str, Callable[[], Callable[[], object]]] = {"plain": lambda: plain(task)}
    models = torchvision_models(task.net)
    if models is not None and on_cuda:
        builders["torchvision_fp16"] = lambda: torchvisions(task, models, torch.float16)
        builders["torchvision_bf16"] = lambda: torchvisions(task, models, torch.bfloat16)
    elif models is not None:
        builders["torchvision"] = lambda: torchvisions(task, models, None)
    builders["ours"] = lambda: ours(task, Execution())
    if on_cuda:
        builders["ours_compiled"] = lambda: ours(task, Execution(compile=True))
    return builders


def torchvision_models(net: VGG) -> ModuleType | None:
    """Return torchvision's module of networks, if it is installed and has this one."""
    try:
        from torchvision import models
    except (ImportError, RuntimeError):  # built for another PyTorch
        return None
    network = net.architecture.network
    published = Architecture(network=network, classes=net.architecture.classes)
    return models if network in TORCHVISION and net.architecture == published else None


def synchronise(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def allocated(device: torch.device) -> int:
    """Return the bytes allocated on the device; 0 where that is not counted."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def built(build: Callable[[], Callable[[], object]], task: Task, scale: Scale) -> Work:
    """Return a competitor that is ready to be timed."""
    before = allocated(task.device)
    with only_here():
        step = build()
        for _ in range(scale.warm_up):
            step()
        synchronise(task.device)
        resident = allocated(task.device) - before
        return Work(step=step, repetitions=scale.steps, settings=settings_now(), resident=resident)


def timed_pass(work: Work, device: torch.device) -> None:
    """Time one more pass."""
    on_cuda = device.type == "cuda"
    with only_here():
        set_all(work.settings)
        if on_cuda:
            torch.cuda.empty_cache()
            work.step()  # takes its memory again, outside the timing
            torch.cuda.reset_peak_memory_stats(device)
        held = allocated(device)
        synchronise(device)
        started, busy = time.perf_counter(), time.process_time()
        for _ in range(work.repetitions):
            work.step()
        synchronise(device)
        work.seconds.append((time.perf_counter() - started) / work.repetitions)
        work.processor_seconds.append((time.process_time() - busy) / work.repetitions)
        if on_cuda:
            work.peaks.append(torch.cuda.max_memory_allocated(device) - held + work.resident)


def compared(mine: Work, other: Work, device: torch.device) -> dict[str, float]:
    """Return how many times as fast `mine` is."""
    ratios = [theirs / ours for theirs, ours in zip(other.seconds, mine.seconds, strict=True)]
    busy = [theirs / ours for theirs, ours in zip(other.processor_seconds, mine.processor_seconds, strict=True)]
    return {
        "median": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "greatest": round(max(ratios), 3),
        **({"of_processor_time": round(statistics.median(busy), 3)} if device.type == "cpu" else {}),
    }


def measure(task: Task, scale: Scale, passes: int) -> dict[str, Any]:
    """Time all competitors in turn."""
    works = {name: built(build, task, scale) for name, build in competitors(task).items()}
    product = Work(step=matrix_product(scale.matrix, task.device), repetitions=scale.products, settings=settings_now())
    everything = [*works.values(), product]
    for number in range(passes):
        print(f"pass {number + 1} of {passes}", file=sys.stderr)
        first = number % len(everything)
        for work in everything[first:] + everything[:first]:
            timed_pass(work, task.device)
    net, batch = task.net, len(task.labels)
    macs = describe_architecture(net.architecture).macs
    rates = [2 * scale.matrix**3 / seconds for seconds in product.seconds]

    def processor(work: Work) -> float:
        return round(1000 * statistics.median(work.processor_seconds), 2)

    def told(work: Work) -> dict[str, float]:
        shares = [6 * macs * batch / s / rate for s, rate in zip(work.seconds, rates, strict=True)]
        return {
            "milliseconds": round(1000 * statistics.median(work.seconds), 2),
            "milliseconds_least": round(1000 * min(work.seconds), 2),
            **(
                {"processor_milliseconds": processor(work), "threads": work.settings.threads}
                if task.device.type == "cpu"
                else {}
            ),
            "images_per_second": round(batch / statistics.median(work.seconds), 1),
            "share_of_matrix_rate": round(statistics.median(shares), 3),
            **({"peak_memory_bytes": max(work.peaks)} if work.peaks else {}),
        }

    return {
        "macs_per_image": macs,
        "matrix_product": {
            "side": scale.matrix,
            "dtype": "bfloat16" if task.device.type == "cuda" else "float32",
            "tera_operations_per_second": round(statistics.median(rates) / 1e12, 3),
        },
        "steps": {name: told(work) for name, work in works.items()},
        "ratios": {
            mine: {
                name: compared(works[mine], works[name], task.device) for name in works if not name.startswith("ours")
            }
            for mine in works
            if mine.startswith("ours")
        },
    }


def _versions(device: torch.device) -> dict[str, str | None]:
    """Return the versions of everything that takes part."""
    known: dict[str, str | None] = {**versions(), "cuda": None, "cudnn": None, "torchvision": None}
    if device.type == "cuda":
        known.update(cuda=torch.version.cuda, cudnn=str(torch.backends.cudnn.version()))
    try:
        import torchvision
    except (ImportError, RuntimeError):
        return known
    return {**known, "torchvision": torchvision.__version__}


def main() -> None:
    """Time all and print the result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--network")
    parser.add_argument("--crop", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--passes", type=int)
    asked = parser.parse_args()
    device = torch_device(asked.device)
    scale = SCALES.get(device.type, SCALES["other"])
    network, crop = configuration(asked.network or scale.network).name, asked.crop or scale.crop
    batch, passes = asked.batch or scale.batch, asked.passes or scale.passes
    torch.manual_seed(0)
    task = Task(
        recipe=Recipe(
            crop=crop, width=asked.width, batch=batch, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, learning_rate=RATE
        ),
        net=vgg(network, classes=asked.classes, crop=crop, width=asked.width, mean_rgb=ILSVRC_MEAN_RGB),
        device=device,
        images=torch.randint(0, 256, (batch, 3, crop, crop), device=device).float(),
        labels=torch.randint(0, asked.classes, (batch,), device=device),
    )
    result = {
        "network": network,
        "crop": crop,
        "width": asked.width,
        "batch": batch,
        "classes": asked.classes,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "versions": _versions(device),
        "passes": passes,
        "steps_per_pass": scale.steps,
        **measure(task, scale, passes),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
