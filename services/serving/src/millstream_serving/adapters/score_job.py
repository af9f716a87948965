"""The front door of a job that scores one table: `python -m millstream_serving score LOOP --input … --output …`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry
from tqdm import tqdm

from millstream.contracts.events import ModelRef, ModelState
from millstream.contracts.package import REMOTE_FILE, BadPackage, Remote
from millstream.contracts.topics import MODELS
from millstream.errors import BadSetup, MillstreamError
from millstream.project import BadProject, Project, load_project
from millstream.runtime.delivery import Record
from millstream.runtime.health import Health
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.packages import PackageStore
from millstream.runtime.table import TopicReader
from millstream_serving.adapters.feast_history import FeastHistory
from millstream_serving.adapters.given_features import GivenFeatures
from millstream_serving.adapters.onnx_model import OnnxRuntime
from millstream_serving.adapters.parquet_table import ParquetAnswers, ParquetTable
from millstream_serving.domain.batch import answer_columns, check, kept
from millstream_serving.domain.roster import Roster
from millstream_serving.errors import BadTable, NoModel, UnknownLoop
from millstream_serving.handlers import ModelKeeper
from millstream_serving.handlers.scoring import ROWS_OF_A_READ, ROWS_OF_A_RUN, score
from millstream_serving.metrics import ServingMetrics
from millstream_serving.ports import FeatureStore
from millstream_serving.settings import ScoreSettings
from millstream_serving.subscribers import model_state

PATIENCE = 30.0
"""Seconds for Kafka to say who the champion is: a broker that starts takes five, one that fails over twelve."""
IN_A_LOG = 30.0
"""Seconds between two lines of progress where nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says."""

    loop: str
    input: Path
    output: Path
    look_up: bool
    version: str | None
    threads: int


async def job(asked: Asked, settings: ScoreSettings) -> dict[str, Any]:
    """Score the table; what came of it. Raises MillstreamError, BadPackage, OSError: no output was written then."""
    began = time.perf_counter()
    project = load_project(settings.project)
    if asked.loop not in project.loops:
        known = ", ".join(sorted(project.loops)) or "none"
        raise UnknownLoop(f"no loop {asked.loop!r} in {settings.project}; known: {known}")
    table = ParquetTable(asked.input)
    if asked.output.exists() and asked.output.samefile(asked.input):
        raise BadTable(f"{asked.output} is the input too; write the answers to another file")
    if not asked.output.parent.is_dir():
        raise BadTable(f"{asked.output}: no folder {asked.output.parent}; make it first")
    packages = PackageStore(settings.packages)
    ref = await _model(asked, settings.at(settings.kafka), packages)
    await asyncio.to_thread(_runs_here, asked.loop, ref, packages)
    with tempfile.TemporaryDirectory(prefix="millstream-score-") as home:
        store: FeatureStore = (
            FeastHistory(repo=project.features_path, registry=Path(home) / "registry.db", lake=settings.lake)
            if asked.look_up
            else GivenFeatures(await asyncio.to_thread(packages.manifest, ref))
        )
        # The very checks that a model passes before it answers live: hashes, graph, pinned views, warm-up.
        loaded = await _keeper(project, packages, store).load(asked.loop, ref)
        loop = project.loops[asked.loop]
        by = [loop.predict.id, loop.label.by, loop.rollout.by, project.streams[loop.predict.on].key]
        keys = [*loaded.features.join_keys, *(name for name in by if name)]
        answers = answer_columns(loaded.manifest)
        try:
            check(table.kinds, loaded.manifest.inputs, look_up=asked.look_up, keys=list(loaded.features.join_keys))
            columns = kept(table.schema.names, loaded.manifest, keys, answers)
        except BadTable as error:
            raise BadTable(f"{asked.input}: {error}") from error
        loading = time.perf_counter() - began
        watched = sys.stderr.isatty()
        with (
            tqdm(
                total=table.rows,
                unit=" rows",
                unit_scale=True,
                mininterval=0.2 if watched else IN_A_LOG,
                desc=f"{asked.loop} {ref.version}",
            ) as bar,
            ParquetAnswers(asked.output, table.schema, columns, answers, ref.version) as out,
        ):
            scored = await score(
                loaded,
                table.pieces(ROWS_OF_A_READ if asked.look_up else ROWS_OF_A_RUN),
                out,
                look_up=asked.look_up,
                threads=asked.threads,
                told=lambda rows: bar.update(rows) and None,
            )
    seconds = time.perf_counter() - began
    return {
        "loop": asked.loop,
        "version": ref.version,
        "output": str(asked.output),
        **asdict(scored),
        "seconds": round(seconds, 3),
        "loading_seconds": round(loading, 3),
        "rows_per_second": round(scored.rows / max(seconds - loading, 1e-9)),
    }


def main(arguments: Sequence[str]) -> int:
    """The command. Exit status 0: every row is in the output; 1: it was not written; 2: it cannot be as it was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m millstream_serving score",
        description="Score a Parquet file with a loop's model: the checks, columns and session that answer live.",
        epilog="MILLSTREAM_PROJECT, _PACKAGES, _LAKE and _KAFKA say where the mill keeps its things.",
    )
    parser.add_argument("loop", help="like flight-delay")
    parser.add_argument("--input", type=Path, required=True, help="Parquet file")
    parser.add_argument("--output", type=Path, required=True, help="Parquet file; appears when every row is answered")
    parser.add_argument(
        "--features",
        choices=("lookup", "given"),
        default="lookup",
        help="lookup: as known at each row's event_timestamp; given: columns of the input",
    )
    parser.add_argument("--version", help="of the model; default: the champion")
    parser.add_argument("--threads", type=int, default=_cores(), help="default: the cores given (%(default)s)")
    parser.add_argument("--json", action="store_true", help="say what came of it as JSON")
    said = parser.parse_args(arguments)
    if said.threads < 1:
        parser.error(f"--threads {said.threads}: write 1 or more")
    asked = Asked(
        loop=said.loop,
        input=said.input,
        output=said.output,
        look_up=said.features == "lookup",
        version=said.version,
        threads=said.threads,
    )
    try:
        found = asyncio.run(_until_stopped(job(asked, ScoreSettings.of_environment())))
    except (KeyboardInterrupt, asyncio.CancelledError):
        print(f"millstream: stopped; {asked.output} was not written", file=sys.stderr)
        return 130
    except (MillstreamError, BadPackage, OSError) as error:
        print(f"millstream: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadProject | BadSetup) else 1
    print(json.dumps(found) if said.json else _in_words(found))
    return 0


async def _until_stopped(work: Any) -> Any:
    """SIGTERM as Ctrl-C: the half-written file goes."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task


def _in_words(found: dict[str, Any]) -> str:
    text = (
        f"{found['rows']:,} rows answered by version {found['version']} in {found['seconds']:.1f} s → {found['output']}"
    )
    if found["with_nulls"]:
        text += f"\n{found['with_nulls']:,} of them with features that were null (column null_features)"
    if found["unanswered"]:
        text += f"\n{found['unanswered']:,} rows have no answer: the model failed on them"
    return text


async def _model(asked: Asked, kafka: Bootstrap, packages: PackageStore) -> ModelRef:
    """The version that is named, else the champion. Raises BadPackage, NoModel, BadSetup."""
    if asked.version is not None:
        return await asyncio.to_thread(packages.find, asked.loop, asked.version)
    state = await _state(kafka, asked.loop)
    if state is None or state.champion is None:
        raise NoModel(f"{asked.loop} has no champion yet; name a version with --version")
    return state.champion


def _runs_here(loop: str, ref: ModelRef, packages: PackageStore) -> None:
    """Raises BadSetup for a model that is asked elsewhere: no table is worth what it would do to an endpoint that is live."""
    manifest = packages.manifest(ref)
    if REMOTE_FILE not in manifest.files:
        return
    try:
        url = msgspec.json.decode(packages.file(ref, manifest, REMOTE_FILE), type=Remote).url
    except msgspec.MsgspecError as error:
        raise BadPackage(f"{REMOTE_FILE} of version {ref.version}: {error}") from error
    raise BadSetup(
        f"version {ref.version} of {loop} is asked at {url}: score it there; millstream score answers with models of packages"
    )


async def _state(kafka: Bootstrap, loop: str) -> ModelState | None:
    """The newest word of trainer. Raises BadSetup where Kafka does not say it."""
    newest: ModelState | None = None

    async def apply(record: Record) -> None:
        nonlocal newest
        state = model_state(record)
        if state is not None and state.loop == loop and (newest is None or state.revision > newest.revision):
            newest = state

    reader = TopicReader(bootstrap=kafka, topics=[MODELS.name], apply=apply)
    reading = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.caught_up.wait()
    except TimeoutError as error:
        said = f"Kafka at {kafka} did not say who the champion of {loop} is within {PATIENCE:.0f} s"
        why = f" ({reader.trouble})" if reader.trouble else ""
        raise BadSetup(f"{said}{why}; check MILLSTREAM_KAFKA, or name a version with --version") from error
    finally:
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
    return newest


def _keeper(project: Project, packages: PackageStore, store: FeatureStore) -> ModelKeeper:
    return ModelKeeper(
        roster=Roster(project.loops),
        loops=project.loops,
        streams=project.streams,
        packages=packages,
        # One thread a run, as live, or the last digits could differ; the cores have a piece of the table each.
        runtime=OnnxRuntime(1),
        store=store,
        health=Health(0.0),
        metrics=ServingMetrics(CollectorRegistry()),
        changed=lambda loop: None,
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
