"""The main job on footage that is made on the spot: a clip, a photo, an embedded Redis, the worker, its events.

Everything is the code that users run: the worker is :class:`worker.service.service.Service`, people are enrolled by
:func:`worker.gallery.enrolment.enroll_photos`, and events are read by
:func:`worker.events.consumer.tail.read_events`.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from worker.config import DEFAULT_MODEL_ID, Config, cache_dir, load_config
from worker.demo.footage import Album, make_demo_clip
from worker.errors import FacestreamError, ModelError
from worker.events.consumer.tail import read_events
from worker.faces.detection import load_detector
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.files import writing
from worker.gallery.enrolment import enroll_photos
from worker.gallery.folder import FolderGallery
from worker.redis.client import connect
from worker.redis.embedded import embedded_redis
from worker.service.service import Service, Stopped
from worker.types import Event
from worker.video.drawing import contact_sheet, write_annotated_clip

CAMERA_ID = "demo"
FALLBACK_MODEL_ID = "dlib-resnet"


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo wrote, and what it saw."""

    stopped: Stopped
    events: list[Event]
    annotated_clip: Path
    contact_sheet: Path
    gallery: Path
    model_id: str


def run_demo(output: Path, say: Callable[[str], None], on_event: Callable[[Event], None]) -> DemoResult:
    """Runs the demo and writes its pictures to the folder ``output``.

    ``on_event`` gets each event when it arrives in the stream. ``say`` gets lines for people to read.

    Raises:
        FacestreamError: there is no Redis server or no model that works, or the output cannot be written.
    """
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    footage = make_demo_clip(output)
    embedder = _load_any_embedder(say)
    gallery_path = output / "gallery"
    with embedded_redis() as redis_url:
        config = load_config(
            None,
            {
                "cameras": [{"id": CAMERA_ID, "source": str(footage.clip)}],
                "gallery": str(gallery_path),
                "model": embedder.model_id,
                "redis": {"url": redis_url},
                "metrics": {"host": "127.0.0.1", "port": 0},
            },
        )
        _enroll(config, footage.photo_folder, gallery_path, embedder, say)
        album = Album()
        service = Service(config, watcher=album.watch)
        seen: list[Event] = []
        finished = threading.Event()

        def read(start: str, follow: bool) -> str:
            client = connect(config.redis)
            for entry_id, event in read_events(
                client, config.redis.stream, start=start, follow=follow, stop=finished, block_s=0.2
            ):
                start = entry_id
                seen.append(event)
                on_event(event)
            return start

        with ThreadPoolExecutor(1, "tail") as reader:
            following = reader.submit(read, "0", follow=True)
            try:
                stopped = service.run()
            finally:
                finished.set()
                last_id = following.result()
        finished.clear()
        read(last_id, follow=False)
    clip = output / "annotated.mp4"
    write_annotated_clip(footage.clip, album.annotations(), clip)
    sheet = output / "contact-sheet.png"
    contact_sheet(album.tiles(seen), sheet, title="facestream demo: who was seen")
    return DemoResult(stopped, seen, clip, sheet, gallery_path, embedder.model_id)


def _load_any_embedder(say: Callable[[str], None]) -> FaceEmbedder:
    config = load_config()
    try:
        return load_embedder(DEFAULT_MODEL_ID, models_dir=config.models_dir, cache_dir=cache_dir())
    except ModelError as missing:
        say(f"The weights of {DEFAULT_MODEL_ID} are not installed, so this demo runs with {FALLBACK_MODEL_ID} instead.")
        try:
            return load_embedder(FALLBACK_MODEL_ID, models_dir=config.models_dir, cache_dir=cache_dir())
        except ModelError as error:
            raise ModelError(
                f"the demo needs a model: {missing}; the other one does not load either: {error}"
            ) from None


def _enroll(config: Config, photos: Path, path: Path, embedder: FaceEmbedder, say: Callable[[str], None]) -> None:
    if FolderGallery.exists(path):
        for person in (gallery := FolderGallery.open(path)).people():
            gallery.remove(person.identity_id)
        gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
    else:
        gallery = FolderGallery.create(path, embedder.model_id, embedder.preprocessing_digest, embedder.dimension)
    detector = load_detector(config.detection, cache_dir=cache_dir())
    for result in enroll_photos([photos], gallery, detector, embedder):
        say(f"Enrolled from {result.path.name}: {'taken' if result.accepted else 'not taken: ' + result.reason}")
        if not result.accepted:
            raise FacestreamError(f"the demo's own photo was not taken: {result.reason}")
