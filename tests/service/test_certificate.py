"""The metrics port speaks TLS where it has a certificate: real connections, slow ones, and certificates that change."""

import http.client
import shutil
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from tests.support.command_line import facestream
from tests.support.redis_servers import Authority
from worker.cli import run_command_line
from worker.config import MetricsConfig
from worker.errors import ConfigError
from worker.service.health import Health, HealthServer

TOKEN = "a-token-of-a-test-of-tls"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def config(authority: Authority, tmp_path: Path) -> MetricsConfig:
    place(authority, tmp_path, "localhost")
    return MetricsConfig(
        port=0, token=TOKEN, cert_file=tmp_path / "tls.crt", key_file=tmp_path / "tls.key", max_connections=8
    )


@pytest.fixture
def server(config: MetricsConfig) -> Iterator[HealthServer]:
    opened = HealthServer(config, Health(), CollectorRegistry())
    yield opened
    opened.close()


def place(authority: Authority, folder: Path, name: str) -> None:
    for made, target in zip(authority.issue(name, "127.0.0.1"), ("tls.crt", "tls.key"), strict=True):
        shutil.copyfile(made, folder / f"{target}.new")
        (folder / f"{target}.new").replace(folder / target)


def shown(server: HealthServer, authority: Authority) -> str:
    """For which name the certificate is that a new connection sees."""
    context = ssl.create_default_context(cafile=authority.ca_file)
    context.check_hostname = False
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain, context.wrap_socket(plain) as connection:
        found = connection.getpeercert()
    assert found is not None
    return str(found["subjectAltName"][0][1])


def answer(server: HealthServer, authority: Authority, path: str = "/healthz", **headers: str) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=authority.ca_file)
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, timeout=10, context=context)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def test_who_knows_the_authority_and_the_token_is_answered(server: HealthServer, authority: Authority) -> None:
    assert answer(server, authority) == (200, '{"alive": true}\n')
    assert answer(server, authority, "/status")[0] == 401
    assert answer(server, authority, "/status", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert answer(server, authority, "/metrics", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_nobody_is_answered_without_tls_or_by_an_old_one(
    server: HealthServer, authority: Authority, tmp_path: Path
) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"HTTP" not in connection.recv(1000)
    with pytest.raises(ssl.SSLCertVerificationError):
        answer(server, Authority(tmp_path, "another"))
    old = ssl.create_default_context(cafile=authority.ca_file)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", server.port), 10) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="localhost")
    assert answer(server, authority)[0] == 200


def test_clients_that_never_finish_their_handshake_keep_no_probe_out(
    server: HealthServer, authority: Authority
) -> None:
    silent = [socket.create_connection(("127.0.0.1", server.port), 10) for _ in range(50)]
    try:
        for connection in silent[::2]:
            connection.sendall(b"\x16\x03\x01")
        for _ in range(3):
            assert answer(server, authority)[0] == 200
    finally:
        for connection in silent:
            connection.close()


def test_a_new_certificate_in_the_same_files_is_shown_and_a_broken_one_is_not(
    server: HealthServer, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert shown(server, authority) == "localhost"
    place(authority, tmp_path, "renewed")
    assert shown(server, authority) == "renewed"
    (tmp_path / "tls.crt").write_text("nothing")
    assert shown(server, authority) == "renewed"
    assert "cannot be used: the old one stays" in caplog.text
    place(authority, tmp_path, "again")
    assert shown(server, authority) == "again"


def test_what_is_no_certificate_ends_the_start_with_its_files(authority: Authority, tmp_path: Path) -> None:
    certificate, key = authority.issue("one")
    _, other_key = authority.issue("two")
    (tmp_path / "text").write_text("nothing")
    for wrong in ((tmp_path / "none", key), (certificate, tmp_path / "none"), (tmp_path / "text", key),
                  (certificate, other_key), (certificate, certificate)):  # fmt: skip
        with pytest.raises(ConfigError, match=r"metrics.cert_file .* cannot be used: ") as error:
            HealthServer(MetricsConfig(port=0, cert_file=wrong[0], key_file=wrong[1]), Health(), CollectorRegistry())
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="give both, or neither"):
        MetricsConfig(cert_file=certificate)


def test_status_asks_by_tls(
    server: HealthServer, authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text(TOKEN)
    ask = ["status", "--worker", f"https://127.0.0.1:{server.port}", "--token-file", str(tmp_path / "token"), "--once"]
    assert run_command_line(ask) == 1
    assert "certificate verify failed" in capsys.readouterr().err.lower()
    assert run_command_line([*ask, "--ca-file", str(tmp_path / "none")]) == 2
    capsys.readouterr()
    ended = facestream(*ask, "--ca-file", authority.ca_file)
    # The worker of this test has no status to tell; it was asked by TLS and answered.
    assert "certificate" not in ended.stderr.lower(), ended
    assert "Connection" not in ended.stderr, ended
