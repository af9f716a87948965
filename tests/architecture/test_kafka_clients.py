"""Every client of Kafka is made in one place: one that is made elsewhere would knock in plain text, without a name."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path.relative_to(ROOT)
    for folder in ("libs", "services")
    for path in (ROOT / folder).glob("*/src/**/*.py")
    if "testing" not in path.parts
)
MADE = re.compile(r"\b(AIOKafka(Consumer|Producer|AdminClient|Client)\(|KafkaBroker\(|bootstrap_servers\b)")
RUNTIME = Path("libs/core/src/millstream/runtime")
SERVICE = RUNTIME / "service.py"
JOBS = (
    Path("services/serving/src/millstream_serving/adapters/score_job.py"),
    Path("services/trainer/src/millstream_trainer/adapters/taking_job.py"),
)
"""Programs of their own."""


def test_clients_are_made_in_one_place() -> None:
    made = {path for path in SOURCES if MADE.search((ROOT / path).read_text())}

    assert made == {RUNTIME / "kafka_clients.py", SERVICE}, "write Consumer, Producer or Admin of runtime.kafka_clients"
    assert "security=faststream_security(self.kafka)" in (ROOT / SERVICE).read_text()


def test_nobody_takes_the_address_without_the_entry() -> None:
    taken = {path for path in SOURCES if "settings.kafka" in (ROOT / path).read_text()}

    assert taken == {SERVICE, *JOBS}, "write service.kafka"
    for path in taken:
        assert "settings.at(settings.kafka)" in (ROOT / path).read_text()
