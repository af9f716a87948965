"""`millstream score`: a table of questions, answered by a loop's model."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from millstream_cli.features_commands import AnyProject, KafkaOption, LakeOption
from millstream_cli.loop_commands import LoopArgument
from millstream_cli.shell import HOME, DataOption, JsonOption, guarded


class Features(StrEnum):
    LOOKUP = "lookup"
    GIVEN = "given"


def score(
    loop: LoopArgument,
    source: Annotated[Path, typer.Option("--input", help="Parquet file, a row a question.")],
    output: Annotated[Path, typer.Option(help="Parquet file; appears when every row is answered.")],
    features: Annotated[
        Features,
        typer.Option(help="lookup: as known at each row's event_timestamp; given: columns of the input."),
    ] = Features.LOOKUP,
    version: Annotated[str | None, typer.Option(help="Version of the model. Default: the champion.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: the cores given.")] = None,
    project: AnyProject = None,
    kafka: KafkaOption = None,
    lake: LakeOption = None,
    packages: Annotated[
        str | None, typer.Option(help="Folder of the model packages. Default: the running mill's.")
    ] = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Answer every row of a Parquet file, as serving would have answered it live.

    The output has the columns that the model does not read, the keys, the answer (probability, value, or probability_CLASS),
    the version that gave it, and how many of its features were null. A row without an honest answer has null.

    Example:  millstream score flight-delay --input march.parquet --output answers.parquet

    Example:  millstream score flight-delay --input table.parquet --output answers.parquet --features given --version 3
    """
    from millstream_cli import scoring as work

    with guarded():
        sources = work.Sources(project=project, kafka=kafka, packages=packages, lake=lake)
        told = work.environment(data / "up", sources, look_up=features is Features.LOOKUP, version=version)
        asked = [loop, "--input", str(source), "--output", str(output), "--features", features.value]
        asked += ["--version", version] if version is not None else []
        asked += ["--threads", str(threads)] if threads is not None else []
        work.become([*asked, *(["--json"] if as_json else [])], told)
