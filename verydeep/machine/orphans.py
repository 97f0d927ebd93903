"""Processes of a pool whose parent was killed: nobody would tell them to end."""

import multiprocessing
import os
import signal
import threading
import time

_SECONDS_BETWEEN_SIGNALS = 1.0


def end_with_parent() -> None:
    """Let SIGTERM come to this process once its parent is gone, again and again until it has saved and ended.

    In a process that multiprocessing started; a pool's would otherwise wait for its next task for ever.
    """
    threading.Thread(target=_end_after_parent, daemon=True, name="parent").start()


def _end_after_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(_SECONDS_BETWEEN_SIGNALS)
