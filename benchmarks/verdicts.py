"""How often verdicts are false, how often true claims are found, and whether plans say so, in simulated experiments.

    python benchmarks/verdicts.py --reports 1000 --out verdicts.jsonl

Every image has a latent difficulty; a network errs on it where difficulty, the network's own view of the image, that of
one training and that of one protocol together fall below a threshold, which sets the error. Each training's error is
sampled around its network's. A report with a verdict that is not true of the networks counts once as false; reports
with one 'of these trained networks' that is not true of those are counted apart.

Report number 17 of a setting is always the same one. FILE gets a line for every block of reports; the same command goes
on where it stopped, with more `--reports` too, and several may write into one file. Lines that other rules of verdicts
wrote are not counted.

| part of the latent variance | share | as found on photographs |
|---|---|---|
| image | 0.86 | 0.78 |
| image and network | 0.04 | 0.08 |
| image, network and seed | 0.08 | 0.07 |
| image, network, seed and protocol | 0.02 | 0.06 |

What was found on photographs, shares and how far each network's trainings vary, is of docs/imagenette, whose outcomes
the package's verdicts there rest on.
"""

import argparse
import functools
import hashlib
import json
import platform
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from latent_shares import shares as measured_shares
from scipy.special import ndtri

import verydeep.reproduction
import verydeep.statistics
from verydeep import findings
from verydeep.machine.atomic import append_json
from verydeep.reproduction.claims import CLAIMS, MARGIN, compared_tests
from verydeep.reproduction.detectable import LATENT, Assumed, detectable
from verydeep.reproduction.files import OUTCOMES
from verydeep.reproduction.grid import Grid
from verydeep.reproduction.paper import NETWORKS
from verydeep.reproduction.stored_tests import read_outcomes
from verydeep.reproduction.trainings import TRAININGS_BY_NAME

PHOTOGRAPHS = Path(__file__).parents[1] / "docs" / "imagenette" / OUTCOMES

BLOCK = 50
"""Reports that are counted at once."""

ERROR = 25.0
"""Percent, of every network unless the truth says otherwise."""

GUESSING = 90.0


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The truth about all networks."""

    name: str
    sd: float = 0.5
    """Standard deviation of the errors of one network's trainings, percentage points."""
    more_sd: Mapping[str, float] = field(default_factory=dict)
    """Factors on it, by training."""
    shift: Mapping[str, float] = field(default_factory=dict)
    """Percentage points on the errors of trainings, by name, of protocols, or of single tests."""
    own_sd: Mapping[str, float] = field(default_factory=dict)
    """Standard deviations of single trainings that are not a multiple of the others', percentage points."""
    from_a: float = 0.0
    """Share of their variance over seeds that all trainings have in common."""
    of_line: float = 0.0
    """Share that the trainings of one network at its several S have in common."""
    of_protocol: float = 0.0
    """Standard deviation by which a seed moves all tests of one protocol alike, percentage points."""
    shares: Mapping[str, float] = field(default_factory=lambda: dict(LATENT))
    """Shares of the latent variance."""
    in_protocol: Mapping[str, float] = field(default_factory=dict)
    """Factors on the deviations of trainings in the tests of a protocol."""

    def error(self, test: str) -> float:
        """Return the error of a test in percent, over all trainings and images."""
        trainings, protocol = test.split(" ", 1)
        own = [self.shift.get(training, 0.0) for training in trainings.split("+")]
        fused = self.shift.get("+", 0.0) * (len(own) > 1)
        return ERROR + sum(own) / len(own) + self.shift.get(protocol, 0.0) + self.shift.get(test, 0.0) + fused


