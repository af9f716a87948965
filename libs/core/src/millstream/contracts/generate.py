"""Writes everything that is generated from the contracts: JSON Schemas, topic table, editor schemas, pages of keys.

python -m millstream.contracts.generate            rewrite what is stale
python -m millstream.contracts.generate --check    exit 1 and name what is stale
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from millstream.contracts.envelope import Envelope
from millstream.contracts.events import EVENTS, Cause, Event, RetrainDecided, RetrainRequested
from millstream.contracts.package import Manifest, Reference
from millstream.contracts.topics import RETRAIN, TOPICS, TRAINING, Topic
from millstream.project.reference import project_pages
from millstream.project.schemas import project_schemas

CONTRACTS = Path(__file__).parent / "schemas"
PROJECT = Path(__file__).parent.parent / "project" / "schemas"
REPOSITORY = Path(__file__).parents[5]


def event_schema(event: type[Event]) -> dict[str, Any]:
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": event.type_name} | msgspec.json.schema(
        event
    )


def _retention(topic: Topic) -> str:
    return f"{topic.retention.days} days" if topic.retention else "compacted"


def topic_table() -> str:
    lines = [
        "# Topics",
        "",
        "Generated from `millstream.contracts.topics`. Values are JSON in CloudEvents 1.0 Kafka binary mode: headers",
        "`ce_specversion`, `ce_id`, `ce_source`, `ce_type`, `ce_time`, and where they apply `ce_knownat`, `ce_causationid`",
        "and `traceparent`. User topics keep the names that the project gives them; dead letters of (topic, consumer",
        "group) are in `<topic>-<group>-dlq` ([what to do with them](dead-letters.md)), late events in `<stream>-late`.",
        "",
        "| topic | events | key | written by | partitions | kept | why |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for topic in TOPICS:
        events = ", ".join(f"`{event.type_name}`" for event in topic.events)
        lines.append(
            f"| `{topic.name}` | {events} | {topic.key} | {topic.owner} | {topic.partitions} | {_retention(topic)} "
            f"| {topic.why} |"
        )
    return "\n".join([*lines, *asking()]) + "\n"


def asking() -> list[str]:
    """How another system asks, with a record that it may copy."""
    event = RetrainRequested(
        id="tariffs-2026-01-01", loop="flight-delay", cause=Cause.SYSTEM, by="billing", reason="new tariffs since today"
    )
    headers = Envelope(id=event.id, type=event.type_name, source="billing").headers()
    said = {name: value for name, value in msgspec.to_builtins(event).items() if value is not None}
    return [
        "",
        "## Asking for a retrain from another system",
        "",
        f"One record to `{RETRAIN.name}`, with the loop's name as its key, these headers and this value:",
        "",
        "```",
        *(f"{name}: {value.decode()}" for name, value in headers),
        "",
        json.dumps(said),
        "```",
        "",
        "`id` is yours and the same in both; said twice it is answered once. `cause` is `system`, which the loop's",
        "`retrain.on` has to list, and `by` who asks. `at` (RFC 3339, stream time) may say up to when the run looks; left out",
        "it is the trainer's own time, and so it is where that time is more than two days ahead of what was heard of the loop.",
        "",
        f"The answer is a `{RetrainDecided.type_name}` in `{TRAINING.name}` whose `request`",
        "is that `id`: accepted, declined or coalesced, with its reason. A record that is no such event, or of no loop, is a",
        "dead letter (`millstream dlq list`). Every event's schema is in `millstream asyncapi`, who may write there in",
        "[Kafka's rights](kafka-security.md). Who has no Kafka asks the trainer over HTTP: `POST /v1/loops/{loop}/retrain`.",
    ]


def wanted() -> dict[Path, str]:
    """Every generated file and what it should hold."""

    def text(schema: dict[str, Any]) -> str:
        return json.dumps(schema, indent=2, sort_keys=True) + "\n"

    files = {CONTRACTS / f"{event.type_name}.json": text(event_schema(event)) for event in EVENTS}
    files[CONTRACTS / "manifest.v1.json"] = text(msgspec.json.schema(Manifest))
    files[CONTRACTS / "reference.v1.json"] = text(msgspec.json.schema(Reference))
    files[REPOSITORY / "docs" / "topics.md"] = topic_table()
    files |= {REPOSITORY / "docs" / name: page for name, page in project_pages().items()}
    for name, schema in project_schemas().items():
        files[PROJECT / name] = schema
    return files


def stale() -> list[Path]:
    """Generated files that are missing, differ from what they should hold, or belong to nothing any more."""
    files = wanted()
    changed = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    orphans = [path for path in CONTRACTS.glob("*.json") if path not in files]
    return changed + orphans


def main() -> int:
    found = stale()
    if "--check" in sys.argv[1:]:
        for path in found:
            print(f"stale: {path.relative_to(REPOSITORY)} (run: make generate)")
        return 1 if found else 0
    files = wanted()
    for path in found:
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
        else:
            path.unlink()
        print(f"wrote {path.relative_to(REPOSITORY)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
