"""`millstream export`: a version of a loop, as another platform runs it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from rich.console import Console

from millstream.contracts.events import ModelRef, ModelState, decode_event
from millstream.contracts.package import MODEL_FILE, BadPackage
from millstream.contracts.topics import MODELS
from millstream.errors import RetryLater
from millstream.runtime.delivery import Record, envelope
from millstream.runtime.kafka_security import Bootstrap
from millstream.runtime.packages import PackageStore
from millstream.runtime.table import TopicReader
from millstream_cli.errors import CommandFailed
from millstream_cli.kserve import exported
from millstream_cli.mill import MillState
from millstream_cli.place import named

PATIENCE = 30.0
"""Seconds to read the models: it takes one."""


def export(
    loop: str,
    *,
    to: Path,
    storage: str,
    namespace: str | None,
    version: str | None,
    kafka: str | None,
    packages: str | None,
    root: Path,
) -> list[Path]:
    """Write the files below `to`, and return them. Raises CommandFailed."""
    if to.exists() and any(to.iterdir()):
        raise CommandFailed(f"{to} is not empty; name a folder of its own: --to out/{loop}")
    bootstrap: Bootstrap | None = named(kafka) if kafka is not None else None
    if packages is None or (bootstrap is None and version is None):
        try:
            state = MillState.load(root)
        except CommandFailed as error:
            missing = [*(["--packages"] if packages is None else []), *(["--kafka"] if version is None else [])]
            raise CommandFailed(f"{error}; or name {' and '.join(missing)}") from error
        packages, bootstrap = packages or state.packages, bootstrap or state.kafka
    store = PackageStore(packages)
    try:
        if version is None:
            assert bootstrap is not None
            ref = asyncio.run(champion_of(bootstrap, loop))
        else:
            ref = store.find(loop, version)
        manifest = store.manifest(ref)
        graph = store.file(ref, manifest, MODEL_FILE)
    except (BadPackage, RetryLater) as error:
        raise CommandFailed(str(error)) from error
    files = exported(ref, manifest, graph, storage=storage, namespace=namespace)
    written = []
    for name, raw in files.items():
        path = to / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
        written.append(path)
    return written


async def champion_of(kafka: Bootstrap, loop: str) -> ModelRef:
    """Who answers now, as `millstream-models` says. Raises CommandFailed."""
    found: dict[str, ModelState] = {}

    async def apply(record: Record) -> None:
        event = decode_event(envelope(record).type, record.value) if record.value is not None else None
        if isinstance(event, ModelState):
            found[event.loop] = event

    reader = TopicReader(bootstrap=kafka, topics=[MODELS.name], apply=apply)
    reading = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(PATIENCE):
            await reader.caught_up.wait()
    except TimeoutError as error:
        raise CommandFailed(f"the models could not be read: {reader.trouble or 'Kafka does not answer'}") from error
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    champion = found[loop].champion if loop in found else None
    if champion is None:
        known = ", ".join(sorted(name for name, state in found.items() if state.champion is not None)) or "none"
        raise CommandFailed(f"{loop} has no model that answers; loops that have one: {known}")
    return champion


def tell(loop: str, written: list[Path], to: Path, storage: str, console: Console, as_json: bool) -> None:
    """What was written, and what to do next."""
    if as_json:
        print(json.dumps({"loop": loop, "files": [str(path) for path in written], "storage": storage}))
        return
    for path in written:
        console.print(f"{path}  {path.stat().st_size:,} bytes", soft_wrap=True)
    console.print(
        f"next: copy {to}/repository to {storage}, then: kubectl apply -f {to}/inferenceservice.yaml", soft_wrap=True
    )
