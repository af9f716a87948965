"""Training as Jobs on a real API server: as the trainer's account, with the chart's own rights and policy."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from millstream.testing.waiting import wait_until
from millstream_trainer.adapters.kubernetes_api import KubernetesApi, hang_up
from millstream_trainer.errors import RunFailed

from .training import EVERYTHING, EXECUTORS, job, rendered


@contextmanager
def trainers_api(helm: Path, executor: str) -> Iterator[KubernetesApi]:
    """Of a real API server, in the rendered namespace, as the trainer's account with the chart's own rights and policy."""
    real = os.environ.get("MILLSTREAM_TEST_KUBECONFIG")
    if real is None:
        pytest.skip("MILLSTREAM_TEST_KUBECONFIG names no control plane; test_training_jobs.py runs this file with one")
    from kubernetes import client, config, utils

    wanted = ("Role", "RoleBinding", "ServiceAccount", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
    settings = client.Configuration()
    config.load_kube_config(real, client_configuration=settings)
    admin = client.ApiClient(settings)
    core = client.CoreV1Api(admin)
    there = "training" if executor == "kubernetes" else f"training-{executor}"
    here = "mill" if executor == "kubernetes" else f"mill-{executor}"
    for namespace in (here, there):
        core.create_namespace({"metadata": {"name": namespace}})
    text = json.dumps([one for one in rendered(helm, EVERYTHING, executor) if one["kind"] in wanted])
    # A namespace that is deleted stays for a while: each kind has its own.
    text = text.replace('"training"', f'"{there}"').replace('"mill"', f'"{here}"').replace(":mill:", f":{here}:")
    for one in json.loads(text):
        utils.create_from_dict(admin, one)
    trainer = KubernetesApi(there, Path(real), EXECUTORS[executor])
    trainer._client.set_default_header("Impersonate-User", f"system:serviceaccount:{here}:trainer")
    try:
        yield trainer
    finally:
        trainer.close()
        hang_up(trainer._client)
        policies = client.AdmissionregistrationV1Api(admin)
        policies.delete_validating_admission_policy_binding("mill-trainer-training")
        policies.delete_validating_admission_policy("mill-trainer-training")
        for namespace in (here, there):
            core.delete_namespace(namespace)
        hang_up(admin)


def refusal(api: KubernetesApi, made: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> str:
    """What the API server says to another one, with its spec changed; nothing where it takes it."""
    other = copy.deepcopy(made)
    other["metadata"]["name"] = "another"
    change(other["spec"])
    try:
        api.create(other)
    except RunFailed as error:
        return str(error)
    api.delete("another")
    return ""


@pytest.mark.parametrize("executor", [name for name in EXECUTORS if name != "kubernetes"])
def test_a_policy_takes_what_the_trainer_makes_and_nothing_that_says_more(
    executor: str, helm: Path, tmp_path: Path
) -> None:
    with trainers_api(helm, executor) as api:
        made = job(rendered(helm, EVERYTHING, executor), tmp_path)
        made["metadata"]["namespace"] = api.namespace
        # A policy is obeyed a moment after it was made.
        first, _ = MORE[executor][0]
        wait_until(lambda: refusal(api, made, first), within=100, what="the policy")
        for change, says in MORE[executor]:
            assert says in refusal(api, made, change), says
        assert (api.create(made), api.create(made)) == (True, False)
        name = made["metadata"]["name"]
        there = api.job(name)
        assert there is not None
        assert api.pods(name) == []
        assert not EXECUTORS[executor].stays or api.ended() == []
        api.wait(there, 1)
        api.delete(name)


def head(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return found


MORE: dict[str, list[tuple[Callable[[dict[str, Any]], object], str]]] = {
    "trainjob": [
        (lambda spec: spec["trainer"].update(image="registry.example/miner:1"), "say arguments and a deadline"),
        (lambda spec: spec["trainer"].update(command=["sh"]), "say arguments and a deadline"),
        (lambda spec: spec.update(initializer={"model": {"storageUri": "hf://x"}}), "say arguments and a deadline"),
        (lambda spec: spec["runtimeRef"].update(name="torch-distributed"), "the TrainingRuntime mill-trainer alone"),
    ],
    "rayjob": [
        (lambda spec: head(spec)["containers"][0].update(image="registry.example/miner:1"), "run images of"),
        (lambda spec: head(spec).update(serviceAccountName="admin"), "run as trainer-training"),
        (lambda spec: head(spec)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}), "nothing of the node"),
        (lambda spec: spec.update(submissionMode="K8sJobMode"), "are one pod, Ray's head"),
        (lambda spec: spec.update(clusterSelector={"ray.io/cluster": "everybodys"}), "are one pod, Ray's head"),
    ],
    "workflow": [
        (
            lambda spec: spec.update(templates=[{"name": "x", "container": {"image": "miner"}}]),
            "say arguments and a deadline",
        ),
        (lambda spec: spec.update(podSpecPatch='{"hostNetwork": true}'), "say arguments and a deadline"),
        (lambda spec: spec.update(serviceAccountName="admin"), "say arguments and a deadline"),
        (lambda spec: spec["workflowTemplateRef"].update(name="another"), "the WorkflowTemplate mill-trainer alone"),
        (lambda spec: spec["workflowTemplateRef"].update(clusterScope=True), "the WorkflowTemplate mill-trainer alone"),
    ],
}
"""Of each kind: what somebody might change who speaks as the trainer, and what is said to that."""


@pytest.fixture
def api(helm: Path) -> Iterator[KubernetesApi]:
    """For Jobs."""
    with trainers_api(helm, "kubernetes") as made:
        yield made


def test_an_api_server_lets_the_trainer_do_what_it_does_and_no_more(
    api: KubernetesApi, helm: Path, tmp_path: Path
) -> None:
    """On a real one: rights as rendered, and a policy that takes the chart's Job and refuses any other."""
    made = job(rendered(helm, EVERYTHING), tmp_path)
    name = made["metadata"]["name"]

    def says(change: Callable[[dict[str, Any]], object]) -> str:
        return refusal(api, made, lambda spec: change(spec["template"]["spec"]))

    def image(pod: dict[str, Any]) -> None:
        pod["containers"][0]["image"] = "registry.example/millstream/trainer-torch-and-more:7"

    # A policy is obeyed a moment after it was made.
    wait_until(lambda: says(image), within=100, what="the policy")
    assert "run images of registry.example/millstream/trainer-torch alone" in says(image)
    assert "run as trainer-training" in says(lambda pod: pod.update(serviceAccountName="admin"))
    assert "run as trainer-training" in says(lambda pod: pod.update(automountServiceAccountToken=True))
    assert "nothing of the node" in says(lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}))
    assert "no Secret but the lake's" in says(
        lambda pod: pod["containers"][0].update(envFrom=[{"secretRef": {"name": "kafka-admin"}}])
    )

    assert (api.create(made), api.create(made)) == (True, False)
    there = api.job(name)
    assert there is not None
    assert api.pods(name) == []
    api.wait(there, 1)
    api.delete(name)
    api.namespace = "mill"
    with pytest.raises(
        RunFailed, match=r'misses \{apiGroups: \["batch"\], resources: \["jobs"\], verbs: \["create"\]\}'
    ):
        api.create(made | {"metadata": {"name": name}})
