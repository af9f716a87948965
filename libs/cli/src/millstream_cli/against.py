"""The streams of a project as they are elsewhere: at a git ref, in a folder, or at a running ingest."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import msgspec

from millstream.client.requests import KEY_VARIABLE
from millstream.project import BadProject, Stream
from millstream.project.load import load_streams
from millstream.project.reading import read_model
from millstream.project.source import Source
from millstream.project.stream import UNREAD_STREAM
from millstream.project.versions import ENDS
from millstream_cli.errors import CommandFailed

WITHIN = 30.0
"""Seconds for git, and for each answer of ingest."""
LARGEST = 64 * 1024 * 1024
"""Bytes of an archive of streams/, where a file has at most 256 KiB."""


def streams_at(against: str, project: Path) -> Mapping[str, Stream]:
    """Raises CommandFailed."""
    try:
        if against.startswith(("http://", "https://")):
            with tempfile.TemporaryDirectory(prefix="millstream-against-") as folder:
                return _of_ingest(against.rstrip("/"), Path(folder))
        if Path(against).is_dir():
            return load_streams(against)
        return _of_git(against, project)
    except BadProject as error:
        raise CommandFailed(f"{against} cannot be compared with: {error}") from error


def _of_git(ref: str, project: Path) -> Mapping[str, Stream]:
    # A ref that begins with a dash would be an option.
    command = ["git", "-C", str(project), "archive", "--format=tar", "--end-of-options", ref, "streams"]
    try:
        ran = subprocess.run(command, capture_output=True, timeout=WITHIN, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandFailed(f"git did not run: {error}") from error
    if ran.returncode:
        said = ran.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
        raise CommandFailed(
            f"{ref!r} is no folder, and git has no such streams ({said}); name a git ref like main or v1.2, a project folder, "
            "or the address of an ingest"
        )
    if len(ran.stdout) > LARGEST:
        raise CommandFailed(f"streams/ at {ref} has {len(ran.stdout):,} bytes; a stream's files have kilobytes")
    with tempfile.TemporaryDirectory(prefix="millstream-against-") as folder:
        with tarfile.open(fileobj=io.BytesIO(ran.stdout)) as archive:
            archive.extractall(folder, filter="data")
        return load_streams(folder)


def _of_ingest(url: str, folder: Path) -> Mapping[str, Stream]:
    """MILLSTREAM_KEY has its key: an ingest behind a gateway may ask for one to read, too."""
    key = os.environ.get(KEY_VARIABLE)
    headers = {"authorization": f"Bearer {key}"} if key else None
    found = {}
    try:
        with httpx.Client(base_url=url, headers=headers, timeout=WITHIN) as http:
            for one in _asked(http, "/v1/streams")["streams"]:
                found[one["stream"]] = _of_answer(http, one, folder)
    except (httpx.HTTPError, httpx.InvalidURL, msgspec.DecodeError, LookupError, TypeError) as error:
        raise CommandFailed(f"{url} does not answer as an ingest does: {type(error).__name__}: {error}") from error
    return found


def _of_answer(http: httpx.Client, one: Mapping[str, Any], folder: Path) -> Stream:
    name, format = one["stream"], one["format"]
    place = f"/v1/streams/{name}/schema"
    if format == "json":
        schema = _asked(http, place)
    else:
        # Written under a name of ours: an answer names no files here.
        file = folder / f"stream{len(list(folder.iterdir()))}{ENDS[format]}"
        file.write_text(_text(http, f"{place}?form=own"))
        schema = {"file": file.name} | ({"message": one["message"]} if one.get("message") else {})
    said = {key: one[key] for key in ("stream", "description", "key", "id", "time", "format") if one.get(key)}
    source = Source(file=place, data=said | {"schema": schema}, lines={}, unread=frozenset())
    reading = read_model(source, Stream, UNREAD_STREAM, folder)
    if reading.item is None or reading.problems:
        raise BadProject(reading.problems)
    return reading.item


def _asked(http: httpx.Client, path: str) -> dict[str, Any]:
    return msgspec.json.decode(_text(http, path), type=dict[str, Any])


def _text(http: httpx.Client, path: str) -> str:
    answer = http.get(path)
    if answer.status_code in (401, 403):
        raise CommandFailed(
            f"{http.base_url} lets nobody read {path} ({answer.status_code}); give a key that may in {KEY_VARIABLE}"
        )
    answer.raise_for_status()
    return answer.text
