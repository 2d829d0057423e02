"""Why no match: in words that say what to change."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.support.past import sighting
from worker.history.records import Account, Tally, explain, explain_rest
from worker.types import Candidate, Match

HOUR = datetime(2026, 1, 1, 12, tzinfo=UTC)
NEAREST = Candidate("p-1", "Anna", 0.41, 0.39, "p-2", "Ben")


def account(reason: str = "below_threshold", candidate: Candidate | None = NEAREST, **fields: Any) -> Account:
    made = Account(**({"faces": 14, "embedded": 2, "largest_px": 31.4, "least_px": 25.6} | fields))
    made.conclude(candidate, None, 0.5, reason)
    return made


def test_a_person_below_the_threshold() -> None:
    rejected = Counter(too_small=9, blurred=3)
    assert explain(sighting(account=account(rejected=rejected))) == (
        "seen 14 times; 9 too small (min 26 px; the largest face had 31), 3 blurred; 2 embedded; "
        "nearest was Anna at 0.41 (threshold 0.50, runner-up Ben 0.39): below threshold"
    )


@pytest.mark.parametrize(
    ("reason", "candidate", "words"),
    [
        ("matched", NEAREST, "nearest was Anna at 0.41 (threshold 0.50, runner-up Ben 0.39): matched"),
        ("ambiguous", NEAREST, "runner-up Ben 0.39): ambiguous: the two are too close to each other"),
        ("identity_taken", NEAREST, "somebody else in the picture is nearer to that person"),
        ("not_enough_evidence", NEAREST, "not enough faces to tell"),
        ("below_threshold", Candidate("p-1", "Anna", 0.2, -1.0), "nearest was Anna at 0.20 (threshold 0.50): below"),
        ("empty_gallery", Candidate(None, "", -1.0, -1.0), "12 were not needed); nobody is enrolled"),
        ("blurred", None, "no face was good enough: blurred"),
    ],
)
def test_every_verdict_has_its_words(reason: str, candidate: Candidate | None, words: str) -> None:
    assert words in explain(sighting(account=account(reason, candidate)))


def test_what_came_of_it_afterwards() -> None:
    assert explain(sighting(account=account(), unknown_id="u-1")).endswith("; remembered as u-1")
    named = sighting(account=account(), identity_id="p-9", identity_name="Cleo", corrections=1)
    assert explain(named).endswith("; named Cleo afterwards")


def test_tracks_of_one_person_are_one_account() -> None:
    first, second = account(rejected=Counter(blurred=1)), account(rejected=Counter(blurred=2, pose=1))
    first.merge(second, 7)
    assert (first.faces, first.embedded, first.rejected) == (28, 4, Counter(blurred=3, pose=1))
    assert "went on with track 7, the same person" in explain(sighting(account=first))
    assert Account.from_json(first.to_json()) == first


def test_a_name_that_was_kept_is_what_the_account_is_about() -> None:
    kept = Match("p-2", "Ben", 0.39, 0.41, 0.4, 1, "matched")
    made = Account()
    made.conclude(NEAREST, kept, 0.4, "matched")
    assert (made.nearest, made.similarity, made.runner_up, made.runner_up_similarity) == ("Ben", 0.39, "Anna", 0.41)


def test_what_never_became_a_sighting_is_summed_over_the_hours() -> None:
    tallies = [
        Tally("door", HOUR, "too_short", 3, 4), Tally("door", HOUR.replace(hour=13), "too_short", 2, 2),
        Tally("door", HOUR, "low_start_score", 0, 1),
    ]  # fmt: skip
    assert explain_rest(tallies) == [
        "door: 1 face never became a sighting: below the detection score that starts a track",
        "door: 5 tracks of 6 faces never became a sighting: seen too few times to count as a person",
    ]


@pytest.mark.parametrize(
    ("reason", "similarity", "says"),
    [
        ("below_threshold", 0.88, "below threshold, by the threshold that was in force when it was decided"),
        ("below_threshold", 0.41, ": below threshold"),
        ("matched", 0.48, "matched, at a higher similarity before; a name is kept"),
        ("matched", 0.88, ": matched"),
    ],
)
def test_numbers_that_seem_to_contradict_the_verdict_say_which_moment_they_are_of(
    reason: str, similarity: float, says: str
) -> None:
    told = explain(sighting(account=account(reason, Candidate("p-1", "Anna", similarity, -1.0))))
    assert says in told
    assert ("moment" in told or "decided" in told or "before;" in told) == (", " in says)


def test_seen_once_is_not_seen_many_times() -> None:
    assert explain(sighting(account=account(faces=1, embedded=1))).startswith("seen once; ")
