"""Thresholds for a target false-match rate: what they keep to, and what their intervals cover."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.drawn_people import draw_faces
from worker.evaluation.calibration import (
    Target,
    false_non_match_rate,
    find_threshold,
    listed_pairs,
    one_to_many,
    one_to_one,
    rate_of,
    same_person_similarities,
)
from worker.evaluation.false_matches import (
    NonMatedScores,
    UnsupportedTargetError,
    effective_count,
    everybody_with_everybody,
    rate_interval,
    strangers_against_gallery,
)
from worker.evaluation.probes import group_people
from worker.evaluation.promise import calibration_set
from worker.evaluation.verification import Pairs, PhotoKey


def strangers(similarities: list[float], people: list[int] | None = None) -> NonMatedScores:
    owners = np.arange(len(similarities)) if people is None else np.array(people)
    return strangers_against_gallery(np.array(similarities, np.float64), owners)


def test_rates_count_people_not_photos() -> None:
    """Somebody with many photos weighs no more than somebody with one."""
    vectors = np.eye(3, dtype=np.float32)[[0, 0, 0, 0, 1, 2]]
    vectors[5] = [0.6, 0.0, 0.8]
    scores = everybody_with_everybody(vectors, np.array([0, 0, 0, 0, 1, 2]), target=0.4)
    assert scores.rate_at(0.5) == pytest.approx(1 / 3)
    assert (scores.people, scores.pairs_of_people) == (3, 3)


def test_only_the_highest_similarities_are_kept_and_the_rates_stay_those_of_all() -> None:
    vectors, people = draw_faces(np.random.default_rng(0), 150, 3)
    few = everybody_with_everybody(vectors, people, target=0.001)
    all_kept = everybody_with_everybody(vectors, people, target=0.1)
    assert len(few.similarities) < len(all_kept.similarities) / 10
    assert few.threshold_at(0.001) == pytest.approx(all_kept.threshold_at(0.001))
    cosines = (vectors @ vectors.T)[people[:, None] < people[None, :]]
    assert all_kept.rate_at(0.6) == pytest.approx(np.mean(cosines >= 0.6))


@given(
    st.lists(st.integers(-20, 19), min_size=1, max_size=60),
    st.floats(0.001, 0.49),
    st.floats(0.001, 0.49),
)
def test_a_threshold_keeps_to_its_rate_and_falls_as_the_rate_rises(values: list[int], a: float, b: float) -> None:
    scores = strangers([value / 20 for value in values])
    low, high = sorted((a, b))
    assert scores.rate_at(scores.threshold_at(a)) <= a + 1e-9
    assert scores.threshold_at(low) >= scores.threshold_at(high)
    assert scores.rate_at(scores.threshold_at(high)) >= scores.rate_at(scores.threshold_at(low))


@given(st.lists(st.integers(-20, 19), min_size=1, max_size=60), st.floats(0.01, 0.49))
def test_no_lower_threshold_would_do(values: list[int], rate: float) -> None:
    scores = strangers([value / 20 for value in values])
    lower = [value / 20 for value in values if value / 20 < scores.threshold_at(rate)]
    assert all(scores.rate_at(value) > rate for value in lower)


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.05, 0.01])
def test_intervals_cover_what_they_promise(target: float) -> None:
    """The confidence interval covers the population's rate, the prediction interval that of a new group."""
    generator = np.random.default_rng(7)
    population, owners = draw_faces(generator, 1500, 1)
    everybody = everybody_with_everybody(population, owners, target=0.1)
    runs, in_confidence, in_prediction, naive = 80, 0, 0, 0
    for _ in range(runs):
        found = find_threshold(everybody_with_everybody(*draw_faces(generator, 120, 2), target), target)
        true_rate = everybody.rate_at(found.value)
        other = everybody_with_everybody(*draw_faces(generator, 120, 2), target).rate_at(found.value)
        in_confidence += found.rate.confidence[0] <= true_rate <= found.rate.confidence[1]
        in_prediction += found.rate.prediction[0] <= other <= found.rate.prediction[1]
        low, high = rate_interval(found.rate.value, 120 * 119 / 2 * 4)  # as if photo pairs were independent
        naive += low <= true_rate <= high
    # 95 % promised; 80 runs show at least 87 % of them with a probability of 99.5 %.
    assert in_confidence / runs >= 0.87
    assert in_prediction / runs >= 0.87
    assert naive / runs < 0.75


def test_independent_pairs_of_people_are_not_counted_three_times() -> None:
    """Where people make no difference the effective number of comparisons is that of the pairs."""
    generator = np.random.default_rng(2)
    people = 200
    first, second = np.triu_indices(people, 1)
    values = np.sort(generator.normal(size=len(first)))[::-1]
    order = generator.permutation(len(first))
    shares = np.full(len(first), 1 / len(first))
    scores = NonMatedScores(values, shares, first[order], second[order], people, len(first), True)
    limit = scores.threshold_at(0.02)
    worth = effective_count(scores.rate_at(limit), sum(scores.spread_at(limit)))
    assert worth == pytest.approx(len(first), rel=0.35)


def test_a_target_beyond_the_data_is_refused_with_what_it_would_need() -> None:
    vectors, people = draw_faces(np.random.default_rng(0), 60, 2)
    find_threshold(everybody_with_everybody(vectors, people, 0.02), 0.02)
    with pytest.raises(UnsupportedTargetError, match=r"60 people \(1,770 pairs of people\) are given, about") as caught:
        find_threshold(everybody_with_everybody(vectors, people, 1e-4), 1e-4)
    needed = int(str(caught.value).split("about ")[1].split(" people")[0].replace(",", ""))
    assert needed * (needed - 1) / 2 >= 3 / 1e-4
    assert caught.value.exit_code == 1


