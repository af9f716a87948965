"""What the accounts of the charts may do in the cluster: the API server's own answers, as SubjectAccessReviews."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import pytest

from .charts import CHARTS, SERVICES, documents, of_kind, template
from .control_plane import ControlPlane
from .kubectl import Helm, Kubectl

READS = ("get", "list", "watch")
WRITES = ("create", "update", "patch", "delete", "deletecollection")
ASKED = (
    *product(
        (*READS, *WRITES),
        (
            *(("", "pods"), ("", "secrets"), ("", "configmaps"), ("", "serviceaccounts"), ("", "events")),
            *(("apps", "deployments"), ("batch", "jobs"), ("coordination.k8s.io", "leases")),
            *(("keda.sh", "scaledobjects"), ("keda.sh", "scaledjobs"), ("rbac.authorization.k8s.io", "roles")),
            *(("trainer.kubeflow.org", "trainjobs"), ("trainer.kubeflow.org", "trainingruntimes")),
            *(("ray.io", "rayjobs"), ("ray.io", "rayclusters"), ("argoproj.io", "workflows")),
            *(("argoproj.io", "workflowtemplates"), ("argoproj.io", "workflowtaskresults")),
        ),
    ),
    *product(("create", "get"), (("", "pods/exec"), ("", "pods/log"), ("", "pods/ephemeralcontainers"))),
    ("create", ("", "serviceaccounts/token")),
    ("escalate", ("rbac.authorization.k8s.io", "roles")),
    ("bind", ("rbac.authorization.k8s.io", "clusterroles")),
    ("impersonate", ("", "users")),
    ("proxy", ("", "nodes")),
)
"""Verbs, groups and resources: what people are hurt by, and what a service of ours might want."""
MAY: dict[str, set[tuple[str, tuple[str, str]]]] = {service: set() for service in SERVICES}
"""Nothing: no service asks the cluster for anything."""


def makes(group: str, resource: str, *more: str) -> set[tuple[str, tuple[str, str]]]:
    verbs = ("create", "get", "watch", "delete", *more)
    return {*((verb, (group, resource)) for verb in verbs), ("list", ("", "pods"))}


TRAINER_MAY = {
    "kubernetes": makes("batch", "jobs"),
    "trainjob": makes("trainer.kubeflow.org", "trainjobs", "list"),
    "rayjob": makes("ray.io", "rayjobs", "list"),
    "workflow": makes("argoproj.io", "workflows"),
    "keda": set(),
}
"""The trainer's account, in the namespace of its Jobs, by training.executor."""


def reviews(kubectl: Kubectl, user: str, namespace: str) -> set[tuple[str, tuple[str, str]]]:
    """Of what is asked, all that `user` may do in `namespace`."""
    asked = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user,
                "groups": ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{namespace}"],
                "resourceAttributes": {
                    "namespace": namespace,
                    "verb": verb,
                    "group": group,
                    "resource": resource.partition("/")[0],
                    "subresource": resource.partition("/")[2],
                },
            },
        }
        for verb, (group, resource) in ASKED
    ]
    listed = {"apiVersion": "v1", "kind": "List", "items": asked}
    answers = kubectl("create", "-o", r'jsonpath={.status.allowed}{"\n"}', "-f", "-", given=json.dumps(listed)).split()
    return {what for what, answer in zip(ASKED, answers, strict=True) if answer == "true"}


@pytest.mark.parametrize("service", SERVICES)
def test_an_account_may_do_what_the_table_says_and_no_more(
    service: str, helm: Path, releases: Helm, kubectl: Kubectl, plane: ControlPlane
) -> None:
    releases("install", service, *chart(service))
    user = f"system:serviceaccount:{kubectl.namespace}:{service}"

    assert reviews(plane.kubectl, user, kubectl.namespace) == MAY[service]
    assert reviews(plane.kubectl, user, "kube-system") == set()


@pytest.mark.parametrize("executor", TRAINER_MAY)
def test_the_trainer_may_make_its_kind_of_jobs_and_its_jobs_may_nothing(
    executor: str, releases: Helm, kubectl: Kubectl, plane: ControlPlane
) -> None:
    inside = kubectl.namespace
    image = ("--set", "training.image=registry.example/millstream/trainer-ray:7") if executor == "rayjob" else ()
    releases("install", "trainer", *chart("trainer"), "--set", f"training.executor={executor}", *image)

    def may(account: str, where: str = inside) -> set[tuple[str, tuple[str, str]]]:
        return reviews(plane.kubectl, f"system:serviceaccount:{inside}:{account}", where)

    assert may("trainer") == TRAINER_MAY[executor]
    assert may("trainer", "kube-system") == set()
    assert may("trainer-training") == set()
    results = ("argoproj.io", "workflowtaskresults")
    assert may("trainer-training-argo") == (
        {("create", results), ("patch", results)} if executor == "workflow" else set()
    )


def chart(service: str) -> tuple[str | Path, ...]:
    return (CHARTS / service, "-f", CHARTS / service / "ci" / "minimal-values.yaml")


def test_the_reviews_would_say_so(kubectl: Kubectl, plane: ControlPlane) -> None:
    kubectl("create", "serviceaccount", "clerk")
    kubectl("create", "role", "reads", "--verb=get", "--resource=secrets")
    kubectl("create", "rolebinding", "reads", "--role=reads", f"--serviceaccount={kubectl.namespace}:clerk")

    allowed = reviews(plane.kubectl, f"system:serviceaccount:{kubectl.namespace}:clerk", kubectl.namespace)

    assert allowed == {("get", ("", "secrets"))}


def test_a_token_of_an_account_opens_nothing(releases: Helm, kubectl: Kubectl) -> None:
    releases("install", "trainer", *chart("trainer"))
    token = kubectl("create", "token", "trainer").strip()
    stranger = ("--kubeconfig", "/dev/null", "--token", token)
    server = kubectl("config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
    reach = (*stranger, "--server", server, "--certificate-authority", kubectl.kubeconfig.parent / "authority.crt")

    assert f"system:serviceaccount:{kubectl.namespace}:trainer" in kubectl("auth", "whoami", *reach)
    assert "cannot list resource" in kubectl.refuses("get", "secrets", *reach)


@pytest.mark.parametrize("service", SERVICES)
def test_no_chart_asks_for_rights_but_for_the_jobs_of_training(service: str, helm: Path) -> None:
    for values in ("minimal-values.yaml", "everything-values.yaml"):
        found = documents(template(helm, service, values))
        asked = {kind for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding") if of_kind(found, kind)}
        # tests/deploy/test_training.py says which.
        assert asked == ({"Role", "RoleBinding"} if of_kind(found, "ValidatingAdmissionPolicy") else set())
        assert (service == "trainer") >= bool(asked)
