"""What a worker is built from, as its configuration says: gallery, networks, second model."""

from worker.config import DEFAULT_MODEL_ID, Config, cache_dir
from worker.errors import FacestreamError
from worker.faces.detection import FaceDetector, load_detector
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.gallery.classifier import Classifier
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.gallery.opening import open_gallery
from worker.gallery.shared.gallery import SharedGallery
from worker.history.recorder import Recorder, open_history
from worker.history.store import EmbedderId
from worker.observer import Observer
from worker.recognition.matching import People
from worker.recognition.shadow import Shadow
from worker.recognition.unknowns import Unknowns


def load_detector_of(config: Config, observer: Observer) -> FaceDetector:
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


def load_gallery_and_embedder(config: Config, observer: Observer) -> tuple[People, FaceEmbedder]:
    """The gallery or the classifier of ``config`` (an empty gallery in memory where none is named) and the embedder
    that made it.

    Raises:
        GalleryError, ClassifierError: it is missing, damaged, or made with another model than ``config.model``.
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
    return _load_for(config, config.gallery, config.model, observer)


def load_shadow(config: Config, observer: Observer) -> Shadow | None:
    """The second model and its gallery, None where none is configured.

    Raises:
        GalleryError: the gallery is missing, damaged, or made with another preprocessing.
        ModelError: the model or its weights are missing.
    """
    if config.shadow_gallery is None:
        return None
    gallery, embedder = _load_for(config, config.shadow_gallery, None, Observer())
    return Shadow(config, embedder, gallery, observer)


def unknown_people(config: Config, embedder: FaceEmbedder, recorder: Recorder) -> Unknowns | None:
    """Who tells unknown people apart; None where that is switched off."""
    if not config.unknowns.enabled:
        return None
    return Unknowns(
        config.unknowns,
        EmbedderId(embedder.model_id, embedder.preprocessing_digest),
        embedder.dimension,
        recorder=recorder,
        history=open_history(config, recorder),
    )


def _load_for(config: Config, path: str, model: str | None, observer: Observer) -> tuple[Gallery, FaceEmbedder]:
    gallery = open_gallery(path, redis=config.redis)
    try:
        embedder = _load(config, model or gallery.model_id, observer)
        gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
    except FacestreamError:
        gallery.close()
        raise
    if isinstance(gallery, SharedGallery):
        gallery.follow(config.worker_id, observer)
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
