"""`millstream export`: what KServe and Triton get is the model that the package has."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from google.protobuf import text_format
from ruamel.yaml import YAML
from tritonclient.grpc import model_config_pb2
from typer.testing import CliRunner

from millstream.contracts.package import MODEL_FILE, Manifest
from millstream_cli.main import app

RECORDED = Path(__file__).parents[3] / "tests" / "contracts" / "releases" / "0.1.0" / "package"
STORAGE = "s3://models/flight-delay"


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """One package, of a real run of the first release."""
    shutil.copytree(RECORDED, tmp_path / "packages" / "flight-delay" / "a-run-1")
    return tmp_path / "packages"


def export(packages: Path, to: Path, *more: str) -> tuple[int, str]:
    told = ["export", "flight-delay", "--version", "1", "--packages", str(packages), "--to", str(to), *more]
    found = CliRunner().invoke(app, told)
    return found.exit_code, found.output


def manifest() -> Manifest:
    import msgspec

    return msgspec.json.decode((RECORDED / "manifest.json").read_bytes(), type=Manifest)


def test_the_repository_has_the_graph_and_tensors_that_it_really_takes(packages: Path, tmp_path: Path) -> None:
    import onnxruntime

    code, said = export(packages, tmp_path / "out", "--storage", STORAGE)
    assert code == 0, said

    model = tmp_path / "out" / "repository" / "flight-delay"
    graph = (model / "1" / MODEL_FILE).read_bytes()
    assert graph == (RECORDED / MODEL_FILE).read_bytes()
    config = text_format.Parse((model / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": model_config_pb2.TYPE_FP32, "tensor(string)": model_config_pb2.TYPE_STRING}
    assert [(one.name, one.data_type) for one in config.input] == [
        (one.name, types[one.type]) for one in session.get_inputs()
    ]
    assert all(list(one.dims) == [-1, 1] for one in config.input)
    assert [one.name for one in config.output] == [one.name for one in session.get_outputs()] == ["probability"]
    assert list(config.output[0].dims) == [-1]
    assert (config.name, config.backend, config.max_batch_size) == ("flight-delay", "onnxruntime", 0)
    assert list(config.version_policy.specific.versions) == [1]


def test_the_inference_service_names_the_model_its_run_and_where_it_lies(packages: Path, tmp_path: Path) -> None:
    code, said = export(packages, tmp_path / "out", "--storage", f"{STORAGE}/", "--namespace", "models")
    assert code == 0, said
    assert "next: copy" in said

    service = YAML(typ="safe").load(tmp_path / "out" / "inferenceservice.yaml")
    model = service["spec"]["predictor"]["model"]
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert (service["metadata"]["name"], service["metadata"]["namespace"]) == ("flight-delay", "models")
    assert service["metadata"]["annotations"]["millstream/model-sha256"] == manifest().files[MODEL_FILE]
    assert service["metadata"]["annotations"]["millstream/run"] == manifest().run
    assert (model["storageUri"], model["protocolVersion"]) == (STORAGE, "v2")
    assert model["modelFormat"] == {"name": "onnx"}


def test_for_scripts_it_says_which_files_it_wrote(packages: Path, tmp_path: Path) -> None:
    code, said = export(packages, tmp_path / "out", "--storage", STORAGE, "--json")
    assert code == 0, said
    assert sorted(json.loads(said)["files"]) == sorted(str(p) for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_a_storage_that_kserve_does_not_know_is_refused_and_nothing_is_written(packages: Path, tmp_path: Path) -> None:
    code, said = export(packages, tmp_path / "out", "--storage", "/models/flight-delay")
    assert code == 1
    assert "write where KServe will find the folder, like s3://models/flight-delay" in said
    assert not (tmp_path / "out").exists()


def test_a_folder_that_has_something_is_left_alone(packages: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    code, said = export(packages, tmp_path / "out", "--storage", STORAGE)
    assert (code, "is not empty" in said) == (1, True)


def test_a_version_that_is_not_there_names_those_that_are(packages: Path, tmp_path: Path) -> None:
    code, said = export(packages, tmp_path / "out", "--version", "7", "--storage", STORAGE)
    assert code == 1
    assert "no version '7' of flight-delay" in said
    assert "there are 1" in said


def test_without_a_mill_it_says_what_to_name(tmp_path: Path) -> None:
    told = ["export", "flight-delay", "--storage", STORAGE, "--data", str(tmp_path), "--to", str(tmp_path / "out")]
    found = CliRunner().invoke(app, told)
    assert found.exit_code == 1
    assert "or name --packages and --kafka" in found.output


def test_a_graph_that_was_changed_after_its_run_is_not_exported(packages: Path, tmp_path: Path) -> None:
    graph = packages / "flight-delay" / "a-run-1" / MODEL_FILE
    graph.write_bytes(graph.read_bytes() + b"x")
    code, said = export(packages, tmp_path / "out", "--storage", STORAGE)
    assert code == 1
    assert "model.onnx has sha256" in said
