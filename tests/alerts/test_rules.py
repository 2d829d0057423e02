"""Which events a rule is about, and which rules cannot be."""

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from tests.support.receivers import SECRET
from tests.support.sample_events import make_event
from worker.alerts.delivery import shown
from worker.alerts.rules import Rule
from worker.errors import ConfigError
from worker.redaction import first_problem
from worker.types import Event


def rule(**values: Any) -> Rule:
    return Rule.model_validate({"name": "r", "webhook": "https://example.org/hook", "webhook_secret": SECRET} | values)


def event(at: str = "2026-03-02T12:00:00", **changes: Any) -> Event:
    captured = datetime.fromisoformat(at).replace(tzinfo=UTC)
    return make_event(**{"type": "started", "captured_at": captured, **changes})


UNKNOWN: dict[str, Any] = {"identity_id": "", "identity_name": "", "unknown_id": "u-1"}


@pytest.mark.parametrize(
    ("values", "changes", "is_about"),
    [
        ({}, {}, True),
        ({}, {"type": "updated"}, True),
        ({}, {"type": "ended"}, True),
        ({}, {"type": "corrected"}, False),
        ({}, {"type": "erased"}, False),
        ({"enabled": False}, {}, False),
        ({"who": "unknown"}, {}, False),
        ({"who": "unknown"}, UNKNOWN, True),
        ({"who": "known"}, UNKNOWN, False),
        ({"who": "known"}, {}, True),
        ({"people": ["p-1"]}, {}, True),
        ({"people": ["p-2"]}, {}, False),
        ({"people": ["p-2"]}, UNKNOWN, False),
        ({"groups": ["banned"]}, {"groups": "banned,staff"}, True),
        ({"groups": ["ban"]}, {"groups": "banned"}, False),
        ({"groups": ["banned"]}, {}, False),
        ({"groups": ["banned"], "people": ["p-1"]}, {}, True),
        ({"not_groups": ["family"]}, {"groups": "family"}, False),
        ({"not_groups": ["family"]}, {"groups": "staff"}, True),
        ({"not_groups": ["family"]}, UNKNOWN, True),
        ({"groups": ["staff"], "not_groups": ["family"]}, {"groups": "family,staff"}, False),
        ({"cameras": ["back-door"]}, {}, False),
        ({"cameras": ["back-door"]}, {"camera_id": "back-door"}, True),
    ],
)
def test_who_and_where(values: dict[str, Any], changes: dict[str, Any], is_about: bool) -> None:
    assert rule(**values).is_about(event(**changes)) == is_about


MONDAY, SATURDAY = "2026-03-02", "2026-03-07"


@pytest.mark.parametrize(
    ("values", "at", "is_about"),
    [
        ({"after": "20:00"}, f"{MONDAY}T19:59:59", False),
        ({"after": "20:00"}, f"{MONDAY}T20:00:00", True),
        ({"after": "20:00"}, f"{MONDAY}T23:59:59", True),
        ({"after": "20:00"}, "2026-03-03T00:00:00", False),
        ({"before": "06:00"}, f"{MONDAY}T05:59:59", True),
        ({"before": "06:00"}, f"{MONDAY}T06:00:00", False),
        ({"after": "08:00", "before": "17:00"}, f"{MONDAY}T16:59:00", True),
        ({"after": "08:00", "before": "17:00"}, f"{MONDAY}T17:00:00", False),
        ({"after": "20:00", "before": "06:00"}, f"{MONDAY}T21:00:00", True),
        ({"after": "20:00", "before": "06:00"}, "2026-03-03T05:00:00", True),
        ({"after": "20:00", "before": "06:00"}, f"{MONDAY}T12:00:00", False),
        # The night of Friday to Saturday belongs to Friday.
        ({"after": "20:00", "before": "06:00", "weekdays": ["fri"]}, f"{SATURDAY}T05:00:00", True),
        ({"after": "20:00", "before": "06:00", "weekdays": ["fri"]}, f"{SATURDAY}T21:00:00", False),
        ({"after": "20:00", "before": "06:00", "weekdays": ["sat"]}, f"{SATURDAY}T05:00:00", False),
        ({"weekdays": ["mon", "tue"]}, f"{MONDAY}T05:00:00", True),
        ({"weekdays": ["tue"]}, f"{MONDAY}T05:00:00", False),
        ({"weekdays": ["tue"], "time_zone": "Pacific/Auckland"}, f"{MONDAY}T12:00:00", True),
        ({"after": "20:00", "time_zone": "Europe/Berlin"}, f"{MONDAY}T19:00:00", True),
        ({"after": "20:00", "time_zone": "Europe/Berlin"}, "2026-07-06T18:00:00", True),
        ({"after": "20:00", "time_zone": "Europe/Berlin"}, "2026-07-06T17:59:00", False),
        ({"after": "10:00", "before": "10:00"}, f"{MONDAY}T09:00:00", True),
    ],
)
def test_when(values: dict[str, Any], at: str, is_about: bool) -> None:
    assert rule(**values).is_about(event(at)) == is_about


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"after": "25:00"}, "that is not a time: write 20:00"),
        ({"before": "8 pm"}, "that is not a time"),
        ({"time_zone": "Mars/Olympus"}, "that is not a time zone: write one such as Europe/Berlin"),
        ({"time_zone": "../etc/passwd"}, "not a time zone"),
        ({"time_zone": ""}, "not a time zone"),
        ({"time_zone": "\0"}, "not a time zone"),
        ({"weekdays": ["monday"]}, "weekdays"),
        ({"who": "unknown", "groups": ["staff"]}, "somebody unknown is in no group"),
        ({"webhook": "", "webhook_secret": ""}, "nobody would be told"),
        ({"webhook_secret": "short"}, "16 characters or more"),
        ({"name": " "}, "name"),
        ({"camera": "door"}, "no such field"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        rule(**wrong)
    text = first_problem(refused.value)
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "values",
    [
        {"webhook": "http://CANARY.example.org/hook"},
        {"webhook": "CANARY"},
        {"webhook": "ftp://example.org/CANARY"},
        {"apprise": ["CANARY"]},
        {"apprise": ["nonsense://user:CANARY@host"]},
        {"apprise": ["syslog://CANARY"]},
        {"apprise": ["mailto://"]},
    ],
)
def test_a_receiver_that_is_none_is_told_without_its_address(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as refused:
        rule(**values).require_receivers()
    assert "\n" not in str(refused.value)
    assert "CANARY" not in str(refused.value).replace("http://CANARY.example.org would", "")


def test_of_an_address_its_kind_is_shown_alone() -> None:
    assert shown("mailtos://user:secret@example.org") == "mailtos://***"
    assert shown("hunter2") == "***"
    assert shown("hunter2hunter2hunter2hunter2://x") == "***"


@pytest.mark.parametrize("year", [1, 9999])
@pytest.mark.parametrize("zone", ["Pacific/Honolulu", "Pacific/Kiritimati"])
def test_an_event_of_no_time_at_all_is_about_nobody_and_stops_no_rule(year: int, zone: str) -> None:
    at = datetime(year, 1, 1, tzinfo=UTC) if year == 1 else datetime(year, 12, 31, 23, 59, tzinfo=UTC)
    about = {
        rule(time_zone=zone, after=after, before="06:00").is_about(make_event(captured_at=at))
        for after in ("", "22:00")
    }
    assert about <= {True, False}
