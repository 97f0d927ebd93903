"""What was asked for."""

from dataclasses import dataclass
from pathlib import Path

import torch

from verydeep.images.sources import Splits
from verydeep.images.tolerance import Tolerance
from verydeep.processes import Processes
from verydeep.runtime import Execution, Runtime
from verydeep.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Order:
    """A training that is to be done, here or by several processes."""

    splits: Splits
    network: str
    recipe: Recipe
    runtime: Runtime
    execution: Execution
    tolerance: Tolerance
    out: Path
    device: torch.device
    processes: Processes
