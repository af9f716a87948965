"""A version whose reference nobody can read needs a person, though no event says so."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from millstream.contracts.events import Step
from millstream.contracts.package import MANIFEST_FILE, REFERENCE_FILE
from millstream.runtime.packages import PackageStore
from millstream.testing import models
from millstream_cli.loop_events import Loop, loop_of
from millstream_cli.mill import MillState
from millstream_cli.unjudged import unjudged
from millstream_drift.metrics import DriftMetrics

from .exposed import exposed
from .made_events import LOOP, Journal, ref
from .test_mill_state import STATE

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """The folder of version 2."""
    reference = models.reference([], models.number("value", [1.0], importance=0))
    raw = msgspec.json.encode(reference)
    files = {REFERENCE_FILE: hashlib.sha256(raw).hexdigest()}
    manifest = msgspec.json.encode(models.manifest(LOOP, [], version="2", files=files))
    PackageStore(str(tmp_path)).save("two", {REFERENCE_FILE: raw, MANIFEST_FILE: manifest})
    return tmp_path / "two"


def answering(package: Path) -> Loop:
    """Version 2 answers."""
    sha256 = hashlib.sha256((package / MANIFEST_FILE).read_bytes()).hexdigest()
    journal = Journal()
    id = journal.state(1, Step.CHAMPION, "2")
    loop = loop_of(journal.told, LOOP)
    assert id
    model = msgspec.structs.replace(ref("2"), uri=package.as_uri(), sha256=sha256)
    loop.states[-1] = msgspec.structs.replace(loop.states[-1], champion=model)
    return loop


def mill(package: Path, drift: str = NOWHERE) -> MillState:
    return replace(STATE, packages=str(package.parent), services={"drift": drift})


@pytest.fixture
def drift() -> Iterator[tuple[DriftMetrics, str]]:
    registry = CollectorRegistry()
    with exposed(registry) as url:
        yield DriftMetrics(registry), url


async def test_where_all_can_be_read_nobody_is_needed(package: Path) -> None:
    assert await unjudged(answering(package), mill(package)) == []


async def test_a_reference_that_was_spoilt_names_its_version_and_what_is_wrong(package: Path) -> None:
    loop = answering(package)
    (package / REFERENCE_FILE).write_bytes(b"{}")
    [need] = await unjudged(loop, mill(package))
    assert need.startswith("no window is judged of version 2: reference.json has sha256 44136fa355b3")
    assert f"millstream retrain {LOOP} --reason" in need


async def test_drift_counts_the_answers_that_are_in_no_window(package: Path, drift: tuple[DriftMetrics, str]) -> None:
    metrics, address = drift
    metrics.unjudged.labels("another").inc(7)
    assert await unjudged(answering(package), mill(package, address)) == []
    metrics.unjudged.labels(LOOP).inc(1200)
    [need] = await unjudged(answering(package), mill(package, address))
    assert need.startswith("1,200 answers are in no window since drift started, because the reference of their version")
    (package / REFERENCE_FILE).unlink()
    [need] = await unjudged(answering(package), mill(package, address))
    assert "reference.json of version 2 is missing" in need
    assert "1,200 answers are in no window" in need
