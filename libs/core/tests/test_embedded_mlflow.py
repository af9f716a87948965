"""The embedded MLflow tracks, registers and keeps artifacts, through its HTTP API alone."""

import httpx
import pytest

from millstream.testing.mlflow import EmbeddedMlflow


def test_a_registered_model_and_its_file_can_be_read_back(mlflow_server: EmbeddedMlflow) -> None:
    with httpx.Client(base_url=mlflow_server.url, timeout=30) as api:
        made = api.post("/api/2.0/mlflow/experiments/create", json={"name": "flight-delay"}).raise_for_status()
        run = api.post("/api/2.0/mlflow/runs/create", json={"experiment_id": made.json()["experiment_id"]})
        root = run.raise_for_status().json()["run"]["info"]["artifact_uri"]
        assert root.startswith("mlflow-artifacts:/"), "clients need no access to the folder"

        path = root.removeprefix("mlflow-artifacts:/") + "/model.onnx"
        api.put(f"/api/2.0/mlflow-artifacts/artifacts/{path}", content=b"graph").raise_for_status()
        assert api.get(f"/api/2.0/mlflow-artifacts/artifacts/{path}").content == b"graph"

        api.post("/api/2.0/mlflow/registered-models/create", json={"name": "flight-delay"}).raise_for_status()
        version = {
            "name": "flight-delay",
            "source": f"{root}/model.onnx",
            "run_id": run.json()["run"]["info"]["run_id"],
        }
        api.post("/api/2.0/mlflow/model-versions/create", json=version).raise_for_status()
        alias = {"name": "flight-delay", "alias": "champion", "version": "1"}
        api.post("/api/2.0/mlflow/registered-models/alias", json=alias).raise_for_status()
        asked = {"name": "flight-delay", "alias": "champion"}
        champion = api.get("/api/2.0/mlflow/registered-models/alias", params=asked).raise_for_status()
        assert champion.json()["model_version"]["version"] == "1"


@pytest.mark.connected
def test_it_is_one_process_of_bounded_size(mlflow_server: EmbeddedMlflow) -> None:
    (usage,) = mlflow_server.usage()
    assert usage is None or usage.peak_rss_bytes < 450_000_000
