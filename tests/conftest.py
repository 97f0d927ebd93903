"""What every test runs under: caches of its own and no network. And the battery's size and table of figures."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when `datasets` is imported

FIGURES = pytest.StashKey[list[tuple[int, str, str]]]()


def pytest_addoption(parser):
    parser.addoption("--battery", action="store_true", help="reliability checks at full length (make battery)")


def pytest_configure(config):
    config.stash[FIGURES] = []


@pytest.fixture(autouse=True, scope="session")
def _own_caches(tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    os.environ["VERYDEEP_CACHE"] = str(folder / "verydeep")
    os.environ["HF_HOME"] = str(folder / "huggingface")


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


def pytest_terminal_summary(terminalreporter, config):
    figures = sorted(config.stash[FIGURES])
    if figures:
        terminalreporter.section("reliability")
        width = max(len(name) for _, name, _ in figures)
        for check, name, text in figures:
            terminalreporter.write_line(f"{check:>3}  {name:{width}}  {text}")
