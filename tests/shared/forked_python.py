"""Scripts in processes that can be killed, without waiting for torch at every start."""

import itertools
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from harmless_output import check_harmless

import verydeep


class Child:
    """A process that runs a script, in a session of its own, as batch systems start them."""

    def __init__(self, ask, pid, output, errors):
        self._ask, self.pid, self._output, self._errors = ask, pid, output, errors

    def wait(self, seconds=60):
        """Return the exit status, or None if it still runs."""
        return self._ask({"wait": self.pid, "seconds": seconds})

    def ended(self, seconds=60):
        """Return its exit status, output and errors, as `subprocess.run` does."""
        status = self.wait(seconds)
        assert status is not None, f"still running after {seconds} s: {self.output}{self.errors}"
        check_harmless(self.output)
        check_harmless(self.errors)
        return subprocess.CompletedProcess((), status, self.output, self.errors)

    @property
    def output(self):
        return self._output.read_text(encoding="utf-8")

    @property
    def errors(self):
        return self._errors.read_text(encoding="utf-8")

    def processes(self):
        """Return the living processes of its session."""
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError):  # it has ended meanwhile
                if folder.name.isdecimal():
                    state, *numbers = (folder / "stat").read_text().rpartition(")")[2].split()
                    if state not in "ZX" and int(numbers[2]) == self.pid:
                        found.append(int(folder.name))
        return found


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """Start a script with arguments, as `python -c` does, with torch imported already and on one thread."""
    texts, numbers, children = tmp_path_factory.mktemp("texts"), itertools.count(), []
    where = {"PYTHONPATH": str(Path(verydeep.__file__).parents[1])}
    environment = {**os.environ, **where, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(Path(__file__).with_name("python_with_torch.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )

    def ask(order):
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    def start(script, *arguments, cwd="."):
        number = next(numbers)
        output, errors = texts / f"{number}.out", texts / f"{number}.err"
        for file in (output, errors):
            file.touch()
        order = {"script": script, "arguments": [str(argument) for argument in arguments]}
        pid = ask({**order, "output": str(output), "errors": str(errors), "folder": os.path.abspath(cwd)})
        children.append(Child(ask, pid, output, errors))
        return children[-1]

    with server:
        yield start
        for child in children:
            for pid in child.processes():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        server.stdin.close()