def test_what_is_said_to_be_needed_suffices() -> None:
    generator = np.random.default_rng(11)
    with pytest.raises(UnsupportedTargetError) as caught:
        find_threshold(everybody_with_everybody(*draw_faces(generator, 50, 1), 0.001), 0.001)
    needed = int(str(caught.value).split("about ")[1].split(" people")[0].replace(",", ""))
    assert needed < 5000
    find_threshold(everybody_with_everybody(*draw_faces(generator, needed * 2, 1), 0.001), 0.001)


def test_strangers_who_are_enrolled_are_no_evidence() -> None:
    with pytest.raises(UnsupportedTargetError, match="the same pictures"):
        find_threshold(strangers([1.0] * 50 + [0.1] * 450), 0.05)


def test_strangers_are_counted_by_person() -> None:
    """Ten visits of each of thirty people are no three hundred strangers."""
    generator = np.random.default_rng(4)
    level = generator.normal(0.1, 0.1, 30)
    similarities = np.repeat(level, 10) + generator.normal(0, 0.01, 300)
    owners = np.repeat(np.arange(30), 10)
    with pytest.raises(UnsupportedTargetError, match="30 strangers are given, about"):
        find_threshold(strangers_against_gallery(similarities, owners), 0.05)
    alone = find_threshold(strangers_against_gallery(similarities, np.arange(300)), 0.05)
    assert alone.effective_comparisons == pytest.approx(300, rel=0.1)
    assert (
        rate_of(strangers_against_gallery(similarities, owners), alone.value).confidence[1] > alone.rate.confidence[1]
    )


def test_faces_that_are_alike_are_one_stranger() -> None:
    vectors = np.array([[1, 0], [0.98, 0.199], [0, 1], [-1, 0]], np.float32)
    numbers = group_people(vectors, 0.9).tolist()
    assert numbers[0] == numbers[1]
    assert len(set(numbers)) == 3
    chain = np.array([[np.cos(angle), np.sin(angle)] for angle in np.linspace(0, 3, 12)], np.float32)
    assert len(set(group_people(chain, 0.9).tolist())) > 1
    assert group_people(chain[:1], 0.9).tolist() == [0]


def test_pairs_from_a_list_count_alike_and_by_people() -> None:
    photos = tuple(PhotoKey(f"P{number}", 1) for number in range(40))
    first, second = np.triu_indices(40, 1)
    pairs = Pairs(photos, first, second, np.zeros(len(first), bool), np.zeros(len(first), np.int64))
    vectors, _ = draw_faces(np.random.default_rng(5), 40, 1)
    similarities = np.einsum("nd,nd->n", vectors[first], vectors[second]).astype(np.float64)
    listed = listed_pairs(pairs, similarities)
    full = everybody_with_everybody(vectors, np.arange(40), 0.1)
    limit = full.threshold_at(0.1)
    assert listed.rate_at(limit) == pytest.approx(full.rate_at(limit))
    assert sum(listed.spread_at(limit)) == pytest.approx(sum(full.spread_at(limit)), rel=0.05)
    with pytest.raises(UnsupportedTargetError, match="780 pairs of different people are given"):
        find_threshold(listed, 0.001)


@given(st.floats(1e-6, 0.4), st.integers(1, 5000))
def test_one_to_many_and_back(rate: float, samples: int) -> None:
    whole = one_to_many(rate, samples)
    assert whole == pytest.approx(1 - (1 - rate) ** samples, abs=1e-9)
    if whole < 0.999999:
        assert one_to_one(whole, samples) == pytest.approx(rate, rel=1e-4)


def test_a_gallery_of_many_needs_a_higher_threshold_for_the_same_alarms() -> None:
    scores = everybody_with_everybody(*draw_faces(np.random.default_rng(6), 300, 1), 0.05)
    found = [calibration_set("people", scores, Target.of_strangers(0.1, samples)).threshold for samples in (1, 20)]
    one, many = (threshold for threshold in found if threshold)
    assert many.value > one.value
    assert many.target == pytest.approx(1 - 0.9 ** (1 / 20))


def test_a_refusal_names_the_rate_that_was_asked_for() -> None:
    scores = everybody_with_everybody(*draw_faces(np.random.default_rng(6), 30, 1), 0.001)
    with pytest.raises(UnsupportedTargetError, match=r"0\.000201 \(from a target fpir of 0\.01 and 50 enrolled"):
        calibration_set("people", scores, Target.of_strangers(0.01, 50))
    with pytest.raises(UnsupportedTargetError, match=r"rate of 0\.001: 30 people"):
        calibration_set("people", scores, Target.of_comparisons(0.001, 50))
    with pytest.raises(UnsupportedTargetError, match=r"0\.0488 of the .* \(from a target fmr of 0\.001 and 50"):
        calibration_set("strangers", strangers([0.1] * 10), Target.of_comparisons(0.001, 50))


def test_missed_people_are_rated_by_person() -> None:
    vectors = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [1, 0]], np.float32)
    similarities, people = same_person_similarities(vectors, np.array([0, 0, 0, 1, 1]))
    assert sorted(similarities.tolist()) == [0.0, 1.0, 1.0, 1.0]
    rate = false_non_match_rate(similarities, people, 0.5)
    assert rate is not None
    assert rate.value == pytest.approx(0.5)
    assert rate.confidence[0] < 0.5 < rate.confidence[1]
    assert false_non_match_rate(np.empty(0), np.empty(0, np.int64), 0.5) is None
