"""A real MLflow tracking server and model registry on loopback: SQLite, files, one process."""

import http.client
import sys

from millstream.testing.extras import need_installed
from millstream.testing.ports import HOST
from millstream.testing.process import ManagedProcess
from millstream.testing.server import SingleServer

READY_WITHIN_SECONDS = 120.0
"""5 to 10 s on two idle cores, nearly all of it imports; a busy machine needs several times as much."""

ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Jobs (evaluation of language models) would be a process of 260 MB more.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}


class EmbeddedMlflow(SingleServer):
    """One server with database and artifacts under `data_dir`. Data and port survive stop, kill9 and start."""

    name = "mlflow"

    @property
    def url(self) -> str:
        """Tracking and registry URI. Known from the first launch on."""
        return f"http://{HOST}:{self._port}"

    def _prepare(self) -> ManagedProcess:
        need_installed("mlflow")
        program = [sys.executable, "-m", "millstream.testing.mlflow_server"]
        return ManagedProcess(
            self.name,
            [*program, "--data", self._data, "--port", str(self._port)],
            log=self._log,
            cwd=self._data,
            env=ENVIRONMENT,
            ready=self._healthy,
            ready_within=READY_WITHIN_SECONDS,
        )

    def _healthy(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=1)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
