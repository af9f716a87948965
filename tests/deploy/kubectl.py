"""kubectl and Helm as a person calls them, against one control plane."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from .charts import CHARTS


class Said(Exception):
    """The command failed; the message is what it printed for a person."""


def call(*command: str | Path, env: Mapping[str, str], given: str | None, within: float) -> str:
    """What it prints. Raises Said."""
    said = subprocess.run(
        [str(part) for part in command],
        env=os.environ | env,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=within,
    )
    if said.returncode:
        raise Said("\n".join(line for line in said.stderr.splitlines() if "symbolic link" not in line))
    return said.stdout


@dataclass(frozen=True, kw_only=True)
class Kubectl:
    """Commands in one namespace, or outside of any."""

    program: Path
    kubeconfig: Path
    namespace: str = ""

    def within(self, namespace: str) -> Kubectl:
        return replace(self, namespace=namespace)

    def __call__(self, *arguments: str | Path, given: str | None = None, within: float = 60) -> str:
        """What it prints. Raises Said."""
        cache = self.kubeconfig.parent / "kubectl-cache"
        here = ("--namespace", self.namespace) if self.namespace else ()
        options = ("--kubeconfig", self.kubeconfig, "--cache-dir", cache)
        return call(self.program, *options, *here, *arguments, env={}, given=given, within=within)

    def refuses(self, *arguments: str | Path, given: str | None = None) -> str:
        """Why. Raises AssertionError when it does not."""
        try:
            printed = self(*arguments, given=given)
        except Said as said:
            return str(said)
        raise AssertionError(f"accepted: {' '.join(map(str, arguments))}\n{printed}")

    def get(self, *what: str) -> Any:
        """The object, or the list."""
        return json.loads(self("get", *what, "-o", "json"))

    def names(self, kinds: str) -> set[str]:
        """Of the objects of `kinds`, a list with commas, as `kind/name`."""
        return set(self("get", kinds, "-o", "name", "--ignore-not-found").split())


@dataclass(frozen=True, kw_only=True)
class Helm:
    """Releases in one namespace."""

    program: Path
    kubeconfig: Path
    namespace: str

    def __call__(self, *arguments: str | Path, within: float = 100) -> str:
        """What it prints. Raises Said."""
        home = self.kubeconfig.parent / "helm"
        places = {f"HELM_{name}_HOME": str(home / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        options = ("--kubeconfig", self.kubeconfig, "--namespace", self.namespace)
        return call(self.program, *options, *arguments, env=places, given=None, within=within)

    def install(self, chart: str, values: str, *more: str | Path, release: str = "", wait: int = 60) -> str:
        """`values` is a file of the chart's ci folder. Raises Said."""
        return self(
            *("install", release or chart, CHARTS / chart, "-f", CHARTS / chart / "ci" / values),
            *("--wait", "--timeout", f"{wait}s", *more),
        )

    def upgrade(self, chart: str, values: str, *more: str | Path, release: str = "", wait: int = 60) -> str:
        return self(
            *("upgrade", release or chart, CHARTS / chart, "-f", CHARTS / chart / "ci" / values),
            *("--wait", "--timeout", f"{wait}s", *more),
        )
