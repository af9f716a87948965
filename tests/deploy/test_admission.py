"""What an API server says to every chart with every example: it knows each field, and Pod Security lets each pod in."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from .charts import CHARTS, EXAMPLES, MINIMAL, documents, of_kind, template
from .control_plane import ControlPlane
from .kubectl import Helm, Kubectl

TRY = ("apply", "--dry-run=server", "--warnings-as-errors", "-f", "-")
"""Helm's own `--dry-run=server` asks no admission: a test below. Pod Security warns of a Deployment and refuses only its pods,
hence the warnings."""


NAMESPACES = ("mill", "training")
"""That of the goldens, and the one that the examples of the trainer have for their Jobs."""


@pytest.fixture(scope="module")
def mill(keda: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """In the first of the namespaces, with what the examples name and do not bring."""
    for name in NAMESPACES:
        keda.namespace(name)
        keda.kubectl("label", "namespace", name, "pod-security.kubernetes.io/warn=restricted")
    # A namespace that is only the default: with `--namespace` kubectl refuses what stands in another.
    own = shutil.copyfile(keda.kubeconfig, tmp_path_factory.mktemp("mill") / "kubeconfig")
    kubectl = Kubectl(program=keda.kubectl.program, kubeconfig=own)
    kubectl("config", "set-context", "--current", f"--namespace={NAMESPACES[0]}")
    yield kubectl
    keda.kubectl("delete", "namespace", *NAMESPACES, "--timeout=100s", within=120)  # others want theirs by these names


@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_the_api_server_takes_every_object(chart: str, values: str, helm: Path, mill: Kubectl) -> None:
    text = template(helm, chart, values)
    accounts = of_kind(documents(text), "ServiceAccount")
    mill("apply", "-f", "-", given=as_text(accounts))  # a pod is refused before its account is there

    said = mill(*TRY, given=text)

    assert said.count("(server dry run)") == len(documents(text))


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("nodeSelector:", "nodeSelecter:", 'unknown field "spec.template.spec.nodeSelecter"'),
        ("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: never", "cannot unmarshal string"),
        ("capabilities: { drop: [ALL] }", "capabilities: { drop: [] }", "would violate PodSecurity"),
        ("containerPort: 8080", "containerPort: 80800", "must be between 1 and 65535"),
        ("maxReplicaCount: 6", "maxReplicaCount: 1", "minReplicaCount must be less than or equal to maxReplicaCount"),
        ("path: /metrics", "path: [/metrics]", "Invalid value"),
    ],
)
def test_the_api_server_would_refuse_it(right: str, wrong: str, said: str, helm: Path, mill: Kubectl) -> None:
    text = template(helm, "serving", "everything-values.yaml")
    assert right in text

    assert said in mill.refuses(*TRY, given=text.replace(right, wrong))


def test_helms_own_dry_run_says_yes_to_what_the_api_server_refuses(
    helm: Path, releases: Helm, kubectl: Kubectl
) -> None:
    """It asks the server which kinds there are, and hands it nothing."""
    values, wrong = CHARTS / "drift" / "ci" / MINIMAL, "pod.nodeSelector.disk=very fast"

    said = releases("upgrade", "--install", "drift", CHARTS / "drift", "-f", values, "--set", wrong, "--dry-run=server")

    assert "disk: very fast" in said
    assert kubectl.names("deployments.apps") == set()
    text = template(helm, "drift", MINIMAL, wrong, options=("--namespace", kubectl.namespace))
    assert 'spec.nodeSelector: Invalid value: "very fast"' in kubectl.refuses(*TRY, given=text)


def as_text(objects: list) -> str:  # type: ignore[type-arg]
    text = io.StringIO()
    YAML(typ="safe").dump_all(objects, text)
    return text.getvalue()
