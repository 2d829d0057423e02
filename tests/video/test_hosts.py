"""Where a source leads to: only its own host, and those that are allowed, are ever connected to."""

import base64
import itertools
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from tests.support.memory import measured_python
from worker.config import CameraConfig
from worker.errors import SourceError
from worker.hosts import HostPolicy, HostRefusedError
from worker.observer import Observer
from worker.video.addresses import parse_address
from worker.video.decoder import open_video

OTHER = "localhost"
"""Another name than that of the cameras, which are at 127.0.0.1."""
EVERYWHERE = HostPolicy(allowed=(OTHER,))


class Server(socketserver.ThreadingTCPServer):
    """Counts its requests; ``answer`` gets each request's first line and its headers, and where to write to."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, answer: Callable[[str, dict[str, str], Any], None]) -> None:
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while first := self.rfile.readline().decode("latin-1").strip():
                    lines = iter(lambda: self.rfile.readline().decode("latin-1").strip(), "")
                    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in lines)}
                    server.paths.append(first.split(" ")[1])
                    server.headers.append(headers)
                    answer(first, headers, self.wfile)
                    if not first.endswith("RTSP/1.0"):
                        return

        super().__init__(("127.0.0.1", 0), Handler)
        self.port = self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are part of the tests."""


@contextmanager
def serving(answer: Callable[[str, dict[str, str], Any], None]) -> Iterator[Server]:
    with Server(answer) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield server
        server.shutdown()


def reply(out: Any, status: str, content: bytes = b"", **headers: object) -> None:
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    out.write("\r\n".join([*lines, f"Content-Length: {len(content)}", "", ""]).encode() + content)


def frames(url: str, policy: HostPolicy | None = None, **settings: object) -> int:
    camera = CameraConfig.model_validate(
        {"id": "door", "source": url, "open_timeout_s": 5, "read_timeout_s": 5} | settings
    )
    opened = open_video(parse_address(url), camera, Observer(), policy)
    try:
        return sum(picture is not None for picture in opened.pictures(lambda: True))
    finally:
        opened.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", movflags="faststart")


def write(path: Path, container: str | None = None, **options: str) -> Path:
    with av.open(str(path), "w", format=container, options=options) as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(25):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * number, np.uint8))))
        file.mux(stream.encode())
    return path


def test_a_redirect_on_the_own_host_is_followed_with_the_login(clip: Path) -> None:
    def answer(first: str, headers: dict[str, str], out: Any) -> None:
        if "/old" in first:
            reply(out, "302 Found", Location="/new.mp4")
        elif "authorization" not in headers:
            reply(out, "401 Unauthorized", WWW_Authenticate='Basic realm="camera"')
        else:
            reply(out, "200 OK", clip.read_bytes())

    with serving(answer) as server:
        assert frames(f"http://admin:pass%20word@127.0.0.1:{server.port}/old") == 25
        assert server.headers[-1]["authorization"] == "Basic " + base64.b64encode(b"admin:pass word").decode()


def test_digest_is_answered(clip: Path) -> None:
    def answer(first: str, headers: dict[str, str], out: Any) -> None:
        if headers.get("authorization", "").startswith("Digest "):
            reply(out, "200 OK", clip.read_bytes())
        else:
            reply(out, "401 Unauthorized", WWW_Authenticate='Digest realm="camera", nonce="abc", qop="auth"')

    with serving(answer) as server:
        assert frames(f"http://admin:secret@127.0.0.1:{server.port}/clip.mp4") == 25
        said = server.headers[-1]["authorization"]
        assert 'username="admin"' in said
        assert 'uri="/clip.mp4"' in said
        assert "secret" not in said


def test_a_redirect_to_another_host_is_refused_unless_allowed(clip: Path) -> None:
    with serving(lambda _first, _headers, out: reply(out, "200 OK", clip.read_bytes())) as other:
        there = f"http://{OTHER}:{other.port}/clip.mp4"
        with serving(lambda _first, _headers, out: reply(out, "302 Found", Location=there)) as camera:
            url = f"http://admin:secret@127.0.0.1:{camera.port}/clip.mp4"
            with pytest.raises(SourceError, match=r"localhost is not the source's own host.*network\.allowed_hosts"):
                frames(url)
            assert other.paths == []
            assert frames(url, EVERYWHERE) == 25
            assert all("authorization" not in headers for headers in other.headers)


def test_a_circle_of_redirects_is_left_after_a_few(clip: Path) -> None:
    with serving(lambda _first, _headers, out: reply(out, "302 Found", Location="/again")) as camera:
        with pytest.raises(SourceError, match="more than 5 times"):
            frames(f"http://127.0.0.1:{camera.port}/clip.mp4")
        assert len(camera.paths) <= 6


