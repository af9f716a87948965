"""Whether a module that a loop names is there, told without running a line of it."""

from __future__ import annotations

import importlib
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from millstream.project.loop import Loop
from millstream.project.params import BUILT_IN
from millstream.project.problem import Fault, nearest


def estimator_faults(loop: Loop, project: Path) -> list[Fault]:
    """An estimator of the user's own whose module is neither in the folder `project` nor installed here."""
    module = loop.model.estimator.partition(":")[0]
    if loop.model.estimator in BUILT_IN or _is_there(module, project):
        return []
    file = f"{module.replace('.', '/')}.py"
    mine = [path.stem for path in project.glob("*.py") if path.stem != "recording"]
    message = f"no module {module!r}: no {file} in {project}, and nothing of that name is installed here"
    remedy = (
        f"write {file} there, or install it; {nearest(module, mine)}" if mine else f"write {file} there, or install it"
    )
    return [Fault(path=("model", "estimator"), message=message, remedy=remedy)]


def _is_there(module: str, project: Path) -> bool:
    """Looks in the project's folder first, as a training process does. Importing a parent package would run its code."""
    importlib.invalidate_caches()
    top, *inner = module.split(".")
    try:
        spec = PathFinder.find_spec(top, [str(project)]) or find_spec(top)
    except ValueError:  # of a name like __main__, which is no file
        return False
    for part in inner:
        if spec is None or spec.submodule_search_locations is None:
            return False
        spec = PathFinder.find_spec(f"{spec.name}.{part}", spec.submodule_search_locations)
    return spec is not None
