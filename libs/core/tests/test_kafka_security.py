"""How we are let into Kafka: by password, within TLS, by certificate; and what is said where we are not."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka.errors import KafkaConnectionError
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from millstream.errors import BadSetup, RetryLater
from millstream.runtime.kafka_clients import Admin, KafkaRefused
from millstream.runtime.kafka_security import KafkaSecurity, complaints
from millstream.runtime.metrics import RuntimeMetrics
from millstream.runtime.publisher import Outgoing
from millstream.runtime.settings import ServiceSettings
from millstream.runtime.sole_writer import SoleWriter
from millstream.runtime.topic_admin import topic_exists
from millstream.testing.certificates import Authority
from millstream.testing.kafka_guard import Door, GuardedKafka

from .runtime_kit import Ledger, new_topic, running, service, until

USER = {"kafka_mechanism": "SCRAM-SHA-512", "kafka_user": "mill", "kafka_password": "tide&weir 7"}


def complaint(**said: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        KafkaSecurity(**said)
    (found,) = complaints(refused.value)
    assert "tide&weir 7" not in f"{found}{refused.value}"
    return found


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            {"kafka_security": "tls"},
            "MILLSTREAM_KAFKA_SECURITY: Input should be 'plaintext', 'ssl', 'sasl_plaintext' or 'sasl_ssl'",
        ),
        (
            {"kafka_user": "mill"},
            "MILLSTREAM_KAFKA_USER is set, and MILLSTREAM_KAFKA_SECURITY=plaintext shows no password: write sasl_ssl",
        ),
        (
            {"kafka_security": "ssl", **USER},
            "MILLSTREAM_KAFKA_MECHANISM is set, and MILLSTREAM_KAFKA_SECURITY=ssl shows no password",
        ),
        (
            {"kafka_ca": "ca.crt"},
            "MILLSTREAM_KAFKA_CA is set, and MILLSTREAM_KAFKA_SECURITY=plaintext is without TLS: write ssl",
        ),
        (
            {"kafka_security": "sasl_plaintext", **USER, "kafka_ca": "ca.crt"},
            "MILLSTREAM_KAFKA_SECURITY=sasl_plaintext is without TLS: write sasl_ssl",
        ),
        (
            {"kafka_security": "sasl_ssl", "kafka_user": "mill", "kafka_password": "tide&weir 7"},
            "MILLSTREAM_KAFKA_SECURITY=sasl_ssl needs MILLSTREAM_KAFKA_MECHANISM: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN",
        ),
        (
            {"kafka_security": "sasl_ssl", "kafka_mechanism": "GSSAPI"},
            "MILLSTREAM_KAFKA_MECHANISM: Input should be 'SCRAM-SHA-512'",
        ),
        ({"kafka_security": "sasl_ssl", "kafka_mechanism": "PLAIN"}, "needs MILLSTREAM_KAFKA_USER"),
        (
            {"kafka_security": "sasl_ssl", "kafka_mechanism": "PLAIN", "kafka_user": "mill"},
            "needs MILLSTREAM_KAFKA_PASSWORD, or MILLSTREAM_KAFKA_PASSWORD_FILE",
        ),
        ({"kafka_security": "sasl_ssl", **USER, "kafka_password_file": "p"}, "are both set: keep one"),
        ({"kafka_security": "ssl", "kafka_ca": "/no/ca.crt"}, "MILLSTREAM_KAFKA_CA: there is no file /no/ca.crt"),
        ({"kafka_security": "ssl", "kafka_cert": "/no/tls.crt"}, "MILLSTREAM_KAFKA_CERT: there is no file /no/tls.crt"),
        ({"kafka_security": "ssl", "kafka_key": "tls.key"}, "MILLSTREAM_KAFKA_KEY needs MILLSTREAM_KAFKA_CERT"),
        (
            {
                "kafka_security": "sasl_ssl",
                "kafka_mechanism": "PLAIN",
                "kafka_user": "mill",
                "kafka_password_file": "/no/password",
            },
            "MILLSTREAM_KAFKA_PASSWORD_FILE: there is no file /no/password",
        ),
    ],
)
def test_what_does_not_go_together_is_told_with_its_way_out(said: dict[str, str], told: str) -> None:
    assert told in complaint(**said)


def test_files_that_are_none_are_told_by_what_is_wrong_with_them(tmp_path: Path) -> None:
    mine, other = Authority(tmp_path), Authority(tmp_path / "other", "other")
    certificate, _ = mine.certificate("client")
    _, strange = other.certificate("client")
    text = tmp_path / "text.pem"
    text.write_text("no certificate")

    assert "it is no PEM file" in complaint(kafka_security="ssl", kafka_ca=text)
    assert "MILLSTREAM_KAFKA_KEY" in complaint(kafka_security="ssl", kafka_cert=certificate, kafka_key=text)
    said = complaint(kafka_security="ssl", kafka_cert=certificate, kafka_key=strange)
    assert "MILLSTREAM_KAFKA_KEY" in said
    assert "the key does not belong to the certificate" in said


def test_a_key_with_a_passphrase_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    certificate, key = Authority(tmp_path).certificate("client")
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    locked = serialization.BestAvailableEncryption(b"weir")
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked))

    assert "it is locked with a passphrase" in complaint(kafka_security="ssl", kafka_cert=certificate, kafka_key=key)


def test_the_password_may_be_a_file_and_is_shown_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("tide&weir 7\n")
    found = KafkaSecurity(kafka_security="sasl_ssl", **USER | {"kafka_password": "", "kafka_password_file": str(file)})
    kafka = found.at("kafka:9093")

    assert kafka.options["sasl_plain_password"] == "tide&weir 7"
    assert isinstance(kafka.options["ssl_context"], ssl.SSLContext)
    assert kafka.options["ssl_context"].check_hostname
    settings = ServiceSettings(kafka_security="sasl_ssl", **USER)
    with pytest.raises(ValidationError) as refused:
        ServiceSettings(kafka_security="ssl", **USER)
    shown_by = (repr(found), str(found), repr(kafka), repr(settings), settings.model_dump_json(), str(refused.value))
    for shown in shown_by:
        assert "tide&weir 7" not in shown
    assert str(kafka) == "kafka:9093"


def test_a_file_without_a_password_is_told(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("\n")
    said = USER | {"kafka_password": "", "kafka_password_file": str(file)}

    assert f"MILLSTREAM_KAFKA_PASSWORD_FILE: {file} is empty" in complaint(kafka_security="sasl_ssl", **said)


def test_a_variable_without_a_value_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, empty in KafkaSecurity.environment_of_none().items():
        monkeypatch.setenv(name, empty)

    assert ServiceSettings().at("kafka:9092").options == {}


def test_a_command_is_told_what_is_wrong_with_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLSTREAM_KAFKA_PASSWORD", "tide&weir 7")

    with pytest.raises(BadSetup, match=r"^MILLSTREAM_KAFKA_PASSWORD is set, and MILLSTREAM_KAFKA_SECURITY=plaintext"):
        KafkaSecurity.of_environment()


@pytest.mark.parametrize(
    ("door", "more"),
    [
        ("sasl_plaintext", {}),
        ("sasl_ssl", {}),
        ("sasl_ssl", {"kafka_mechanism": "PLAIN"}),
        ("mtls", {}),
    ],
)
async def test_a_service_that_is_let_in_says_and_hears(
    guarded_kafka: GuardedKafka, door: Door, more: dict[str, str]
) -> None:
    topic = await new_topic(guarded_kafka.bootstrap, "tower")
    ledger = Ledger()
    tower = service(guarded_kafka.at(door), **guarded_kafka.settings(door) | more)
    tower.hears([topic], group="tower", handler=ledger)
    writer = SoleWriter(bootstrap=tower.kafka, name=topic, timeout=10, metrics=RuntimeMetrics(CollectorRegistry()))

    async with running(tower):
        await until(lambda: not tower.health.not_ready())
        await tower.publisher.publish([Outgoing(topic, b"N1", b'{"flight": 1}', [])])
        await writer.start()
        await writer.publish([Outgoing(topic, b"N2", b'{"flight": 2}', [])])
        await until(lambda: len(ledger.values) == 2)
        await writer.stop()

    assert await topic_exists(tower.kafka, topic)


async def test_a_service_with_a_wrong_password_says_so_where_people_look(guarded_kafka: GuardedKafka) -> None:
    settings = guarded_kafka.settings("sasl_ssl") | {"kafka_password": "weir&tide 8"}
    tower = service(guarded_kafka.at("sasl_ssl"), **settings)

    async with running(tower):
        await until(lambda: any("does not let the user" in why for why in tower.health.not_ready().values()))
        transport = httpx.ASGITransport(app=tower.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://tower") as client:
            answer = await client.get("/readyz")

    assert answer.status_code == 503
    missing = answer.json()["missing"]["kafka"]
    assert "does not let the user 'mill' in: check MILLSTREAM_KAFKA_USER and MILLSTREAM_KAFKA_PASSWORD" in missing
    assert "weir&tide 8" not in answer.text


@pytest.mark.parametrize(
    ("door", "said", "told"),
    [
        ("sasl_plaintext", {"kafka_user": "weir"}, "does not let the user 'weir' in"),
        ("sasl_plaintext", {"kafka_mechanism": "PLAIN"}, "does not take MILLSTREAM_KAFKA_MECHANISM=PLAIN"),
        ("sasl_ssl", {"kafka_security": "sasl_plaintext", "kafka_ca": ""}, "it may want TLS (ssl, sasl_ssl)"),
        (
            "sasl_ssl",
            {"kafka_ca": ""},
            "is not to be trusted: unable to get local issuer certificate; MILLSTREAM_KAFKA_CA",
        ),
        (
            "mtls",
            {"kafka_cert": "", "kafka_key": ""},
            "it wants a certificate of ours that it trusts",
        ),
    ],
)
async def test_who_is_not_let_in_is_told_which_setting_to_mend(
    guarded_kafka: GuardedKafka, door: Door, said: dict[str, str], told: str
) -> None:
    kafka = KafkaSecurity(**guarded_kafka.settings(door) | said).at(guarded_kafka.at(door))
    admin = Admin(kafka)
    try:
        with pytest.raises(KafkaRefused) as refused:
            await admin.start()
    finally:
        await admin.close()

    assert told in str(refused.value)
    assert guarded_kafka.guard.password not in str(refused.value)


@pytest.mark.parametrize(
    ("port", "settings", "told"),
    [
        (
            "sasl_ssl",
            {},
            "hung up on MILLSTREAM_KAFKA_SECURITY=plaintext: it may want TLS (ssl, sasl_ssl) or a password",
        ),
        ("sasl_plaintext", {}, "hung up on MILLSTREAM_KAFKA_SECURITY=plaintext"),
        ("open", {"kafka_security": "sasl_plaintext", **USER}, "asks for no password at this port"),
        ("open", {"kafka_security": "ssl"}, "it speaks no TLS at this port"),
    ],
)
async def test_who_knocks_at_another_door_is_told(
    guarded_kafka: GuardedKafka, port: str, settings: dict[str, str], told: str
) -> None:
    where = guarded_kafka.bootstrap if port == "open" else guarded_kafka.at(port)
    with pytest.raises(RetryLater) as refused:
        await topic_exists(KafkaSecurity(**settings).at(where), "flights")

    assert told in str(refused.value)
    assert "does not answer" not in str(refused.value)


async def test_a_certificate_for_another_host_is_not_trusted(guarded_kafka: GuardedKafka) -> None:
    port = guarded_kafka.ports.mtls
    admin = Admin(KafkaSecurity(**guarded_kafka.settings("mtls")).at(f"localhost:{port}"))
    try:
        with pytest.raises(
            KafkaRefused, match=r"Hostname mismatch.*MILLSTREAM_KAFKA the host as the certificate has it"
        ):
            await admin.start()
    finally:
        await admin.close()


async def test_a_kafka_that_is_away_refuses_nobody() -> None:
    admin = Admin(KafkaSecurity(kafka_security="sasl_plaintext", **USER).at("127.0.0.1:1"))
    try:
        with pytest.raises(KafkaConnectionError) as away:
            await asyncio.wait_for(admin.start(), 10)
    finally:
        await admin.close()

    assert not isinstance(away.value, KafkaRefused)
