"""Records of the past as rows of the tables, and back."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np

from worker.history.records import Account, EmbedderId, PastSighting, Tally, UnknownPerson, Vector
from worker.logs import get_logger
from worker.names import clean_text
from worker.people_keys import Owned

HOUR_S: Final = 3600
Row = dict[str, Any]
_Record = TypeVar("_Record")
_Id = TypeVar("_Id")

_log = get_logger(__name__)


def last_of_each(rows: Sequence[Row], key: str) -> list[Row]:
    """Of rows with the same ``key``, the last one: a statement may not store one twice."""
    return list({row[key]: row for row in rows}.values())


def batched(ids: Iterable[_Id], at_once: int = 500) -> Iterator[list[_Id]]:
    """All ``ids``, or other things, so many at once as one statement is to name."""
    left = iter(ids)
    while some := list(islice(left, at_once)):
        yield some


def cleaned(row: Row) -> Row:
    """With texts as :func:`worker.names.clean_text` makes them."""
    return {name: _cleaned(value) for name, value in row.items()}


def _cleaned(value: Any) -> Any:
    if isinstance(value, Owned):
        return Owned(value.owner, _cleaned(value.value))
    return clean_text(value) if isinstance(value, str) else value


def sighting_row(sighting: PastSighting) -> Row:
    """Without its times of storage. What a face and a name are seen in is theirs of whom it shows."""
    owner = owner_of(sighting.identity_id, sighting.unknown_id, sighting.sighting_id)
    return {
        "sighting_id": sighting.sighting_id,
        "camera_id": sighting.camera_id,
        "started_s": sighting.started_at.timestamp(),
        "ended_s": sighting.ended_at.timestamp(),
        "identity_id": sighting.identity_id,
        "identity_name": Owned(owner, sighting.identity_name),
        "unknown_id": sighting.unknown_id,
        "model_id": sighting.embedder.model_id,
        "preprocessing": sighting.embedder.preprocessing_digest,
        "template": _blob(owner, sighting.template),
        "evidence": sighting.embedded_faces,
        "quality": sighting.quality,
        "event": Owned(owner, json.dumps({field: clean_text(value) for field, value in sighting.event.items()})),
        "account": json.dumps(sighting.account.to_json()),
        "corrections": sighting.corrections,
    }


def owner_of(identity_id: str | None, unknown_id: str | None, sighting_id: str) -> str:
    """Whose the rows and events about a sighting are: of the person, else of the unknown person, else of itself."""
    return identity_id or unknown_id or sighting_id


def readable(rows: Iterable[Any], read: Callable[[Any], _Record]) -> Iterator[_Record]:
    """What ``read`` makes of each row: one that is damaged must not hide the others. The log names it."""
    for row in rows:
        try:
            yield read(row)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError) as error:
            _log.warning("a row of the history cannot be read", row=repr(row[0])[:100], reason=type(error).__name__)


def sighting_of(row: Any) -> PastSighting:
    """What :func:`sighting_row` was made of.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError, RecursionError: the row is damaged.
    """
    require_texts(row.sighting_id, row.camera_id, row.identity_id, row.identity_name, row.unknown_id, row.model_id)
    event = json.loads(row.event)
    require_texts(row.preprocessing, *event.keys(), *event.values())
    _require_numbers(row.evidence, row.corrections, 0 if row.quality is None else row.quality)
    return PastSighting(
        row.sighting_id, row.camera_id, time_of(row.started_s), time_of(row.ended_s), row.identity_id,
        row.identity_name, row.unknown_id, EmbedderId(row.model_id, row.preprocessing), template_of(row.template),
        row.evidence, row.quality, event, Account.from_json(json.loads(row.account)), row.corrections,
    )  # fmt: skip


def unknown_row(person: UnknownPerson) -> Row:
    """Without its revision and times of storage."""
    return {
        "unknown_id": person.unknown_id,
        "model_id": person.embedder.model_id,
        "preprocessing": person.embedder.preprocessing_digest,
        "template": _blob(person.unknown_id, person.template),
        "evidence": person.embedded_faces,
        "first_seen_s": person.first_seen.timestamp(),
        "last_seen_s": person.last_seen.timestamp(),
    }


def unknown_of(row: Any) -> UnknownPerson:
    """What :func:`unknown_row` was made of. Raises as :func:`sighting_of` does."""
    require_texts(row.unknown_id, row.model_id, row.preprocessing)
    _require_numbers(row.evidence)
    return UnknownPerson(
        row.unknown_id, EmbedderId(row.model_id, row.preprocessing), template_of(row.template), row.evidence,
        time_of(row.first_seen_s), time_of(row.last_seen_s), row.ignored != 0,
    )  # fmt: skip


def tally_of(row: Any) -> Tally:
    """What :func:`tally_row` was made of. Raises as :func:`sighting_of` does."""
    require_texts(row.camera_id, row.reason)
    _require_numbers(row.tracks, row.faces)
    return Tally(row.camera_id, time_of(row.hour * HOUR_S), row.reason, row.tracks, row.faces)


def tally_row(tally: Tally) -> Row:
    """Without its time of storage."""
    return {
        "camera_id": clean_text(tally.camera_id),
        "hour": hour_of(tally.hour),
        "reason": tally.reason,
        "tracks": tally.tracks,
        "faces": tally.faces,
    }


def hour_of(at: datetime) -> int:
    """Hours since 1970, UTC."""
    return int(at.timestamp() // HOUR_S)


def require_texts(*values: object) -> None:
    """Raises TypeError unless all are texts: SQLite gives what is in a column, whatever the type of the column."""
    if not all(isinstance(value, str) for value in values):
        raise TypeError("a text is no text")


def _require_numbers(*values: object) -> None:
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        raise TypeError("a number is no number")


def _blob(owner: str, template: Vector | None) -> Owned[bytes] | None:
    return None if template is None else Owned(owner, np.ascontiguousarray(template, "<f4").tobytes())


def template_of(blob: object) -> Vector | None:
    """The vector in a row; None where there is none.

    Raises:
        ValueError: it is not the bytes of finite numbers.
    """
    if blob is None:
        return None
    if not isinstance(blob, bytes):
        raise TypeError("a template is bytes")
    vector = np.frombuffer(blob, "<f4")
    if not len(vector) or not np.isfinite(vector).all():
        raise ValueError("a template has finite numbers")
    return vector


def time_of(seconds: float) -> datetime:
    """A Unix time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
