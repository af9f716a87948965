"""HTTP doorways of serving: the loops, asked by event, and the Open Inference Protocol, asked with features given."""

from __future__ import annotations

from millstream_serving.api.gate import Gate
from millstream_serving.api.inference import InferenceDoorway
from millstream_serving.api.loops import ERRORS, Doorway
from millstream_serving.api.raw import MOST_HELD

__all__ = ["ERRORS", "MOST_HELD", "Doorway", "Gate", "InferenceDoorway"]
