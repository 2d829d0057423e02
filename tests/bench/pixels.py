"""How many bytes of pixels a frame moves, from the decoder to the picture that is searched.

    python -m tests.bench.pixels CLIP [--rotate 90] [--cameras 4] [--busy 0.1] [--seconds 10]

The clip is played by so many cameras; a pipeline that is ``busy`` for so many seconds with each batch takes their
frames. Each byte counts that is read, and each that is written. "Before" is by the same frames: a picture was converted
in the pipeline's thread, one after the other; one that had to be turned was converted for every frame that came to the
buffer.
"""

import argparse
import statistics
import threading
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

from av.video.frame import VideoFrame

from worker.config import CameraConfig, Config
from worker.observer import Observer
from worker.types import Image, Planes
from worker.video import buffers, reader
from worker.video.cameras import Cameras
from worker.video.geometry import AS_IT_IS
from worker.video.planes import grey_of, rgb_of


class Counts(Observer):
    """Frames, and bytes by what moves them; conversions by their thread."""

    def __init__(self) -> None:
        self.counted: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.threads: Counter[str] = Counter()
        self.times_s: list[tuple[float, float]] = []
        self._lock = threading.Lock()

    def frame_read(self, camera_id: str) -> None:
        with self._lock:
            self.counted["read"] += 1

    def buffered(self, planes: Planes) -> Image:
        """In place of :func:`worker.video.planes.grey_of`, which is asked for each frame that comes to the buffer."""
        rgb = 3 * planes.width * planes.height
        with self._lock:
            self.counted["buffered"] += 1
            self.bytes["the decoder writes planes"] += planes.nbytes
            if planes.turn != AS_IT_IS:
                # RGB made, read and written to turn it; the same with grey.
                self.bytes["before: converted and turned in the camera's thread"] += (
                    planes.nbytes + 3 * rgb + 2 * rgb // 3
                )
        return grey_of(planes)

    def converted(self, planes: Planes) -> Image:
        """In place of :func:`worker.video.planes.rgb_of`."""
        begun_s = time.perf_counter()
        image = rgb_of(planes)
        now_s = time.perf_counter()
        assert isinstance(planes.origin, VideoFrame)
        planes.origin.to_ndarray(format="rgb24")
        before_s = time.perf_counter() - now_s
        with self._lock:
            self.counted["looked at"] += 1
            self.threads[threading.current_thread().name.split("_")[0]] += 1
            self.times_s.append((before_s, now_s - begun_s))
            moved = planes.nbytes + image.nbytes
            if planes.turn == AS_IT_IS:
                self.bytes["before: converted in the pipeline's thread"] += moved
                self.bytes["now: converted in threads of its own"] += moved
            else:
                self.bytes["now: converted and turned in threads of its own"] += moved + 2 * image.nbytes
        return image


def main() -> None:
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("clip", type=Path)
    parser.add_argument("--rotate", type=int, default=0)
    parser.add_argument("--cameras", type=int, default=4)
    parser.add_argument("--busy", type=float, default=0.1)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    counts = Counts()
    cameras = Cameras(Config(worker_id="pixels"), counts)
    with patch.object(buffers, "rgb_of", counts.converted), patch.object(reader, "grey_of", counts.buffered):
        for number in range(given.cameras):
            fields = {"id": f"c{number}", "source": str(given.clip), "policy": "newest", "rotate": given.rotate}
            cameras.start(CameraConfig.model_validate(fields))
        ends_s = time.monotonic() + given.seconds
        while time.monotonic() < ends_s and (batch := cameras.next_batch(1.0)) is not None:
            time.sleep(given.busy if batch else 0.0)
        cameras.close()
    print(dict(counts.counted), "conversions by thread:", dict(counts.threads))  # noqa: T201
    before_ms, now_ms = (1000 * statistics.median(times_s) for times_s in zip(*counts.times_s, strict=True))
    print(f"a conversion takes {now_ms:.2f} ms with turning, one by PyAV's own way {before_ms:.2f} ms without")  # noqa: T201
    for what, moved in sorted(counts.bytes.items()):
        print(f"{moved / max(1, counts.counted['read']) / 1e6:8.2f} MB a frame read  {what}")  # noqa: T201


if __name__ == "__main__":
    main()
