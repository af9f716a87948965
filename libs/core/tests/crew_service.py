"""A service of several workers, for tests: says who answers, and does what its environment tells it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from prometheus_client import Counter, Histogram

from millstream.errors import BadSetup
from millstream.runtime.crew import CrewSettings
from millstream.runtime.service import Service, serve


def create(settings: CrewSettings) -> Service:
    match os.environ.get("CREW_DOES"):
        case "bad setup":
            raise BadSetup("loops/flight-delay.yaml:7: no such feature")
        case "crash":
            raise ZeroDivisionError("a bug")
    while Path(os.environ["CREW_HOLD"]).exists():  # the test's file is the condition
        time.sleep(0.02)
    made = Service("crew", settings, title="crew")
    asked = Counter("crew_asked", "Questions so far.", registry=made.registry)
    seconds = Histogram("crew_seconds", "Of a question.", ["kind"], buckets=(0.1, 1.0), registry=made.registry)

    @made.app.get("/who")
    async def who() -> dict[str, object]:
        asked.inc()
        seconds.labels("who").observe(0.5)
        return {"pid": os.getpid(), "instance": settings.instance}

    return made


if __name__ == "__main__":
    chosen = CrewSettings()
    sys.exit(serve(lambda: create(chosen), chosen, "crew"))
