"""The pairs that decide a threshold, named with their photos."""

from pathlib import Path

import numpy as np

from tests.support.drawn_people import draw_faces
from worker.evaluation.calibration import find_threshold, listed_pairs, same_person_similarities
from worker.evaluation.deciding import deciding_listed, deciding_people, threshold_without
from worker.evaluation.false_matches import everybody_with_everybody
from worker.evaluation.probes import PeopleFaces
from worker.evaluation.verification import Pairs, PhotoKey


def people(doubled: bool) -> PeopleFaces:
    """150 people with two photos each; if ``doubled``, the second photo of the first person has a name of its own."""
    vectors, numbers = draw_faces(np.random.default_rng(1), 150, 2, dimension=40)
    if doubled:
        numbers = numbers.copy()
        numbers[1] = 150
    count = int(numbers.max()) + 1
    photos = tuple(Path(f"{row}.jpg") for row in range(len(vectors)))
    return PeopleFaces(vectors, numbers, tuple(f"p{number}" for number in range(count)), 0, photos)


def test_one_person_under_two_names_is_named_with_the_threshold_without_them() -> None:
    faces = people(doubled=True)
    scores = everybody_with_everybody(faces.vectors, faces.people, 0.0005)
    pairs = deciding_people(scores, faces, same_person_similarities(faces.vectors, faces.people))
    assert set(pairs[0].names) == {"p0", "p150"}
    assert {path.name for path in pairs[0].photos if path} == {"0.jpg", "1.jpg"}
    assert pairs[0].looks_like_one
    assert not any(pair.looks_like_one for pair in pairs[1:])
    assert [pair.similarity for pair in pairs] == sorted((pair.similarity for pair in pairs), reverse=True)
    without = threshold_without(scores, 0.0005, pairs)
    clean = people(doubled=False)
    right = find_threshold(everybody_with_everybody(clean.vectors, clean.people, 0.0005), 0.0005).value
    assert without is not None
    assert abs(without - right) < 0.02
    assert without < find_threshold(scores, 0.0005).value


def test_nothing_is_doubted_where_nothing_is_wrong() -> None:
    faces = people(doubled=False)
    scores = everybody_with_everybody(faces.vectors, faces.people, 0.001)
    pairs = deciding_people(scores, faces, same_person_similarities(faces.vectors, faces.people))
    assert len(pairs) == 10
    assert len({pair.names for pair in pairs}) == 10
    assert not any(pair.looks_like_one for pair in pairs)
    assert threshold_without(scores, 0.001, pairs) is None


def test_pairs_of_a_file_are_named_once_for_each_two_people() -> None:
    keys = (PhotoKey("Ann", 1), PhotoKey("Ann", 2), PhotoKey("Bo", 1), PhotoKey("Bo", 2), PhotoKey("Cy", 1))
    first, second = np.array([0, 1, 0, 0, 2]), np.array([2, 3, 4, 1, 4])
    same = np.array([False, False, False, True, False])
    pairs = Pairs(keys, first, second, same, np.zeros(5, np.int64))
    similarities = np.array([0.5, 0.9, 0.2, 0.8, 0.3])
    photos = [Path(f"{key.person}{key.number}") for key in keys]
    scores = listed_pairs(pairs, similarities)
    mated = (similarities[same], pairs.people[0][same])
    found = deciding_listed(scores, pairs, similarities, photos, mated)
    assert [(pair.names, pair.similarity) for pair in found] == [
        (("Ann", "Bo"), 0.9),
        (("Bo", "Cy"), 0.3),
        (("Ann", "Cy"), 0.2),
    ]
    assert found[0].photos == (Path("Ann2"), Path("Bo2"))
    assert not found[0].looks_like_one  # one mated pair says too little
