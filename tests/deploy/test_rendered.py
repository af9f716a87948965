"""What Helm makes of every chart with every example: lint, schemas, kube-score, goldens, and what all pods hold."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from millstream.testing.certificates import Authority

from .charts import ALL, CHARTS, EXAMPLES, ROOT, SERVICES, documents, golden, of_kind, pods, read_yaml, runs, template
from .kube_schemas import KUBERNETES
from .test_values import GENERATOR

UNSCORED = {
    "container-image-pull-policy": "IfNotPresent with a digest is right, and what is pulled is the cluster's business",
    "deployment-has-host-podantiaffinity": "topologySpreadConstraints do that",
    "deployment-replicas": "trainer is one by design, drift one until its loops are shared; the scaler's minimum is the user's",
    "deployment-strategy": "Recreate, where another release's replica would hinder the first",
    "deployment-targeted-by-hpa-does-not-have-replicas-configured": "a test below",
    "horizontalpodautoscaler-replicas": "features and the scorer may be one",
}
"""Checks of kube-score that are left out, and why."""


def run(*command: str | Path, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], input=given, capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_helm_finds_nothing_to_mend(chart: str, values: str, helm: Path) -> None:
    said = run(helm, "lint", "--strict", CHARTS / chart, "-f", CHARTS / chart / "ci" / values)

    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_it_is_what_was_looked_at(chart: str, values: str, helm: Path) -> None:
    path = golden(chart, values)

    assert path.exists(), f"no {path.relative_to(ROOT)}; run: make goldens"
    assert path.read_text() == template(helm, chart, values), "changed; run: make goldens, and look at the difference"


def test_no_golden_is_left_of_an_example_that_is_gone() -> None:
    kept = {path for chart in ALL for path in golden(chart, "x-values.yaml").parent.glob("*")}

    assert kept == {golden(chart, values) for chart, values in EXAMPLES}


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_the_api_knows_every_field(
    chart: str, values: str, version: str, helm: Path, kubeconform: Path, schemas: Path
) -> None:
    said = conforms(template(helm, chart, values), version, kubeconform, schemas)

    assert said.returncode == 0, said.stdout
    assert "Skipped: 0" in said.stdout


def conforms(text: str, version: str, kubeconform: Path, schemas: Path) -> subprocess.CompletedProcess[str]:
    name = "{{.ResourceKind}}{{.KindSuffix}}.json"
    places = [part for place in (version, "crds") for part in ("-schema-location", f"{schemas}/{place}/{name}")]
    return run(kubeconform, "-strict", "-summary", "-kubernetes-version", version, *places, "-", given=text)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("nodeSelector:", "nodeSelecter:"),
        ("maxReplicaCount: 6", 'maxReplicaCount: "6"'),
        ("hostnames:", "hostname:"),
        ("endpoints:", "endpionts:"),
    ],
)
def test_the_schemas_would_find_a_misspelt_field(
    right: str, wrong: str, helm: Path, kubeconform: Path, schemas: Path
) -> None:
    text = template(helm, "serving", "everything-values.yaml")
    assert right in text

    said = conforms(text.replace(right, wrong), "1.35.4", kubeconform, schemas)

    assert said.returncode != 0
    assert "is invalid" in said.stdout


@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_kube_score_has_nothing_critical_to_say(chart: str, values: str, helm: Path, kube_score: Path) -> None:
    text = template(helm, chart, values)
    found = documents(text)
    # NetworkPolicies are off unless somebody wants them; where there are, every pod has to have one.
    off = [] if of_kind(found, "NetworkPolicy") else ["pod-networkpolicy"]
    ignored = [part for name in (*UNSCORED, *off) for part in ("--ignore-test", name)]
    jobs = [one["data"]["job.yaml"] for one in of_kind(found, "ConfigMap") if "job.yaml" in one.get("data", {})]
    said = run(
        *(kube_score, "score", "--kubernetes-version", "v1.33", "--ignore-container-cpu-limit", *ignored),
        *("--exit-one-on-warning", "-o", "ci", "-"),
        given="\n---\n".join([text, *jobs]),
    )

    assert [line for line in said.stdout.splitlines() if line.startswith(("[CRITICAL]", "[WARNING]"))] == []
    assert "[OK]" in said.stdout


@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_every_pod_is_restricted_bounded_and_without_a_token(chart: str, values: str, helm: Path) -> None:
    found = list(pods(documents(template(helm, chart, values))))

    assert found
    for pod in found:
        # But of the trainer that makes Jobs, which is why they are bounded by a policy.
        makes_jobs = {"name": "MILLSTREAM_EXECUTOR", "value": "kubernetes"} in pod["containers"][0].get("env", [])
        assert pod["automountServiceAccountToken"] is makes_jobs
        assert pod["enableServiceLinks"] is False, "a Service called millstream would be MILLSTREAM_PORT"
        security = pod["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"]) == (True, 10001)
        assert security["seccompProfile"]["type"] == "RuntimeDefault"
        assert "initContainers" not in pod
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
        for volume in pod.get("volumes", ()):
            if "emptyDir" in volume:
                assert volume["emptyDir"]["sizeLimit"]


@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_every_variable_is_one_that_the_service_reads(chart: str, values: str, helm: Path) -> None:
    for deployment in of_kind(documents(template(helm, chart, values)), "Deployment"):
        service = deployment["metadata"]["labels"]["app.kubernetes.io/name"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        names = [entry["name"] for entry in container["env"]]

        known = {f"MILLSTREAM_{name.upper()}" for name in GENERATOR.settings_of(service).model_fields}
        assert set(names) - {name for name in names if name.startswith("AWS_")} <= known
        assert len(names) == len(set(names))


@pytest.mark.parametrize("service", SERVICES)
def test_the_service_starts_with_the_variables_of_its_pod(
    service: str, helm: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every value as pydantic reads it, numbers too, which YAML would write as 5e+06. What is mounted lies under `tmp_path`."""
    authority = Authority(tmp_path / "kafka" / "ca", "ca")
    certificate, key = authority.certificate("user")
    (tmp_path / "kafka" / "client").mkdir()
    for file in (certificate, key):
        file.rename(tmp_path / "kafka" / "client" / file.name)
    text = template(helm, service, "everything-values.yaml")
    for deployment in of_kind(documents(text), "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        for entry in container["env"]:
            secret = {"MILLSTREAM_SCHEMA_REGISTRY_AUTH": "user:password"}.get(entry["name"], "redis://valkey:6379/0")
            value = entry.get("value", secret)
            monkeypatch.setenv(entry["name"], f"{tmp_path}{value}" if value.startswith("/kafka/") else value)
        settings = GENERATOR.settings_of(service)()
        assert settings.log_level == "DEBUG"
        assert settings.stall_after == 90.5
        assert settings.kafka_security == ("ssl" if service == "trainer" else "sasl_ssl")
        assert "ssl_context" in settings.at(settings.kafka).options
    if service == "features":
        assert settings.lake_rows == 5_000_000
    if service == "ingest":
        assert settings.ways() == {"keys", "jwt"}
        assert (settings.quota_events, settings.quota_bytes) == (1000, 5_000_000)


@pytest.mark.parametrize("service", SERVICES)
def test_probes_ports_and_routes_are_those_of_the_service(service: str, helm: Path) -> None:
    found = documents(template(helm, service, "everything-values.yaml"))
    for deployment in of_kind(found, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports["http"] == 8080
        probes = {name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert {name: probe["path"] for name, probe in probes.items()} == {
            "startupProbe": "/livez",
            "livenessProbe": "/livez",
            "readinessProbe": "/readyz",
        }
        assert all(probe["port"] == "http" for probe in probes.values())
    # The routes as the code declares them; what they do is its own tests' business.
    code = "".join(path.read_text() for path in (ROOT / "services" / service / "src").rglob("api*/**/*.py"))
    code += "".join(path.read_text() for path in (ROOT / "services" / service / "src").rglob("api.py"))
    (ingress,) = of_kind(found, "Ingress")
    for path in ingress["spec"]["rules"][0]["http"]["paths"]:
        assert path["path"] in code, f"nothing of {service} answers at {path['path']}"


@pytest.mark.parametrize(("chart", "values"), EXAMPLES)
def test_what_an_object_points_at_is_there(chart: str, values: str, helm: Path) -> None:
    found = documents(template(helm, chart, values))
    deployments = {one["metadata"]["name"]: one for one in of_kind(found, "Deployment")}
    accounts = {one["metadata"]["name"] for one in of_kind(found, "ServiceAccount")}
    templates = [one["spec"]["template"] for one in deployments.values()]
    templates += runs(found)

    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(names) == len(set(names))
    for one in found:
        spec = one.get("spec", {})
        target = spec.get("scaleTargetRef") or spec.get("targetRef")
        if target:
            assert target["name"] in deployments
            if one["kind"] != "VerticalPodAutoscaler":
                assert "replicas" not in deployments[target["name"]]["spec"], "two would set the replicas"
        selector = {"Service": "selector", "PodDisruptionBudget": "selector", "NetworkPolicy": "podSelector"}.get(
            one["kind"]
        )
        if selector:
            wanted = spec[selector].get("matchLabels", spec[selector])
            assert any(wanted.items() <= one["metadata"]["labels"].items() for one in templates)
    for deployment in deployments.values():
        pod = deployment["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] in accounts
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
        assert (
            deployment["spec"]["selector"]["matchLabels"].items()
            <= deployment["spec"]["template"]["metadata"]["labels"].items()
        )
    if not of_kind(found, "HorizontalPodAutoscaler") and not of_kind(found, "ScaledObject"):
        assert all("replicas" in deployment["spec"] for deployment in deployments.values())


def test_the_two_deployments_of_serving_have_a_door_each(helm: Path) -> None:
    def doors(values: str) -> dict[str, str]:
        return {
            one["metadata"]["name"]: next(
                entry["value"]
                for entry in one["spec"]["template"]["spec"]["containers"][0]["env"]
                if entry["name"] == "MILLSTREAM_DOORS"
            )
            for one in of_kind(documents(template(helm, "serving", values)), "Deployment")
        }

    assert doors("minimal-values.yaml") == {"serving": "both"}
    assert doors("everything-values.yaml") == {"serving": "http", "serving-scorer": "kafka"}


def test_trainer_is_alone(helm: Path) -> None:
    found = documents(template(helm, "trainer", "everything-values.yaml"))

    (deployment,) = of_kind(found, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    assert not of_kind(found, "ScaledObject")
    assert not of_kind(found, "PodDisruptionBudget")


def test_drift_is_one_until_its_loops_are_shared_and_no_two_releases_judge_side_by_side(helm: Path) -> None:
    (deployment,) = of_kind(documents(template(helm, "drift", "everything-values.yaml")), "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert deployment["spec"]["strategy"] == {"type": "Recreate"}
    found = documents(template(helm, "drift", "keda-values.yaml"))
    (shared,) = of_kind(found, "Deployment")
    (scaler,) = of_kind(found, "ScaledObject")
    assert "replicas" not in shared["spec"], "or each upgrade would undo the scaler's work"
    assert shared["spec"]["strategy"] == {"type": "Recreate"}
    assert scaler["spec"]["maxReplicaCount"] == 3


def test_a_changed_project_restarts_the_pods(helm: Path) -> None:
    def noted(*sets: str) -> str:
        (one,) = of_kind(documents(template(helm, "ingest", "minimal-values.yaml", *sets)), "Deployment")
        return str(one["spec"]["template"]["metadata"]["annotations"]["millstream/project"])

    assert noted() == noted()
    assert noted() != noted("project.files.streams/more\\.yaml=stream: more")


def test_the_umbrella_shares_what_is_global_and_a_service_may_differ(helm: Path) -> None:
    found = documents(template(helm, "millstream", "everything-values.yaml"))
    images = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in found
        if one["kind"] in ("Deployment", "Job")
    }

    assert images["millstream-ingest"] == "registry.example/team/millstream/ingest:1.5"
    assert images["millstream-features"] == "registry.example/team/millstream/features:1.4"
    assert "millstream-drift" not in images, "drift.enabled=false"
    (topics,) = (image for name, image in images.items() if name.startswith("millstream-topics-"))
    assert topics == "registry.example/team/millstream/cli:1.4"
    (claim,) = of_kind(found, "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_of_what_excludes_each_other_a_service_may_choose_another_than_the_rest(helm: Path) -> None:
    sets = ("drift.valkey.secretName=drift-valkey", "drift.project.claim=elsewhere")
    found = of_kind(documents(template(helm, "millstream", "minimal-values.yaml", *sets)), "Deployment")
    chosen = {}
    for one in found:
        pod = one["spec"]["template"]["spec"]
        secret = any("valueFrom" in entry for entry in pod["containers"][0]["env"])
        claims = {volume["name"] for volume in pod["volumes"] if "persistentVolumeClaim" in volume}
        chosen[one["metadata"]["name"]] = (secret, "project" in claims)

    assert chosen.pop("millstream-drift") == (True, True)
    assert set(chosen.values()) == {(False, False)}


def test_the_files_of_a_project_lie_where_the_service_looks(helm: Path) -> None:
    found = documents(template(helm, "features", "minimal-values.yaml"))
    (deployment,) = of_kind(found, "Deployment")
    (config,) = of_kind(found, "ConfigMap")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    mounted = {m["mountPath"]: config["data"][m["subPath"]] for m in container["volumeMounts"] if "subPath" in m}
    given = read_yaml(CHARTS / "features" / "ci" / "minimal-values.yaml")["project"]["files"]
    assert mounted == {f"/project/{path}": text for path, text in given.items()}


@pytest.mark.parametrize("chart", ALL)
def test_suites_of_the_chart(chart: str, helm_unittest: Path) -> None:
    said = run(helm_unittest, "--strict", "--with-subchart=false", CHARTS / chart)

    assert said.returncode == 0, said.stdout + said.stderr
    assert re.search(r"Tests:\s+[1-9]", said.stdout), said.stdout


@pytest.mark.parametrize("chart", ALL)
def test_the_notes_say_what_to_do_next(chart: str, helm: Path) -> None:
    values = CHARTS / chart / "ci" / "minimal-values.yaml"
    said = run(helm, "install", "mill", CHARTS / chart, "--namespace", "ml", "-f", values, "--dry-run=client")

    notes = said.stdout.partition("NOTES:")[2]
    assert "helm -n ml test mill" in notes
    assert "kubectl -n ml" in notes
    name = "deployment/NAME" if chart == "millstream" else f"deployment/mill-{chart}"
    assert name in notes
    assert "%!" not in notes


@pytest.mark.parametrize("chart", ALL)
def test_a_packed_chart_carries_all_it_needs(chart: str, helm: Path, tmp_path: Path) -> None:
    packed = run(helm, "package", CHARTS / chart, "-d", tmp_path)
    assert packed.returncode == 0, packed.stderr
    (archive,) = tmp_path.iterdir()
    values = CHARTS / chart / "ci" / "minimal-values.yaml"

    said = run(helm, "template", chart, archive, "--namespace", "mill", "-f", values)

    assert said.stdout == template(helm, chart)


def commands(page: str, beginning: str) -> list[list[str]]:
    """What a page tells people to type, with its continued lines."""
    text = (ROOT / page).read_text().replace("\\\n", " ")
    return [shlex.split(line[2:]) for line in text.splitlines() if line.startswith(f"$ {beginning}")]


def test_what_the_page_tells_people_to_type_renders(helm: Path, tmp_path: Path) -> None:
    written = commands("deploy/README.md", "python deploy/project_values.py")
    typed = commands("deploy/README.md", "helm install")

    assert len(written) == len(typed) == 2
    for wrote, install in zip(written, typed, strict=True):
        values = tmp_path / "project-values.yaml"
        arguments = [ROOT / wrote[1], *wrote[2 : wrote.index(">")]]
        arguments[-1] = ROOT / str(arguments[-1])
        values.write_text(run(sys.executable, *arguments).stdout)
        words = [str(values) if word == "project-values.yaml" else word for word in install[2:]]
        words[1] = str(ROOT / words[1])

        said = run(helm, "template", *(word for word in words if word != "--create-namespace"))

        assert said.returncode == 0, said.stderr
        assert "kafka-kafka-bootstrap.kafka:9092" in said.stdout
        assert "flight-delay.yaml" in said.stdout
