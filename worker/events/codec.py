"""Events on the wire: flat string fields, deterministic ids, and the JSON Schema of both.

All of it comes from the model :class:`worker.types.Event`. Rounding on the wire: cosines, quality and ``pts_s`` to 6
decimals, boxes to 0.01 px, times cut to milliseconds. Text that is not valid Unicode (a name made from an undecodable
file name) has those characters replaced by ``?``.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields
from datetime import datetime
from typing import Any, Final, get_type_hints

from pydantic import TypeAdapter, ValidationError

from worker.errors import SinkError
from worker.redaction import redact
from worker.types import Event, EventType
from worker.wire import Form, as_text, rfc3339

SCHEMA: Final = "facestream.sighting.v1"

ERASED_BY: Final = ("identity_id", "unknown_id", "sighting_id")
"""The fields by which an event belongs to somebody who is erased."""

Fields = Mapping[str, str] | Mapping[bytes, bytes]
_MODEL: Final = TypeAdapter(Event)
_NEEDED: Final = [field.name for field in fields(Event) if field.default is MISSING]


def sighting_id(camera_id: str, first_captured_at: datetime, track_id: int) -> str:
    """The name of a sighting: camera, capture time of its first frame (as ``started_at`` is written) and track."""
    return f"{camera_id}_{rfc3339(first_captured_at)}_{track_id}"


def event_id(
    sighting_id: str, event_type: EventType, ordinal: int = 0, identity_id: str = "", previous_id: str = ""
) -> str:
    """The name of one transition of a sighting: 32 hex digits, the same whenever and wherever it is computed.

    ``ordinal`` counts the events of the sighting from 0 (of a ``corrected`` one: its corrections), ``identity_id`` is
    the verdict (where a ``corrected`` one names nobody, the ``unknown_id``), and ``previous_id`` the id of the
    sighting's event before this one. So two events have one id only if all verdicts that led to them are the same: a
    worker that takes over and decides otherwise is not taken for a repeat, and one that decides the same again is.
    """
    parts: list[str | int] = [SCHEMA, sighting_id, event_type, ordinal, identity_id]
    text = json.dumps([*parts, previous_id] if previous_id else parts)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def encode(event: Event) -> dict[str, str]:
    """``event`` as the fields of one stream entry; every field is present, empty where it does not apply.

    Raises:
        ValueError: a number is not finite, or a time lacks its zone.
    """
    return {"schema": SCHEMA, **_MODEL.dump_python(event)}


def decode(fields: Fields) -> Event:
    """The event that :func:`encode` wrote; fields that it does not know are ignored.

    Raises:
        SinkError: another schema, a missing field, or a value that is not of the field's form.
    """
    texts = {as_text(name): as_text(value) for name, value in fields.items()}
    schema = texts.get("schema")
    if schema is None:
        raise SinkError("stream entry is no facestream event: it has no field 'schema'; is this the right stream?")
    if schema != SCHEMA:
        raise SinkError(
            f"event of schema {_shown(schema)} cannot be read: this version reads {SCHEMA}; "
            "use a facestream version that knows that schema"
        )
    for name in _NEEDED:
        if name not in texts:
            raise SinkError(f"event lacks the field '{name}': the entry was not written by facestream, or is damaged")
    try:
        return _MODEL.validate_python(texts)
    except ValidationError as error:
        name = str(error.errors(include_url=False, include_context=False)[0]["loc"][0])
        shown = _shown(texts[name])
        raise SinkError(f"event field '{name}' cannot be read: {shown}; the entry is damaged") from None


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the encoded fields; ``worker/schemas/sighting.v1.json`` is a copy of it."""
    properties = _MODEL.json_schema(mode="serialization")["properties"]
    described = {
        name: {key: value for key, value in schema.items() if key not in {"title", "default"}}
        for name, schema in properties.items()
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:facestream:sighting:v1",
        "title": SCHEMA,
        "description": "One transition of one sighting, as the flat string fields of one Redis stream entry.",
        "type": "object",
        "required": ["schema", *described],
        "properties": {"schema": {"const": SCHEMA, "description": "name and version of this format"}, **described},
        "additionalProperties": {"type": "string"},
    }


def field_forms() -> dict[str, str]:
    """The form of each encoded field, in words for the documentation."""
    hints = get_type_hints(Event, include_extras=True)
    forms = {
        name: [part.text for part in hint.__metadata__ if isinstance(part, Form)][-1] for name, hint in hints.items()
    }
    return {"schema": f"`{SCHEMA}`", **forms}


def _shown(text: str) -> str:
    return repr(redact(text[:60]))
