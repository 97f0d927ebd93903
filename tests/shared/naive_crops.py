"""The paper's crops of an image by plain slices, to compare with."""

import numpy as np


def crop_grid(image, size, steps=5):
    """A regular grid of crops that reaches every border, row by row."""
    tops, lefts = (np.linspace(0, side - size, steps).round().astype(int) for side in image.shape[:2])
    return np.stack([image[top : top + size, left : left + size] for top in tops for left in lefts])


def multi_crop(image, size):
    """The 50 crops a scale: the 5 x 5 grid, then the mirror image of each."""
    grid = crop_grid(image, size)
    return np.concatenate([grid, grid[:, :, ::-1]])
