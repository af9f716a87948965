"""What is wrong with values is said before anything is installed: which value, and what to write instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from .charts import SERVICES, Refused, template

EVERYTHING = "everything-values.yaml"


def refusal(helm: Path, chart: str, values: str, *sets: str) -> str:
    with pytest.raises(Refused) as refused:
        template(helm, chart, values, *sets)
    return str(refused.value)


@pytest.mark.parametrize(
    ("chart", "values", "sets", "said"),
    [
        (
            "features",
            "keda-values.yaml",
            ["keda.maxReplicas=8"],
            "features: keda.maxReplicas=8 is above the 6 partitions of the largest topic in keda.topics, and a replica "
            "without a partition does nothing: write 6, or give the topic more partitions",
        ),
        (
            "serving",
            EVERYTHING,
            ["scorer.keda.maxReplicas=7"],
            "serving: scorer.keda.maxReplicas=7 is above the 6 partitions of the largest topic in scorer.keda.topics",
        ),
        (
            "features",
            "keda-values.yaml",
            ["hpa.enabled=true"],
            "features: hpa.enabled and keda.enabled are both true, and KEDA makes an HPA of its own: two would pull at the "
            "replicas; set one to false",
        ),
        (
            "serving",
            EVERYTHING,
            ["scorer.hpa.enabled=true"],
            "serving: scorer.hpa.enabled and scorer.keda.enabled are both true",
        ),
        (
            "ingest",
            "hpa-values.yaml",
            ["hpa.minReplicas=9"],
            "ingest: hpa.minReplicas=9 is above hpa.maxReplicas=4: lower the one or raise the other",
        ),
        (
            "trainer",
            EVERYTHING,
            ["training.namespace=mill"],
            "trainer: training.quota would bound everything in mill: name a namespace for the Jobs alone as "
            "training.namespace, or leave training.quota empty",
        ),
        (
            "drift",
            "keda-values.yaml",
            ["keda.maxReplicas=4"],
            "drift: keda.maxReplicas=4 is above shares=3, and one replica judges a share whole: write keda.maxReplicas=3, or",
        ),
        (
            "trainer",
            EVERYTHING,
            ["training.executor=keda"],
            "trainer: training.executor=keda and training.policy.enabled=true: the trainer makes no Jobs, so that there is "
            "nothing to bound; write training.policy.enabled=false",
        ),
        (
            "trainer",
            EVERYTHING,
            ["training.executor=rayjob", "training.image="],
            "trainer: training.executor=rayjob, and training.image is empty: the trainer's image has no Ray; name one that has "
            "both",
        ),
        (
            "features",
            "keda-values.yaml",
            ["keda.topics=[]"],
            "features: keda.topics is empty: write the streams whose lag counts, as - {name: STREAM, partitions: 6}",
        ),
        (
            "features",
            "keda-values.yaml",
            ['keda.topics=[{"name": "parcels-sent", "partitions": 6, "groups": ["features-lake"]}]'],
            "features: no topic of keda.topics counts for the group features-tiles, so nothing would scale by it",
        ),
        (
            "serving",
            EVERYTHING,
            ["keda.prometheus="],
            "serving: keda.prometheus is empty: write the address of the Prometheus that scrapes the pods",
        ),
        (
            "ingest",
            "minimal-values.yaml",
            ["kafka.bootstrap="],
            "ingest: kafka.bootstrap is empty: write the bootstrap servers, as kafka.bootstrap=kafka-bootstrap.kafka:9092",
        ),
        (
            "drift",
            "minimal-values.yaml",
            ["kafka.user=drift"],
            "drift: kafka.user is set and kafka.security is empty, which is plain text: write kafka.security=sasl_ssl (TLS and "
            "a password), ssl or sasl_plaintext",
        ),
        (
            "trainer",
            "minimal-values.yaml",
            ["kafka.security=sasl_ssl", "kafka.secretName=trainer-kafka"],
            "trainer: kafka.security=sasl_ssl needs a user: write kafka.user=NAME, whom the brokers know",
        ),
        (
            "millstream",
            "minimal-values.yaml",
            ["global.kafka.security=sasl_plaintext", "global.kafka.user=mill"],
            "kafka.security=sasl_plaintext needs a password: put it into a Secret (kubectl create secret generic",
        ),
        (
            "ingest",
            "minimal-values.yaml",
            ["kafka.bootstrap=kafka-0:9092\\,kafka-1"],
            'ingest: kafka.bootstrap has "kafka-1", which is no host:port: write the bootstrap servers as kafka-0.kafka:9092,',
        ),
        (
            "ingest",
            "minimal-values.yaml",
            ["auth="],
            "ingest: auth is empty, and the pods are open to their network: write auth=keys (millstream keys create makes one)",
        ),
        (
            "ingest",
            "minimal-values.yaml",
            ["auth=jwt", "settings.jwt_issuer=https://login.example.com"],
            "ingest: auth=jwt, and settings.jwt_audience is empty: write it, or auth=keys",
        ),
        (
            "features",
            "minimal-values.yaml",
            ["valkey.url=redis://:hush@valkey:6379/0"],
            "features: valkey.url carries a password: put the address into a Secret (kubectl create secret generic valkey "
            "--from-literal=url=...) and write its name as valkey.secretName",
        ),
        (
            "serving",
            "minimal-values.yaml",
            ["valkey.url="],
            "serving: valkey.url and valkey.secretName are empty: write valkey.url=redis://HOST:6379/0, or as "
            "valkey.secretName the name of a Secret whose key `url` has it",
        ),
        (
            "drift",
            "minimal-values.yaml",
            ["valkey.secretName=x"],
            "drift: valkey.url and valkey.secretName are both set: leave one of them empty",
        ),
        (
            "trainer",
            "minimal-values.yaml",
            ["shared.claim="],
            "trainer: shared.claim is empty: name a PersistentVolumeClaim that several nodes can mount (ReadWriteMany); model "
            "packages are handed over there",
        ),
        (
            "features",
            "minimal-values.yaml",
            ["shared.claim="],
            "features: shared.claim is empty: name a PersistentVolumeClaim that several nodes can mount (ReadWriteMany); "
            "the lake is there, or lake.url=s3://BUCKET/PREFIX",
        ),
        (
            "ingest",
            EVERYTHING,
            ["project.image="],
            "ingest: no project: add `-f project-values.yaml`, made by `python deploy/project_values.py FOLDER`, or write "
            "project.claim or project.image",
        ),
        (
            "ingest",
            EVERYTHING,
            ["project.claim=x"],
            "ingest: more than one of project.files, project.claim and project.image is set: keep one",
        ),
        (
            "drift",
            "minimal-values.yaml",
            ["settings.drain_timeout=40"],
            "drift: terminationGracePeriodSeconds=60 is shorter than a stop may take: write 95 (5 s, twice drain_timeout, "
            "10 s), or shorten settings.drain_timeout=40",
        ),
        (
            "ingest",
            EVERYTHING,
            ["ingress.host="],
            "ingest: ingress.host is empty: write the host name, or ingress.enabled=false",
        ),
        (
            "ingest",
            EVERYTHING,
            ["httpRoute.gateway="],
            "ingest: httpRoute.gateway is empty: write the Gateway as NAME or NAMESPACE/NAME, or httpRoute.enabled=false",
        ),
        (
            "ingest",
            EVERYTHING,
            ["istio.principals=[]"],
            "ingest: istio.principals is empty, so nobody could call: write who may",
        ),
        (
            "ingest",
            EVERYTHING,
            ["externalSecret.name="],
            "ingest: externalSecret.name is empty: write it, or externalSecret.enabled=false",
        ),
        (
            "millstream",
            "minimal-values.yaml",
            [
                *("claim.create=true", "global.shared.claim=", "features.enabled=false"),
                *("serving.enabled=false", "drift.enabled=false", "trainer.enabled=false"),
            ],
            "millstream: claim.create is true and global.shared.claim is empty: write the name that the claim shall have",
        ),
        (
            "millstream",
            EVERYTHING,
            ["global.project.claim="],
            "no project: add `-f project-values.yaml`",
        ),
    ],
)
def test_what_cannot_be_names_the_value_and_the_remedy(
    chart: str, values: str, sets: list[str], said: str, helm: Path
) -> None:
    assert said in refusal(helm, chart, values, *sets)


@pytest.mark.parametrize(
    ("chart", "sets", "said"),
    [
        ("ingest", ["keda.maxReplica=3"], "at '/keda': additional properties 'maxReplica' not allowed"),
        ("ingest", ["replica=3"], "at '': additional properties 'replica' not allowed"),
        ("trainer", ["replicas=2"], "at '': additional properties 'replicas' not allowed"),
        ("drift", ["shares=0"], "at '/shares': minimum: got 0, want 1"),
        ("trainer", ["keda.enabled=true"], "at '': additional properties 'keda' not allowed"),
        ("ingest", ["settings.log_lewel=DEBUG"], "at '/settings': additional properties 'log_lewel' not allowed"),
        ("ingest", ["settings.kafka=other:9092"], "at '/settings': additional properties 'kafka' not allowed"),
        (
            "ingest",
            ["settings.kafka_password=weir"],
            "at '/settings': additional properties 'kafka_password' not allowed",
        ),
        ("ingest", ["kafka.password=weir"], "at '/kafka': additional properties 'password' not allowed"),
        ("ingest", ["kafka.security=tls"], "at '/kafka/security': value must be one of"),
        ("ingest", ["replicas=two"], "at '/replicas': got string, want integer"),
        ("ingest", ["hpa.enabled=maybe"], "at '/hpa/enabled': got string, want boolean"),
        ("ingest", ["settings.log_level=LOUD"], "at '/settings/log_level': value must be one of"),
        ("ingest", ["settings.max_requests=0"], "at '/settings/max_requests': minimum: got 0, want 1"),
        ("ingest", ["keda.minReplicas=1"], "at '/keda/minReplicas': minimum: got 1, want 2"),
        ("ingest", ["auth=none"], "at '/auth': value must be one of '', 'off', 'keys', 'jwt', 'keys,jwt'"),
        ("features", ["part=tile"], "at '/part': value must be one of 'all', 'tiles', 'lake', 'skew'"),
        ("features", ["valkey.url=valkey:6379"], "at '/valkey/url': 'valkey:6379' does not match pattern"),
        (
            "serving",
            ['scorer.keda.topics=[{"name": "x"}]'],
            "at '/scorer/keda/topics/0': missing property 'partitions'",
        ),
        ("millstream", ["ingest.replica=3"], "at '': additional properties 'replica' not allowed"),
        ("millstream", ["global.kafka.servers=x"], "at '/global/kafka': additional properties 'servers' not allowed"),
        ("millstream", ["ingets.enabled=false"], "at '': additional properties 'ingets' not allowed"),
    ],
)
def test_what_no_chart_knows_and_what_is_of_another_type_is_refused_with_its_place(
    chart: str, sets: list[str], said: str, helm: Path
) -> None:
    assert said in refusal(helm, chart, "minimal-values.yaml", *sets)


def test_a_password_is_not_said_again(helm: Path) -> None:
    assert "hush" not in refusal(helm, "drift", "minimal-values.yaml", "valkey.url=redis://:hush@valkey:6379/0")


@pytest.mark.parametrize("service", SERVICES)
def test_a_chart_with_nothing_said_begins_with_what_it_needs(service: str, helm: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.yaml"
    empty.touch()

    assert f"{service}: kafka.bootstrap is empty: write" in refusal(helm, service, str(empty))
