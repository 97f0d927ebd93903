"""Methods by which a picture shows where in an image a class is seen (needs no other library)."""

from typing import Literal

MapMethod = Literal["score-map", "grad-cam"]
"""`score-map`: the class's posterior at every position of the paper's dense score map, which stands for as many pixels
as a crop has. Before the soft-max its mean is the class's score, so it takes the place of the class activation map
(CAM, Zhou et al. 2016). `grad-cam`: the activations of the last convolution, weighted by their gradients; finer, but no
probabilities (not in the paper)."""
