"""A .proto file as a stream uses it: compiled by protoc, kept within what JSON can say, and said as JSON Schema."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from millstream.codecs.errors import UnfitSchema

WITHIN = 30.0
"""Seconds for protoc. It takes 0.2 on a free core."""
SPECIAL: Mapping[str, dict[str, Any]] = {
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {"type": "string"},
    "google.protobuf.StringValue": {"type": "string"},
    "google.protobuf.BytesValue": {"type": "string", "contentEncoding": "base64"},
    "google.protobuf.BoolValue": {"type": "boolean"},
    "google.protobuf.DoubleValue": {"type": "number"},
    "google.protobuf.FloatValue": {"type": "number"},
    "google.protobuf.Int32Value": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "google.protobuf.UInt32Value": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    "google.protobuf.Int64Value": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "google.protobuf.UInt64Value": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
}
"""Well-known types and what JSON carries for them: https://protobuf.dev/programming-guides/json/, but for 64-bit integers,
which are numbers here, as in the JSON of everybody else."""
_SCALARS: Mapping[int, dict[str, Any]] = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
    FieldDescriptor.CPPTYPE_INT32: SPECIAL["google.protobuf.Int32Value"],
    FieldDescriptor.CPPTYPE_UINT32: SPECIAL["google.protobuf.UInt32Value"],
    FieldDescriptor.CPPTYPE_INT64: SPECIAL["google.protobuf.Int64Value"],
    FieldDescriptor.CPPTYPE_UINT64: SPECIAL["google.protobuf.UInt64Value"],
}


@dataclass(frozen=True, kw_only=True)
class ProtoSchema:
    """One message of a stream's own file. Pickles: whoever decodes makes the message's class of `files`."""

    text: str
    message: str
    """Full name."""
    files: bytes
    """FileDescriptorSet, with what it imports."""
    json_schema: dict[str, Any]

    def descriptor(self) -> Descriptor:
        return _pool_of(self.files).FindMessageTypeByName(self.message)

    def indexes(self) -> tuple[int, ...]:
        """Where the message stands in its file, outermost first."""
        found, one = [], self.descriptor()
        while one is not None:
            around = one.containing_type
            siblings = one.file.message_types_by_name if around is None else around.nested_types_by_name
            found.append(list(siblings).index(one.name))
            one = around
        return tuple(reversed(found))


def read_proto(file: Path, message: str | None, required: frozenset[str]) -> ProtoSchema:
    """The message of a .proto file. Raises UnfitSchema; OSError where the file cannot be read.

    `required`: fields that no event is without, although protobuf can leave them out.
    """
    text = file.read_text()
    files = compiled(text, file.name)
    pool = _pool_of(files)
    own = pool.FindFileByName(file.name)
    for imported in own.dependencies:
        if not imported.name.startswith("google/protobuf/"):
            raise UnfitSchema(f"imports {imported.name!r}", "write all messages of an event in one file")
    names = sorted(_below(own.message_types_by_name.values()))
    outer = [one.full_name for one in own.message_types_by_name.values()]
    if message is None:
        if len(outer) != 1:
            listed = ", ".join(names) or "none"
            raise UnfitSchema(f"has {len(outer)} messages", f"say which is the event, message: NAME; known: {listed}")
        (message,) = outer
    full = next((name for name in names if message in (name, name.removeprefix(f"{own.package}."))), None)
    if full is None:
        raise UnfitSchema(f"has no message {message!r}", f"known: {', '.join(names) or 'none'}")
    described = _describe(pool.FindMessageTypeByName(full), (), required)
    return ProtoSchema(text=text, message=full, files=files, json_schema=described)


def message_names(text: str) -> Callable[[tuple[int, ...]], str | None]:
    """Full name of the message with these indexes in a .proto text, None where it has none.

    Names and braces are all that is read: what a producer registered need not compile here, imports and all.
    Raises UnfitSchema where braces do not match.
    """
    found: dict[tuple[int, ...], str] = {}
    package = ""
    levels: list[tuple[tuple[int, ...], str, list[int]] | None] = [((), "", [0])]
    """Around where we read: a message's indexes, name and count of messages in it; None for a block of another kind."""
    tokens = _TOKENS.findall(_NO_CODE.sub(lambda m: "" if m[0][0] == "/" else '""', text))
    for position, token in enumerate(tokens):
        if token == "package" and len(levels) == 1:
            package = tokens[position + 1] + "." if position + 1 < len(tokens) else ""
        elif token == "{":
            before, name = (tokens[position - 2], tokens[position - 1]) if position > 1 else ("", "")
            around = levels[-1]
            if before == "message" and around is not None:
                indexes, outer, count = around
                here = (*indexes, count[0])
                count[0] += 1
                found[here] = outer + name
                levels.append((here, f"{outer}{name}.", [0]))
            else:
                levels.append(None)
        elif token == "}":
            levels.pop()
            if not levels:
                break
    if len(levels) != 1:
        raise UnfitSchema("is no .proto file: its braces do not match", "register what protoc compiles")
    return lambda indexes: package + found[indexes] if indexes in found else None


