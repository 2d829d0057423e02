"""Receivers of alerts, real ones: a web server that notes what is posted, and a mail server."""

import email
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from worker.events.consumer.webhook import verify

SECRET = "a secret of the test, long enough"


class Receiver:
    """Notes the JSON documents that are posted with a right signature. ``status`` is what it answers; while
    ``open`` is not set, it lets each request wait."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.begun = 0
        self.status = 200
        self.open = threading.Event()
        self.open.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.begun += 1
                receiver.open.wait(60)
                verify(SECRET.encode(), dict(self.headers), body)
                try:
                    self.send_response(receiver.status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                except OSError:
                    return
                if receiver.status == 200:
                    receiver.got.append(json.loads(body) | {"delivery": self.headers["Facestream-Event-Id"]})

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()


class MailServer:
    """Keeps the messages that it is given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self._controller = Controller(self, hostname="127.0.0.1", port=self.port)
        self._controller.start()
        self.address = f"mailto://127.0.0.1:{self.port}?from=door@example.org&to=guard@example.org&mode=insecure"

    async def handle_DATA(  # noqa: N802 - so aiosmtpd calls it
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        assert isinstance(envelope.content, bytes)
        self.messages.append(email.message_from_bytes(envelope.content))
        return "250 OK"

    def close(self) -> None:
        self._controller.stop()


@contextmanager
def mail_server() -> Iterator[MailServer]:
    """One that runs for the block."""
    server = MailServer()
    try:
        yield server
    finally:
        server.close()
