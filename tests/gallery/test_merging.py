"""Two entries of a gallery that are one person: what each version holds."""

import pytest

from worker.errors import ConfigError
from worker.gallery.consents import Consent, narrower

EARLY, LATE = "2026-01-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (None, None, None),
        (None, Consent(until=EARLY, basis="visit"), Consent(until=EARLY, basis="visit")),
        (Consent(until=LATE, basis="contract"), None, Consent(until=LATE, basis="contract")),
        (Consent(until=LATE), Consent(until=EARLY), Consent(until=EARLY)),
        (Consent(since=EARLY), Consent(since=LATE, note="from"), Consent(since=LATE, note="from")),
        (Consent(since=EARLY), Consent(until=LATE), Consent(since=EARLY, until=LATE)),
        (Consent(until="2027-01-01T01:00:00+02:00"), Consent(until=LATE), Consent(until="2027-01-01T01:00:00+02:00")),
    ],
)
def test_the_consent_of_one_person_is_what_both_entries_allow(
    one: Consent | None, other: Consent | None, both: Consent | None
) -> None:
    assert narrower(one, other) == both


def test_two_consents_without_a_common_time_are_refused() -> None:
    with pytest.raises(ConfigError, match="give a later end"):
        narrower(Consent(until=EARLY), Consent(since=LATE))
