"""The photos with which a classifier is trained and tested: who is in each photo, and the face in it."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from worker.errors import SourceError
from worker.faces.detection import FaceDetector, only_central
from worker.files import sha256_of
from worker.gallery.enrolment import choose_face
from worker.names import clean_text, person_name
from worker.types import Chips, Detections, Image
from worker.video.photos import in_batches, list_photos, read_photo

FacesFrom = Literal["detect", "whole", "auto"]
"""Where the face of a photo is: where the detector finds it (detect), or it is the whole photo (whole), or it is the
whole photo only if the detector finds none (auto)."""
Align = Callable[[Image, Detections], Chips]

_TRAIN_FOLDER: Final = "train"
_TEST_FOLDERS: Final = ("test", "val", "valid", "validation")
_NUMBER: Final = re.compile(r"[ ._-]+\(?\d+\)?$")
_BATCH_PHOTOS: Final = 16


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo, and the name of the person in it."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A photo that was not used, and why.

    ``reason`` is ``unreadable``, ``no_face``, ``several_faces``, ``duplicate_photo``, ``shows_two_names`` (the same
    file under another name) or ``in_training`` (a test photo that is also in the training).
    """

    photo: Photo
    reason: str
    detail: str = ""


@dataclass(slots=True)
class DataSet:
    """The photos to train and to test with. ``strangers`` are test photos of people who are not in the training."""

    train: list[Photo]
    test: list[Photo] = field(default_factory=list)
    strangers: list[Photo] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    @property
    def people(self) -> tuple[str, ...]:
        """The names of the people in the training photos, sorted."""
        return tuple(sorted({photo.name for photo in self.train}))


def read_data_set(
    data: Path, test: Path | None = None, *, train_per_person: int | None = None, leave_out: int = 0, seed: int = 0
) -> DataSet:
    """The photos below ``data``: in one folder for each person, or named ``NAME_1.jpg``.

    If ``data`` has a folder ``train``, its photos are for the training, and those of ``test`` or ``val`` beside it are
    for the test.

    Args:
        data: the folder.
        test: photos to test with, by person; people who are not in the training are strangers.
        train_per_person: how many photos of each person to train with; the others are for the test.
        leave_out: how many people to leave out of the training, who are strangers in the test.
        seed: of these two choices.

    Raises:
        SourceError: there are no photos or fewer than two people, or two names are nearly the same.
    """
    try:
        data, test = _layout(data, test, split=train_per_person is not None)
    except OSError as error:
        raise SourceError(f"no folder of photos at {data}: {error.strerror or error}") from None
    photos = _named(data)
    random = np.random.default_rng(seed)
    names = sorted({photo.name for photo in photos})
    left_out = {names[row] for row in random.permutation(len(names))[:leave_out].tolist()}
    strangers = [photo for photo in photos if photo.name in left_out]
    photos = [photo for photo in photos if photo.name not in left_out]
    tested = _named(test) if test else []
    if train_per_person is not None:
        photos, tested = _split(photos, train_per_person, random)
    _require_names([*photos, *tested])
    trained = {photo.name for photo in photos}
    if len(trained) < 2:
        only = f"only {next(iter(trained))}" if trained else "nobody"
        raise SourceError(
            f"{data} shows {only} to train with: a classifier tells people apart, so put a folder of photos for each "
            "of at least two people there (or enroll the one person: facestream enroll)"
        )
    strangers += [photo for photo in tested if photo.name not in trained]
    found = DataSet(photos, [photo for photo in tested if photo.name in trained], strangers)
    _drop_copies(found)
    return found


def require_photos(data: DataSet, least: int) -> None:
    """Returns if every person has at least ``least`` photos left to train with.

    Raises:
        SourceError: people have fewer photos; the message names them.
    """
    counts: dict[str, int] = defaultdict(int)
    for photo in data.train:
        counts[photo.name] += 1
    given = sorted({*counts, *(gone.photo.name for gone in data.left_out)} - {p.name for p in data.strangers})
    few = [name for name in given if counts[name] < least]
    if not few:
        return
    reasons = defaultdict[str, int](int)
    for gone in data.left_out:
        if gone.photo.name in few:
            reasons[gone.reason] += 1
    lost = "; not usable: " + ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    shown = ", ".join(f"{name} ({counts[name]})" for name in few[:5]) + (f" and {len(few) - 5} more" * (len(few) > 5))
    raise SourceError(
        f"too few photos with a face to train with, at least {least} a person are needed: {shown}"
        f"{lost if reasons else ''}; add photos, or take the person's folder out"
    )


