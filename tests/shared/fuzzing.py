"""Readers given documents with changes: what they say, how long they take, how much memory they need."""

import random
import re
import resource
import time
from pathlib import Path

from damage import damaged
from mutated_documents import mutated, mutated_arrays

from verydeep.machine.errors import one_line

MOST_SECONDS, MOST_BYTES = 10, 2 * 2**30

PYTHONS = re.compile(
    r"\w+(Error|Exception|Warning)\b|Traceback|object at 0x|NoneType|<class|' object |-like object|subscriptable"
    r"|unpack|argument must|indices must"
)
"""Names of errors, and other words that are of no use to those who only run a command."""


def mutations(name, content, times):
    """Yield the bytes of a mutated file, changed as its name's ending says."""
    for seed in range(times):
        rng = random.Random(f"{name} {seed}")
        if not name.endswith(".npz"):
            yield mutated(content.decode(), name, rng)
        else:
            yield mutated_arrays(content, rng) if seed % 2 else damaged(content, rng)


def tried(file, content, name, times, read, write=None):
    """Return the lines in which `read` refuses mutations of a file; it must not take long nor much memory.

    `write` puts a document into the file; by default it is the file.
    """
    write, lines, allowed = write or file.write_bytes, [], max(memory() + MOST_BYTES, most_memory() + 1)
    for mutation in mutations(name, content, times):
        write(mutation)
        started = time.process_time()  # of computing: the machine may be busy
        lines += read(file)
        assert time.process_time() - started < MOST_SECONDS
    write(content)
    assert most_memory() < allowed  # tests before leave something, and may have needed more
    return lines


def memory():
    """Return the memory that this process has, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def most_memory():
    """Return the most memory that this process ever had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def refusal(read, file):
    """Return the line of a ValueError or OSError, for which the command's status is 2 or 1, after its kind."""
    try:
        read(file)
    except (ValueError, OSError) as error:
        return [(type(error).__name__, one_line(error))]
    return []
