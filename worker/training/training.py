"""Trains classifiers with photos: faces are found and cut out as in the stream, learnt, and tested on other photos."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from worker.errors import ClassifierError
from worker.faces import alignment
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.gallery.classifier import Classifier, write_classifier
from worker.training import cnn, svm
from worker.training.answers import (
    STRANGER_RATE,
    Answer,
    Answers,
    Judgement,
    Limits,
    fit_limits,
    judge,
    measure_strangers,
)
from worker.training.dataset import DataSet, Embedded, FacesFrom, Photo, cut_faces, require_photos
from worker.training.output import drop_old_networks, require_own_folder, write_network, write_npz
from worker.types import Chips, Detections, Embeddings, Image
from worker.wire import now_rfc3339

Advance = Callable[[int], None]
_NOTHING: Final[Advance] = lambda _count: None  # noqa: E731


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training. ``report`` is JSON. ``test`` is None if there were no photos to test with."""

    report: dict[str, Any]
    test: Judgement | None
    history: list[cnn.Epoch] = field(default_factory=list)


def train_svm(
    data: DataSet,
    detector: FaceDetector,
    embedder: FaceEmbedder,
    output: Path,
    *,
    seed: int = 0,
    stranger_rate: float = STRANGER_RATE,
    npz: Path | None = None,
    advance: Advance = _NOTHING,
) -> Trained:
    """Trains a linear SVM on the embeddings of ``data`` and writes it to the folder ``output``.

    Args:
        data: the photos to train and to test with.
        detector: finds the faces.
        embedder: makes the embeddings.
        output: the folder.
        seed: of everything random.
        stranger_rate: the share of the photos of strangers that may get a name.
        npz: file for the faces, embeddings and names of all photos. These are biometric data.
        advance: is told how many photos are done.

    Raises:
        SourceError: a person has too few photos with a face.
        ClassifierError: ``output`` holds something else, or cannot be written.
    """
    started = time.monotonic()
    require_own_folder(output)
    trained = _embed(data.train, detector, embedder, data, advance, keep=npz is not None)
    data.train = trained.photos
    require_photos(data, svm.LEAST_PHOTOS)
    names, people = _numbered(trained.photos)
    head = svm.fit(trained.vectors, people, seed)
    held_out = svm.hold_people_out(trained.vectors, people, seed)
    limits, rejection = _limits(held_out, stranger_rate, least_cosine=embedder.threshold)
    description = write_classifier(
        output, head, trained.vectors, people, kind="svm", created_at=now_rfc3339(), model_id=embedder.model_id,
        preprocessing_digest=embedder.preprocessing_digest, dimension=embedder.dimension, people=names,
        threshold=limits.cosine, least_probability=limits.probability, fitted=rejection,
    )  # fmt: skip
    test = _test(data, output, detector, embedder, advance, npz=npz, trained=trained)
    report = {
        "kind": "svm", "model_id": embedder.model_id, "classifier_version": description.version, "seed": seed,
        **_data_report(data, names, people), **_limits_report(limits, rejection),
        "cross_validation": _cross_validation(trained.vectors, people, data, seed),
        "duration_s": round(time.monotonic() - started, 1),
    }  # fmt: skip
    return Trained(report, test)


