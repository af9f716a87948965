"""Writes one run down beside it: opened while the run reads its history, the rest once the run has answered.

A thread of its own talks to the tracker, since the run must neither wait for a tracking server nor fail with it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping

from millstream.runtime.tracing import span
from millstream_trainer.domain.record import Record
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.errors import TrackingFailed
from millstream_trainer.ports import Tracker

log = logging.getLogger(__name__)

ID_PATIENCE = 1.0
"""Seconds that an answer waits for the record's id. A server that is well has given it long before: it takes a tenth."""


class Tracking:
    """The record of one run. Begin it, say how the run ended, then see it written."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._id: str | None = None
        self._rest: Callable[[Tracker], None] = lambda tracker: None
        self._written = False

    def begin(self, tracker: Tracker, spec: RunSpec, params: Mapping[str, str]) -> None:
        """Start writing; returns at once."""
        # A daemon: a server that hangs does not keep the process.
        self._thread = threading.Thread(target=self._write, args=(tracker, spec, params), name="tracking", daemon=True)
        self._thread.start()

    def id(self, patience: float = ID_PATIENCE) -> str | None:
        """The record's id; None when nothing is tracked, or when the tracker has not given one within `patience` seconds."""
        if self._thread is not None:  # nobody else gives one
            self._asked.wait(patience)
        return self._id

    def finished(self, record: Record) -> None:
        """The run ended with a model; written from now on."""
        self._end(lambda tracker: tracker.finish(record))

    def failed(self, reason: str) -> None:
        """The run ended without a model; written from now on."""
        self._end(lambda tracker: tracker.fail(reason))

    def written(self, patience: float) -> bool:
        """Wait up to `patience` seconds (the run has ended); whether the whole record is written down."""
        if self._thread is None:
            return True  # it ended before there was anything to write
        self._thread.join(patience)
        if self._thread.is_alive():
            log.warning("the record of the run is incomplete: not written in %.0f s", patience)
        return self._written

    def _end(self, rest: Callable[[Tracker], None]) -> None:
        self._rest = rest
        self._ended.set()

    def _write(self, tracker: Tracker, spec: RunSpec, params: Mapping[str, str]) -> None:
        context = {"loop": spec.loop, "run": spec.run}
        try:
            opened = self._open(tracker, spec, params)
            self._ended.wait()
            with span("register", spec.traceparent):
                if not opened:
                    tracker.begin(spec, params)  # it may be back by now: the run took its time
                self._rest(tracker)
            self._written = True
        except TrackingFailed as error:
            log.warning("the record of the run is missing or incomplete: %s", error, extra=context)
        except Exception as error:
            log.error("the record of the run is missing or incomplete", exc_info=error, extra=context)

    def _open(self, tracker: Tracker, spec: RunSpec, params: Mapping[str, str]) -> bool:
        try:
            self._id = tracker.begin(spec, params)
            return True
        except TrackingFailed as error:
            log.warning("the run goes on untracked: %s", error, extra={"loop": spec.loop, "run": spec.run})
            return False
        finally:
            self._asked.set()
