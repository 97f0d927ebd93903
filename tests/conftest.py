"""What every test runs under: caches of its own and no other machine. And the battery's size and table of figures."""

import gc
import ipaddress
import os
import pwd
import signal
import socket

import pytest
from array_shapes import check_all_shapes
from hypothesis import settings

check_all_shapes("verydeep")
pytest_plugins = ["harmless_output", "forked_python"]

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when `datasets` is imported
os.environ["OMP_NUM_THREADS"] = "1"  # read once, when PyTorch is imported: other numbers change the last bits of sums
os.environ["OMP_WAIT_POLICY"] = (
    "passive"  # read then, too: with more threads than cores, others spin instead of working
)

settings.register_profile("any machine", deadline=None)  # a busy one takes longer, which is not the code's fault
settings.load_profile("any machine")

MOST_WORKERS = 4
"""Each has a PyTorch of its own in memory, and some tests start processes and look at the clock."""

LONG = (
    *(
        "test_dirty_data.py",
        "test_processes.py",
        "test_export.py",
        "test_parallel.py",
        "test_signals.py",
        "test_int8.py",
    ),
    *("test_evaluation_on_processes.py", "test_demo.py", "test_extremes.py", "test_initialisations_on_digits.py"),
)
"""Files that are begun first, so that no worker is left alone with one in the end."""

FIGURES = pytest.StashKey[list[tuple[int, str, str]]]()


def pytest_addoption(parser):
    parser.addoption("--battery", action="store_true", help="reliability checks at full length (make battery)")


def pytest_configure(config):
    config.stash[FIGURES] = []
    config.addinivalue_line("markers", "battery: runs with --battery alone")
    if config.getoption("dist", "no") == "no":  # where tests run: who only hands them out waits for no PyTorch
        config.pluginmanager.import_plugin("tested_run")


def pytest_runtest_setup(item):
    if item.get_closest_marker("battery") and not item.config.getoption("--battery"):
        pytest.skip("runs in make battery")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Return the workers of `-n auto`, which `make test` says: one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def pytest_collection_finish():
    """Exempt what is there before the first test from garbage collection, which looks at PyTorch for 6% of the time."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True, scope="session")
def _own_caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    os.environ["VERYDEEP_CACHE"] = str(folder / "verydeep")
    os.environ["HF_HOME"] = str(folder / "huggingface")


def _is_this_machine(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True, scope="session")
def _no_other_machine():
    """Fail a test that connects to another machine; no `except Exception` hides it."""

    def checked(connect):
        def on_this_machine(connection, address):
            over_ip = connection.family in (socket.AF_INET, socket.AF_INET6)
            sends = connection.type == socket.SOCK_STREAM  # connecting another kind asks for this machine's address
            if over_ip and sends and not _is_this_machine(address[0]):
                pytest.fail(f"connects to {address[0]}: tests need no network")
            return connect(connection, address)

        return on_this_machine

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, checked(getattr(socket.socket, name)))
        yield


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user whom the system does not know, as in a container with a number of its own; the test's folder."""
    for name in ("HOME", "XDG_CACHE_HOME", "VERYDEEP_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", lambda number: {}[number])
    return tmp_path


@pytest.fixture
def unignored_signals():
    """Let signals act in this process and its children, also where `nohup` or a background job ignores them."""
    defaults = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_DFL,
        signal.SIGQUIT: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def one_thread():
    """Use one thread, as the processes that are started do: with more, sums differ in the last bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def battery(request):
    """Whether the checks run at full length."""
    return request.config.getoption("--battery")


@pytest.fixture(scope="session")
def figure(request):
    """Notes what a reliability check measured, for the table at the end: figure(7, 'resume', '24 stops, all equal')."""

    def note(check, name, text):
        request.config.stash[FIGURES].append((check, name, text))

    return note


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # what a worker of pytest-xdist sends
        session.config.workeroutput["figures"] = session.config.stash[FIGURES]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """A worker has ended; one that died has sent nothing."""
    node.config.stash[FIGURES] += map(tuple, getattr(node, "workeroutput", {}).get("figures", []))


def pytest_terminal_summary(terminalreporter, config):
    figures = sorted(config.stash[FIGURES])
    if figures:
        terminalreporter.section("reliability")
        width = max(len(name) for _, name, _ in figures)
        for check, name, text in figures:
            terminalreporter.write_line(f"{check:>3}  {name:{width}}  {text}")
