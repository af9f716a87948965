"""`millstream skew LOOP`: logged features beside the offline ones and a recount, and the events that explain a difference."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from millstream.contracts.events import PredictionServed
from millstream.contracts.times import from_datetime, to_rfc3339
from millstream.project import Loop, Project
from millstream.runtime.topic_bounds import TopicBounds
from millstream_cli.errors import CommandFailed
from millstream_cli.lost_events import lost_events
from millstream_cli.names import no_such
from millstream_cli.place import Place
from millstream_cli.served import sample_served
from millstream_tiles.recount import Event

if TYPE_CHECKING:
    from millstream_tiles.explain import Explained, Tile
    from millstream_tiles.skew import Checked, Difference, Number
    from millstream_tiles.why import Explanation

LAKE_GROUP = "features-lake"
"""Consumer group that fills the lake."""
LAKE_PATIENCE = 30.0
"""Seconds for the lake to get what the streams have now: three times what it waits before it appends."""
AT_ONCE = 500
"""Predictions computed together, so that there is progress to show."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One difference with what is known of it."""

    difference: Difference
    explained: Explained
    explanation: Explanation
    lost: tuple[Event, ...]
    """Events of the key in the topic that the lake does not have."""
    alike: int
    """Predictions of the sample in which this feature of this key differs; this is the one where it differs most."""

    @property
    def recounted(self) -> Number:
        """What the recount says in the place of the difference."""
        from millstream_tiles.skew import place

        return place(self.explained.recounted, self.difference.logs.place)

    @property
    def tiles(self) -> list[Tile]:
        """Tiles of the window in which the online store has something else than it should have by now.

        It drops a tile as a whole, when no question should need it any more: one that is there must be right.
        """
        return [t for t in self.explained.tiles if t.differs and (self.explained.held or t.online not in (None, 0))]


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of a sample."""

    loop: Loop
    checked: list[Checked]
    differences: list[Difference]
    """Of all of them, the largest first."""
    rows: list[Row]
    warning: str | None

    @property
    def differing(self) -> int:
        return sum(bool(one.differences) for one in self.checked)

    @property
    def over(self) -> bool:
        """Whether more differ than the loop allows."""
        return self.differing > self.loop.drift.skew.bound * len(self.checked)


async def skew(
    project: Project,
    place: Place,
    name: str,
    *,
    rows: int,
    sample: int,
    since: int | None,
    console: Console,
    as_json: bool,
) -> bool:
    """Print the comparison; whether the loop's bound is kept. Raises CommandFailed, TilesError."""
    from millstream_cli.skew_view import report, show

    if name not in project.loops:
        raise CommandFailed(no_such("loop", name, project.loops))
    loop = project.loops[name]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("reading predictions", total=None)
        served = await sample_served(
            place.kafka, name, size=sample, since=since, seen=lambda n: progress.advance(task, n)
        )
        found = await _examine(project, place, loop, served, rows, progress)
    if as_json:
        print(json.dumps(report(found), indent=2))
    else:
        show(found, console)
    return not found.over


async def _examine(
    project: Project, place: Place, loop: Loop, served: Sequence[PredictionServed], rows: int, progress: Progress
) -> Found:
    """Compute the sample again, and look for the causes of the `rows` largest differences."""
    from millstream_tiles.lake import Lake
    from millstream_tiles.registry import open_store
    from millstream_tiles.service_views import service_views
    from millstream_tiles.skew import Logged, check_reads

    task = progress.add_task("reading the definitions", total=None)
    # Importing Feast takes seconds, and a thread lets Ctrl-C through.
    store = await asyncio.to_thread(open_store, project.features_path)
    views = service_views(store, loop.predict.features)
    lake = Lake(place.lake)
    streams = sorted({one.view.stream for one in views})
    progress.update(task, description="waiting for the lake")
    warning = await _lake_is_behind(place, lake, streams)
    reads = [
        Logged(
            id=one.id,
            question=one.question,
            asked_at=from_datetime(one.asked_at),
            entities=one.entities,
            features=one.features,
        )
        for one in served
    ]
    progress.update(task, description="computing features again", total=len(reads), completed=0)
    checked: list[Checked] = []
    for first in range(0, len(reads), AT_ONCE):
        part = reads[first : first + AT_ONCE]
        checked += await asyncio.to_thread(check_reads, lake, views, part, tolerance=loop.drift.skew.tolerance)
        progress.advance(task, len(part))
    differences = sorted(
        (d for one in checked for d in one.differences), key=lambda d: (-d.apart, d.logged.asked_at, d.feature)
    )
    # A wrong tile is in many windows: a row for each feature and key says more than the same one ten times.
    alike: dict[tuple[str, tuple[Any, ...]], list[Difference]] = {}
    for difference in differences:
        alike.setdefault((difference.feature, difference.key), []).append(difference)
    worst = list(alike.values())[:rows]
    progress.update(task, description="looking for causes", total=len(worst), completed=0)
    explained = []
    for found in worst:
        explained.append(await _row(project, place, lake, found[0], len(found)))
        progress.advance(task)
    return Found(loop=loop, checked=checked, differences=differences, rows=explained, warning=warning)


async def _lake_is_behind(place: Place, lake: Any, streams: list[str]) -> str | None:
    """What to know about a lake that does not get on; else differences would be its lag and nothing more."""
    from millstream_tiles.errors import LakeBehind

    bounds = TopicBounds(place.kafka)
    try:
        ends = {p: after - 1 for p, (_, after) in (await bounds.of(streams)).items() if after > 0}
    finally:
        await bounds.close()
    try:
        for stream in streams:
            wanted = {p: end for (name, p), end in ends.items() if name == stream}
            await asyncio.to_thread(lake.wait_for, stream, LAKE_GROUP, wanted, timeout=LAKE_PATIENCE)
    except LakeBehind as error:
        return str(error)
    return None


async def _row(project: Project, place: Place, lake: Any, difference: Difference, alike: int) -> Row:
    from millstream_tiles.explain import explain_view, reading, span_of
    from millstream_tiles.key_events import key_events, marked, of_key
    from millstream_tiles.lake_gaps import missing_offsets
    from millstream_tiles.reader import WindowReader
    from millstream_tiles.why import explain_value

    view, t = difference.view.view, difference.logged.asked_at
    aggregate = difference.logs.aggregate
    key = difference.key
    start, end = span_of(aggregate, t)
    holes = await asyncio.to_thread(missing_offsets, lake, view.stream, since=start, until=end)
    lost = [e for e in await lost_events(place.kafka, project.streams[view.stream], holes) if of_key(view, e, key)]
    lost = [e for e in lost if start <= e.event_time < end]
    views = {view.name: view}
    reader = WindowReader(place.valkey, place.namespace, views)
    try:
        [explained] = await asyncio.to_thread(
            explain_view,
            view,
            key,
            t,
            lake=lake,
            online=reading(reader, views),
            features=[aggregate.name],
            extra=lost,
        )
    finally:
        reader.close()
    events = await asyncio.to_thread(key_events, lake, view, key, since=start, until=end)
    fates = marked(view, [*events, *lost], key, t)
    explanation = await asyncio.to_thread(explain_value, view, difference.logs, fates, key, t, difference.online)
    return Row(difference=difference, explained=explained, explanation=explanation, lost=tuple(lost), alike=alike)


def told(event: Event, id_field: str | None) -> dict[str, Any]:
    """An event as a person finds it again."""
    return {
        "id": event.columns.get(id_field) if id_field else None,
        "time": to_rfc3339(event.event_time),
        "known_at": to_rfc3339(event.known_at),
        "partition": event.partition,
        "offset": event.offset,
    }