@pytest.mark.parametrize("target", ["file:///etc/hostname", "rtsp://127.0.0.1/x", "data:text/plain,x", "//", "http://"])
def test_a_redirect_to_something_else_than_a_web_address(target: str) -> None:
    with (
        serving(lambda _first, _headers, out: reply(out, "302 Found", Location=target)) as camera,
        pytest.raises(SourceError),
    ):
        frames(f"http://127.0.0.1:{camera.port}/x", EVERYWHERE)


def playlist(segments: list[str], key: str = "") -> bytes:
    lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", "#EXT-X-MEDIA-SEQUENCE:0"]
    lines += [f'#EXT-X-KEY:METHOD=AES-128,URI="{key}",IV=0x{"00" * 16}'] if key else []
    lines += itertools.chain.from_iterable(("#EXTINF:1.0,", segment) for segment in segments)
    return "\n".join([*lines, "#EXT-X-ENDLIST", ""]).encode()


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write(tmp_path_factory.mktemp("segment") / "part.ts", "mpegts").read_bytes()


@pytest.mark.parametrize("path", ["/list.m3u8", "/live"])
def test_a_playlist_is_read_from_its_own_host(segment: bytes, path: str) -> None:
    def answer(first: str, headers: dict[str, str], out: Any) -> None:
        if "part" in first:
            reply(out, "200 OK", segment)
        else:
            reply(out, "200 OK", playlist(["part.ts"]), Content_Type="application/vnd.apple.mpegurl")

    with serving(answer) as camera:
        assert frames(f"http://127.0.0.1:{camera.port}{path}") == 25


def test_encrypted_segments_are_read(segment: bytes) -> None:
    key = bytes(range(16))
    padder = padding.PKCS7(128).padder()
    encryptor = Cipher(algorithms.AES(key), modes.CBC(bytes(16))).encryptor()
    sealed = encryptor.update(padder.update(segment) + padder.finalize()) + encryptor.finalize()

    def answer(first: str, headers: dict[str, str], out: Any) -> None:
        content = key if "key" in first else sealed if "part" in first else playlist(["part.ts"], "/the.key")
        reply(out, "200 OK", content)

    with serving(answer) as camera:
        assert frames(f"http://127.0.0.1:{camera.port}/list.m3u8") == 25


@pytest.mark.parametrize("what", ["segment", "key", "redirected segment"])
def test_a_playlist_cannot_lead_to_another_host(segment: bytes, what: str) -> None:
    with serving(lambda _first, _headers, out: reply(out, "200 OK", segment)) as other:
        there = f"http://{OTHER}:{other.port}/part.ts"

        def answer(first: str, headers: dict[str, str], out: Any) -> None:
            if "part" in first:
                reply(out, "302 Found", Location=there)
            elif what == "key":
                reply(out, "200 OK", playlist(["/part.ts"], there))
            else:
                reply(out, "200 OK", playlist([there if what == "segment" else "/part.ts"]))

        with serving(answer) as camera:
            with pytest.raises(SourceError, match="localhost is not the source's own host"):
                frames(f"http://127.0.0.1:{camera.port}/list.m3u8")
            assert other.paths == []


def test_a_playlist_cannot_name_files(tmp_path: Path, segment: bytes) -> None:
    (tmp_path / "part.ts").write_bytes(segment)
    content = playlist([f"file://{tmp_path}/part.ts"])
    with (
        serving(lambda _first, _headers, out: reply(out, "200 OK", content)) as camera,
        pytest.raises(SourceError, match=r"leads to file:.*which is not followed"),
    ):
        frames(f"http://127.0.0.1:{camera.port}/list.m3u8", EVERYWHERE)


def test_ranges_are_asked_for_where_a_file_has_its_index_at_the_end(tmp_path: Path) -> None:
    content = write(tmp_path / "late.mp4").read_bytes()

    def answer(first: str, headers: dict[str, str], out: Any) -> None:
        begin = int(headers["range"].removeprefix("bytes=").partition("-")[0])
        reply(out, "206 Partial Content", content[begin:], Accept_Ranges="bytes")

    with serving(answer) as camera:
        assert frames(f"http://127.0.0.1:{camera.port}/late.mp4") == 25


ENDLESS = """
import sys, time
from worker.config import CameraConfig
from worker.errors import SourceError
from worker.observer import Observer
from worker.video.addresses import parse_address
from worker.video.decoder import open_video
camera = CameraConfig(id="door", source=sys.argv[1])
try:
    sum(1 for _ in open_video(parse_address(sys.argv[1]), camera, Observer()).pictures(lambda: True))
except SourceError as error:
    print(error)
"""


