"""Finds a user's own estimator: `mypackage.models:build`, from the project's folder or installed beside the trainer."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from millstream.project.params import OwnParams
from millstream_trainer.adapters.estimators import How
from millstream_trainer.adapters.sklearn_model import Build
from millstream_trainer.errors import RunFailed


def builder(entry: str, project: Path | None) -> Build:
    """A function that calls the user's as `build(task, params, seed)`. Raises RunFailed, naming what is wrong and where.

    Only a training process does this: a user's module must not run in the dispatcher.
    """
    module_name, _, name = entry.partition(":")
    if project is not None and str(project) not in sys.path:
        sys.path.insert(0, str(project))
    try:
        module = importlib.import_module(module_name)
    # A user's module may raise anything while it is imported.
    except Exception as error:
        where = f"; looked in {project} and in what is installed" if isinstance(error, ModuleNotFoundError) else ""
        raise RunFailed(
            f"model.estimator: {entry} cannot be imported ({type(error).__name__}: {str(error)[:300]}){where}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        has = ", ".join(n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module_name)
        raise RunFailed(f"model.estimator: {module_name} has no function {name!r}; it has {has or 'none'}")
    return lambda how: _built(entry, found, how)


def _built(entry: str, build: Any, how: How) -> Any:
    assert isinstance(how.params, OwnParams)
    try:
        model = build(str(how.task), how.params.given(), how.seed)
    except Exception as error:  # as above
        raise RunFailed(
            f"model.estimator: {entry}({str(how.task)!r}, {how.params.given()}, {how.seed}) raised "
            f"{type(error).__name__}: {str(error)[:300]}; it is called as build(task, params, seed)"
        ) from error
    asked = "predict" if how.classes == 0 else "predict_proba"
    if not (hasattr(model, "fit") and hasattr(model, asked)):
        raise RunFailed(
            f"model.estimator: {entry} returned a {type(model).__name__} without fit and {asked}; "
            "return a scikit-learn estimator"
        )
    return model
