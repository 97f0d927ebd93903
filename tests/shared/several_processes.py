"""Trainings on several processes: torchrun starts this file; `forked` and `by_hand` call it in a fork.

A training is a dict that JSON can hold ("job"): what `train` is given, how many images there are, and what is to go
wrong. Every process leaves what it met beside the run folder, as OUT.RANK.json.
"""

import faulthandler
import io
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
import torch._dynamo  # an optimiser imports it: once here, not in every fork
from PIL import Image

import verydeep.images.rescaled
import verydeep.machine.processes
import verydeep.training.loop
from verydeep import Execution, Recipe, Runtime, Tolerance, load, train
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.machine.runtime import Stopped, ended_by_signals
from verydeep.networks.vgg import VGG

BASE = {"crop": 32, "width": 0.05, "batch": 5, "epochs": 2, "learning_rate": 1e-2, "seed": 5, "dropout": 0.0}
MARK = "VERYDEEP_TEST_GROUP"
"""Variable in the environment that marks every process that a test started."""

TCP_INFO_BYTES, BYTES_SENT = 232, 200
"""Length of Linux' struct tcp_info, and offset of the number of bytes sent in it."""


# Images


def pictures(count, seed, classes=3):
    """Make noise, a little lighter in some classes, so that only part of it is learned."""
    rng = np.random.default_rng(seed)
    samples = []
    for index in range(count):
        label = int(rng.integers(classes))
        buffer = io.BytesIO()
        pixels = rng.integers(0, 200, (40, 44, 3)) + 12 * label
        Image.fromarray(pixels.astype(np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), label, f"{index}.png"))
    return memory_source(classes=tuple("abcdefgh"[:classes]), samples=tuple(samples))


class Watched:
    """A source that notes which images are asked for once a training is prepared, and where faults happen."""

    def __init__(self, inner, what, job):
        self.inner, self.what, self.job = inner, what, job
        self.classes, self.labels, self.boxes = inner.classes, inner.labels, inner.boxes
        self.fingerprint, self.paths = inner.fingerprint, inner.paths
        self.asked, self.prepared = [], False

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        if not self.prepared:
            if self.what == "train":
                fail(self.job, "preparation")
            return self.inner[index]
        self.asked.append(index)
        if self.what == "train":
            fail(self.job, "reading")
            time.sleep(self.job.get("slow", 0))
        if index in self.job.get(f"bad_{self.what}", []):  # bad since the preparation
            return self.inner[index]._replace(data=b"no image")
        return self.inner[index]


# Faults


def fail(job, where):
    """Cause the job's fault here, {"where": "reading", "rank": 1, "at": 3, "what": "SIGKILL"} at the third call.

    It goes wrong once, also if the training is started again.
    """
    fault = job.get("fault")
    if fault is None or fault["where"] != where or int(os.environ.get("RANK", "0")) != fault.get("in", fault["rank"]):
        return
    fault["calls"] = fault.get("calls", 0) + 1
    noted = Path(job["out"] + ".fault.json")
    if fault["calls"] != fault["at"] or noted.exists():
        return
    victim = {
        "process": int(Path(f"{job['out']}.{fault['rank']}.pid").read_text()),
        "worker": os.getpid(),
        "launcher": os.getppid(),
    }[fault.get("whom", "process")]
    noted.write_text(json.dumps({"pid": victim, "time": time.time()}))
    os.kill(victim, signal.Signals[fault["what"]])


# One process


