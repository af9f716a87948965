"""The scalers: what KEDA is asked, in words that it knows, about the groups that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from millstream_cli.autoscaler import Behavior, Pace
from millstream_cli.scaling_values import read
from millstream_drift.subscribers import shares

from .charts import EXAMPLES, ROOT, documents, of_kind, template


@pytest.mark.parametrize(("chart", "values"), [pair for pair in EXAMPLES if pair[1] != "minimal-values.yaml"])
def test_triggers_say_what_keda_knows(chart: str, values: str, helm: Path, schemas: Path) -> None:
    """KEDA takes a misspelt key and shows it only as Ready=False."""
    known = json.loads((schemas / "triggers.json").read_text())
    found = documents(template(helm, chart, values))
    for scaler in (*of_kind(found, "ScaledObject"), *of_kind(found, "ScaledJob")):
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
    assert all(trigger["useCachedMetrics"] for trigger in scaler["spec"]["triggers"]), (
        "else pollingInterval is obeyed by nobody"
    )
    behavior = scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    assert behavior["scaleUp"]["stabilizationWindowSeconds"] == 30
    assert behavior["scaleDown"] == {
        "stabilizationWindowSeconds": 600,
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 120}],
    }
    assert scaler["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"


def test_keda_is_let_into_kafka_as_the_pods_are(helm: Path, schemas: Path) -> None:
    """What it is given for that, and who the pods are, comes from the same Secrets and the pods' own variables."""
    known = {p["name"]: p for p in json.loads((schemas / "triggers.json").read_text())["kafka"]}
    for chart, name in (("features", "features"), ("serving", "serving-scorer")):
        found = documents(template(helm, chart, "everything-values.yaml"))
        (authentication,) = of_kind(found, "TriggerAuthentication")
        scaler = next(one for one in of_kind(found, "ScaledObject") if one["metadata"]["name"] == name)
        pod = next(one for one in of_kind(found, "Deployment") if one["metadata"]["name"] == name)["spec"]["template"][
            "spec"
        ]
        environment = {one["name"]: one for one in pod["containers"][0]["env"]}
        secrets = {volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        secrets.add(environment["MILLSTREAM_KAFKA_PASSWORD"]["valueFrom"]["secretKeyRef"]["name"])

        assert authentication["metadata"]["name"] == name
        triggers = [trigger for trigger in scaler["spec"]["triggers"] if trigger["type"] == "kafka"]
        assert triggers
        for trigger in triggers:
            assert trigger["authenticationRef"] == {"name": name}
            assert trigger["metadata"]["tls"] == "enable"
            assert trigger["metadata"]["sasl"] in known["sasl"]["allowedValue"]
            assert trigger["metadata"]["sasl"] == "scram_sha512"
        given = [*authentication["spec"]["env"], *authentication["spec"]["secretTargetRef"]]
        assert {one["parameter"] for one in given} == {"username", "password", "ca"}
        assert all(known[one["parameter"]]["triggerAuthenticationVariableReadable"] for one in given)
        assert {one["name"] for one in authentication["spec"]["secretTargetRef"]} <= secrets
        assert environment[authentication["spec"]["env"][0]["name"]]["value"] == chart


@pytest.mark.parametrize(
    ("said", "sasl"),
    [
        ("PLAIN", "plaintext"),
        ("SCRAM-SHA-256", "scram_sha256"),
        ("SCRAM-SHA-512", "scram_sha512"),
        ("", "scram_sha512"),
    ],
)
def test_mechanisms_have_kedas_own_names(said: str, sasl: str, helm: Path) -> None:
    found = documents(template(helm, "features", "everything-values.yaml", f"kafka.mechanism={said}"))
    (scaler,) = of_kind(found, "ScaledObject")
    assert {trigger["metadata"]["sasl"] for trigger in scaler["spec"]["triggers"] if trigger["type"] == "kafka"} == {
        sasl
    }


def groups_of(scaler: dict[str, Any]) -> list[str]:
    """Consumer groups whose lag counts."""
    return [t["metadata"]["consumerGroup"] for t in scaler["spec"]["triggers"] if t["type"] == "kafka"]


def test_groups_are_those_of_the_code(helm: Path) -> None:
    heard = {"features": set(), "serving": set()}
    for service in heard:
        text = (ROOT / "services" / service / "src" / f"millstream_{service}" / "subscribers.py").read_text()
        heard[service] = set(re.findall(r'^[A-Z]+ = "([a-z-]+)"$', text, re.MULTILINE)) | {"features-tiles"}
    for part in ("all", "tiles", "lake", "skew"):
        found = documents(template(helm, "features", "keda-values.yaml", f"part={part}"))
        (scaler,) = of_kind(found, "ScaledObject")
        assert {*groups_of(scaler)} <= heard["features"]
    scalers = of_kind(documents(template(helm, "serving", "everything-values.yaml")), "ScaledObject")
    scorer = next(one for one in scalers if one["metadata"]["name"] == "serving-scorer")
    assert groups_of(scorer) == ["serving"]
    assert scorer["spec"]["minReplicaCount"] == 0


@pytest.mark.parametrize("count", [1, 2, 3])
def test_drift_scales_by_the_groups_that_its_process_joins(count: int, helm: Path) -> None:
    found = documents(
        template(helm, "drift", "keda-values.yaml", f"shares={count}", "keda.maxReplicas=1", "keda.minReplicas=1")
    )
    (scaler,) = of_kind(found, "ScaledObject")
    assert groups_of(scaler) == [*shares(["bikes", "delay", "parcels"], count)]
    pod = of_kind(found, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "MILLSTREAM_SHARES", "value": str(count)} in pod["env"]


@pytest.mark.parametrize("service", ["ingest", "serving"])
def test_a_scaler_tells_no_load_from_no_pods(service: str, helm: Path) -> None:
    found = of_kind(documents(template(helm, service, "everything-values.yaml")), "ScaledObject")
    triggers = [
        trigger for scaler in found for trigger in scaler["spec"]["triggers"] if trigger["type"] == "prometheus"
    ]

    triggers = [trigger for trigger in triggers if not trigger["name"].endswith("-rate")]
    assert triggers
    for trigger in triggers:
        assert trigger["metadata"]["ignoreNullValues"] == "false"
        query = trigger["metadata"]["query"]
        # A counter with labels has no series before its first event.
        assert query.count("sum(rate(") == query.count(f' or 0 * sum(up{{namespace="mill",service="{service}"}})')


@pytest.mark.parametrize("service", ["features", "serving"])
def test_consumers_are_as_many_as_the_traffic_takes(service: str, helm: Path) -> None:
    """By their lag alone they go as soon as they have caught up, and are missed again: libs/cli simulates it."""
    found = of_kind(documents(template(helm, service, "everything-values.yaml")), "ScaledObject")
    triggers = [trigger for scaler in found for trigger in scaler["spec"]["triggers"]]
    lags = {trigger["name"]: trigger["metadata"] for trigger in triggers if trigger["type"] == "kafka"}
    rates = {trigger["name"]: trigger["metadata"] for trigger in triggers if trigger["name"].endswith("-rate")}

    assert set(rates) == {f"{name}-rate" for name in lags}
    for name, lag in lags.items():
        rate = rates[f"{name}-rate"]
        assert f'group="{lag["consumerGroup"]}",topic="{lag["topic"]}"' in rate["query"]
        assert int(rate["threshold"]) == int(lag["lagThreshold"]) // 10 * 70 // 100
        assert rate["ignoreNullValues"] == "true"


def test_the_simulation_has_the_charts_behaviour(helm: Path) -> None:
    (scaler,) = of_kind(documents(template(helm, "features", "keda-values.yaml")), "ScaledObject")
    assert all(trigger["useCachedMetrics"] for trigger in scaler["spec"]["triggers"]), (
        "else pollingInterval is obeyed by nobody"
    )
    behavior = scaler["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]

    def said(pace: Pace) -> dict[str, object]:
        policy = {"type": "Pods", "value": pace.pods, "periodSeconds": pace.period}
        return {"stabilizationWindowSeconds": pace.window, "policies": [policy]}

    assert behavior == {"scaleUp": said(Behavior().up), "scaleDown": said(Behavior().down)}
    values = ROOT / "deploy" / "charts" / "features" / "ci" / "keda-values.yaml"
    read_as = read(ROOT / "deploy" / "charts" / "features", [values])
    assert {topic.trigger.name: str(topic.trigger.lag_threshold) for topic in read_as.topics} == {
        trigger["name"]: trigger["metadata"]["lagThreshold"] for trigger in scaler["spec"]["triggers"]
    }
