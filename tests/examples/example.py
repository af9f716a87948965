"""An example as its tests see it: its project, its recording, and a run of the trainer on what a lake holds of it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from millstream.contracts.events import Cause
from millstream.contracts.times import from_datetime, from_rfc3339
from millstream.project import Project, load_project
from millstream.project.stream import Stream
from millstream.runtime.packages import PackageStore
from millstream_cli.recording import load_recording
from millstream_tiles.lake import Lake, LakeBatch
from millstream_tiles.lake_schema import events_table, table_schema
from millstream_trainer.adapters.feast_history import FeastHistory
from millstream_trainer.adapters.phases import Phases
from millstream_trainer.adapters.run import train
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import RunResult, RunSpec

EXAMPLES = Path(__file__).parents[2] / "examples"


class Example:
    """One of the projects in `examples/`."""

    def __init__(self, name: str) -> None:
        self.project: Project = load_project(EXAMPLES / name)
        self.recording = load_recording(self.project)

    def known_by(self, until: datetime, since: datetime = datetime(1970, 1, 1, tzinfo=UTC)) -> dict[str, pl.DataFrame]:
        span = pl.col("known_at").is_between(from_datetime(since), from_datetime(until), closed="left")
        return {name: events.filter(span) for name, events in self.recording.events.items()}

    def trained(
        self, folder: Path, *, until: datetime, since: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    ) -> RunResult:
        """What a run at `until` makes of the events since `since`; `folder` gets the lake and the package."""
        [loop] = self.project.loops.values()
        lake = Lake(str(folder / "lake"))
        positions = {}
        for name, events in self.known_by(until, since).items():
            lake.append(name, [_batch(self.project.streams[name], events)], group="features-lake")
            positions[name] = {0: len(events) - 1}
        place = Workplace(
            project=str(self.project.path),
            lake=str(folder / "lake"),
            packages=str(folder / "packages"),
            mlflow=None,
            data=str(folder / "data"),
            threads=2,
            lake_patience=1.0,
            mlflow_patience=1.0,
        )
        spec = RunSpec(
            loop=loop.name,
            run="r1",
            attempt=1,
            version="1",
            at=until,
            cause=Cause.FIRST_MODEL,
            request="labels",
            positions=positions,
            champion=None,
        )
        return train(
            spec,
            loop,
            history=FeastHistory(project=self.project, place=place),
            tracking=Tracking(),
            packages=PackageStore(place.packages),
            threads=place.threads,
            phases=Phases(),
        )


def _batch(stream: Stream, events: pl.DataFrame) -> LakeBatch:
    assert stream.id is not None
    rows = events_table(
        table_schema(stream.event_schema),
        partition=0,
        offsets=range(len(events)),
        event_times=[from_rfc3339(text) for text in events[stream.time]],
        known_at=events["known_at"].to_list(),
        ids=events[stream.id].to_list(),
        events=events.drop("known_at").to_dicts(),
    )
    return LakeBatch(partition=0, end=len(events) - 1, rows=rows)
