"""Earlier schemas of a stream: files beside its own, flights-departed.v1.json, .v2.json, …, while anybody may have such events.

In the stream's own format: a JSON Schema, an .avsc, or a .proto with the same message. The newest is the stream's file itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from millstream.compatibility.change import Break, breaks
from millstream.contracts.json_text import read_json
from millstream.errors import Refusal
from millstream.project.problem import BadProject, Problem
from millstream.project.reading import read_model
from millstream.project.schema_file import LARGEST
from millstream.project.source import Source
from millstream.project.stream import UNREAD_STREAM, Stream

ENDS = {"json": ".json", "avro": ".avsc", "protobuf": ".proto"}


@dataclass(frozen=True, kw_only=True)
class Versions:
    """A stream and what it was."""

    stream: Stream
    kept: Mapping[int, Stream]
    """By version, from 1, ascending; in each only the schema is another."""

    @property
    def newest(self) -> int:
        """Number of the stream's own schema: that of the last one kept, while it is the same."""
        if not self.kept:
            return 1
        last = max(self.kept)
        return last if self.kept[last].event_schema == self.stream.event_schema else last + 1

    def get(self, version: int) -> Stream | None:
        return self.stream if version == self.newest else self.kept.get(version)

    def breaks(self) -> Iterator[tuple[int, Break]]:
        """What the stream's schema breaks of those before it, with the version."""
        for version, old in self.kept.items():
            yield from ((version, one) for one in breaks(old, self.stream))


def versions_of(project: Path, streams: Mapping[str, Stream]) -> dict[str, Versions]:
    """Of every stream, by name. Raises BadProject for kept files that cannot be read."""
    problems: list[Problem] = []
    found = {name: _versions(project / "streams", stream, problems) for name, stream in streams.items()}
    if problems:
        raise BadProject(problems)
    return found


def keep(project: Path, stream: Stream) -> Path | None:
    """Write the stream's schema down as its next version; None where the last one kept is the same. Raises BadProject."""
    there = versions_of(project, {stream.name: stream})[stream.name]
    if there.newest in there.kept:
        return None
    file = project / "streams" / f"{stream.name}.v{there.newest}{ENDS[stream.format]}"
    text = json.dumps(stream.event_schema, indent=2) + "\n" if stream.wire is None else stream.wire.text
    file.write_text(text)
    return file


def as_was(stream: Stream, schema: Mapping[str, Any], folder: Path) -> tuple[Stream | None, list[Problem]]:
    """`stream` with another schema, as its file would say it; files it names lie in `folder`."""
    said = stream.model_dump(
        mode="json", by_alias=True, include={"stream", "description", "key", "id", "time", "format"}
    )
    said = {name: value for name, value in said.items() if value is not None} | {"schema": dict(schema)}
    reading = read_model(Source(file="", data=said, lines={}, unread=frozenset()), Stream, UNREAD_STREAM, folder)
    return (None if reading.problems else reading.item), reading.problems


def _versions(folder: Path, stream: Stream, problems: list[Problem]) -> Versions:
    end = ENDS[stream.format]
    name = re.compile(rf"{re.escape(stream.name)}\.v([1-9][0-9]{{0,4}}){re.escape(end)}")
    files = {
        int(m[1]): file for file in (folder.iterdir() if folder.is_dir() else ()) if (m := name.fullmatch(file.name))
    }
    kept = {}
    for version in sorted(files):
        file = files[version]
        try:
            schema = _schema(file) if end == ".json" else {"file": file.name}
            if (message := getattr(stream.wire, "message", None)) is not None:
                schema |= {"message": message}
            old, wrong = as_was(stream, schema, folder)
            said = [f"{one.path}: {one.message}; {one.remedy}" for one in wrong]
        except (OSError, ValueError, Refusal, ValidationError) as error:
            old, said = None, [str(error)]
        where = f"streams/{file.name}"
        remedy = "keep it as it was, or remove it when nobody has such events any more"
        problems += [Problem(file=where, line=None, path="", message=one, remedy=remedy) for one in said]
        if old is not None:
            kept[version] = old
    return Versions(stream=stream, kept=kept)


def _schema(file: Path) -> dict[str, Any]:
    if file.stat().st_size > LARGEST:
        raise ValueError("is larger than 256 KiB")
    found = read_json(file.read_bytes())
    if not isinstance(found, dict):
        raise ValueError("is no JSON Schema")
    return found
