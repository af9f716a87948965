"""`millstream features explain`: one view, one key, one time, taken apart for a person."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from millstream.project import Project
from millstream_cli.errors import CommandFailed
from millstream_cli.names import no_such
from millstream_cli.place import Place

if TYPE_CHECKING:
    from millstream_tiles.definition import View
    from millstream_tiles.lake import Lake
    from millstream_tiles.reader import WindowReader


def explain(
    project: Project,
    place: Place,
    name: str,
    keys: Sequence[str],
    *,
    at: int | None,
    feature: str | None,
    everything: bool,
    console: Console,
    as_json: bool,
) -> None:
    """Print it. `at` is microseconds; None: the newest that the online store knows of the view's stream.

    Raises CommandFailed, TilesError.
    """
    from millstream_cli.explain_view import report, show
    from millstream_tiles.explain import explain_view, reading, traces_of
    from millstream_tiles.lake import Lake
    from millstream_tiles.reader import WindowReader

    view = _view(project.features_path, name)
    key = key_of(view, keys)
    if feature is not None and feature not in [a.name for a in view.aggregates]:
        raise CommandFailed(no_such(f"feature of {name}", feature, [a.name for a in view.aggregates]))
    views, lake = {view.name: view}, Lake(place.lake)
    reader = WindowReader(place.valkey, place.namespace, views)
    try:
        t = at if at is not None else _newest(reader, view)
        online = reading(reader, views)
        found = explain_view(view, key, t, lake=lake, online=online, features=None if feature is None else [feature])
        quiet = not any(tile.events for one in found for tile in one.tiles)
        traces = traces_of(view, key, lake=lake, online=online) if quiet else None
    finally:
        reader.close()
    if traces is not None and not (traces.lake or traces.online):
        _say_what_is_there(view, key, lake)
    if as_json:
        print(json.dumps(report(found, traces), indent=2))
    else:
        show(found, console, everything=everything, traces=traces)


def key_of(view: View, given: Sequence[str]) -> list[str]:
    """The key of `view` as `origin=JFK carrier=B6`, or the values alone in the view's order. Raises CommandFailed.

    A value that itself looks like `name=…` is written with its key before it.
    """
    wanted = " ".join(f"{name}=VALUE" for name in view.keys)
    named = dict(one.split("=", 1) for one in given if one.partition("=")[0] in view.keys and "=" in one)
    if named and len(named) == len(given) == len(view.keys):
        return [named[name] for name in view.keys]
    foreign = [name for name, equals, _ in (one.partition("=") for one in given) if equals and name.isidentifier()]
    if foreign := [name for name in foreign if name not in view.keys]:
        raise CommandFailed(f"view {view.name} is keyed by {', '.join(view.keys)}, not by {foreign[0]}; write {wanted}")
    if named or len(given) != len(view.keys):
        raise CommandFailed(
            f"view {view.name} is keyed by {', '.join(view.keys)}, got {' '.join(given) or 'nothing'}; write {wanted}"
        )
    return list(given)


def _view(repo: Path, name: str) -> View:
    from millstream_tiles.registry import describe

    catalogue = describe(repo)
    if name in catalogue.views:
        return catalogue.views[name]
    if name in catalogue.ordinary_views:
        raise CommandFailed(f"view {name} has no aggregations: it is a row that Feast stores, and has no tiles")
    raise CommandFailed(no_such("windowed view", name, catalogue.views))


def _newest(reader: WindowReader, view: View) -> int:
    """A replayed mill lives in another year than we do."""
    return max(reader.stream_times().get(view.stream, {}).values(), default=0) or time.time_ns() // 1000


def _say_what_is_there(view: View, key: Sequence[str], lake: Lake) -> None:
    """Nothing at all is often a key that was typed wrong. Raises CommandFailed with keys that are there."""
    from millstream_tiles.key_events import keys_of
    from millstream_tiles.keys import entity_text

    if there := keys_of(lake, view):
        raise CommandFailed(
            f"{no_such(f'{view.name} of', entity_text(key) or '', there)} (keys with events in the lake)"
        )
