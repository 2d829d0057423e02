"""A proxy before Redis that breaks connections where it hurts: in the middle of a reply."""

import contextlib
import random
import socket
import threading
from collections.abc import Iterator


class FaultProxy:
    """Passes everything on, until :attr:`cut_one_in` is set: then about one reply in so many is cut off halfway."""

    def __init__(self, port: int, seed: int = 0) -> None:
        self.cut_one_in = 0
        self.cuts = 0
        self._target = port
        self._chance = random.Random(seed)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                try:
                    redis = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    client.close()
                    continue
                threading.Thread(target=self._pass_on, args=(client, redis, False), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(redis, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, replies: bool) -> None:
        with contextlib.suppress(OSError), _closing(source, target):
            while data := source.recv(65_536):
                if replies and self.cut_one_in and self._chance.randrange(self.cut_one_in) == 0:
                    self.cuts += 1
                    target.sendall(data[: len(data) // 2])
                    return
                target.sendall(data)


@contextlib.contextmanager
def _closing(*sockets: socket.socket) -> Iterator[None]:
    try:
        yield
    finally:
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
