"""The reader behind `tests/e2e/test_compose_runs.py` finds what it is for: a wrong port, a wrong path, no such program."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.compose_file import Mount, Service, read_compose
from tests.e2e.compose_mill import ComposeMill


def mill(folder: Path, **environment: str) -> ComposeMill:
    services = read_compose("docker-compose.yml")
    job = Service(
        name="job",
        image=None,
        command=[],
        entrypoint=["sh", "-c", "printenv SAID"],
        environment=environment,
        mounts=[Mount(source="shared", target="/shared", read_only=False)],
        published={},
        after={},
    )
    return ComposeMill({**services, "job": job}, folder, {("kafka", 9092): "127.0.0.1:29092"})


def test_names_and_paths_of_the_container_become_those_of_here(tmp_path: Path) -> None:
    assert mill(tmp_path, SAID="kafka:9092").run("job") == "127.0.0.1:29092\n"
    assert mill(tmp_path, SAID="/shared/lake").run("job") == f"{tmp_path}/volumes/shared/lake\n"
    assert mill(tmp_path, SAID="http://serving:8080/v1").run("job").startswith("http://127.0.0.1:")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("kafka:9093", "job is told kafka:9093, and nobody listens there"),
        ("http://serving:8000", "job is told serving:8000, and nobody listens there"),
        ("/data/lake", "job is told /data/lake, and nothing is mounted there"),
        ("/sharedlake", "job is told /sharedlake, and nothing is mounted there"),
        ("/opt/venv/bin/millstraem", "job starts /opt/venv/bin/millstraem, which no package brings"),
    ],
)
def test_what_would_not_work_in_a_container_is_found(said: str, why: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=why):
        mill(tmp_path, SAID=said).run("job")


def test_a_job_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="job ended with 1"):
        mill(tmp_path, OTHER="1").run("job")


def test_anchors_defaults_and_a_second_file_are_read_as_docker_reads_them() -> None:
    both = read_compose("docker-compose.yml", "compose.observability.yml", environment={"POSTGRES_PASSWORD": "grain"})
    assert both["ingest"].environment["MILLSTREAM_KAFKA"] == "kafka:9092"
    assert both["ingest"].environment["MILLSTREAM_OTLP_ENDPOINT"] == "http://otel-collector:4318"
    assert both["ingest"].published == {8080: 8101}
    assert "mlflow:grain@postgres" in "".join(both["mlflow"].command)
    assert "mlflow:mlflow@postgres" in "".join(read_compose("docker-compose.yml")["mlflow"].command)
