"""Serves MLflow's own application from one process: `python -m millstream.testing.mlflow_server --data DIR --port N`.

`mlflow server` does the same with two or three processes, each of which imports all of MLflow: 20 s of CPU and 560 MB
(820 MB with its job runner) against 9 s and 280 MB here. The settings are the ones that it hands to its worker.
"""

import argparse
import os
from pathlib import Path

from millstream.testing.ports import HOST


def main() -> None:
    """Create or upgrade the database, then serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="millstream.testing.mlflow_server")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    args = parser.parse_args()
    database = f"sqlite:///{args.data.absolute()}/mlflow.db"
    artifacts = args.data.absolute() / "artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    # Before the import: MLflow decides on its routes while it is imported.
    os.environ |= {
        "_MLFLOW_SERVER_FILE_STORE": database,
        "_MLFLOW_SERVER_REGISTRY_STORE": database,
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": artifacts.as_uri(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
    }
    import uvicorn
    from mlflow.server.fastapi_app import app
    from mlflow.server.handlers import initialize_backend_stores

    initialize_backend_stores(database, database, "mlflow-artifacts:/")
    uvicorn.run(app, host=HOST, port=args.port, log_level="warning")


if __name__ == "__main__":
    main()
