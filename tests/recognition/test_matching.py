import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.config import RecognitionConfig
from worker.recognition.matching import TrackTemplate, decide
from worker.types import Candidate, Match

CONFIG = RecognitionConfig(margin=0.05, hysteresis=0.04, min_embeddings=2)
THRESHOLD = 0.5
NOBODY = Candidate(None, "", -1.0, -1.0)


def candidate(similarity: float, runner_up: float = -1.0, best: str = "a", other: str = "b") -> Candidate:
    other = other if runner_up > -1 else ""
    return Candidate(best, best.upper(), similarity, runner_up, other, other.upper())


def verdict(found: Candidate, previous: Match | None = None, evidence: int = 2) -> Match:
    return decide(found, CONFIG, threshold=THRESHOLD, evidence=evidence, gallery_version=7, previous=previous)


def named(who: str) -> Match:
    return Match(who, who.upper(), 0.6, -1.0, THRESHOLD, 7, "matched")


@pytest.mark.parametrize(
    ("found", "evidence", "identity_id", "reason"),
    [
        (candidate(0.6), 2, "a", "matched"),
        (candidate(0.5), 2, "a", "matched"),
        (candidate(0.6), 1, None, "not_enough_evidence"),
        (candidate(0.49), 9, None, "below_threshold"),
        (candidate(0.6, 0.58), 9, None, "ambiguous"),
        (candidate(0.6, 0.54), 9, "a", "matched"),
        (NOBODY, 9, None, "empty_gallery"),
    ],
)
def test_a_new_track(found: Candidate, evidence: int, identity_id: str | None, reason: str) -> None:
    match = verdict(found, evidence=evidence)
    assert (match.identity_id, match.reason) == (identity_id, reason)
    assert match.identity_name == ("A" if identity_id else "")
    assert (match.similarity, match.runner_up) == (found.similarity, found.runner_up)
    assert (match.threshold, match.gallery_version) == (THRESHOLD, 7)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (candidate(0.6), "few_faces"),
        (candidate(0.59), "not_enough_evidence"),  # above the threshold, but not beyond doubt
        (candidate(0.6, 0.51), "not_enough_evidence"),  # the other is not as much farther away
        (candidate(0.4), "not_enough_evidence"),
        (dataclasses.replace(candidate(0.9), probability=0.99), "not_enough_evidence"),
    ],
)
def test_one_face_names_somebody_only_beyond_doubt_and_if_no_more_come(found: Candidate, reason: str) -> None:
    match = decide(found, CONFIG, threshold=THRESHOLD, evidence=1, gallery_version=7, no_more_faces=True)
    assert (match.reason, match.identity_id) == (reason, "a" if reason == "few_faces" else None)
    assert verdict(found, evidence=1).identity_id is None, "more faces may come"


@pytest.mark.parametrize(
    ("found", "identity_id"),
    [
        (candidate(0.47), "a"),  # below the threshold, within the hysteresis
        (candidate(0.45), None),
        (candidate(0.48, 0.47), "a"),  # nobody else is nearer
        (candidate(0.53, 0.47, "b", "a"), "a"),  # the other is nearer and above the threshold, but not by the margin
        (candidate(0.56, 0.54, "b", "a"), "a"),  # the other is strong but the two cannot be told apart
        (candidate(0.56, 0.50, "b", "a"), "b"),  # a clear switch
        (candidate(0.53, 0.40, "b", "a"), "b"),  # the name is lost, and the other is named on its own merit
        (candidate(0.48, 0.40, "b", "a"), None),
        (candidate(0.60, 0.57, "b", "c"), None),  # the old name is not even second
        (NOBODY, None),
    ],
)
def test_a_track_that_was_named_a(found: Candidate, identity_id: str | None) -> None:
    assert verdict(found, named("a")).identity_id == identity_id


def test_a_name_kept_against_a_nearer_person_reports_its_own_similarity() -> None:
    match = verdict(candidate(0.53, 0.47, "b", "a"), named("a"))
    assert (match.identity_name, match.similarity, match.runner_up) == ("A", 0.47, 0.53)
    assert match.margin == pytest.approx(-0.06)


def test_a_new_name_in_the_gallery_reaches_the_verdict() -> None:
    renamed = dataclasses.replace(candidate(0.47), identity_name="Ann")
    assert verdict(renamed, named("a")).identity_name == "Ann"


