"""``facestream report``: one photo against others, with pictures."""

import json
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.common import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    DetectorName,
    EngineName,
    MinFacePx,
    ModelName,
    ModelsDir,
    open_embedder,
    photo_detector,
    print_json,
    quiet_logs,
)


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(report)


def report(
    images: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    probe: Annotated[Path, typer.Option("--probe", metavar="PHOTO", help="The person to compare with.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for pictures and data.")],
    model: ModelName = None,
    models_dir: ModelsDir = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="Cosine from which they are one.")] = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """Compare one person with every face in photos: a picture of each face with its verdict, and a summary sheet."""
    from worker.config import DEFAULT_MODEL_ID
    from worker.errors import SinkError
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
        lines.append(json.dumps(document, ensure_ascii=False) + "\n")
        unreadable += finding.reason == "unreadable"
        if finding.reason == "unreadable":
            typer.echo(f"facestream: error: {finding.detail}", err=True)
        if json_output:
            print_json(document)
        elif not finding.reason:
            typer.echo(f"{finding.path}: {finding.caption}")
        elif finding.reason == "no_face":
            typer.echo(finding.detail)
    summary = writer.summarise(embedder.model_id, limit)
    try:
        (output / DATA_NAME).write_text("".join(lines), encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write {output / DATA_NAME}: {error.strerror or error}") from None
    if not json_output:
        typer.echo(f"written: {summary}, {output / DATA_NAME} and a picture of each face")
    return 1 if unreadable else 0
