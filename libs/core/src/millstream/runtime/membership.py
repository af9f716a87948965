"""A consumer's place in its group, where the client library would lose it without a word."""

from __future__ import annotations

from typing import Any


def check(consumer: Any) -> None:
    """Raises what ended the client's fetching, if anything has: the client itself tells nobody, keeps its place in the group,
    and hands nothing out any more."""
    fetching = consumer._fetcher._fetch_task
    if fetching.done():
        fetching.result()


def keep(consumer: Any) -> bool:
    """After a poll that raised: whether another may do better. The client leaves two things to whoever polls.

    Heartbeats that ended with an answer which it does not know are not begun again, while it goes on to raise that error and
    hands nothing out: joining again begins them. Nothing begins its coordination with the group, or its fetching, again where
    that has ended by an error of its own: every poll to come raises it.
    """
    coordinator = consumer._coordinator
    if coordinator._coordination_task.done() or consumer._fetcher._fetch_task.done():
        return bool(coordinator._closing.done())
    beating = coordinator._heartbeat_task
    if beating is not None and beating.done():
        coordinator.request_rejoin()
    return True
