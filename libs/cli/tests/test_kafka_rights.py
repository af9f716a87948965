"""The rights of the five services, as KafkaUsers: complete, literal, and each topic written by whom its card says."""

from __future__ import annotations

from pathlib import Path

from ruamel.yaml import YAML

from millstream.contracts.topics import RETRAIN, TOPICS
from millstream.project import load_project
from millstream_cli.kafka_rights import rights_of
from millstream_cli.strimzi import kafka_users
from millstream_cli.topics import topics_of

from .test_main import millstream

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


def test_a_topic_of_ours_is_written_by_its_owner() -> None:
    writers = {
        topic.name: {one.service for one in rights_of(load_project(FLIGHTS)) if topic.name in one.writes}
        for topic in TOPICS
    }
    services = {one.service for one in rights_of(load_project(FLIGHTS))}
    for topic in TOPICS:
        # Anyone may ask for a retrain, the trainer too, for who calls its API. What people write no service may.
        wanted = {"trainer"} if topic is RETRAIN else {topic.owner} & services
        assert writers[topic.name] == wanted, topic.name


def test_a_right_is_for_a_topic_that_is_made() -> None:
    made = {spec.name for spec in topics_of(load_project(FLIGHTS))}
    for one in rights_of(load_project(FLIGHTS)):
        assert one.reads | one.writes | one.describes <= made, one.service


def test_a_user_is_literal_and_has_its_password_from_strimzi() -> None:
    users = list(YAML(typ="safe").load_all(kafka_users(rights_of(load_project(FLIGHTS)), "mill")))
    assert [user["metadata"]["name"] for user in users] == [
        f"millstream-{service}" for service in ("ingest", "features", "serving", "drift", "trainer")
    ]
    for user in users:
        assert user["metadata"]["labels"] == {"strimzi.io/cluster": "mill"}
        assert user["spec"]["authentication"] == {"type": "scram-sha-512"}
        for acl in user["spec"]["authorization"]["acls"]:
            assert acl["resource"]["patternType"] == "literal"
            assert set(acl["operations"]) <= {"Read", "Write", "Describe"}
            assert set(acl) == {"resource", "operations"}


def test_the_command_prints_topics_and_users_and_asks_no_kafka() -> None:
    said = millstream(
        *("topics", "--project", FLIGHTS, "--strimzi", "mill", "--users", "mill", "--kafka", "127.0.0.1:1")
    )
    assert said.returncode == 0, said.stderr
    kinds = [one["kind"] for one in YAML(typ="safe").load_all(said.stdout)]
    assert kinds == ["KafkaTopic"] * kinds.count("KafkaTopic") + ["KafkaUser"] * 5
