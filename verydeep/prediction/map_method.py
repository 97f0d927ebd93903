"""Methods by which a picture shows where in an image a class is seen (needs no other library)."""

from typing import Literal

MapMethod = Literal["score-map", "grad-cam"]
"""`score-map`: the class's posterior at every position of the paper's dense score map, which stands for as many pixels
as a crop has; in these networks it is what others call the class activation map (CAM). `grad-cam`: the activations of
the last convolution, weighted by their gradients; finer, but no probabilities (not in the paper)."""
