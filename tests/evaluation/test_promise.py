"""What a calibration promises, whether it is kept, and what is said where it is not."""

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.support.drawn_people import Vectors, draw_faces
from worker.evaluation.calibration import Target, one_to_many
from worker.evaluation.false_matches import everybody_with_everybody, strangers_against_gallery
from worker.evaluation.probes import PeopleFaces, probes_of_people
from worker.evaluation.promise import calibration_document, calibration_set, sets_of_people
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery


def people_faces(vectors: Vectors, people: NDArray[np.int64], kind: str = "p") -> PeopleFaces:
    names = tuple(f"{kind}{number}" for number in range(int(people.max()) + 1))
    return PeopleFaces(vectors, people, names, 0)


def gallery_of(vectors: Vectors, kind: str = "enrolled") -> FolderGallery:
    gallery = FolderGallery.in_memory("a-model", "d", vectors.shape[1])
    gallery.add([NewSample(f"{kind}{row}", vector, f"{row}.jpg", f"{row:064x}") for row, vector in enumerate(vectors)])
    return gallery


def test_the_rate_against_this_gallery_decides_as_well() -> None:
    """A gallery of people who look like everybody needs more than the average gallery of its size."""
    generator = np.random.default_rng(3)
    faces = people_faces(*draw_faces(generator, 600, 1))
    common = (np.eye(12)[0] * 2.5 + generator.normal(size=(8, 12))).astype(np.float32)
    gallery = gallery_of(common / np.linalg.norm(common, axis=1, keepdims=True))
    target = Target.of_strangers(0.1, gallery.sample_count)
    everybody, against = sets_of_people(faces, gallery, target)
    assert everybody.threshold
    assert against.scores.rate_at(everybody.threshold.value) > 0.1
    found = calibration_document([everybody, against], target, None)
    assert found["threshold"] > everybody.threshold.value + 0.01
    assert found["fpir"] <= 0.1
    assert (found["target_status"], found["target_met"], found["target_asked"]) == ("kept", True, "fpir")
    others = probes_of_people(people_faces(*draw_faces(generator, 600, 1)), gallery)
    assert others
    assert others[0].rate_at(found["threshold"]) <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize("target", [0.1, 0.04])
def test_a_target_is_kept_on_people_whom_the_calibration_has_not_seen(target: float) -> None:
    generator = np.random.default_rng(5)
    kept = 0
    for _ in range(14):
        gallery = gallery_of(draw_faces(generator, 10, 1)[0])
        wanted = Target.of_strangers(target, 10)
        sets = sets_of_people(people_faces(*draw_faces(generator, 300, 1)), gallery, wanted)
        found = calibration_document(sets, wanted, None)
        others = probes_of_people(people_faces(*draw_faces(generator, 4000, 1)), gallery)
        assert others
        kept += found["target_status"] != "kept" or others[0].rate_at(found["threshold"]) <= target
    assert kept >= 13


def test_a_target_that_is_missed_is_said_with_what_would_reach_it() -> None:
    generator = np.random.default_rng(8)
    target = Target.of_strangers(0.02, 5)
    people = calibration_set("people", everybody_with_everybody(*draw_faces(generator, 200, 1), target.fmr), target)
    few = strangers_against_gallery(np.array([0.95, 0.94, *[0.1] * 38]), np.arange(40))
    seen = calibration_set("strangers", few, target, who="strangers", must_decide=False)
    found = json.loads(json.dumps(calibration_document([people, seen], target, None)))
    assert (found["target_status"], found["target_met"]) == ("missed", False)
    assert found["reached"] == pytest.approx(0.05)
    assert found["reached_from"] == "40 strangers"
    assert 0.9 < found["threshold_to_reach"] <= 0.96
    assert f"{found['threshold_to_reach']:.4f}" in found["to_reach"]
    assert "strangers would do" in found["to_reach"]


