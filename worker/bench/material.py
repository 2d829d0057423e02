"""What all contestants work on.

From one clip come frames, faces and people to recognise, and the weights are random. Galleries of any size are made up:
their people are spread as face embeddings are, with a few directions that hold most of the spread. All random numbers
come from fixed seeds.
"""

import hashlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.bench.contest import ContestantProcess, Starter, Work
from worker.boxes import area
from worker.config import DetectionConfig, cache_dir
from worker.demo.footage import make_demo_clip
from worker.errors import ModelError, SourceError
from worker.faces.detection import FaceDetector, load_detector
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.faces.networks.parity import write_random_weights
from worker.faces.quality import REJECT_BELOW, assess
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.types import Chips, Detections, Image
from worker.video.clips import ClipReader, ClipWriter, open_clip

SIZE: Final = (1920, 1080)
MODEL_ID: Final = "vggface2-resnet50"
REAL_MODEL_ID: Final = "face-reidentification-retail-0095"
CHIPS: Final = 32
_SEED: Final = 20_260_101
_ENROLMENT_PLACES: Final = (0.2, 0.5, 0.8)


@dataclass(frozen=True, slots=True)
class Material:
    """Paths of the material.

    ``frames`` uint8 (n, H, W, 3) RGB and ``chips`` uint8 (32, 224, 224, 3) RGB are ``.npy`` files. ``manifest`` is that
    of the random weights, and ``gallery`` holds people who were enrolled with them. ``real_gallery`` holds the same
    people, enrolled with a model that recognises; ``real_problem`` says why there is none, otherwise it is empty.
    ``models_dir`` holds the weights of that model.
    """

    clip: Path
    frames: Path
    chips: Path
    manifest: Path
    gallery: Path
    real_gallery: Path
    real_problem: str
    people: int
    models_dir: Path | None


def make_material(
    folder: Path, clip: Path | None, frames: int, models_dir: Path | None, *, start: Starter = ContestantProcess
) -> Material:
    """Makes the material in ``folder``, in a process of its own.

    Args:
        folder: where the files are written.
        clip: footage; without one, facestream makes its own.
        frames: how many frames are taken, evenly over the clip.
        models_dir: holds the weights of the model that recognises.
        start: starts the process.

    Raises:
        UnableError: the clip cannot be read, or shows no face of at least 40 px.
    """
    arguments = {
        "folder": str(folder),
        "clip": str(clip) if clip else None,
        "frames": frames,
        "models_dir": str(models_dir) if models_dir else None,
    }
    with closing(start("worker.bench.material:prepare", arguments)) as maker:
        made = maker.work("make").answer
    paths = {name: Path(made[name]) for name in ("clip", "frames", "chips", "manifest", "gallery", "real_gallery")}
    return Material(**paths, real_problem=made["real_problem"], people=made["people"], models_dir=models_dir)


def prepare(folder: str, clip: str | None, frames: int, models_dir: str | None) -> Mapping[str, Work]:
    """The contestant that makes the material."""

    def make() -> dict[str, Any]:
        return _make(Path(folder), Path(clip) if clip else None, frames, Path(models_dir) if models_dir else None)

    return {"make": (make, lambda made: made)}


def _make(folder: Path, clip: Path | None, count: int, models_dir: Path | None) -> dict[str, Any]:
    clip = clip or own_clip(folder)
    pictures, to_enrol = _pictures(clip, count)
    # In this order the first half of the frames, too, is spread evenly over the clip.
    np.save(folder / "frames.npy", np.stack([*pictures[::2], *pictures[1::2]]))
    detector = load_detector(DetectionConfig(), cache_dir=cache_dir())
    manifest = random_model()
    embedder = load_embedder(str(manifest), models_dir=manifest.parent, cache_dir=cache_dir())
    np.save(folder / "chips.npy", _chips(pictures, detector, embedder))
    faces = [(picture, face) for picture in to_enrol for face in _fit_faces(picture, detector)]
    problem = ""
    try:
        real = load_embedder(REAL_MODEL_ID, models_dir=models_dir, cache_dir=cache_dir())
    except ModelError as error:
        problem = str(error)
        people = faces[:1]
    else:
        people = _different_people(faces, real)
        _enrol(folder / "real-gallery", people, real)
    _enrol(folder / "gallery", people, embedder)
    return {
        "clip": str(clip),
        "frames": str(folder / "frames.npy"),
        "chips": str(folder / "chips.npy"),
        "manifest": str(manifest),
        "gallery": str(folder / "gallery"),
        "real_gallery": str(folder / "real-gallery"),
        "real_problem": problem,
        "people": len(people),
    }


def random_model() -> Path:
    """The manifest of the default network with random weights of a fixed seed. Both are kept in the cache."""
    folder = cache_dir() / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / f"{MODEL_ID}-{_SEED}.yaml"
    if not manifest.exists():
        write_random_weights(MODEL_ID, manifest.with_suffix(".h5"), _SEED)
    return manifest


def own_clip(folder: Path) -> Path:
    """The footage of the demo at 1920x1080, for machines without a clip."""
    small, large = make_demo_clip(folder).clip, folder / "footage-1080p.mp4"
    with open_clip(small) as reader, ClipWriter(large, SIZE, reader.fps) as writer:
        for picture in reader:
            writer.write(np.asarray(cv2.resize(picture, SIZE, interpolation=cv2.INTER_CUBIC), np.uint8))
    return large


