"""Times as text, wherever they are stored or published: RFC 3339, UTC, milliseconds."""

from datetime import UTC, datetime


def rfc3339(value: datetime) -> str:
    """``2026-01-01T12:00:00.000Z``.

    Raises:
        ValueError: ``value`` has no time zone.
    """
    if value.tzinfo is None:
        raise ValueError(f"a time without its zone: {value}")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def parse_rfc3339(text: str) -> datetime:
    """The time in UTC.

    Raises:
        ValueError: ``text`` is not a time with a time zone.
    """
    value = datetime.fromisoformat(text)
    if value.tzinfo is None:
        raise ValueError(f"a time without its zone: {text!r}")
    return value.astimezone(UTC)


def now_rfc3339() -> str:
    """The present time."""
    return rfc3339(datetime.now(UTC))
