"""What the commands on past sightings share: where the history is, and which time is meant."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

GalleryOption = Annotated[str | None, typer.Option("--gallery", metavar="PATH", help="Folder of the gallery.")]
StateDir = Annotated[
    Path | None, typer.Option("--state-dir", help="Folder of the history (default: beside the gallery).")
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Age such as 30m, 24h or 7d, or a time such as 2026-03-01T08:30.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="The same; default: now.")]
CameraOption = Annotated[str | None, typer.Option("--camera", help="Only this camera.")]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def settings(config: Path | None, gallery: str | None, state_dir: Path | None, **redis: str | None) -> Any:
    """The configuration with what the command line says."""
    from worker.config import load_config

    overrides: dict[str, Any] = {"gallery": gallery, "state_dir": state_dir}
    given = {name: value for name, value in redis.items() if value is not None}
    return load_config(
        config, {name: value for name, value in overrides.items() if value is not None} | {"redis": given}
    )


def open_past(config: Any) -> Any:
    """The history of a worker with this configuration.

    Raises:
        ConfigError: neither a gallery nor a folder is named.
        HistoryError: there is none.
    """
    from worker.config import history_folder
    from worker.errors import ConfigError
    from worker.history.store import History

    folder = history_folder(config)
    if folder is None:
        raise ConfigError("where is the history? give --gallery PATH, --state-dir DIR or --config FILE")
    return History.open(folder)


def parse_time(text: str | None, option: str) -> datetime | None:
    """``24h`` ago, or the time that is written; without a zone it is local time.

    Raises:
        ConfigError: neither.
    """
    from worker.errors import ConfigError

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
            f"{option} {text!r} is no time: write 30m, 24h or 7d, or a time such as 2026-03-01T08:30"
        ) from None


def time_json(value: datetime) -> str:
    """RFC 3339, UTC, milliseconds."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def time_text(value: datetime) -> str:
    """UTC, for people."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def sighting_json(sighting: Any) -> dict[str, Any]:
    """A past sighting, without its template."""
    return {
        "sighting_id": sighting.sighting_id,
        "camera_id": sighting.camera_id,
        "started_at": time_json(sighting.started_at),
        "ended_at": time_json(sighting.ended_at),
        "identity_id": sighting.identity_id,
        "identity_name": sighting.identity_name,
        "unknown_id": sighting.unknown_id,
        "quality": None if sighting.quality is None else round(sighting.quality, 4),
        "model_id": sighting.embedder.model_id,
    }


def who(sighting: Any) -> str:
    """The person of a past sighting, for people."""
    return sighting.identity_name or sighting.unknown_id or "(unknown)"
