"""A recording through the worker's own pipeline, every frame of it, without Redis: to measure, not to report."""

from collections.abc import Callable
from pathlib import Path

from worker.config import Config
from worker.errors import SourceError
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.gallery.gallery import Gallery
from worker.recognition.pipeline import Pipeline, VerdictWatcher
from worker.types import Event
from worker.video.buffers import Batcher, FrameBuffer
from worker.video.reader import CameraReader

_WAIT_S = 1.0


def replay(
    config: Config,
    detector: FaceDetector,
    embedder: FaceEmbedder,
    gallery: Gallery,
    *,
    on_event: Callable[[Event], None] = lambda _event: None,
    on_verdict: VerdictWatcher | None = None,
    advance: Callable[[int], None] = lambda _frames: None,
) -> int:
    """Runs the recordings that ``config`` has as cameras to their ends; returns the number of frames.

    ``advance`` is told how many frames are done.

    Raises:
        SourceError: a source is missing, is no video, is live, or holds no frame that can be decoded.
    """
    buffers = [FrameBuffer.for_camera(camera, config.batching) for camera in config.cameras]
    readers = [CameraReader(camera, buffer) for camera, buffer in zip(config.cameras, buffers, strict=True)]
    if any(reader.live for reader in readers):
        raise SourceError("measuring needs a recording: record the camera to a file, and give that")
    pipeline = Pipeline(config, detector, embedder, gallery, on_verdict=on_verdict)
    batcher = Batcher(buffers, config.batching)
    frames = 0
    try:
        for reader in readers:
            reader.start()
        while (batch := batcher.next_batch(_WAIT_S)) is not None:
            for event in pipeline.process(batch) if batch else ():
                on_event(event)
            frames += len(batch)
            advance(len(batch))
        for event in pipeline.close():
            on_event(event)
    finally:
        for reader in readers:
            reader.stop()
        for reader in readers:
            reader.join(2.0)
    failed = next((reader.error for reader in readers if reader.error), None)
    if failed:
        raise failed
    if not frames:
        raise SourceError(f"no frame could be read from {_names(config)}")
    return frames


def frame_count(path: Path) -> int | None:
    """About how many frames a video file has, None where it does not say.

    Raises:
        SourceError: missing or no video.
    """
    from worker.config import CameraConfig
    from worker.observer import Observer
    from worker.video.addresses import parse_address
    from worker.video.decoder import open_video

    camera = CameraConfig.model_validate({"id": "recording", "source": str(path)})
    video = open_video(parse_address(str(path)), camera, Observer())
    try:
        return round(video.duration_s / video.frame_interval_s) if video.duration_s else None
    finally:
        video.close()


def _names(config: Config) -> str:
    return ", ".join(Path(camera.source.get_secret_value()).name for camera in config.cameras)
