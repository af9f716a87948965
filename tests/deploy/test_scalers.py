"""The scalers: what KEDA is asked, in words that it knows, about the groups that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from .charts import EXAMPLES, ROOT, documents, of_kind, template


@pytest.mark.parametrize(("chart", "values"), [pair for pair in EXAMPLES if pair[1] != "minimal-values.yaml"])
def test_triggers_say_what_keda_knows(chart: str, values: str, helm: Path, schemas: Path) -> None:
    """KEDA takes a misspelt key and shows it only as Ready=False."""
    known = json.loads((schemas / "triggers.json").read_text())
    for scaler in of_kind(documents(template(helm, chart, values)), "ScaledObject"):
        for trigger in scaler["spec"]["triggers"]:
            parameters = {parameter["name"]: parameter for parameter in known[trigger["type"]]}
            assert set(trigger["metadata"]) <= set(parameters)
            assert all(isinstance(value, str) for value in trigger["metadata"].values())
            needed = {
                n
                for n, p in parameters.items()
                if not p.get("optional") and "default" not in p and p.get("metadataVariableReadable")
            }
            assert needed <= set(trigger["metadata"])


def test_lag_is_read_as_the_consumers_read(helm: Path) -> None:
    (scaler,) = of_kind(documents(template(helm, "features", "keda-values.yaml")), "ScaledObject")

    triggers = {trigger["name"]: trigger["metadata"] for trigger in scaler["spec"]["triggers"]}
    assert set(triggers) == {
        *("features-tiles-parcels-sent", "features-lake-parcels-sent", "features-lake-parcels-weighed")
    }, "no view reads parcels-weighed: the tiles' group has no offsets there, and KEDA would take all of it for lag"
    assert triggers["features-tiles-parcels-sent"] == {
        "bootstrapServers": "kafka-bootstrap.kafka:9092",
        "version": "3.6.0",
        "consumerGroup": "features-tiles",
        "topic": "parcels-sent",
        "lagThreshold": "20000",
        "offsetResetPolicy": "earliest",
        "allowIdleConsumers": "false",
        "scaleToZeroOnInvalidOffset": "false",
        "limitToPartitionsWithLag": "true",
        "excludePersistentLag": "true",
    }
    behavior = scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 30
    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 600,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
    }
    assert scaler["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_groups_are_those_of_the_code(helm: Path) -> None:
    heard = {"features": set(), "serving": set()}
    for service in heard:
        text = (ROOT / "services" / service / "src" / f"millstream_{service}" / "subscribers.py").read_text()
        heard[service] = set(re.findall(r'^[A-Z]+ = "([a-z-]+)"$', text, re.MULTILINE)) | {"features-tiles"}
    for part in ("all", "tiles", "lake", "skew"):
        found = documents(template(helm, "features", "keda-values.yaml", f"part={part}"))
        (scaler,) = of_kind(found, "ScaledObject")
        assert {trigger["metadata"]["consumerGroup"] for trigger in scaler["spec"]["triggers"]} <= heard["features"]
    scalers = of_kind(documents(template(helm, "serving", "everything-values.yaml")), "ScaledObject")
    scorer = next(one for one in scalers if one["metadata"]["name"] == "serving-scorer")
    assert {trigger["metadata"]["consumerGroup"] for trigger in scorer["spec"]["triggers"]} == {"serving"}
    assert scorer["spec"]["minReplicaCount"] == 0


@pytest.mark.parametrize("service", ["ingest", "serving"])
def test_a_scaler_tells_no_load_from_no_pods(service: str, helm: Path) -> None:
    found = of_kind(documents(template(helm, service, "everything-values.yaml")), "ScaledObject")
    triggers = [
        trigger for scaler in found for trigger in scaler["spec"]["triggers"] if trigger["type"] == "prometheus"
    ]

    assert triggers
    for trigger in triggers:
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        query = trigger["metadata"]["query"]
        # A counter with labels has no series before its first event.
        assert query.count("sum(rate(") == query.count(f' or 0 * sum(up{{namespace="mill",service="{service}"}})')
