"""One port for probes, Prometheus and people: ``/healthz``, ``/readyz``, ``/metrics`` and ``/status``.

``/healthz`` says whether the process should go on (its threads beat); ``/readyz`` whether it does its work.
Both answer 200, or 503 with the reasons, as JSON. ``/status`` is what ``facestream status`` shows. Where there is a
token, a client without it learns from the probes whether, not why, and nothing else.
"""

import hmac
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from socketserver import TCPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from prometheus_client import CollectorRegistry

from worker.background import Heartbeats
from worker.config import MetricsConfig
from worker.errors import FacestreamError
from worker.hosts import host_name, is_address
from worker.logs import get_logger
from worker.redaction import redact
from worker.service.certificate import Certificate
from worker.service.metrics import CONTENT_TYPE, Exposition
from worker.service.preview import BOUNDARY, Preview

_log = get_logger(__name__)

_LONGEST_S: Final = 20.0
"""A connection is ended after this time, whatever it waits for."""
PATHS: Final = ("/healthz", "/readyz", "/metrics", "/status", "/preview/CAMERA")

Condition = Callable[[], str]
"""Why the worker is not ready, in a few words; empty when it is."""


class Health:
    """What keeps the worker alive and ready. Safe to use from any thread.

    Each thread that must live registers itself in ``heartbeats``.
    """

    def __init__(self, heartbeats: Heartbeats | None = None) -> None:
        self.heartbeats = Heartbeats() if heartbeats is None else heartbeats
        self._lock = threading.Lock()
        self._conditions: dict[str, str | Condition] = {}
        self._warnings: dict[str, Condition] = {}
        self._describe: Callable[[], dict[str, Any]] | None = None

    def condition(self, name: str, reason: str | Condition) -> None:
        """Readiness needs ``name``: ``reason`` says why it is not met, or is a function that says so; empty if met."""
        with self._lock:
            self._conditions[name] = reason

    def warn(self, name: str, reason: Condition) -> None:
        """What ``reason`` says does not keep the worker from being ready, but people should know it."""
        with self._lock:
            self._warnings[name] = reason

    def warnings(self) -> dict[str, str]:
        """What people should know, each with the reason."""
        with self._lock:
            warnings = dict(self._warnings)
        return {name: reason for name, condition in warnings.items() if (reason := _ask(condition))}

    def describe(self, describe: Callable[[], dict[str, Any]]) -> None:
        """What ``/status`` answers: JSON values that say what the worker does."""
        self._describe = describe

    def has_camera(self, camera_id: str) -> bool:
        """Whether the worker reads this camera now."""
        return any(camera["camera_id"] == camera_id for camera in self.status().get("cameras", []))

    def status(self) -> dict[str, Any]:
        """The answer of what :meth:`describe` was given; before that, what keeps the worker from being ready."""
        return self._describe() if self._describe else {"ready": False, "reasons": self.obstacles()}

    def failures(self) -> dict[str, str]:
        """The threads that do not beat, each with the reason."""
        return self.heartbeats.failures()

    def obstacles(self) -> dict[str, str]:
        """What keeps the worker from being ready, failures included, each with the reason."""
        with self._lock:
            conditions = dict(self._conditions)
        reasons = {name: _ask(condition) for name, condition in conditions.items()}
        return self.failures() | {name: reason for name, reason in reasons.items() if reason}


class HealthServer:
    """Serves ``health`` and ``registry`` from its own threads as soon as it is made.

    Raises:
        ConfigError: the token or the certificate cannot be read, or the token is too short.
        FacestreamError: the address is taken, or is not one of this machine.
    """

    def __init__(
        self, config: MetricsConfig, health: Health, registry: CollectorRegistry, preview: Preview | None = None
    ) -> None:
        token = config.read_token()
        certificate = Certificate(config.cert_file, config.key_file) if config.cert_file and config.key_file else None
        parts = {"health": health, "metrics": Exposition(registry), "preview": preview, "door": Door(config, token)}
        server = _IPv6Server if ":" in config.host else _Server
        try:
            self._server = server((config.host, config.port), type("Handler", (_Handler,), parts))
            self._server.most_connections = config.max_connections
            self._server.certificate = certificate
        except OSError as error:
            raise FacestreamError(
                f"metrics.port {config.port} on {config.host} cannot be opened ({error.strerror or error}); "
                "choose another metrics.port (0 takes a free one) or metrics.host"
            ) from None
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="health", daemon=True)
        self._thread.start()
        _log.info("metrics and health are served", host=config.host, port=self.port, tls=certificate is not None)
        if token is None and not is_loopback(config.host):
            _log.warning("everybody who reaches this port sees metrics and status: set metrics.token_file",
                         host=config.host, port=self.port)  # fmt: skip

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def open_port(
    config: MetricsConfig, health: Health, registry: CollectorRegistry, preview: Preview | None = None
) -> HealthServer | None:
    """The server on the port that ``config`` names; None where it is switched off.

    Raises:
        FacestreamError: see :class:`HealthServer`.
    """
    return HealthServer(config, health, registry, preview) if config.enabled else None


