"""Whether a project's streams, as they are declared now, still fit what a lake has kept of them."""

from __future__ import annotations

from collections.abc import Iterator

from millstream.project import Problem, Project
from millstream.project.source import Source, read_source
from millstream_cli.errors import CommandFailed
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake
from millstream_tiles.lake_schema import Clash, table_schema


def lake_problems(project: Project, uri: str) -> list[Problem]:
    """Each field whose type changed, where it is declared. Raises CommandFailed for a lake that cannot be read."""
    problems = []
    try:
        lake = Lake(uri)
        for source in _sources(project):
            stream = project.streams[source.data["stream"]]
            for clash in lake.clashes(stream.name, table_schema(stream.event_schema)):
                problems.append(source.problem(("schema", "properties", clash.field), clash.problem, Clash.REMEDY))
    except TilesError as error:
        raise CommandFailed(str(error)) from error
    return problems


def _sources(project: Project) -> Iterator[Source]:
    """The file of each stream. They were read a moment ago: what is no stream's is none of ours."""
    for file in sorted((project.path / "streams").iterdir()):
        if file.suffix in (".yaml", ".yml"):
            source, _ = read_source(project.path, file)
            if source is not None and source.data.get("stream") in project.streams:
                yield source
