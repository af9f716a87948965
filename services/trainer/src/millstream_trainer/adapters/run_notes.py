"""What training Jobs say, as files beside the packages: the one folder that a dispatcher and its Jobs share.

The last word of a run is there before its Job ends, and whoever begins the run again finds it.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlparse

import msgspec

from millstream.errors import RetryLater
from millstream_trainer.adapters.training_process import Said

FOLDER = ".runs"
"""No loop is called so: names begin with a letter."""

KEPT = 30 * 24 * 3600.0
"""Seconds. Longer than any dispatcher is away; each is of some kilobytes."""


class RunNotes:
    """One note a Job, by the Job's name: the last thing that it said. Blocks for a small file."""

    def __init__(self, packages: str) -> None:
        parsed = urlparse(packages)
        self.folder = Path(unquote(parsed.path) if parsed.scheme else packages).resolve() / FOLDER

    def say(self, name: str, said: Said) -> None:
        """Replace the note, whole or not at all. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=self.folder, prefix=".draft-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(said))
            os.replace(draft, self.folder / f"{name}.json")
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def read(self, name: str) -> Said | None:
        """The note, None where nothing was said yet. Raises RetryLater: the folder is away."""
        try:
            return msgspec.json.decode((self.folder / f"{name}.json").read_bytes(), type=Said)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RetryLater(f"{self.folder} cannot be read: {error}") from error

    def sweep(self) -> None:
        """Remove notes older than `KEPT`."""
        with suppress(OSError):
            for file in self.folder.glob("*"):
                with suppress(FileNotFoundError):
                    if time.time() - file.stat().st_mtime > KEPT:
                        file.unlink()
