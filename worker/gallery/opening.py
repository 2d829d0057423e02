"""Galleries by their address, a folder or ``postgresql://...?gallery=NAME``: opened, made, copied, switched to another
model.

Code that has an address begins here: only this module chooses between the kinds of gallery.

The switch needs no downtime: a new gallery takes the place of the old one, which can come back. The new gallery is made
in a folder of its own (see ``re_embedding``). The switch writes its contents into the folder of the old one as the next
version, which readers take up like any other version. What was there goes to the folder ``previous`` inside, which is
a gallery like any other, and comes back by :func:`roll_back`.
"""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TypeGuard

from worker.audit_log import note
from worker.database.address import parse_database_url
from worker.errors import GalleryError, GalleryExistsError
from worker.gallery.contents import Contents, Difference, Person, other_people
from worker.gallery.crops import CropStore
from worker.gallery.database.gallery import DatabaseGallery
from worker.gallery.folder import PREVIOUS, FolderGallery, what_is_noted
from worker.gallery.gallery import Gallery, Require, whatever
from worker.gallery.groups import after_switch
from worker.gallery.snapshots import Snapshot, SnapshotStore


def is_shared(path: Path | str) -> TypeGuard[str]:
    """Whether ``path`` is the URL of a gallery that a fleet shares, and not a folder."""
    return isinstance(path, str) and "://" in path


def open_gallery(
    path: Path | str,
    *,
    model_id: str | None = None,
    preprocessing_digest: str | None = None,
    copies: Path | None = None,
) -> Gallery:
    """The gallery at ``path``. A model, if given, must be the one that the gallery was made with.

    ``copies``: a folder for the last copies of galleries in databases, see :meth:`DatabaseGallery.open`.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryError: there is no gallery, it is damaged or made with another model, or its database cannot be used.
    """
    if is_shared(path):
        name = hashlib.sha256(parse_database_url(path).label.encode()).hexdigest()[:16]
        return DatabaseGallery.open(
            path,
            model_id=model_id,
            preprocessing_digest=preprocessing_digest,
            copies=None if copies is None else copies / name,
        )
    return FolderGallery.open(path, model_id=model_id, preprocessing_digest=preprocessing_digest)


def create_gallery(
    path: Path | str,
    model_id: str,
    preprocessing_digest: str,
    dimension: int,
) -> Gallery:
    """A new, empty gallery at ``path``, for the vectors of one model.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryExistsError: a gallery is there already.
        GalleryError: something else is there already, or its database cannot be used.
    """
    if is_shared(path):
        return DatabaseGallery.create(path, model_id, preprocessing_digest, dimension)
    return FolderGallery.create(path, model_id, preprocessing_digest, dimension)


def open_or_create_gallery(
    path: Path | str,
    model_id: str,
    preprocessing_digest: str,
    dimension: int,
) -> Gallery:
    """The gallery at ``path``, made now if there is none. Any number of processes may do this at once.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryError: it was made with another model, something else is there, or its database cannot be used.
    """
    if not gallery_exists(path):
        try:
            return create_gallery(path, model_id, preprocessing_digest, dimension)
        except GalleryExistsError:
            pass  # another process was quicker
    return open_gallery(path, model_id=model_id, preprocessing_digest=preprocessing_digest)


def gallery_exists(path: Path | str) -> bool:
    """Whether there is a gallery at ``path``, intact or not.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryError: its database cannot be used.
    """
    return DatabaseGallery.exists(path) if is_shared(path) else FolderGallery.exists(path)


def difference(old: Gallery | Path | str, new: Gallery | Path | str) -> Difference:
    """The people whom a switch from ``old`` to ``new`` would remove, and those whom it would bring in, by identity_id.

    Raises:
        GalleryError: one of them is missing or damaged.
    """
    return other_people(_opened(old).contents, _opened(new).contents)


def switch(path: Path | str, new_path: Path | str, *, accept: Difference | None = None) -> int:
    """Lets the gallery ``path`` hold what the one at ``new_path`` holds, for all readers at once; returns the version.

    Raises:
        GalleryError: the two do not hold the same people, and the difference is not ``accept``; or one of them is
            missing, is damaged or cannot be written.
    """
    gallery, new = open_gallery(path), open_gallery(new_path)
    if isinstance(gallery, DatabaseGallery):
        return _switch_database(gallery, new, accept)
    if new.folder is None:
        raise GalleryError(f"gallery {path} is a folder and cannot hold what is in {new.label}: re-embed into a folder")
    if Path(path).resolve() == Path(new_path).resolve():
        raise GalleryError(f"{new_path} is the gallery itself: name the one made by 'facestream gallery re-embed'")
    _exchange(Path(path), Path(new_path), accept)
    return _noted(path, "switched")


def previous_of(path: Path | str) -> Gallery:
    """The gallery that the last switch of the gallery ``path`` put aside.

    Raises:
        GalleryError: there was no switch.
    """
    gallery = open_gallery(path)
    previous = _put_aside(gallery)
    if previous is None:
        raise GalleryError(f"gallery {gallery.label} was never switched: there is nothing to roll back to")
    return previous


def roll_back(path: Path | str, *, accept: Difference | None = None) -> int:
    """Undoes the last switch; a second call undoes the first. Returns the version.

    Raises:
        GalleryError: as :func:`switch`; or there was no switch.
    """
    gallery, previous = open_gallery(path), previous_of(path)
    if isinstance(gallery, DatabaseGallery):
        return _switch_database(gallery, previous, accept)
    _exchange(Path(path), Path(path) / PREVIOUS, accept)
    return _noted(path, "rolled back")


