"""The compose files and Dockerfiles as Docker reads them: what each service is started with, and what says that it is well."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True, kw_only=True)
class Image:
    """The last stage of a Dockerfile."""

    environment: Mapping[str, str]
    entrypoint: list[str]
    healthcheck: list[str] | None
    user: int
    owned: frozenset[str]
    """Folders that the image gives to its user: a named volume that is mounted there is the user's."""


@dataclass(frozen=True, kw_only=True)
class Mount:
    source: str
    """A folder of the repository (`./…`), or a named volume."""
    target: str
    read_only: bool


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service of a compose file."""

    name: str
    image: Image | None
    """None: one that is pulled."""
    command: list[str]
    entrypoint: list[str] | None
    environment: Mapping[str, str]
    mounts: list[Mount]
    published: dict[int, int]
    """Port in the container → on loopback."""
    after: Mapping[str, str]
    """Service → the condition that is waited for."""
    healthcheck: list[str] | None = None
    tmpfs: list[str] = field(default_factory=list)


def read_compose(*files: str, environment: Mapping[str, str] | None = None) -> dict[str, Service]:
    """The files laid over each other, as `docker compose -f … -f …` does; `environment` fills `${NAME:-default}`."""
    merged: dict[str, dict[str, Any]] = {}
    for file in files:
        loaded = YAML(typ="safe").load(_filled((ROOT / file).read_text(), environment or {}))
        for name, said in loaded["services"].items():
            before = merged.setdefault(name, {})
            for key, value in said.items():
                old = before.get(key)
                before[key] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return {name: _service(name, said) for name, said in merged.items()}


def _filled(text: str, environment: Mapping[str, str]) -> str:
    def fill(found: re.Match[str]) -> str:
        name, default = found.groups()
        assert name in environment or default is not None, f"${{{name}}} has no default"
        return environment.get(name, default or "")

    return _VARIABLE.sub(fill, text)


def _service(name: str, said: Mapping[str, Any]) -> Service:
    health = said.get("healthcheck", {}).get("test")
    after = said.get("depends_on", {})
    return Service(
        name=name,
        image=read_image(ROOT / said["build"]["dockerfile"]) if "build" in said else None,
        command=[str(word) for word in said.get("command", [])],
        entrypoint=said.get("entrypoint"),
        environment={key: str(value) for key, value in said.get("environment", {}).items()},
        mounts=[_mount(one) for one in said.get("volumes", [])],
        published=dict(_port(one) for one in said.get("ports", [])),
        after={other: one["condition"] for other, one in after.items()},
        healthcheck=None if health is None else (health[1:] if health[0] == "CMD" else ["sh", "-c", health[1]]),
        tmpfs=said.get("tmpfs", []),
    )


def _mount(said: str) -> Mount:
    source, target, *mode = said.split(":")
    return Mount(source=source, target=target, read_only=mode == ["ro"])


def _port(said: str) -> tuple[int, int]:
    _, published, inside = said.split(":")
    return int(inside), int(published)


def read_image(dockerfile: Path) -> Image:
    """Raises AssertionError for what this reader does not know, so that nothing is passed over."""
    text = dockerfile.read_text().replace("\\\n", " ")
    stage = text[text.rindex("\nFROM ") :]
    environment: dict[str, str] = {}
    entrypoint: list[str] = []
    healthcheck: list[str] | None = None
    user = 0
    owned: set[str] = set()
    for line in stage.strip().splitlines():
        word, _, rest = line.partition(" ")
        if word == "ENV":
            environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        elif word == "ENTRYPOINT":
            entrypoint = json.loads(rest)
        elif word == "HEALTHCHECK":
            healthcheck = json.loads(rest[rest.index("[") :])
        elif word == "USER":
            user = int(rest.split(":")[0])
        elif word == "RUN":
            owned |= {folder for uid, folder in re.findall(r"chown (\d+):\d+ (\S+)", rest)}
        else:
            assert word in ("FROM", "COPY", "EXPOSE", "VOLUME", "#", ""), f"{dockerfile}: {line}"
    return Image(
        environment=environment, entrypoint=entrypoint, healthcheck=healthcheck, user=user, owned=frozenset(owned)
    )
