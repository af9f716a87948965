"""Commands that we tell people to type: they must mean the project and the folder that are meant here."""

from __future__ import annotations

import shlex
from pathlib import Path

from millstream_cli.shell import FLIGHTS, HOME


def options(project: str | Path | None, data: Path) -> str:
    """What stands behind a command for `project` (None: it needs none) in `data`; nothing where both are the defaults."""
    words = []
    if project is not None and Path(project).resolve() != FLIGHTS.resolve():
        words += ["--project", str(project)]
    if data.resolve() != HOME.resolve():
        words += ["--data", str(data)]
    return "".join(f" {shlex.quote(word)}" for word in words)
