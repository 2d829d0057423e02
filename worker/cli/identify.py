"""``facestream detect``, ``identify``, ``verify`` and ``report``: photos instead of streams, the same networks."""

import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.options import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    DetectorName,
    DrawDir,
    EngineName,
    MinFacePx,
    ModelName,
    ModelsDir,
    NamingThreshold,
    SameThreshold,
    no_face,
    open_embedder,
    open_gallery,
    photo_detector,
    quiet_logs,
)
from worker.cli.screen import complain, count_of, fit, json_line, print_json, say, say_lines, screen_width
from worker.errors import ConfigError, FacestreamError, HistoryError
from worker.files import writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from worker.gallery.classifier import Classifier
    from worker.gallery.gallery import Gallery
    from worker.recognition.counter_examples import CounterExamples
    from worker.types import Detections, Image

MaybeGalleryPath = Annotated[str | None, typer.Option("--gallery", metavar="PATH", help="Who is known: a gallery.")]
ClassifierPath = Annotated[
    str | None, typer.Option("--classifier", metavar="DIR", help="Who is known: what 'facestream train' made.")
]
Images = Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("detect")(detect)
    app.command("identify")(identify)
    app.command("verify")(verify)
    app.command("report")(report)


def detect(
    images: Images,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    models_dir: ModelsDir = None,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    draw: DrawDir = None,
    json_output: AsJson = False,
) -> int:
    """Find the faces in photos."""
    quiet_logs()
    searcher = photo_detector(min_face_px, engine, detector, models_dir)
    failed = 0
    for path, image in _read_all(images):
        if isinstance(image, FacestreamError):
            failed += 1
            continue
        started = time.perf_counter()
        (found,) = searcher.detect([image])
        milliseconds = (time.perf_counter() - started) * 1000
        if json_output:
            print_json(
                {
                    "path": str(path),
                    "boxes": _rounded(found.boxes, 2),
                    "scores": _rounded(found.scores, 4),
                    "landmarks": _rounded(found.landmarks, 2),
                    "ms": round(milliseconds, 1),
                }
            )
        else:
            say(f"{path}: {count_of(len(found), 'face')} ({milliseconds:.0f} ms)")
            for box, score in zip(found.boxes.round().astype(int).tolist(), found.scores.tolist(), strict=True):
                say(f"  {box[0]},{box[1]},{box[2]},{box[3]}  score {score:.3f}")
        if draw:
            _draw(draw, path, image, found, [f"{score:.2f}" for score in found.scores.tolist()])
    return 1 if failed else 0


def identify(
    images: Images,
    gallery: MaybeGalleryPath = None,
    classifier: ClassifierPath = None,
    model: ModelName = None,
    models_dir: ModelsDir = None,
    threshold: NamingThreshold = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    draw: DrawDir = None,
    json_output: AsJson = False,
) -> int:
    """Say who is in photos: a line for each face."""
    from worker.faces.embedding import embed_faces
    from worker.recognition.matching import identify_faces

    quiet_logs()
    opened, model_of_it = _open_known(gallery, classifier)
    embedder = open_embedder(model or model_of_it, models_dir, engine)
    opened.require_model(embedder.model_id, embedder.preprocessing_digest)
    denied = _counter_examples(gallery, opened)
    searcher = photo_detector(min_face_px, engine, detector, models_dir)
    limit = threshold if threshold is not None else opened.threshold
    if limit is None:
        limit = embedder.threshold
    failed = 0
    for path, image in _read_all(images):
        if isinstance(image, FacestreamError):
            failed += 1
            continue
        found, embeddings = embed_faces(image, searcher, embedder)
        matches = identify_faces(
            embeddings, opened, limit, *([denied.search] if denied else []), same_for_all=threshold is not None
        )
        if not json_output and not matches:
            say(f"{path}: no face found")
        for index, match in enumerate(matches):
            face = {
                "path": str(path),
                "box": _rounded(found.boxes[index], 2),
                "score": round(float(found.scores[index]), 4),
                "identity_id": match.identity_id or "",
                "identity_name": match.identity_name,
                "similarity": round(match.similarity, 4),
                "distance": round(math.sqrt(max(0.0, 2 - 2 * match.similarity)), 4),
                "threshold": match.threshold,
                "reason": match.reason,
            }
            if match.probability is not None:
                face["probability"] = round(match.probability, 4)
            if json_output:
                print_json(face)
            else:
                name = match.identity_name or f"(unknown: {match.reason})"
                columns = [f"{path}: {name}", f"cosine {match.similarity:.3f}", f"distance {face['distance']:.3f}"]
                if match.probability is not None:
                    columns.append(f"probability {match.probability:.3f}")
                say_lines(fit(columns, screen_width()))
        if draw:
            _draw(draw, path, image, found, [match.identity_name or "unknown" for match in matches])
    return 1 if failed else 0


