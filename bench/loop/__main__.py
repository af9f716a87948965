"""`make bench-loop`: what the loop decides and how well, as JSON in bench/out/loop.json.

Each part runs in a process of its own, one after the other. What is not asked for stays in the file as it was, so parts may
be run one by one: `machine.load` says for each how busy the machine was when it began. See bench/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

HERE = Path(__file__).parent
OUT = HERE.parent / "out" / "loop.json"
PARTS = ("aa", "planted", "drift", "shares", "contents", "lag", "flights", "streams", "replicas")
LIBRARIES = ("aiokafka", "httpx", "lightgbm", "msgspec", "numpy", "onnxruntime", "scikit-learn")
console = Console(stderr=True)


def measured(part: str) -> dict[str, Any]:
    """What the part's `run()` returns. Raises CalledProcessError; why stands on stderr."""
    said = subprocess.run(
        [sys.executable, "-c", f"import json, {part}; print(json.dumps({part}.run(), default=float))"],
        cwd=HERE,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def figures(part: str, found: dict[str, Any]) -> dict[str, Any]:
    """A part's numbers under their names in the file."""
    if part in ("drift", "lag", "replicas"):
        return found
    if part == "planted":
        runs = found["runs"]
        return {part: {kind: _until_out(one, runs) for kind, one in found.items() if isinstance(one, dict)}}
    return {part: found}


def _until_out(one: dict[str, Any], runs: int) -> dict[str, Any]:
    rest = {name: value for name, value in one.items() if name != "median_labels"}
    return {"labels_until_out": one["median_labels"], "runs": runs, **rest}


def merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    """Numbers of one name from two parts lie beside each other: a planted kind is judged by one and served by another."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


def parts_of(text: str) -> list[str]:
    """Names in the order of PARTS. Raises ArgumentTypeError for one that there is not."""
    asked = text.split(",")
    if unknown := [name for name in asked if name not in PARTS]:
        raise argparse.ArgumentTypeError(f"no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    return [name for name in PARTS if name in asked]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/loop", description=__doc__)
    parser.add_argument("--only", type=parts_of, default=list(PARTS), help=f"some of {','.join(PARTS)}")
    asked = parser.parse_args()
    held: dict[str, Any] = json.loads(OUT.read_text()) if OUT.exists() else {}
    failed = []
    for part in asked.only:
        if not (HERE / f"{part}.py").exists():
            console.print(f"{part}: not there yet, left out", highlight=False)
            continue
        load, began = os.getloadavg()[0], time.perf_counter()
        console.print(f"{part}: begins at load {load:.1f}", highlight=False)
        try:
            found = measured(part)
        except subprocess.CalledProcessError as error:
            console.print(f"{part}: failed with status {error.returncode}, left out", highlight=False)
            failed.append(part)
            continue
        merge(held, figures(part, found))
        merge(held, {"machine": {"cores": os.cpu_count(), "python": platform.python_version(), "load": {part: load}}})
        held["versions"] = {name: version(name) for name in LIBRARIES}
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(json.dumps(held, indent=2) + "\n")
        console.print(f"{part}: {time.perf_counter() - began:.0f} s, {json.dumps(found)}", highlight=False)
    print(json.dumps(held, indent=2))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
