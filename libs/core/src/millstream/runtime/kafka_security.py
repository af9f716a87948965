"""How a process proves to Kafka who it is, and Kafka to it: TLS, a password, a certificate. The one place that reads it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import PrivateAttr, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from millstream.errors import BadSetup

PREFIX = "MILLSTREAM_"


@dataclass(frozen=True, kw_only=True)
class Kafka:
    """Where Kafka is, and what its clients need to be let in. As text it is the address alone."""

    bootstrap: str
    """Bootstrap servers, comma separated."""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """What each client of aiokafka is given for it; the password is in it."""

    def __str__(self) -> str:
        return self.bootstrap


Bootstrap = str | Kafka
"""A text is a Kafka that lets anybody in, over plain text: one of a laptop, or of a test."""


class KafkaSecurity(BaseSettings):
    """How a process reaches a Kafka that does not let anybody in. Files are read once, at the start."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    kafka_security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    """What the brokers' port speaks: `ssl` is TLS, `sasl_ssl` TLS and a user's password, `sasl_plaintext` a password alone."""
    kafka_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] | None = None
    """How the password is shown; needed with it. PLAIN shows it as it is, so only where TLS is around it."""
    kafka_user: str | None = None
    """Whom the brokers know; needed with a password."""
    kafka_password: SecretStr | None = None
    """The user's password, or `kafka_password_file`."""
    kafka_password_file: Path | None = None
    """File that has the password and nothing else, as a mounted Secret; a line break at its end is none of it."""
    kafka_ca: Path | None = None
    """PEM file of the authority that signed the brokers' certificates, where the system does not know it."""
    kafka_cert: Path | None = None
    """PEM file of our own certificate, where the brokers ask for one (mTLS)."""
    kafka_key: Path | None = None
    """PEM file of its key, where that is not in the same file; without a passphrase."""

    _options: dict[str, Any] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, said: Any) -> Any:
        """`MILLSTREAM_KAFKA_USER=` in an environment file says nothing."""
        if not isinstance(said, dict):
            return said
        return {name: value for name, value in said.items() if value != "" or not name.startswith("kafka_")}

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        self._complain()
        options: dict[str, Any] = {}
        if self.kafka_security != "plaintext":
            options["security_protocol"] = self.kafka_security.upper()
        if self._tls:
            options["ssl_context"] = self._context()
        if self._sasl:
            options |= {
                "sasl_mechanism": self.kafka_mechanism,
                "sasl_plain_username": self.kafka_user,
                "sasl_plain_password": self._password(),
            }
        self._options = options
        return self

    @classmethod
    def of_environment(cls) -> Self:
        """For a command. Raises BadSetup that names the variable, and never its value."""
        try:
            return cls()
        except ValidationError as error:
            raise BadSetup("; ".join(complaints(error))) from None

    @classmethod
    def environment_of_none(cls) -> dict[str, str]:
        """Variables for a child whose Kafka lets anybody in, whatever our own environment says of another one."""
        return {f"{PREFIX}{name.upper()}": "" for name in KafkaSecurity.model_fields}

    def at(self, bootstrap: str) -> Kafka:
        """The Kafka at an address."""
        return Kafka(bootstrap=bootstrap, options=self._options)

    @property
    def _tls(self) -> bool:
        return self.kafka_security.endswith("ssl")

    @property
    def _sasl(self) -> bool:
        return self.kafka_security.startswith("sasl")

    def _complain(self) -> None:
        """What does not go together, each with the way out. Nothing that was set may go unused: plain text would be sent."""
        passwords = [name for name in ("kafka_password", "kafka_password_file") if getattr(self, name) is not None]
        for name in ("kafka_mechanism", "kafka_user", *passwords):
            if getattr(self, name) is not None and not self._sasl:
                raise ValueError(
                    f"{_variable(name)} is set, and MILLSTREAM_KAFKA_SECURITY={self.kafka_security} shows no password: "
                    "write sasl_ssl (with TLS) or sasl_plaintext (without)"
                )
        for name in ("kafka_ca", "kafka_cert", "kafka_key"):
            if getattr(self, name) is not None and not self._tls:
                raise ValueError(
                    f"{_variable(name)} is set, and MILLSTREAM_KAFKA_SECURITY={self.kafka_security} is without TLS: "
                    f"write {'sasl_ssl' if self._sasl else 'ssl (or sasl_ssl, with a password)'}"
                )
        if self.kafka_key is not None and self.kafka_cert is None:
            raise ValueError("MILLSTREAM_KAFKA_KEY needs MILLSTREAM_KAFKA_CERT, the certificate that it belongs to")
        if not self._sasl:
            return
        needs = f"MILLSTREAM_KAFKA_SECURITY={self.kafka_security} needs"
        if self.kafka_mechanism is None:
            raise ValueError(
                f"{needs} MILLSTREAM_KAFKA_MECHANISM: SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, as the brokers have it"
            )
        if self.kafka_user is None:
            raise ValueError(f"{needs} MILLSTREAM_KAFKA_USER, whom the brokers know")
        if not passwords:
            raise ValueError(f"{needs} MILLSTREAM_KAFKA_PASSWORD, or MILLSTREAM_KAFKA_PASSWORD_FILE")
        if len(passwords) == 2:
            raise ValueError("MILLSTREAM_KAFKA_PASSWORD and MILLSTREAM_KAFKA_PASSWORD_FILE are both set: keep one")

    def _password(self) -> str:
        if self.kafka_password is not None:
            return self.kafka_password.get_secret_value()
        assert self.kafka_password_file is not None
        try:
            password = self.kafka_password_file.read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(_unusable("kafka_password_file", self.kafka_password_file, error)) from None
        if not password:
            raise ValueError(f"MILLSTREAM_KAFKA_PASSWORD_FILE: {self.kafka_password_file} is empty")
        return password

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.kafka_ca)
        except (OSError, ssl.SSLError) as error:
            raise ValueError(_unusable("kafka_ca", self.kafka_ca, error)) from None
        if self.kafka_cert is not None:
            for name, file in (("kafka_cert", self.kafka_cert), ("kafka_key", self.kafka_key)):
                if file is not None and not file.is_file():
                    raise ValueError(f"{_variable(name)}: there is no file {file}")
            try:
                context.load_cert_chain(self.kafka_cert, self.kafka_key, password=_no_passphrase)
            except (OSError, ssl.SSLError, _Locked) as error:
                named = "kafka_key" if self.kafka_key is not None else "kafka_cert"
                raise ValueError(_unusable(named, self.kafka_key or self.kafka_cert, error)) from None
        return context


class _Locked(Exception):
    pass


def _no_passphrase() -> str:
    """Without it OpenSSL would ask at the terminal, and wait."""
    raise _Locked("it is locked with a passphrase; write one without (openssl pkey -in KEY -out PLAIN)")


def _unusable(name: str, file: Path | None, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{_variable(name)}: there is no file {file}"
    if isinstance(error, ssl.SSLError):
        what = (
            "the key does not belong to the certificate"
            if error.reason == "KEY_VALUES_MISMATCH"
            else "it is no PEM file"
        )
        return f"{_variable(name)}: {file} cannot be used: {what} ({error.reason or error})"
    return f"{_variable(name)}: {file} cannot be used: {error.strerror if isinstance(error, OSError) else error}"


def _variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def complaints(error: ValidationError) -> list[str]:
    """What is wrong with settings of the environment: a line each, with the variable's name and never its value."""
    said = []
    for wrong in error.errors():
        about = f"{_variable('_'.join(map(str, wrong['loc'])))}: " if wrong["loc"] else ""
        said.append(about + wrong["msg"].removeprefix("Value error, "))
    return said
