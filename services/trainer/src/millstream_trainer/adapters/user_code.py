"""Finds a user's own estimator: `mypackage.models:build`, from the project's folder or installed beside the trainer."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

from millstream.project.params import OwnParams
from millstream_trainer.adapters.estimators import Estimator, How
from millstream_trainer.adapters.sklearn_model import Sklearn
from millstream_trainer.adapters.torch_needs import INSTALL, needed
from millstream_trainer.errors import RunFailed

SIZES = {"inputs", "outputs"}
"""Parameters by which a function says that it builds a PyTorch module: nothing else has to know how wide its matrix is."""


def own(entry: str, project: Path | None) -> Estimator:
    """Whoever fits what the user's function builds. Raises RunFailed, naming what is wrong and where.

    Only a training process does this: a user's module must not run in the dispatcher.
    """
    found = _function(entry, project)
    if not _takes_sizes(found):
        return Sklearn(lambda how: _estimator(entry, found, how))
    needed(f"model.estimator: {entry}")
    from millstream_trainer.adapters.torch_model import Torch

    return Torch(lambda how, inputs, outputs: _built(entry, found, how, inputs=inputs, outputs=outputs))


def _function(entry: str, project: Path | None) -> Any:
    module_name, _, name = entry.partition(":")
    if project is not None and str(project) not in sys.path:
        sys.path.insert(0, str(project))
    try:
        module = importlib.import_module(module_name)
    # A user's module may raise anything while it is imported.
    except Exception as error:
        where = f"; looked in {project} and in what is installed" if isinstance(error, ModuleNotFoundError) else ""
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            where = f"; {INSTALL}"
        raise RunFailed(
            f"model.estimator: {entry} cannot be imported ({type(error).__name__}: {str(error)[:300]}){where}"
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        has = ", ".join(n for n, f in vars(module).items() if inspect.isfunction(f) and f.__module__ == module_name)
        raise RunFailed(f"model.estimator: {module_name} has no function {name!r}; it has {has or 'none'}")
    return found


def _takes_sizes(build: Any) -> bool:
    try:
        return set(inspect.signature(build).parameters) >= SIZES
    except (TypeError, ValueError):
        return False  # a callable of C has no signature


def _estimator(entry: str, build: Any, how: How) -> Any:
    model = _built(entry, build, how)
    asked = "predict" if how.classes == 0 else "predict_proba"
    if not (hasattr(model, "fit") and hasattr(model, asked)):
        raise RunFailed(
            f"model.estimator: {entry} returned a {type(model).__name__} without fit and {asked}; return a scikit-learn "
            "estimator, or take (task, params, seed, inputs, outputs) and return a PyTorch module"
        )
    assert isinstance(how.params, OwnParams)
    if how.params.fit is not None:
        raise RunFailed(
            f"model.params.fit: {entry} returned a {type(model).__name__}, which fits itself; fit is of PyTorch modules, "
            "remove it"
        )
    return model


def _built(entry: str, build: Any, how: How, **sizes: int) -> Any:
    assert isinstance(how.params, OwnParams)
    names = "".join(f", {name}" for name in sizes)
    try:
        return build(str(how.task), how.params.given(), how.seed, **sizes)
    except Exception as error:  # as above
        given = "".join(f", {name}={size}" for name, size in sizes.items())
        raise RunFailed(
            f"model.estimator: {entry}({str(how.task)!r}, {how.params.given()}, {how.seed}{given}) raised "
            f"{type(error).__name__}: {str(error)[:300]}; it is called as build(task, params, seed{names})"
        ) from error
