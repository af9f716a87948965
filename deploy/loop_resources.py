"""Prints the loops of a project as MillstreamLoops: python deploy/loop_resources.py examples/flights | kubectl apply -f -

As JSON, which kubectl takes as well: it reads YAML 1.1, where the key `on` of a loop file is no text but true, unless it is
written in quotes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from millstream.project import BadProject
from millstream.project.resource import GROUP, KIND, VERSION
from millstream.project.source import read_source


def loop_resources(folder: Path) -> list[dict[str, Any]]:
    """One for each file of loops/. Raises SystemExit that says what is wrong; `millstream check` says more."""
    found = []
    for file in sorted((folder / "loops").glob("*.y*ml")):
        source, problems = read_source(folder, file)
        if source is None or problems:
            raise SystemExit(str(BadProject(problems)))
        if not isinstance(name := source.data.get("loop"), str):
            raise SystemExit(f"{source.file}: 'loop' is missing; write the loop's name")
        spec = {key: value for key, value in source.data.items() if key != "loop"}
        found.append(
            {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": {"name": name}, "spec": spec},
        )
    if not found:
        raise SystemExit(f"{folder}: no loops here; name a project's folder with loops/ in it")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Prints the loops of a project's folder as MillstreamLoops.")
    parser.add_argument("folder", type=Path)
    items = loop_resources(parser.parse_args().folder)
    print(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