@pytest.mark.parametrize("path", ["/video.mjpg", "/list.m3u8", "/clip.mp4"])
def test_a_stream_without_end_takes_little_memory(path: str) -> None:
    beginning = {
        "/video.mjpg": b"--frame\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff",
        "/list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1.0,\n",
        "/clip.mp4": b"\0\0\0\x18ftypisom\0\0\0\0isomiso2\xff\xff\xff\xffmoov",
    }[path]

    def answer(first: str, headers: dict[str, str], out: Any) -> None:
        out.write(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n" + beginning)
        while True:
            out.write(b"x" * 65_536)

    with serving(answer) as camera:
        ended = measured_python(ENDLESS, f"http://127.0.0.1:{camera.port}{path}", timeout_s=40)
    assert "more than 32 MB came without a whole picture" in ended.output, ended
    assert ended.peak_mb < 300


def test_a_stream_that_drips_is_given_up_in_time() -> None:
    def answer(first: str, headers: dict[str, str], out: Any) -> None:
        out.write(b"HTTP/1.1 200 OK\r\n\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n\xff\xd8\xff")
        for _ in range(200):
            out.write(b"x")
            time.sleep(0.05)

    with serving(answer) as camera, pytest.raises(SourceError, match="no answer within the timeout"):
        frames(f"http://127.0.0.1:{camera.port}/video.mjpg", open_timeout_s=0.5, read_timeout_s=0.5)


def test_a_head_that_drips_is_given_up_in_time() -> None:
    def answer(first: str, headers: dict[str, str], out: Any) -> None:
        out.write(b"HTTP/1.1 200 OK\r\nX-Some: ")
        for _ in range(200):
            out.write(b"x")
            time.sleep(0.05)

    with serving(answer) as camera, pytest.raises(SourceError, match=r"no answer within 0\.5 s"):
        frames(f"http://127.0.0.1:{camera.port}/video.mjpg", open_timeout_s=0.5, read_timeout_s=0.5)


# RTSP


def test_an_rtsp_server_is_asked_by_ffmpeg_alone() -> None:
    """A camera may serve one client at a time: nothing else connects to it before, or beside."""

    def answer(_first: str, headers: dict[str, str], out: Any) -> None:
        out.write(f"RTSP/1.0 404 Not Found\r\nCSeq: {headers.get('cseq', '1')}\r\n\r\n".encode())

    with serving(answer) as camera:
        with pytest.raises(SourceError, match="cannot be opened"):
            frames(f"rtsp://127.0.0.1:{camera.port}/x")
        assert camera.paths
        assert {headers.get("user-agent", "")[:4] for headers in camera.headers} == {"Lavf"}


# The policy itself


@pytest.mark.parametrize(
    ("host", "policy", "reached"),
    [
        ("127.0.0.1", HostPolicy(), True),
        ("127.0.0.1", HostPolicy(refused=("loopback",)), False),
        ("::1", HostPolicy(refused=("loopback",)), False),
        ("::ffff:127.0.0.1", HostPolicy(refused=("loopback",)), False),
        ("127.0.0.1", HostPolicy(("127.0.0.0/8",), ("loopback",)), True),
        ("10.1.2.3", HostPolicy(), True),
        ("10.1.2.3", HostPolicy(refused=("private",)), False),
        ("192.168.1.1", HostPolicy(("192.168.1.1",), ("private",)), True),
        ("192.168.1.2", HostPolicy(("192.168.1.1",), ("private",)), False),
        ("fd00::1", HostPolicy(refused=("private",)), False),
        ("169.254.169.254", HostPolicy(), False),
        ("::ffff:169.254.169.254", HostPolicy(), False),
        ("2852039166", HostPolicy(), False),
        ("fe80::1", HostPolicy(), False),
        ("169.254.1.1", HostPolicy(refused=()), True),
        ("0.0.0.0", HostPolicy(refused=()), False),
        ("224.0.0.1", HostPolicy(), False),
        ("8.8.8.8", HostPolicy(refused=("private", "loopback", "link-local")), True),
    ],
)
def test_ranges_are_refused_whatever_way_an_address_is_written(host: str, policy: HostPolicy, reached: bool) -> None:
    try:
        found = policy.addresses(host, 80, own=host)
    except HostRefusedError:
        assert not reached
    except socket.gaierror:
        pytest.skip("this machine knows no such addresses")
    else:
        assert reached
        assert len(found) == 1


def test_a_name_of_the_own_host_is_compared_without_case_and_final_dot() -> None:
    assert HostPolicy().addresses("LOCALHOST", 80, own="localhost.")
    with pytest.raises(HostRefusedError):
        HostPolicy().addresses("127.0.0.1", 80, own="localhost")


def test_a_camera_in_a_refused_range_is_not_asked(clip: Path) -> None:
    with serving(lambda _first, _headers, out: reply(out, "200 OK", clip.read_bytes())) as camera:
        for scheme in ("http", "rtsp"):
            with pytest.raises(SourceError, match=r"127\.0\.0\.1.*refused \(loopback\)"):
                frames(f"{scheme}://127.0.0.1:{camera.port}/clip.mp4", HostPolicy(refused=("loopback",)))
        assert camera.paths == []
