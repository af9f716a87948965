"""What the streams of a project break of what they were: of versions kept beside them, and of the project elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from millstream.compatibility.change import Break, breaks
from millstream.project import BadProject, Problem, Project, Stream
from millstream.project.source import Source, read_source
from millstream.project.versions import versions_of
from millstream_cli.against import streams_at


def change_problems(project: Project, against: str | None) -> list[Problem]:
    """Each field that a change breaks, where it is declared. Raises CommandFailed for an `against` that cannot be read."""
    sources = {str(source.data["stream"]): source for source in sources_of(project.path, project.streams)}
    problems = []
    try:
        for name, versions in versions_of(project.path, project.streams).items():
            problems += [_problem(sources[name], one, f"version {version}") for version, one in versions.breaks()]
    except BadProject as error:
        problems += error.problems
    if against is None:
        return problems
    before = streams_at(against, project.path)
    for name, old in sorted(before.items()):
        new = project.streams.get(name)
        if new is not None:
            problems += [_problem(sources[name], one, against) for one in breaks(old, new)]
        elif old.compatibility != "none":
            message = f"{name} is gone, which {against} has: its producers would be answered 404"
            remedy = "keep the stream, or say compatibility: none there before it goes"
            problems.append(Problem(file="streams", line=None, path="", message=message, remedy=remedy))
    return problems


def sources_of(path: Path, streams: Mapping[str, Stream]) -> Iterator[Source]:
    """The file of each of `streams`. They were read a moment ago: what is no stream's is none of ours."""
    for file in sorted((path / "streams").iterdir()):
        if file.suffix in (".yaml", ".yml"):
            source, _ = read_source(path, file)
            if source is not None and source.data.get("stream") in streams:
                yield source


def _problem(source: Source, one: Break, against: str) -> Problem:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in one.pointer.split("/")[1:]]
    path: tuple[str | int, ...] = ("schema",)
    if source.data.get("format", "json") == "json":
        for step in steps:
            path = (*path, "items") if step == "0" else (*path, "properties", step)
    return source.problem(path, f"against {against}: {one.where}", one.remedy)