def train_cnn(
    data: DataSet,
    detector: FaceDetector,
    output: Path,
    load: Callable[[Path], FaceEmbedder],
    *,
    settings: cnn.Settings,
    faces: FacesFrom = "detect",
    resume: bool = False,
    stranger_rate: float = STRANGER_RATE,
    advance: Advance = _NOTHING,
    on_epoch: cnn.OnEpoch = lambda _epoch, _total: None,
) -> Trained:
    """Trains a convolutional network on the faces of ``data`` and writes it to the folder ``output`` with its embedder.

    Args:
        data: the photos to train and to test with.
        detector: finds the faces.
        output: the folder.
        load: makes an embedder from the path of a manifest.
        settings: of the training.
        faces: where the face of a photo is.
        resume: continue an interrupted training with the same photos.
        stranger_rate: the share of the photos of strangers that may get a name.
        advance: is told how many photos are done.
        on_epoch: is told of each epoch.

    Raises:
        SourceError: a person has too few photos with a face.
        ClassifierError: ``output`` holds something else or an unfinished training, or cannot be written.
        ModelError: the checkpoint cannot be used to continue.
    """
    started = time.monotonic()
    require_own_folder(output)
    checkpoint = output / cnn.CHECKPOINT_FILE
    if checkpoint.exists() and not resume:
        raise ClassifierError(
            f"{output} holds an unfinished training: continue it with --resume, or remove {checkpoint}"
        )
    kept, images = _grey_faces(data, detector, faces, advance)
    data.train = kept
    require_photos(data, cnn.LEAST_PHOTOS)
    names, people = _numbered(kept)
    run = cnn.ResumableTraining(images, people, settings, checkpoint, _new_network, on_epoch)
    if resume:
        run.resume()
    learnt = run.train()
    held_out = (learnt.known, learnt.strangers) if len(learnt.strangers) else None
    limits, rejection = _limits(held_out, stranger_rate, known=learnt.known)
    embedder = load(write_network(output, learnt.network.weights, limits.cosine))
    references = embedder.embed(Chips(np.repeat(images[..., None], 3, axis=3), "rgb")).vectors
    description = write_classifier(
        output, learnt.head, references, people, kind="cnn", created_at=now_rfc3339(), model_id=embedder.model_id,
        preprocessing_digest=embedder.preprocessing_digest, dimension=embedder.dimension, people=names,
        threshold=limits.cosine, least_probability=limits.probability, embedder=f"{embedder.model_id}.yaml",
        fitted=rejection,
    )  # fmt: skip
    drop_old_networks(output, embedder.model_id)
    test = _test(data, output, detector, embedder, advance, faces=faces)
    checkpoint.unlink(missing_ok=True)
    resumed = learnt.resumed_at
    report = {
        "kind": "cnn", "model_id": embedder.model_id, "classifier_version": description.version,
        "seed": settings.seed, **_data_report(data, names, people), **_limits_report(limits, rejection),
        "epochs": learnt.epochs, "resumed_after": f"{resumed.stage} epoch {resumed.number + 1}" if resumed else None,
        "duration_s": round(time.monotonic() - started, 1),
    }  # fmt: skip
    return Trained(report, test, learnt.history)


def _embed(
    photos: Sequence[Photo], detector: FaceDetector, embedder: FaceEmbedder, data: DataSet, advance: Advance,
    *, keep: bool = False, central: bool = False, faces: FacesFrom = "detect",
) -> Embedded:  # fmt: skip
    found = Embedded([], np.empty((0, embedder.dimension), np.float32), [])
    vectors = [found.vectors]
    cut = cut_faces(
        photos, detector, embedder.align, data.left_out, faces=faces, central=central, enlarge=cnn.ENLARGE,
        advance=advance,
    )  # fmt: skip
    for some, chips in cut:
        found.photos += some
        vectors.append(embedder.embed(chips).vectors)
        found.chips += [chips.images.astype(np.uint8)] if keep else []
    found.vectors = np.concatenate(vectors)
    return found


def _grey_faces(
    data: DataSet, detector: FaceDetector, faces: FacesFrom, advance: Advance
) -> tuple[list[Photo], NDArray[np.uint8]]:
    from worker.faces.networks.face_cnn import SIDE

    def align(image: Image, face: Detections) -> Chips:
        matrices = alignment.box_matrices(face.boxes, SIDE, cnn.ENLARGE, SIDE)
        return Chips(alignment.warp(image, matrices, SIDE), "rgb")

    photos, images = [], []
    cut = cut_faces(data.train, detector, align, data.left_out, faces=faces, enlarge=cnn.ENLARGE, advance=advance)
    for some, chips in cut:
        photos += some
        images += [cv2.cvtColor(chip, cv2.COLOR_RGB2GRAY) for chip in chips.images]
    return photos, np.array(images, np.uint8).reshape(len(images), SIDE, SIDE)