def run(job):
    """Train; return what this process met: {"asked": ..., "validated": ..., "error": ..., "message": ...}."""
    rank = os.environ.get("RANK", "0")
    parts = {
        "train": Watched(pictures(job.get("train", 13), job.get("images", 0)), "train", job),
        "val": Watched(pictures(job.get("val", 7), job.get("images", 0) + 1), "val", job),
    }
    Path(job["out"]).parent.mkdir(parents=True, exist_ok=True)
    Path(f"{job['out']}.{rank}.pid").write_text(str(os.getpid()))
    prepare, forward, descend = verydeep.training.loop.prepare, VGG.forward, verydeep.training.loop.descend
    sent, scattered = [], []

    def prepared(job):
        done = prepare(job)
        parts["train"].prepared = parts["val"].prepared = True
        return done

    def watched_forward(net, *arguments, **options):
        if net.training and parts["train"].prepared:
            fail(job, "forward")
        return forward(net, *arguments, **options)

    def counted(*arguments, **options):
        if not scattered:
            scattered.append(rings_of_a_reduce_scatter())
        before = bytes_out()
        outcome = descend(*arguments, **options)
        torch.distributed.barrier()  # now all bytes have arrived
        sent.append(bytes_out() - before)
        return outcome

    met = {"error": None, "message": "", "status": 0, "pid": os.getpid()}
    with ExitStack() as stack:
        stack.enter_context(patch.object(verydeep.training.loop, "prepare", prepared))
        stack.enter_context(patch.object(VGG, "forward", watched_forward))
        if job.get("count"):
            stack.enter_context(patch.object(verydeep.training.loop, "descend", counted))
        stack.enter_context(
            patch.object(verydeep.images.rescaled.RescaledImages, "_has_room", lambda *_: False)
        )  # no image is kept
        stack.enter_context(patch.object(verydeep.machine.processes, "LOST_AFTER", job.get("lost_after", 20.0)))
        try:
            train(
                Splits(name="noise", sources=parts),
                network=job.get("network", "A"),
                out=job["out"],
                recipe=Recipe(**{**BASE, **job.get("recipe", {})}),
                execution=Execution(**job.get("execution", {})),
                runtime=Runtime(**{"device": "cpu", **job.get("runtime", {})}),
                tolerance=Tolerance(**job.get("tolerance", {})),
                resume=job.get("resume", False),
            )
        except Exception as error:
            met["error"], met["message"] = type(error).__name__, str(error)
            met["status"] = error.exit_code if isinstance(error, Stopped) else 1
    met["sent"], met["scattered"] = sent, scattered
    met["asked"], met["validated"] = parts["train"].asked, parts["val"].asked
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps(met))
    return met


def bytes_out():
    """Return the bytes that this process has sent over all of its TCP connections, as Linux counts them."""
    total = 0
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if not str(file.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(file.name))) as connection:
                if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
                    told = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
                    total += struct.unpack_from("Q", told, BYTES_SENT)[0]
    return total


def rings_of_a_reduce_scatter():
    """Return how many times what a ring would send gloo sends to add up tensors and deal them out: once or twice."""
    import torch.distributed as dist

    count, numbers = dist.get_world_size(), 100_000
    dist.barrier()
    before = bytes_out()
    dist.reduce_scatter_tensor(torch.zeros(numbers), torch.zeros(count * numbers))
    dist.barrier()
    return round((bytes_out() - before) / (4 * numbers * (count - 1)))


def runs_of(job, processes):
    """Return what each process of a job met."""
    return [json.loads(Path(f"{job['out']}.{rank}.json").read_text()) for rank in range(processes)]


def work(jobs):
    """Run all jobs in turn; end with the status of a failed one that is its process's last."""
    with ended_by_signals():
        for job in jobs:
            met = run(job)
            if met["error"]:
                rank = os.environ.get("RANK", "0")
                print(f"rank {rank}: {met['error']}: {met['message']}", file=sys.stderr, flush=True)
            if met["status"] and job.get("last"):
                sys.exit(met["status"])


# Several, as torchrun starts them


def torchrun(processes, jobs, folder, *options, seconds=100):
    """Run jobs in one start of torchrun; return its status, what it said, and a function of what still lives.

    Raises TimeoutError if it takes too long.
    """
    mark = uuid.uuid4().hex
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launcher, *options, __file__, str(kept(jobs, folder))]
    environment = {**os.environ, MARK: mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    living = partial(alive, mark)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        end(living())
        out, err = process.communicate()
        raise TimeoutError(f"still running after {seconds} s: {out}{err}") from None
    return process.returncode, out + err, living


FORKED = """
import json, sys
import {module} as several
from several_processes import fork, prepare_process

_, processes, jobs, restarts = sys.argv
prepare_process()
fork(several.{work}, int(processes), json.loads(open(jobs).read()), restarts=int(restarts))
"""


def forked(python, processes, jobs, folder, *, restarts=0, seconds=100, module="several_processes", work="work"):
    """Run jobs as `torchrun` does, in forks of the fixture `python`'s process; return as `torchrun`."""
    script = FORKED.format(module=module, work=work)
    return ended(python(script, processes, kept(jobs, folder), restarts), seconds)


def kept(jobs, folder):
    file = Path(folder) / f"jobs-{uuid.uuid4().hex}.json"
    file.write_text(json.dumps(jobs))
    return file


def prepare_process():
    """Print the stacks on SIGUSR1, and use one thread."""
    faulthandler.register(signal.SIGUSR1)
    torch.set_num_threads(1)


def ended(child, seconds):
    """Wait for a process; return as `torchrun`."""
    status = child.wait(seconds)
    if status is None:
        end(child.processes())
        raise TimeoutError(f"still running after {seconds} s: {child.output}{child.errors}")
    return status, child.output + child.errors, child.processes


def end(processes):
    """Let processes print their stacks, and end them."""
    for number in (signal.SIGUSR1, signal.SIGKILL):
        for pid in processes:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        time.sleep(1)


def fork(work, processes, jobs, *, restarts=0):
    """Call work(jobs) in so many processes and wait for them; raise if one of them fails more often than allowed."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        monitor_interval=0.1,
        start_method="fork",
    )
    elastic_launch(config, work)(jobs)


def alive(mark):
    """Return the living processes with this mark (on Linux; elsewhere none are found)."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state = (place / "stat").read_text().rpartition(")")[2].split()[0]
            if f"{MARK}={mark}".encode() in (place / "environ").read_bytes().split(b"\0") and state != "Z":
                found.append(int(place.name))
    return found


