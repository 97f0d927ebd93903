"""Posteriors of a source's images by a protocol, of one network or of several: averages over passes."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from verydeep.evaluation.passes import Pass, PassContext, run_passes
from verydeep.evaluation.pixel_limits import pixel_limits
from verydeep.evaluation.protocols import Protocol
from verydeep.images.quarantine import Quarantine
from verydeep.images.sources.source import Source
from verydeep.networks.scales import scale_in_pixels
from verydeep.networks.vgg import ScoringNetwork


class Averages(NamedTuple):
    """Posteriors averaged over passes; in other processes than the first there are none."""

    values: list[Float[np.ndarray, "N K"]]
    """For each group of passes; rows of NaN for images that cannot be used."""
    computed: int
    """Rows of passes that were not in the cache."""


def posteriors(
    net: ScoringNetwork,
    source: Source,
    protocol: Protocol,
    *,
    quarantine: Quarantine | None = None,
    workers: int = 0,
    advance: Callable[[int], None] = lambda images: None,
) -> Float[np.ndarray, "N K"]:
    """Return the posterior of every image, in the source's order; rows add up to 1.

    Images of the same size share a batch, none is padded. Images that cannot be used are in the quarantine, and their
    rows are NaN. `advance` is called with the number of images that have just gone through a view at a scale.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: the network's scores are not finite.
    """
    context = PassContext(
        source=source, quarantine=quarantine or Quarantine(len(source)), workers=workers, advance=advance
    )
    return averages([protocol_passes(net, protocol)], context).values[0]


def protocol_passes(net: ScoringNetwork, protocol: Protocol, **about: Any) -> list[Pass]:
    """Return the passes whose posteriors a protocol averages; `about` are further fields of `Pass`."""
    return [
        Pass(net=net, view=view, side=scale_in_pixels(scale, net.architecture.crop), mirror=protocol.mirror, **about)
        for scale in protocol.scales
        for view in protocol.views
    ]


def averages(groups: Sequence[Sequence[Pass]], context: PassContext) -> Averages:
    """Average each group's posteriors over its passes; images are decoded once for all passes at the same scale.

    Raises:
        TooManyBadImagesError: the quarantine is full.
        ValueError: a network's scores are not finite.
    """
    first, nets = context.processes.first, [group[0].net for group in groups]
    limits = pixel_limits(nets)
    totals = [np.zeros((len(context.source), group[0].net.architecture.classes)) for group in groups if first]
    computed = 0
    for side in dict.fromkeys(one.side for group in groups for one in group):
        chosen = [(which, one) for which, group in enumerate(groups) for one in group if one.side == side]
        results = run_passes([one for _, one in chosen], context, limits)
        for which, _ in chosen if first else ():
            result = results.pop(0)  # so that its memory is freed
            totals[which] += result.values
            computed += result.computed
    for total, group in zip(totals, groups if first else (), strict=True):
        total /= len(group)
    return Averages(totals, computed)