def test_without_strangers_the_gallery_is_not_measured_and_nobody_says_upper_bound() -> None:
    target = Target.of_strangers(0.1, 20)
    scores = everybody_with_everybody(*draw_faces(np.random.default_rng(6), 300, 1), target.fmr)
    found = calibration_document([calibration_set("people", scores, target)], target, None)
    assert (found["target_status"], found["target_met"]) == ("not_measured", None)
    assert "not enrolled" in found["to_reach"]
    assert "expectation over galleries" in found["fpir_from"]
    assert "bound" not in json.dumps(found)


def test_few_strangers_who_match_nobody_make_nothing_certain() -> None:
    target = Target.of_strangers(0.1, 20)
    seen = calibration_set("strangers", strangers_against_gallery(np.linspace(0, 0.3, 60), np.arange(60)), target)
    found = calibration_document([seen], target, None)
    assert (found["target_status"], found["target_met"]) == ("not_certain", None)
    assert "about 96 strangers would make it certain" in found["to_reach"]


def test_people_who_are_all_enrolled_are_searched_among_the_others() -> None:
    vectors, people = draw_faces(np.random.default_rng(2), 30, 2)
    gallery = gallery_of(vectors[::2], "p")
    found = probes_of_people(people_faces(vectors, people), gallery)
    assert found
    scores, who = found
    assert who == "people of this gallery, against the others"
    table = vectors @ vectors[::2].T
    table[np.arange(60), people] = -1
    assert sorted(scores.similarities) == pytest.approx(sorted(table.max(axis=1)), abs=1e-5)


def test_a_stranger_with_many_photos_counts_as_one_person() -> None:
    vectors, _ = draw_faces(np.random.default_rng(2), 12, 1)
    rows = [0] * 20 + list(range(1, 12))
    gallery = gallery_of(vectors[:1], "somebody")
    found = probes_of_people(people_faces(vectors[rows], np.array(rows)), gallery)
    assert found
    assert found[0].rate_at(0.999) == pytest.approx(1 / 12)


def test_a_target_of_comparisons_is_not_raised_by_strangers() -> None:
    generator = np.random.default_rng(3)
    faces = people_faces(*draw_faces(generator, 300, 1))
    gallery = gallery_of(draw_faces(generator, 10, 1)[0])
    target = Target.of_comparisons(0.02, 10)
    everybody, against = sets_of_people(faces, gallery, target)
    assert everybody.threshold
    assert against.threshold is None
    found = calibration_document([everybody, against], target, None)
    assert found["threshold"] == pytest.approx(everybody.threshold.value, abs=1e-6)
    assert found["target_asked"] == "fmr"
    assert found["reached"] == found["fmr"] <= 0.02


def test_the_document_is_json_and_takes_the_strictest_evidence() -> None:
    generator = np.random.default_rng(8)
    target = Target.of_comparisons(0.01, 10)
    people = calibration_set("people", everybody_with_everybody(*draw_faces(generator, 200, 1), target.fmr), target)
    similarities = strangers_against_gallery(generator.uniform(0, 1, 300), np.arange(300))
    seen = calibration_set("strangers", similarities, target, who="people not enrolled")
    limits = [found.threshold.value for found in (people, seen) if found.threshold]
    document = json.loads(json.dumps(calibration_document([people, seen], target, visits_per_day=500)))
    assert document["threshold"] == pytest.approx(max(limits), abs=1e-5)
    assert document["decided_by"] == ("people", "strangers")[int(np.argmax(limits))]
    assert document["false_alarms_per_camera_and_day"] == pytest.approx(500 * document["fpir"], rel=1e-4)
    assert "300 people not enrolled" in document["fpir_from"]
    low, high = document["fmr_interval_95"]
    narrow_low, narrow_high = document["fmr_confidence_interval_95"]
    assert low <= narrow_low <= document["fmr"] <= narrow_high <= high
    assert [found["source"] for found in document["evidence"]] == ["people", "strangers"]
    alone = calibration_document([people], target, 500)
    assert alone["fpir"] == pytest.approx(one_to_many(alone["fmr"], 10), rel=1e-4)
