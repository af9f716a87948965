"""What features does: events into tiles and into the lake, and a sample of what was read from the one checked by the other."""

from __future__ import annotations

from millstream_features.handlers.lake import KeepInLake, TidyLake
from millstream_features.handlers.skew import CheckSkew
from millstream_features.handlers.tiles import ApplyToTiles, LookBack, parts_of

__all__ = ["ApplyToTiles", "CheckSkew", "KeepInLake", "LookBack", "TidyLake", "parts_of"]
