"""Clips that tests write, and a real RTSP server to serve them or others."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

SYSTEM_PYTHON = "/usr/bin/python3"


def write_clip(
    path: Path,
    *,
    frames: int = 50,
    size: tuple[int, int] = (320, 240),
    fps: int = 25,
    codec: str = "libx264",
    gop: int = 10,
) -> Path:
    """A clip whose frame ``i`` is grey of brightness ``16 + 2 * i`` with a moving white square."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        stream.codec_context.time_base = Fraction(1, fps)
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "tune": "zerolatency"}
        for number in range(frames):
            image = np.full((size[1], size[0], 3), min(16 + 2 * number, 230), np.uint8)
            left = (number * 4) % (size[0] - 40)
            image[40:80, left : left + 40] = 255
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class _Server:
    """An RTSP server on a free port of the loopback interface; may be killed and started again."""

    script: Path

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._process: subprocess.Popen[str] | None = None

    def _start(self, *arguments: str) -> str:
        """The line that says that it runs."""
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, str(self.script), str(self.port), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        with suppress(PermissionError):
            # A camera is a machine of its own: it does not slow down with the one that reads it.
            os.setpriority(os.PRIO_PROCESS, self._process.pid, -20)
        line = self._process.stdout.readline().strip()
        if not line:
            _, problem = self._process.communicate(timeout=10)
            raise RuntimeError(f"the RTSP server did not start: {problem[-500:]}")
        return line

    def stop(self) -> None:
        """Kill it at once, frozen or not; its connections break."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class RtspServer(_Server):
    """Serves each client a clip from its start; may be frozen and thawed."""

    script = Path(__file__).with_name("rtsp_server.py")

    def __init__(self, mounts: dict[str, Path], *, login: str = "") -> None:
        super().__init__()
        self.mounts = mounts
        self.login = login

    def url(self, path: str, login: str = "") -> str:
        return f"rtsp://{login + '@' if login else ''}127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        self._start(self.login, *(f"{path}={clip}" for path, clip in self.mounts.items()))

    def freeze(self) -> None:
        """It keeps its connections but sends nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class LiveRtspServer(_Server):
    """Cameras that show the clip again and again, each ``apart_s`` behind the one before, whoever looks.

    ``began``: the Unix time at which each began.
    """

    script = Path(__file__).with_name("live_rtsp_server.py")

    def __init__(self, paths: Sequence[str], clip: Path, *, apart_s: float) -> None:
        super().__init__()
        self._arguments = [str(clip), str(apart_s), *paths]
        self.began: list[float] = []

    def url(self, path: str) -> str:
        return f"rtsp://127.0.0.1:{self.port}{path}"

    def start(self) -> None:
        self.began = [float(began) for began in self._start(*self._arguments).split()]


def require_rtsp() -> None:
    """Skip the test where no RTSP server can be run."""
    if shutil.which(SYSTEM_PYTHON) is None:
        pytest.skip(f"no {SYSTEM_PYTHON} to run an RTSP server with")
    check = (
        "import gi\n"
        "gi.require_version('GstRtspServer', '1.0')\n"
        "from gi.repository import Gst, GstRtspServer\n"
        "Gst.init(None)\n"
        "assert all(Gst.ElementFactory.find(name) for name in ('qtdemux', 'h264parse', 'rtph264pay', 'appsrc'))"
    )
    found = subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True, text=True, timeout=30, check=False)
    if found.returncode:
        pytest.skip(
            "no GStreamer RTSP server: install gir1.2-gst-rtsp-server-1.0, python3-gi, gstreamer1.0-plugins-good "
            f"and gstreamer1.0-plugins-bad ({found.stderr.strip().splitlines()[-1]})"
        )


@contextmanager
def camera_with_login(folder: Path, login: str) -> Iterator[RtspServer]:
    """A running server whose ``/cam`` asks for ``login`` (user:password); skips the test where none can be run."""
    require_rtsp()
    server = RtspServer({"/cam": write_clip(folder / "cam.mp4")}, login=login)
    server.start()
    try:
        yield server
    finally:
        server.stop()
