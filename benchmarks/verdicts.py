"""How often verdicts are false, and how often true claims are found, in simulated experiments.

    python benchmarks/verdicts.py --reports 1000 --out verdicts.json

Every image has a latent difficulty; a network errs on it where difficulty, the network's own view of the image, that of
one training and that of one protocol together fall below a threshold, which sets the error. Each training's error is
sampled around its network's. A report with a verdict that is not true of the networks counts once as false.

| part of the latent variance | share |
|---|---|
| image | 0.86 |
| image and network | 0.04 |
| image, network and seed | 0.08 |
| image, network, seed and protocol | 0.02 |
"""

import argparse
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy.stats import norm

from verydeep import findings
from verydeep.reproduction.claims import CLAIMS
from verydeep.reproduction.findings import MARGIN
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.paper import NETWORKS

IMAGE, NETWORK, SEED, PROTOCOL = 0.86, 0.04, 0.08, 0.02

ERROR = 25.0
"""Percent, of every network unless the truth says otherwise."""

GUESSING = 90.0


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is true of all networks."""

    name: str
    sd: float = 0.5
    """Of the errors of one network's trainings, percentage points."""
    more_sd: Mapping[str, float] = field(default_factory=dict)
    """Factors on it, by training."""
    shift: Mapping[str, float] = field(default_factory=dict)
    """Percentage points on the errors of trainings, by name, of protocols, or of single tests."""
    from_a: float = 0.0
    """Correlation of a seed's errors among nets that start from A."""

    def error(self, test: str) -> float:
        """Return the error of a test in percent, over all trainings and images."""
        trainings, protocol = test.split(" ", 1)
        own = [self.shift.get(training, 0.0) for training in trainings.split("+")]
        fused = self.shift.get("+", 0.0) * (len(own) > 1)
        return ERROR + sum(own) / len(own) + self.shift.get(protocol, 0.0) + self.shift.get(test, 0.0) + fused


def outcomes(truth: Truth, tests: list[str], *, seeds: int, images: int, rng: np.random.Generator) -> dict:
    """Sample which images every test gets wrong: `[seeds, N]` by its name."""
    trainings = sorted({name for test in tests for name in test.split(" ")[0].split("+")})
    normal = rng.standard_normal
    difficulty = np.sqrt(IMAGE) * normal(images, dtype=np.float32)
    common = normal(seeds)
    latent, offset = {}, {}
    for name in trainings:
        own = np.sqrt(NETWORK) * normal(images, dtype=np.float32)
        latent[name] = difficulty + own, np.sqrt(SEED) * normal((seeds, images), dtype=np.float32)
        sd = truth.sd * truth.more_sd.get(name, 1.0)
        offset[name] = sd * (np.sqrt(truth.from_a) * common + np.sqrt(1 - truth.from_a) * normal(seeds))
    found = {}
    for test in tests:
        names = test.split(" ")[0].split("+")
        shared = sum(latent[name][0] for name in names) / len(names)
        of_seeds = sum(latent[name][1] for name in names) / np.sqrt(len(names))
        of_protocol = np.sqrt(PROTOCOL) * normal((seeds, images), dtype=np.float32)
        error = truth.error(test) + sum(offset[name] for name in names) / len(names)
        sd = np.sqrt(IMAGE + NETWORK / len(names) + SEED + PROTOCOL)
        threshold = sd * norm.ppf(np.clip(error, 0.5, 99.5) / 100).astype(np.float32)
        found[test] = shared + of_seeds + of_protocol < threshold[:, None]
    return found


def false_verdicts(truth: Truth, told, trainings: list[str], tests: set[str]) -> list[str]:
    """Return the parts whose verdict is not true of the networks."""
    parts = {part.id: part for claim in CLAIMS for part in claim.parts}
    wrong = []
    for part in (part for finding in told for part in finding.parts if part.networks):
        pairs = [(a.name, b.name) for a, b in parts[part.id].pairs(trainings) if {a.name, b.name} <= tests]
        gap = float(np.mean([truth.error(a) - truth.error(b) for a, b in pairs]))
        holds = {"less": gap < -1e-9, "no_more": gap < MARGIN - 1e-9, "alike": abs(gap) < MARGIN - 1e-9}[part.kind]
        opposite = {"less": gap > 1e-9, "no_more": gap > MARGIN + 1e-9, "alike": abs(gap) > MARGIN + 1e-9}[part.kind]
        if (part.networks.verdict == "holds" and not holds) or (part.networks.verdict == "reversed" and not opposite):
            wrong.append(part.id)
    return wrong


