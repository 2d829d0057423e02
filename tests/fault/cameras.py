"""Cameras that show known people at known times, to whoever looks and whenever."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from tests.ground_truth import make_ground_truth_clip
from tests.rtsp import RtspServer
from worker.clips import repeat_clip

SIZE: Final = (640, 360)
_PATIENCE_S: Final = 120
EVERY: Final = 3
"""Of the footage so many frames are one: a third of the work, and as good a proof."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A person in front of a camera, in Unix time."""

    camera_id: str
    name: str
    start: float
    end: float


class Cameras:
    """Live cameras ``camera-0`` and so on, which all show the same clip again and again, each a little later.

    A viewer of the tests' own keeps each of them playing, so that the clip goes on while no worker looks.
    """

    def __init__(self, folder: Path, lfw_folder: Path, count: int, seconds: float, *, people: int = 6) -> None:
        # With this seed everybody is known by the enrolled photo: what is missed was lost by what the test broke.
        self.truth = make_ground_truth_clip(
            lfw_folder, folder, enrolled=people, strangers=0, seed=2, face_px=(150.0, 220.0), visit_s=(12.0, 15.0)
        )
        small = _shrink(self.truth.clip, folder / "small.mp4")
        self._repeated = folder / "long.mp4"
        self.fps = repeat_clip(small, self._repeated, seconds)
        self._length_s = _duration_s(small)
        self.ids = [f"camera-{number}" for number in range(count)]
        self._server = RtspServer({f"/{camera_id}": self._repeated for camera_id in self.ids}, live=True)
        self._viewers: list[_Viewer] = []

    def start(self) -> None:
        self._server.start()
        for camera_id in self.ids:
            self._viewers.append(_Viewer(self.url(camera_id)))
        for viewer in self._viewers:
            assert viewer.playing.wait(30), "a camera of the test does not play"

    def stop(self) -> None:
        for viewer in self._viewers:
            viewer.stop()
        self._server.stop()

    def url(self, camera_id: str) -> str:
        return self._server.url(f"/{camera_id}")

    def shown(self, since: float, until: float, *, steady: bool = True) -> Sequence[Shown]:
        """Who was in front of which camera wholly between the two times.

        ``steady``: the clip goes on at its own speed, as it does unless a client stands still and holds it up; then it
        is known by when the tests' own viewer was shown it.
        """
        assert not (lost := {viewer.problem for viewer in self._viewers} - {""}), f"a viewer of the tests: {lost}"
        found = []
        for camera_id, viewer in zip(self.ids, self._viewers, strict=True):
            last_s = until - viewer.began if steady else viewer.shown_s[-1]
            repeats = int(last_s // self._length_s) + 1
            for visit in self.truth.visits:
                for begins_s in (repeat * self._length_s + visit.start_s for repeat in range(repeats)):
                    ends_s = begins_s + visit.end_s - visit.start_s
                    if ends_s <= last_s:
                        times = viewer.when(begins_s, steady), viewer.when(ends_s, steady)
                        found.append(Shown(camera_id, visit.name, *times))
        return [shown for shown in found if shown.start >= since and shown.end <= until]


class _Viewer:
    """Takes packets and decodes none; remembers when each was shown: whoever stands still holds up the others."""

    def __init__(self, url: str) -> None:
        self.playing = threading.Event()
        self.problem = ""
        self.shown_s: list[float] = []
        self._at: list[float] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._view, args=(url,), daemon=True)
        self._thread.start()

    @property
    def began(self) -> float:
        """The Unix time at which the clip began."""
        return self._at[0] - self.shown_s[0]

    def when(self, clip_s: float, steady: bool) -> float:
        """The Unix time at which this second of the clip was shown."""
        if steady:
            return self.began + clip_s
        count = min(len(self.shown_s), len(self._at))  # the thread may be between the two
        return float(np.interp(clip_s, self.shown_s[:count], self._at[:count]))

    def stop(self) -> None:
        self._stopping = True

    def _view(self, url: str) -> None:
        try:
            self._take(url)
        except (OSError, ValueError) as problem:
            self.problem = f"{type(problem).__name__}: {problem}"
        else:
            self.problem = "" if self._stopping else "the stream ended"

    def _take(self, url: str) -> None:
        with av.open(url, options={"rtsp_transport": "tcp"}, timeout=_PATIENCE_S) as container:
            for packet in container.demux(video=0):
                if packet.pts is not None and packet.time_base is not None:
                    self._at.append(time.time())
                    self.shown_s.append(float(packet.pts * packet.time_base))
                    self.playing.set()
                if self._stopping:
                    return


def _shrink(clip: Path, target: Path) -> Path:
    """A second between key frames: whoever joins sees something soon."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as container:
        fps = Fraction(source.streams.video[0].average_rate or 25) / EVERY
        stream: Any = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        stream.codec_context.gop_size = round(fps)
        stream.codec_context.time_base = 1 / fps
        stream.options = {"preset": "veryfast", "tune": "zerolatency"}
        for number, frame in enumerate(source.decode(video=0)):
            if number % EVERY == 0:
                picture = frame.reformat(*SIZE, format="yuv420p")
                picture.pts, picture.time_base = number // EVERY, 1 / fps
                container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return target


def _duration_s(clip: Path) -> float:
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        return sum(1 for packet in container.demux(video) if packet.pts is not None) / float(video.average_rate or 0)
