"""Figures of a service for Prometheus."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from verydeep.images.decode import UnusableImageError
from verydeep.serving.refusals import RefusedRequestError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

_Outcome = Literal["predicted", "refused", "dropped", "failed"]

_ABOUT_OUTCOMES = (
    "Images by outcome: predicted; refused, since they cannot be used; dropped, since nobody waits for them or the "
    "service ends; failed, for which the log says why."
)

_ABOUT_CUT_OFF = "Connections that were closed because their client did not take its answers in time."

_SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Counters and histograms of one service, in a registry of its own."""

    registry: CollectorRegistry
    requests: Counter
    """By method, path and status; method and path are "other" where the head told none, or was refused."""
    seconds: Histogram
    """Seconds of requests, by path."""
    cut_off: Counter
    """Connections that were closed since their clients did not take what was sent in time."""
    images: Counter
    """By outcome."""
    decoding: Histogram
    """Seconds for an image."""
    computing: Histogram
    """Seconds for a batch."""
    batches: Histogram
    """Images in a batch."""

    def watch(self, name: str, about: str, value: Callable[[], float]) -> None:
        """Add a figure that is computed whenever the metrics are read."""
        Gauge(name, about, registry=self.registry).set_function(value)

    def count_image(self, answer: "asyncio.Future[Any]") -> None:
        """Count an image by what has come of its answer."""
        self.images.labels(_outcome(answer)).inc()

    def text(self) -> bytes:
        """Return all figures in Prometheus' text format."""
        return generate_latest(self.registry)


def new_metrics() -> Metrics:
    """Return metrics at zero, with those of the process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return Metrics(
        registry=registry,
        requests=Counter("http_requests_total", "Requests.", ("method", "path", "status"), registry=registry),
        seconds=_histogram("http_request_duration_seconds", "Seconds of requests.", registry, ("path",)),
        cut_off=Counter("verydeep_cut_off_total", _ABOUT_CUT_OFF, registry=registry),
        images=Counter("verydeep_images_total", _ABOUT_OUTCOMES, ("outcome",), registry=registry),
        decoding=_histogram("verydeep_decoding_seconds", "Seconds for decoding and rescaling an image.", registry),
        computing=_histogram("verydeep_computing_seconds", "Seconds for computing a batch.", registry),
        batches=Histogram("verydeep_batch_images", "Images in a batch.", buckets=_SIZES, registry=registry),
    )


def _outcome(answer: "asyncio.Future[Any]") -> _Outcome:
    if answer.cancelled() or not answer.done():
        return "dropped"
    match answer.exception():
        case None:
            return "predicted"
        case UnusableImageError():
            return "refused"
        case RefusedRequestError():
            return "dropped"
        case _:
            return "failed"


def _histogram(name: str, about: str, registry: CollectorRegistry, labels: tuple[str, ...] = ()) -> Histogram:
    return Histogram(name, about, labels, buckets=_SECONDS, registry=registry)