def outcomes(truth: Truth, tests: list[str], *, seeds: int, images: int, rng: np.random.Generator) -> tuple[dict, dict]:
    """Sample which images every test gets wrong, `[seeds, N]` by its name, and how often it would err on others.

    The latter is in percent, mean over the trainings with these seeds.
    """
    trainings = sorted({name for test in tests for name in test.split(" ")[0].split("+")})
    normal = rng.standard_normal
    of_image, of_network, of_seed, of_protocol_too = (truth.shares[name] for name in LATENT)
    difficulty = np.sqrt(of_image) * normal(images, dtype=np.float32)
    common, own_share = normal(seeds), 1 - truth.from_a - truth.of_line
    of_lines = {line: normal(seeds) for line in sorted({TRAININGS_BY_NAME[name].label for name in trainings})}
    of_protocols = {
        name: truth.of_protocol * normal(seeds) for name in sorted({test.split(" ", 1)[1] for test in tests})
    }
    latent, offset = {}, {}
    for name in trainings:
        own = np.sqrt(of_network) * normal(images, dtype=np.float32)
        latent[name] = difficulty + own, np.sqrt(of_seed) * normal((seeds, images), dtype=np.float32)
        with_others = np.sqrt(truth.from_a) * common + np.sqrt(truth.of_line) * of_lines[TRAININGS_BY_NAME[name].label]
        sd = truth.own_sd.get(name, truth.sd * truth.more_sd.get(name, 1.0))
        offset[name] = sd * (with_others + np.sqrt(own_share) * normal(seeds))
    found, errors = {}, {}
    for test in tests:
        names, protocol = test.split(" ")[0].split("+"), test.split(" ", 1)[1]
        shared = sum(latent[name][0] for name in names) / len(names)
        of_seeds = sum(latent[name][1] for name in names) / np.sqrt(len(names))
        of_protocol = np.sqrt(of_protocol_too) * normal((seeds, images), dtype=np.float32)
        deviation = truth.in_protocol.get(protocol, 1.0) * sum(offset[name] for name in names) / len(names)
        error = truth.error(test) + deviation + of_protocols[protocol]
        sd = np.sqrt(of_image + of_network / len(names) + of_seed + of_protocol_too)
        error = np.clip(error, 0.5, 99.5)
        threshold = sd * ndtri(error / 100).astype(np.float32)
        found[test], errors[test] = shared + of_seeds + of_protocol < threshold[:, None], float(error.mean())
    return found, errors


def false_verdicts(errors: Mapping[str, float], told, trainings: list[str], *, of: str) -> list[str]:
    """Return the parts whose verdict of the `networks`, or of those `trained`, is not true of the tests' errors."""
    parts = {part.id: part for claim in CLAIMS for part in claim.parts}
    wrong = []
    for part in (part for finding in told for part in finding.parts if getattr(part, of)):
        first, second = compared_tests(parts[part.id], trainings, errors)
        gap = sum(w * errors[test] for test, w in first.items()) - sum(w * errors[test] for test, w in second.items())
        verdict = getattr(part, of).verdict
        holds = {"less": gap < -1e-9, "no_more": gap < MARGIN - 1e-9, "alike": abs(gap) < MARGIN - 1e-9}[part.kind]
        opposite = {"less": gap > 1e-9, "no_more": gap > MARGIN + 1e-9, "alike": abs(gap) > MARGIN + 1e-9}[part.kind]
        if (verdict == "holds" and not holds) or (verdict == "reversed" and not opposite):
            wrong.append(part.id)
    return wrong


def simulate(truth: Truth, *, grid: Grid, seeds: int, images: int, reports: range) -> dict:
    """Count reports with a false verdict, and those in which each claim and each part holds."""
    tests, trainings = [entry.name for entry in grid.entries], [one.name for one in grid.trainings]
    of_networks = {test: truth.error(test) for test in tests}
    false, false_of_trained, claims, parts = 0, 0, Counter(), Counter()
    for number in reports:
        rng = np.random.default_rng([number, seeds, images, round(100 * truth.sd)])
        found, of_trained = outcomes(truth, tests, seeds=seeds, images=images, rng=rng)
        told = findings(found, guessing=GUESSING)
        false += bool(false_verdicts(of_networks, told, trainings, of="networks"))
        false_of_trained += bool(false_verdicts(of_trained, told, trainings, of="trained"))
        claims.update({finding.id: finding.verdict == "holds" for finding in told})
        every = [part for finding in told for part in finding.parts]
        parts.update({part.id: bool(part.networks and part.networks.verdict == "holds") for part in every})
    counts = {"reports": len(reports), "false": false, "false_of_trained": false_of_trained}
    return {**counts, "claims": dict(claims), "parts": dict(parts)}


@functools.cache
def as_found() -> dict[str, dict[str, float]]:
    """Return what was found on photographs: shares of the variance, and how far errors vary, for fields of `Truth`.

    Deviations of a training are those of dense tests at one scale; how they compare with those of the same trainings in
    other protocols is one factor for each.
    """
    found = read_outcomes(PHOTOGRAPHS)
    spread = {name: 100 * wrong.mean(axis=1).std(ddof=1) for name, wrong in found.items() if "+" not in name}
    own_sd = {name.split(" ")[0]: sd for name, sd in spread.items() if name.endswith("dense single")}
    of_protocol = {}
    for protocol in sorted({name.split(" ", 1)[1] for name in spread}):
        here = {name: spread[f"{name} {protocol}"] for name in own_sd if f"{name} {protocol}" in spread}
        dense = np.square([own_sd[name] for name in here]).mean()
        of_protocol[protocol] = float(np.sqrt(np.square([*here.values()]).mean() / dense))
    of_parts = {name: share for name, (share, _, _) in measured_shares(found, draws=1).items()}
    return {"shares": of_parts, "own_sd": {name: float(sd) for name, sd in own_sd.items()}, "in_protocol": of_protocol}


