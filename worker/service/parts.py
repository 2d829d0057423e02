"""What a worker is made of, as its configuration says.

A part that is not configured is None. One function decides whether it is: the one that opens or loads it. All others
only ask for None. (The observer is always there; one that does nothing serves in tests.) Each part that has a thread
registers its heartbeat itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from worker.background import Heartbeats
from worker.config import (
    DEFAULT_MODEL_ID,
    Config,
    ConfigOrigin,
    cache_dir,
    default_state_dir,
    history_folder,
    history_place,
)
from worker.database.schema import LAYOUT
from worker.encryption import use
from worker.erasure.own import OwnErasure, erasure_folders, remove_abandoned
from worker.errors import FacestreamError
from worker.events.outbox import Outbox, open_outbox
from worker.events.publisher import Publisher
from worker.events.states import LocalStates, QueuedStates, RedisStates, SightingStates
from worker.faces.detection import FaceDetector, load_detector, on_device
from worker.faces.device.runtimes import load_runtime
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.faces.engines import DEVICE_ENGINES
from worker.fleet.member import FleetMember
from worker.gallery.classifier import Classifier
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.gallery.opening import open_gallery
from worker.history.evidence import Evidence, open_evidence
from worker.history.fleet_past import FleetPast
from worker.history.recorder import Recorder, open_recorder
from worker.history.records import EmbedderId
from worker.history.retention import Retention
from worker.logs import get_logger
from worker.observer import Observer
from worker.recognition.corrections import Reunions
from worker.recognition.counter_examples import CounterExamples
from worker.recognition.matching import People
from worker.recognition.pipeline import FrameWatcher, Pipeline
from worker.recognition.shadow import Shadow
from worker.recognition.unknowns import Unknowns
from worker.redis.client import Client, connect_when_ready
from worker.service.health import Health
from worker.service.loop import Loop
from worker.service.metrics import PrometheusObserver
from worker.service.reloading import Reloader
from worker.service.reporting import LagReporter, StatusBoard, StatusReporter
from worker.service.resemblance import GalleryResemblance
from worker.types import Event
from worker.video.addresses import parse_address
from worker.video.cameras import Cameras

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a worker starts, uses and stops; the threads of ``member``, ``reporter``, ``lag``, ``reloader``
    and ``erasure`` wait to be started."""

    loop: Loop
    lag: LagReporter
    recorder: Recorder | None = None
    evidence: Evidence | None = None
    shadow: Shadow | None = None
    member: FleetMember | None = None
    reporter: StatusReporter | None = None
    reloader: Reloader | None = None
    erasure: OwnErasure | None = None


def build(
    config: Config,
    health: Health,
    observer: PrometheusObserver,
    *,
    origin: ConfigOrigin | None = None,
    on_event: Callable[[Event], None] = lambda _event: None,
    watcher: FrameWatcher | None = None,
) -> Parts:
    """Loads what ``config`` names, and makes the parts of it; ``health`` is told what readiness depends on.

    Raises:
        FacestreamError: the worker cannot start: Redis, a model, the gallery, the history or the store of pictures.
    """
    # First, since what forks decoders takes a second to start: meanwhile the networks are loaded.
    cameras = Cameras(config, observer, lasting=config.fleet.enabled)
    try:
        return _build(config, health, observer, cameras, origin, on_event, watcher)
    except BaseException:
        cameras.close()
        raise


