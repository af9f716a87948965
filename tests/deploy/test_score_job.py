"""The Job that scores a table: what it is called, and what its command is told."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

from millstream.runtime.kafka_security import KafkaSecurity

from .charts import documents, of_kind, template


def test_another_table_is_another_job_and_the_same_one_is_none(helm: Path) -> None:
    """A Job cannot be changed, and one whose name is there already is left alone by an upgrade."""

    def job(*sets: str) -> str:
        (found,) = of_kind(documents(template(helm, "serving", "everything-values.yaml", *sets)), "Job")
        return str(found["metadata"]["name"])

    assert job() == job("settings.log_level=INFO")
    names = {job(), job("score.input=/tables/april.parquet"), job("score.run=again"), job("score.features=given")}
    assert len(names) == 4


def test_the_job_of_a_table_says_what_the_command_takes(helm: Path) -> None:
    """Its arguments and its environment are those of `python -m millstream_serving score`."""
    (job,) = of_kind(documents(template(helm, "serving", "everything-values.yaml")), "Job")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    names = {entry["name"] for entry in container["env"] if not entry["name"].startswith("AWS_")}
    module = importlib.import_module("millstream_serving.settings")

    assert names <= {f"MILLSTREAM_{name.upper()}" for name in module.ScoreSettings.model_fields}
    # A Secret and its mounted files are not here; what Kafka is entered with, the pods' test has.
    said = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    environment = said | KafkaSecurity.environment_of_none() | {"MILLSTREAM_PROJECT": "/nowhere"}
    said = subprocess.run(
        [sys.executable, "-m", "millstream_serving", *container["args"]],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert said.returncode == 2, said.stderr
    assert "/nowhere" in said.stderr, "the arguments are understood; what is missing is the project"
