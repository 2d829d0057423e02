"""Events on the wire: flat string fields, deterministic ids, and the JSON Schema of both.

Rounding on the wire: cosines, quality and ``pts_s`` to 6 decimals, boxes to 0.01 px, times truncated to milliseconds.
Text that is not valid Unicode (a name made from an undecodable file name) has those characters replaced by ``?``.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import resources
from typing import Any, Final, TypeVar, cast, get_args

from worker.errors import SinkError
from worker.redaction import redact
from worker.types import Event, EventType

SCHEMA: Final = "facestream.sighting.v1"
EVENT_TYPES: Final[tuple[str, ...]] = get_args(EventType)

Fields = Mapping[str, str] | Mapping[bytes, bytes]
_T = TypeVar("_T")


def sighting_id(camera_id: str, first_captured_at: datetime, track_id: int) -> str:
    """The name of a sighting: camera, capture time of its first frame (as ``started_at`` is written) and track."""
    return f"{camera_id}_{_format_time(first_captured_at)}_{track_id}"


def event_id(sighting_id: str, event_type: EventType, ordinal: int = 0, identity_id: str = "") -> str:
    """The name of one transition of a sighting: 32 hex digits, the same whenever and wherever it is computed.

    ``ordinal`` counts the transitions of this type within the sighting from 0; ``identity_id`` is the verdict.
    The verdict takes part so that a repeated run that decides otherwise (another gallery) is not taken for a repeat.
    """
    text = json.dumps([SCHEMA, sighting_id, event_type, ordinal, identity_id])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def encode(event: Event) -> dict[str, str]:
    """``event`` as the fields of one stream entry; every field is present, empty where it does not apply.

    Raises:
        ValueError: a number is not finite, or a time lacks its zone.
    """
    fields = {
        "schema": SCHEMA,
        "event_id": event.event_id,
        "type": event.type,
        "camera_id": event.camera_id,
        "track_id": str(event.track_id),
        "sighting_id": event.sighting_id,
        "identity_id": event.identity_id,
        "identity_name": event.identity_name,
        "similarity": _optional(_format_number, event.similarity),
        "threshold": _optional(_format_number, event.threshold),
        "margin": _optional(_format_number, event.margin),
        "quality": _optional(_format_number, event.quality),
        "box": ",".join(_format_number(value, 2) for value in event.box),
        "frame_size": f"{event.frame_size[0]},{event.frame_size[1]}",
        "captured_at": _format_time(event.captured_at),
        "started_at": _format_time(event.started_at),
        "ended_at": _optional(_format_time, event.ended_at),
        "pts_s": _format_number(event.pts_s),
        "model_id": event.model_id,
        "gallery_version": str(event.gallery_version),
        "worker_id": event.worker_id,
        "epoch": str(event.epoch),
        "unknown_id": event.unknown_id,
    }
    return {name: value.encode("utf-8", "replace").decode() for name, value in fields.items()}


def decode(fields: Fields) -> Event:
    """The event that :func:`encode` wrote; fields that it does not know are ignored.

    Raises:
        SinkError: another schema, a missing field, or a value that is not of the field's form.
    """
    texts = {_text(name): _text(value) for name, value in fields.items()}
    schema = texts.get("schema")
    if schema is None:
        raise SinkError("stream entry is no facestream event: it has no field 'schema'; is this the right stream?")
    if schema != SCHEMA:
        raise SinkError(
            f"event of schema {_shown(schema)} cannot be read: this version reads {SCHEMA}; "
            "use a facestream version that knows that schema"
        )
    read = _Reader(texts)
    return Event(
        event_id=read("event_id", str),
        type=cast(EventType, read("type", _parse_type)),
        camera_id=read("camera_id", str),
        track_id=read("track_id", int),
        sighting_id=read("sighting_id", str),
        identity_id=read("identity_id", str),
        identity_name=read("identity_name", str),
        similarity=read.optional("similarity", _parse_number),
        threshold=read.optional("threshold", _parse_number),
        margin=read.optional("margin", _parse_number),
        quality=read.optional("quality", _parse_number),
        box=read("box", _parse_box),
        frame_size=read("frame_size", _parse_size),
        captured_at=read("captured_at", _parse_time),
        started_at=read("started_at", _parse_time),
        ended_at=read.optional("ended_at", _parse_time),
        pts_s=read("pts_s", _parse_number),
        model_id=read("model_id", str),
        gallery_version=read("gallery_version", int),
        worker_id=read("worker_id", str),
        epoch=read("epoch", int),
        unknown_id=texts.get("unknown_id", ""),
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the encoded fields, as shipped in the package."""
    text = resources.files("worker").joinpath("schemas/sighting.v1.json").read_text(encoding="utf-8")
    return cast(dict[str, Any], json.loads(text))


class _Reader:
    """Reads fields by name, and names the field in the error when one is missing or malformed."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def __call__(self, name: str, parse: Callable[[str], _T]) -> _T:
        if name not in self._texts:
            raise SinkError(f"event lacks the field '{name}': the entry was not written by facestream, or is damaged")
        try:
            return parse(self._texts[name])
        except ValueError:
            shown = _shown(self._texts[name])
            raise SinkError(f"event field '{name}' cannot be read: {shown}; the entry is damaged") from None

    def optional(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        return self(name, lambda text: parse(text) if text else None)


def _optional(write: Callable[[_T], str], value: _T | None) -> str:
    return "" if value is None else write(value)


def _format_number(value: float, decimals: int = 6) -> str:
    if not math.isfinite(value):
        raise ValueError(f"an event cannot hold the number {value}")
    text = f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _format_time(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("a time in an event must carry its time zone")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def _parse_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _parse_time(text: str) -> datetime:
    if not text.endswith("Z"):
        raise ValueError(text)
    return datetime.fromisoformat(text).astimezone(UTC)


def _parse_type(text: str) -> str:
    if text not in EVENT_TYPES:
        raise ValueError(text)
    return text


def _parse_box(text: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (_parse_number(part) for part in text.split(","))
    return x1, y1, x2, y2


def _parse_size(text: str) -> tuple[int, int]:
    width, height = (int(part) for part in text.split(","))
    return width, height


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _shown(text: str) -> str:
    return repr(redact(text[:60]))
