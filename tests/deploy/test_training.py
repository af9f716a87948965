"""Training as Jobs: the chart's template is one that the trainer takes, and its rights are those that the trainer uses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from millstream.contracts.topics import TRAINING_JOBS, TRAINING_JOBS_GROUP
from millstream.project.resource import PLURAL
from millstream_trainer.settings import Settings

from .charts import EXAMPLES, ROOT, documents, job_of, of_kind, runs, template
from .kube_schemas import KUBERNETES
from .test_rendered import conforms
from .training import EVERYTHING, EXECUTORS, config, job, rendered

JOBS = "training.executor=kubernetes"
SAME = (
    *(
        "serviceAccountName",
        "automountServiceAccountToken",
        "enableServiceLinks",
        "imagePullSecrets",
        "securityContext",
    ),
    *("nodeSelector", "tolerations", "affinity", "runtimeClassName", "priorityClassName", "volumes"),
)

ADAPTERS = ROOT / "services/trainer/src/millstream_trainer/adapters"
EXAMPLES_OF_TRAINER = [values for chart, values in EXAMPLES if chart == "trainer"]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("values", EXAMPLES_OF_TRAINER)
def test_the_trainer_makes_a_job_that_the_api_knows(
    values: str, executor: str, version: str, helm: Path, kubeconform: Path, schemas: Path, tmp_path: Path
) -> None:
    made = job(rendered(helm, values, executor), tmp_path)

    said = conforms(json.dumps(made), version, kubeconform, schemas)

    assert said.returncode == 0, said.stdout
    assert "Skipped: 0" in said.stdout
    assert made["kind"] == EXECUTORS[executor].kind
    assert made["metadata"]["name"].startswith("mill-trainer-")
    assert len(made["metadata"]["name"]) <= EXECUTORS[executor].longest


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("values", EXAMPLES_OF_TRAINER)
def test_the_trainer_may_do_what_it_does_and_nothing_else(values: str, executor: str, helm: Path) -> None:
    code = (ADAPTERS / "kubernetes_api.py").read_text()
    does = {(resource, verb) for verb, resource in re.findall(r'self\._(?:ask|open)\("(\w+)", "(\w+)"', code)}
    does |= {(resource, "watch") for resource in re.findall(r'self\._watch\("(\w+)"', code)}
    kind = EXECUTORS[executor]
    found = rendered(helm, values, executor)

    # Another Role is the account's of Argo's own container.
    (role,) = (one for one in of_kind(found, "Role") if one["metadata"]["name"] == "trainer-training")
    may = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }

    assert ("jobs", "list") in does
    if not kind.stays:
        does -= {("jobs", "list")}  # to remove what Kubernetes and Argo remove by themselves
    assert may == {
        (kind.group, kind.resource, verb) if resource == "jobs" else ("", resource, verb) for resource, verb in does
    }
    assert of_kind(found, "ClusterRole") == []


def test_for_loops_it_may_do_what_it_does_with_what_is_named(helm: Path) -> None:
    code = (ADAPTERS / "kubernetes_loops.py").read_text()
    asks = re.findall(r'self\._ask\("(\w+)", (PLURAL|"\w+")', code)
    does = {(resource.strip('"').replace("PLURAL", PLURAL), verb) for verb, resource in asks}
    does |= {(PLURAL, "watch")} if "self._watch(PLURAL" in code else set()
    merges = re.findall(r'\bmerge\((PLURAL|"\w+"), (f"\{loop\}/status")?', code)
    does |= {(f"{PLURAL}/status" if status else resource.strip('"'), "patch") for resource, status in merges}
    found = documents(template(helm, "trainer", "loops-values.yaml"))
    roles = {one["metadata"]["name"]: one["rules"] for one in of_kind(found, "Role")}

    here, there = roles["trainer-loops"], roles["mill-trainer-loops"]
    assert {(one, verb) for rule in here for one in rule["resources"] for verb in rule["verbs"]} == does
    for rule in (*here, *there):
        assert rule.get("resourceNames") or rule["resources"][0].startswith(PLURAL), (
            "by name, where it is a kind of others"
        )
    assert there == [
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["mill-trainer-loops"],
            "verbs": ["get", "patch"],
        }
    ]
    made = {(one["metadata"]["namespace"], one["metadata"]["name"]) for one in of_kind(found, "ConfigMap")}
    assert {("mill", "mill-loops"), ("training", "mill-trainer-loops")} <= made


@pytest.mark.parametrize("executor", EXECUTORS)
def test_the_pod_of_a_run_is_the_same_whoever_makes_it(executor: str, helm: Path) -> None:
    def plain(executor: str) -> dict[str, Any]:
        found = rendered(helm, EVERYTHING, executor)
        (pod,) = (one["spec"] for one in runs(found))
        said = {key: pod.get(key) for key in SAME}
        (container,) = pod["containers"]
        # Ray's container starts Ray, and Argo and Kubeflow call it by names of their own.
        return said | {key: value for key, value in container.items() if key not in ("name", "command", "args")}

    assert plain(executor) == plain("kubernetes")


@pytest.mark.parametrize("executor", EXECUTORS)
def test_what_it_refers_to_is_there(executor: str, helm: Path, tmp_path: Path) -> None:
    found = rendered(helm, EVERYTHING, executor)
    spec = job(found, tmp_path)["spec"]
    wanted = spec.get("runtimeRef") or (spec.get("workflowTemplateRef") or {}) | {"kind": "WorkflowTemplate"}
    there = [one for one in found if one["metadata"]["name"] == wanted.get("name")]

    assert [(one["kind"], one["metadata"]["namespace"]) for one in there] == (
        [(wanted["kind"], "training")] if "name" in wanted else []
    )


def test_argo_tells_the_run_what_the_trainer_told_it(helm: Path, tmp_path: Path) -> None:
    found = rendered(helm, EVERYTHING, "workflow")
    (beside,) = of_kind(found, "WorkflowTemplate")
    told = {one["name"] for one in job(found, tmp_path)["spec"]["arguments"]["parameters"]}

    assert {one["name"] for one in beside["spec"]["arguments"]["parameters"]} == told
    assert beside["spec"]["templates"][0]["container"]["args"] == [
        "{{workflow.parameters.name}}",
        "{{workflow.parameters.spec}}",
    ]


@pytest.mark.parametrize("values", EXAMPLES_OF_TRAINER)
def test_a_job_knows_what_a_run_reads_and_nothing_of_kafka(values: str, helm: Path) -> None:
    (container,) = job_of(config(rendered(helm, values)))["spec"]["template"]["spec"]["containers"]
    names = {entry["name"] for entry in container["env"] if not entry["name"].startswith("AWS_")}

    assert names <= {f"MILLSTREAM_{name.upper()}" for name in Settings.model_fields}
    assert "MILLSTREAM_KAFKA" not in names


def test_jobs_are_not_the_trainers_pods_to_its_policies(helm: Path) -> None:
    found = rendered(helm, EVERYTHING)
    labels = job_of(config(found))["spec"]["template"]["metadata"]["labels"]

    selecting = [
        one["metadata"]["name"]
        for one in of_kind(found, "NetworkPolicy")
        if one["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    ]

    assert selecting == ["trainer-training"]


def test_the_policy_is_of_the_trainers_account_and_the_jobs_image(helm: Path) -> None:
    found = rendered(helm, EVERYTHING)
    (policy,) = of_kind(found, "ValidatingAdmissionPolicy")
    (binding,) = of_kind(found, "ValidatingAdmissionPolicyBinding")
    pod = job_of(config(found))["spec"]["template"]["spec"]
    said = " ".join(one["expression"] for one in policy["spec"]["validations"])

    assert policy["spec"]["matchConditions"][0]["expression"].endswith('"system:serviceaccount:mill:trainer"')
    assert f'"{pod["containers"][0]["image"].rpartition(":")[0]}:"' in said
    assert f'"{pod["serviceAccountName"]}"' in said
    assert binding["spec"]["policyName"] == policy["metadata"]["name"]
    assert binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] == {
        "kubernetes.io/metadata.name": "training"
    }


def test_a_long_name_of_a_release_still_fits(helm: Path, tmp_path: Path) -> None:
    found = documents(template(helm, "trainer", "minimal-values.yaml", JOBS, "nameOverride=" + "a" * 41))

    made = job(found, tmp_path)

    assert len(made["metadata"]["name"]) <= 63


def test_where_keda_starts_the_pods_the_trainer_may_nothing(helm: Path) -> None:
    found = documents(template(helm, "trainer", EVERYTHING, "training.executor=keda", "training.policy.enabled=false"))
    (deployment,) = of_kind(found, "Deployment")

    assert deployment["spec"]["template"]["spec"]["automountServiceAccountToken"] is False
    for kind in ("Role", "RoleBinding", "ValidatingAdmissionPolicy"):
        assert of_kind(found, kind) == []


def test_keda_starts_the_same_pod_and_it_knows_kafka_besides(helm: Path) -> None:
    sets = ("training.executor=keda", "training.policy.enabled=false")
    (pod,) = (one["spec"] for one in runs(documents(template(helm, "trainer", EVERYTHING, *sets))))
    (plain,) = (one["spec"] for one in runs(rendered(helm, EVERYTHING)))
    (container,), (before,) = pod["containers"], plain["containers"]
    more = {one["name"] for one in container["env"]} - {one["name"] for one in before["env"]}

    assert {key: pod.get(key) for key in SAME if key != "volumes"} == {
        key: plain.get(key) for key in SAME if key != "volumes"
    }
    assert container["command"] == ["/opt/venv/bin/python", "-m", "millstream_trainer.adapters.taking_job"]
    assert {name for name in more if "KAFKA" not in name} == {"MILLSTREAM_JOB_TRIES"}
    assert {f"MILLSTREAM_{name.upper()}" for name in Settings.model_fields} >= more
    assert [volume for volume in pod["volumes"] if volume not in plain["volumes"]] == [
        {"name": "kafka-ca", "secret": {"secretName": "kafka-cluster-ca-cert"}},
        {"name": "kafka-client", "secret": {"secretName": "trainer"}},
    ]


def test_keda_counts_what_the_pods_leave_and_ends_no_run_by_an_edit(helm: Path) -> None:
    (scaled,) = of_kind(documents(template(helm, "trainer", "keda-values.yaml")), "ScaledJob")
    (trigger,) = scaled["spec"]["triggers"]

    assert scaled["spec"]["rollout"] == {"strategy": "gradual"}, "the default ends Jobs that run"
    assert "scalingStrategy" not in scaled["spec"], "accurate starts a Job for a run that has one"
    assert "excludePersistentLag" not in trigger["metadata"], "a run under way is lag that does not move"
    assert trigger["metadata"]["topic"] == TRAINING_JOBS.name
    assert trigger["metadata"]["consumerGroup"] == TRAINING_JOBS_GROUP
    assert scaled["spec"]["jobTargetRef"]["activeDeadlineSeconds"] == sum(
        Settings.model_fields[name].default for name in ("job_patience", "run_timeout", "mlflow_patience")
    )