def _pictures(clip: Path, count: int) -> tuple[list[Image], list[Image]]:
    """``count`` frames evenly over the clip, and the frames from which people are enrolled."""
    with open_clip(clip) as reader:
        total = sum(1 for _ in reader)
    wanted = sorted({int(number) for number in np.linspace(0, total - 1, count)})
    places = {int(total * place) for place in _ENROLMENT_PLACES}
    pictures, to_enrol = [], []
    with open_clip(clip) as reader:
        for number, picture in enumerate(_checked(reader, clip)):
            if number in wanted:
                pictures.append(picture)
            if number in places:
                to_enrol.append(picture)
    return pictures, to_enrol


def _checked(reader: ClipReader, clip: Path) -> ClipReader:
    if reader.size != SIZE:
        raise SourceError(f"{clip} is {reader.size[0]}x{reader.size[1]}: give a clip of {SIZE[0]}x{SIZE[1]}")
    return reader


def _fit_faces(picture: Image, detector: FaceDetector) -> list[Detections]:
    """The faces of a picture that are good enough to be embedded, one in each entry."""
    (found,) = detector.detect([picture])
    fit = np.flatnonzero(assess(picture, found).scores >= REJECT_BELOW)
    return [found.take(np.array([index])) for index in fit]


def _chips(pictures: list[Image], detector: FaceDetector, embedder: FaceEmbedder) -> NDArray[np.uint8]:
    """A full batch of the largest faces of the pictures. Faces are repeated if there are too few."""
    found = [
        (float(area(face.boxes)[0]), picture, face) for picture in pictures for face in _fit_faces(picture, detector)
    ]
    if not found:
        raise SourceError("the clip shows no face of at least 40 px: give another one")
    largest = sorted(found, key=lambda entry: entry[0], reverse=True)[:CHIPS]
    chips = np.concatenate([embedder.align(picture, face).images for _, picture, face in largest])
    return np.resize(chips, (CHIPS, *chips.shape[1:])).astype(np.uint8)


def _different_people(faces: list[tuple[Image, Detections]], embedder: FaceEmbedder) -> list[tuple[Image, Detections]]:
    """The faces that are not similar to an earlier one."""
    chips = Chips.joined([embedder.align(picture, face) for picture, face in faces])
    vectors = embedder.embed(chips).vectors
    alike = vectors @ vectors.T
    kept: list[int] = []
    for index in range(len(faces)):
        if not kept or alike[index, kept].max() < embedder.threshold:
            kept.append(index)
    return [faces[index] for index in kept]


def _enrol(path: Path, people: list[tuple[Image, Detections]], embedder: FaceEmbedder) -> None:
    gallery = FolderGallery.create(path, embedder.model_id, embedder.preprocessing_digest, embedder.dimension)
    samples = []
    for number, (picture, face) in enumerate(people, start=1):
        (vector,) = embedder.embed(embedder.align(picture, face)).vectors
        digest = hashlib.sha256(face.boxes.tobytes() + picture.tobytes()).hexdigest()
        samples.append(NewSample(f"person {number}", vector, f"frame face {number}", digest))
    gallery.add(samples)


def rows_of(found: Detections) -> list[list[float]]:
    """x1, y1, x2, y2 px and score of each face, in JSON types."""
    rows: list[list[float]] = np.column_stack([found.boxes, found.scores]).astype(float).tolist()
    return rows


DIMENSION: Final = 2048
_RANK: Final = 256
_CHUNK: Final = 62_500  # a million vectors are 16 chunks: the index of FAISS doubles to exactly this size
_WITHIN: Final = 0.5
_NOISE: Final = 0.3
_NOISE_ROWS: Final = 4096


def stored_vectors(folder: Path, people: int, samples: int) -> list[NDArray[np.float32]]:
    """Unit vectors of ``people`` with ``samples`` each, person after person, in blocks float32 (n, 2048).

    The blocks are mapped from files in ``folder``. Files that do not exist yet are made.
    """
    folder.mkdir(exist_ok=True)
    total, blocks = people * samples, []
    for first in range(0, total, _CHUNK):
        path = folder / f"{samples}-{total}-{first}.npy"
        if not path.exists():
            np.save(path, _vectors(np.arange(first, min(total, first + _CHUNK)) // samples, first))
        blocks.append(np.load(path, mmap_mode="r"))
    return blocks


def query_vectors(people: int, samples: int, count: int) -> NDArray[np.float32]:
    """New unit vectors float32 (count, 2048): every fourth of a stranger, the others of people all over the gallery."""
    who = np.linspace(0, people - 1, count).astype(np.int64)
    who[::4] = people + np.arange(len(who[::4]))
    return _vectors(who, people * samples)


def _vectors(who: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """A vector of each person in ``who``. Another ``seed`` gives other samples of the same people."""
    random = np.random.default_rng([seed, 1])
    known, places = np.unique(who, return_inverse=True)
    centres = np.stack([np.random.default_rng([int(one), 2]).standard_normal(_RANK, np.float32) for one in known])
    latent = centres[places] + _WITHIN * random.standard_normal((len(who), _RANK), np.float32)
    mixing, noise = _mixing()
    made = latent @ mixing
    made += noise[random.integers(0, len(noise), len(who))]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made


def _mixing() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """How the 256 latent directions show in a vector, the first ones most, and rows of noise to add."""
    random = np.random.default_rng(3)
    weights = (1 + np.arange(_RANK, dtype=np.float32)) ** -0.25
    mixing = weights[:, None] * random.standard_normal((_RANK, DIMENSION), np.float32)
    spread = float(np.sqrt(np.square(weights).sum()))
    return mixing, _NOISE * spread * random.standard_normal((_NOISE_ROWS, DIMENSION), np.float32)
