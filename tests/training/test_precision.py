"""bfloat16 on CPUs: when `auto` takes it, that a run keeps to it, and what it computes."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from ten_digits import ten_digits

from verydeep import Execution, Recipe, train
from verydeep.images.loader import DeviceBatch
from verydeep.images.tolerance import Tolerance
from verydeep.machine import inspection
from verydeep.machine.processes import Processes
from verydeep.machine.runtime import Runtime
from verydeep.networks.initialisation import vgg
from verydeep.runs.files import MODEL, WEIGHTS
from verydeep.runs.record import read_record
from verydeep.training import loop, precision
from verydeep.training.job import TrainingJob
from verydeep.training.learner import learner_of
from verydeep.training.step import descend

TINY = Recipe(crop=32, width=0.05, batch=4, epochs=2, learning_rate=1e-3)


@pytest.fixture(scope="module")
def images():
    return ten_digits()


@pytest.fixture
def job(images, tmp_path):
    def made(**execution):
        return TrainingJob(
            splits=images,
            network="A",
            recipe=TINY,
            runtime=Runtime(),
            execution=Execution(**execution),
            tolerance=Tolerance(),
            out=tmp_path,
            device=torch.device("cpu"),
            processes=Processes(),
        )

    return made


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """A processor on which bfloat16 is as many times as fast as is said, for networks of any size."""

    def times_as_fast(ratio, *, has_bf16=True):
        monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / f"cache-{ratio}"))
        monkeypatch.setattr(precision, "_LEAST_MACS", 0)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: has_bf16)
        monkeypatch.setattr(precision, "_times_as_fast", lambda *_: ratio)

    return times_as_fast


def small_net():
    return vgg("A", classes=10, crop=32, width=0.05)


def gradients(job):
    """The gradients of a step that changes no weight, and its loss."""
    torch.manual_seed(0)
    learner = learner_of(job, small_net())
    pixels = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(1)).float()
    batch = DeviceBatch(pixels.to(memory_format=torch.channels_last), torch.arange(4), torch.arange(4))
    outcome = descend(learner, batch, step=0, rate=0.0, usable=[4])
    return learner, outcome.loss_sum


@pytest.mark.parametrize(("ratio", "has_bf16", "chosen"), [(2, True, "bf16"), (1.05, True, "fp32"), (2, False, "fp32")])
def test_auto_takes_bfloat16_where_it_is_clearly_faster(job, cpu, ratio, has_bf16, chosen):
    cpu(ratio, has_bf16=has_bf16)
    assert precision.with_precision(job(), small_net()).execution.precision == chosen


def test_without_onednn_auto_takes_float32(job, cpu, monkeypatch):
    """A build without oneDNN has no operator to ask either."""
    cpu(2, has_bf16=True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    assert precision.with_precision(job(), small_net()).execution.precision == "fp32"
    assert inspection._instruction_sets() == (torch.backends.cpu.get_cpu_capability(),)


@pytest.mark.parametrize(("has_bf16", "chosen"), [(True, "bf16"), (False, "auto")])
def test_on_cuda_it_is_noted_too(job, monkeypatch, has_bf16, chosen):
    """`auto` are products in TF32."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    on_cuda = replace(job(), device=torch.device("cuda"))
    assert precision.with_precision(on_cuda, small_net()).execution.precision == chosen


@pytest.mark.parametrize(
    ("begun", "device", "has_bf16", "goes_on"),
    [
        ("bf16", "cpu", True, "bf16"),
        ("bf16", "cpu", False, "fp32"),
        ("auto", "cpu", True, "fp32"),
        ("fp32", "cuda", True, "fp32"),
        ("auto", "cuda", True, "auto"),
        ("bf16", "cuda", False, "auto"),
    ],
)
def test_a_run_goes_on_in_its_precision_where_the_device_has_it(job, monkeypatch, begun, device, has_bf16, goes_on):
    monkeypatch.setattr(precision, "has_bfloat16", lambda _: has_bf16)
    monkeypatch.setattr(precision, "is_begun", lambda _: True)
    monkeypatch.setattr(precision, "read_record", lambda _: SimpleNamespace(runtime={"precision": begun}))
    monkeypatch.setattr(precision, "_chosen", None)
    elsewhere = replace(job(), device=torch.device(device))
    assert precision.with_precision(elsewhere, small_net()).execution.precision == goes_on


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_what_is_asked_for_is_not_measured(job, cpu, asked):
    cpu(None)
    assert precision.with_precision(job(precision=asked), small_net()).execution.precision == asked


def test_a_small_network_is_not_measured(job, monkeypatch):
    monkeypatch.setattr(precision, "_times_as_fast", None)
    assert precision.with_precision(job(), small_net()).execution.precision == "fp32"


def test_measuring_changes_nothing_and_is_remembered(job, monkeypatch, tmp_path):
    monkeypatch.setenv("VERYDEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "_LEAST_MACS", 0)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    net = small_net()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    first = precision.with_precision(job(), net).execution.precision
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(value.grad is None for value in net.parameters())
    monkeypatch.setattr(precision, "timeit", None)
    assert precision.with_precision(job(), net).execution.precision == first


def test_a_run_goes_on_as_it_was_begun(images, cpu, tmp_path, monkeypatch):
    cpu(2.0)
    train(images, network="A", out=tmp_path / "whole", recipe=TINY)
    steps = 0

    def stopped(*arguments, descend=loop.descend, **options):
        nonlocal steps
        steps += 1
        if steps == 4:
            raise KeyboardInterrupt
        return descend(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "descend", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(images, network="A", out=tmp_path / "run", recipe=TINY)
    assert read_record(tmp_path / "run").runtime["precision"] == "bf16"
    cpu(0.5)
    train(images, network="A", out=tmp_path / "run", recipe=TINY, resume=True)
    one, other = ((tmp_path / name / MODEL / WEIGHTS).read_bytes() for name in ("run", "whole"))
    assert one == other


def test_weights_momentum_and_loss_stay_float32(job):
    exact, loss = gradients(job(precision="fp32"))
    rounded, near = gradients(job(precision="bf16"))
    assert near == pytest.approx(loss, rel=0.01)
    assert near != loss
    for (name, one), (_, other) in zip(exact.net.named_parameters(), rounded.net.named_parameters(), strict=True):
        assert other.dtype == other.grad.dtype == torch.float32, name
        assert rounded.optimiser.state[other]["momentum_buffer"].dtype == torch.float32, name
        assert torch.cosine_similarity(one.grad.flatten(), other.grad.flatten(), dim=0) > 0.97, name


def test_weights_are_converted_once_a_step(job):
    learner, _ = gradients(job(precision="bf16", micro_batch=1))
    shape = list(learner.net.fc6.weight.shape)
    batch = DeviceBatch(torch.zeros(4, 3, 32, 32), torch.arange(4), torch.arange(4))
    with torch.profiler.profile(record_shapes=True) as profile:
        descend(learner, batch, step=1, rate=0.0, usable=[4])
    calls = Counter(event.name for event in profile.events() if event.input_shapes and event.input_shapes[0] == shape)
    # To bfloat16 once; each piece's gradient back to float32.
    assert calls["aten::_to_copy"] == 1 + 4
