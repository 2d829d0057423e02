"""Cameras that are read at the same time."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.rtsp import write_clip
from worker.config import CameraConfig, Config
from worker.observer import Observer
from worker.video.cameras import Cameras


def test_a_recording_beside_a_camera_that_goes_on_is_through_once_with_its_last_frame(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", frames=30)
    cameras = Cameras(Config(worker_id="w"), Observer())
    cameras.start(CameraConfig.model_validate({"id": "clip", "source": str(clip), "policy": "every"}))
    cameras.start(CameraConfig.model_validate({"id": "gone", "source": "rtsp://127.0.0.1:9/x"}))
    try:
        frames, ended = 0, list[str]()
        while not ended:
            batch = cameras.next_batch(20)
            assert batch is not None
            frames += len(batch)
            ended = cameras.pop_ended()
        assert (ended, frames) == (["clip"], 30)
        assert cameras.pop_ended() == []
        assert cameras.states()["clip"][0] == "ended"
    finally:
        cameras.close()


def test_a_file_that_fails_is_through_as_well(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no video" * 1000)
    cameras = Cameras(Config(worker_id="w"), Observer())
    cameras.start(CameraConfig.model_validate({"id": "clip", "source": str(tmp_path / "clip.mp4")}))
    try:
        assert cameras.next_batch(20) is None
        assert cameras.pop_ended() == ["clip"]
    finally:
        assert len(cameras.close()) == 1


RTSP, HTTP, CLIP = ({"id": kind, "source": source} for kind, source in (
    ("door", "rtsp://127.0.0.1:9/x"), ("yard", "http://127.0.0.1:9/x"), ("clip", "clip.mp4"),
))  # fmt: skip


@pytest.mark.parametrize(
    ("processes", "has_seccomp", "cameras", "lasting", "told"),
    [
        ("off", True, [RTSP, HTTP, CLIP], False, "decoding.processes is off (cameras: door); set it to live, or"),
        ("off", True, [HTTP, CLIP], False, ""),
        ("off", True, [], True, "(cameras: each that comes)"),
        ("live", False, [RTSP], False, "(seccomp) (cameras: door); run on Linux"),
        ("live", True, [RTSP], True, ""),
    ],
)
def test_one_line_says_where_an_rtsp_server_can_lead_the_worker_anywhere(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    processes: str,
    has_seccomp: bool,
    cameras: list[dict[str, Any]],
    lasting: bool,
    told: str,
) -> None:
    monkeypatch.setattr("worker.video.cameras.can_guard", lambda: has_seccomp)
    config = Config.model_validate({"cameras": cameras, "decoding": {"processes": processes}})
    Cameras(config, Observer(), lasting=lasting).close()
    lines = [record.getMessage() for record in caplog.records if "network.allowed_hosts" in record.getMessage()]
    assert len(lines) == bool(told)
    assert all(told in line for line in lines)
