"""How many classes are named, and how a picture shows where one is seen (needs no other library)."""

from typing import Literal

NAMED_CLASSES = 5
"""Classes of an image that are named unless more or fewer are asked for."""

MapMethod = Literal["score-map", "grad-cam"]
"""`score-map`: the class's posterior at every position of the paper's dense score map, which stands for as many pixels
as a crop has. Before the soft-max its mean is the class's score, so it takes the place of the class activation map
(CAM, Zhou et al. 2016). `grad-cam`: the activations of the last convolution, weighted by their gradients; finer, but no
probabilities (not in the paper)."""

MAP_METHOD: MapMethod = "score-map"
"""The method unless another is asked for."""
