"""Prints a project's folder as values of the charts: python deploy/project_values.py examples/flights > project-values.yaml

A ConfigMap that is mounted whole would not do: Kubernetes puts hidden folders into it, in which Feast finds each
file once more. The charts mount each file by itself. Needs nothing but Python.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

FOLDERS = ("streams", "features", "loops")
LARGEST = 900_000
"""Bytes of all files together. Kubernetes takes 1 MiB in a ConfigMap, with names and all."""


def project_files(folder: Path, folders: Sequence[str] = FOLDERS) -> dict[str, str]:
    """Path and text of what belongs to a project: its three folders, and modules of Python beside them.

    Raises SystemExit that says what is wrong."""
    if not (folder / "streams").is_dir():
        raise SystemExit(
            f"{folder}: no project here; name a folder with streams/, features/ and, for models, loops/ in it"
        )
    paths = [path for name in folders for path in (folder / name).rglob("*")]
    paths += [
        path for path in folder.glob("*.py") if path.stem != "recording"
    ]  # which makes events, and no service reads it
    found = {}
    for path in sorted(paths):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or any(part.startswith((".", "__pycache__")) for part in path.relative_to(folder).parts):
            continue
        try:
            found[name] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise SystemExit(f"{path}: no text; put a project with such files into an image or a claim") from None
    size = sum(len(text.encode()) for text in found.values())
    if size > LARGEST:
        raise SystemExit(
            f"{folder}: {size:,} bytes, more than a ConfigMap takes; put the project into an image or a claim"
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Prints a project's folder as values of the charts.")
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--global", dest="shared", action="store_true", help="for the umbrella chart: all services have it"
    )
    parser.add_argument(
        "--without-loops", action="store_true", help="they are MillstreamLoops (deploy/loop_resources.py)"
    )
    asked = parser.parse_args()
    folders = [name for name in FOLDERS if name != "loops" or not asked.without_loops]
    project = {"project": {"files": project_files(asked.folder, folders)}}
    # JSON is YAML.
    print(json.dumps({"global": project} if asked.shared else project, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
