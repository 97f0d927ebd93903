"""Two results on the same images, by how many they got wrong together and alone."""

import random

import numpy as np


def outcomes(only_first, only_second, both, neither):
    """Return which images two results got wrong, in a shuffled order."""
    pairs = [(True, False)] * only_first + [(False, True)] * only_second + [(True, True)] * both
    pairs += [(False, False)] * neither
    random.Random(0).shuffle(pairs)
    return np.array(pairs, dtype=bool).reshape(-1, 2).T
