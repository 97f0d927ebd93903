"""Trainings on a Ray cluster of two machines, one of which is lost: they go on, with the same weights."""

import os
import signal
import sys
import threading
import time

import pytest
from side_by_side_tasks import CPU, tasks, weights

from verydeep import Runtime, reproduce
from verydeep.machine.libraries import MissingLibraryError
from verydeep.machine.runtime import Stopped
from verydeep.reproduction.ray_pool import ray_jobs
from verydeep.reproduction.side_by_side import in_order, side_by_side
from verydeep.reproduction.training_task import train_task


@pytest.fixture
def cluster(battery, monkeypatch):
    """A cluster of two machines with a core each, both of them on this one."""
    if not battery:
        pytest.skip("starts many processes: make battery")
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_health_check_period_ms", "500")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def once_epochs_are_there(folder, act):
    """Act as soon as trainings have ended an epoch."""

    def wait():
        while len(list(folder.glob("*/metrics.jsonl"))) < 2:
            time.sleep(0.05)
        act()

    threading.Thread(target=wait, daemon=True).start()


def test_a_lost_machine_costs_no_training(cluster, tmp_path, figure):
    for task in tasks(tmp_path / "here", epochs=40):
        train_task(task)
    assert ray_jobs(Runtime(device="cpu")) == 2
    there = tasks(tmp_path / "there", epochs=40)
    once_epochs_are_there(tmp_path / "there", lambda: cluster.remove_node(cluster.nodes[1], allow_graceful=False))
    side_by_side("train", in_order(there), jobs=2, device=CPU, on_ray=True)
    assert weights(tmp_path / "there") == weights(tmp_path / "here")
    figure(10, "ray", "a machine of two lost: its training went on elsewhere, to the same weights")


@pytest.mark.usefixtures("cluster", "unignored_signals")
def test_ctrl_c_saves_everywhere(tmp_path):
    there = tasks(tmp_path / "there", epochs=200)
    once_epochs_are_there(tmp_path / "there", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Stopped, match="stopped, and saved"):
        side_by_side("train", in_order(there), jobs=2, device=CPU, on_ray=True)
    for task in there[:2]:
        assert list(task.out.glob("checkpoints/*"))
    assert not list(tmp_path.glob("there/.*.lock"))


def test_without_ray_or_a_cluster_a_line_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingLibraryError, match=r"--jobs ray needs the package ray: pip install 'verydeep\[ray\]'"):
        reproduce("digits", out=tmp_path, jobs="ray")
