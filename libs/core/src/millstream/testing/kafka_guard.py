"""Ports of an embedded Kafka at which not everybody is let in: a password, a password within TLS, a certificate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from millstream.testing.ports import HOST, claim

if TYPE_CHECKING:
    from millstream.testing.certificates import Authority

SCRAM = "SCRAM-SHA-512"


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Who is let in, and by what the brokers are known. All files are PEM."""

    user: str
    password: str
    ca: Path
    """Of the authority that signed the brokers' certificate, and must have signed that of a client."""
    certificate: Path
    key: Path
    others: Mapping[str, str] = field(default_factory=dict)
    """Further users with their passwords (SCRAM). With any, Kafka authorizes too: `user`, and whoever comes by the open port,
    may do all, the others what ACLs say, which is nothing at first."""


class GuardedPorts:
    """Three further listeners of one broker; beside them the open one stays, by which the brokers speak to each other."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.sasl_plaintext = claim(None, "Kafka's port for passwords")
        """SCRAM-SHA-512."""
        self.sasl_ssl = claim(None, "Kafka's port for passwords within TLS")
        """SCRAM-SHA-512 or PLAIN."""
        self.mtls = claim(None, "Kafka's port for certificates")
        """TLS, with a certificate of the client's."""

    @property
    def listeners(self) -> str:
        return f"SCRAM://{HOST}:{self.sasl_plaintext},SCRAMTLS://{HOST}:{self.sasl_ssl},MTLS://{HOST}:{self.mtls}"

    def settings(self, folder: Path) -> Mapping[str, object]:
        """What the broker is told beside its listeners; the file of its certificate with the key is put into `folder`."""
        guard = self._guard
        store = folder / "certificate-and-key.pem"
        store.write_bytes(guard.certificate.read_bytes() + guard.key.read_bytes())
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        plain = (
            f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{guard.user}="{guard.password}";'
        )
        return {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": store,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": guard.ca,
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.scram.sasl.enabled.mechanisms": SCRAM,
            "listener.name.scram.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.scramtls.sasl.enabled.mechanisms": f"{SCRAM},PLAIN",
            "listener.name.scramtls.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.scramtls.plain.sasl.jaas.config": plain,
            **(self._authorizer() if guard.others else {}),
        }

    def _authorizer(self) -> Mapping[str, object]:
        return {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{self._guard.user}",
        }

    @property
    def format_arguments(self) -> tuple[str, ...]:
        """For Kafka's tool that formats a folder: the users' passwords."""
        users = {self._guard.user: self._guard.password, **self._guard.others}
        said = (("--add-scram", f"{SCRAM}=[name={name},password={password}]") for name, password in users.items())
        return tuple(part for one in said for part in one)


PROTOCOLS = "SCRAM:SASL_PLAINTEXT,SCRAMTLS:SASL_SSL,MTLS:SSL"
Door = Literal["sasl_plaintext", "sasl_ssl", "mtls"]


@dataclass(frozen=True, kw_only=True)
class GuardedKafka:
    """One broker with a guard, and what a client needs at each of its doors."""

    ports: GuardedPorts
    bootstrap: str
    """Of the open port."""
    guard: Guard
    authority: Authority

    def at(self, door: Door) -> str:
        """Bootstrap servers of a door."""
        return f"{HOST}:{getattr(self.ports, door)}"

    def settings(self, door: Door) -> dict[str, str]:
        """Names and values of the settings with which a process is let in there."""
        tls = {"kafka_ca": str(self.guard.ca)} if door != "sasl_plaintext" else {}
        if door == "mtls":
            certificate, key = self.authority.certificate("client")
            return {"kafka_security": "ssl", "kafka_cert": str(certificate), "kafka_key": str(key), **tls}
        user = {"kafka_mechanism": SCRAM, "kafka_user": self.guard.user, "kafka_password": self.guard.password}
        return {"kafka_security": door, **user, **tls}

    def environment(self, door: Door) -> dict[str, str]:
        """The same as variables, with the address."""
        said = {"kafka": self.at(door), **self.settings(door)}
        return {f"MILLSTREAM_{name.upper()}": value for name, value in said.items()}
