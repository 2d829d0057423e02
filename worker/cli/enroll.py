"""``facestream enroll``: photos become people of a gallery."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.common import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    DetectorName,
    EngineName,
    GalleryPath,
    ModelName,
    ModelsDir,
    gallery_key,
    open_embedder,
    photo_detector,
    print_json,
    quiet_logs,
)
from worker.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(enroll)


def enroll(
    photos: Annotated[
        list[Path],
        typer.Argument(help="A folder of one folder per person, or of one photo per person named after them."),
    ],
    gallery: GalleryPath,
    model: ModelName = None,
    models_dir: ModelsDir = None,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    min_face_px: Annotated[int, typer.Option("--min-face-px", min=12, help="Smallest face, px.")] = PHOTO_MIN_FACE_PX,
    min_quality: Annotated[
        float | None,
        typer.Option("--min-quality", min=0, max=1, help="Faces below this quality are not taken (default: 0.2)."),
    ] = None,
    keep_crops: Annotated[
        bool | None,
        typer.Option(
            "--keep-crops/--no-keep-crops",
            help="Keep the face of each photo beside the gallery, so that another model can embed it; encrypted if "
            "FACESTREAM_GALLERY_KEY is set (default: as before in this gallery; no for a new one).",
        ),
    ] = None,
    json_output: AsJson = False,
) -> int:
    """Add people to a gallery (made if it does not exist); says for each photo what was taken or why not."""
    from worker.config import DEFAULT_MODEL_ID, load_config
    from worker.faces.quality import REJECT_BELOW
    from worker.gallery import opening as galleries
    from worker.gallery.crops import CropStore
    from worker.gallery.enrolment import enroll_photos, people_of

    quiet_logs()
    for path in photos:
        people_of(path)  # a mistyped path is told before a gallery is made
    redis = load_config(None, {}).redis
    crops = None if galleries.is_shared(gallery) else CropStore(gallery, gallery_key())
    if keep_crops and crops is None:
        raise ConfigError("--keep-crops: a shared gallery keeps no pictures of faces; enroll without it")
    keep = crops.exists if crops and keep_crops is None else keep_crops
    existing = galleries.open_gallery(gallery, redis=redis) if galleries.gallery_exists(gallery, redis=redis) else None
    embedder = open_embedder(model or (existing.model_id if existing else DEFAULT_MODEL_ID), models_dir, engine)
    if existing:
        existing.require_model(embedder.model_id, embedder.preprocessing_digest)
    searcher = photo_detector(min_face_px, engine, detector, models_dir)
    target = existing or galleries.create_gallery(
        gallery, embedder.model_id, embedder.preprocessing_digest, embedder.dimension, redis=redis
    )
    accepted = rejected = 0
    limit = REJECT_BELOW if min_quality is None else min_quality
    results = enroll_photos(photos, target, searcher, embedder, min_quality=limit, crops=crops if keep else None)
    for result in results:
        accepted, rejected = accepted + result.accepted, rejected + (not result.accepted)
        if json_output:
            print_json(dataclasses.asdict(result) | {"path": str(result.path)})
        else:
            verdict = "taken" if result.accepted else "not taken"
            reason = "".join(f"{mark}{text}" for mark, text in ((": ", result.reason), (", ", result.detail)) if text)
            typer.echo(f"{result.path}: {verdict}{reason} (quality {result.quality:.2f})")
    if not json_output:
        typer.echo(f"{accepted} photos taken, {rejected} not; {len(target.people())} people in {target.label}")
    return 0 if accepted else 1
