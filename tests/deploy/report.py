"""What `make test-deploy` or `make test-node` found: a table, and out/deploy.json or out/node.json with each check."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass

import pytest

from .charts import ROOT
from .must import MUST
from .plane_tools import ETCD, KUBERNETES, KWOK, SCALER
from .tools import TOOLS

_PLANE = f"etcd {ETCD.version}, Kubernetes {KUBERNETES.version} without kubelet, kwok {KWOK.version} for its pods"
REAL = {
    "plane": _PLANE,
    "api_only": f"etcd {ETCD.version}, kube-apiserver {KUBERNETES.version}",
    "keda": f"KEDA {SCALER.version}",
    "kafka": "Apache Kafka",
    "guarded_kafka": "Apache Kafka that asks for a password within TLS",
    "valkey": "Valkey",
    **{tool.name.replace("-", "_"): f"{tool.name} {tool.version}" for tool in TOOLS},
    "schemas": "the API's own schemas",
    "images": "our images, run by a Docker engine",
    "node": f"Kubernetes {KUBERNETES.version}, with a node: kubelet, kube-proxy, containerd, CoreDNS; our images in its pods",
    "prometheus": "five services on Kafka and Valkey, Debian's Prometheus",
    "alertmanager": "Debian's Alertmanager",
}
"""What runs for real behind each fixture."""
OUT = ROOT / "out"


@dataclass(kw_only=True)
class Check:
    """One test with one set of parameters."""

    name: str
    real: list[str]
    result: str
    seconds: float
    why: str = ""
    """Of what failed or was skipped."""


class Report:
    """A plugin of pytest that hears every test of the run."""

    def __init__(self, name: str) -> None:
        """`name` of the file in out/."""
        self._file = OUT / f"{name}.json"
        self._checks: dict[str, Check] = {}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if isinstance(item, pytest.Function):
                real = [said for fixture, said in REAL.items() if fixture in item.fixturenames]
                item.user_properties.append(("real", real))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        said = dict(report.user_properties).get("real")
        if not isinstance(said, list):
            return
        name = report.nodeid.removeprefix("tests/deploy/")
        check = self._checks.setdefault(name, Check(name=name, real=list(said), result="passed", seconds=0.0))
        check.seconds = round(check.seconds + report.duration, 2)
        if report.outcome != "passed" and check.result == "passed":
            check.result = report.outcome
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            check.why = why.strip().removeprefix("Skipped: ")[-300:]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._checks:
            return
        self._file.parent.mkdir(exist_ok=True)
        checks = list(self._checks.values())
        told = {"counts": Counter(check.result for check in checks), "skipped": skipped(checks)}
        self._file.write_text(json.dumps(told | {"checks": [asdict(check) for check in checks]}, indent=1) + "\n")
        terminalreporter.section("deploy")
        for line in (*table(checks), *not_proved(checks)):
            terminalreporter.write_line(line)
        terminalreporter.write_line(f"Each by itself: {self._file.relative_to(ROOT)}")


def table(checks: list[Check]) -> list[str]:
    """A line for each test, its parameters added up, below what it ran against."""
    groups: dict[tuple[str, ...], dict[str, list[Check]]] = defaultdict(lambda: defaultdict(list))
    for check in checks:
        test = check.name.partition("[")[0].partition("::")[2].removeprefix("test_").replace("_", " ")
        groups[tuple(check.real)][test].append(check)
    lines = []
    for real in sorted(groups, key=len):
        lines += ["", "; ".join(real) or "files alone"]
        for test, found in groups[real].items():
            counts = {
                result: sum(check.result == result for check in found) for result in ("passed", "failed", "skipped")
            }
            said = ", ".join(f"{count} {result}" for result, count in counts.items() if count)
            lines.append(f"  {sum(check.seconds for check in found):7.1f} s  {said:<22} {test}")
    return lines


def skipped(checks: list[Check]) -> dict[str, int]:
    """How many for which reason, the most first."""
    return dict(Counter(check.why for check in checks if check.result == "skipped").most_common())


def not_proved(checks: list[Check]) -> list[str]:
    """Lines that say it loudly; none where nothing was skipped."""
    if not (found := skipped(checks)):
        return []
    return [
        *("", f"NOT PROVED: {sum(found.values())} of {len(checks)} checks were skipped"),
        *(f"  {count:5}  {why}" for why, count in found.items()),
        f"With {MUST}=1 what is missing on this machine fails instead.",
    ]