class Door:
    """Who may ask what."""

    def __init__(self, config: MetricsConfig, token: str | None) -> None:
        self._token = None if token is None else token.encode()
        names = {"localhost", config.host, socket.gethostname(), *config.allowed_hosts}
        self._names = frozenset(name.lower() for name in names)

    @property
    def open(self) -> bool:
        """Whether there is no token."""
        return self._token is None

    def has_token(self, headers: Message) -> bool:
        """Whether the request carries the token; the answer takes the same time for every wrong one."""
        given = str(headers.get("Authorization", "")).removeprefix("Bearer ").encode("utf-8", "replace")
        return self._token is not None and hmac.compare_digest(given, self._token)

    def knows_host(self, headers: Message) -> bool:
        """Whether the request was sent to a name of this worker.

        A page of another site can give its own name the address of this machine, and its script may then ask here.
        Such a name has a dot. A program that sends no name is no browser.
        """
        hosts = headers.get_all("Host", [])
        if not hosts:
            return True
        name = host_name(str(hosts[0]))
        return len(hosts) == 1 and (name in self._names or is_address(name) or ("." not in name and bool(name)))


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    return host == "localhost" or (is_address(host) and ip_address(host).is_loopback)


class _Server(ThreadingHTTPServer):
    """Each connection has its thread, and its time: slow ones must not keep probes out, nor pile up."""

    daemon_threads = True
    block_on_close = False
    most_connections = 32
    certificate: Certificate | None = None
    _open: dict[socket.socket, float]

    def get_request(self) -> tuple[Any, Any]:
        connection, address = super().get_request()
        if self.certificate is not None:
            # The client is heard in its own thread, so that a silent one keeps nobody waiting.
            connection = self.certificate.context().wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= self.most_connections:
                # The oldest that has not been waited for long enough: an honest one is done in milliseconds.
                _cut(min(self._open, key=self._open.__getitem__))
            self._open[request] = time.monotonic()
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.let_go(request)

    def let_go(self, request: socket.socket) -> None:
        """The connection has no time limit any more, or is closed."""
        with self._lock:
            self._open.pop(request, None)

    def service_actions(self) -> None:
        due_s = time.monotonic() - _LONGEST_S
        with self._lock:
            for request in [request for request, begun_s in self._open.items() if begun_s < due_s]:
                _cut(request)

    def server_activate(self) -> None:
        self._open, self._lock = {}, threading.Lock()
        super().server_activate()

    def server_bind(self) -> None:
        # HTTPServer would look up the host's name, which may take seconds where DNS is slow.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        _log.debug("a probe's connection broke", exc_info=True)


def _cut(connection: socket.socket) -> None:
    """Ends it for both sides; its thread wakes up and closes it."""
    with suppress(OSError):
        # Not by TLS, whose state belongs to the thread.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


class _IPv6Server(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    health: Health
    metrics: Exposition
    preview: Preview | None
    door: Door
    server: _Server
    timeout = 10
    server_version = "facestream"
    sys_version = ""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        trusted = self.door.has_token(self.headers)
        if path.startswith("/preview/"):  # it has a token of its own
            self._send_preview(path.removeprefix("/preview/"))
        elif not trusted and not self.door.knows_host(self.headers):
            self._send_json(
                HTTPStatus.MISDIRECTED_REQUEST, {"error": "not a name of this worker; see metrics.allowed_hosts"}
            )
        elif path == "/healthz":
            self._send_reasons("alive", self.health.failures(), told=trusted or self.door.open)
        elif path == "/readyz":
            reasons, warnings = self.health.obstacles(), self.health.warnings()
            self._send_reasons("ready", reasons, warnings, told=trusted or self.door.open)
        elif not trusted and not self.door.open:
            self._send_json(HTTPStatus.UNAUTHORIZED, {"error": "give the token: 'Authorization: Bearer TOKEN'"})
        elif path == "/metrics":
            self._send(HTTPStatus.OK, CONTENT_TYPE, self.metrics.encode())
        elif path == "/status":
            self._send_json(HTTPStatus.OK, self.health.status())
        else:
            self._send_json(HTTPStatus.NOT_FOUND, {"paths": PATHS})

    do_HEAD = do_GET  # noqa: N815 - the base class looks for this name

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it so
        # The address of a preview may hold the token.
        _log.debug(format, *(str(argument).partition("?")[0] for argument in args))

    def _send_preview(self, camera_id: str) -> None:
        if self.preview is None:
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "no preview: set preview.token or preview.token_file"})
            return
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        given = given or next(iter(parse_qs(urlsplit(self.path).query).get("token", [])), "")
        if not self.preview.allows(given):
            self._send_json(HTTPStatus.UNAUTHORIZED, {"error": "give the token: 'Authorization: Bearer TOKEN'"})
        elif not self.health.has_camera(camera_id):
            self._send_json(HTTPStatus.NOT_FOUND, {"error": "this worker reads no such camera"})
        elif self.preview.full:
            self._send_json(HTTPStatus.SERVICE_UNAVAILABLE, {"error": "too many look already"})
        else:
            self._send_pictures(self.preview, camera_id)

    def _send_pictures(self, preview: Preview, camera_id: str) -> None:
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={BOUNDARY}")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "HEAD":
            return
        # Who has the token may look for as long as they like; Preview limits how many do.
        self.server.let_go(self.request)
        with suppress(OSError):  # the viewer has gone
            for picture in preview.pictures(camera_id, lambda: self.health.has_camera(camera_id)):
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")

    def _send_reasons(
        self, name: str, reasons: dict[str, str], warnings: dict[str, str] | None = None, *, told: bool
    ) -> None:
        status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
        document: dict[str, Any] = {name: not reasons}
        if told:
            document |= {"reasons": reasons} | ({"warnings": warnings} if warnings else {})
        self._send_json(status, document)

    def _send_json(self, status: HTTPStatus, document: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(document).encode() + b"\n")

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _ask(condition: str | Condition) -> str:
    if isinstance(condition, str):
        return redact(condition)
    try:
        return redact(condition())
    except Exception as error:  # noqa: BLE001 - a check that fails is a reason not to be ready, whatever it raises
        return redact(f"the check failed: {type(error).__name__}: {error}")
