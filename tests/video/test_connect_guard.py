"""An RTSP server cannot lead a worker to another host: the other host gets no connection at all."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from worker.config import CameraConfig, DecodingConfig
from worker.errors import SourceError
from worker.hosts import HostPolicy
from worker.observer import Observer
from worker.video.addresses import parse_address
from worker.video.child_video import Decoders

pytestmark = pytest.mark.timeout(180)


class Listener(socketserver.ThreadingTCPServer):
    """Counts connections, at another address than the camera's; answers each RTSP request with ``answer``."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, address: str, answer: str) -> None:
        self.connections = 0
        listener = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                listener.connections += 1
                while first := self.rfile.readline().strip():
                    headers = iter(lambda: self.rfile.readline().decode("latin-1").strip(), "")
                    number = next((line.split(":")[1] for line in headers if line.lower().startswith("cseq")), "1")
                    if b"OPTIONS" in first:
                        self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq:{number}\r\nPublic: DESCRIBE\r\n\r\n".encode())
                    else:
                        self.wfile.write(answer.format(number=number).encode())

        super().__init__((address, 0), Handler)
        self.port = self.server_address[1]


@contextmanager
def listening(address: str, answer: str) -> Iterator[Listener]:
    try:
        server = Listener(address, answer)
    except OSError:
        pytest.skip(f"{address} is no address of this machine")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def read_one(url: str, policy: HostPolicy) -> None:
    camera = CameraConfig(id="door", source=url, open_timeout_s=20, read_timeout_s=20)
    decoders = Decoders(DecodingConfig(), policy)
    try:
        video = decoders.open(parse_address(url), camera, Observer())
        try:
            next(picture for picture in video.pictures(lambda: True) if picture is not None)
        finally:
            video.close()
    finally:
        decoders.close()


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect"])
def test_a_redirect_reaches_no_other_host_unless_that_is_allowed(status: str) -> None:
    with listening("127.0.0.2", "RTSP/1.0 404 Not Found\r\nCSeq:{number}\r\n\r\n") as other:
        away = f"RTSP/1.0 {status}\r\nCSeq:{{number}}\r\nLocation: rtsp://127.0.0.2:{other.port}/x\r\n\r\n"
        with listening("127.0.0.1", away) as camera:
            url = f"rtsp://127.0.0.1:{camera.port}/x"
            with pytest.raises(SourceError, match=r"127\.0\.0\.2.*network\.allowed_hosts"):
                read_one(url, HostPolicy())
            assert camera.connections > 0
            assert other.connections == 0
            with pytest.raises(SourceError, match="404"):
                read_one(url, HostPolicy(allowed=("127.0.0.2",)))
            assert other.connections > 0, "the test can see a connection"
