"""What a handler is and may raise, how patient its subscriber is with it, and how much it is given at once."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from millstream.runtime.confirming import Confirming
from millstream.runtime.records import Batch, Rejected


class Rewind(Exception):
    """The store behind the handler is at an earlier offset than Kafka thinks: read again from `offset`."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"read again from offset {offset}")
        self.offset = offset


class Hold(Exception):
    """Nothing of this partition can be handled until a person has changed something: it is read no further, others are.

    Nothing is committed past it, so Kafka keeps what waits, and a new assignment (a restart, say) tries again.
    """


Handler = Callable[[Batch], Awaitable[Sequence[Rejected] | Confirming | None]]
"""Handles one batch; returns what it could not use, or what is still on its way. Must be harmless when called twice with the
same records.
Raises RetryLater (the batch is tried again), Rewind, Hold, or anything else (the process stops, loudly)."""

Assigned = Callable[[Sequence[tuple[str, int]]], Awaitable[dict[tuple[str, int], int]]]
"""Called before the first record of new partitions; returns the offsets to start from where they differ from Kafka's."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """How patient a subscriber is with a dependency that is away. Delays double, with jitter, up to `ceiling`."""

    first: float = 0.05
    ceiling: float = 5.0
    patience: float = 30.0
    """Seconds after which the batch is given back and read again, so that polling (and with it membership) goes on."""

    def delay(self, attempt: int) -> float:
        full = min(self.ceiling, self.first * 2.0 ** min(attempt, 20))
        return full * random.uniform(0.5, 1.0)


PATIENT = Retry()


@dataclass(frozen=True, kw_only=True)
class Gulp:
    """How much a poll waits for. Larger gulps are fewer polls and commits, and later by up to `wait_ms`."""

    min_bytes: int = 1
    wait_ms: int = 100
    """A long poll that is under way delays other partitions of the same consumer: keep it short."""
    most_bytes: int = 1024 * 1024
    """Of one partition, fetched at once and held in memory; a larger record comes alone."""


AT_ONCE = Gulp()
