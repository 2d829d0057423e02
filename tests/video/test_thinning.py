"""Pictures that nobody looks at are not decoded, where no other picture depends on them."""

from pathlib import Path

import av
import numpy as np
import pytest
from pydantic import SecretStr

from worker.config import CameraConfig
from worker.observer import Observer
from worker.types import Frame
from worker.video.buffers import FrameBuffer, RawFrame
from worker.video.reader import CameraReader


class Seen(Observer):
    def __init__(self) -> None:
        self.read = 0
        self.skipped = 0

    def frame_read(self, camera_id: str) -> None:
        self.read += 1

    def frame_skipped(self, camera_id: str, reason: str) -> None:
        self.skipped += 1


@pytest.fixture
def layered_clip(tmp_path: Path) -> Path:
    """40 frames at 25 a second, half of which no other depends on."""
    path = tmp_path / "layered.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.options = {"x264-params": "bframes=3:b-pyramid=normal:b-adapt=0:keyint=20:scenecut=0"}
        for number in range(40):
            image = np.full((120, 160, 3), 40 + 4 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def read_at(clip: Path, look_interval_s: float) -> tuple[list[Frame | RawFrame], Seen]:
    seen = Seen()
    buffer = FrameBuffer("cam", "every", capacity=100, observer=seen)
    camera = CameraConfig(id="cam", source=SecretStr(str(clip)))
    reader = CameraReader(camera, buffer, seen, look_interval_s=look_interval_s)
    reader.start()
    assert reader.join(30)
    frames = []
    while (frame := buffer.take()) is not None:
        frames.append(frame)
    return frames, seen


def test_pictures_that_nobody_looks_at_are_not_decoded_and_counted_all_the_same(layered_clip: Path) -> None:
    every, all_seen = read_at(layered_clip, 0.0)
    some, seen = read_at(layered_clip, 0.08)
    assert [frame.sequence for frame in every] == list(range(40))
    assert len(some) <= 25
    assert seen.read == all_seen.read == 40
    assert seen.skipped == 40 - len(some)
    by_sequence = {frame.sequence: frame for frame in every}
    for frame in some:
        assert isinstance(frame, RawFrame)
        same = by_sequence[frame.sequence]
        assert isinstance(same, RawFrame)
        assert frame.pts_s == same.pts_s
        np.testing.assert_array_equal(frame.convert().image, same.convert().image)
    gaps = np.diff([frame.pts_s for frame in some])
    assert gaps.max() <= 0.08 + 1e-6
