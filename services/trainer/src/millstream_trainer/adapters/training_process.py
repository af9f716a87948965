"""Inside a training process: does one run, says how it ended, writes it down, and ends with its trainer."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

import msgspec

from millstream.errors import MillstreamError
from millstream.runtime.logs import configure_logs
from millstream.runtime.tracing import configure_tracing, flush_tracing, span
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.adapters.workplace import Workplace
from millstream_trainer.domain.run import RunResult, RunSpec
from millstream_trainer.errors import RunFailed

log = logging.getLogger(__name__)

LONGEST_REASON = 2000
"""Characters of a failure's reason: it travels in an event, and the log has the rest."""

UNTRACKED = 4
"""Exit code of a process that has answered and could not write its run down."""


CHATTY = ("feast", "mlflow", "alembic")
"""Loggers that say every step at INFO."""


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What the process says: each phase as it begins, and the outcome as soon as it is known, which ends what it says."""

    phase: str | None = None
    result: RunResult | None = None
    failed: str | None = None
    untracked: bool = False
    """Of a Job, which cannot say it by its exit code: the record for people is missing or incomplete."""

    @property
    def last(self) -> bool:
        return self.phase is None

    def settle(self, loop: str, untracked: Callable[[str], None]) -> RunResult:
        """What came of the run; `untracked` hears the loop if the record was not written. Raises RunFailed."""
        if self.untracked:
            untracked(loop)
        if self.result is None:
            raise RunFailed(self.failed or "the run ended without a result")
        return self.result


def main(sender: Connection, spec_json: bytes, place_json: bytes) -> None:
    """Target of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the trainer ends us in its own order
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spec = msgspec.json.decode(spec_json, type=RunSpec)
    place = msgspec.json.decode(place_json, type=Workplace)
    configure_logs("trainer", place.log_level)
    configure_tracing("trainer", place.instance, place.otlp_endpoint)
    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    tracking = Tracking()

    def say(said: Said) -> None:
        sender.send_bytes(msgspec.json.encode(said))

    say(outcome(spec, place, tracking, lambda phase: say(Said(phase=phase))))
    sender.close()
    written = tracking.written(place.mlflow_patience)
    flush_tracing()
    if not written:
        sys.exit(UNTRACKED)


def outcome(spec: RunSpec, place: Workplace, tracking: Tracking, hear: Callable[[str], None]) -> Said:
    """Train; whatever goes wrong becomes a reason."""
    about: dict[str, str | int] = {"millstream.run": spec.run, "millstream.attempt": spec.attempt}
    with span(f"train {spec.loop}", spec.traceparent, about=about):
        return _outcome(spec, place, tracking, hear)


def _outcome(spec: RunSpec, place: Workplace, tracking: Tracking, hear: Callable[[str], None]) -> Said:
    try:
        # Imported here: this module is also imported by the dispatcher, which stays light.
        from millstream_trainer.adapters.run import run

        return Said(result=run(spec, place, tracking, hear))
    except MillstreamError as error:
        log.error("run failed: %s", error, extra={"loop": spec.loop, "run": spec.run})
        reason = str(error)[:LONGEST_REASON]
    except Exception as error:
        log.error("run failed", exc_info=error, extra={"loop": spec.loop, "run": spec.run})
        reason = f"{type(error).__name__}: {error}"[:LONGEST_REASON]
    tracking.failed(reason)
    return Said(failed=reason)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(3)
