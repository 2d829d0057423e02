"""Consent: from when until when a person may be recognised, on what basis. Outside of that time, nobody finds them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from worker.errors import ConfigError
from worker.names import clean_text
from worker.wire import parse_rfc3339

ENDING: Final = timedelta(days=30)
"""Consents that end within this time are warned about."""


@dataclass(frozen=True, slots=True)
class Consent:
    """``since`` and ``until`` are RFC 3339, "" where there is no bound; ``basis`` says why somebody is recognised."""

    since: str = ""
    until: str = ""
    basis: str = ""
    note: str = ""

    def __post_init__(self) -> None:
        """Raises ConfigError: it ends before it begins."""
        if self.since and self.until and parse_rfc3339(self.until) <= parse_rfc3339(self.since):
            raise ConfigError(f"a consent from {self.since} cannot end at {self.until}: give a later end")

    def is_given(self, at: datetime) -> bool:
        """Whether it holds at that time."""
        begun = not self.since or parse_rfc3339(self.since) <= at
        return begun and not self.is_over(at)

    def is_over(self, at: datetime) -> bool:
        """Whether it has ended."""
        return bool(self.until) and parse_rfc3339(self.until) <= at

    def ends_soon(self, at: datetime) -> bool:
        """Whether it holds, and ends within :data:`ENDING`."""
        return bool(self.until) and self.is_given(at) and parse_rfc3339(self.until) - at <= ENDING

    def document(self) -> dict[str, str]:
        """As JSON values."""
        return asdict(self)


def narrower(one: Consent | None, other: Consent | None) -> Consent | None:
    """What both allow. Basis and note are those of ``one``, where it has some.

    Raises:
        ConfigError: there is no time that both allow.
    """
    if one is None or other is None:
        return one or other
    return Consent(
        max(filter(None, (one.since, other.since)), key=parse_rfc3339, default=""),
        min(filter(None, (one.until, other.until)), key=parse_rfc3339, default=""),
        one.basis or other.basis,
        one.note or other.note,
    )


def consents_of(stored: Mapping[str, Mapping[str, Any]]) -> dict[str, Consent]:
    """Consents by identity_id, as :meth:`Consent.document` gave them."""
    return {
        key: Consent(**{name: clean_text(str(told.get(name, ""))) for name in Consent.__slots__})
        for key, told in stored.items()
    }
