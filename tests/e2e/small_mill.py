"""The five real processes on real servers, with a project small enough for a test: two weeks of flights, quick decisions."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from ruamel.yaml import YAML

from millstream.contracts.events import PredictionServed, decode_event
from millstream.contracts.times import HOUR, from_rfc3339
from millstream.project import Project, load_project
from millstream_cli.loop_summary import Places
from millstream_cli.mill import Mill, MillState
from millstream_cli.predictions import PredictionLog, every_record, read_predictions, type_of
from millstream_cli.recording import load_recording
from millstream_cli.replay import Addresses
from millstream_cli.running import Replayed, run_replay
from millstream_cli.summary import summarise
from millstream_cli.ticks import Tick, Ticks

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
SOON_GIVEN_UP = {"MILLSTREAM_SESSION_TIMEOUT_MS": "6000"}
"""The smallest that Kafka allows: a killed consumer's partitions move after six seconds."""
LATE_GIVEN_UP = {"MILLSTREAM_SESSION_TIMEOUT_MS": "30000"}
"""Where nobody is killed: on a machine that stands still for some seconds no partition moves, so nothing is handled twice."""


def small_project(folder: Path, *, partitions: int, **predict: str) -> Project:
    """The flights with a first model after 2,000 labels, windows of 2,000 (two days), and a retrain every four days; what the
    loop says of its answers, too."""
    shutil.copytree(FLIGHTS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    yaml = YAML()
    for file in (folder / "streams").glob("*.yaml"):
        stream = yaml.load(file)
        stream["partitions"] = partitions
        yaml.dump(stream, file)
    file = folder / "loops" / "flight-delay.yaml"
    loop = yaml.load(file)
    # The example's own settings are for a year of rows.
    loop["model"]["params"] = {"rounds": 30, "learning_rate": 0.1, "min_data_in_leaf": 200, "feature_fraction": 0.5}
    loop["train"] |= {"holdout": "1d", "schedule": "4d", "first_after": {"rows": 2000}, "refit": False}
    loop["drift"]["window"] = 2000
    loop["retrain"] |= {"cooldown": "2d", "budget": "9 per 30d"}
    # How long a model takes is wall time, and must not decide where two runs are to be the same.
    loop["predict"] |= predict
    loop["rollout"] |= {"guards": {"slower": 1000, "deadline": 60_000}}
    yaml.dump(loop, file)
    return load_project(folder)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one run left behind."""

    figures: dict[str, Any]
    log: PredictionLog
    replayed: Replayed
    output: str
    records: pl.DataFrame
    """Served answers as recorded: asked_at, version, other (the other model's), entity (by which the canary splits)."""

    def answers(self) -> pl.DataFrame:
        """Every effective answer: question, version, probability."""
        answers = self.log.frame("flight-delay").rename({"output.probability": "probability"})
        return answers.select("question", "asked_at", "version", "probability")

    def decisions(self) -> list[tuple[Any, ...]]:
        """Every decision and outcome, without what differs between machines (seconds, hosts)."""
        wanted = ("type", "id", "at", "decision", "cause", "run", "outcome", "version", "revision")
        rows = [tuple(row.get(name) for name in wanted) for row in self.replayed.story.timeline()]
        return sorted(rows, key=str)  # two topics that speak at one moment are read in either order


class RunningMill:
    """Five services that run, and what they say."""

    def __init__(self, project: Project, mill: Mill, screen: StringIO, console: Console) -> None:
        self.project = project
        self.mill = mill
        self.state: MillState
        self._screen = screen
        self._console = console

    @property
    def output(self) -> str:
        return self._screen.getvalue()

    async def replay(self, ticks: Ticks, on_tick: Callable[[Tick], None] = lambda tick: None) -> Replayed:
        services = self.state.services
        return await run_replay(
            project=self.project,
            ticks=ticks,
            addresses=Addresses(kafka=self.state.kafka, ingest=services["ingest"], serving=services["serving"]),
            console=self._console,
            states=lambda: {},
            beside=self.mill.supervise,
            on_tick=on_tick,
        )


@asynccontextmanager
async def running_mill(project: Project, root: Path, environment: Mapping[str, str]) -> AsyncIterator[RunningMill]:
    """Started, with nothing in it, and stopped in the end."""
    screen = StringIO()
    console = Console(file=screen, width=160)
    mill = Mill(
        project=project,
        root=root,
        fresh=True,
        fixed_ports=False,
        say=console.print,
        environment=dict(environment),
        # A test that takes one away brings it back itself.
        mend_servers=False,
    )
    running = RunningMill(project, mill, screen, console)
    try:
        running.state = await mill.start()
        yield running
    except BaseException:
        # Of a failure that comes once in a hundred runs, on another's machine, these lines are all there will ever be.
        for process in (*mill.processes.values(), *mill.stack.processes()):
            print(f"--- {process.name}: the end of its log\n{process.log_tail()}")
        raise
    finally:
        await asyncio.to_thread(mill.stop)


async def run_small(
    project: Project,
    root: Path,
    *,
    until: str,
    on_tick: Callable[[Mill, int, Tick], None] = lambda mill, n, tick: None,
    environment: Mapping[str, str] = LATE_GIVEN_UP,
) -> Outcome:
    """Start a mill, replay until `until`, count, stop. `on_tick` may do harm after the n-th tick; then give up soon."""
    recording = load_recording(project)
    ticks = Ticks(recording.events, questions={"flights-scheduled"}, tick=HOUR, until=from_rfc3339(until))
    done = 0
    async with running_mill(project, root, environment) as running:

        def ticked(tick: Tick) -> None:
            nonlocal done
            done += 1
            on_tick(running.mill, done, tick)

        replayed = await running.replay(ticks, ticked)
        state = running.state
        places = Places(kafka=state.kafka, lake=state.lake, packages=state.packages, registry=Path(state.registry))
        figures = await summarise(project, recording, ticks, replayed.story, places)
        log = await read_predictions(state.kafka)
        records = await recorded(state.kafka)
    return Outcome(figures=figures, log=log, replayed=replayed, output=running.output, records=records)


async def recorded(kafka: str) -> pl.DataFrame:
    """See `Outcome.records`."""
    rows = [
        (event.asked_at, event.version, event.other.version if event.other else None, event.entities["tailnum"])
        async for records in every_record(kafka)
        for record in records
        if isinstance(event := decode_event(type_of(record), record.value), PredictionServed)
    ]
    return pl.DataFrame(rows, schema=["asked_at", "version", "other", "entity"], orient="row", infer_schema_length=None)