def verify(
    image_a: Annotated[Path, typer.Argument(help="A photo.")],
    image_b: Annotated[Path, typer.Argument(help="Another photo.")],
    model: ModelName = None,
    models_dir: ModelsDir = None,
    threshold: SameThreshold = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    draw: Annotated[Path | None, typer.Option("--draw", metavar="FILE", help="Write both faces as a picture.")] = None,
    json_output: AsJson = False,
) -> int:
    """Say whether two photos show the same person (in each, the face nearest the centre)."""
    from worker.config import DEFAULT_MODEL_ID
    from worker.faces.detection import central_face
    from worker.video.photos import read_photo

    quiet_logs()
    embedder = open_embedder(model or DEFAULT_MODEL_ID, models_dir, engine)
    searcher = photo_detector(min_face_px, engine, detector, models_dir)
    limit = embedder.threshold if threshold is None else threshold
    faces = []
    for path in (image_a, image_b):
        image = read_photo(path)
        face = central_face(image, searcher)
        if not len(face):
            raise no_face(path)
        faces.append((path, image, face))
    vectors = [embedder.embed(embedder.align(image, face)).vectors[0] for _path, image, face in faces]
    similarity = float(vectors[0] @ vectors[1])
    same = similarity >= limit
    if json_output:
        print_json(
            {
                "similarity": round(similarity, 6),
                "threshold": limit,
                "same": same,
                "model_id": embedder.model_id,
            }
        )
    else:
        verdict = "the same person" if same else "different people"
        say(f"{verdict}: cosine {similarity:.3f}, threshold {limit:.3f} ({embedder.model_id})")
    if draw:
        from worker.video.drawing import pair_sheet

        caption = f"{'same' if same else 'different'}: cosine {similarity:.3f}, threshold {limit:.3f}"
        pair_sheet([(path.name, image, face) for path, image, face in faces], caption, draw)
    return 0


def report(
    images: Images,
    probe: Annotated[Path, typer.Option("--probe", metavar="PHOTO", help="The person to compare with.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for pictures and data.")],
    model: ModelName = None,
    models_dir: ModelsDir = None,
    threshold: SameThreshold = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """Compare one person with every face in photos: a picture of each face with its verdict, and a summary sheet."""
    from worker.config import DEFAULT_MODEL_ID
    from worker.evaluation.pictures import DATA_NAME, FaceComparer, PictureWriter, face_document
    from worker.video.photos import list_photos, read_photo

    quiet_logs()
    probe_image = read_photo(probe)
    photos = list(dict.fromkeys(path for given in images for path in list_photos(given)))
    embedder = open_embedder(model or DEFAULT_MODEL_ID, models_dir, engine)
    limit = embedder.threshold if threshold is None else threshold
    comparison = FaceComparer(photo_detector(min_face_px, engine, detector, models_dir), embedder, limit)
    compared = comparison.probe(probe, probe_image)
    writer = PictureWriter(output, compared)
    unreadable, lines = 0, []
    for finding in comparison.compare(compared, photos):
        document = face_document(finding, writer.add(finding), limit, embedder.model_id)
        lines.append(json_line(document))
        unreadable += finding.reason == "unreadable"
        if finding.reason == "unreadable":
            complain(finding.detail)
        if json_output:
            print_json(document)
        elif not finding.reason:
            say(f"{finding.path}: {finding.caption}")
        elif finding.reason == "no_face":
            say(finding.detail)
    summary = writer.summarise(embedder.model_id, limit)
    with writing(output / DATA_NAME):
        (output / DATA_NAME).write_text("".join(lines), encoding="utf-8")
    if not json_output:
        say(f"written: {summary}, {output / DATA_NAME} and a picture of each face")
    return 1 if unreadable else 0


def _open_known(gallery: str | None, classifier: str | None) -> "tuple[Gallery | Classifier, str]":
    """The gallery or the classifier, and what loads its embedder."""
    if (gallery is None) == (classifier is None):
        raise ConfigError("give one of --gallery PATH and --classifier DIR: who is known")
    if classifier is not None:
        from worker.gallery.classifier import Classifier

        trained = Classifier.open(classifier)
        return trained, trained.model
    opened = open_gallery(gallery or "")
    return opened, opened.model_id


def _counter_examples(gallery: str | None, opened: "Gallery | Classifier") -> "CounterExamples | None":
    """Whom faces were said not to show, as the history beside a gallery knows it; None without a history."""
    from worker.config import history_folder, load_config
    from worker.history.records import EmbedderId
    from worker.history.store import FILE, History
    from worker.logs import get_logger
    from worker.recognition.counter_examples import CounterExamples

    folder = None if gallery is None else history_folder(load_config(None, {"gallery": gallery}))
    if folder is None or not (folder / FILE).exists():
        return None
    try:
        history = History.open(folder)
    except HistoryError as error:
        get_logger(__name__).warning("corrections of past sightings do not count here", reason=str(error))
        return None
    found = CounterExamples(EmbedderId(opened.model_id, opened.preprocessing_digest), history)
    found.refresh(opened)
    return found


def _read_all(paths: Sequence[Path]) -> "Iterator[tuple[Path, Image | FacestreamError]]":
    """Every photo with its pixels, or with the error that was already told on standard error."""
    from worker.video.photos import list_photos, read_photo

    for given in paths:
        try:
            photos = list_photos(given)
        except FacestreamError as error:
            complain(str(error))
            yield given, error
            continue
        for path in photos:
            try:
                yield path, read_photo(path)
            except FacestreamError as error:
                complain(str(error))
                yield path, error


def _draw(folder: Path, path: Path, image: "Image", found: "Detections", labels: list[str]) -> None:
    from worker.video.drawing import draw_faces, save_picture

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    save_picture(draw_faces(image, found.boxes, labels, found.landmarks), folder / f"{path.stem}.jpg")


def _rounded(values: "NDArray[np.float32]", decimals: int) -> list[Any]:
    """The numbers as nested lists, each as short as ``decimals`` allow."""
    if values.ndim == 1:
        return [round(value, decimals) for value in values.tolist()]
    return [_rounded(row, decimals) for row in values]
