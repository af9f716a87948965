"""The manifest that a person writes for a model that was made elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from millstream_cli.errors import CommandFailed

EXAMPLE = """
  learned_until: 2013-05-01T00:00:00Z   # when the newest row that it has learned was asked
  inputs: [distance, scheduled_minute]  # columns of its one matrix; leave out where its inputs are named as the columns
  output: probabilities                 # leave out where only one of its outputs holds numbers
  classes: [early, late]                # multiclass: what the columns of its output stand for"""

Name = Annotated[str, Field(min_length=1)]


class GivenManifest(BaseModel):
    """What the graph does not say of itself."""

    model_config = ConfigDict(extra="forbid")

    learned_until: AwareDatetime
    inputs: list[Name] = []
    output: str = ""
    classes: list[Name] = []


def read_manifest(file: Path) -> dict[str, Any]:
    """As the trainer takes it. Raises CommandFailed."""
    try:
        said = YAML(typ="safe", pure=True).load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise CommandFailed(f"{file} cannot be read: {error}") from error
    if not isinstance(said, dict):
        raise CommandFailed(f"{file} is no manifest; write it like this:{EXAMPLE}")
    try:
        return GivenManifest.model_validate(said).model_dump(mode="json")
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise CommandFailed(f"{file}: {faults}; write it like this:{EXAMPLE}") from error
