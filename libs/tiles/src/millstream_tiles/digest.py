"""A hash of what a view means: a model is pinned to the definitions that it was trained on."""

from __future__ import annotations

import hashlib

import msgspec

from millstream_tiles.definition import View


def digest(view: View) -> str:
    """sha256 of the definition. Whatever changes a value (keys, windows, lateness, the stream) changes it.

    Trainer writes it into the manifest as `views[name]`, serving compares it with the view that it reads.
    """
    return hashlib.sha256(msgspec.json.encode(view, order="sorted")).hexdigest()
