"""Run scripts as `python -c` does, each in a process and session of its own, with torch imported once for all.

Orders are lines of JSON on standard input: {"script", "arguments", "output", "errors", "folder"} starts one and is
answered with its process number; {"wait", "seconds"} is answered with the exit status of that number, or null while it
runs.
"""

import atexit
import json
import os
import signal
import sys
import threading
import time
import traceback

import torch._dynamo  # noqa: F401  an optimiser imports it

import verydeep.cli
import verydeep.evaluation.evaluate
import verydeep.training.loop  # noqa: F401


def ordered():
    """Start and wait as asked; in each started process, return the script that it runs."""
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            found = status(order["wait"], order["seconds"])
        else:
            found = os.fork()
            if not found:
                turn_to(order)
                return order["script"]
        print(json.dumps(found), flush=True)
    return None


def status(pid, seconds):
    end = time.monotonic() + seconds
    while True:
        ended, how = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(how)
        if time.monotonic() > end:
            return None
        time.sleep(0.002)


def turn_to(order):
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # `nohup` and background jobs ignore some
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    for number, path in enumerate((os.devnull, order["output"], order["errors"])):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.chdir(order["folder"])
    sys.argv = ["-c", *order["arguments"]]


def ended(script):
    """Run it and return its exit status, after all that an interpreter does before it forgets its modules.

    Which takes long in a process that was forked, and which the system does as well.
    """
    left = 0
    try:
        exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})
    except SystemExit as error:
        left = error.code or 0
    except BaseException:
        traceback.print_exc()
        left = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return left


script = ordered()
if script is not None:
    os._exit(ended(script))
