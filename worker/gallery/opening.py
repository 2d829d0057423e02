"""Opens, makes and looks for a gallery by its address: a folder, or ``redis://...?gallery=NAME``.

Code that has an address begins here: only this module chooses between the kinds of gallery.
"""

from pathlib import Path
from typing import TypeGuard

from worker.config import RedisConfig
from worker.errors import GalleryExistsError
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.gallery.shared.gallery import SharedGallery


def is_shared(path: Path | str) -> TypeGuard[str]:
    """Whether ``path`` is the URL of a gallery that a fleet shares, and not a folder."""
    return isinstance(path, str) and "://" in path


def open_gallery(
    path: Path | str,
    *,
    model_id: str | None = None,
    preprocessing_digest: str | None = None,
    redis: RedisConfig | None = None,
) -> Gallery:
    """The gallery at ``path``. A model, if given, must be the one that the gallery was made with.

    ``redis`` says how to connect to the server of a shared gallery; its URL is not used.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryError: there is no gallery, it is damaged or made with another model, or its Redis cannot be reached.
    """
    if is_shared(path):
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
    """A new, empty gallery at ``path``, for the vectors of one model; ``redis`` as in :func:`open_gallery`.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryExistsError: a gallery is there already.
        GalleryError: something else is there already, or its Redis cannot be reached.
    """
    if is_shared(path):
        return SharedGallery.create(path, model_id, preprocessing_digest, dimension, redis=redis)
    return FolderGallery.create(path, model_id, preprocessing_digest, dimension)


def open_or_create_gallery(
    path: Path | str,
    model_id: str,
    preprocessing_digest: str,
    dimension: int,
    *,
    redis: RedisConfig | None = None,
) -> Gallery:
    """The gallery at ``path``, made now if there is none. Any number of processes may do this at once.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryError: it was made with another model, something else is there, or its Redis cannot be reached.
    """
    if not gallery_exists(path, redis=redis):
        try:
            return create_gallery(path, model_id, preprocessing_digest, dimension, redis=redis)
        except GalleryExistsError:
            pass  # another process was quicker
    return open_gallery(path, model_id=model_id, preprocessing_digest=preprocessing_digest, redis=redis)


def gallery_exists(path: Path | str, *, redis: RedisConfig | None = None) -> bool:
    """Whether there is a gallery at ``path``, intact or not; ``redis`` as in :func:`open_gallery`.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryError: its Redis cannot be reached.
    """
    return SharedGallery.exists(path, redis) if is_shared(path) else FolderGallery.exists(path)
