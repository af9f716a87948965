"""Where a mill keeps its features: the one that runs here, or one elsewhere that is named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from millstream.runtime.kafka_security import Bootstrap, Kafka, KafkaSecurity
from millstream_cli.errors import CommandFailed
from millstream_cli.mill import MillState


@dataclass(frozen=True, kw_only=True)
class Place:
    """What must be known to look at features from outside."""

    project: Path
    kafka: Bootstrap
    lake: str
    valkey: str
    namespace: str
    """Prefix of the online store's keys, as the services' MILLSTREAM_NAMESPACE has it."""


def named(kafka: str) -> Kafka:
    """A Kafka elsewhere: how it is entered, MILLSTREAM_KAFKA_SECURITY and its kin say, as to the services. Raises BadSetup."""
    return KafkaSecurity.of_environment().at(kafka)


def place_of(
    root: Path, *, project: Path | None, kafka: str | None, lake: str | None, valkey: str | None, namespace: str
) -> Place:
    """What is named; the rest is that of the mill which runs in `root`. An address that nobody needs may be "".

    Raises CommandFailed when nothing says it.
    """
    if project is not None and kafka is not None and lake is not None and valkey is not None:
        return Place(project=project, kafka=named(kafka), lake=lake, valkey=valkey, namespace=namespace)
    try:
        state = MillState.load(root, project)
    except CommandFailed as error:
        options = ["--project", *(["--kafka"] if kafka != "" else []), "--lake", "--valkey"]
        raise CommandFailed(f"{error}; or name a mill elsewhere in full, with {', '.join(options)}") from error
    return Place(
        project=project or Path(state.project),
        kafka=state.kafka if kafka is None else named(kafka),
        lake=lake or state.lake,
        valkey=valkey or state.valkey,
        namespace=namespace,
    )


def kafka_of(kafka: str | None, data: Path) -> Bootstrap:
    """The Kafka that is named, else that of the mill that runs in `data`. Raises CommandFailed."""
    if kafka is not None:
        return named(kafka)
    try:
        return MillState.load(data / "up").kafka
    except CommandFailed as error:
        raise CommandFailed(f"{error}; or name a Kafka elsewhere: --kafka") from error