_NO_CODE = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'""", re.DOTALL)
_TOKENS = re.compile(r"[A-Za-z_][\w.]*|[{}]|[^\s\w{}]")


@lru_cache(maxsize=64)
def compiled(text: str, name: str) -> bytes:
    """FileDescriptorSet of a .proto text, what it imports first. Raises UnfitSchema.

    In a process of its own: protoc writes what is wrong to the standard error of the process.
    """
    with tempfile.TemporaryDirectory(prefix="millstream-proto-") as folder:
        Path(folder, name).write_text(text)
        out = Path(folder, "out.desc")
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"-I{_wellknown()}", "--include_imports"]
        environment = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "PYTHONPATH")}
        try:
            ran = subprocess.run(
                [*command, f"--descriptor_set_out={out}", name],
                capture_output=True,
                text=True,
                timeout=WITHIN,
                check=False,
                env=environment,
            )
        except subprocess.TimeoutExpired as error:
            raise UnfitSchema("protoc did not finish", "write a smaller file") from error
        if ran.returncode or not out.exists():
            said = [line.removeprefix(f"{folder}/") for line in ran.stderr.splitlines() if line.strip()] or [
                "no reason"
            ]
            raise UnfitSchema(f"does not compile ({said[0][:300]})", "mend what protoc names")
        return out.read_bytes()


def _wellknown() -> str:
    import grpc_tools

    return str(Path(grpc_tools.__file__).parent / "_proto")


@lru_cache(maxsize=64)
def _pool_of(files: bytes) -> descriptor_pool.DescriptorPool:
    # A pool of its own: two streams may have two versions of one message.
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(files).file:
        pool.Add(file)
    return pool


def _below(messages: Any) -> list[str]:
    found = []
    for one in messages:
        if not one.GetOptions().map_entry:
            found += [one.full_name, *_below(one.nested_types)]
    return found


def _describe(message: Descriptor, around: tuple[str, ...], required: frozenset[str]) -> dict[str, Any]:
    if message.full_name in around:
        raise UnfitSchema(
            f"{message.full_name} holds itself", "write the levels that an event really has as messages of their own"
        )
    within = (*around, message.full_name)
    properties: dict[str, Any] = {}
    always = []
    for field in message.fields:
        said = _field(field, within)
        if not field.has_presence or field.name in required or field.is_required:
            always.append(field.name)
        elif isinstance(said.get("type"), str):
            said |= {"type": [said["type"], "null"]} | ({"enum": [*said["enum"], None]} if "enum" in said else {})
        properties[field.name] = said
    return {"type": "object", "required": always, "properties": properties, "additionalProperties": False}


def _field(field: FieldDescriptor, within: tuple[str, ...]) -> dict[str, Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _value(field.message_type.fields_by_name["value"], within)}
    one = _value(field, within)
    return {"type": "array", "items": one} if field.is_repeated else one


def _value(field: FieldDescriptor, within: tuple[str, ...]) -> dict[str, Any]:
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": "string", "contentEncoding": "base64"}
    if field.message_type is None:
        return dict(_SCALARS[field.cpp_type])
    name = field.message_type.full_name
    if name in SPECIAL:
        return dict(SPECIAL[name])
    if name.startswith("google.protobuf."):
        known = ", ".join(sorted(one.removeprefix("google.protobuf.") for one in SPECIAL))
        raise UnfitSchema(f"{field.name} is a {name}", f"write a message of its own; known of google.protobuf: {known}")
    return _describe(field.message_type, within, frozenset())