def simulate(truth: Truth, *, grid: Grid, seeds: int, images: int, reports: int) -> dict:
    """Return the percentage of reports with a false verdict, and of each part that holds."""
    tests, trainings = [entry.name for entry in grid.entries], [one.name for one in grid.trainings]
    false, holds, whole = 0, {}, {}
    for number in range(reports):
        rng = np.random.default_rng([number, seeds, images, round(100 * truth.sd)])
        told = findings(outcomes(truth, tests, seeds=seeds, images=images, rng=rng), guessing=GUESSING)
        false += bool(false_verdicts(truth, told, trainings, set(tests)))
        for finding in told:
            whole[finding.id] = whole.get(finding.id, 0) + (finding.verdict == "holds")
            for part in finding.parts:
                stands = part.networks is not None and part.networks.verdict == "holds"
                holds[part.id] = holds.get(part.id, 0) + stands
    percent = 100 / reports
    return {
        "truth": asdict(truth),
        "seeds": seeds,
        "images": images,
        "reports": reports,
        "false": percent * false,
        "claims": {name: percent * count for name, count in whole.items()},
        "parts": {name: percent * count for name, count in holds.items()},
    }


NULLS = (
    *(Truth(name=f"equal networks, sd {sd}", sd=sd) for sd in (0.0, 0.5, 1.0)),
    *(
        Truth(name=f"{', '.join(some)} with {factor} times the sd", more_sd=dict.fromkeys(some, factor))
        for factor in (2.0, 4.0)
        for some in (("D-256",), ("B-256", "E-256"), ("A-256", "C-256", "D-256"))
    ),
    Truth(name="nets from A correlated", from_a=0.5),
    Truth(name="small filters help on centre crops alone", shift={"B-5x5-256 centre single": 3.0}),
    Truth(
        name="at the margin",
        shift={"A-LRN-256": -MARGIN, "E-256": MARGIN, "D-256-glorot": MARGIN},
    ),
)
"""Where claims of fewer errors are false; in the last one those of errors alike are false as well, by nothing."""


def one_claim(points: float, sd: float) -> Truth:
    """Return what is true where B-5x5 errs more than B by some points, and all else alike."""
    return Truth(name=f"small filters help by {points:g}, sd {sd}", sd=sd, shift={"B-5x5-256": points})


def main() -> None:
    """Simulate, print a line for each setting, and write all figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--reports", type=int, default=1000)
    parser.add_argument("--seeds", type=lambda text: list(map(int, text.split(","))), default=[2, 3, 5, 10])
    parser.add_argument("--images", type=lambda text: list(map(int, text.split(","))), default=[359, 3925, 10_000])
    parser.add_argument("--power", action="store_true", help="true claims instead of false ones")
    parser.add_argument("--whole", action="store_true", help="all 15 trainings and Tables 3 to 6, not the seven at 256")
    parser.add_argument("--only", default="", help="settings whose name has this in it")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    grid = Grid() if arguments.whole else Grid(only=tuple(f"{name}-256" for name in NETWORKS), tables=(3,))
    true = [one_claim(points, sd) for sd in (0.0, 0.5, 1.0) for points in (1, 2, 3)]
    settings = [one for one in (true if arguments.power else NULLS) if arguments.only in one.name]
    found = []
    for truth in settings:
        for seeds in arguments.seeds:
            for images in arguments.images:
                one = simulate(truth, grid=grid, seeds=seeds, images=images, reports=arguments.reports)
                found.append(one)
                told = f", told {one['claims']['small_filters_help']:.0f}%" if arguments.power else ""
                print(f"{truth.name}; {seeds} seeds, {images:,} images: false {one['false']:.1f}%{told}", flush=True)
    if arguments.out:
        figures = {"machine": platform.processor() or platform.machine(), "results": found}
        arguments.out.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
