"""Argo CD's ApplicationSet: taken by Argo's own schemas, its waves complete, and every chart and folder that it names there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from ruamel.yaml import YAML

from millstream.testing.cache import cache_folder

from . import delivery_schemas
from .charts import CHARTS, ROOT, SERVICES, read_yaml
from .conftest import found

SET = read_yaml(ROOT / "deploy" / "argocd" / "applicationset.yaml")
ELEMENTS: list[dict[str, str]] = SET["spec"]["generators"][0]["list"]["elements"]
OURS, YOURS = "https://git.example/mill/millstream.git", "https://git.example/mill/deployment.git"


@pytest.fixture(scope="module")
def schemas() -> Path:
    return found("schemas of Argo CD", delivery_schemas.folder(cache_folder()))


def errors(schemas: Path, document: Mapping[str, Any]) -> list[str]:
    schema = json.loads((schemas / f"{document['kind']}-argoproj-v1alpha1.json".lower()).read_text())
    return [error.message for error in jsonschema_rs.Draft4Validator(schema).iter_errors(document)]


@pytest.fixture(scope="module")
def applications(helm: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """As Argo makes them: by Go's templates and Sprig, which Helm has too; the patch is merged into the template."""
    made = []
    for element in ELEMENTS:
        chart = tmp_path_factory.mktemp("set")
        (chart / "Chart.yaml").write_text("apiVersion: v2\nname: it\nversion: 0.0.1\n")
        (chart / "values.yaml").write_text(json.dumps(element))
        (chart / "templates").mkdir()
        for name, text in {"app": json.dumps(SET["spec"]["template"]), "patch": SET["spec"]["templatePatch"]}.items():
            (chart / "templates" / f"{name}.yaml").write_text("{{- with .Values }}\n" + text + "\n{{- end }}\n")
        printed = subprocess.run(
            [helm, "template", "it", chart], capture_output=True, text=True, check=True, timeout=60
        ).stdout
        template, patch = [one for one in YAML(typ="safe").load_all(printed) if one]
        spec = template["spec"] | patch["spec"]
        head = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application"}
        made.append(head | {"metadata": template["metadata"], "spec": spec})
    return made


def test_argo_takes_the_set(schemas: Path) -> None:
    assert errors(schemas, SET) == []
    wrong = json.loads(json.dumps(SET))
    wrong["spec"]["strategy"]["rollingSink"] = {}
    assert errors(schemas, wrong)


def test_argo_takes_every_application_that_it_makes(schemas: Path, applications: list[dict[str, Any]]) -> None:
    for application in applications:
        assert errors(schemas, application) == [], application["metadata"]["name"]


def test_every_application_names_what_is_there(applications: list[dict[str, Any]]) -> None:
    charts = set()
    for application in applications:
        for source in application["spec"]["sources"]:
            if source["repoURL"] == OURS:
                assert (ROOT / source["path"]).is_dir()
                charts.add(source.get("helm", {}).get("releaseName", "").removeprefix("mill-"))
            else:
                assert source["repoURL"] == YOURS
    assert charts - {""} == set(SERVICES)
    version = read_yaml(CHARTS / "trainer" / "Chart.yaml")["version"]
    assert f"targetRevision: v{version}" in SET["spec"]["templatePatch"]


def test_the_order_is_topics_then_services_then_trainer_then_loops() -> None:
    steps = [step["matchExpressions"][0]["values"] for step in SET["spec"]["strategy"]["rollingSync"]["steps"]]
    waves = [{one["name"] for one in ELEMENTS if [one["wave"]] == step} for step in steps]
    assert waves == [{"crds", "kafka"}, {"ingest", "features", "serving", "drift"}, {"trainer"}, {"loops"}]
    assert SET["spec"]["template"]["metadata"]["labels"]["millstream/wave"] == "{{ .wave }}"


def test_what_others_write_is_left_to_them() -> None:
    spec = SET["spec"]["template"]["spec"]
    assert "RespectIgnoreDifferences=true" in spec["syncPolicy"]["syncOptions"]
    ignored = spec["ignoreDifferences"]
    assert {"kube-controller-manager", "keda"} <= set(ignored[0]["managedFieldsManagers"])
    (mark,) = re.findall(r'annotations\["(.+?)"\]', ignored[1]["jqPathExpressions"][0])
    from millstream_trainer.adapters.kubernetes_loops import ANNOTATION

    assert mark == ANNOTATION