def remove_person(gallery: Gallery, identity: str, *, require: Require = whatever) -> Person:
    """Removes a person (id or name) from the gallery and from the one that a switch has put aside, with their crops.
    ``require`` as for :meth:`Gallery.remove`.

    Raises:
        GalleryError: nobody is called that, or a gallery or the folder of crops cannot be written.
    """
    person = gallery.remove(identity, require=require)
    previous = _put_aside(gallery)
    if previous is not None and any(other.identity_id == person.identity_id for other in previous.people()):
        previous.remove(person.identity_id)
    prune_crops(gallery)
    return person


def prune_crops(gallery: Gallery) -> int:
    """Removes the crops of samples that are no longer in the gallery or in the one put aside; returns how many.

    Raises:
        GalleryError: a crop cannot be removed.
    """
    return gallery.prune_crops() if isinstance(gallery, FolderGallery) else 0


def _opened(gallery: Gallery | Path | str) -> Gallery:
    return gallery if isinstance(gallery, Gallery) else open_gallery(gallery)


def _put_aside(gallery: Gallery) -> Gallery | None:
    return gallery.previous() if isinstance(gallery, DatabaseGallery | FolderGallery) else None


def _switch_database(gallery: DatabaseGallery, new: Gallery, accept: Difference | None) -> int:
    _check(gallery.label, new.label, difference(gallery, new), accept)
    gallery.replace_with(_with_notes_of(gallery.contents, new.contents))
    return gallery.version


def _with_notes_of(old: Contents, new: Contents) -> Contents:
    """``new`` in the place of ``old``: what people allow, and who belongs to which group, does not change with the
    model."""
    others = {key: names for key, names in new.memberships.items() if key not in old.names}
    return replace(
        new,
        consents={**new.consents, **old.consents},
        groups=after_switch(old.groups, new.groups, same_model=old.model_id == new.model_id),
        memberships={**others, **old.memberships},
    )


def _exchange(folder: Path, source: Path, accept: Difference | None) -> None:
    store, source_store, aside = SnapshotStore(folder), SnapshotStore(source), SnapshotStore(folder / PREVIOUS)
    with store.locked(), aside.locked():
        old, new = FolderGallery.open(folder), FolderGallery.open(source)
        _check(folder, source, difference(old, new), accept)
        # Before anything is written: the source may be the gallery that was put aside, which is written over.
        noted = _with_notes_of(old.contents, new.contents)
        before, after = store.read(), source_store.read()
        _copy_crops(source, folder)
        aside.write(before.files, _own_fields(before))
        store.write(after.files, _own_fields(after) | what_is_noted(noted))


def _check(old: object, new: object, changes: Difference, accept: Difference | None) -> None:
    if changes and changes != accept:
        raise GalleryError(
            f"galleries {old} and {new} do not hold the same people ({changes}): "
            "enroll or remove them first, or give --accept-differences"
        )


def _copy_crops(source: Path, folder: Path) -> None:
    """Adds the new crops to the old ones. Both stay, since either gallery may come back."""
    if not CropStore(source).exists or source.parent == folder:
        return
    CropStore(source).copy_files(CropStore(folder))


def _noted(path: Path | str, action: str) -> int:
    gallery = FolderGallery.open(path)
    note(gallery.audit_folder, action, people=len(gallery), version=gallery.version)
    return gallery.version


def _own_fields(snapshot: Snapshot) -> dict[str, object]:
    return {name: value for name, value in snapshot.manifest.items() if name not in {"version", "files"}}


def copy_gallery(source: Path | str, target: Path | str) -> Gallery:
    """Makes a new gallery at ``target`` with all that the one at ``source`` holds: people and samples with their ids,
    thresholds and, between folders, kept crops. Everything was read back and compared when this returns.

    Raises:
        ConfigError: a URL that is not the URL of a gallery.
        GalleryExistsError: there is a gallery at ``target``.
        GalleryError: one of them cannot be read or written, or what was written is not what was read.
    """
    old = open_gallery(source)
    made = create_gallery(target, old.model_id, old.preprocessing_digest, old.dimension)
    made.fill(old.contents)
    if old.folder is not None and made.folder is not None and CropStore(old.folder).exists:
        CropStore(old.folder).copy_files(CropStore(made.folder))
    made.close()
    new = open_gallery(target)
    if differences := _differences(old.contents, new.contents):
        raise GalleryError(f"{new.label} is not what {old.label} is ({differences}): remove it, and copy again")
    note(old.audit_folder, "copied", people=len(old), samples=old.sample_count)
    old.close()
    return new


def _differences(old: Contents, new: Contents) -> str:
    """What of two galleries is not the same, sample by sample; "" if all is."""
    if old.names != new.names:
        return "names of people"
    if (old.threshold, old.camera_thresholds, old.calibration) != (
        new.threshold, new.camera_thresholds, new.calibration,
    ):  # fmt: skip
        return "thresholds"
    if old.consents != new.consents:
        return "consents"
    if (old.groups, old.memberships) != (new.groups, new.memberships):
        return "groups"
    if old.samples != new.samples:
        return "samples"
    for sample, mine, theirs in zip(old.samples, old.vectors_of(), new.vectors_of(), strict=True):
        if mine.tobytes() != theirs.tobytes():
            return f"the vector of sample {sample.sample_id}"
    return ""