def _build(
    config: Config,
    health: Health,
    observer: PrometheusObserver,
    cameras: Cameras,
    origin: ConfigOrigin | None,
    on_event: Callable[[Event], None],
    watcher: FrameWatcher | None,
) -> Parts:
    # Before the first file is opened.
    use(config.encryption_keys())
    client = connect_when_ready(config.redis, partial(_tell_waiting, health))
    gallery, embedder = load_people(config, observer, health.heartbeats)
    detector = load_configured_detector(config, observer)
    if on_device(detector) is not None:
        cameras.keep_planes()
    reunions = Reunions()
    recorder = open_recorder(config, observer, tell=reunions, heartbeats=health.heartbeats)
    retention = (lambda: recorder.retention) if recorder else Retention
    evidence = open_evidence(config.evidence, observer, retention=retention, heartbeats=health.heartbeats)
    shadow = load_shadow(config, observer, health.heartbeats)
    fleet = open_fleet_past(config, recorder, observer, health.heartbeats)
    memory_of = partial(open_memory, config, recorder, fleet)
    unknowns, counter_examples = memory_of(embedder)
    pipeline = Pipeline(
        # The loop adds the cameras, as it begins to read each.
        config.model_copy(update={"cameras": ()}),
        detector,
        embedder,
        gallery,
        observer=observer,
        watcher=watcher,
        on_verdict=shadow.compare if shadow else None,
        on_faces=shadow.learn if shadow else None,
        unknowns=unknowns,
        counter_examples=counter_examples,
        recorder=recorder,
        evidence=evidence,
    )
    observer.gallery_size(len(gallery), gallery.sample_count, gallery.version)
    observer.watch_threads(lambda: len(health.failures()))
    observer.watch_consents(partial(_consents_to_mind, pipeline))
    observer.watch_resemblance(_resemblance_of(pipeline, embedder.threshold))
    outbox = open_outbox(config, observer)
    publisher = Publisher(client, config.redis, observer, outbox=outbox, heartbeats=health.heartbeats)
    loop = Loop(
        config,
        pipeline,
        cameras,
        publisher,
        _open_states(config, client, outbox, publisher, observer),
        observer,
        load_people=partial(load_people, config, observer, health.heartbeats),
        memory_of=memory_of,
        evidence=evidence,
        on_event=on_event,
        heartbeats=health.heartbeats,
    )
    reunions.publish_by(loop.publish)
    member = _open_member(config, loop, observer, health.heartbeats)
    board = StatusBoard(config.worker_id, observer, health, cameras, lambda: member.epochs if member else {})
    if isinstance(history_place(config), str):
        board.watch_database(lambda: gallery.away if isinstance(gallery, DatabaseGallery) else "", LAYOUT)
    health.condition("models", "")
    health.condition("redis", lambda: publisher.error)
    health.condition("outbox", lambda: publisher.outbox_error)
    health.condition("sources", cameras.why_blind)
    if isinstance(gallery, DatabaseGallery):
        health.warn("gallery", lambda: gallery.away)
    health.warn("load", lambda: str(cameras.schedule.load()))
    health.describe(lambda: board.status().document())
    return Parts(
        loop=loop,
        lag=LagReporter(client, config.redis.stream, observer, heartbeats=health.heartbeats),
        recorder=recorder,
        evidence=evidence,
        shadow=shadow,
        member=member,
        reporter=_open_reporter(config, client, board, health.heartbeats),
        reloader=_open_reloader(config, origin, loop, observer, health.heartbeats),
        erasure=_open_erasure(config, pipeline, outbox, loop, recorder, shadow, health.heartbeats),
    )


def _tell_waiting(health: Health, reason: str) -> None:
    health.condition("redis", reason)
    _log_waiting(reason)


def _log_waiting(reason: str) -> None:
    if reason:
        _log.warning("Redis is not ready: waiting for it", reason=reason)
    else:
        _log.info("Redis is ready")


def load_configured_detector(config: Config, observer: Observer) -> FaceDetector:
    """The detector that ``config`` names.

    Raises:
        ModelError: its weights are missing or damaged.
    """
    return load_detector(
        config.detection,
        cache_dir=cache_dir(),
        models_dir=config.models_dir,
        engine=config.engine,
        threads=config.threads,
        observer=observer,
    )


def _resemblance_of(pipeline: Pipeline, default: float) -> Callable[[], tuple[float, float, bool] | None]:
    watched = GalleryResemblance(lambda: pipeline.gallery, default)

    def measure() -> tuple[float, float, bool] | None:
        found = watched.now()
        return None if found is None else (found.share, found.expected, found.is_high)

    return measure


def _consents_to_mind(pipeline: Pipeline) -> tuple[int, int]:
    people = pipeline.gallery
    return people.consents_to_mind() if isinstance(people, Gallery) else (0, 0)


def load_people(
    config: Config, observer: Observer, heartbeats: Heartbeats | None = None
) -> tuple[People, FaceEmbedder]:
    """The gallery or the classifier of ``config`` (an empty gallery in memory where none is named) and the embedder
    that made it.

    Raises:
        GalleryError: it is missing, damaged, or made with another model than ``config.model``.
        ModelError: the model or its weights are missing.
    """
    if config.classifier is not None:
        classifier = Classifier.open(config.classifier)
        embedder = _load(config, config.model or classifier.model, observer)
        classifier.require_model(embedder.model_id, embedder.preprocessing_digest)
        return classifier, embedder
    if config.gallery is None:
        embedder = _load(config, config.model or DEFAULT_MODEL_ID, observer)
        return FolderGallery.in_memory(embedder.model_id, embedder.preprocessing_digest, embedder.dimension), embedder
    return _load_for(config, config.gallery, config.model, observer, heartbeats)


def load_shadow(config: Config, observer: Observer, heartbeats: Heartbeats | None = None) -> Shadow | None:
    """The second model and its gallery; None where none is configured.

    Raises:
        GalleryError: the gallery is missing, damaged, or made with another preprocessing.
        ModelError: the model or its weights are missing.
    """
    if config.shadow_gallery is None:
        return None
    gallery, embedder = _load_for(config, config.shadow_gallery, None, Observer(), heartbeats)
    return Shadow(config, embedder, gallery, observer)


