"""Topics and users as Strimzi's operator wants them, one KafkaTopic or KafkaUser each, as YAML."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from millstream.runtime.topic_admin import MOST_COPIES, TopicSpec
from millstream_cli.kafka_rights import Rights


def kafka_topics(specs: Sequence[TopicSpec], cluster: str) -> str:
    """Manifests (kafka.strimzi.io/v1) for the Kafka that Strimzi calls `cluster`, in the order of `specs`."""
    return "".join(_manifest(spec, cluster) for spec in specs)


def _manifest(spec: TopicSpec, cluster: str) -> str:
    config = "".join(f"    {key}: {json.dumps(value)}\n" for key, value in spec.config().items())
    return (
        "---\n"
        "apiVersion: kafka.strimzi.io/v1\n"
        "kind: KafkaTopic\n"
        f"metadata:\n  name: {spec.name}\n  labels:\n    strimzi.io/cluster: {cluster}\n"
        f"spec:\n  partitions: {spec.partitions}\n  replicas: {MOST_COPIES}\n  config:\n{config}"
    )


def kafka_users(rights: Sequence[Rights], cluster: str) -> str:
    """Manifests (kafka.strimzi.io/v1) of one user a service, `millstream-SERVICE`, with a password that Strimzi makes."""
    return "".join(_user(one, cluster) for one in rights)


def acls(one: Rights) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Kind and name of each resource, and what may be done with it; all literal, none by prefix."""
    yield from _each("topic", one.reads - one.writes, "Describe", "Read")
    yield from _each("topic", one.reads & one.writes, "Describe", "Read", "Write")
    yield from _each("topic", one.writes - one.reads, "Describe", "Write")
    yield from _each("topic", one.describes - one.reads - one.writes, "Describe")
    yield from _each("group", one.groups, "Describe", "Read")
    yield from _each("group", one.looks_at, "Describe")
    yield from _each("transactionalId", one.transactional, "Describe", "Write")


def _each(kind: str, names: Iterable[str], *operations: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    yield from ((kind, name, operations) for name in sorted(names))


def _user(one: Rights, cluster: str) -> str:
    lines = [
        "---",
        "apiVersion: kafka.strimzi.io/v1",
        "kind: KafkaUser",
        f"metadata:\n  name: millstream-{one.service}\n  labels:\n    strimzi.io/cluster: {cluster}",
        "spec:\n  authentication:\n    type: scram-sha-512\n  authorization:\n    type: simple\n    acls:",
    ]
    for kind, name, operations in acls(one):
        lines.append(f"      - resource: {{ type: {kind}, name: {name}, patternType: literal }}")
        lines.append(f"        operations: [{', '.join(operations)}]")
    return "\n".join(lines) + "\n"
