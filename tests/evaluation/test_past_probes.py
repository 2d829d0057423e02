"""Strangers from the history: what their similarities say, though those that reached the threshold bear a name."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from tests.support.past import AXES, MODEL, sighting
from worker.errors import SourceError
from worker.evaluation.calibration import Target
from worker.evaluation.past_probes import completed, past_strangers, rates_by_camera, set_of_history
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.history.records import Account, PastSighting

PLACE, SPREAD, LIMIT = 0.2, 0.05, 0.3


@pytest.fixture
def gallery() -> FolderGallery:
    made = FolderGallery.in_memory(MODEL.model_id, MODEL.preprocessing_digest, 16)
    made.add([NewSample("Ann", AXES[0], "a.jpg", "a")])
    return made


def at(similarity: float) -> np.ndarray:
    template: np.ndarray = (similarity * AXES[0] + (1 - similarity**2) ** 0.5 * AXES[1]).astype(np.float32)
    return template


def seen(similarities: Sequence[float], camera: str = "door", limit: float = LIMIT) -> list[PastSighting]:
    """A sighting an hour; those that reach ``limit`` were given a name."""
    return [
        sighting(
            60 * number, at(similarity), sighting_id=f"{camera}_{number}", camera_id=camera,
            identity_id="" if similarity < limit else "ann", account=Account(threshold=limit),
        )
        for number, similarity in enumerate(similarities)
    ]  # fmt: skip


@pytest.mark.parametrize("threshold", [0.3, 0.34, 0.38])
def test_the_tail_that_the_verdicts_cut_off_is_filled_in(gallery: FolderGallery, threshold: float) -> None:
    true = float(stats.gumbel_r.sf(threshold, PLACE, SPREAD))
    found = []
    for seed in range(5):
        similarities = np.random.default_rng(seed).gumbel(PLACE, SPREAD, 1500)
        past = past_strangers(seen(similarities.tolist()), gallery)
        assert past.similarities.max() < LIMIT
        found.append(completed(past).rate_at(threshold))
    assert np.median(found) == pytest.approx(true, rel=0.3)


def test_a_threshold_from_the_history_keeps_the_target(gallery: FolderGallery) -> None:
    similarities = np.random.default_rng(1).gumbel(PLACE, SPREAD, 1500)
    target = Target.of_strangers(0.01, 1)
    found = set_of_history(past_strangers(seen(similarities.tolist()), gallery), target, must_decide=True)
    assert found.threshold
    assert 0.001 < stats.gumbel_r.sf(found.threshold.value, PLACE, SPREAD) <= 0.01
    assert "known people who were not recognised" in found.who
    without_a_name = int(np.count_nonzero(similarities < LIMIT))
    assert f"({without_a_name:,} without a name" in found.who
    assert f"{found.scores.people - without_a_name:,} that are computed" in found.who


def test_cameras_are_rated_each_by_its_own_strangers(gallery: FolderGallery) -> None:
    chance = np.random.default_rng(2)
    past = past_strangers(
        [
            *seen(chance.gumbel(0.15, SPREAD, 600).tolist(), "door"),
            *seen(chance.gumbel(0.2, SPREAD, 600).tolist(), "yard"),
            *seen(chance.gumbel(0.2, SPREAD, 20).tolist(), "cellar"),
        ],
        gallery,
    )
    rates = rates_by_camera(past, 0.3)
    assert list(rates) == ["cellar", "door", "yard"]
    assert rates["cellar"]["fpir"] is None
    assert 0 < rates["door"]["fpir"] < rates["yard"]["fpir"] < rates["yard"]["fpir_at_most_95"]
    assert past.per_camera_and_day == pytest.approx(len(past) / (599 / 24) / 3, rel=0.02)
    assert rates_by_camera(None, 0.3) == {}


def test_only_people_without_a_name_whom_this_model_embedded_count(gallery: FolderGallery) -> None:
    others = [
        sighting(1, at(0.2), identity_id="ann"),
        sighting(2, at(0.2), embedder=replace(MODEL, preprocessing_digest="other")),
        sighting(3, None),
        sighting(4, at(0.2), embedded_faces=1),
    ]
    with pytest.raises(SourceError, match="no sighting of an unknown person that m has embedded"):
        past_strangers(others, gallery)
    again = [sighting(number, at(0.2), unknown_id="u-1") for number in range(5, 8)]
    past = past_strangers([*others, *again, sighting(9, at(0.1))], gallery)
    assert past.people.tolist() == [1, 1, 1, 0]
    assert past.similarities.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.1], abs=1e-6)
    with pytest.raises(SourceError, match="4 sightings of unknown people are too few"):
        completed(past)
