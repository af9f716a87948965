"""Schemas come from a registry: fetched once, waited for, never confused with a registry that is away; secrets stay secret.

The registry is a small one of the tests' own; what any has to answer alike is in `test_runtime_registries.py`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka.serialization import MessageField, SerializationContext

from millstream.codecs.codec import MOST_WRITERS, RegistryCodec
from millstream.codecs.wire import framed
from millstream.errors import BadSetup, RejectEvent, RetryLater
from millstream.project import Stream
from millstream.runtime import codecs as codecs_module
from millstream.runtime.codecs import Codecs
from millstream.runtime.records import Batch
from millstream.runtime.schema_registry import RegistrySettings
from millstream.runtime.user_events import read_batch, read_event
from millstream.testing.registry_server import RegistryServer

from .formats_story import AVSC, DEPARTURE, stream_of

DEPARTED = "flights-departed"
TO = SerializationContext(DEPARTED, MessageField.VALUE)


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer().running() as server:
        yield server


def settings(registry: RegistryServer, **more: Any) -> RegistrySettings:
    return RegistrySettings(schema_registry=registry.url, **({"schema_patience": 0.0} | more))


def codecs(registry: RegistryServer, stream: Stream, **more: Any) -> Codecs:
    return Codecs({stream.name: stream}, settings(registry, **more))


@dataclass
class Told:
    value: bytes | None
    offset: int = 0
    headers: list[tuple[str, bytes]] = field(default_factory=list)
    timestamp: int = 1_370_088_000_250
    topic: str = DEPARTED
    partition: int = 0
    key: bytes | None = None


def batch(*values: bytes | None, ago: float = 0.0) -> Batch:
    """Records that Kafka got `ago` seconds before now."""
    at = int((time.time() - ago) * 1000)
    records = [Told(value, offset, timestamp=at) for offset, value in enumerate(values)]
    return Batch(DEPARTED, 0, 0, len(values) - 1, records)


async def test_a_schema_is_fetched_once(registry: RegistryServer, tmp_path: Path) -> None:
    stream = stream_of(tmp_path, "avro")
    made = codecs(registry, stream)
    await made.register()
    raw = made[DEPARTED].encode(DEPARTURE)
    registry.asked.clear()
    for _ in range(3):
        await made.prepare(batch(raw, raw))

    assert registry.asked == ["GET /schemas/ids/1"]
    events, bad = read_batch(stream, batch(raw, b"\x00", None), made[DEPARTED])
    assert [e.event for e in events] == [DEPARTURE]
    assert [one.error.reason for one in bad] == ["bad_frame", "bad_frame"]
    with pytest.raises(BadSetup, match="is in avro, and whoever reads it was given no codec"):
        read_event(stream, Told(raw))
    await made.close()


async def test_an_id_that_comes_late_is_waited_for(registry: RegistryServer, tmp_path: Path) -> None:
    stream = stream_of(tmp_path, "avro")
    made = codecs(registry, stream, schema_patience=60.0)
    await made.register()
    raw = framed(42, made[DEPARTED].encode(DEPARTURE)[5:])
    answer = registry.answer

    def late(method: str, path: str, body: Any, auth: str | None) -> tuple[int, Any]:
        said = answer(method, path, body, auth)
        if len(registry.asked) > 3 and 42 not in registry.schemas:
            registry.register("elsewhere", json.dumps(AVSC | {"doc": "the replica has it now"}), id=42)
        return said

    registry.answer = late  # type: ignore[method-assign]
    await made.prepare(batch(raw))

    assert made[DEPARTED].decode(raw) == DEPARTURE
    await made.close()


async def test_an_id_that_never_comes_is_named_and_asked_for_again_later(
    registry: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = stream_of(tmp_path, "avro")
    made = codecs(registry, stream, schema_patience=0.3)
    raw = framed(42, b"whatever")
    # A tenth of a second between two looks at the clock, however long an answer takes.
    looks = itertools.count(0.0, 0.1)
    monkeypatch.setattr(codecs_module, "time", SimpleNamespace(time=lambda: 0.0, monotonic=lambda: next(looks)))
    await made.prepare(batch(raw))
    asked = len(registry.asked)
    await made.prepare(batch(raw))

    assert asked > 1, "again and again, for a while"
    assert len(registry.asked) == asked, "then its events are dead letters at once"
    with pytest.raises(RejectEvent, match=f"schema 42 is not in the registry at {registry.url}") as caught:
        made[DEPARTED].decode(raw)
    assert caught.value.reason == "unknown_schema"
    await made.close()


async def test_a_flood_of_made_up_ids_hides_no_good_one_and_is_bounded(
    registry: RegistryServer, tmp_path: Path
) -> None:
    stream = stream_of(tmp_path, "avro")
    made = codecs(registry, stream)
    await made.register()
    good = made[DEPARTED].encode(DEPARTURE)
    await made.prepare(batch(*(framed(id, b"x") for id in range(1000, 1300)), good))
    codec = made[DEPARTED]
    assert isinstance(codec, RegistryCodec)

    assert codec.decode(good) == DEPARTURE
    codec.give_up(range(10_000, 10_000 + MOST_WRITERS), registry.url)
    assert len(codec._writers) == MOST_WRITERS
    await made.close()


async def test_a_registry_that_is_away_rejects_nothing(registry: RegistryServer, tmp_path: Path) -> None:
    stream = stream_of(tmp_path, "avro")
    made = codecs(registry, stream)
    await made.register()
    raw = made[DEPARTED].encode(DEPARTURE)
    registry.away = True
    with pytest.raises(RetryLater, match="answers 503"):
        await made.prepare(batch(raw))
    with pytest.raises(RetryLater, match="schema 1 has not come"):
        read_batch(stream, batch(raw), made[DEPARTED])
    registry.away = False
    await made.prepare(batch(raw))
    assert made[DEPARTED].decode(raw) == DEPARTURE
    await made.close()

    gone = Codecs({stream.name: stream}, RegistrySettings(schema_registry="http://127.0.0.1:9"))
    with pytest.raises(RetryLater, match=r"the schema registry at http://127\.0\.0\.1:9 does not answer"):
        await gone.prepare(batch(raw))
    await gone.close()


async def test_an_address_that_is_no_registry_is_not_taken_for_one_without_schemas(
    registry: RegistryServer, tmp_path: Path
) -> None:
    stream = stream_of(tmp_path, "avro")
    said = RegistrySettings(schema_registry=f"{registry.url}/elsewhere", schema_patience=0.0)
    made = Codecs({stream.name: stream}, said)
    with pytest.raises(RetryLater, match="404 without a reason; is it the right address"):
        await made.prepare(batch(framed(1, b"x")))
    await made.close()


async def test_credentials_are_sent_and_never_shown(tmp_path: Path) -> None:
    stream = stream_of(tmp_path, "avro")
    with RegistryServer(auth="mill:stream-of-secrets").running() as registry:
        made = codecs(registry, stream, schema_registry_auth="mill:stream-of-secrets")
        await made.register()
        await made.close()
        wrong = codecs(registry, stream, schema_registry_auth="mill:guessed-secret")
        with pytest.raises(RetryLater) as caught:
            await wrong.prepare(batch(framed(1, b"x")))
        await wrong.close()

    assert "refuses us (401); check MILLSTREAM_SCHEMA_REGISTRY_AUTH" in str(caught.value)
    assert "guessed" not in str(caught.value) + repr(settings(registry, schema_registry_auth="mill:guessed-secret"))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"SCHEMA_REGISTRY": "https://mill:secret@registry"}, "SCHEMA_REGISTRY: .*carries a user or password"),
        ({"SCHEMA_REGISTRY": "registry:8081"}, "SCHEMA_REGISTRY: .*write an address like https://"),
        ({"SCHEMA_REGISTRY_AUTH": "secret"}, "SCHEMA_REGISTRY_AUTH: .*write user:password"),
    ],
)
def test_a_wrong_setting_names_its_variable_and_not_its_value(
    variables: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"MILLSTREAM_{name}", value)
    with pytest.raises(BadSetup, match=said) as caught:
        RegistrySettings.of_environment()
    assert "secret" not in str(caught.value)


def test_a_stream_that_needs_a_registry_says_so(tmp_path: Path) -> None:
    stream = stream_of(tmp_path, "protobuf")
    with pytest.raises(BadSetup, match="stream flights-departed is in protobuf: set MILLSTREAM_SCHEMA_REGISTRY"):
        Codecs({stream.name: stream}, RegistrySettings())


async def test_a_schema_that_the_registry_refuses_stops_the_writer(registry: RegistryServer, tmp_path: Path) -> None:
    registry.refused["flights-departed-value"] = "Schema being registered is incompatible with an earlier schema"
    made = codecs(registry, stream_of(tmp_path, "avro"))
    with pytest.raises(BadSetup, match="does not take the schema of flights-departed-value: Schema being registered"):
        await made.register()
    await made.close()


async def test_references_are_fetched(registry: RegistryServer, tmp_path: Path) -> None:
    kind = {"type": "enum", "name": "Kind", "namespace": "flights", "symbols": ["PASSENGER", "CARGO"]}
    fields = [f if f["name"] != "kind" else {"name": "kind", "type": "flights.Kind"} for f in AVSC["fields"]]
    registry.register("kinds", json.dumps(kind))
    id = registry.register(
        "flights-departed-value",
        json.dumps(AVSC | {"fields": fields}),
        references=[{"name": "flights.Kind", "subject": "kinds", "version": 1}],
    )
    made = codecs(registry, stream_of(tmp_path, "avro"))
    await made.register()
    raw = framed(id, made[DEPARTED].encode(DEPARTURE)[5:])
    await made.prepare(batch(raw))

    assert made[DEPARTED].decode(raw) == DEPARTURE
    await made.close()


async def test_json_behind_the_frame_of_its_own_serializer_is_read() -> None:
    schema = {
        "type": "object",
        "required": ["tailnum", "departed_at"],
        "properties": {"tailnum": {"type": "string"}, "departed_at": {"type": "string", "format": "date-time"}},
    }
    said = {"stream": DEPARTED, "description": "Left.", "key": "tailnum", "time": "departed_at", "schema": schema}
    stream = Stream.model_validate(said)
    event = {"tailnum": "N725MQ", "departed_at": "2013-06-01T12:00:00Z"}
    raw = json.dumps(event).encode()
    events, bad = read_batch(stream, batch(raw, framed(3, raw), b"\x00\x00"))

    assert [one.event for one in events] == [event, event]
    assert [one.error.reason for one in bad] == ["bad_json"]


async def test_a_registry_behind_tls_of_a_private_authority(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    stream = stream_of(tmp_path, "avro")
    with RegistryServer(tls=tls).running() as registry:
        made = codecs(registry, stream, schema_registry_ca=certificate)
        await made.register()
        await made.close()
        stranger = codecs(registry, stream)
        with pytest.raises(RetryLater, match=r"(?i)certificate"):
            await stranger.prepare(batch(framed(1, b"x")))
        await stranger.close()
    with pytest.raises(BadSetup, match=r"MILLSTREAM_SCHEMA_REGISTRY_CA: .*nowhere"):
        codecs(registry, stream, schema_registry_ca=tmp_path / "nowhere.pem")


def _certificate(folder: Path) -> tuple[Path, Path]:
    import datetime
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "registry")])
    began = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(began)
        .not_valid_after(began + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "registry.pem").write_bytes(made.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "registry.key").write_bytes(secret)
    return folder / "registry.pem", folder / "registry.key"


async def test_what_lay_in_kafka_for_longer_is_not_waited_for(registry: RegistryServer, tmp_path: Path) -> None:
    """A backlog of made-up ids, one a batch: each is asked for once, and none of them costs a patience."""
    made = codecs(registry, stream_of(tmp_path, "avro"), schema_patience=30.0)
    async with asyncio.timeout(25):
        for id in range(100, 110):
            await made.prepare(batch(framed(id, b"x"), ago=31.0))
    assert len(registry.asked) == 10
    began = time.monotonic()
    await made.prepare(batch(framed(42, b"x"), ago=29.0))
    assert 0.5 < time.monotonic() - began < 20.0, "what is left of its own patience"
    await made.close()
