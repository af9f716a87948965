"""An API server whose certificate the trainer does not trust: no server that is away, and said so."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from millstream.errors import RetryLater
from millstream.testing.certificates import Authority
from millstream_trainer.adapters.kubernetes_api import KubernetesApi

from .cluster import write_kubeconfig
from .kube_server import KubeServer


@contextmanager
def asked(folder: Path, authority: Authority, trusted: Authority, host: str = "127.0.0.1") -> Iterator[KubernetesApi]:
    """Of a server with a certificate of `authority` for `host`, by who trusts `trusted`."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.certificate("api-server", host=host))
    server = KubeServer("training", tls)
    reached = {"certificate-authority": str(trusted.ca)}
    api = KubernetesApi("training", write_kubeconfig(folder / "kubeconfig", server.url, **reached))
    try:
        yield api
    finally:
        api.disconnect()
        server.stop()


def test_the_authority_of_another_cluster_is_named_with_its_file(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    with (
        asked(tmp_path, ours, theirs) as api,
        pytest.raises(
            RetryLater,
            match=r"answers, and its certificate is not trusted \(.*local issuer certificate\): "
            r"certificate-authority of .*/kubeconfig has to be the authority of this cluster$",
        ),
    ):
        api.job("it")


def test_a_certificate_for_another_address_says_so(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    with asked(tmp_path, ours, ours, host="127.0.0.9") as api, pytest.raises(RetryLater, match="IP address mismatch"):
        api.job("it")


def test_the_right_one_is_believed_and_a_server_that_is_gone_is_away(tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    with asked(tmp_path, ours, ours) as api:
        assert api.job("it") is None
    gone = KubernetesApi("training", tmp_path / "kubeconfig")
    with pytest.raises(RetryLater, match="is away"):
        gone.job("it")
    gone.disconnect()
