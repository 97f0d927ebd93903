"""Limits of containers count as memory, in both versions of control groups; freed memory is used again."""

import os
import resource

import numpy as np
import pytest

from verydeep.machine.memory import freed_memory_kept, memory_bytes

MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
UNLIMITED_IN_1 = str(2**63 - 4096)


@pytest.mark.parametrize(
    ("groups", "limits", "expected"),
    [
        ("0::/\n", {"memory.max": "3000000\n"}, 3_000_000),  # a container that sees itself as the topmost
        ("0::/a/b\n", {"a/memory.max": "5000000\n", "a/b/memory.max": "max\n"}, 5_000_000),
        ("0::/a/b\n", {"a/memory.max": "5000000\n", "a/b/memory.max": "4000000\n"}, 4_000_000),
        ("0::/a\n", {"a/memory.max": "max\n"}, MACHINE),
        ("0::/gone\n", {"memory.max": "6000000\n"}, 6_000_000),
        ("0::/../other\n", {"memory.max": "6000000\n"}, 6_000_000),  # as of a group outside the namespace
        ("9:cpu:/c\n8:memory:/c\n", {"memory/c/memory.limit_in_bytes": "7000000\n"}, 7_000_000),
        ("8:hugetlb,memory:/c\n", {"memory/memory.limit_in_bytes": "8000000\n"}, 8_000_000),
        ("8:memory:/c\n", {"memory/c/memory.limit_in_bytes": UNLIMITED_IN_1}, MACHINE),
        ("8:cpu:/c\n", {"cpu/c/memory.limit_in_bytes": "1"}, MACHINE),
        ("0::/\n", {"memory.max": str(2 * MACHINE)}, MACHINE),
        (None, {}, MACHINE),
    ],
)
def test_the_least_limit_counts(tmp_path, groups, limits, expected):
    of_this_process, mounted = tmp_path / "cgroup", tmp_path / "mounted"
    if groups is not None:
        of_this_process.write_text(groups)
    for name, limit in limits.items():
        (mounted / name).parent.mkdir(parents=True, exist_ok=True)
        (mounted / name).write_text(limit)
    assert memory_bytes(of_this_process, mounted) == expected


def test_this_machine_has_some():
    assert 2**20 < memory_bytes() <= MACHINE


def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def test_freed_memory_is_used_again():
    blocks, size, rounds = 40, 3 * 2**20, 8  # numpy asks for large pages from 4 MiB
    pages = blocks * size // os.sysconf("SC_PAGE_SIZE")

    def use():
        for block in [np.empty(size, np.uint8) for _ in range(blocks)]:
            block[:] = 1

    with freed_memory_kept():
        use()
        before = page_faults()
        for _ in range(rounds):
            use()
        assert page_faults() - before < pages / 2
    before = page_faults()
    use()
    assert page_faults() - before > pages / 2, "it went back to the system"
