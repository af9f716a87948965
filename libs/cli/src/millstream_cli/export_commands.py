"""`millstream export`: a loop's model for another platform."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from millstream_cli.loop_commands import KafkaOption, LoopArgument
from millstream_cli.shell import HOME, DataOption, JsonOption, guarded, screen


class Format(StrEnum):
    KSERVE = "kserve"


def export(
    loop: LoopArgument,
    storage: Annotated[
        str, typer.Option(help="Where KServe will find the repository folder: s3://…, gs://…, pvc://….")
    ],
    to: Annotated[Path | None, typer.Option(help="Empty folder for the files. Default: out/LOOP-kserve.")] = None,
    version: Annotated[str | None, typer.Option(help="Version of the model. Default: the champion.")] = None,
    format: Annotated[Format, typer.Option(help="What it is written for.")] = Format.KSERVE,
    namespace: Annotated[str | None, typer.Option(help="Of the InferenceService. Default: kubectl's.")] = None,
    kafka: KafkaOption = None,
    packages: Annotated[
        str | None, typer.Option(help="Folder of the model packages. Default: the running mill's.")
    ] = None,
    data: DataOption = HOME,
    as_json: JsonOption = False,
) -> None:
    """Write a version as KServe runs it: an InferenceService, and the model repository of its Triton runtime.

    Who asks it there gives every column, features too: only serving looks them up, records answers and watches them.

    Example:  millstream export flight-delay --storage s3://models/flight-delay

    Example:  millstream export flight-delay --version 3 --storage pvc://models/flight-delay --to out/three
    """
    from millstream_cli import exporting as work

    folder = to or Path("out") / f"{loop}-{format.value}"
    with guarded():
        written = work.export(
            loop,
            to=folder,
            storage=storage,
            namespace=namespace,
            version=version,
            kafka=kafka,
            packages=packages,
            root=data / "up",
        )
    work.tell(loop, written, folder, storage, screen(), as_json)