# Several, started by hand: no agent clears up after them


BY_HAND = """
import sys
from pathlib import Path
from several_processes import launch, prepare_process

prepare_process()
launch(Path(sys.argv[1]))
"""


def by_hand(python, cases, folder, seconds=100):
    """Run all {"job": ..., "processes": ...} at the same time, without an agent of torchrun.

    Returns for each case a list of {"status": ..., "seconds": after the fault, "said": ...}, by rank; and a function
    of the processes that still live.
    """
    file = kept(cases, folder)
    status, said, living = ended(python(BY_HAND, file), seconds)
    assert status == 0, said
    return json.loads(file.with_suffix(".done").read_text()), living


def launch(file):
    """Fork the processes of every case, wait for them, and write down how they ended."""
    cases = json.loads(file.read_text())
    children = {}
    for number, case in enumerate(cases):
        port = free_port()
        for rank in range(case["processes"]):
            pid = os.fork()
            if not pid:
                case["job"]["last"] = True
                become(rank, case["processes"], port, Path(f"{case['job']['out']}.{rank}.said"))
                work([case["job"]])
                return
            children[pid] = (number, rank)
    ended = [[None] * case["processes"] for case in cases]
    for case in cases:
        case["until"] = time.monotonic() + 60
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            number, rank = children.pop(pid)
            ended[number][rank] = {"status": os.waitstatus_to_exitcode(status), "time": time.time()}
        time.sleep(0.02)
        for number, case in enumerate(cases):
            left = [child for child, (its, _) in children.items() if its == number]
            fault = case["job"].get("fault", {})
            if fault.get("what") == "SIGSTOP" and len(left) == 1 and case.setdefault("wait", 50) > 0:
                case["wait"] -= 1
                if not case["wait"]:
                    os.kill(left[0], signal.SIGCONT)  # the others have ended; it has to find that out
                    case["continued"] = time.time()
            if left and time.monotonic() > case["until"]:
                for child in left:
                    os.kill(child, signal.SIGKILL)
                case["until"] += 1e9
    for case, processes in zip(cases, ended, strict=True):
        noted = Path(case["job"]["out"] + ".fault.json")
        begin = json.loads(noted.read_text())["time"] if noted.exists() else 0
        for rank, process in enumerate(processes):
            since = case.get("continued", begin) if rank == case["job"].get("fault", {}).get("rank") else begin
            process["seconds"] = process.pop("time") - since
            process["said"] = Path(f"{case['job']['out']}.{rank}.said").read_text()
    file.with_suffix(".done").write_text(json.dumps(ended))


def become(rank, count, port, said):
    """Make this process one of `count`, as a user's own script would start it."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
    said.parent.mkdir(parents=True, exist_ok=True)
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def free_port():
    """Return a free port below those that the system gives to connections."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as found, suppress(OSError):
            found.bind(("127.0.0.1", port))
            return port


# Results


def difference(one, other):
    """Return |a - b| / |b| of all weights of two networks or runs together, and the largest of any tensor."""
    a, b = (dict((net if isinstance(net, VGG) else load(net)).named_parameters()) for net in (one, other))
    assert a.keys() == b.keys()
    pairs = [(a[name].detach().double(), b[name].detach().double()) for name in b]
    whole = sum((x - y).square().sum() for x, y in pairs) / sum(y.square().sum() for _, y in pairs)
    return whole.sqrt().item(), max(((x - y).norm() / y.norm().clamp(min=1e-300)).item() for x, y in pairs)


if __name__ == "__main__":
    prepare_process()
    work(json.loads(Path(sys.argv[1]).read_text()))
