"""Whether the people of a gallery resemble each other more than those for whom its threshold was chosen."""

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.faces.manifests import Impostors
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.gallery.resemblance import OwnPairs, Resemblance, impostors_among, resemblance_in

DIMENSION = 64


def draw(count: int, *, alike: float = 0.0, samples: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """People as unit vectors (count, samples, d); ``alike`` is how much of each is common to all."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(count, 1, DIMENSION)) / DIMENSION**0.5 + alike * np.eye(DIMENSION)[0]
    vectors = centres + 0.2 * generator.normal(size=(count, samples, DIMENSION)) / DIMENSION**0.5
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)
    return unit


def gallery_of(people: NDArray[np.float32]) -> FolderGallery:
    gallery = FolderGallery.in_memory("a-model", "d", DIMENSION)
    gallery.add(
        [
            NewSample(f"p{person}", vector, f"{person}-{number}", f"{person}-{number}")
            for person, samples in enumerate(people)
            for number, vector in enumerate(samples)
        ]
    )
    return gallery


def evidence(seed: int = 100) -> Impostors:
    """Of 600 people, for a threshold that 1 in 1,000 of their pairs reach."""
    vectors = draw(600, seed=seed)[:, 0]
    cosines = (vectors @ vectors.T)[np.triu_indices(600, 1)]
    threshold = float(np.quantile(cosines, 0.999))
    found = impostors_among(vectors, np.arange(600))
    return found.model_copy(update={"threshold": threshold, "at_threshold": 0.001})


@pytest.fixture(scope="module")
def impostors() -> Impostors:
    return evidence()


def judged(people: NDArray[np.float32], impostors: Impostors) -> Resemblance:
    found = resemblance_in(gallery_of(people), impostors.threshold, impostors)
    assert found
    return found


@pytest.mark.parametrize("size", [15, 50, 200])
def test_a_gallery_of_people_who_resemble_each_other_is_told_from_all_others(size: int, impostors: Impostors) -> None:
    kin = [judged(draw(size, alike=0.6, seed=seed), impostors) for seed in range(20)]
    assert all(found.is_high for found in kin)
    others = [judged(draw(size, seed=seed), impostors) for seed in range(20)]
    assert not any(found.is_high for found in others)
    assert not any(found.warning for found in others)


def test_the_warning_says_how_much_and_what_would_keep_the_promise(impostors: Impostors) -> None:
    people = draw(100, alike=0.6)
    found = judged(people, impostors)
    vectors = people[:, 0]
    cosines = (vectors @ vectors.T)[np.triu_indices(100, 1)]
    assert found.share == pytest.approx(np.mean(cosines >= impostors.threshold))
    assert found.times == pytest.approx(found.share / 0.001, rel=0.01)
    assert "times as much as those in the evidence" in found.warning
    assert f"{found.offered:.3f} keeps the promise" in found.warning
    more = draw(1000, alike=0.6, seed=9)[:, 0]
    kin = (more @ more.T)[np.triu_indices(1000, 1)]
    assert np.mean(kin >= impostors.threshold) > 0.01
    assert np.mean(kin >= found.offered) <= 0.001


def test_the_warning_gives_both_shares_in_percent_and_no_number_with_an_exponent() -> None:
    found = Resemblance(
        threshold=0.4345, share=0.0064, expected=5.6e-5, at_reference=0.2, at_least=0.1, pairs=780, offered=0.689
    )
    assert "resemble each other 110 times as much" in found.warning
    assert "0.64% of their pairs" in found.warning
    assert "0.0056% of the pairs in the evidence" in found.warning


def test_samples_of_one_person_are_no_pair_and_every_pair_of_people_counts_the_same(impostors: Impostors) -> None:
    people = draw(30, samples=3)
    vectors, owners = people.reshape(-1, DIMENSION), np.repeat(np.arange(30), 3)
    pairs = OwnPairs(vectors, owners).reaching(0.2)
    table = np.einsum("asd,btd->abst", people, people) >= 0.2
    expected = table.mean(axis=(2, 3))[np.triu_indices(30, 1)].mean()
    assert pairs.share == pytest.approx(expected)
    assert pairs.count == 30 * 29 // 2
    assert 0 < pairs.at_least < pairs.share
    burst = np.repeat(people[:1], 40, axis=1)  # one person with 120 photos
    skewed = np.concatenate([burst.reshape(-1, DIMENSION), people[1:].reshape(-1, DIMENSION)])
    who = np.r_[np.zeros(burst.shape[1], np.int64), np.repeat(np.arange(1, 30), 3)]
    assert OwnPairs(skewed, who).reaching(0.2).share == pytest.approx(expected)


def test_a_large_gallery_is_sampled(impostors: Impostors) -> None:
    found = judged(draw(2500), impostors)
    assert found.pairs == 1000 * 999 // 2
    assert found.at_reference == pytest.approx(0.01, rel=0.2)


def test_too_few_people_or_no_evidence_say_nothing(impostors: Impostors) -> None:
    assert resemblance_in(gallery_of(draw(9, alike=2.0)), 0.3, impostors) is None
    assert resemblance_in(gallery_of(draw(50, alike=2.0)), 0.3) is None


def test_a_calibrated_gallery_is_compared_with_its_own_evidence(impostors: Impostors) -> None:
    gallery = gallery_of(draw(50, alike=0.6))
    gallery.set_thresholds(impostors.threshold, {}, {"default": {"impostors": impostors.model_dump()}})
    found = resemblance_in(gallery, impostors.threshold)
    assert found
    assert found.is_high
    vectors = draw(600, alike=0.6, seed=7)[:, 0]
    kin = impostors_among(vectors, np.arange(600))
    gallery.set_thresholds(0.5, {}, {"default": {"impostors": kin.model_dump()}})
    found = resemblance_in(gallery, 0.5)
    assert found
    assert not found.is_high
