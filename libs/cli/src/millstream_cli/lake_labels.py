"""Whether a loop can ever learn from what a lake holds: questions without a label of either kind are worth a word."""

from __future__ import annotations

from millstream.contracts.topics import LABELS
from millstream.project import Loop, Project
from millstream_cli.errors import CommandFailed
from millstream_tiles.errors import TilesError
from millstream_tiles.lake import Lake
from millstream_tiles.lake_reader import count, read_events


def label_notes(project: Project, uri: str) -> list[str]:
    """A sentence for each loop that was asked and told nothing. Raises CommandFailed for a lake that cannot be read."""
    try:
        lake = Lake(uri)
        told = set(read_events(lake, LABELS.name, ["loop"])["loop"])
        silent = [loop for loop in project.loops.values() if loop.name not in told and _waits(lake, loop)]
    except TilesError as error:
        raise CommandFailed(str(error)) from error
    return [
        f"loops/{loop.name}: label: the lake has questions of {loop.predict.on} and no label, neither from {loop.label.stream} "
        f"nor by prediction id (POST /v1/loops/{loop.name}/labels of ingest); without one of them no model is trained"
        for loop in silent
    ]


def _waits(lake: Lake, loop: Loop) -> bool:
    return count(lake, loop.predict.on) > 0 and count(lake, loop.label.stream) == 0
