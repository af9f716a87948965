"""A chart's values, read for what they ask of KEDA: the part of its templates that concerns Kafka's lag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from millstream_cli.autoscaler import Autoscaler, KafkaTrigger
from millstream_cli.errors import CommandFailed
from millstream_cli.scaling import Topic

GROUPS = {
    "features": {
        "all": ["features-tiles", "features-lake"],
        "tiles": ["features-tiles"],
        "lake": ["features-lake"],
        "skew": ["features-skew"],
    },
    "serving": {"all": ["serving"]},
}
"""Chart → part → consumer groups, as the charts' `_facts.tpl` has them."""
ON = "keda: {enabled: true, topics: [{name: flights-departed, partitions: 6}]}"


@dataclass(frozen=True, kw_only=True)
class Scaled:
    """What a ScaledObject of these values says."""

    topics: Sequence[Topic]
    least: int
    most: int
    cooldown: float
    polling: int
    drain_seconds: float
    others: Sequence[str]
    """What the values ask for beside lag; it is not simulated."""

    def scaler(self) -> Autoscaler:
        """A new one, that has seen nothing yet."""
        return Autoscaler(least=self.least, most=self.most, cooldown=self.cooldown)


def read(chart: Path, values: Sequence[Path]) -> Scaled:
    """The chart's own values with `values` laid over them, in this order, as Helm does. Raises CommandFailed."""
    name = chart.resolve().name
    if name not in GROUPS or not (chart / "values.yaml").is_file():
        raise CommandFailed(
            f"{chart} is no chart that scales on Kafka's lag; name the folder of one that does: "
            "deploy/charts/features, deploy/charts/serving"
        )
    merged: dict[str, Any] = {}
    for file in (chart / "values.yaml", *values):
        merged = _over(merged, _load(file))
    root = merged.get("scorer", {}) if name == "serving" else merged
    keda = root.get("keda") or {}
    where = "scorer: {enabled: true, keda: …}" if name == "serving" else "keda"
    if not keda.get("enabled"):
        raise CommandFailed(f"{where} is off in these values; switch it on: {ON}")
    if not keda.get("topics"):
        raise CommandFailed(f"{where}.topics is empty; name the streams whose lag counts: {ON}")
    known = GROUPS[name].get(str(merged.get("part", "all")), GROUPS[name]["all"])
    try:
        return _scaled(keda, known)
    except (KeyError, TypeError, ValueError) as error:
        raise CommandFailed(f"{where} in these values is not as the chart wants it: {error}") from error


def _scaled(keda: Mapping[str, Any], groups: Sequence[str]) -> Scaled:
    rate, drain = float(keda["recordsPerSecond"]), float(keda["drainSeconds"])
    threshold, most, least = int(rate) * int(drain), int(keda["maxReplicas"]), int(keda["minReplicas"])
    if threshold < 1 or not 0 <= least <= most or most < 1:
        raise ValueError(
            "recordsPerSecond, drainSeconds and maxReplicas are above 0, minReplicas is at most maxReplicas"
        )
    topics = [
        Topic(
            trigger=KafkaTrigger(name=f"{group}-{topic['name']}", lag_threshold=threshold),
            partitions=int(topic["partitions"]),
            records_per_second=rate,
            rate_per_replica=max(1, int(rate) * int(keda["busyPercent"]) // 100) if keda.get("prometheus") else None,
        )
        for group in groups
        for topic in keda["topics"]
        if group in topic.get("groups", [group])
    ]
    if not topics or any(topic.partitions < 1 for topic in topics):
        raise ValueError("each of topics has partitions, and one at least a group of this part")
    largest = max(topic.partitions for topic in topics)
    if most > largest:
        raise ValueError(f"maxReplicas is {most}, the largest topic has {largest} partitions: more replicas do nothing")
    return Scaled(
        topics=topics,
        least=least,
        most=most,
        cooldown=float(keda.get("cooldownPeriod", 300)),
        polling=int(keda["pollingInterval"]),
        drain_seconds=drain,
        others=["schedule"] if keda.get("schedule") else [],
    )


def _load(file: Path) -> dict[str, Any]:
    try:
        found = YAML(typ="safe", pure=True).load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise CommandFailed(f"{file} cannot be read: {error}") from error
    if found is not None and not isinstance(found, dict):
        raise CommandFailed(f"{file} is no values file: it has to be a table of knobs")
    return found or {}


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """As Helm lays one file over another: tables key by key, all else whole, null removes."""
    merged = dict(below)
    for key, value in above.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _over(merged[key], value)
        else:
            merged[key] = value
    return merged
