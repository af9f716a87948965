"""How many dead letters there are, and of how many of them that is said."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from millstream.contracts.dead_letters import Tally


class TopicCount(msgspec.Struct, frozen=True, kw_only=True):
    """One dead-letter topic."""

    dead_letter_topic: str
    topic: str
    group: str
    retained: int
    """Records that Kafka has, among them the marks of replays."""
    looked_at: int
    """The newest so many of them are counted."""
    letters: tuple[Tally, ...]


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """All of them."""

    at: str
    complete: bool
    """Whether everything that Kafka keeps was looked at; else the newest of each topic were."""
    waiting: int
    """Letters that were not replayed."""
    topics: tuple[TopicCount, ...]

    @classmethod
    def of(cls, topics: Sequence[TopicCount], at: str) -> Counted:
        return cls(
            at=at,
            complete=all(one.looked_at == one.retained for one in topics),
            waiting=sum(tally.letters - tally.replayed for one in topics for tally in one.letters),
            topics=tuple(topics),
        )
