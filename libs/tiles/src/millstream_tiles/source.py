"""The Feast source of a stream: what a user's Feast repo calls instead of spelling out a KafkaSource."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import FileSource, KafkaSource
from feast.data_format import JsonFormat
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from millstream_tiles.durations import parse_duration
from millstream_tiles.errors import BadSource
from millstream_tiles.join_events import ID

DEFAULT_LATENESS = timedelta(hours=1)
"""What a stream forgives when nobody says: most producers retry for minutes, not for hours."""

ID_TAG = "id"
"""The tag of a source that names the event-id column."""


def stream_source(
    path_or_name: str | Path, *, time: str | None = None, lateness: str | timedelta | None = None, id: str | None = None
) -> KafkaSource:
    """A KafkaSource named after the stream, for the `source=` of a StreamFeatureView.

    Given the path of a project's `streams/NAME.yaml` (relative paths: from the file that calls), it takes topic, event
    time, lateness and event id from there. Given a bare name, `time` must say which column is the event time. Keywords
    win over the file. Raises BadSource.

    The batch source names the lake's table and is never read through Feast.
    """
    text, path = str(path_or_name), None
    spec: dict[str, Any] = {"stream": text}
    where = f"stream_source({text!r})"
    if text.endswith((".yaml", ".yml")):
        caller = sys._getframe(1).f_globals.get("__file__")
        path = (Path(caller).parent if caller else Path.cwd()) / path_or_name
        spec, where = _load(path), text
    name = spec.get("stream")
    time_field = time or spec.get("time")
    if not isinstance(name, str) or not name:
        raise BadSource(f"{where}: no stream name; write 'stream: <topic>'", path)
    if not isinstance(time_field, str) or not time_field:
        raise BadSource(f"{where}: no event time; name its column with 'time: <column>' or time=<column>", path)
    try:
        delay = parse_duration(lateness if lateness is not None else spec.get("lateness", DEFAULT_LATENESS))
    except ValueError as error:
        raise BadSource(f"{where}: lateness: {error}", path) from error
    # The events of a project's stream have an id in any case: without a field of their own, that of their envelope.
    event_id = id or spec.get("id") or (ID if path else None)
    return KafkaSource(
        name=name,
        topic=name,
        timestamp_field=time_field,
        message_format=JsonFormat(schema_json=""),
        watermark_delay_threshold=delay,
        description=str(spec.get("description", "")),
        tags={ID_TAG: str(event_id)} if event_id else {},
        batch_source=FileSource(name=f"{name}-lake", path=f"lake/{name}", timestamp_field=time_field),
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        spec = YAML(typ="safe").load(path)
    except (OSError, YAMLError) as error:
        raise BadSource(f"{path}: cannot be read: {error}", path) from error
    if not isinstance(spec, dict):
        raise BadSource(f"{path}: is no mapping; it needs at least 'stream:' and 'time:'", path)
    return spec
