"""The template of training Jobs: what is missing in it is named before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML

from millstream.errors import BadSetup
from millstream_trainer.adapters.job_template import LONGEST_SPEC, JobTemplate
from millstream_trainer.app import create_app
from millstream_trainer.errors import RunFailed
from millstream_trainer.settings import Settings

from .job_manifest import SPEC, manifest


def test_a_manifest_is_what_yaml_makes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    YAML().dump(manifest("training", "/shared/packages"), path)
    assert JobTemplate.read(path, "/shared/packages").namespace == "training"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("metadata", "namespace"), None, "metadata.namespace is missing"),
        (("spec", "ttlSecondsAfterFinished"), None, "spec.ttlSecondsAfterFinished is missing"),
        (("spec", "activeDeadlineSeconds"), 60, "spec.activeDeadlineSeconds is the run's to write"),
        (("spec", "template", "spec", "serviceAccountName"), None, "spec.template.spec.serviceAccountName is missing"),
        (("spec", "template", "spec", "restartPolicy"), "OnFailure", "restartPolicy has to be Never"),
        (("spec", "template", "spec", "containers", 0, "image"), None, "containers[0].image is missing"),
        (("spec", "template", "spec", "containers", 0, "args"), ["x"], "containers[0].args is the run's to write"),
        (("spec", "template", "spec", "containers", 0, "env"), [], "containers[0].env has no MILLSTREAM_LAKE"),
        (("spec", "podFailurePolicy", "rules", 1, "onExitCodes", "values"), [7], "no FailJob for onExitCodes 3 and 2"),
        (("metadata", "name"), "Mill_Trainer", "'Mill_Trainer' is no name of 46 lowercase letters"),
        (("kind",), "Pod", "batch/v1 Pod, and none of batch/v1 Job, trainer"),
    ],
)
def test_a_template_that_misses_something_is_refused_with_its_key(
    tmp_path: Path, path: tuple[Any, ...], value: Any, says: str
) -> None:
    template = at = manifest("training", "/shared/packages")
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    if value is None:
        del at[path[-1]]
    YAML().dump(template, tmp_path / "job.yaml")
    with pytest.raises(BadSetup) as refused:
        JobTemplate.read(tmp_path / "job.yaml", "/shared/packages")
    assert says in str(refused.value)
    assert "MILLSTREAM_JOB_TEMPLATE" in str(refused.value)


def test_jobs_have_their_packages_where_the_trainer_has_them(tmp_path: Path) -> None:
    YAML().dump(manifest("training", "/elsewhere"), tmp_path / "job.yaml")
    with pytest.raises(BadSetup, match="MILLSTREAM_PACKAGES=/elsewhere, and this trainer's is /shared/packages"):
        JobTemplate.read(tmp_path / "job.yaml", "/shared/packages")


def test_one_namespace_holds_the_jobs_of_several_trainers() -> None:
    here, there = manifest("training", "/p"), manifest("training", "/p")
    there["metadata"]["name"] = "staging-trainer"
    names = {JobTemplate(one).name(SPEC).rpartition("-")[2] for one in (here, there)}
    assert len(names) == 2


def test_without_a_cluster_or_a_template_the_trainer_says_what_it_wants(tmp_path: Path, harbour: Path) -> None:
    settings = Settings(project=harbour, executor="kubernetes", packages="/shared/packages")
    with pytest.raises(BadSetup, match="MILLSTREAM_JOB_TEMPLATE is empty"):
        create_app(settings)
    YAML().dump(manifest("training", "/shared/packages"), tmp_path / "job.yaml")
    with pytest.raises(BadSetup, match="automountServiceAccountToken: true, elsewhere MILLSTREAM_KUBECONFIG"):
        create_app(settings.model_copy(update={"job_template": tmp_path / "job.yaml"}))


def test_a_spec_that_no_argument_can_hold_is_refused_before_there_is_a_job() -> None:
    many = msgspec.structs.replace(SPEC, positions={"ships": {part: 10**9 for part in range(LONGEST_SPEC // 10)}})
    with pytest.raises(RunFailed, match=f"as an argument {LONGEST_SPEC} are allowed"):
        JobTemplate(manifest("training", "/p")).job(many, 10)
