"""Windowed stream features for Feast: the same number online and offline.

Names are loaded when they are first used, so that `import millstream_tiles` does not import Feast (seconds).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream_tiles.as_of_time import as_of
    from millstream_tiles.definition import Aggregate, Function, View
    from millstream_tiles.events import EventBatch
    from millstream_tiles.feast_views import schema_of, view_of, views_of
    from millstream_tiles.feature_reader import FeatureReader
    from millstream_tiles.laptop import Laptop
    from millstream_tiles.memory_tiles import MemoryTileStore
    from millstream_tiles.reader import WindowReader
    from millstream_tiles.registry import Catalogue, describe, open_store
    from millstream_tiles.source import stream_source
    from millstream_tiles.tile_store import ValkeyTileStore
    from millstream_tiles.writer import TileWriter

_HOMES = {
    "Aggregate": "definition",
    "Catalogue": "registry",
    "EventBatch": "events",
    "FeatureReader": "feature_reader",
    "Function": "definition",
    "Laptop": "laptop",
    "MemoryTileStore": "memory_tiles",
    "TileWriter": "writer",
    "ValkeyTileStore": "tile_store",
    "View": "definition",
    "WindowReader": "reader",
    "as_of": "as_of_time",
    "describe": "registry",
    "open_store": "registry",
    "schema_of": "feast_views",
    "stream_source": "source",
    "view_of": "feast_views",
    "views_of": "feast_views",
}

__all__ = [
    "Aggregate",
    "Catalogue",
    "EventBatch",
    "FeatureReader",
    "Function",
    "Laptop",
    "MemoryTileStore",
    "TileWriter",
    "ValkeyTileStore",
    "View",
    "WindowReader",
    "as_of",
    "describe",
    "open_store",
    "schema_of",
    "stream_source",
    "view_of",
    "views_of",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"millstream_tiles.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'millstream_tiles' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
