"""A small schema registry for tests: ids, subjects, versions and references as Confluent's REST API publishes them.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html. No compatibility rules: what a test wants refused
it puts into `refused`.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

JSON_TYPE = "application/vnd.schemaregistry.v1+json"


class RegistryServer:
    """One registry in a thread of this process. A context manager: it answers inside."""

    def __init__(self, *, auth: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        """`auth`: the only `user:password` it takes."""
        self.schemas: dict[int, dict[str, Any]] = {}
        self.subjects: dict[str, list[int]] = {}
        self.refused: dict[str, str] = {}
        """Subject → why nothing is registered under it (409)."""
        self.away = False
        """Answers 503 to everything."""
        self.asked: list[str] = []
        """Every request, as `GET /schemas/ids/1`."""
        self._auth = auth and "Basic " + base64.b64encode(auth.encode()).decode()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._server.server_port}"

    @contextmanager
    def running(self) -> Iterator[RegistryServer]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def register(
        self,
        subject: str,
        schema: str,
        kind: str = "AVRO",
        references: list[dict[str, Any]] | None = None,
        id: int | None = None,
    ) -> int:
        """The id of `schema`, which it keeps wherever it is registered again."""
        said = {"schema": schema, "schemaType": kind, "references": references or []}
        with self._lock:
            known = next((number for number, one in self.schemas.items() if one == said), None)
            number = known or id or max(self.schemas, default=0) + 1
            self.schemas[number] = said
            versions = self.subjects.setdefault(subject, [])
            if number not in versions:
                versions.append(number)
            return number

    def answer(self, method: str, path: str, body: Any, auth: str | None) -> tuple[int, Any]:
        """Status and body of one request."""
        self.asked.append(f"{method} {path}")
        if self.away:
            return 503, {"error_code": 50003, "message": "away"}
        if self._auth is not None and auth != self._auth:
            return 401, {"error_code": 401, "message": "Unauthorized"}
        asked = urlsplit(path)
        serialized = "format=serialized" in asked.query
        match method, [unquote(part) for part in asked.path.strip("/").split("/")]:
            case "GET", ["schemas", "types"]:
                return 200, ["AVRO", "PROTOBUF", "JSON"]
            case "GET", ["schemas", "ids", id]:
                if int(id) not in self.schemas:
                    return 404, {"error_code": 40403, "message": f"Schema {id} not found"}
                return 200, self._said(int(id), serialized)
            case "GET", ["subjects", subject, "versions", version]:
                return self._version(subject, version, serialized)
            case "POST", ["subjects", subject]:
                return self._look_up(subject, body)
            case "POST", ["subjects", subject, "versions"]:
                if subject in self.refused:
                    return 409, {"error_code": 409, "message": self.refused[subject]}
                kind = body.get("schemaType", "AVRO")
                return 200, {"id": self.register(subject, body["schema"], kind, body.get("references"))}
            case _:
                return 404, {"error_code": 404, "message": "HTTP 404 Not Found"}

    def _said(self, id: int, serialized: bool = False) -> dict[str, Any]:
        """Avro's own type is not written, as a registry does not either. `serialized`: protobuf as base64 of its descriptor."""
        said = dict(self.schemas[id])
        if serialized and said["schemaType"] == "PROTOBUF":
            from google.protobuf.descriptor_pb2 import FileDescriptorSet

            from millstream.codecs.proto_schema import compiled

            file = FileDescriptorSet.FromString(compiled(said["schema"], "default.proto")).file[-1]
            said["schema"] = base64.b64encode(file.SerializeToString()).decode()
        return {k: v for k, v in said.items() if (k, v) not in (("schemaType", "AVRO"), ("references", []))}

    def _version(self, subject: str, version: str, serialized: bool) -> tuple[int, Any]:
        if subject not in self.subjects:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        versions = self.subjects[subject]
        number = len(versions) if version == "latest" else int(version)
        if not 0 < number <= len(versions):
            return 404, {"error_code": 40402, "message": f"Version {version} not found."}
        id = versions[number - 1]
        return 200, {"subject": subject, "version": number, "id": id} | self._said(id, serialized)

    def _look_up(self, subject: str, body: Any) -> tuple[int, Any]:
        if subject not in self.subjects:
            return 404, {"error_code": 40401, "message": f"Subject '{subject}' not found."}
        said = {
            "schema": body["schema"],
            "schemaType": body.get("schemaType", "AVRO"),
            "references": body.get("references") or [],
        }
        for number, id in enumerate(self.subjects[subject], 1):
            if self.schemas[id] == said:
                return 200, {"subject": subject, "version": number, "id": id} | self._said(id)
        return 404, {"error_code": 40403, "message": "Schema not found"}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._do("GET")

            def do_POST(self) -> None:
                self._do("POST")

            def _do(self, method: str) -> None:
                length = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                status, said = registry.answer(method, self.path, body, self.headers.get("authorization"))
                raw = json.dumps(said).encode()
                self.send_response(status)
                self.send_header("content-type", JSON_TYPE)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *said: object) -> None:
                """Not on a test's screen."""

        return Handler
