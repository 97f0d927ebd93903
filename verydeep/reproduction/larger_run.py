"""The larger run that a report of too few seeds names: its command, and the differences that it could tell here."""

import shlex
from dataclasses import replace

from verydeep.numbers import counted, decimal, percent, plural, share, trimmed
from verydeep.reproduction.detectable import assumed_from, detectable
from verydeep.reproduction.equivalent_command import is_call
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.limits import listed
from verydeep.reproduction.stored_tests import StoredTests
from verydeep.runs.record import words_of_command
from verydeep.statistics import POWER

SEEDS = 5
"""Enough seeds to begin with; what they can tell depends on the images."""


def larger_run(command: str) -> str | None:
    """Return a command line of `reproduce` with `SEEDS` seeds instead; None for any other command."""
    words = [] if is_call(command) else words_of_command(command)
    if "reproduce" not in words:
        return None
    at = words.index("--seeds") if "--seeds" in words else len(words)
    kept = [word for word in (*words[:at], *words[at + 2 :]) if not word.startswith("--seeds=")]
    return shlex.join([*kept, "--seeds", str(SEEDS)])


def what_it_could_tell(grid: Grid, tests: StoredTests) -> str:
    """Say which differences `SEEDS` seeds would tell on these images, at errors such as these."""
    # not those of the tables' lines: Table 6 has lines of fused networks alone, beside tests of single ones
    alone = [one.name for one in grid.entries if len(one.trainings) == 1 and one.method == "dense"]
    found = assumed_from([[of_seed[name] for of_seed in tests.values()] for name in alone])
    assumed = replace(found, error=min(max(found.error, 0.1), 99.9))
    trainings, entries = ([one.name for one in its] for its in (grid.trainings, grid.entries))
    claims = [one for one in detectable(trainings, entries, [SEEDS], assumed) if one.kind == "less"]
    told = [points for one in claims if (points := one.points[SEEDS]) is not None]
    never = [str(one.number) for one in claims if one.points[SEEDS] is None]
    what = f"differences of {decimal(max(told), 1)} points or more" if told else "no difference"
    sd = f"{decimal(found.seed_sd, 2)} points, as found" if found.seed_freedom else f"{trimmed(found.seed_sd)} points"
    but = f", but none in {plural('claim', len(never))} {listed(never)}" if told and never else ""
    return (
        f"With {SEEDS} seeds, {counted(assumed.images, 'test image')} and errors of about {percent(assumed.error)}%, "
        f"{what} would be told with a probability of {share(POWER, 0)}{but}. That is for errors that differ from seed "
        f"to seed by a standard deviation of {sd}; --dry-run says it claim by claim."
    )
