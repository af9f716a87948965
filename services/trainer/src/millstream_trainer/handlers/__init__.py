"""What the trainer does: hears verdicts and requests, decides, has runs run, moves models, and says what came of it all."""

from __future__ import annotations

from millstream_trainer.handlers.runs import MAX_ATTEMPTS
from millstream_trainer.handlers.trainer import Trainer

__all__ = ["MAX_ATTEMPTS", "Trainer"]
