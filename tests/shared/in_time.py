"""What must not wait: a call that is broken off where it waits for ever, as on a pipe that nobody writes to."""

import signal
from contextlib import contextmanager

MOST_SECONDS = 60


class _StillWaitsError(BaseException):
    """Not an `Exception`, which the code under test may turn into a message."""


@contextmanager
def in_time():
    """Break off what its block waits for after a minute."""

    def give_up(*_):
        raise _StillWaitsError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(MOST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
