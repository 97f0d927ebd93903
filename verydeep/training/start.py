"""What a training takes over from the RUN or WEIGHTS that it goes on from, where nothing else is asked for."""

from collections.abc import Mapping
from typing import Any

from verydeep.runs.import_weights import read_model
from verydeep.runs.model import Model, load_config
from verydeep.training.recipe import Recipe

FEW_PHOTOGRAPHS: Mapping[str, Any] = {
    "trainable": "fc",
    "views": 2,
    "batch": 32,
    "epochs": 12,
    "schedule": "cosine",
}
"""What suits few photographs on a CPU, for a training from WEIGHTS: the convolutional layers see each view once."""


def options_from_start(recipe: Recipe) -> dict[str, Any]:
    """Return network, crop, width, batch normalisation, S and mirror of what a recipe goes on from; {} if from nothing.

    Raises:
        ValueError: there is no such run, or no such weights.
        OSError: the file cannot be read, or the hub cannot be reached.
    """
    if recipe.taken_over is None:
        return {}
    if recipe.weights is None:
        config = load_config(recipe.taken_over)
        architecture, scale, flip = config.architecture, config.scale, config.flip
    else:
        model = _model(recipe.weights)
        architecture, scale, flip = model.net.architecture, model.scale, model.flip
    taken_over = {name: getattr(architecture, name) for name in ("network", "crop", "width", "batch_norm")}
    return {**taken_over, "scale": scale, "flip": flip}


def _model(weights: str) -> Model:
    try:
        return read_model(weights)[0].model
    except ValueError as error:
        if " --" not in str(error):
            raise
        raise ValueError(f"{error} (options of verydeep import, whose run --from takes)") from error


def recipe_from_weights(weights: str, **changes: Any) -> Recipe:
    """Return the recipe of `verydeep train --from WEIGHTS`, for `train`, with fields of `Recipe` changed.

    Raises:
        ValueError: unusable weights, or an impossible value.
        OSError: the file cannot be read, or the hub cannot be reached.
    """
    theirs = options_from_start(Recipe(weights=weights))
    del theirs["network"]
    return Recipe(**{"weights": weights, **theirs, **fitting(FEW_PHOTOGRAPHS, changes), **changes})


def fitting(options: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that go with those that are given, of names as in `Recipe`.

    Where all layers learn, fixed views would save nothing.
    """
    left_out = {"trainable"} if "freeze" in given else set()
    if given.get("trainable") == "all":
        left_out.add("views")
    return {name: value for name, value in options.items() if name not in left_out | given.keys()}
