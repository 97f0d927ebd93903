"""Studies beside the grid: the question of each, the paper's words on it, and the trainings and tests that it takes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from verydeep.numbers import trimmed
from verydeep.reproduction.paper import B_5X5_EXTRA_TOP1
from verydeep.reproduction.paper_tables import Entry, one_scale
from verydeep.reproduction.trainings import TRAININGS, TRAININGS_BY_NAME, GridTraining
from verydeep.training.recipe import Recipe

StudyName = Literal["initialisation", "gradients", "regularisation", "images"]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question beside the paper's tables."""

    name: StudyName
    asks: str
    section: str
    """Section of the paper."""
    paper_says: str
    trainings: tuple[GridTraining, ...]
    """Trainings that it looks at; those that they start from are done as well."""
    on_training_images: bool = False
    """Whether the error on training images is measured too."""


def _by_initialisation(*networks: str) -> tuple[GridTraining, ...]:
    """Return networks as the grid has them, and from random weights by every scheme."""
    return tuple(
        training
        for network in networks
        for training in (
            TRAININGS_BY_NAME[f"{network}-256"],
            *([] if network == "A" else [GridTraining(network=network, scale="256", scheme="glorot")]),
            GridTraining(network=network, scale="256", scheme="paper"),
            GridTraining(network=network, scale="256", scheme="paper-variance"),
        )
    )


def _on_parts(*networks: str) -> tuple[GridTraining, ...]:
    """Return networks trained on an eighth, a quarter, a half and all of the images, each from A on the same ones."""
    a = TRAININGS_BY_NAME["A-256"]
    return tuple(
        replace(training, one_in=one_in, init=training.init and replace(a, one_in=one_in).name)
        for network in networks
        for training in [TRAININGS_BY_NAME[f"{network}-256"]]
        for one_in in (8, 4, 2, 1)
    )


STUDIES = (
    Study(
        name="initialisation",
        asks="From which first weights do deep nets learn?",
        section="3.1",
        paper_says="Bad first weights can stall learning, because gradients are unstable in deep nets. The paper "
        "trained A, which is shallow enough for that, from random weights (normal, 'variance 1e-2'), and started the "
        "deeper nets from layers of trained A. It found later that the initialisation of Glorot and Bengio makes this "
        "unnecessary.",
        trainings=_by_initialisation("A", "D", "E"),
    ),
    Study(
        name="gradients",
        asks="Does the signal reach the last layer, and the gradient the first?",
        section="3.1",
        paper_says="Deep nets have unstable gradients, so their first weights matter. The paper gives no figures of "
        "gradients; these are of its nets, from its first weights and from others.",
        trainings=_by_initialisation("A", "B", "D", "E"),
    ),
    Study(
        name="regularisation",
        asks="Does a stack of small filters regularise?",
        section="2.3",
        paper_says="A stack of 3 x 3 layers is a larger filter that is made to decompose into small ones, which the "
        "paper takes for a regularisation. It gives test errors only: on a centre crop, B errs "
        f"{trimmed(B_5X5_EXTRA_TOP1)} points less than B with 5 x 5 layers (section 4.1).",
        trainings=tuple(one for one in TRAININGS if one.scale == "256" and (one.network == "B" or not one.unseeded)),
        on_training_images=True,
    ),
    Study(
        name="images",
        asks="Do deeper nets gain more from more images?",
        section="4.1",
        paper_says="The error saturates at 19 layers on ILSVRC, but still deeper nets might be of use where there are "
        "more images. The paper did not vary their number.",
        trainings=_on_parts("A", "D"),
    ),
)

STUDIES_BY_NAME = {study.name: study for study in STUDIES}

_KNOWN = {one.name: one for one in (*TRAININGS, *(training for study in STUDIES for training in study.trainings))}
"""Every training of the grid and of studies, each after the one that it starts from."""


def looked_at(study: Study, networks: Collection[str]) -> tuple[GridTraining, ...]:
    """Return the trainings that a study looks at, of these networks."""
    return tuple(one for one in study.trainings if one.network in networks)


def trainings_of_studies(names: Sequence[StudyName], networks: Collection[str]) -> tuple[GridTraining, ...]:
    """Return all trainings of some studies of these networks, each after the one it starts from."""
    looked = (one for name in names for one in looked_at(STUDIES_BY_NAME[name], networks))
    wanted = {one.name for training in looked for one in with_its_starts(training)}
    return tuple(one for one in _KNOWN.values() if one.name in wanted)


def with_its_starts(training: GridTraining) -> tuple[GridTraining, ...]:
    """Return a training, the one that it starts from, and so on to the one from random weights."""
    start = training.start and _KNOWN.get(training.start)
    return (training, *with_its_starts(start)) if start else (training,)


def tests_of_studies(names: Sequence[StudyName], networks: Collection[str]) -> tuple[Entry, ...]:
    """Return the tests of some studies, each once: every training that is looked at, densely at one scale."""
    tests = (
        entry
        for study in map(STUDIES_BY_NAME.__getitem__, names)
        for training in looked_at(study, networks)
        for entry in (
            one_scale(training.name),
            *([on_training_images(training.name)] if study.on_training_images else []),
        )
    )
    return tuple(dict.fromkeys(tests))


def on_training_images(training: str) -> Entry:
    """Return the dense test of a training at one scale on its training images, without augmentation."""
    return replace(one_scale(training), training_images=True)


def recipe_on_part(recipe: Recipe, one_in: int) -> Recipe:
    """Return the recipe for one in so many images: with as many steps in all, and between two drops of the rate."""
    times = {"epochs": one_in, "warm_up": one_in}
    if recipe.schedule == "plateau":
        times["patience"] = one_in
    longer = {name: getattr(recipe, name) * count for name, count in times.items()}
    step_epochs = recipe.step_epochs and recipe.step_epochs * one_in
    return replace(recipe, **longer, step_epochs=step_epochs)
