"""Which shares of the latent variance an experiment shows, beside those that plans and simulations of verdicts assume.

    python benchmarks/latent_shares.py FOLDER

FOLDER is what `verydeep reproduce` wrote, with two seeds or more. Two tests are wrong together as often as a bivariate
normal with some correlation says (tetrachoric correlation: Pearson, Philosophical Transactions A 195, 1900). Pairs of
two networks, of two seeds of one training under one protocol, and of two protocols of one seed give the shares in turn;
those of one network's trainings at several S, which go on from each other, are left out. Intervals are over images, 2.5
to 97.5% of a bootstrap. Single networks alone are used, with errors between 1 and 99%.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri, owens_t

from verydeep.reproduction.detectable import LATENT
from verydeep.reproduction.files import OUTCOMES
from verydeep.reproduction.stored_tests import read_outcomes
from verydeep.reproduction.trainings import TRAININGS_BY_NAME

LEAST = 1e-6


def both_wrong(first: np.ndarray, second: np.ndarray, correlation: np.ndarray) -> np.ndarray:
    """Return how often two standard normals of a correlation both fall below their thresholds (Owen, 1956)."""
    first, second = (np.where(np.abs(one) < LEAST, LEAST, one) for one in (first, second))
    rest = (1 - correlation**2) ** 0.5
    return (
        (ndtr(first) + ndtr(second)) / 2
        - owens_t(first, (second - correlation * first) / (first * rest))
        - owens_t(second, (first - correlation * second) / (second * rest))
        - (first * second < 0) / 2
    )


def tetrachoric(wrong: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the latent correlations of pairs of rows of `wrong`, `[tests, images]`, by bisection."""
    rates = np.clip(wrong.mean(axis=1), LEAST, 1 - LEAST)
    together = (wrong @ wrong.T / wrong.shape[1])[first, second]
    low, high = np.full(len(first), -1 + LEAST), np.full(len(first), 1 - LEAST)
    for _ in range(40):
        middle = (low + high) / 2
        more = both_wrong(ndtri(rates[first]), ndtri(rates[second]), middle) < together
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return (low + high) / 2


def shares(outcomes: Mapping[str, np.ndarray], *, draws: int, seed: int = 0) -> dict[str, tuple[float, float, float]]:
    """Return each share with its interval: of the image, and of it with network, with seed too, with protocol too.

    `outcomes`: `[seeds, images]` by a test's name. Fused tests and such as err almost never or always are left out.
    """
    single = {name: wrong for name, wrong in outcomes.items() if "+" not in name and 0.01 < wrong.mean() < 0.99}
    label = [(*name.split(" ", 1), seed) for name, wrong in single.items() for seed in range(len(wrong))]
    wrong = np.concatenate(list(single.values())).astype(np.float32)
    first, second = np.triu_indices(len(label), 1)
    training, protocol, seeds = (np.array(part) for part in zip(*label, strict=True))
    network = np.array([TRAININGS_BY_NAME[name].label for name in training])
    same = {"network": network, "training": training, "protocol": protocol, "seed": seeds}
    same = {name: part[first] == part[second] for name, part in same.items()}
    kinds = {
        "image": ~same["network"],
        "network": same["training"] & same["protocol"] & ~same["seed"],
        "seed": same["training"] & ~same["protocol"] & same["seed"],
    }

    def of(columns: np.ndarray) -> np.ndarray:
        found = tetrachoric(wrong[:, columns], first, second)
        levels = [0.0, *(found[kind].mean() if kind.any() else np.nan for kind in kinds.values()), 1.0]
        return np.diff(levels)

    rng, images = np.random.default_rng(seed), wrong.shape[1]
    drawn = np.array([of(rng.integers(0, images, images)) for _ in range(draws)])
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    return {
        name: (float(a), float(b), float(c))
        for name, a, b, c in zip(LATENT, of(np.arange(images)), low, high, strict=True)
    }


def main() -> None:
    """Print the shares as a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--draws", type=int, default=200)
    arguments = parser.parse_args()
    outcomes = read_outcomes(arguments.folder / OUTCOMES)
    [(seeds, images)] = {one.shape for one in outcomes.values()}
    print(f"{len(outcomes)} tests, {seeds} seeds, {images:,} images\n")
    print("| part of the latent variance | measured | 2.5 to 97.5% | assumed |", "| --- | --- | --- | --- |", sep="\n")
    for name, (share, low, high) in shares(outcomes, draws=arguments.draws).items():
        print(f"| {name} | {share:.2f} | {low:.2f} to {high:.2f} | {LATENT[name]:.2f} |")


if __name__ == "__main__":
    main()
