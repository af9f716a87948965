"""What can be held against the code without Helm: values, schemas, pages, scalers, images, the project's files."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema_rs
import pytest
from jsonschema_rs import Draft7Validator

from .charts import ALL, CHARTS, EXAMPLES, ROOT, SERVICES, read_yaml
from .watch import METRICS


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("charts_generator", ROOT / "tools" / "charts.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["charts_generator"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()


def schema(chart: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHARTS / chart / "values.schema.json").read_text())
    return loaded


def test_what_is_generated_is_current() -> None:
    assert [path.relative_to(ROOT).as_posix() for path in GENERATOR.stale()] == [], "run: make generate"


@pytest.mark.parametrize("chart", ALL)
def test_defaults_fit_their_own_schema(chart: str) -> None:
    jsonschema_rs.meta.validate(schema(chart))
    Draft7Validator(schema(chart)).validate(read_yaml(CHARTS / chart / "values.yaml"))


@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_examples_fit_the_schema(chart: str, values: str) -> None:
    Draft7Validator(schema(chart)).validate(read_yaml(CHARTS / chart / "ci" / values))


def named(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of a schema that names fields."""
    if "properties" in schema:
        yield at, schema
        for name, part in schema["properties"].items():
            yield from named(part, f"{at}.{name}")


@pytest.mark.parametrize("chart", ALL)
def test_an_unknown_key_is_refused_at_every_level(chart: str) -> None:
    # `global` is shared with charts of other people; a service's values are judged by its own schema.
    others = {".global"} if chart != "millstream" else {f".{service}" for service in SERVICES}

    let_in = {at for at, part in named(schema(chart)) if part.get("additionalProperties") is not False}

    assert let_in == others


@pytest.mark.parametrize("service", SERVICES)
def test_every_setting_of_a_service_is_a_value_or_is_written_by_its_chart(service: str) -> None:
    fields = set(GENERATOR.settings_of(service).model_fields)
    values = set(schema(service)["properties"]["settings"]["properties"])

    assert values == fields - GENERATOR.OWN


def test_no_setting_is_kept_back_that_no_service_has() -> None:
    assert set().union(*(GENERATOR.settings_of(s).model_fields for s in SERVICES)) >= GENERATOR.OWN - {"packages"}


@pytest.mark.parametrize("service", SERVICES)
def test_what_the_templates_write_is_a_setting_of_the_service(service: str) -> None:
    text = "".join(path.read_text() for path in (CHARTS / "common" / "templates").glob("*.tpl"))
    text += (CHARTS / service / "templates" / "_facts.tpl").read_text()
    everybody = set().union(*(GENERATOR.settings_of(s).model_fields for s in SERVICES))
    written = {name.lower() for name in re.findall(r"\bMILLSTREAM_([A-Z_]+[A-Z])\b", text)}

    # Host, port, project and data stand in a comment: the image has them.
    assert written <= everybody
    own = {
        name.lower()
        for name in re.findall(
            r"MILLSTREAM_([A-Z_]+[A-Z])", (CHARTS / service / "templates" / "_facts.tpl").read_text()
        )
    }
    assert own <= set(GENERATOR.settings_of(service).model_fields)


@pytest.mark.parametrize("service", SERVICES)
def test_the_image_is_the_one_that_its_dockerfile_makes(service: str) -> None:
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    repository = read_yaml(CHARTS / service / "values.yaml")["image"]["repository"]

    assert f"-t {repository} " in text
    for said in (
        "MILLSTREAM_HOST=0.0.0.0",
        "MILLSTREAM_PORT=8080",
        "MILLSTREAM_PROJECT=/project",
        "MILLSTREAM_DATA=/data/",
    ):
        assert said in text, "the chart leaves it to the image"
    assert "USER 10001:10001" in text
    assert (
        f"services/{service}/Dockerfile"
        == read_yaml(ROOT / "docker-compose.yml")["services"][service]["build"]["dockerfile"]
    )


@pytest.mark.parametrize("chart", ALL)
def test_a_chart_is_of_the_version_of_its_services(chart: str) -> None:
    about = read_yaml(CHARTS / chart / "Chart.yaml")
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    assert version is not None
    assert about["appVersion"] == version[1]
    for needed in about["dependencies"]:
        linked = CHARTS / chart / "charts" / needed["name"]
        assert linked.resolve() == CHARTS / needed["name"]
        assert read_yaml(linked / "Chart.yaml")["version"] == needed["version"]


@pytest.mark.parametrize("service", SERVICES)
def test_scalers_ask_for_metrics_that_there_are_with_labels_that_they_have(service: str) -> None:
    series = {name: labels for metric in METRICS for name, labels in metric.series.items()}
    asked = (CHARTS / service / "templates" / "_facts.tpl").read_text()

    for name, selector in re.findall(r"(millstream_\w+)\{([^}]*)\}", asked):
        assert name in series, f"no metric {name}"
        assert set(re.findall(r"(\w+)=", selector)) <= series[name], f"{name} has {series[name]}"
        assert selector.endswith("%s"), f"{name} is asked of everybody's pods"


def project_values(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "deploy" / "project_values.py"
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, check=False, timeout=30
    )


def test_a_project_becomes_values_that_the_charts_take(tmp_path: Path) -> None:
    said = json.loads(project_values(str(ROOT / "examples" / "flights")).stdout)

    files = said["project"]["files"]
    assert set(files) == {
        "streams/flights-scheduled.yaml",
        "streams/flights-departed.yaml",
        "streams/flights-landed.yaml",
        "features/feature_store.yaml",
        "features/definitions.py",
        "loops/flight-delay.yaml",
    }
    assert files["loops/flight-delay.yaml"] == (ROOT / "examples/flights/loops/flight-delay.yaml").read_text()
    Draft7Validator(schema("ingest")).validate(said)


def test_a_project_for_the_umbrella_is_everybodys() -> None:
    said = json.loads(project_values("--global", str(ROOT / "examples" / "bikes")).stdout)

    assert "features/feature_store.yaml" in said["global"]["project"]["files"]
    Draft7Validator(schema("millstream")).validate(said)


def test_a_folder_that_is_no_project_is_named(tmp_path: Path) -> None:
    said = project_values(str(tmp_path))

    assert said.returncode == 1
    assert f"{tmp_path}: no project here; name a folder with streams/" in said.stderr


def test_a_project_that_no_config_map_can_hold_is_sent_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "large.yaml").write_text("x" * 900_001)

    assert (
        "900,001 bytes, more than a ConfigMap takes; put the project into an image or a claim"
        in project_values(str(tmp_path)).stderr
    )
