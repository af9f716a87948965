"""The schema file of a stream in Avro or protobuf: where it is, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from millstream.codecs.errors import UnfitSchema
from millstream.project.problem import Fault, Refused, nearest

if TYPE_CHECKING:
    from millstream.codecs.avro_schema import AvroSchema
    from millstream.codecs.proto_schema import ProtoSchema

    WireSchema = AvroSchema | ProtoSchema
else:
    WireSchema = Any  # the libraries of a format are imported for a stream that has it

LARGEST = 256 * 1024
"""Bytes. A person writes kilobytes."""
_ENDS = {"avro": ".avsc", "protobuf": ".proto"}
_KEYS = {"avro": ("file",), "protobuf": ("file", "message")}


@dataclass(frozen=True, kw_only=True)
class SchemaFile:
    """What stands at `schema:` of such a stream."""

    file: str
    message: str | None

    @classmethod
    def read(cls, said: Mapping[str, Any], format: str) -> SchemaFile:
        """Raises Refused."""
        example = f"schema: {{file: departed{_ENDS[format]}}}"
        keys = _KEYS[format]
        if "file" not in said:
            raise Refused([Fault(message=f"names no file, and the stream is in {format}", remedy=f"write {example}")])
        faults = [
            Fault(path=(key,), message=f"unknown key {key!r}", remedy=nearest(key, keys))
            for key in said
            if key not in keys
        ]
        for key in keys:
            if key in said and not (isinstance(said[key], str) and said[key]):
                faults.append(Fault(path=(key,), message=f"{said[key]!r:.60} is no name", remedy=f"write {example}"))
        if faults:
            raise Refused(faults)
        file = said["file"]
        if Path(file).suffix != _ENDS[format] or Path(file).name != file:
            remedy = f"name a {_ENDS[format]} file that lies beside this one, without a folder"
            raise Refused(
                [Fault(path=("file",), message=f"{file!r:.60} is no {_ENDS[format]} file here", remedy=remedy)]
            )
        return cls(file=file, message=said.get("message"))

    def load(self, folder: Path, format: str, roles: frozenset[str]) -> WireSchema:
        """The schema in it. `roles`: fields that every event has. Raises Refused."""
        path = folder / self.file
        try:
            if path.stat().st_size > LARGEST:
                raise UnfitSchema("is larger than 256 KiB", "keep project files to what a person writes")
            if format == "avro":
                from millstream.codecs.avro_schema import read_avsc

                return read_avsc(path.read_text())
            from millstream.codecs.proto_schema import read_proto

            return read_proto(path, self.message, roles)
        except OSError as error:
            fault = Fault(
                path=("file",),
                message=f"{self.file} cannot be read ({error.strerror})",
                remedy="put it beside this file",
            )
        except UnicodeDecodeError:
            fault = Fault(path=("file",), message=f"{self.file} is not UTF-8", remedy="save it as UTF-8")
        except UnfitSchema as error:
            fault = Fault(path=("file",), message=f"{self.file}: {error}", remedy=error.remedy)
        raise Refused([fault])
