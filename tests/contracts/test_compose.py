"""The compose files, what they mount, and the Dockerfiles name only what exists: settings, services, files, routes."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from ruamel.yaml import YAML

from millstream.runtime.settings import ServiceSettings

ROOT = Path(__file__).parents[2]
SERVICES = ("ingest", "features", "trainer", "serving", "drift")


OBSERVABILITY = ROOT / "deploy" / "observability"
FILES = ("docker-compose.yml", "compose.observability.yml", "compose.s3.yml")


def read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = YAML(typ="safe").load(path)
    return loaded


def compose(file: str = "docker-compose.yml") -> dict[str, Any]:
    return read(ROOT / file)


def everybody() -> dict[str, Any]:
    """Services of both files together, as `docker compose -f … -f …` has them, but for what both say of one."""
    return {name: service for file in FILES for name, service in compose(file)["services"].items()}


def settings_of(service: str) -> set[str]:
    module = importlib.import_module(f"millstream_{service}.settings")
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, ServiceSettings)]
    return {f"MILLSTREAM_{name.upper()}" for cls in classes for name in cls.model_fields}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_given_only_variables_that_some_service_reads(service: str) -> None:
    known = set().union(*(settings_of(s) for s in SERVICES))
    given = set(compose()["services"][service]["environment"])
    assert given <= known
    shared = {"MILLSTREAM_VALKEY", "MILLSTREAM_LAKE", "MILLSTREAM_PACKAGES"}
    assert given - shared <= settings_of(service)


@pytest.mark.parametrize("file", FILES)
def test_what_is_waited_for_exists_and_says_when_it_is_healthy(file: str) -> None:
    services = compose(file)["services"]
    for name, service in services.items():
        for other, condition in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}, which is not there"
            if condition["condition"] == "service_healthy":
                built = other in SERVICES  # their images carry a health check
                assert built or "healthcheck" in services[other], f"{name} waits for {other}'s health check"


def test_ports_are_published_on_loopback_only_and_each_once() -> None:
    published = [
        (name, str(port))
        for file in FILES
        for name, s in compose(file)["services"].items()
        for port in s.get("ports", [])
    ]
    for name, port in published:
        assert port.startswith("127.0.0.1:"), f"{name} publishes {port}"
    assert len({port.split(":")[1] for _, port in published}) == len(published)


@pytest.mark.parametrize("file", FILES)
def test_volumes_that_are_used_are_declared_and_files_that_are_mounted_are_there(file: str) -> None:
    found = compose(file)
    for name, service in found["services"].items():
        for volume in service.get("volumes", []):
            if volume.startswith("."):
                assert (ROOT / volume.split(":")[0]).exists(), f"{name} mounts {volume}"
    used = {
        volume.split(":")[0]
        for service in found["services"].values()
        for volume in service.get("volumes", [])
        if not volume.startswith((".", "/"))
    }
    assert used == set(found["volumes"])


def test_beside_the_loop_its_services_are_told_where_traces_go_and_nothing_else() -> None:
    said = compose("compose.observability.yml")["services"]
    receiver = read(OBSERVABILITY / "otel-collector.yml")["receivers"]["otlp"]["protocols"]["http"]["endpoint"]
    for service in SERVICES:
        assert set(said[service]) == {"environment"}
        assert set(said[service]["environment"]) <= settings_of(service)
        endpoint = urlsplit(said[service]["environment"]["MILLSTREAM_OTLP_ENDPOINT"])
        assert endpoint.hostname in said
        assert endpoint.port == int(receiver.rsplit(":", 1)[1])


def test_the_lake_of_the_s3_file_is_told_to_who_has_a_lake_and_to_nobody_else() -> None:
    said = compose("compose.s3.yml")["services"]
    told = {service for service in SERVICES if "lake" in {name.lower()[11:] for name in settings_of(service)}}
    assert told == said.keys() & set(SERVICES)
    for service in told:
        environment = said[service]["environment"]
        assert environment["MILLSTREAM_LAKE"] == "s3://" + said["bucket"]["entrypoint"][-1].removeprefix("mill/")
        assert urlsplit(environment["AWS_ENDPOINT_URL"]).hostname == "minio"
        assert environment["AWS_ACCESS_KEY_ID"] == said["minio"]["environment"]["MINIO_ROOT_USER"]
        assert environment["AWS_SECRET_ACCESS_KEY"] == said["minio"]["environment"]["MINIO_ROOT_PASSWORD"]


def test_images_beside_the_loop_are_of_a_version() -> None:
    for name, service in compose("compose.observability.yml")["services"].items():
        if name not in SERVICES:
            assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+", service["image"]), service["image"]


def test_prometheus_reads_every_service_under_its_name_and_all_rules() -> None:
    said = read(OBSERVABILITY / "prometheus.yml")
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in said["scrape_configs"]}
    for service in SERVICES:
        assert jobs[service] == [f"{service}:8080"]
        assert "MILLSTREAM_PORT=8080" in (ROOT / "services" / service / "Dockerfile").read_text()
    assert {target.split(":")[0] for targets in jobs.values() for target in targets} - {"localhost"} <= set(everybody())
    assert said["rule_files"] == ["alerts/*.yaml"]
    mounted = compose("compose.observability.yml")["services"]["prometheus"]["volumes"]
    assert "./deploy/alerts:/etc/prometheus/alerts:ro" in mounted
    for path in (ROOT / "deploy" / "alerts").glob("*.yaml"):
        assert set(read(path)) == {"groups"}, f"{path.name} is no file of rules"
    (manager,) = said["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert manager.split(":")[0] in everybody()


def test_alerts_that_ask_go_to_the_trainers_webhook_and_only_they() -> None:
    said = read(OBSERVABILITY / "alertmanager.yml")
    asking, rest = said["route"]["routes"]
    receivers = {receiver["name"]: receiver for receiver in said["receivers"]}
    (hook,) = receivers[asking["receiver"]]["webhook_configs"]
    url = urlsplit(hook["url"])
    alerts = [
        rule
        for path in (ROOT / "deploy" / "alerts").glob("*.yaml")
        for group in read(path)["groups"]
        for rule in group["rules"]
    ]
    asked = [rule for rule in alerts if rule["labels"].get("asks") == "retrain"]

    assert asking["matchers"] == ['asks = "retrain"']
    assert asking["continue"]
    assert rest == {"receiver": said["route"]["receiver"]}, "people hear of it too"
    assert asked, "an alert of ours that asks"
    assert all("by (loop)" in rule["expr"] for rule in asked), "the trainer hears which loop by the alert's label"
    assert (url.hostname, url.port) == ("trainer", 8080)
    trainer = (ROOT / "services" / "trainer" / "src" / "millstream_trainer" / "api.py").read_text()
    assert f'"{url.path}"' in trainer
    assert "webhook_configs" not in receivers[rest["receiver"]]


def test_the_collector_and_grafana_know_whom_they_ask() -> None:
    collector = read(OBSERVABILITY / "otel-collector.yml")
    pipeline = collector["service"]["pipelines"]["traces"]
    for part in ("receivers", "processors", "exporters"):
        assert set(pipeline[part]) == set(collector[part]), "what no pipeline has does nothing"
    assert collector["exporters"]["otlp_grpc/jaeger"]["endpoint"].split(":")[0] in everybody()
    for source in read(OBSERVABILITY / "grafana" / "datasources.yml")["datasources"]:
        assert urlsplit(source["url"]).hostname in everybody()
    (provider,) = read(OBSERVABILITY / "grafana" / "dashboards.yml")["providers"]
    grafana = compose("compose.observability.yml")["services"]["grafana"]
    assert f"./deploy/dashboards:{provider['options']['path']}:ro" in grafana["volumes"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert home.parent == Path(provider["options"]["path"])
    assert (ROOT / "deploy" / "dashboards" / home.name).exists()


@pytest.mark.parametrize("dockerfile", [*(f"services/{s}/Dockerfile" for s in SERVICES), "libs/cli/Dockerfile"])
def test_a_dockerfile_copies_what_is_there_and_does_not_run_as_root(dockerfile: str) -> None:
    text = (ROOT / dockerfile).read_text()
    for source in re.findall(r"^COPY (?!--from)(\S+) ", text, flags=re.MULTILINE):
        assert (ROOT / source).exists(), f"{dockerfile} copies {source}"
    assert "USER 10001:10001" in text
    assert "--require-hashes" in text


@pytest.mark.parametrize("dockerfile", [*(f"services/{s}/Dockerfile" for s in SERVICES), "libs/cli/Dockerfile"])
def test_an_image_has_every_package_of_ours_that_its_program_needs(dockerfile: str) -> None:
    """They are installed with --no-deps, so what is missing shows when the container starts."""
    folders = {path.parent.name: path.parent for path in ROOT.glob("*/*/pyproject.toml")}
    installed = set(re.findall(r"\./(?:libs|services)/(\w+)", (ROOT / dockerfile).read_text()))
    needed, looked = {Path(dockerfile).parent.name}, set[str]()
    while left := needed - looked:
        name = left.pop()
        looked.add(name)
        dependencies = tomllib.loads((folders[name] / "pyproject.toml").read_text())["project"]["dependencies"]
        needed |= {found[1] for one in dependencies if (found := re.match(r"millstream-(\w+)", one))}
    assert installed == needed
