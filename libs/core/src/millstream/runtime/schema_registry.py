"""A schema registry that speaks Confluent's REST API (Confluent, Karapace, Apicurio's ccompat): what its ids stand for.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from millstream.codecs.codec import Registered
from millstream.contracts.json_text import read_json
from millstream.errors import BadSetup, Refusal, RetryLater
from millstream.runtime.kafka_security import complaints

if TYPE_CHECKING:
    import httpx

WITHIN = 10.0
"""Seconds for one answer."""
LARGEST = 1024 * 1024
"""Bytes of an answer. A schema is kilobytes."""
MOST_REFERENCES = 50
"""Schemas that one refers to, and they to others, all in all."""
JSON_TYPE = "application/vnd.schemaregistry.v1+json"


class RegistrySettings(BaseSettings):
    """How a process reaches the schema registry; only streams in Avro or protobuf need one."""

    model_config = SettingsConfigDict(env_prefix="MILLSTREAM_", frozen=True, extra="ignore")

    schema_registry: str | None = None
    """Address of the schema registry, http:// or https://, without user and password."""
    schema_registry_auth: SecretStr | None = None
    """`user:password`, or `key:secret` of Confluent Cloud."""
    schema_registry_ca: Path | None = None
    """PEM file of the authority that signed the registry's certificate, where the system does not know it."""
    schema_registry_cert: Path | None = None
    """PEM file of our own certificate, where the registry asks for one."""
    schema_registry_key: Path | None = None
    """PEM file of its key, where that is not in the same file."""
    schema_patience: Annotated[float, Field(ge=0)] = 10.0
    """Seconds in which an id that the registry does not know is asked for again, as a replica of it may be behind. Then the
    events with it are dead letters."""

    @field_validator("schema_registry")
    @classmethod
    def _is_address(cls, url: str | None) -> str | None:
        if url is None:
            return None
        said = urlsplit(url)
        if said.scheme not in ("http", "https") or not said.hostname:
            raise ValueError("write an address like https://registry.example:8081")
        if said.username or said.password:
            raise ValueError("carries a user or password; write those into MILLSTREAM_SCHEMA_REGISTRY_AUTH")
        return url.rstrip("/")

    @field_validator("schema_registry_auth")
    @classmethod
    def _has_both(cls, auth: SecretStr | None) -> SecretStr | None:
        if auth is not None and ":" not in auth.get_secret_value():
            raise ValueError("write user:password")
        return auth

    @model_validator(mode="after")
    def _go_together(self) -> RegistrySettings:
        if self.schema_registry_key is not None and self.schema_registry_cert is None:
            raise ValueError("MILLSTREAM_SCHEMA_REGISTRY_KEY needs MILLSTREAM_SCHEMA_REGISTRY_CERT")
        return self

    @classmethod
    def of_environment(cls) -> RegistrySettings:
        """For a command. Raises BadSetup that names the variable, and never its value."""
        try:
            return cls()
        except ValidationError as error:
            raise BadSetup("; ".join(complaints(error))) from None


