"""Losses, errors, posteriors, boxes and features are those that were recorded (`record.py`), to rounding.

Rounding differs with the processor and the number of threads. All was computed with one thread and two, with
`ATEN_CPU_CAPABILITY` at `default`, `avx2` and `avx512`, and with `ONEDNN_MAX_CPU_ISA` at `SSE41`, `AVX2` and
`AVX512_CORE`. The greatest differences from what is
recorded were, relative, 1.9e-4 of the losses of steps on digits and 1.4e-5 of those of boxes; one digit for validation
and one for training in errors; 1.3e-5 of coordinates of boxes; 1.2e-7, absolute, of posteriors and 4e-7 of features.
All other errors, counts and all figures of transfer were equal. An AMD EPYC with AVX2 and no more agrees too, since the
training with batch normalisation has a rate of 5e-4: at 2e-3 a difference of one rounding grew to 11% in five steps.
"""

import json
import runpy
from pathlib import Path

import pytest

recorded = runpy.run_path(str(Path(__file__).parent / "record.py"))

TRAINED, COMPUTED = {"rel": 1e-3, "abs": 1e-5}, {"rel": 1e-4, "abs": 1e-5}
"""Tolerances of figures that rest on a training, where rounding grows from step to step, and of those that do not."""

RATES, ERRORS = ("rates", "learning_rate"), ("training_error", "validation_error")

ONE_IMAGE = 100 / 179 + 1e-5
"""Percent of the digits for validation, as many as may be at the edge between two classes."""


@pytest.mark.parametrize("name", recorded["RECORDED"])
def test_figures_are_those_that_were_recorded(name, tmp_path):
    wanted = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    found = json.loads(json.dumps(recorded["RECORDED"][name](tmp_path)))
    apart = list(differences(found, wanted, TRAINED if name in ("training", "boxes") else COMPUTED))
    assert not apart, f"{len(apart)} differ, the first: {apart[:5]}"


def differences(found, wanted, tolerance, place=()):
    """(place, found, wanted) wherever two are further apart than may be; counts and choices may not be at all."""
    if isinstance(wanted, dict | list):
        pairs = wanted.items() if isinstance(wanted, dict) else enumerate(wanted)
        if type(found) is not type(wanted) or len(found) != len(wanted):
            yield "/".join(map(str, place)), found, wanted
            return
        for key, value in pairs:
            yield from differences(found[key], value, tolerance, (*place, key))
    elif found != (pytest.approx(wanted, **allowed(place, tolerance)) if isinstance(wanted, float) else wanted):
        yield "/".join(map(str, place)), found, wanted


def allowed(place, tolerance):
    if set(RATES) & set(place):
        return {"rel": 1e-6, "abs": 0}
    if set(ERRORS) & set(place):
        return {"abs": ONE_IMAGE if "paper" in place else 1e-4}
    return tolerance
