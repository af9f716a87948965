"""How far a run is, and how long each part took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from millstream.runtime.tracing import span
from millstream_trainer.domain.run import PHASES

log = logging.getLogger(__name__)


class Phases:
    """Each phase is logged and told to `hear` when it begins; its seconds are the metric `seconds_<phase>`."""

    def __init__(self, *, loop: str = "", run: str = "", hear: Callable[[str], None] = lambda phase: None) -> None:
        self.seconds: dict[str, float] = {}
        self._context = {"loop": loop, "run": run}
        self._hear = hear

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        assert name in PHASES, f"{name} is missing in domain/run.py"
        log.info("phase %s begins", name, extra=self._context)
        self._hear(name)
        began = time.perf_counter()
        try:
            with span(name):
                yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[f"seconds_{name}"] = round(self.seconds.get(f"seconds_{name}", 0.0) + spent, 4)
