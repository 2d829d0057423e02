"""Cameras that show known people at known times, to whoever looks and whenever."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Final

import av

from tests.support.ground_truth import make_ground_truth_clip
from tests.support.rtsp import LiveRtspServer

SIZE: Final = (640, 360)
EVERY: Final = 3
"""Of the footage so many frames are one: a third of the work, and as good a proof."""
APART_S: Final = 3.0
"""So much later than the camera before does each show the clip: not all of them have something new at once, unless a
test wants that."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A person in front of a camera, in Unix time."""

    camera_id: str
    name: str
    start: float
    end: float
    enrolled: bool = True


class Cameras:
    """Live cameras ``camera-0`` and so on, which all show the same clip again and again, each a little later."""

    def __init__(
        self,
        folder: Path,
        lfw_folder: Path,
        number: int,
        *,
        people: int = 6,
        strangers: int = 0,
        face_px: tuple[float, float] = (150.0, 220.0),
        visit_s: tuple[float, float] = (12.0, 15.0),
        size: tuple[int, int] = SIZE,
        every: int = EVERY,
        apart_s: float = APART_S,
        seed: int = 2,
    ) -> None:
        # With this seed everybody is known by the enrolled photo: what is missed was lost by what the test broke.
        self.truth = make_ground_truth_clip(
            lfw_folder, folder, enrolled=people, strangers=strangers, seed=seed, face_px=face_px, visit_s=visit_s
        )
        clip, self._length_s, self.fps = _shrink(self.truth.clip, folder / "small.mp4", size, every)
        self.ids = [f"camera-{index}" for index in range(number)]
        self._server = LiveRtspServer([f"/{camera_id}" for camera_id in self.ids], clip, apart_s=apart_s)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def url(self, camera_id: str) -> str:
        return self._server.url(f"/{camera_id}")

    def shown(self, since: float, until: float) -> Sequence[Shown]:
        """Who was in front of which camera wholly between the two times."""
        found = [
            Shown(camera_id, visit.name, begins + visit.start_s, begins + visit.end_s, visit.enrolled)
            for camera_id, began in zip(self.ids, self._server.began, strict=True)
            for begins in takewhile(lambda at: at < until, count(began, self._length_s))
            for visit in self.truth.visits
        ]
        return [shown for shown in found if shown.start >= since and shown.end <= until]


def _shrink(clip: Path, target: Path, size: tuple[int, int], every: int) -> tuple[Path, float, float]:
    """The clip to show, its length in seconds and its frames a second.

    A second between key frames: whoever joins sees something soon.
    """
    frames = 0
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        fps = Fraction(source.streams.video[0].average_rate or 25) / every
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.codec_context.gop_size = round(fps)
        stream.codec_context.time_base = 1 / fps
        stream.options = {"preset": "veryfast", "tune": "zerolatency"}
        for number, frame in enumerate(source.decode(video=0)):
            if number % every == 0:
                picture = frame.reformat(*size, format="yuv420p")
                picture.pts, picture.time_base = frames, 1 / fps
                container.mux(stream.encode(picture))
                frames += 1
        container.mux(stream.encode(None))
    return target, frames / float(fps), float(fps)
