"""Topics as Strimzi's operator wants them: one KafkaTopic each, as YAML."""

from __future__ import annotations

import json
from collections.abc import Sequence

from millstream.runtime.topic_admin import MOST_COPIES, TopicSpec


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