AT_THE_MARGIN = {"A-LRN-256": -MARGIN, "E-256": MARGIN, "D-256-glorot": MARGIN}

NULLS = (
    *(Truth(name=f"equal networks, sd {sd}", sd=sd) for sd in (0.0, 0.5, 1.0)),
    *(
        Truth(name=f"{', '.join(some)} with {factor} times the sd", more_sd=dict.fromkeys(some, factor))
        for factor in (2.0, 4.0)
        for some in (("D-256",), ("B-256", "E-256"), ("A-256", "C-256", "D-256"))
    ),
    *(Truth(name=f"D alone varies, sd {sd}", sd=0.0, own_sd={"D-256": sd}) for sd in (1.0, 2.0)),
    Truth(name="nets from A correlated", from_a=0.5),
    Truth(name="stages of a network correlated, sd 1", sd=1.0, of_line=0.9),
    *(Truth(name=f"tests of a protocol move together, sd {sd}", of_protocol=sd) for sd in (0.5, 1.0)),
    Truth(name="small filters help on centre crops alone", shift={"B-5x5-256 centre single": 3.0}),
    Truth(name="at the margin", shift=AT_THE_MARGIN),
)
"""Where claims of fewer errors are false; in the last one those of errors alike are false as well, by nothing."""


def nulls_as_found() -> tuple[Truth, Truth]:
    """Return two of them, equal networks and the last one, with shares and deviations as found on photographs."""
    return (
        Truth(name="equal networks, as found on photographs", **as_found()),
        Truth(name="at the margin, as found on photographs", shift=AT_THE_MARGIN, **as_found()),
    )


def one_claim(points: float, sd: float) -> Truth:
    """Return what is true where B-5x5 errs more than B by some points, and all else alike."""
    return Truth(name=f"small_filters_help by {points:g}, sd {sd}", sd=sd, shift={"B-5x5-256": points})


def planned(sd: float, *, grid: Grid, seeds: int, images: int) -> list[Truth]:
    """Return what is true where claims differ by just what `detectable` says is told with a probability of `POWER`."""
    tests, trainings = [entry.name for entry in grid.entries], [one.name for one in grid.trainings]
    smallest = {
        one.id: one.points[seeds]
        for one in detectable(trainings, tests, [seeds], Assumed(images=images, seed_sd=sd, error=ERROR))
    }
    shifts = {
        "small_filters_help": ("B-5x5-256", 1),
        "several_scales_help": ("dense paper", -1),
        "fusion_helps": ("+", -1),
    }
    return [
        Truth(name=f"{claim} by {smallest[claim]:.2f}, sd {sd}", sd=sd, shift={what: sign * smallest[claim]})
        for claim, (what, sign) in shifts.items()
        if smallest.get(claim) is not None
    ]


