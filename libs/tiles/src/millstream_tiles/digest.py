"""A hash of what a view means: a model is pinned to the definitions that it was trained on."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import msgspec

from millstream_tiles.definition import View
from millstream_tiles.join_events import ID


@lru_cache(maxsize=4096)
def digest(view: View) -> str:
    """sha256 of the definition. Whatever changes a value (keys, windows, lateness, the stream) changes it.

    Trainer writes it into the manifest as `views[name]`, serving compares it with the view that it reads.
    """
    said = msgspec.to_builtins(view)
    # What came to the definition later and is not said leaves the digest of older views as it was.
    _drop(said, where=None)
    if said["event_id"] == ID:
        said["event_id"] = None  # such views counted every record once
    for aggregate in said["aggregates"]:
        _drop(aggregate, k=0)
    return hashlib.sha256(msgspec.json.encode(said, order="sorted")).hexdigest()


def _drop(said: dict[str, Any], **unsaid: object) -> None:
    for name, value in unsaid.items():
        if said[name] == value:
            del said[name]
