"""Packages that only the embedded servers need, imported when first asked for."""

import importlib
from types import ModuleType

from millstream.testing.errors import ToolMissing


def need(module: str) -> ModuleType:
    """Import `module`. Raises ToolMissing, naming the extra to install, where it is absent."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as missing:
        raise ToolMissing(
            f"the embedded servers need the package {missing.name!r}: pip install 'millstream-core[testing]'"
        ) from missing