class SchemaRegistry:
    """Connects when first asked. Schemas never change under their id, so whoever asks may keep the answer."""

    def __init__(self, settings: RegistrySettings) -> None:
        """`settings.schema_registry` is set. Raises BadSetup where a file cannot be used."""
        assert settings.schema_registry is not None
        self.url = settings.schema_registry
        self._settings = settings
        self._client: httpx.AsyncClient | None = None
        self._tls = self._context()

    def _context(self) -> ssl.SSLContext | None:
        if not self.url.startswith("https:"):
            return None
        said = self._settings
        try:
            context = ssl.create_default_context(cafile=said.schema_registry_ca)
        except (OSError, ssl.SSLError) as error:
            raise BadSetup(f"MILLSTREAM_SCHEMA_REGISTRY_CA: {said.schema_registry_ca}: {error}") from error
        if said.schema_registry_cert is not None:
            try:
                context.load_cert_chain(said.schema_registry_cert, said.schema_registry_key)
            except (OSError, ssl.SSLError) as error:
                raise BadSetup(f"MILLSTREAM_SCHEMA_REGISTRY_CERT: {said.schema_registry_cert}: {error}") from error
        return context

    async def schema(self, id: int) -> Registered | None:
        """What `id` stands for; None where the registry does not know it. Raises RetryLater."""
        status, found = await self._ask("GET", f"/schemas/ids/{id}")
        return None if status == 404 else await self._registered(found, [])

    async def id_of(self, subject: str, schema: Registered) -> int:
        """The id of `schema` under `subject`, registered now if it was not. Raises RetryLater, BadSetup where it may not be."""
        body = {"schema": schema.text} | ({} if schema.kind == "AVRO" else {"schemaType": schema.kind})
        path = f"/subjects/{quote(subject, safe='')}"
        status, found = await self._ask("POST", path, body)
        if status == 404:
            status, found = await self._ask("POST", f"{path}/versions", body)
        if status == 200 and isinstance(found.get("id"), int):
            return int(found["id"])
        said = str(found.get("message", status))[:300]
        raise BadSetup(
            f"the schema registry at {self.url} does not take the schema of {subject}: {said}; mend the stream's schema file, "
            "or the subject's compatibility"
        )

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    async def _registered(self, found: dict[str, Any], asked: list[tuple[str, int]]) -> Registered:
        references: list[tuple[str, Registered]] = []
        for one in found.get("references") or ():
            subject, version = str(one["subject"]), int(one["version"])
            if (subject, version) in asked:
                continue
            asked.append((subject, version))
            if len(asked) > MOST_REFERENCES:
                return Registered(kind=f"one of more than {MOST_REFERENCES} references", text="")
            status, other = await self._ask("GET", f"/subjects/{quote(subject, safe='')}/versions/{version}")
            if status == 404:
                return Registered(kind=f"one that refers to {subject} {version}, which is gone", text="")
            inner = await self._registered(other, asked)
            references += [*inner.references, (str(one.get("name", "")), inner)]
        return Registered(
            kind=str(found.get("schemaType") or "AVRO"), text=str(found.get("schema", "")), references=tuple(references)
        )

    async def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        """(200, 404, 409 or 422, the answer). Raises RetryLater for everything else: none of it says anything of a schema."""
        import httpx  # only for who has such a stream

        if self._client is None:
            auth = self._settings.schema_registry_auth
            user, _, password = auth.get_secret_value().partition(":") if auth is not None else ("", "", "")
            self._client = httpx.AsyncClient(
                base_url=self.url,
                auth=httpx.BasicAuth(user, password) if auth is not None else None,
                verify=self._tls if self._tls is not None else True,
                timeout=WITHIN,
                headers={"accept": JSON_TYPE, "content-type": JSON_TYPE},
                trust_env=False,
            )
        where = f"the schema registry at {self.url}"
        try:
            async with self._client.stream(method, path, json=body) as answer:
                raw = b""
                async for chunk in answer.aiter_bytes():
                    raw += chunk
                    if len(raw) > LARGEST:
                        return 200, {"schemaType": "larger than 1 MiB"}
                status = answer.status_code
        except (httpx.HTTPError, OSError) as error:
            raise RetryLater(f"{where} does not answer: {str(error) or type(error).__name__}") from error
        if status in (401, 403):
            raise RetryLater(f"{where} refuses us ({status}); check MILLSTREAM_SCHEMA_REGISTRY_AUTH")
        if status not in (200, 404, 409, 422):
            raise RetryLater(f"{where} answers {status}: {raw[:200].decode('utf-8', 'replace')}")
        try:
            found = read_json(raw)
        except Refusal as error:
            raise RetryLater(f"{where} answers {status} without JSON; is it the right address?") from error
        if not isinstance(found, dict):
            raise RetryLater(f"{where} answers {status} with no object; is it the right address?")
        if status == 404 and found.get("error_code") not in (40401, 40402, 40403):
            raise RetryLater(f"{where} answers 404 without a reason; is it the right address?")
        return status, found
