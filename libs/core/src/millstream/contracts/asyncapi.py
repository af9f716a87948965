"""The topics as AsyncAPI 3: what lies in each of ours, and in each stream of a project.

https://www.asyncapi.com/docs/reference/specification/v3.0.0
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import msgspec

from millstream.contracts.events import Event
from millstream.contracts.topics import TOPICS, Topic
from millstream.project.stream import Stream

_JSON = "application/schema+json;version=draft-07"
"""As AsyncAPI calls JSON Schema. Ours are of 2020-12, of which tools that know draft-07 understand nearly all."""
_FORMATS = {
    "json": _JSON,
    "avro": "application/vnd.apache.avro+json;version=1.12.0",
    "protobuf": "application/vnd.google.protobuf;version=3",
}
_CONTENT = {
    "json": "application/json",
    "avro": "application/vnd.apache.avro",
    "protobuf": "application/vnd.google.protobuf",
}
_TEXT = {"type": "string"}
_HEADERS = {
    "type": "object",
    "description": "CloudEvents 1.0, Kafka protocol binding, binary mode",
    "properties": {
        "ce_specversion": {"const": "1.0"},
        "ce_id": _TEXT,
        "ce_source": _TEXT,
        "ce_type": _TEXT,
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_knownat": {
            "type": "string",
            "format": "date-time",
            "description": "When it became known; else Kafka's own time",
        },
        "ce_causationid": {"type": "string", "description": "Id of the event that caused this one"},
        "traceparent": {"type": "string", "description": "W3C Trace Context"},
    },
}


def asyncapi(streams: Mapping[str, Stream]) -> dict[str, Any]:
    """The document of a project with `streams`; of our own topics alone where there are none."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    schemas: dict[str, Any] = {"cloudevent": _HEADERS}
    for name, stream in sorted(streams.items()):
        message = f"stream.{name}.v1"
        messages[message] = _message(message, stream.description, _CONTENT[stream.format], _stream_payload(stream))
        channels[name] = _channel(name, stream.description, stream.key, [message], stream.partitions, _kept(stream))
        operations[f"send-{name}"] = _operation("receive", name, "Producers send events, by ingest or by Kafka itself.")
    for topic in TOPICS:
        for event in topic.events:
            messages[event.type_name] = _message(
                event.type_name, _about(event), _CONTENT["json"], _payload(event, schemas)
            )
        names = [event.type_name for event in topic.events]
        channels[topic.name] = _channel(topic.name, topic.why, topic.key, names, topic.partitions, _days(topic))
        action = "receive" if topic.owner == "people and other systems" else "send"
        operations[f"{action}-{topic.name}"] = _operation(action, topic.name, f"Written by {topic.owner}.")
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Millstream topics",
            "version": "1",
            "description": "Dead letters of (topic, consumer group) are in <topic>-<group>-dlq, late events in <stream>-late.",
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _channel(
    name: str, why: str, key: str, messages: list[str], partitions: int, kept: timedelta | None
) -> dict[str, Any]:
    policy = (
        {"cleanup.policy": ["compact"]} if kept is None else {"retention.ms": round(kept / timedelta(milliseconds=1))}
    )
    binding = {"topic": name, "partitions": partitions, "topicConfiguration": policy, "bindingVersion": "0.5.0"}
    return {
        "address": name,
        "description": f"{why} Record key: {key}.",
        "messages": {one: {"$ref": f"#/components/messages/{one}"} for one in messages},
        "bindings": {"kafka": binding},
    }


def _operation(action: str, channel: str, said: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "description": said}


def _message(name: str, said: str, content: str, payload: Any) -> dict[str, Any]:
    return {
        "name": name,
        "summary": said,
        "contentType": content,
        "headers": {"$ref": "#/components/schemas/cloudevent"},
        "payload": payload,
    }


def _stream_payload(stream: Stream) -> dict[str, Any]:
    if stream.wire is None:
        place = f"#/components/messages/stream.{stream.name}.v1/payload/schema"
        return {"schemaFormat": _JSON, "schema": moved(stream.event_schema, place)}
    text = stream.wire.text
    return {"schemaFormat": _FORMATS[stream.format], "schema": json.loads(text) if stream.format == "avro" else text}


def _payload(event: type[Event], schemas: dict[str, Any]) -> dict[str, Any]:
    (schema,), parts = msgspec.json.schema_components([event], ref_template="#/components/schemas/{name}")
    schemas |= parts
    return schema


def moved(schema: Any, place: str) -> Any:
    """`schema` as it lies at `place` of another document: what it refers to in itself is there."""
    if isinstance(schema, dict):
        found = {name: moved(said, place) for name, said in schema.items()}
        if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
            found["$ref"] = place + reference[1:]
        return found
    if isinstance(schema, list):
        return [moved(said, place) for said in schema]
    return schema


def _about(event: type[Event]) -> str:
    return (event.__doc__ or event.type_name).strip().partition("\n")[0]


def _kept(stream: Stream) -> timedelta:
    return timedelta(microseconds=stream.retention)


def _days(topic: Topic) -> timedelta | None:
    return topic.retention
