"""Whether a project's streams, as they are declared now, still fit what a lake has kept of them."""

from __future__ import annotations

from pathlib import Path

from millstream.project import Problem
from millstream.project.load import streams_that_read
from millstream_cli.errors import CommandFailed
from millstream_cli.schema_changes import sources_of
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake
from millstream_tiles.lake_schema import Clash, table_schema


def lake_problems(path: Path, uri: str) -> list[Problem]:
    """Each field whose type changed, where it is declared, whatever else is wrong with the project in folder `path`.

    Raises CommandFailed for a lake that cannot be read.
    """
    problems: list[Problem] = []
    try:
        lake = Lake(uri)
        streams = streams_that_read(path)
        for source in sources_of(path, streams) if streams else ():
            stream = streams[source.data["stream"]]
            for clash in lake.clashes(stream.name, table_schema(stream.event_schema)):
                problems.append(source.problem(("schema", "properties", clash.field), clash.problem, Clash.REMEDY))
    except TilesError as error:
        raise CommandFailed(str(error)) from error
    return problems
