"""Which code a model was made by: a hash of the project's files, and the commit that they lie in."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DECIDING = frozenset({".py", ".yaml", ".yml", ".json", ".avsc", ".proto"})
"""Definitions, schemas and code. Data that lies beside them decides nothing: a run learns from the lake."""
NOT_OURS = frozenset({"__pycache__", "node_modules", "venv"})
MOST_FILES, MOST_BYTES = 10_000, 4 * 1024 * 1024
"""Bounds of what is read: a larger file is data, and a folder of more files is no project."""
A_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
HEAD_BYTES = 4096


@dataclass(frozen=True, kw_only=True)
class Code:
    """Empty where nobody can say."""

    sha256: str = ""
    commit: str = ""


def code_of(project: Path | None) -> Code:
    """Blocks for some milliseconds. What cannot be read says nothing: a run does not fail for it."""
    if project is None:
        return Code()
    try:
        return Code(sha256=_digest(project), commit=_commit(project))
    except OSError:
        return Code()


def _digest(project: Path) -> str:
    """The same for the same files under the same names, wherever the folder lies."""
    found = hashlib.sha256()
    for name in sorted(_deciding(project)):
        file = hashlib.sha256((project / name).read_bytes()).hexdigest()
        found.update(f"{file}  {name}\n".encode())
    return found.hexdigest()


def _deciding(project: Path) -> Iterator[str]:
    seen = 0
    for folder, folders, files in os.walk(project):
        folders[:] = sorted(name for name in folders if name not in NOT_OURS and not name.startswith("."))
        for file in sorted(files):
            seen += 1
            if seen > MOST_FILES:
                return
            path = Path(folder) / file
            if path.suffix in DECIDING and not file.startswith(".") and path.stat().st_size <= MOST_BYTES:
                yield path.relative_to(project).as_posix()


def _commit(project: Path) -> str:
    """Read from the repository's own files: an image of the trainer has no git."""
    root = next((one for one in (project.resolve(), *project.resolve().parents) if (one / ".git").exists()), None)
    if root is None:
        return ""
    git = root / ".git"
    if git.is_file():  # a worktree, or a submodule
        git = root / _text(git).removeprefix("gitdir:").strip()
    head = _text(git / "HEAD")
    if not head.startswith("ref:"):
        return head if A_COMMIT.fullmatch(head) else ""
    name = head.removeprefix("ref:").strip()
    shared = git / _text(git / "commondir") if (git / "commondir").is_file() else git
    for one in (git / name, shared / name):
        if one.is_file():
            return said if A_COMMIT.fullmatch(said := _text(one)) else ""
    packed = shared / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")


def _text(file: Path) -> str:
    with file.open(encoding="utf-8", errors="replace") as opened:
        return opened.read(HEAD_BYTES).strip()
