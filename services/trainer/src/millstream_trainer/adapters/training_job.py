"""What the pod of a training Job does: one run, said beside the packages, written down, and the end told by an exit code.

python -m millstream_trainer.adapters.training_job NAME SPEC, with the trainer's settings in the environment. A pod that takes
the place of one that was evicted begins the run again; one whose predecessor had its last word ends at once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import msgspec
from pydantic import ValidationError

from millstream.runtime.logs import configure_logs
from millstream.runtime.tracing import configure_tracing, flush_tracing
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.tracking import Tracking
from millstream_trainer.adapters.training_process import CHATTY, Said, outcome
from millstream_trainer.adapters.workplace import Workplace, workplace_of
from millstream_trainer.domain.run import RunSpec
from millstream_trainer.settings import Settings

log = logging.getLogger(__name__)

FAILED = 3
"""The run has said why it made no model: another pod would say the same. The Job's podFailurePolicy ends it at this code."""

UNUSABLE = 2
"""Settings or arguments that no other pod will read better. Ends the Job too."""


def main(arguments: Sequence[str]) -> int:
    """Exit code: 0 for a model, whether it passed the gate or not."""
    try:
        settings = Settings()
        name, spec = arguments[0], msgspec.json.decode(arguments[1], type=RunSpec)
    except (IndexError, msgspec.DecodeError, ValidationError) as error:
        print(f"training job: it wants NAME SPEC and the trainer's settings: {error}", file=sys.stderr)
        return UNUSABLE
    configure_logs("trainer", settings.log_level)
    configure_tracing("trainer", settings.instance, settings.otlp_endpoint)
    notes = RunNotes(settings.packages)
    said = notes.read(name)
    if said is None or not said.last:
        said = do_run(name, spec, workplace_of(settings), notes)
    return FAILED if said.result is None else 0


def do_run(name: str, spec: RunSpec, place: Workplace, notes: RunNotes) -> Said:
    """The run, each phase and its last word in the note `name`. Raises OSError where the folder is away."""
    # Sets what OpenMP and OpenBLAS read when they are loaded.
    from millstream_trainer.adapters import preload  # noqa: F401

    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    tracking = Tracking()
    said = outcome(spec, place, tracking, lambda phase: notes.say(name, Said(phase=phase)))
    notes.say(name, said)
    if not tracking.written(place.mlflow_patience):
        notes.say(name, said := msgspec.structs.replace(said, untracked=True))
    flush_tracing()
    return said


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
