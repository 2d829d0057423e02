"""How values stand as text: times everywhere, and all that the flat fields of an event hold.

The fields' types are read, written and described by pydantic. Each is a Python type for those who make and use events.
A field that has no value is None, and empty as text.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a field, in words for the documentation."""

    text: str


def _read_number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _write_number(value: float, decimals: int = 6) -> str:
    if not math.isfinite(value):
        raise ValueError(f"an event cannot hold the number {value}")
    text = f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def as_text(value: bytes | str) -> str:
    """What Redis gave, whether or not the client decodes replies."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def rfc3339(value: datetime) -> str:
    """RFC 3339 in UTC, cut to milliseconds: ``2026-01-01T12:00:00.000Z``.

    Raises:
        ValueError: ``value`` lacks its time zone.
    """
    if value.tzinfo is None:
        raise ValueError(f"a time without its zone: {value}")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def now_rfc3339() -> str:
    """The present time."""
    return rfc3339(datetime.now(UTC))


def parse_rfc3339(text: str) -> datetime:
    """The time in UTC.

    Raises:
        ValueError: ``text`` is not a time with a time zone.
    """
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(f"a time without its zone: {text!r}")
    if not _FIRST_YEAR <= value.year <= _LAST_YEAR:
        raise ValueError(f"a time that not every time zone can show: {text!r}")
    return value.astimezone(UTC)


def _read_time(text: str) -> datetime:
    if not text.endswith("Z"):
        raise ValueError(text)
    return parse_rfc3339(text)


def _read_box(text: str) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (_read_number(part) for part in text.split(","))
    return x1, y1, x2, y2


def _write_box(box: tuple[float, float, float, float]) -> str:
    return ",".join([_write_number(value, 2) for value in box])


def _read_size(text: str) -> tuple[int, int]:
    width, height = (int(part) for part in text.split(","))
    return width, height


def _write_size(size: tuple[int, int]) -> str:
    return f"{size[0]},{size[1]}"


def _write_text(text: str) -> str:
    """A name may come from a file's name that is not valid Unicode: those characters become ``?``."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _or_none(read: Callable[[str], Any]) -> PlainValidator:
    return PlainValidator(lambda text: read(text) if text else None)


def _or_empty(write: Callable[[Any], str]) -> PlainSerializer:
    return PlainSerializer(lambda value: "" if value is None else write(value), return_type=str)


def _text(**schema: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **schema})


_FIRST_YEAR: Final = 2
_LAST_YEAR: Final = 9998
_NUMBER: Final = r"-?[0-9]+(\.[0-9]{1,6})?"
_PX: Final = r"-?[0-9]+(\.[0-9]{1,2})?"
_TIME: Final = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z"
_FORM_OF_TIME: Final = Form("RFC 3339, UTC, milliseconds")


def matching(pattern: str) -> WithJsonSchema:
    """The JSON Schema of text that the regular expression ``pattern`` matches."""
    return _text(pattern=pattern)


Text = Annotated[str, PlainValidator(str), PlainSerializer(_write_text, return_type=str), _text(), Form("text")]
NonEmptyText = Annotated[Text, _text(minLength=1)]
Integer = Annotated[
    int, PlainValidator(int), PlainSerializer(str, return_type=str), matching("^-?[0-9]+$"), Form("integer")
]
Number = Annotated[
    float,
    PlainValidator(_read_number),
    PlainSerializer(_write_number, return_type=str),
    matching(f"^{_NUMBER}$"),
    Form("number"),
]
OptionalNumber = Annotated[
    float | None, _or_none(_read_number), _or_empty(_write_number), matching(f"^({_NUMBER})?$"), Form("number")
]
Time = Annotated[
    datetime,
    PlainValidator(_read_time),
    PlainSerializer(rfc3339, return_type=str),
    matching(f"^{_TIME}$"),
    _FORM_OF_TIME,
]
OptionalTime = Annotated[
    datetime | None, _or_none(_read_time), _or_empty(rfc3339), matching(f"^({_TIME})?$"), _FORM_OF_TIME
]
Box = Annotated[
    tuple[float, float, float, float],
    PlainValidator(_read_box),
    PlainSerializer(_write_box, return_type=str),
    matching(f"^({_PX},){{3}}{_PX}$"),
    Form("`x1,y1,x2,y2`"),
]
Size = Annotated[
    tuple[int, int],
    PlainValidator(_read_size),
    PlainSerializer(_write_size, return_type=str),
    matching("^[0-9]+,[0-9]+$"),
    Form("`w,h`"),
]
