"""`millstream score`: serving's own job on this machine, told where the mill keeps its things."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from millstream.runtime.kafka_security import KafkaSecurity
from millstream_cli.errors import CommandFailed
from millstream_cli.mill import MillState


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is named on the command line; None: that of the mill which runs here."""

    project: Path | None
    kafka: str | None
    packages: str | None
    lake: str | None


def environment(root: Path, sources: Sources, *, look_up: bool, version: str | None) -> dict[str, str]:
    """What the job hears of its mill. Raises CommandFailed where something it needs is neither named nor known."""
    found = {
        "PROJECT": str(sources.project) if sources.project else None,
        "PACKAGES": sources.packages,
        "LAKE": sources.lake if look_up else "",
        "KAFKA": sources.kafka if version is None else "127.0.0.1:9092",
    }
    if None in found.values():
        try:
            state = MillState.load(root, sources.project)
        except CommandFailed as error:
            missing = [f"--{name.lower()}" for name, said in found.items() if said is None]
            instead = " (or a --version, and nobody asks for the champion)" if "--kafka" in missing else ""
            raise CommandFailed(f"{error}; or name {', '.join(missing)}{instead}") from error
        known = {"PROJECT": state.project, "PACKAGES": state.packages, "LAKE": state.lake, "KAFKA": state.kafka}
        found = {name: known[name] if said is None else said for name, said in found.items()}
    # The mill of this machine lets anybody in, whatever our environment says of another one.
    entry = KafkaSecurity.environment_of_none() if sources.kafka is None else {}
    return {f"MILLSTREAM_{name}": said for name, said in found.items() if said} | entry


def become(arguments: Sequence[str], told: Mapping[str, str]) -> None:
    """Go on as the job: its progress, signals and exit status are this command's. Raises CommandFailed, else never returns."""
    if importlib.util.find_spec("millstream_serving") is None:
        raise CommandFailed("scoring is done by serving, which is not installed here; pip install millstream-serving")
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, "-m", "millstream_serving", "score", *arguments], {**os.environ, **told})