cosine = st.floats(-1, 1)


@given(
    similarity=cosine,
    runner_up=cosine,
    before=st.sampled_from([None, "a", "b", "c"]),
    evidence=st.integers(0, 5),
    threshold=st.floats(0, 1),
)
def test_every_verdict_is_lawful(
    similarity: float, runner_up: float, before: str | None, evidence: int, threshold: float
) -> None:
    similarity, runner_up = max(similarity, runner_up), min(similarity, runner_up)
    found = candidate(similarity, runner_up)
    previous = named(before) if before else None
    match = decide(found, CONFIG, threshold=threshold, evidence=evidence, gallery_version=1, previous=previous)
    assert (match.reason == "matched") == (match.identity_id is not None)
    assert match.reason in {"matched", "below_threshold", "ambiguous", "not_enough_evidence", "empty_gallery"}
    if match.identity_id is None:
        assert match.identity_name == ""
        assert match.similarity == similarity
        return
    assert match.identity_name == match.identity_id.upper()
    if match.identity_id == before:
        assert match.similarity >= threshold - CONFIG.hysteresis
    else:
        assert match.identity_id == "a"
        assert match.similarity >= threshold
        assert match.margin >= CONFIG.margin
        assert evidence >= CONFIG.min_embeddings
    again = decide(found, CONFIG, threshold=threshold, evidence=evidence, gallery_version=1, previous=match)
    assert again == match


@given(similarity=st.floats(0.4, 0.6))
def test_a_similarity_that_hovers_changes_the_verdict_once_at_most(similarity: float) -> None:
    """Noise smaller than the hysteresis cannot make a verdict flap."""
    match, changes = None, 0
    for step in range(12):
        after = verdict(candidate(similarity + (0.019 if step % 2 else -0.019)), match)
        changes += match is not None and after.identity_id != match.identity_id
        match = after
    assert changes <= 1


def unit(seed: int) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=16)
    return (made / np.linalg.norm(made)).astype(np.float32)


def test_a_template_leans_to_the_better_faces() -> None:
    template = TrackTemplate(16)
    good, poor = unit(1), unit(2)
    template.add(good, 0.9)
    template.add(poor, 0.3)
    expected = 0.9 * good + 0.3 * poor
    assert template.vector == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    assert (template.count, template.best_quality) == (2, 0.9)


def test_even_a_worthless_face_is_evidence() -> None:
    template = TrackTemplate(16)
    template.add(unit(1), 0.0)
    assert template.count == 1
    assert template.vector == pytest.approx(unit(1), abs=1e-6)


def test_merged_templates_are_the_template_of_all_faces() -> None:
    first, second, together = TrackTemplate(16), TrackTemplate(16), TrackTemplate(16)
    for seed in range(6):
        (first if seed % 2 else second).add(unit(seed), seed / 6)
        together.add(unit(seed), seed / 6)
    first.merge(second)
    first.merge(TrackTemplate(16))
    assert first.vector == pytest.approx(together.vector, abs=1e-6)
    assert (first.count, first.best_quality) == (together.count, together.best_quality)
    assert first.similarity(together) == pytest.approx(1.0, abs=1e-6)


def test_a_vector_that_is_no_number_tells_nothing() -> None:
    template = TrackTemplate(16)
    template.add(unit(1), 0.5)
    template.add(np.full(16, np.nan, np.float32), 0.9)
    assert (template.count, template.best_quality) == (1, 0.5)
    assert template.vector == pytest.approx(unit(1), abs=1e-6)


def test_faces_that_cancel_out_leave_the_best_one() -> None:
    template = TrackTemplate(16)
    template.add(unit(1), 0.5)
    template.add(-unit(1), 0.5)
    assert template.vector == pytest.approx(unit(1), abs=1e-6)


def test_an_empty_template_has_no_vector() -> None:
    with pytest.raises(ValueError, match="without embedded faces"):
        _ = TrackTemplate(16).vector


@given(faces=st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1)), min_size=1, max_size=12))
def test_a_template_is_always_of_unit_length(faces: list[tuple[int, float]]) -> None:
    template = TrackTemplate(16)
    for seed, quality in faces:
        template.add(unit(seed), quality)
    assert np.linalg.norm(template.vector) == pytest.approx(1.0, abs=1e-5)
    assert template.vector.dtype == np.float32
