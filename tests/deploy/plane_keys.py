"""Certificates of a control plane that lives as long as a test run: two authorities, and who they vouch for."""

from __future__ import annotations

import base64
import ipaddress
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from millstream.testing.ports import HOST

VALID = timedelta(days=1)
"""No run lasts longer, and nobody can use what one left behind."""


def _private(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


class Authority:
    """Signs certificates into a folder: NAME.crt and NAME.key, fit for clients and servers."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"millstream-{name}")])
        signed = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate = _write(folder / f"{name}.crt", signed.public_bytes(serialization.Encoding.PEM))

    def vouch(self, name: str, user: str, *groups: str, hosts: tuple[str, ...] = ()) -> tuple[Path, Path]:
        """Files of the certificate and of the key of `user` in `groups`, as a server also at loopback and `hosts` (names or
        addresses)."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        subject.append(x509.NameAttribute(NameOID.COMMON_NAME, user))
        served = [_named(host) for host in ("localhost", HOST, *hosts)]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        signed = (
            self._builder(x509.Name(subject), key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(served), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        certificate = _write(self._folder / f"{name}.crt", signed.public_bytes(serialization.Encoding.PEM))
        return certificate, _write(self._folder / f"{name}.key", _private(key))

    def kubeconfig(self, server: str, name: str, user: str, *groups: str) -> Path:
        """How `user` in `groups` reaches the API server at the address `server`."""
        certificate, key = self.vouch(name, user, *groups)
        said = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "plane",
            "contexts": [{"name": "plane", "context": {"cluster": "plane", "user": name}}],
            "clusters": [
                {"name": "plane", "cluster": {"server": server, "certificate-authority-data": text(self.certificate)}}
            ],
            "users": [
                {"name": name, "user": {"client-certificate-data": text(certificate), "client-key-data": text(key)}}
            ],
        }
        return _write(self._folder / f"{name}.kubeconfig", json.dumps(said).encode())

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + VALID)
        )


def _named(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def text(file: Path) -> str:
    """As Kubernetes takes files."""
    return base64.b64encode(file.read_bytes()).decode()


def account_key(folder: Path) -> tuple[Path, Path]:
    """The key that signs the tokens of service accounts: private and public file."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _write(folder / "accounts.key", _private(key)), _write(folder / "accounts.pub", public)
