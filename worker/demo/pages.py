"""The demo goes on in the console: a camera before which people walk by again and again, and pages that show them."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import cv2
from pydantic import SecretStr

from worker.api.parts import Parts
from worker.api.server import serve
from worker.config import CameraConfig, Config, load_config
from worker.console.app import make_console
from worker.console.entry import one_time_path
from worker.demo.stranger import make_stranger_clip
from worker.errors import FacestreamError
from worker.files import scratch_folder
from worker.fleet.registry import CameraRegistry
from worker.redis.client import connect
from worker.redis.embedded import embedded_redis
from worker.service.service import Service, Stopped
from worker.video.clips import open_clip

CAMERA_ID: Final = "lobby"
_PICTURES_A_S: Final = 10
_SIZE: Final = (640, 360)
_EMPTY_S: Final = 4.0
"""How long nobody is in the room before the same people come again."""
_FIRST_SIGHTING_S: Final = 120.0


def show_pages(gallery: Path, output: Path, say: Callable[[str], None]) -> None:
    """Serves the console on loopback, beside a worker that watches a camera, until Ctrl-C or SIGTERM.

    ``gallery`` is that of the demo, whose person comes by as well as a stranger. The clip of both goes to ``output``;
    what was seen is forgotten at the end.

    Raises:
        FacestreamError: the worker cannot start, or has seen nobody.
    """
    clip = make_stranger_clip(output)
    with (
        scratch_folder() as scratch,
        embedded_redis() as redis_url,
        camera(clip) as source,
    ):
        config = load_config(
            None,
            {
                "fleet": {"enabled": True},  # so that the console sees the camera, and others can be added there
                "gallery": str(gallery),
                "state_dir": str(scratch / "state"),
                "redis": {"url": redis_url},
                "metrics": {"host": "127.0.0.1", "port": 0},
                "recognition": {"linger_s": 2.0},
                "evidence": {"store": str(scratch / "pictures")},
                "console": {"host": "127.0.0.1", "port": 0},
            },
        )
        CameraRegistry(connect(config.redis), config.fleet).add(CameraConfig(id=CAMERA_ID, source=SecretStr(source)))
        with _worker(config) as at_work:
            _serve(config, at_work, say)


def _serve(config: Config, at_work: "Future[Stopped]", say: Callable[[str], None]) -> None:
    parts = Parts(config)
    app = make_console(parts)
    path = one_time_path(app, "demo", to="/unknown")
    say("Somebody whom nobody has enrolled walks past a camera ...")
    _wait_for_stranger(parts, at_work)

    def started(address: str) -> None:
        say("")
        say(f"Who was that? Open this link, which works once, and say: {address}{path}")
        say("They come by again every few seconds. Ctrl-C ends the demo.")

    serve(app, config.console, started)


def _wait_for_stranger(parts: Parts, at_work: "Future[Stopped]") -> None:
    deadline_s = time.monotonic() + _FIRST_SIGHTING_S
    while True:
        with parts.history() as history:
            if history.seen_unknown():
                return
        if at_work.done():
            at_work.result()
            raise FacestreamError("the demo's worker has ended: look at its log above")
        if time.monotonic() > deadline_s:
            raise FacestreamError(
                f"the demo's worker has seen nobody for {_FIRST_SIGHTING_S:.0f} s: is this machine very busy?"
            )
        time.sleep(0.2)


@contextmanager
def _worker(config: Config) -> "Iterator[Future[Stopped]]":
    """A worker in a thread, for the block."""
    service = Service(config)
    with ThreadPoolExecutor(1, "worker") as thread:
        at_work = thread.submit(service.run)
        try:
            yield at_work
        finally:
            service.stop()


@contextmanager
def camera(clip: Path) -> Iterator[str]:
    """The address of a camera that shows ``clip`` again and again, as JPEGs over HTTP."""
    with open_clip(clip) as frames:
        step = max(1, round(float(frames.fps) / _PICTURES_A_S))
        pictures = [
            cv2.imencode(".jpg", cv2.resize(frame[:, :, ::-1], _SIZE, interpolation=cv2.INTER_AREA))[1].tobytes()
            for number, frame in enumerate(frames)
            if number % step == 0
        ]
    pictures += [pictures[-1]] * round(_EMPTY_S * _PICTURES_A_S)
    over = threading.Event()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
            self.end_headers()
            with suppress(OSError):  # the worker has gone
                while True:
                    for picture in pictures:
                        if over.wait(1 / _PICTURES_A_S):
                            return
                        head = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                        self.wfile.write(head.encode() + picture + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            over.set()
            server.shutdown()
