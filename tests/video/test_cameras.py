"""Cameras that are read at the same time."""

from pathlib import Path

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
