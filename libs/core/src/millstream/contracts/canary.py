"""Who sees the challenger: a function of loop, run and entity alone, so that every replica and every transport agrees."""

from __future__ import annotations

import hashlib

_STEPS = 2**64


def place(loop: str, run: str, entity: str) -> float:
    """Where `entity` stands among all, from 0 to below 1; evenly spread, and another order for each run."""
    text = "\0".join((loop, run, entity)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / _STEPS


def is_answered_by_challenger(loop: str, run: str, entity: str, share: float) -> bool:
    """Whether the challenger that `run` made answers `entity`. Whom a smaller share holds, a larger one holds too."""
    return place(loop, run, entity) < share
