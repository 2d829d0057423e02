"""Galleries by what users call them: a folder, or ``redis://...?gallery=NAME``."""

from pathlib import Path

from worker.config import RedisConfig
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.gallery.shared.gallery import SharedGallery
from worker.gallery.shared.store import is_shared, parse_gallery_url

__all__ = ["create_gallery", "gallery_exists", "is_shared", "label_of", "open_gallery"]


def open_gallery(
    path: Path | str,
    *,
    model_id: str | None = None,
    preprocessing_digest: str | None = None,
    redis: RedisConfig | None = None,
) -> Gallery:
    """The gallery at ``path``; a model, where given, must be the one that it was made with.

    ``redis`` says how a shared gallery's server is connected to, all but its URL.

    Raises:
        ConfigError: a URL that is none of a gallery.
        GalleryError: no gallery there, damaged, made with another model, or its Redis cannot be reached.
    """
    if isinstance(path, str) and is_shared(path):
        return SharedGallery.open(path, model_id=model_id, preprocessing_digest=preprocessing_digest, redis=redis)
    return FolderGallery.open(path, model_id=model_id, preprocessing_digest=preprocessing_digest)


def create_gallery(
    path: Path | str,
    model_id: str,
    preprocessing_digest: str,
    dimension: int,
    *,
    redis: RedisConfig | None = None,
) -> Gallery:
    """A new, empty gallery at ``path``, for the vectors of one model.

    Raises:
        ConfigError: a URL that is none of a gallery.
        GalleryError: a gallery, or something else, is there already, or its Redis cannot be reached.
    """
    if isinstance(path, str) and is_shared(path):
        return SharedGallery.create(path, model_id, preprocessing_digest, dimension, redis=redis)
    return FolderGallery.create(path, model_id, preprocessing_digest, dimension)


def gallery_exists(path: Path | str, *, redis: RedisConfig | None = None) -> bool:
    """Whether there is a gallery at ``path``, intact or not.

    Raises:
        ConfigError: a URL that is none of a gallery.
        GalleryError: its Redis cannot be reached.
    """
    if isinstance(path, str) and is_shared(path):
        return SharedGallery.exists(path, redis)
    return FolderGallery.exists(path)


def label_of(path: Path | str) -> str:
    """``path`` as it may be shown: without the credentials of a URL."""
    return parse_gallery_url(path).label if isinstance(path, str) and is_shared(path) else str(path)


def is_calibrated(path: Path | str) -> bool:
    """Whether the gallery has a calibrated threshold."""
    gallery = open_gallery(path)
    return gallery.threshold is not None or bool(gallery.camera_thresholds)
