"""Whether a project's streams, as they are declared now, still fit what a lake has kept of them."""

from __future__ import annotations

from millstream.project import Problem, Project
from millstream_cli.errors import CommandFailed
from millstream_cli.schema_changes import sources_of
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake
from millstream_tiles.lake_schema import Clash, table_schema


def lake_problems(project: Project, uri: str) -> list[Problem]:
    """Each field whose type changed, where it is declared. Raises CommandFailed for a lake that cannot be read."""
    problems = []
    try:
        lake = Lake(uri)
        for source in sources_of(project):
            stream = project.streams[source.data["stream"]]
            for clash in lake.clashes(stream.name, table_schema(stream.event_schema)):
                problems.append(source.problem(("schema", "properties", clash.field), clash.problem, Clash.REMEDY))
    except TilesError as error:
        raise CommandFailed(str(error)) from error
    return problems
