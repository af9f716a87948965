"""A departure as JSON, Avro and protobuf carry it, with every kind of value that has a rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from millstream.project import Stream

AVSC: dict[str, Any] = {
    "type": "record",
    "name": "Departed",
    "namespace": "flights",
    "fields": [
        {"name": "flight_id", "type": "string"},
        {"name": "tailnum", "type": "string"},
        {"name": "departed_at", "type": {"type": "long", "logicalType": "timestamp-micros"}, "doc": "off the gate"},
        {"name": "delay", "type": ["null", "double"], "default": None},
        {"name": "seats", "type": "int", "default": 0},
        {"name": "fare", "type": [{"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}, "null"]},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "trip", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "boarding", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["PASSENGER", "CARGO"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "seal", "type": "bytes"},
    ],
}
DEPARTURE: dict[str, Any] = {
    "flight_id": "F1",
    "tailnum": "N725MQ",
    "departed_at": "2013-06-01T12:00:00.250000Z",
    "delay": 12.5,
    "seats": 50,
    "fare": 129.99,
    "day": "2013-06-01",
    "trip": "6f0c2f2e-3d0f-4a5c-9f0e-0c6a8f1f2b3c",
    "boarding": "11:20:00",
    "kind": "CARGO",
    "tags": ["late", "full"],
    "seal": "AAH/",
}
PROTO = """
syntax = "proto3";
package flights;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

// message Comment { that is none }
message Gate { string name = 1; }

message Departed {
  enum Kind { PASSENGER = 0; CARGO = 1; }
  message Leg { string to = 1; int64 metres = 2; }
  string flight_id = 1;
  string tailnum = 2;
  google.protobuf.Timestamp departed_at = 3;
  google.protobuf.DoubleValue delay = 4;
  int64 fuel = 5;
  Kind kind = 6;
  repeated Leg legs = 7;
  map<string, int32> bags = 8;
  oneof paid { double cash = 9; string voucher = 10; }
  optional int32 gate = 11;
  bytes seal = 12;
}
"""
FLOWN: dict[str, Any] = {
    "flight_id": "F1",
    "tailnum": "N725MQ",
    "departed_at": "2013-06-01T12:00:00.250000Z",
    "delay": 12.5,
    "fuel": 9_007_199_254_740_993,
    "kind": "CARGO",
    "legs": [{"to": "ORD", "metres": 1_180_000}],
    "bags": {"economy": 3},
    "voucher": "V7",
    "seal": "AAH/",
}


def stream_of(folder: Path, format: str, text: str | None = None, **more: Any) -> Stream:
    """The stream of departures in `format`, its schema file in `folder`."""
    file = folder / ("departed.avsc" if format == "avro" else "departed.proto")
    file.write_text(text if text is not None else json.dumps(AVSC) if format == "avro" else PROTO)
    schema = {"file": file.name} | ({"message": "Departed"} if format == "protobuf" else {})
    said = {
        "stream": "flights-departed",
        "description": "A flight left the gate.",
        "key": "tailnum",
        "id": "flight_id",
        "time": "departed_at",
        "format": format,
        "schema": schema | more,
    }
    return Stream.model_validate(said, context={"folder": folder})
