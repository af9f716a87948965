"""A scaler over a day of traffic: what the command says of a values file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from millstream_cli.autoscaler import Autoscaler, KafkaTrigger
from millstream_cli.main import app
from millstream_cli.scaling import Outcome, Topic, World, shaped, simulate, traced

CHARTS = Path(__file__).parents[3] / "deploy" / "charts"
VALUES = "keda: {enabled: true, maxReplicas: 6, topics: [{name: departed, partitions: 6}]}\n"
RATE = "keda: {prometheus: 'http://prometheus:9090'}\n"


def topic(partitions: int = 6, *, rate: float | None = None) -> Topic:
    """2,000 records a second and replica, ten seconds to work off."""
    trigger = KafkaTrigger(name="t", lag_threshold=20_000)
    return Topic(trigger=trigger, partitions=partitions, records_per_second=2_000, rate_per_replica=rate)


def over(rates: list[float], *topics: Topic, least: int = 1, most: int = 6, **world: Any) -> Outcome:
    return simulate(rates, topics or [topic()], Autoscaler(least=least, most=most), polling=15, world=World(**world))


def test_what_one_replica_does_needs_no_other() -> None:
    found = over([1_500.0] * 3_600)
    assert {m.replicas for m in found.moments} == {1}
    assert found.left == 0


def test_more_than_one_does_brings_others_and_they_go_again() -> None:
    found = over([9_000.0] * 1_200 + [100.0] * 5_400)
    replicas = [m.replicas for m in found.moments]
    assert max(replicas) == 6
    assert replicas[-1] == 1
    assert found.left == 0
    assert found.replica_hours == pytest.approx(sum(replicas) / 3_600)


def test_who_has_nothing_to_do_goes_and_comes_back() -> None:
    found = over([0.0] * 600 + [50.0] * 600 + [0.0] * 1_200, least=0)
    replicas = [m.replicas for m in found.moments]
    assert replicas[:600] == [0] * 600
    assert max(replicas) == 1
    assert replicas[-1] == 0
    assert found.left == 0


def test_a_partition_is_one_replica_s() -> None:
    """All to one of six: five more replicas would not help, and none comes."""
    found = over([3_000.0] * 3_600, skew=1.0)
    assert max(m.replicas for m in found.moments) == 1
    assert found.left > 3_000_000


def test_each_change_stops_the_group() -> None:
    rates = [9_000.0] * 1_200
    assert over(rates, pause=60).moments[600].lag > over(rates, pause=0).moments[600].lag + 100_000


def test_with_the_rate_beside_the_lag_a_day_takes_a_tenth_of_the_changes() -> None:
    """By the lag alone replicas go as soon as they have caught up, and are missed again."""
    rates = shaped("day", 10_000)
    by_lag, by_rate = over(rates), over(rates, topic(rate=1_400))

    assert len(by_lag.changes) > 200
    assert len(by_rate.changes) < 20
    assert by_rate.behind(120_000) < by_lag.behind(120_000) / 100
    assert by_rate.replica_hours < by_lag.replica_hours * 1.1


def test_a_trace_holds_its_rates(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text("second,rate\n2,10\n4,20\n5,0\n")
    assert traced(file) == [0, 0, 10, 10, 20]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("time,rate\n1,2\n", "second,rate"),
        ("second,rate\n1,x\n2,1\n", "trace.csv:2: '1', 'x' are no numbers"),
        ("second,rate\n2,1\n1,1\n", "trace.csv:3: seconds go up"),
        ("second,rate\n1,-1\n2,1\n", "no rate is below 0"),
        ("second,rate\n0,1\n9000000,1\n", "a week"),
        ("second,rate\n0,1\n", "two lines at least"),
    ],
)
def test_a_trace_that_is_none_is_refused(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=says):
        traced(file)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["scaling", "simulate", *arguments])


def test_the_command_says_what_a_values_file_does(tmp_path: Path) -> None:
    values, more, page = tmp_path / "values.yaml", tmp_path / "more.yaml", tmp_path / "out" / "scaling.html"
    values.write_text(VALUES)
    more.write_text(RATE)
    found = {}
    for name, files in {"lag": ["-f", str(values)], "rate": ["-f", str(values), "-f", str(more)]}.items():
        said = run(str(CHARTS / "features"), *files, "--shape", "day", "--json", "--html", str(page))
        assert said.exit_code == 0, said.output
        found[name] = json.loads(said.stdout)
    assert found["rate"]["changes"] < found["lag"]["changes"] / 10
    assert any("keda.prometheus" in line for line in found["lag"]["advice"])
    assert page.read_text().count("<svg") == 3
    told = run(str(CHARTS / "features"), "-f", str(values), "--shape", "burst", "--peak", "50000")
    assert "the peak takes 25 replicas of 2000 records/s, maxReplicas is 6" in told.output.replace("\n", " ")


def test_the_scorer_is_scaled_by_its_own_knobs(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(
        "scorer: {keda: {enabled: true, minReplicas: 0, maxReplicas: 3, topics: [{name: asked, partitions: 3}]}}"
    )
    found = json.loads(
        run(str(CHARTS / "serving"), "-f", str(values), "--shape", "burst", "--peak", "900", "--json").stdout
    )
    assert found["most_replicas"] == 1


@pytest.mark.parametrize(
    ("chart", "text", "says"),
    [
        ("drift", "", "no chart that scales on Kafka's lag"),
        ("features", "", "keda is off in these values; switch it on: keda: {enabled: true"),
        ("features", "keda: {enabled: true}", "keda.topics is empty"),
        ("features", VALUES.replace("6}]", "4}]"), "maxReplicas is 6, the largest topic has 4 partitions"),
        ("features", VALUES.replace("6}]", "many}]"), "not as the chart wants it"),
        ("features", "[1]", "no values file"),
        ("features", "a: [", "cannot be read"),
    ],
)
def test_values_that_cannot_be_simulated_are_refused(chart: str, text: str, says: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(text)
    said = run(str(CHARTS / chart), "-f", str(values))
    assert said.exit_code == 1
    assert says in said.stderr
