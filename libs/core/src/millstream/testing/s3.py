"""An S3 on loopback for tests: moto's server, which honours conditional puts. Everything is in memory, gone with a stop."""

import http.client
import sys

from millstream.testing.extras import need_installed
from millstream.testing.ports import HOST
from millstream.testing.process import ManagedProcess
from millstream.testing.server import SingleServer

READY_WITHIN_SECONDS = 60.0
"""A second on an idle machine, nearly all of it imports."""


class EmbeddedS3(SingleServer):
    """One server; buckets live until it stops."""

    name = "s3"

    @property
    def url(self) -> str:
        """Endpoint. Known from the first start on."""
        return f"http://{HOST}:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs to find it, and credentials that it takes."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "miller",
            "AWS_SECRET_ACCESS_KEY": "grain-and-water",
            "AWS_REGION": "us-east-1",
        }

    def make_bucket(self, name: str) -> str:
        """A new, empty bucket; returns its address, `s3://name`."""
        assert self._ask("PUT", f"/{name}") == 200, f"bucket {name} was not made"
        return f"s3://{name}"

    def know_nobody(self, *, from_now: bool) -> None:
        """Refuse every key, as S3 does with one that is wrong; or take every key again."""
        assert self._ask("POST", "/moto-api/reset-auth", "0" if from_now else "inf") == 200

    def _prepare(self) -> ManagedProcess:
        need_installed("moto")
        return ManagedProcess(
            self.name,
            [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(self._port)],
            log=self._log,
            ready=self._answers,
            ready_within=READY_WITHIN_SECONDS,
        )

    def _answers(self) -> bool:
        try:
            return self._ask("GET", "/moto-api/data.json") == 200
        except (OSError, http.client.HTTPException):
            return False

    def _ask(self, method: str, path: str, body: str | None = None) -> int:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=10)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()
