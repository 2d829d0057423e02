"""What requests share: gallery, history, Redis, pictures, networks; each is opened when it is first needed."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from worker.alerts.book import Book, PastAlert, StoredRule, Waiting
from worker.api.accounts import Accounts
from worker.api.metrics import ConsoleMetrics
from worker.api.oidc import Provider
from worker.api.replies import Replies
from worker.api.sessions import Sessions
from worker.api.sight import both, in_sight, sees
from worker.api.strangers import Strangers
from worker.api.tokens import Tokens
from worker.audit_log import note
from worker.config import DEFAULT_MODEL_ID, Config, cache_dir, default_state_dir, history_folder, history_place
from worker.erased import Erased
from worker.errors import ConfigError, DatabaseError, GalleryError, HistoryUnavailableError, SinkError
from worker.evaluation.audit import Finding
from worker.faces.alignment import split_variant
from worker.faces.detection import FaceDetector, load_detector
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.faces.manifests import Impostors, load_manifest
from worker.fleet.registry import CameraRegistry, Registered
from worker.gallery.contents import Person
from worker.gallery.gallery import Gallery
from worker.gallery.opening import gallery_exists, open_gallery, open_or_create_gallery
from worker.gallery.resemblance import known_impostors
from worker.history.evidence_store import EvidenceStore, open_store
from worker.history.shared import SharedDatabase
from worker.history.store import History
from worker.redis.client import Client, connect
from worker.redis.errors import told_redis_errors
from worker.service.status import WorkerStatus, reported
from worker.types import Event
from worker.video.child_video import Decoders
from worker.video.trial import Opener

_PHOTO_MIN_FACE_PX: Final = 20
_TRIALS: Final = 4
"""Cameras that are looked through at once."""


@dataclass(frozen=True, slots=True)
class Networks:
    """What looks at photos."""

    detector: FaceDetector
    embedder: FaceEmbedder


def rule_in_sight(stored: StoredRule) -> StoredRule | None:
    """The rule with those of its cameras that are in sight; None if there is none."""
    cameras = in_sight()
    if cameras is None:
        return stored
    seen = both(stored.rule.cameras or None, cameras)
    if not seen:
        return None
    return replace(stored, rule=stored.rule.model_copy(update={"cameras": seen if stored.rule.cameras else ()}))


class Parts:
    """Of one console. Safe to use from any thread.

    Raises:
        ConfigError: the configuration names no gallery.
        DatabaseError: the database of the history cannot be used.
    """

    def __init__(self, config: Config) -> None:
        place = history_place(config)
        if config.gallery is None or place is None:
            raise ConfigError("the console needs to know who is known: set gallery in the configuration")
        self.config = config
        self.gallery_path = config.gallery
        self.metrics = ConsoleMetrics()
        self.strangers = Strangers()
        self.findings: tuple[object, list[Finding]] = (None, [])
        """What an audit has found, and in which gallery: its version, and who is hidden in it."""
        self.audit_folder = history_folder(config) or default_state_dir()
        self._place: Path | str = place
        self._lock = threading.RLock()
        self._past = threading.Lock()
        self._history: History | None = None
        with self.history():
            pass
        self._database = database = SharedDatabase.open(place)
        self.accounts, self.book = Accounts(database), Book(database)
        self.sessions, self.tokens = Sessions(database, self.accounts), Tokens(database)
        self.replies = Replies(database)
        oidc = config.console.oidc
        self.provider = Provider(oidc, config.network.policy) if oidc.issuer else None
        self._gallery: Gallery | None = None
        self.erased = Erased()
        """Who was erased: nothing is shown of them."""
        self._people: tuple[int, list[Person]] | None = None
        self._impostors: tuple[int, Impostors | None] | None = None
        self._client: Client | None = None
        self._store: EvidenceStore | None = None
        self._networks: Networks | None = None
        self._decoders: Decoders | None = None
        self.trials = threading.BoundedSemaphore(_TRIALS)

    def close(self) -> None:
        self._database.close()
        for part in (self._history, self._gallery, self._client, self._decoders):
            if part is not None:
                part.close()

    def looked_up(self, command: str, *subjects: str | None) -> None:
        """Notes in the audit log whose past (ids) is looked up or changed, by what this ``command`` does."""
        note(self.audit_folder, "past looked up", filter(None, subjects), command=command)

    @contextmanager
    def history(self) -> Iterator[History]:
        """The history, for the block alone; of the cameras that are in sight.

        Raises:
            HistoryError: it cannot be opened.
        """
        with self._past:
            if self._history is not None and not self._history.is_in_place():
                self._history.close()
                self._history = None
            if self._history is None:
                self._history = History.open(self._place, create=True)
            try:
                yield self._history.of_cameras(in_sight())
            except HistoryUnavailableError:
                self._history.close()
                self._history = None
                raise

    def gallery(self) -> Gallery:
        """The gallery in its newest version.

        Raises:
            GalleryError: there is none, or it cannot be read.
        """
        with self._lock:
            if self._gallery is None:
                self._gallery = open_gallery(self.gallery_path)
                self._gallery.hide(self.erased)
            try:
                self._gallery.reload_if_changed()
            except GalleryError:
                # Another model's gallery may have taken its place.
                self._gallery.close()
                self._gallery = None
                raise
            return self._gallery

    @property
    def is_shared(self) -> bool:
        """Whether the past lies in a database."""
        return isinstance(self._place, str)

    @property
    def gallery_in_use(self) -> Gallery | None:
        """The gallery as it was read last; None if it was not needed yet."""
        return self._gallery

    def forget(self, erased: Erased) -> None:
        """From now on nothing is shown of people in this list."""
        with self._lock:
            self.erased = erased
            self._people = None
            self.strangers.forget()
            if self._gallery is not None:
                self._gallery.hide(erased)

    def is_erased(self, event: Event) -> bool:
        """Whether an event, which the stream may still hold, is about somebody who was erased."""
        ids = (event.identity_id, event.unknown_id, event.sighting_id)
        return event.type != "erased" and any(an_id in self.erased for an_id in ids)

    def gallery_like(self, model_id: str, preprocessing_digest: str, dimension: int) -> Gallery:
        """The gallery of these vectors, made now if there is none.

        Raises:
            GalleryError: it was made with another model, or cannot be used.
        """
        with self._lock:
            if self._gallery is None:
                self._gallery = open_or_create_gallery(self.gallery_path, model_id, preprocessing_digest, dimension)
                self._gallery.hide(self.erased)
            return self.gallery()

    def has_gallery(self) -> bool:
        """Whether anybody was ever enrolled.

        Raises:
            GalleryError: the database cannot be used.
        """
        return self._gallery is not None or gallery_exists(self.gallery_path)

    def people(self) -> Sequence[Person]:
        """Everybody, by name; nobody where there is no gallery yet.

        Raises:
            GalleryError: it cannot be read.
        """
        if not self.has_gallery():
            return []
        with self._lock:
            gallery = self.gallery()
            if self._people is None or self._people[0] != gallery.version:
                self._people = gallery.version, gallery.people()
            return self._people[1]

    def threshold(self, gallery: Gallery) -> float:
        """The cosine from which a stream names somebody, unless its camera has another.

        Raises:
            ModelError: the model of the gallery is not known here.
        """
        for configured in (self.config.recognition.threshold, gallery.threshold):
            if configured is not None:
                return configured
        return load_manifest(split_variant(gallery.model_id)[0]).threshold

    def impostors(self, gallery: Gallery) -> Impostors | None:
        """As :func:`worker.gallery.resemblance.known_impostors`, read once for a version."""
        with self._lock:
            if self._impostors is None or self._impostors[0] != gallery.version:
                self._impostors = gallery.version, known_impostors(gallery)
            return self._impostors[1]

    def redis(self) -> Client:
        """
        Raises:
            SinkError: Redis cannot be reached.
        """
        with self._lock:
            if self._client is None:
                self._client = connect(self.config.redis)
            return self._client

    def workers(self, on_problem: Callable[[str], None] = lambda _problem: None) -> list[WorkerStatus]:
        """What the workers of the fleet reported last, as :func:`worker.service.status.reported`. Who sees some cameras
        alone is told of the workers that read these, and of nothing else that they do.

        Raises:
            SinkError: Redis cannot be reached.
            redis.RedisError: it cannot be asked.
        """
        if in_sight() is None:
            return list(reported(self.redis(), self.config.fleet.name, on_problem))
        return [
            worker.model_copy(update={"cameras": seen, "reasons": {}, "warnings": {}})
            for worker in reported(self.redis(), self.config.fleet.name)
            if (seen := [camera for camera in worker.cameras if sees(camera.camera_id)])
        ]

    def registered(self, registry: CameraRegistry) -> list[Registered]:
        """The cameras in sight that the fleet defines. Raises as :meth:`CameraRegistry.cameras` does."""
        return [row for row in registry.cameras() if sees(row.definition.camera_id)]

    def rules(self) -> list[StoredRule]:
        """The rules that are about a camera in sight, by name; of their cameras, those in sight."""
        return [seen for stored in self.book.rules() if (seen := rule_in_sight(stored)) is not None]

    def alerts(self, most: int) -> list[PastAlert]:
        """The newest alerts about sightings in sight, newest first."""
        return self.book.recent(most, in_sight())

    def waiting(self) -> Waiting:
        """As :meth:`Book.waiting`; nothing for who sees some cameras alone."""
        return self.book.waiting() if in_sight() is None else Waiting(0, 0.0)

    def database_trouble(self) -> str:
        """Why the database cannot be used; empty if it can."""
        try:
            self.accounts.accounts()
        except DatabaseError as error:
            return str(error)
        return ""

    def redis_trouble(self) -> str:
        """Why Redis cannot be asked; empty if it can."""
        try:
            with told_redis_errors(self.config.redis):
                self.redis().ping()
        except SinkError as error:
            return str(error)
        return ""

    def pictures(self) -> EvidenceStore | None:
        """Where pictures of sightings are; None where none are kept.

        Raises:
            SinkError: the store cannot be used.
        """
        where = self.config.evidence.store
        if where is None or ("://" not in where and not Path(where).is_dir()):
            return None
        with self._lock:
            if self._store is None:
                self._store = open_store(self.config.evidence)
            return self._store

    def opener(self) -> Opener:
        """What opens cameras, to look through them once; at most as many at a time as ``trials`` has places."""
        with self._lock:
            if self._decoders is None:
                self._decoders = Decoders(self.config.decoding, self.config.network.policy)
            return self._decoders.open

    def networks(self) -> Networks:
        """What looks at photos, loaded when it is first asked for.

        Raises:
            ConfigError: the configuration names no engine or detector that is there.
            ModelError: weights are missing or damaged.
        """
        with self._lock:
            if self._networks is None:
                config = self.config
                model = self.gallery().model_id if self.has_gallery() else config.model or DEFAULT_MODEL_ID
                detection = config.detection.model_copy(update={"min_face_px": _PHOTO_MIN_FACE_PX})
                self._networks = Networks(
                    load_detector(
                        detection, cache_dir=cache_dir(), models_dir=config.models_dir, engine=config.engine
                    ),
                    load_embedder(
                        model, models_dir=config.models_dir, cache_dir=cache_dir(), engine=config.engine,
                        precision=config.precision,
                    ),
                )  # fmt: skip
            return self._networks
