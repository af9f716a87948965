"""Clients of Kafka as we make them all: let in as the settings say, with an error that a person can use where they are not."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest
from faststream.security import BaseSecurity, SASLPlaintext, SASLScram256, SASLScram512

from millstream.errors import RetryLater
from millstream.runtime.kafka_security import Bootstrap, Kafka

log = logging.getLogger(__name__)

WITHIN = 5.0
"""Seconds for a broker to say why it lets nobody in; it takes milliseconds, and the first try has failed already."""

_SASL = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}


class KafkaRefused(KafkaConnectionError, RetryLater):  # type: ignore[misc]
    """Kafka is there and does not let us in: the message names the setting to mend. Of aiokafka one hears only that it could
    not bootstrap, whatever the reason."""

    def __str__(self) -> str:
        return str(self.args[0])

    __repr__ = __str__


def does_not_answer(kafka: Bootstrap, why: object) -> str:
    """What is said of a Kafka with which nothing can be done; `why` is what came of trying."""
    return str(why) if isinstance(why, KafkaRefused) else f"Kafka at {kafka} does not answer: {str(why) or 'timeout'}"


def options_of(kafka: Bootstrap) -> dict[str, Any]:
    """What a client of aiokafka is given to reach this Kafka."""
    if isinstance(kafka, Kafka):
        return {"bootstrap_servers": kafka.bootstrap, **kafka.options}
    return {"bootstrap_servers": kafka}


def faststream_security(kafka: Kafka) -> BaseSecurity | None:
    """The same for FastStream's broker."""
    said = kafka.options
    if not said:
        return None
    tls = "ssl_context" in said
    if (mechanism := said.get("sasl_mechanism")) is None:
        return BaseSecurity(ssl_context=said["ssl_context"], use_ssl=True)
    return _SASL[mechanism](
        username=said["sasl_plain_username"],
        password=said["sasl_plain_password"],
        ssl_context=said.get("ssl_context"),
        use_ssl=tls,
    )


class _Client:
    def __init__(self, kafka: Bootstrap, *topics: str, **more: Any) -> None:
        self._kafka = kafka
        super().__init__(*topics, **options_of(kafka), **more)

    async def start(self) -> None:
        """Raises KafkaRefused where Kafka does not let us in, another KafkaError where it is away."""
        try:
            await super().start()  # type: ignore[misc]
        except KafkaConnectionError as error:
            raise await explained(self._kafka, error) from error


class Consumer(_Client, AIOKafkaConsumer):  # type: ignore[misc]
    """Of `topics`, if any."""

    async def stop(self) -> None:
        """As aiokafka's, which stops half-way where its fetching had broken down, and leaves the connection open."""
        try:
            await super().stop()
        except KafkaError as error:
            log.info("what had broken down is closed: %s", error)
            await self._client.close()


class Producer(_Client, AIOKafkaProducer):  # type: ignore[misc]
    """See aiokafka."""


class Admin(_Client, AIOKafkaAdminClient):  # type: ignore[misc]
    """See aiokafka."""


async def explained(kafka: Bootstrap, error: KafkaConnectionError) -> KafkaConnectionError:
    """`error`, or what the brokers say when they are asked by hand."""
    if isinstance(error, KafkaRefused):
        return error
    options = options_of(kafka)
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers")):
        try:
            async with asyncio.timeout(WITHIN):
                connection = await create_conn(host, port, request_timeout_ms=int(WITHIN * 1000), **options)
                try:
                    await connection.send(MetadataRequest([]))
                finally:
                    connection.close()
        except (KafkaError, OSError, TimeoutError) as why:
            if said := _remedy(f"Kafka at {host}:{port}", options, why):
                return KafkaRefused(said)
    return error


def _remedy(where: str, options: dict[str, Any], error: Exception) -> str | None:
    """What to mend; None where nobody answers, which is no refusal."""
    security = options.get("security_protocol", "PLAINTEXT").lower()
    match error:
        case SaslAuthenticationFailed():
            return (
                f"{where} does not let the user {options['sasl_plain_username']!r} in: check MILLSTREAM_KAFKA_USER and "
                "MILLSTREAM_KAFKA_PASSWORD (or its file), and that the brokers know this user for "
                f"MILLSTREAM_KAFKA_MECHANISM={options['sasl_mechanism']}"
            )
        case UnsupportedSaslMechanismError():
            return f"{where} does not take MILLSTREAM_KAFKA_MECHANISM={options['sasl_mechanism']}: write the one it has"
        case IllegalSaslStateError():
            return (
                f"{where} asks for no password at this port: write its port for users into MILLSTREAM_KAFKA, or "
                f"MILLSTREAM_KAFKA_SECURITY={'ssl' if security.endswith('ssl') else 'plaintext'}"
            )
        case ssl.SSLCertVerificationError():
            return (
                f"the certificate of {where} is not to be trusted: {error.verify_message}; MILLSTREAM_KAFKA_CA names the "
                "authority that signed it, and MILLSTREAM_KAFKA the host as the certificate has it"
            )
        case ConnectionRefusedError() | TimeoutError():
            return None
        case ssl.SSLError() | ConnectionError() | KafkaConnectionError():
            return f"{where} hung up on MILLSTREAM_KAFKA_SECURITY={security}: {_perhaps(security)}"
    return None


def _perhaps(security: str) -> str:
    password = " or a password (sasl_ssl, sasl_plaintext)" if security == "plaintext" else ""
    if not security.endswith("ssl"):
        return f"it may want TLS (ssl, sasl_ssl){password}"
    password = "it wants a password (sasl_ssl), " if security == "ssl" else ""
    return (
        f"it speaks no TLS at this port, {password}or it wants a certificate of ours that it trusts (MILLSTREAM_KAFKA_CERT, "
        "MILLSTREAM_KAFKA_KEY)"
    )
