"""Compares texts and embeddings with a classifier, in a process of its own."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from millstream_drift.adapters.children import Children
from millstream_drift.domain.content import ContentShift, Side
from millstream_drift.errors import NotCompared


class ClassifierContents:
    """The port `Comparisons`. The process starts with a window and ends with it."""

    def __init__(
        self,
        *,
        children: Children,
        command: Sequence[str] = (sys.executable, "-m", "millstream_drift.adapters.classifier_child"),
    ) -> None:
        self._children = children
        self._command = tuple(command)

    async def compare(self, sides: Sequence[Side]) -> list[ContentShift]:
        try:
            async with self._children.place():
                with tempfile.TemporaryDirectory(prefix="millstream-content-") as folder:
                    handed, found = Path(folder) / "sides", Path(folder) / "shifts"
                    handed.write_bytes(msgspec.msgpack.encode(sides))
                    await self._children.run(self._command, handed, found)
                    return msgspec.msgpack.decode(found.read_bytes(), type=list[ContentShift])
        except (OSError, TimeoutError, ValueError) as error:
            raise NotCompared(str(error)) from error
