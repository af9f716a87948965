"""What a replay did, counted from the topics, the lake and the stores; never from the sender's own counters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka import TopicPartition

from millstream.project import Project
from millstream_cli.errors import Stuck
from millstream_cli.loop_summary import Places, loop_figures
from millstream_cli.offsets import Offsets
from millstream_cli.predictions import read_predictions
from millstream_cli.recording import Recording
from millstream_cli.skew import LAKE_GROUP
from millstream_cli.story import Story
from millstream_cli.ticks import Ticks

SAME = 1e-9
"""Features further apart than the last digits of a sum are two numbers."""
KEPT_WITHIN = 120.0
"""Seconds for the lake to append what it has in hand: ten at most until it begins, and a machine may be busy."""


async def summarise(
    project: Project, recording: Recording, ticks: Ticks, story: Story, places: Places
) -> dict[str, Any]:
    """The figures of `out/demo.json` that come from topics, lake and stores: `docs/demo.md` has the keys.

    Raises Stuck: the lake does not get on.
    """
    offsets = Offsets(places.kafka)
    await offsets.start()
    try:
        ends = await offsets.ends(list(project.streams))
        in_topics = sum(ends.values())
        # No tick waits for the lake: what it has not written yet is not lost. Kafka takes for done what the lake has in hand.
        heard = await offsets.heard(LAKE_GROUP)
        wanted = {p: end for p, end in ends.items() if p.topic in heard}
        await offsets.reached(LAKE_GROUP, wanted)
        await asyncio.to_thread(_until_kept, wanted, places.lake)
        dead = await _dead_letters(offsets, project)
    finally:
        await offsets.stop()
    log = await read_predictions(places.kafka)
    lake, questions = _lake(project, ticks, places.lake)
    figures: dict[str, Any] = {
        "events_sent": ticks.events,
        "events_in_topics": in_topics,
        "events_in_lake": lake["rows"],
        "events_lost": lake["lost"],
        "duplicates": lake["duplicates"] + log.repeats,
        "dead_letters": dead,
    }
    loops = {
        name: loop_figures(
            project, loop, recording, ticks, log, story, places, questions=questions.get(loop.predict.on, 0)
        )
        for name, loop in project.loops.items()
    }
    return told_of(figures, loops) | {"timeline": story.timeline()}


def told_of(figures: Mapping[str, Any], loops: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All figures together. A loop that is alone has its own at the top too: nobody has to look up its name first."""
    alone = [{"loop": name} | dict(found) for name, found in loops.items()] if len(loops) == 1 else []
    return dict(figures) | (alone[0] if alone else {}) | {"loops": {name: dict(found) for name, found in loops.items()}}


def broken_promises(figures: Mapping[str, Any]) -> list[str]:
    """What must hold after every replay, whatever was sent, and does not: nothing where all is well."""
    lost = figures["events_lost"]
    found = [f"{lost:,} events are lost"] if lost else []
    several = len(figures["loops"]) > 1
    for name, one in figures["loops"].items():
        found += [f"{name}: {broken}" if several else broken for broken in _broken(one)]
    return found


def _broken(loop: Mapping[str, Any]) -> list[str]:
    answered = loop["predictions_effective"] + loop["unanswered_no_model"]
    found = {
        f"{loop['questions']:,} questions, {answered:,} of them answered": answered == loop["questions"],
        f"online and offline differ: {loop['skew_worst']}": loop["skew_max"] <= SAME,
        f"online and a recount differ: {loop['recount_worst']}": loop["recount_max"] <= SAME,
    }
    return [what for what, holds in found.items() if not holds]


async def _dead_letters(offsets: Offsets, project: Project) -> int:
    names = await offsets.topics()
    wanted = [name for name in names if name.endswith("-dlq")]
    return sum((await offsets.ends(wanted)).values()) if wanted else 0


def _until_kept(ends: Mapping[TopicPartition, int], lake: str) -> None:
    """Wait until the lake itself has all records before `ends`. Raises Stuck."""
    from millstream_tiles.errors import LakeBehind
    from millstream_tiles.lake import Lake

    tables = Lake(lake)
    try:
        for stream in {partition.topic for partition in ends}:
            last = {p.partition: end - 1 for p, end in ends.items() if p.topic == stream and end}
            tables.wait_for(stream, LAKE_GROUP, last, timeout=KEPT_WITHIN)
    except LakeBehind as error:
        raise Stuck(str(error)) from error


def _lake(project: Project, ticks: Ticks, lake: str) -> tuple[dict[str, int], dict[str, int]]:
    """Rows, ids that were sent and are not there, ids that are there twice; and the different events of each stream."""
    from millstream_tiles.lake import Lake
    from millstream_tiles.lake_reader import count, read_events

    rows = lost = duplicates = 0
    different: dict[str, int] = {}
    tables = Lake(lake)
    for name, stream in project.streams.items():
        sent = ticks.sent(name)
        if stream.id is None:  # nothing tells one event from another: they can only be counted
            there = count(tables, name)
            rows, lost = rows + there, lost + max(0, len(sent) - there)
            different[name] = there
            continue
        ids = read_events(tables, name, ["_id"])["_id"]
        rows += len(ids)
        unique = ids.unique()
        duplicates += len(ids) - len(unique)
        different[name] = len(unique)
        lost += len(sent) - int(sent[stream.id].is_in(unique.implode()).sum())
    return {"rows": rows, "lost": lost, "duplicates": duplicates}, different
