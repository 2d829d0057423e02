"""A real RTSP server with clips that the tests write themselves."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ground_truth import GroundTruth, make_ground_truth_clip
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


@pytest.fixture
def one_visit(test_data: Path, tmp_path: Path) -> GroundTruth:
    """A clip in which one person, who can be enrolled, walks by for eight seconds."""
    return make_ground_truth_clip(
        test_data / "lfw_dev", tmp_path, enrolled=1, strangers=0, seed=2, face_px=(110.0, 130.0), visit_s=(8.0, 8.0)
    )


@pytest.fixture
def visited_camera(one_visit: GroundTruth) -> Iterator[str]:
    """The address of a camera that shows that visit."""
    require_rtsp()
    server = RtspServer({"/door": one_visit.clip})
    server.start()
    yield server.url("/door")
    server.stop()
