"""``facestream search`` and ``explain``: what is remembered of past sightings.

What :mod:`worker.cli.unknown` shares with them is here too.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    ConfigFile,
    EngineName,
    MinFacePx,
    ModelName,
    ModelsDir,
    no_face,
    open_embedder,
    open_gallery,
    photo_detector,
    quiet_logs,
)
from worker.cli.screen import (
    Document,
    count_of,
    fit,
    padded,
    print_json,
    say,
    say_lines,
    screen_width,
    time_text,
    wrapped,
)
from worker.errors import ConfigError, HistoryError, SourceError

if TYPE_CHECKING:
    from worker.config import Config
    from worker.faces.detection import FaceDetector
    from worker.faces.embedding import FaceEmbedder
    from worker.history.records import PastSighting, Vector
    from worker.history.store import History

GalleryOption = Annotated[
    str | None, typer.Option("--gallery", metavar="PATH", help="Folder of the gallery, or the URL of its database.")
]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Folder of the history (default: beside the gallery).")
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Age such as 30m, 24h or 7d, or a time such as 2026-03-01T08:30.")
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="End of the time, written in the same way (default: now).")
]
CameraOption = Annotated[str | None, typer.Option("--camera", "--camera-id", metavar="ID", help="Only this camera.")]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("search")(search)
    app.command("explain")(explain)


def search(
    photo: Annotated[Path, typer.Argument(help="A photo of one person.")],
    since: Since = "24h",
    until: Until = None,
    camera: CameraOption = None,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    threshold: Annotated[
        float | None,
        typer.Option("--threshold", help="Lowest cosine of a sighting that is listed (default: as in use)."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most sightings that are listed.")] = 100,
    model: ModelName = None,
    models_dir: ModelsDir = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """List the past sightings of the person in a photo, known or unknown, the most similar first."""
    from worker.audit_log import note
    from worker.config import DEFAULT_MODEL_ID
    from worker.history.documents import sighting_document
    from worker.history.records import EmbedderId

    quiet_logs()
    first, last = parse_time(since, "--since"), parse_time(until, "--until")
    config_ = settings(config, gallery, state_dir)
    with open_history(config_, "search") as history:
        opened = None if config_.gallery is None else open_gallery(config_.gallery)
        made_with = history.newest_model() if opened is None else opened.model_id
        embedder = open_embedder(model or made_with or DEFAULT_MODEL_ID, models_dir or config_.models_dir, engine)
        if opened is not None:
            opened.require_model(embedder.model_id, embedder.preprocessing_digest)
        probe = _embed_photo(photo, photo_detector(min_face_px, engine), embedder)
        if threshold is None and opened is not None:
            threshold = opened.threshold
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
    subjects = {one for sighting, _ in found for one in (sighting.identity_id, sighting.unknown_id) if one}
    note(audit_folder(config_), "past found", subjects, command="search", sightings=len(found))
    for sighting, similarity in found:
        if json_output:
            print_json(sighting_document(sighting) | {"similarity": round(similarity, 4), "threshold": threshold})
        else:
            when, camera_id = time_text(sighting.started_at), padded(sighting.camera_id, 16)
            columns = [when, camera_id, f"cosine {similarity:.3f}", padded(who(sighting), 24), sighting.sighting_id]
            say_lines(fit(columns, screen_width()))
    if not json_output:
        say(f"{count_of(len(found), 'sighting')} at cosine {threshold:.3f} or more")
    return 0


def _embed_photo(photo: Path, detector: "FaceDetector", embedder: "FaceEmbedder") -> "Vector":
    """The vector of the one face that the photo shows: float32 (d,), unit length.

    Raises:
        SourceError: the photo cannot be read, or shows no face or several.
    """
    from worker.gallery.enrolment import choose_face
    from worker.video.photos import read_photo

    image = read_photo(photo)
    (found,) = detector.detect([image])
    chosen, problem = choose_face(found, (image.shape[1], image.shape[0]))
    if problem == "no_face":
        raise no_face(photo)
    if problem:
        raise SourceError(f"{photo}: {len(found)} faces of similar size; cut out the one that you mean")
    vector: Vector = embedder.embed(embedder.align(image, chosen)).vectors[0]
    return vector


def explain(
    sighting_id: Annotated[
        str | None, typer.Argument(metavar="[SIGHTING_ID]", help="One sighting; without it, all since --since.")
    ] = None,
    camera: CameraOption = None,
    since: Since = "24h",
    until: Until = None,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> int:
    """Say of each sighting what happened to its faces, whom they were nearest to, and why there is (no) match."""
    from worker.history import records
    from worker.history.documents import sighting_document, tally_document

    quiet_logs()
    first, last = parse_time(since, "--since"), parse_time(until, "--until")
    with open_history(settings(config, gallery, state_dir), "explain", sighting_id) as history:
        if sighting_id is not None:
            sightings, tallies = history.sightings(sighting_id=sighting_id), []
            if not sightings:
                raise HistoryError(f"no sighting {sighting_id} in {history.label}: it still goes on, or has expired")
        else:
            sightings = history.sightings(since=first, until=last, camera_id=camera)
            tallies = history.tallies(since=first, until=last, camera_id=camera)
    for sighting in sightings:
        if json_output:
            print_json(sighting_document(sighting) | sighting.account.to_json() | {"text": records.explain(sighting)})
        else:
            say_lines(fit([time_text(sighting.started_at), sighting.sighting_id, who(sighting)], screen_width()))
            say_lines(wrapped(records.explain(sighting), screen_width()))
    if json_output:
        for tally in tallies:
            print_json(tally_document(tally))
    else:
        for sentence in records.explain_rest(tallies):
            say_lines(wrapped(sentence, screen_width(), ""))
        if not sightings and not tallies:
            say("nothing was seen in that time")
    return 0


def settings(config: Path | None, gallery: str | None, state_dir: Path | None, **redis: str | None) -> "Config":
    """The configuration with what the command line says; ``redis``: fields of that section. Its keys are those of this
    process from now on.

    Raises:
        ConfigError: unreadable file, or a wrong field.
    """
    from worker.config import load_config
    from worker.encryption import use

    overrides: Document = {"gallery": gallery, "state_dir": state_dir}
    given = {name: value for name, value in redis.items() if value is not None}
    found = load_config(
        config, {name: value for name, value in overrides.items() if value is not None} | {"redis": given}
    )
    use(found.encryption_keys())
    return found


def audit_folder(config: "Config") -> Path:
    """Where the audit log of what is done with the past lies."""
    from worker.config import default_state_dir, history_folder

    return history_folder(config) or default_state_dir()


def open_history(config: "Config", command: str, *subjects: str | None) -> "History":
    """The history of a worker with this configuration. The audit log tells which ``command`` looked, and whose past it
    looked up (ids).

    Raises:
        ConfigError: neither a gallery nor a folder is named.
        HistoryError: there is no history.
    """
    from worker.audit_log import note
    from worker.config import history_place
    from worker.history.store import History

    place = history_place(config)
    if place is None:
        raise ConfigError("where is the history? give --gallery PATH, --state-dir DIR or --config FILE")
    history = History.open(place)
    note(audit_folder(config), "past looked up", filter(None, subjects), command=command)
    return history


def parse_time(text: str | None, option: str) -> datetime | None:
    """The time that ``text`` names: an age such as ``24h``, or a time, which is local unless it names a zone.

    Raises:
        ConfigError: ``text`` is neither.
    """
    if text is None:
        return None
    if age := re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd])", text):
        try:
            return datetime.now(UTC) - timedelta(**{_UNITS[age[2]]: float(age[1])})
        except OverflowError:
            return datetime.fromtimestamp(0, UTC)
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{option} {text!r} is not a time: write 30m, 24h or 7d, or a time such as 2026-03-01T08:30"
        ) from None


def who(sighting: "PastSighting") -> str:
    """The person of a past sighting, for people."""
    return sighting.identity_name or sighting.unknown_id or "(unknown)"
