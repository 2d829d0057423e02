"""A real RTSP server with clips that the tests write themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rtsp import RtspServer, require_rtsp, write_clip


@pytest.fixture(scope="session")
def _rtsp_clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    require_rtsp()
    folder = tmp_path_factory.mktemp("rtsp")
    return {
        "/clip": write_clip(folder / "clip.mp4", frames=75),
        "/wide": write_clip(folder / "wide.mp4", frames=75, size=(640, 360)),
    }


@pytest.fixture
def rtsp_server(_rtsp_clips: dict[str, Path]) -> Iterator[RtspServer]:
    """Serves ``/clip`` (320x240) and ``/wide`` (640x360), 3 s of 25 fps each, to anybody."""
    server = RtspServer(dict(_rtsp_clips))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def guarded_rtsp_server(_rtsp_clips: dict[str, Path]) -> Iterator[RtspServer]:
    """The same clips for the login ``admin:s3cret-word`` only."""
    server = RtspServer(dict(_rtsp_clips), login="admin:s3cret-word")
    server.start()
    yield server
    server.stop()
