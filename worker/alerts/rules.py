"""A rule: whom somebody wants to be told of, where, when and how."""

import hashlib
import re
from datetime import datetime, time, timedelta
from functools import cache
from typing import Annotated, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from worker.alerts.delivery import require_receiver
from worker.alerts.words import WEEKDAYS, Names, Weekday
from worker.types import Event

_OF_VISITS: Final = frozenset({"started", "updated", "ended"})
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_SHORTEST_SECRET: Final = 16


class Rule(BaseModel):
    """Of ``people`` (ids) and ``groups``, one must fit, if any is given; whoever is in one of ``not_groups`` is passed
    over. No cameras or weekdays: all of them. ``after`` and ``before`` are times of the clock in ``time_zone``; if
    ``before`` is the earlier one, the time goes over midnight and belongs to the weekday on which it begins."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
    enabled: bool = True
    who: Literal["anyone", "known", "unknown"] = "anyone"
    people: Names = ()
    groups: Names = ()
    not_groups: Names = ()
    cameras: Names = ()
    weekdays: Annotated[tuple[Weekday, ...], Field(max_length=7)] = ()
    after: str = ""
    before: str = ""
    time_zone: Annotated[str, StringConstraints(max_length=60)] = "UTC"
    webhook: Annotated[str, StringConstraints(max_length=2000)] = ""
    webhook_secret: Annotated[str, StringConstraints(max_length=200)] = ""
    apprise: Annotated[tuple[Annotated[str, StringConstraints(max_length=2000)], ...], Field(max_length=10)] = ()
    picture: bool = False

    @field_validator("after", "before")
    @classmethod
    def _is_a_time(cls, value: str) -> str:
        if value and not _CLOCK.fullmatch(value):
            raise ValueError("that is not a time: write 20:00")
        return value

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, value: str) -> str:
        try:
            _zone(value)
        except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
            raise ValueError("that is not a time zone: write one such as Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "Rule":
        if self.who == "unknown" and (self.people or self.groups):
            raise ValueError("somebody unknown is in no group: leave people and groups out, or ask for 'known'")
        if not self.webhook and not self.apprise:
            raise ValueError("nobody would be told: give a webhook or an Apprise address")
        if self.webhook and len(self.webhook_secret) < _SHORTEST_SECRET:
            raise ValueError(f"webhook_secret signs what is sent: give {_SHORTEST_SECRET} characters or more")
        return self

    def require_receivers(self) -> None:
        """Does nothing if each receiver has an address that can be used.

        Raises:
            ConfigError: one has not; the message does not repeat it.
        """
        for address in self.receivers.values():
            require_receiver(address, is_webhook=address == self.webhook)

    @property
    def receivers(self) -> dict[str, str]:
        """Addresses by the name that the database has for them, which tells nothing of them."""
        return {receiver_id(address): address for address in (*filter(None, [self.webhook]), *self.apprise)}

    def is_about(self, event: Event) -> bool:
        """Whether somebody is to be told of what ``event`` says."""
        named = bool(event.identity_id)
        groups = set(event.groups.split(",")) if event.groups and named else set()
        return (
            self.enabled
            and event.type in _OF_VISITS
            and (self.who == "anyone" or named == (self.who == "known"))
            and (not (self.people or self.groups) or event.identity_id in self.people or bool(groups & {*self.groups}))
            and not groups & {*self.not_groups}
            and (not self.cameras or event.camera_id in self.cameras)
            and self._is_time(event.captured_at)
        )

    def _is_time(self, at: datetime) -> bool:
        try:
            local = at.astimezone(_zone(self.time_zone))
            yesterday = local - timedelta(days=1)
        except OverflowError:  # in the first year or the last one, as a damaged event may say
            return False
        now = local.time()
        begin, end = (time.fromisoformat(text) if text else None for text in (self.after, self.before))
        day = local
        if begin is not None and end is not None and end <= begin:
            if not (now >= begin or now < end):
                return False
            day = yesterday if now < end else local
        elif (begin is not None and now < begin) or (end is not None and now >= end):
            return False
        return not self.weekdays or WEEKDAYS[day.weekday()] in self.weekdays


def receiver_id(address: str) -> str:
    """What the database calls a receiver."""
    return hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
