"""What was measured, in a file that is whole after each part: what is not asked for stays in it as it was."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

console = Console(stderr=True)


def measure(bench: object, parts: Sequence[str], out: Path, libraries: Sequence[str]) -> None:
    """Call the methods `parts` of `bench`, and put what they found into `out`, with the load of the machine as each began."""
    held: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    for part in parts:
        load = os.getloadavg()[0]
        console.print(f"{part}: begins at load {load:.1f}", highlight=False)
        held |= getattr(bench, part)()
        machine = held.setdefault("machine", {"cores": os.cpu_count(), "python": platform.python_version()})
        machine.setdefault("load", {})[part] = round(load, 1)
        held["versions"] = {name: version(name) for name in libraries}
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps(held, indent=2) + "\n")
    print(json.dumps(held, indent=2))