def rules() -> str:
    """Return a digest of all code that decides verdicts, and of this file."""
    folder = Path(verydeep.reproduction.__file__).parent
    of_verdicts = ("claims", "contrasts", "detectable", "fair_tests", "findings", "paper_tables", "trainings")
    files = [*(folder / f"{name}.py" for name in of_verdicts), Path(verydeep.statistics.__file__), Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def blocks_of(out: Path | None) -> list[dict]:
    """Return the blocks that a file has, each once, though two processes may have counted it."""
    blocks = {}
    for line in out.read_text().splitlines() if out and out.is_file() else []:
        try:
            one = json.loads(line)
        except ValueError:
            continue  # torn when the machine stopped
        blocks[json.dumps(one["setting"]), one["block"]] = one
    return list(blocks.values())


def counted(out: Path | None, setting: Mapping) -> dict[int, dict]:
    """Return the blocks of a setting that a file has, by number."""
    same = json.loads(json.dumps(setting))
    return {one["block"]: one for one in blocks_of(out) if one["setting"] == same}


def count(truth: Truth, *, grid: Grid, seeds: int, images: int, reports: int, out: Path | None) -> dict:
    """Count blocks of reports until there are enough, and add up all of them."""
    setting = {"rules": rules(), "truth": asdict(truth), "seeds": seeds, "images": images, "tests": len(grid.entries)}
    blocks = counted(out, setting)
    for block in range(-(-reports // BLOCK)):
        if block not in blocks:
            numbers = range(block * BLOCK, (block + 1) * BLOCK)
            found = simulate(truth, grid=grid, seeds=seeds, images=images, reports=numbers)
            blocks[block] = {"setting": setting, "block": block, "machine": platform.machine(), **found}
            if out:
                append_json(out, blocks[block])
    total = {name: sum((Counter(one[name]) for one in blocks.values()), Counter()) for name in ("claims", "parts")}
    return {
        **total,
        **{name: sum(one[name] for one in blocks.values()) for name in ("reports", "false", "false_of_trained")},
    }


def table(out: Path) -> str:
    """Return as Markdown what percentage of how many reports a file has with a false verdict, and true claims told."""
    cells: dict[tuple, dict[int, Counter]] = {}
    for one in blocks_of(out):
        setting, claim = one["setting"], one["setting"]["truth"]["name"].split(" ")[0]
        if setting["rules"] == rules():
            row = cells.setdefault((setting["tests"], setting["truth"]["name"], setting["images"]), {})
            counts = row.setdefault(setting["seeds"], Counter())
            counts.update(reports=one["reports"], false=one["false"], told=one["claims"].get(claim, 0))
    seeds = sorted({count for row in cells.values() for count in row})
    lines = [["tests", "truth", "images", *(f"{count} seeds" for count in seeds)]]
    for (tests, name, images), row in sorted(cells.items()):
        told = any(claim.id == name.split(" ")[0] for claim in CLAIMS)
        lines.append([f"{tests}", name, f"{images:,}", *(_cell(row.get(count), told=told) for count in seeds)])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(counts: Counter | None, *, told: bool) -> str:
    if not counts:
        return ""
    percent = 100 / counts["reports"]
    found = f"told {percent * counts['told']:.0f}, " if told else ""
    return f"{found}{percent * counts['false']:.1f} ({counts['reports']})"


def main() -> None:
    """Simulate, and print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--reports", type=int, default=1000, help=f"of each setting, rounded up to blocks of {BLOCK}")
    parser.add_argument("--seeds", type=lambda text: list(map(int, text.split(","))), default=[1, 2, 3, 5, 10])
    parser.add_argument("--images", type=lambda text: list(map(int, text.split(","))), default=[359, 3925, 10_000])
    parser.add_argument("--power", action="store_true", help="true claims instead of false ones")
    parser.add_argument("--plan", action="store_true", help="claims true by what a plan calls the smallest difference")
    parser.add_argument("--as-found", action="store_true", help="false claims, with what was found on photographs")
    parser.add_argument("--whole", action="store_true", help="all trainings and Tables 3 to 6, not the seven at 256")
    parser.add_argument("--only", default="", help="settings whose name has this in it")
    parser.add_argument("--out", type=Path, help="file that gets a line for every block, and is gone on with")
    parser.add_argument("--table", action="store_true", help="print what --out has, as Markdown, and simulate nothing")
    arguments = parser.parse_args()
    if arguments.as_found and (arguments.power or arguments.plan):
        parser.error("--as-found goes with false claims alone: leave out --power and --plan")
    if arguments.table:
        print(table(arguments.out))
        return
    grid = Grid() if arguments.whole else Grid(only=tuple(f"{name}-256" for name in NETWORKS), tables=(3,))
    true = [one_claim(points, sd) for sd in (0.0, 0.5, 1.0) for points in (1, 2, 3)]
    false = nulls_as_found() if arguments.as_found else NULLS
    for seeds in arguments.seeds:
        for images in arguments.images:
            size = {"grid": grid, "seeds": seeds, "images": images}
            plans = [truth for sd in (0.0, 0.5, 1.0) for truth in planned(sd, **size)] if arguments.plan else []
            for truth in plans or (true if arguments.power else false):
                if arguments.only in truth.name:
                    found = count(truth, reports=arguments.reports, out=arguments.out, **size)
                    print(line(truth, found, seeds=seeds, images=images), flush=True)


def line(truth: Truth, found: Mapping, *, seeds: int, images: int) -> str:
    """Return the figures of a setting in percent of its reports; of a true claim those of its parts."""
    percent = 100 / found["reports"]
    claim = next((claim for claim in CLAIMS if claim.id == truth.name.split(" ")[0]), None)
    told = [f"{part.id} {percent * found['parts'][part.id]:.1f}%" for part in (claim.parts if claim else ())]
    start = f"{truth.name}; {seeds} seeds, {images:,} images, {found['reports']:,} reports"
    false = f"false {percent * found['false']:.2f}%, of those trained {percent * found['false_of_trained']:.2f}%"
    return f"{start}: {false}" + (f", told {', '.join(told)}" if told else "")


if __name__ == "__main__":
    main()
