"""Servers whose answers have no end, come byte by byte, or unpack to far more than they are."""

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache

Behaviour = Callable[[socket.socket, threading.Event], None]


@dataclass
class Hostile:
    """A listening server and how many requests it has had."""

    port: int
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def endless_body(head: bytes) -> Behaviour:
    """``head``, and then bytes as fast as they are taken."""

    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(head + b"\r\n\r\n")
        while not over.is_set():
            connection.sendall(b"x" * 65_536)

    return answer


def dripping(begin: bytes, drop: bytes, every_s: float = 0.05) -> Behaviour:
    """``begin``, and then ``drop`` again and again: no single wait is long."""

    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(begin)
        while not over.wait(every_s):
            connection.sendall(drop)

    return answer


def bomb(head: bytes, encodings: int = 1) -> Behaviour:
    """A few bytes that unpack to a gigabyte, or with more ``encodings`` to as much as there is."""

    packed = _packed()
    for _ in range(encodings - 1):
        packed = gzip.compress(packed, 9)
    names = ", ".join(["gzip"] * encodings).encode()

    def answer(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(head + b"\r\nContent-Encoding: " + names)
        connection.sendall(b"\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed)
        over.wait(0.05)

    return answer


@cache
def _packed() -> bytes:
    return gzip.compress(b"\0" * (2**26), 9) * 16


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[Hostile]:
    """Answers every request by ``behaviour``."""
    over = threading.Event()
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        hostile = Hostile(server.getsockname()[1])

        def handle(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                hostile.requests.append(connection.recv(65_536))
                behaviour(connection, over)

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threads.append(threading.Thread(target=handle, args=(connection,), daemon=True))
                threads[-1].start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield hostile
        finally:
            over.set()
            server.shutdown(socket.SHUT_RDWR)
    accepting.join()
