"""One YAML file as plain values, and the line on which each of them stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

from millstream.project.problem import Path, Problem, dotted

LARGEST = 256 * 1024
"""Bytes. A person writes kilobytes; what is larger is another file that lost its way."""
DEEPEST = 40
"""Levels: YAML nested deeper is no schema that anybody reads."""
MOST = 20_000
"""Values, each alias counted anew: a few lines of anchors can otherwise stand for billions."""

NO_KEY = "?"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that could be read as YAML."""

    file: str
    """Relative to the project folder, with forward slashes."""
    data: dict[str, Any]
    lines: dict[Path, int] = field(repr=False)
    """Line of each key and list item, from 1; `()` is the whole file."""
    unread: frozenset[Path]
    """What stands there and is no value that we read; `()` when that is the whole file."""

    def line(self, path: Path) -> int:
        """Line of `path`, or of the nearest thing around it that is in the file."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)

    def problem(self, path: Path, message: str, remedy: str) -> Problem:
        return Problem(file=self.file, line=self.line(path), path=dotted(path), message=message, remedy=remedy)


def read_source(folder: FilePath, file: FilePath) -> tuple[Source | None, list[Problem]]:
    """Read `file`, which lies somewhere in `folder`. Never raises for what is in the file: it comes back as problems."""
    name = file.relative_to(folder).as_posix()

    def broken(line: int | None, message: str, remedy: str) -> tuple[None, list[Problem]]:
        return None, [Problem(file=name, line=line, path="", message=message, remedy=remedy)]

    try:
        with file.open("rb") as stream:
            raw = stream.read(LARGEST + 1)
    except OSError as error:
        return broken(None, f"cannot be read ({error.strerror})", "make it a readable file")
    if len(raw) > LARGEST:
        return broken(None, "is larger than 256 KiB", "keep project files to what a person writes")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return broken(raw[: error.start].count(b"\n") + 1, "is not UTF-8", "save it as UTF-8")
    try:
        node = YAML(pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        return broken(
            line, f"is not YAML ({error.problem or error.context})", "check indentation, quotes and colons here"
        )
    except (YAMLError, ValueError) as error:
        first_line = str(error).partition("\n")[0]
        return broken(None, f"is not YAML ({first_line})", "check indentation, quotes and colons")
    except RecursionError:
        return broken(None, f"is nested deeper than {DEEPEST} levels", "write it flatter")
    if node is None or (isinstance(node, ScalarNode) and str(node.tag).endswith(":null")):
        return broken(None, "is empty", "write the declaration, or remove the file")
    if not isinstance(node, MappingNode):
        return broken(node.start_mark.line + 1, "is not a mapping", "write keys and values, like stream: my-stream")
    reader = _Reader()
    data = reader.value(node, ())
    # What a key that is no text stands for may be any key of its mapping.
    paths = {path[:-1] if path[-1:] == (NO_KEY,) else path for _, path, _, _ in reader.mistakes}
    unread = frozenset({()} if reader.stopped else paths)
    source = Source(file=name, data=data if isinstance(data, dict) else {}, lines=reader.lines, unread=unread)
    return source, [
        Problem(file=name, line=line, path=dotted(path), message=message, remedy=remedy)
        for line, path, message, remedy in reader.mistakes
    ]


class _Reader:
    """Turns YAML's nodes into plain values: JSON's types and nothing else, dates stay text."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.mistakes: list[tuple[int, Path, str, str]] = []
        self._values = 0
        self.stopped = False
        """More than anybody writes: the rest was not looked at."""

    def value(self, node: Node, path: Path) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._values += 1
        if self.stopped:
            return None
        if self._values > MOST or len(path) > DEEPEST:
            self.stopped = True
            message = f"nested deeper than {DEEPEST} levels" if len(path) > DEEPEST else f"more than {MOST} values"
            self.mistakes.append((self.lines[path], path, message, "write it flatter, with fewer aliases"))
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, path)
        if not str(node.tag).endswith((":map", ":seq")):
            return self._foreign(node, path)
        if isinstance(node, MappingNode):
            return dict(self._items(node, path))
        return [self.value(item, (*path, position)) for position, item in enumerate(node.value)]

    def _items(self, node: MappingNode, path: Path) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode) or str(key_node.tag).endswith(":merge"):
                self.mistakes.append((line, (*path, NO_KEY), "a key that is no plain text", "write a simple key"))
                continue
            key = str(key_node.value)
            if key in seen:
                self.mistakes.append(
                    (line, (*path, key), f"{key!r} stands there twice", f"keep one, line {seen[key]} or {line}")
                )
                continue
            seen[key] = line
            self.lines[*path, key] = line
            yield key, self.value(value_node, (*path, key))

    def _scalar(self, node: Node, path: Path) -> Any:
        text = str(node.value)
        match str(node.tag).rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return text.lower() in ("true", "yes", "on")
            case "int":
                return self._number(text, path, int)
            case "float":
                return self._number(text, path, float)
            case "str" | "timestamp":
                return text
            case _:
                return self._foreign(node, path)

    def _foreign(self, node: Node, path: Path) -> None:
        message = f"tag {str(node.tag)[:60]!r} is not allowed"
        self.mistakes.append((self.lines[path], path, message, "write plain text, numbers, lists and keys"))

    def _number(self, text: str, path: Path, kind: type[int] | type[float]) -> int | float | None:
        try:
            number = kind(text)
            if number in (float("inf"), float("-inf")) or number != number:
                raise ValueError
        except ValueError:
            self.mistakes.append(
                (self.lines[path], path, f"{text[:60]!r} is no number we read", "write it in decimal digits")
            )
            return None
        return number
