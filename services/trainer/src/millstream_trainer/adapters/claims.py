"""Who does a run that was offered to all: files beside the notes, and the highest number in their names is the token.

A run may be started twice: KEDA counts what waits, not what was begun. Whoever makes the next file first has the run, and
its word alone is heard; whoever is overtaken is told so the next time it says that it is alive.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from millstream.errors import RetryLater
from millstream_trainer.adapters.run_notes import RunNotes
from millstream_trainer.adapters.training_process import Said

BEAT = 10.0
"""Seconds between two signs of life."""

SILENT = 60.0
"""Seconds without one, by the folder's own clock, after which a run may be taken from who has it. NFS knows for up to 60 what a
file was; six beats."""


class Claims:
    """All block for a small file, and raise RetryLater where the folder is away."""

    def __init__(self, notes: RunNotes, silent: float = SILENT) -> None:
        self._notes = notes
        self._folder = notes.folder
        self._silent = silent

    def token(self, run: str) -> int:
        """Of who has the run now, 0 where nobody took it yet."""
        try:
            return max((int(file.suffix[1:]) for file in self._folder.glob(f"{run}.claim.*")), default=0)
        except OSError as error:
            raise RetryLater(f"{self._folder} cannot be read: {error}") from error

    def said(self, run: str) -> Said | None:
        """What who has the run said last."""
        token = self.token(run)
        return self._notes.read(note_of(run, token)) if token else None

    def ended(self, run: str) -> Said | None:
        """The run's last word, None where it was not said yet."""
        said = self.said(run)
        return said if said is not None and said.last else None

    def alive(self, run: str) -> bool:
        """Whether who has it has given a sign of life lately."""
        return self._quiet(self._file(run, self.token(run))) < self._silent

    def take(self, run: str) -> int | None:
        """The token, None where somebody has it and is alive, or was quicker."""
        held = self.token(run)
        return None if held and self.alive(run) else self._next(run, held)

    def seize(self, run: str) -> int | None:
        """The token, whoever has the run; None where somebody was quicker."""
        return self._next(run, self.token(run))

    def beat(self, run: str, token: int) -> bool:
        """Say that its holder is alive. False: another has taken the run."""
        with suppress(OSError):  # where the folder is away it says so next time
            os.utime(self._file(run, token))
        return self.token(run) == token

    def _next(self, run: str, held: int) -> int | None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                self._file(run, held + 1).touch(exist_ok=False)
                return held + 1
        except OSError as error:
            raise RetryLater(f"{self._folder} cannot be written: {error}") from error
        return None

    def _quiet(self, file: Path) -> float:
        """Seconds since its last sign of life, by the clock of who keeps the folder: ours may be another."""
        try:
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".now-") as now:
                return Path(now.name).stat().st_mtime - file.stat().st_mtime
        except OSError as error:
            raise RetryLater(f"{self._folder} cannot be read: {error}") from error

    def _file(self, run: str, token: int) -> Path:
        return self._folder / f"{run}.claim.{token}"


def note_of(run: str, token: int) -> str:
    """Name of the note: one for each token, so that who was overtaken overwrites nobody's word."""
    return f"{run}.{token}"
