"""The topics of a project as Strimzi's operator wants them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from ruamel.yaml import YAML

from millstream.project import load_project
from millstream.runtime.topic_admin import TopicSpec
from millstream_cli.strimzi import kafka_topics
from millstream_cli.topics import topics_of

from .test_main import millstream

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


def test_a_topic_keeps_its_partitions_and_its_retention() -> None:
    spec = TopicSpec(name="flights-landed", partitions=6, retention=timedelta(days=30))

    (topic,) = YAML(typ="safe").load_all(kafka_topics([spec], "mill"))

    assert topic == {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaTopic",
        "metadata": {"name": "flights-landed", "labels": {"strimzi.io/cluster": "mill"}},
        "spec": {"partitions": 6, "replicas": 3, "config": {"retention.ms": "2592000000"}},
    }


def test_a_compacted_topic_is_compacted() -> None:
    (topic,) = YAML(typ="safe").load_all(kafka_topics([TopicSpec(name="x", partitions=1, retention=None)], "mill"))

    assert topic["spec"]["config"] == {"cleanup.policy": "compact"}


def test_the_command_prints_every_topic_that_it_would_create_and_asks_no_kafka() -> None:
    said = millstream("topics", "--project", FLIGHTS, "--strimzi", "mill", "--kafka", "127.0.0.1:1")

    assert said.returncode == 0, said.stderr
    printed = [topic["metadata"]["name"] for topic in YAML(typ="safe").load_all(said.stdout)]
    assert printed == [spec.name for spec in topics_of(load_project(FLIGHTS))]
