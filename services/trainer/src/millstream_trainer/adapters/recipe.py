"""What a model is made by: as it was asked for, for MLflow, and as it came about, for its package."""

from __future__ import annotations

from millstream.contracts.events import GivenModel
from millstream.contracts.package import Recipe
from millstream.contracts.times import to_datetime
from millstream.project import Loop
from millstream_trainer.adapters.choice import Choice
from millstream_trainer.adapters.learning import wants_start


def recipe_of(loop: Loop, choice: Choice) -> Recipe:
    """What the last fit took."""
    model, since = loop.model, choice.candidate.since
    return Recipe(
        estimator=model.estimator,
        params=choice.params.model_dump(mode="json"),
        seed=loop.train.seed,
        candidate=choice.candidate.name,
        since=None if since is None else to_datetime(since),
        class_weight=model.class_weight,
        calibration=model.calibration,
        warm_start=choice.start.version if choice.start is not None and wants_start(choice.params) else "",
    )


def asked(loop: Loop) -> dict[str, str]:
    """What the loop's file asks for, as MLflow's parameters."""
    model = loop.model
    found = {
        **{name: str(value) for name, value in model.params.model_dump().items()},
        "estimator": model.estimator,
        "task": str(model.task),
        "features": loop.predict.features,
        "label": loop.label.value.text,
        "seed": str(loop.train.seed),
        "history": str(loop.train.model_dump(mode="json")["history"]),
        "class_weight": model.class_weight,
        "calibration": model.calibration,
    }
    if model.settings:
        found["settings"] = str([params.model_dump(exclude_unset=True) for params in model.settings])
    if model.search is not None:
        found["search"] = str(model.search.model_dump(mode="json"))
    return found


def asked_of_given(said: GivenModel, loop: Loop) -> dict[str, str]:
    """The same of a model that was given."""
    return {
        "given": said.remote or said.sha256,
        "learned_until": str(said.learned_until),
        "task": str(loop.model.task),
        "features": loop.predict.features,
        "label": loop.label.value.text,
    }
