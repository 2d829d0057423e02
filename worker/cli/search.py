"""``facestream search``: when and where was the person in this photo seen?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli.common import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    ConfigFile,
    EngineName,
    MinFacePx,
    ModelName,
    ModelsDir,
    open_embedder,
    open_gallery,
    photo_detector,
    print_json,
    quiet_logs,
)
from worker.cli.past import (
    CameraOption,
    GalleryOption,
    Since,
    StateDir,
    Until,
    open_past,
    parse_time,
    settings,
    sighting_json,
    time_text,
    who,
)


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(search)


def search(
    photo: Annotated[Path, typer.Argument(help="A photo of one person.")],
    since: Since = "24h",
    until: Until = None,
    camera: CameraOption = None,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="Least cosine to be listed.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most sightings listed.")] = 100,
    model: ModelName = None,
    models_dir: ModelsDir = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """List the past sightings of whoever is in a photo, known and unknown, the most similar first."""
    from worker.config import DEFAULT_MODEL_ID
    from worker.history.store import EmbedderId

    quiet_logs()
    first, last = parse_time(since, "--since"), parse_time(until, "--until")
    config_ = settings(config, gallery, state_dir)
    with open_past(config_) as history:
        opened = None if config_.gallery is None else open_gallery(config_.gallery, config_.redis)
        made_with = opened.model_id if opened else history.newest_model()
        embedder = open_embedder(model or made_with or DEFAULT_MODEL_ID, models_dir or config_.models_dir, engine)
        if opened:
            opened.require_model(embedder.model_id, embedder.preprocessing_digest)
        probe = _embed(photo, photo_detector(min_face_px, engine), embedder)
        if threshold is None:
            threshold = opened.threshold if opened else None
        if threshold is None:
            threshold = embedder.threshold
        found = history.similar(
            probe,
            EmbedderId(embedder.model_id, embedder.preprocessing_digest),
            threshold,
            since=first,
            until=last,
            camera_id=camera,
            limit=limit,
        )
    for sighting, similarity in found:
        if json_output:
            print_json(sighting_json(sighting) | {"similarity": round(similarity, 4), "threshold": threshold})
        else:
            typer.echo(
                f"{time_text(sighting.started_at)}  {sighting.camera_id:<16}  cosine {similarity:.3f}  "
                f"{who(sighting):<24}  {sighting.sighting_id}"
            )
    if not json_output:
        typer.echo(f"{len(found)} sightings at cosine {threshold:.3f} or more")
    return 0


def _embed(photo: Path, detector: Any, embedder: Any) -> Any:
    """The unit vector (d,) of the one face that the photo shows."""
    from worker.errors import SourceError
    from worker.gallery.enrolment import choose_face
    from worker.video.photos import read_photo

    image = read_photo(photo)
    (found,) = detector.detect([image])
    chosen, problem = choose_face(found, (image.shape[1], image.shape[0]))
    if problem == "no_face":
        raise SourceError(f"{photo}: no face found; use a photo in which the face is larger or turned to the camera")
    if problem:
        raise SourceError(f"{photo}: {len(found)} faces of similar size; cut out the one that is meant")
    return embedder.embed(embedder.align(image, chosen)).vectors[0]
