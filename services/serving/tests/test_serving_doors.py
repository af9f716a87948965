"""One image, two deployments: a replica is asked over HTTP, over Kafka, or both."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
from pydantic import ValidationError

from millstream.runtime.service import Service
from millstream_serving.adapters.memory import MemoryFeatureStore, MemoryFreshness, MemoryRuntime
from millstream_serving.app import create_app
from millstream_serving.settings import Settings

FLIGHTS = Path(__file__).parents[3] / "examples" / "flights"


def replica(doors: Literal["both", "http", "kafka"], data: Path) -> Service:
    return create_app(
        Settings(project=FLIGHTS, data=data, packages=str(data), doors=doors),
        store=MemoryFeatureStore(),
        runtime=MemoryRuntime(),
        freshness=MemoryFreshness(),
    )


def heard(service: Service) -> set[str]:
    return {topic for subscription in service._subscriptions for topic in subscription.topics}


def paths(service: Service) -> set[str]:
    return set(service.app.openapi()["paths"])


PROBES = {"/livez", "/readyz", "/metrics"}


def test_a_replica_is_asked_at_both_doors_unless_told_otherwise(tmp_path: Path) -> None:
    service = replica("both", tmp_path)

    assert heard(service) == {"flights-scheduled"}
    assert "/v1/loops/{loop}/predict" in paths(service)


def test_a_replica_at_the_door_of_http_hears_no_question(tmp_path: Path) -> None:
    service = replica("http", tmp_path)

    assert heard(service) == set()
    assert "/v1/loops/{loop}/predict" in paths(service)


def test_a_scorer_answers_over_http_only_how_it_is(tmp_path: Path) -> None:
    service = replica("kafka", tmp_path)

    assert heard(service) == {"flights-scheduled"}
    assert paths(service) == PROBES
    assert not service.app.doors


def test_every_replica_learns_the_models(tmp_path: Path) -> None:
    for doors in ("both", "http", "kafka"):
        kept = {what for what, _ in replica(doors, tmp_path / doors)._loops}

        assert kept >= {"reading models", "loading models", "saying which models are obeyed"}


def test_another_door_is_refused() -> None:
    with pytest.raises(ValidationError, match="'both', 'http' or 'kafka'"):
        Settings(doors="grpc")  # type: ignore[arg-type]
