"""Open-set identification rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import SourceError
from worker.evaluation.open_set import (
    Searches,
    det_curve,
    identification_document,
    rank_one,
    search_left_out,
    search_probes,
)
from worker.evaluation.probes import PeopleFaces


def faces(names: list[str], vectors: list[list[float]]) -> PeopleFaces:
    unit = np.array(vectors, np.float32)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    known, people = np.unique(names, return_inverse=True)
    return PeopleFaces(unit, people.astype(np.int64), tuple(known.tolist()), 0)


def test_each_photo_is_searched_among_all_others() -> None:
    generator = np.random.default_rng(0)
    names = [f"p{number % 5}" for number in range(12)] + ["single_a", "single_b"]
    people = faces(names, generator.normal(size=(14, 6)).tolist())
    searches = search_left_out(people)
    cosines = people.vectors @ people.vectors.T
    for probe in range(12):
        own = [i for i in range(12) if i != probe and names[i] == names[probe]]
        others = [i for i in range(12) if names[i] != names[probe]]
        assert searches.own[probe] == pytest.approx(cosines[probe, own].max(), abs=1e-6)
        assert searches.other[probe] == pytest.approx(cosines[probe, others].max(), abs=1e-6)
    assert searches.strangers == pytest.approx(cosines[12:, :12].max(axis=1), abs=1e-6)
    assert (searches.enrolled_people, searches.strangers_are) == (5, "people with a single photo")


def test_without_single_photos_everybody_is_a_stranger_in_turn() -> None:
    people = faces(["a", "a", "b", "b"], [[1, 0], [1, 0.1], [0, 1], [0.1, 1]])
    searches = search_left_out(people)
    assert searches.strangers == pytest.approx(searches.other)
    assert rank_one(searches) == 1.0


def test_probes_are_matched_by_name_and_others_are_strangers() -> None:
    gallery = faces(["ann", "bo"], [[1, 0], [0, 1]])
    probes = faces(["bo", "cy", "ann"], [[0.1, 1], [1, 1], [0.2, 1]])
    searches = search_probes(gallery, probes)
    assert rank_one(searches) == 0.5  # the probe of ann is nearer to bo
    assert searches.strangers == pytest.approx([np.sqrt(0.5)])
    assert searches.strangers_are == "people who are not enrolled"


def test_nothing_to_identify_is_refused() -> None:
    with pytest.raises(SourceError, match="two photos or more"):
        search_left_out(faces(["a", "b"], [[1, 0], [0, 1]]))
    with pytest.raises(SourceError, match="no probe is of an enrolled person"):
        search_probes(faces(["a"], [[1, 0]]), faces(["b"], [[1, 0]]))


scores = st.lists(st.integers(-10, 10).map(lambda value: value / 10), min_size=1, max_size=30)


@given(scores, scores, scores)
def test_the_det_curve_is_what_counting_gives(own: list[float], other: list[float], unknown: list[float]) -> None:
    count = min(len(own), len(other))
    searches = Searches(
        np.array(own[:count]), np.array(other[:count]), np.arange(count),
        np.array(unknown), np.arange(len(unknown)), count, "",
    )  # fmt: skip
    curve = det_curve(searches)
    for threshold, fpir, fnir in zip(curve.thresholds, curve.fpir, curve.fnir, strict=True):
        assert fpir == pytest.approx(np.mean(searches.strangers >= threshold))
        found = (searches.own >= threshold) & (searches.own > searches.other)
        assert fnir == pytest.approx(1 - np.mean(found), abs=1e-9)
    assert curve.fnir_at(0.5)[0] <= curve.fnir_at(0.1)[0]
    limit = curve.fnir_at(0.1)[1]
    assert np.mean(searches.strangers >= limit) <= 0.1


def test_the_document_has_rates_with_intervals() -> None:
    generator = np.random.default_rng(1)
    searches = Searches(
        generator.normal(0.7, 0.1, 200), generator.normal(0.2, 0.1, 200), np.repeat(np.arange(50), 4),
        generator.normal(0.2, 0.1, 300), np.arange(50, 350), 50, "others",
    )  # fmt: skip
    document = identification_document(searches, draws=100)
    assert document["fnir_at_fpir"]["0.1"] <= document["fnir_at_fpir"]["0.01"] <= document["fnir_at_fpir"]["0.001"]
    low, high = document["confidence_intervals_95"]["fnir_at_fpir_0.001"]
    assert low <= document["fnir_at_fpir"]["0.001"] <= high
    assert document["rank_1"] > 0.95