def cut_faces(
    photos: Sequence[Photo],
    detector: FaceDetector,
    align: Align,
    left_out: list[LeftOut],
    *,
    faces: FacesFrom = "detect",
    central: bool = False,
    enlarge: float = 1.0,
    advance: Callable[[int], None] = lambda _count: None,
) -> Iterator[tuple[list[Photo], Chips]]:
    """The face of each photo as a chip, a few photos at a time. Photos without a face are added to ``left_out``.

    Args:
        photos: of people.
        detector: finds the faces.
        align: cuts them out.
        left_out: is added to.
        faces: with ``whole`` and ``auto``, ``align`` must use only the box, and must enlarge it by ``enlarge``.
        central: if faces have a similar size, take the one nearest the centre; otherwise the photo is left out.
        enlarge: the factor by which ``align`` enlarges the box.
        advance: is told how many photos are done.
    """
    for batch in in_batches(_read(photos, left_out, advance), _BATCH_PHOTOS):
        found = (
            detector.detect([image for _, image in batch]) if faces != "whole" else [Detections.empty()] * len(batch)
        )
        taken, chips = [], []
        for (photo, image), seen in zip(batch, found, strict=True):
            face, reason = choose_face(seen, image.shape[1::-1])
            if reason == "several_faces" and central:
                face, reason = only_central(face, image), ""
            if reason == "no_face" and faces != "detect":
                face, reason = _whole(image, enlarge), ""
            if reason:
                left_out.append(LeftOut(photo, reason))
                continue
            taken.append(photo)
            chips.append(align(image, face))
        if chips:
            yield taken, Chips.joined(chips)


def _layout(data: Path, test: Path | None, *, split: bool) -> tuple[Path, Path | None]:
    train = data / _TRAIN_FOLDER
    beside = next((data / name for name in _TEST_FOLDERS if (data / name).is_dir()), None)
    if not train.is_dir() or (beside is None and not any(entry.is_dir() for entry in train.iterdir())):
        return data, test
    if split:
        raise SourceError(f"{data} is split into {_TRAIN_FOLDER} and test already: leave --train-per-person out")
    return train, test or beside


def _named(folder: Path) -> list[Photo]:
    if folder.is_file():
        raise SourceError(f"{folder} is a file: give a folder with a folder of photos for each person")
    photos = []
    for path in list_photos(folder):
        below = path.relative_to(folder).parts
        name = below[0] if len(below) > 1 else _NUMBER.sub("", path.stem) or path.stem
        photos.append(Photo(path, person_name(name) or clean_text(name)))
    return photos


def _split(photos: list[Photo], count: int, random: np.random.Generator) -> tuple[list[Photo], list[Photo]]:
    by_name = defaultdict[str, list[Photo]](list)
    for photo in photos:
        by_name[photo.name].append(photo)
    train, test = [], []
    for own in by_name.values():
        chosen = {int(row) for row in random.permutation(len(own))[:count]}
        train += [photo for row, photo in enumerate(own) if row in chosen]
        test += [photo for row, photo in enumerate(own) if row not in chosen]
    return train, test


def _require_names(photos: Sequence[Photo]) -> None:
    """Raises SourceError if people would not see a difference between two names."""
    seen: dict[str, Photo] = {}
    for photo in photos:
        key = " ".join(unicodedata.normalize("NFKC", photo.name).casefold().replace("_", " ").split())
        other = seen.setdefault(key, photo)
        if other.name != photo.name:
            raise SourceError(
                f"'{other.name}' ({other.path.parent}) and '{photo.name}' ({photo.path.parent}) are nearly the same "
                "name: is it one person? Put the photos into one folder, or tell the names apart"
            )


def _drop_copies(data: DataSet) -> None:
    """Leaves out the second copy of a photo, and all copies of a photo that is there under two names."""
    digests = {photo.path: _digest(photo.path) for photo in [*data.train, *data.test, *data.strangers]}
    names = defaultdict[str, set[str]](set)
    for photo in [*data.train, *data.test, *data.strangers]:
        names[digests[photo.path]].add(photo.name)
    trained: dict[str, Photo] = {}

    def keep(photo: Photo, train: bool) -> bool:
        digest = digests[photo.path]
        others = sorted(names[digest] - {photo.name}) if digest else []
        known = trained.get(digest) if digest else None
        if others:
            data.left_out.append(LeftOut(photo, "shows_two_names", f"the same file under {', '.join(others)}"))
        elif known:
            reason = "duplicate_photo" if train else "in_training"
            data.left_out.append(LeftOut(photo, reason, f"the same file as {known.path.name}"))
        elif train:
            trained[digest] = photo
        return not others and not known

    data.train = [photo for photo in data.train if keep(photo, train=True)]
    data.test = [photo for photo in data.test if keep(photo, train=False)]
    data.strangers = [photo for photo in data.strangers if keep(photo, train=False)]


def _digest(path: Path) -> str:
    """Empty for a file that cannot be read. The error is reported when the file is opened as a photo."""
    try:
        return sha256_of(path)
    except OSError:
        return ""


def _read(
    photos: Sequence[Photo], left_out: list[LeftOut], advance: Callable[[int], None]
) -> Iterator[tuple[Photo, Image]]:
    for photo in photos:
        try:
            image = read_photo(photo.path)
        except SourceError as error:
            left_out.append(LeftOut(photo, "unreadable", str(error)))
            continue
        finally:
            advance(1)
        yield photo, image


def _whole(image: Image, enlarge: float) -> Detections:
    """A detection. Its box, enlarged, is the square in the middle of ``image``."""
    height, width = image.shape[:2]
    half = min(height, width) / enlarge / 2
    box = [width / 2 - half, height / 2 - half, width / 2 + half, height / 2 + half]
    return Detections(np.array([box], np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))


@dataclass(slots=True)
class Embedded:
    """Photos with their vectors float32 (n, d), and their chips if these are kept."""

    photos: list[Photo]
    vectors: NDArray[np.float32]
    chips: list[NDArray[np.uint8]]
