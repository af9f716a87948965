"""Where a lake lies: a folder or object storage, what its clients need for it, and what their errors mean to a person.

Credentials come from where the storage's own tools look for them (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, a role of the pod
…) or from `storage_options`; they are never part of an address, a message or a log line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from types import TracebackType
from urllib.parse import urlsplit

from deltalake.exceptions import DeltaError

from millstream_tiles.errors import LakeRefused, LakeUnavailable

PATIENCE = {
    "connect_timeout": "5s",
    "timeout": "60s",  # one request: 100 MB at 2 MB/s
    "max_retries": "4",
    "retry_timeout": "30s",
}
"""Of object storage. delta-rs's own three minutes would keep a batch, a drain and a person waiting for as long; whoever
writes comes again anyway."""

_SECRET = re.compile(r"secret|token|password|access_key|account_key|sas|credential", re.IGNORECASE)
_ONE_SLASH = re.compile(r"[a-z][a-z0-9]+:/(?!/)")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_REFUSED = re.compile(
    r"InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|InvalidToken|AccessDenied|40[13] (Forbidden|Unauthorized)"
)
LONGEST = 400
"""Characters of a storage's message that a person reads on."""


class Storage:
    """Address and options of a lake. Raises LakeRefused for what no lake can be kept safely with."""

    def __init__(self, uri: str | os.PathLike[str], options: Mapping[str, str] | None = None) -> None:
        if not isinstance(uri, str):
            uri = os.fspath(uri)
            if _ONE_SLASH.match(uri):  # it would become a folder here that is called "s3:"
                raise LakeRefused(f"lake {uri}: a Path makes one slash of two; give the address as text")
        self.uri = uri if uri.endswith("://") else uri.rstrip("/")
        given = {name.lower(): value for name, value in (options or {}).items()}
        self.remote = "://" in self.uri and not self.uri.startswith("file://")
        if not self.remote:
            self.options = given
            return
        parts = urlsplit(self.uri)
        if "@" in parts.netloc and parts.scheme.startswith("s3"):
            raise LakeRefused(
                f"lake {parts.scheme}://…@{parts.hostname}: the address carries credentials and would be logged; "
                f"write {parts.scheme}://{parts.hostname}{parts.path} and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        if not parts.netloc:
            raise LakeRefused(f"lake {self.uri}: no bucket; write {parts.scheme}://bucket/prefix")
        self.options = PATIENCE | given
        if parts.scheme in ("s3", "s3a"):
            self._s3(given)

    def _s3(self, given: Mapping[str, str]) -> None:
        for name, value in _setting("aws_s3_allow_unsafe_rename", given):
            if value.lower() in ("1", "true", "yes", "on"):
                raise LakeRefused(
                    f"lake {self.uri}: {name} is on, so that two writers would overwrite each other's commits; remove it "
                    "and use a storage with conditional puts (AWS, MinIO, R2, Ceph have them)"
                )
        # Whoever commits a version second is refused by the storage itself.
        self.options.setdefault("aws_conditional_put", "etag")
        if self.endpoint.startswith("http://"):
            self.options.setdefault("aws_allow_http", "true")

    @property
    def endpoint(self) -> str:
        """Where an S3 other than Amazon's answers; empty without one."""
        names = ("aws_endpoint_url", "aws_endpoint_url_s3", "aws_endpoint", "endpoint_url", "endpoint")
        return next((value for name in names for _, value in _setting(name, self.options) if value), "")

    def table(self, stream: str) -> str:
        return f"{self.uri}/{stream}"

    def said(self, error: BaseException) -> str:
        """What `error` means, and what to do where that is known; one line, without a secret."""
        text = " ".join(_COLOURS.sub("", str(error)).replace("↳", "").split())
        bucket = urlsplit(self.uri).netloc
        if "NoSuchBucket" in text:
            return f"bucket {bucket!r} does not exist; create it, or correct the lake's address"
        if refused := list(_REFUSED.finditer(text)):
            if "169.254.169.254" in text or "metadata" in text:
                return self._no_credentials
            return (
                f"the storage refuses our credentials ({refused[-1][0]}); check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
                f"what they may do with bucket {bucket!r}"
            )
        if "169.254.169.254" in text:
            return self._no_credentials
        if self.remote and ("(Connect)" in text or "dns error" in text):
            return f"{self.endpoint or 'the storage'} does not answer; check AWS_ENDPOINT_URL and the network"
        for value in self._secrets():
            text = text.replace(value, "…")
        return text if len(text) <= LONGEST else text[:LONGEST] + "…"

    _no_credentials = (
        "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with a role that has access"
    )

    def _secrets(self) -> list[str]:
        known = [
            *self.options.items(),
            *((k, v) for k, v in os.environ.items() if k.startswith(("AWS_", "AZURE_", "GOOGLE_"))),
        ]
        return [value for name, value in known if _SECRET.search(name) and len(value) > 3]

    def __repr__(self) -> str:
        return f"Storage({self.uri!r})"


def _setting(name: str, given: Mapping[str, str]) -> list[tuple[str, str]]:
    """Where an option is set, and to what: among the options, else in the environment."""
    if name in given:
        return [(name, given[name])]
    variable = name.upper()
    return [(variable, os.environ[variable])] if name.startswith("aws_") and variable in os.environ else []


class Unavailable:
    """Turns what storage and Delta raise into LakeUnavailable; who wants to see a lost race catches it inside."""

    def __init__(self, storage: Storage, stream: str, done: str) -> None:
        self._storage = storage
        self._what = f"lake {stream} cannot be {done}"

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DeltaError | OSError):
            raise LakeUnavailable(f"{self._what}: {self._storage.said(error)}") from error
