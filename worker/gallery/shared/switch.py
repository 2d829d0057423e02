"""Another model for a shared gallery: what it held goes beside it, and comes back by the next switch."""

from dataclasses import replace

from worker.gallery.folder import PREVIOUS
from worker.gallery.shared.gallery import SharedGallery
from worker.gallery.shared.replica import Copy, new_id
from worker.gallery.state import State


def switch_shared(gallery: SharedGallery, new: State) -> int:
    """Lets ``gallery`` hold what ``new`` holds, at once for all readers; returns the version.

    Raises:
        GalleryError: somebody else changes the gallery at the same time, or Redis cannot be reached.
    """
    before = gallery.state
    aside = gallery.beside(PREVIOUS)
    theirs, _ = aside.fetch()
    version = 1 if theirs is None else theirs.state.version + 1
    removed = frozenset() if theirs is None else theirs.removed
    aside.replace(theirs, Copy(replace(before, version=version), new_id(), new_id(), removed=removed))
    gallery.replace_with(new)
    return gallery.version


def previous_shared(gallery: SharedGallery) -> SharedGallery | None:
    """The gallery that the last switch put aside; None where nothing was."""
    store = gallery.beside(PREVIOUS)
    copy, _ = store.fetch()
    return None if copy is None else SharedGallery(store, copy)
