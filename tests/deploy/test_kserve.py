"""What `millstream export` writes is an InferenceService by KServe's own CRD, with no field that it does not know."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from millstream.testing.cache import cache_folder
from millstream_cli.kserve import RUNTIME
from millstream_cli.main import app

from . import delivery_schemas
from .conftest import found

PACKAGE = Path(__file__).parents[1] / "contracts" / "releases" / "0.1.0" / "package"


@pytest.fixture(scope="module")
def kserve() -> Path:
    return found("schemas of KServe", delivery_schemas.folder(cache_folder()))


@pytest.fixture(scope="module")
def schema(kserve: Path) -> Any:
    [found] = kserve.glob("inferenceservice-*.json")
    return json.loads(found.read_bytes())


@pytest.fixture
def exported(tmp_path: Path) -> Any:
    shutil.copytree(PACKAGE, tmp_path / "packages" / "flight-delay" / "run-1")
    told = ["export", "flight-delay", "--version", "1", "--storage", "s3://models/flight-delay"]
    done = CliRunner().invoke(app, [*told, "--packages", f"{tmp_path}/packages", "--to", f"{tmp_path}/out"])
    assert done.exit_code == 0, done.output
    return YAML(typ="safe").load(tmp_path / "out" / "inferenceservice.yaml")


def test_the_crd_takes_it(schema: Any, exported: Any) -> None:
    jsonschema_rs.validator_for(schema).validate(exported)


@pytest.mark.parametrize("wrong", ["storageURI", "protocol"])
def test_the_crd_as_it_is_read_here_refuses_a_misspelt_field(schema: Any, exported: Any, wrong: str) -> None:
    misspelt = copy.deepcopy(exported)
    misspelt["spec"]["predictor"]["model"][wrong] = "v2"
    assert not jsonschema_rs.validator_for(schema).is_valid(misspelt)


def test_the_runtime_that_it_names_is_one_of_kserves_and_runs_onnx_with_our_protocol(kserve: Path) -> None:
    runtimes = [YAML(typ="safe").load(path) for path in (kserve / "runtimes").glob("*.yaml")]
    [runtime] = [one for one in runtimes if one and one.get("metadata", {}).get("name") == RUNTIME]
    assert "onnx" in {one["name"] for one in runtime["spec"]["supportedModelFormats"]}
    assert "v2" in runtime["spec"]["protocolVersions"]
