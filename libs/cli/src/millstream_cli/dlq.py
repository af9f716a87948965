"""Looks at dead letters: which there are, which were replayed, and what would be lost with them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from millstream.contracts.dead_letters import DeadLetter, Tallies, Tally
from millstream.contracts.times import to_rfc3339
from millstream.runtime.dead_letter_log import DeadLetterLog, Tick
from millstream_cli.errors import CommandFailed


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which letters are meant; what is left out holds for all."""

    reasons: frozenset[str] = frozenset()
    group: str | None = None
    since: int | None = None
    """When it became a dead letter, microseconds; from here on."""
    until: int | None = None
    """Before this."""

    def takes(self, letter: DeadLetter) -> bool:
        return (
            (not self.reasons or letter.reason in self.reasons)
            and (self.group is None or letter.group == self.group)
            and (self.since is None or letter.buried_at >= self.since)
            and (self.until is None or letter.buried_at < self.until)
        )


async def chosen(log: DeadLetterLog, name: str | None, wanted: Wanted) -> list[str]:
    """Dead-letter topics of the topic `name`, or the one of that name; all without a name. Raises CommandFailed."""
    there = await log.topics()
    found = [
        dlq for dlq, (topic, group) in there.items() if name in (None, topic, dlq) and wanted.group in (None, group)
    ]
    if name is not None and not found:
        of = f" of group {wanted.group}" if wanted.group is not None else ""
        known = ", ".join(sorted({topic for topic, _ in there.values()})) or "none at all"
        raise CommandFailed(f"no dead-letter topic for {name}{of}; there are some for: {known}")
    return found


async def tally(log: DeadLetterLog, topics: Sequence[str], wanted: Wanted, tick: Tick) -> list[Tally]:
    """By topic, group and reason, the newest last."""
    found = Tallies()
    for topic in topics:
        span = await log.span(topic)
        done = await log.replayed(topic, span, tick)
        async for letter in log.letters(topic, span, tick):
            if wanted.takes(letter):
                found.add(letter, replayed=letter.offset in done[letter.partition])
    return found.all()


async def size(log: DeadLetterLog, topics: Sequence[str]) -> int:
    """Records to read, for a progress bar: each topic is gone through twice, for its marks and for its letters."""
    return 2 * sum([after - first for t in topics for first, after in (await log.span(t)).values()])


def shown(letter: DeadLetter, *, was_replayed: bool) -> dict[str, Any]:
    """One letter, for scripts. What is no UTF-8 is shown with replacement characters."""
    value = letter.value.decode("utf-8", "replace")
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = msgspec.json.decode(letter.value)
    return {
        "at": to_rfc3339(letter.buried_at),
        "topic": letter.topic,
        "group": letter.group,
        "reason": letter.reason,
        "detail": letter.detail,
        "id": letter.id,
        "producer": letter.producer,
        "source": f"{letter.source_partition}:{letter.source_offset}",
        "letter": f"{letter.partition}:{letter.offset}",
        "replayed": was_replayed,
        "cut": letter.cut,
        "key": None if letter.key is None else letter.key.decode("utf-8", "replace"),
        "headers": {name: raw.decode("utf-8", "replace") for name, raw in letter.headers},
        "value": value,
    }
