"""A service in a process of its own, for tests: hears one topic, and does what files in a folder tell it.

Usage: tower_service.py TOPIC FOLDER [on-its-way]. A record is handled once FOLDER/finish exists; the value `bug` raises.
With `on-its-way` what came of it is confirmed once FOLDER/confirmed exists.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from millstream.runtime.confirming import Confirming
from millstream.runtime.delivery import Batch
from millstream.runtime.service import Service, serve
from millstream.runtime.settings import ServiceSettings


def create(settings: ServiceSettings, topic: str, folder: Path, on_its_way: bool) -> Service:
    made = Service("tower", settings, title="tower")

    async def confirmed() -> None:
        while not (folder / "confirmed").exists():  # noqa: ASYNC110 - as below
            await asyncio.sleep(0.01)

    async def handle(batch: Batch) -> Confirming | None:
        (folder / "begun").touch()
        while not (folder / "finish").exists():  # noqa: ASYNC110 - the test's files are the condition
            await asyncio.sleep(0.01)
        if any(record.value == b"bug" for record in batch.records):
            raise ZeroDivisionError("a bug")
        with (folder / "handled").open("ab") as out:
            out.writelines((record.value or b"") + b"\n" for record in batch.records)
        return Confirming(sent=asyncio.create_task(confirmed())) if on_its_way else None

    made.hears([topic], group="tower", handler=handle)
    return made


if __name__ == "__main__":
    chosen = ServiceSettings()
    sys.exit(serve(lambda: create(chosen, sys.argv[1], Path(sys.argv[2]), sys.argv[3:] == ["on-its-way"]), chosen))