def _numbered(photos: Sequence[Photo]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    names, people = np.unique(np.array([photo.name for photo in photos], dtype=np.str_), return_inverse=True)
    return tuple(names.tolist()), people.astype(np.int64)


def _new_network(people: int, epochs: int, seed: int) -> Any:
    from worker.faces.networks.face_cnn import Training

    return Training(people, epochs, seed)


def _limits(
    held_out: tuple[Answers, Answers] | None, stranger_rate: float, *, known: Answers | None = None,
    least_cosine: float = -1.0,
) -> tuple[Limits, dict[str, Any]]:  # fmt: skip
    """The limits, and in JSON types how they were found."""
    if held_out is None:
        nobody = Answers(np.empty(0), np.empty(0), np.empty(0, bool), np.empty(0, np.int64))
        limits = fit_limits(known, nobody) if known is not None else Limits(0.5, least_cosine)
        return limits, {"held_out_people": 0, "target_stranger_rate": stranger_rate}
    answers, strangers = held_out
    limits = fit_limits(answers, strangers, stranger_rate=stranger_rate, least_cosine=least_cosine)
    rate = measure_strangers(answers, strangers, stranger_rate=stranger_rate, least_cosine=least_cosine)
    return limits, {
        "held_out_people": len(np.unique(strangers.people)),
        "target_stranger_rate": stranger_rate,
        "stranger_photos": len(strangers),
        "strangers_named": None if np.isnan(rate) else round(rate, 4),
        "known_photos": len(answers),
        "known_named_rightly": round(float(np.mean(limits.named(answers) & answers.right)), 4),
    }


def _test(
    data: DataSet, output: Path, detector: FaceDetector, embedder: FaceEmbedder, advance: Advance,
    *, faces: FacesFrom = "detect", npz: Path | None = None, trained: Embedded | None = None,
) -> Judgement | None:  # fmt: skip
    """What the classifier in ``output`` says of the test photos and the strangers, decided as ``identify`` does."""
    photos = [*data.test, *data.strangers]
    found = _embed(photos, detector, embedder, data, advance, keep=npz is not None, central=True, faces=faces)
    if npz and trained:
        write_npz(npz, trained, found)
    if not photos:
        return None
    classifier = Classifier.open(output)
    candidates = classifier.search(Embeddings(found.vectors, embedder.model_id))
    limits = Limits(classifier.least_probability, classifier.threshold)
    said = dict(zip((photo.path for photo in found.photos), candidates, strict=True))
    reasons = {gone.photo.path: gone.reason for gone in data.left_out}
    answers = [
        Answer(photo, said.get(photo.path), "" if photo.path in said else reasons.get(photo.path, "no_face"))
        for photo in photos
    ]
    return judge(answers, classifier.people, limits)


def _cross_validation(
    vectors: NDArray[np.float32], people: NDArray[np.int64], data: DataSet, seed: int
) -> dict[str, Any]:
    """The cross-validation in JSON types. Photos in which no face was found count as errors."""
    lost = len([gone for gone in data.left_out if gone.reason in NO_ANSWER and not _is_test(gone.photo, data)])
    if not svm.can_cross_validate(people):
        return {"accuracy": None, "problem": f"a person has fewer than {svm.LEAST_PHOTOS + 1} photos"}
    right, fold = svm.cross_validate(vectors, people, seed)
    by_fold = [float(right[fold == number].mean()) for number in range(int(fold.max()) + 1)]
    return {
        "folds": len(by_fold),
        "photos": len(right) + lost,
        "without_face": lost,
        "accuracy": round(float(right.sum()) / (len(right) + lost), 4),
        "accuracy_of_faces": round(float(right.mean()), 4),
        "spread_of_folds": round(float(np.std(by_fold)), 4),
    }


def _is_test(photo: Photo, data: DataSet) -> bool:
    return photo in data.test or photo in data.strangers


NO_ANSWER: Final = frozenset({"no_face", "several_faces", "unreadable"})
"""Photos left out for these reasons count as errors. Copies do not."""


def _data_report(data: DataSet, names: Sequence[str], people: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "people": dict(zip(names, np.bincount(people).tolist(), strict=True)),
        "photos": {"train": len(people), "test": len(data.test), "strangers": len(data.strangers)},
        "left_out": [
            {"path": str(gone.photo.path), "name": gone.photo.name, "reason": gone.reason, "detail": gone.detail}
            for gone in data.left_out
        ],
    }


def _limits_report(limits: Limits, rejection: dict[str, Any]) -> dict[str, Any]:
    return {
        "threshold": round(limits.cosine, 4),
        "least_probability": round(limits.probability, 4),
        "rejection": rejection,
    }