def open_fleet_past(
    config: Config, recorder: Recorder | None, observer: Observer, heartbeats: Heartbeats | None = None
) -> FleetPast | None:
    """What all workers on a database remember together; None where there is no such database."""
    place = history_place(config)
    if recorder is None or not isinstance(place, str):
        return None
    remember_s = timedelta(days=config.unknowns.remember_days).total_seconds()
    return FleetPast(place, remember_s, observer=observer, heartbeats=heartbeats)


def open_memory(
    config: Config, recorder: Recorder | None, fleet: FleetPast | None, embedder: FaceEmbedder
) -> tuple[Unknowns | None, CounterExamples | None]:
    """What tells unknown people apart, None where that is switched off; and whom faces were said not to show, None
    where the past is not remembered."""
    made_with = EmbedderId(embedder.model_id, embedder.preprocessing_digest)
    # All of this belongs to the thread of the pipeline.
    history = recorder.open_history() if recorder and fleet is None else None
    if fleet is not None:
        fleet.start_over(made_with)
    said = fleet or history
    counter_examples = None if said is None else CounterExamples(made_with, said, recorder=recorder)
    if not config.unknowns.enabled:
        return None, counter_examples
    unknowns = Unknowns(config.unknowns, made_with, embedder.dimension, recorder=recorder, history=history, fleet=fleet)
    return unknowns, counter_examples


def _load_for(
    config: Config, path: str, model: str | None, observer: Observer, heartbeats: Heartbeats | None
) -> tuple[Gallery, FaceEmbedder]:
    gallery = open_gallery(path, copies=(config.state_dir or default_state_dir()) / "galleries")
    try:
        embedder = _load(config, model or gallery.model_id, observer)
        gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
    except FacestreamError:
        gallery.close()
        raise
    if embedder.engine in DEVICE_ENGINES:
        gallery.search_on(load_runtime(embedder.engine))
        _log.info("gallery is searched", by=embedder.engine if gallery.is_on_device else "processor")
    if isinstance(gallery, DatabaseGallery):
        gallery.follow(config.worker_id, observer, heartbeats=heartbeats)
    return gallery, embedder


def _load(config: Config, model: str, observer: Observer) -> FaceEmbedder:
    return load_embedder(
        model,
        models_dir=config.models_dir,
        cache_dir=cache_dir(),
        engine=config.engine,
        precision=config.precision,
        threads=config.threads,
        observer=observer,
    )


def _open_states(
    config: Config, client: Client, outbox: Outbox, publisher: Publisher, observer: Observer
) -> SightingStates:
    """Where the sightings of a camera are kept: beside the events, or where workers of a fleet find them."""
    if not config.fleet.enabled:
        return LocalStates(outbox)
    shared = RedisStates(client, config.fleet.name, config.recognition.linger_s, observer)
    return QueuedStates(shared, publisher, config.redis)


def _open_member(config: Config, loop: Loop, observer: Observer, heartbeats: Heartbeats) -> FleetMember | None:
    if not config.fleet.enabled:
        return None
    # To wait for a reply that is lost must not cost the lease.
    hasty = config.redis.model_copy(update={"timeout_s": min(config.redis.timeout_s, config.fleet.lease_s / 2)})
    return FleetMember(connect_when_ready(hasty, _log_waiting), config, loop, observer, heartbeats)


def _open_reporter(config: Config, client: Client, board: StatusBoard, heartbeats: Heartbeats) -> StatusReporter | None:
    """Tells ``facestream status`` how this worker of a fleet is."""
    return StatusReporter(client, config.fleet.name, board, heartbeats=heartbeats) if config.fleet.enabled else None


def _open_reloader(
    config: Config, origin: ConfigOrigin | None, loop: Loop, observer: Observer, heartbeats: Heartbeats
) -> Reloader | None:
    """Watches the configuration file, if there is one."""
    if origin is None or origin.path is None:
        return None
    return Reloader(
        origin,
        config,
        lambda new: loop.order(partial(loop.reconfigure, new)),
        observer,
        check=_check_sources,
        heartbeats=heartbeats,
        audit_folder=history_folder(config) or default_state_dir(),
    )


def _open_erasure(
    config: Config,
    pipeline: Pipeline,
    outbox: Outbox,
    loop: Loop,
    recorder: Recorder | None,
    shadow: Shadow | None,
    heartbeats: Heartbeats,
) -> OwnErasure | None:
    """What forgets people who are erased while this worker runs, or were before; None where nothing is kept."""
    remove_abandoned(config, pictures=False)
    folders = erasure_folders(config)
    if not folders:
        return None
    return OwnErasure(
        folders,
        config.worker_id,
        pipeline,
        outbox,
        loop.order,
        recorder=recorder,
        shadow=shadow,
        heartbeats=heartbeats,
    )


def _check_sources(config: Config) -> None:
    for camera in config.cameras:
        parse_address(camera.source.get_secret_value())
