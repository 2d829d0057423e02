import threading

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.search import NOBODY, PersonIndex, require_unit


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    vectors = rng.normal(size=(n, d))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def by_hand(vectors: np.ndarray, owners: np.ndarray, query: np.ndarray) -> list[tuple[int, float]]:
    similarities = vectors @ query
    best = {owner: float(similarities[owners == owner].max()) for owner in set(owners.tolist())}
    ranked = sorted(best.items(), key=lambda item: -item[1])
    return (ranked + [(NOBODY, -1.0)] * 2)[:2]


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), samples=st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_finds_the_best_person_and_the_best_other_person(seed: int, samples: list[int]) -> None:
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(samples)), samples)
    vectors = unit(rng, len(owners), 8)
    queries = np.concatenate([unit(rng, 5, 8), vectors[:3]])
    people, similarities = PersonIndex(vectors, owners).search(queries)
    for query, found, cosines in zip(queries, people, similarities, strict=True):
        expected = by_hand(vectors, owners, query)
        assert cosines == pytest.approx([cosine for _, cosine in expected], abs=1e-5)
        assert found[0] == expected[0][0] or expected[0][1] - expected[1][1] < 1e-5
        assert found[0] != found[1]


def test_sees_past_any_number_of_samples_of_the_best_person() -> None:
    rng = np.random.default_rng(3)
    centre = unit(rng, 1, 16)
    crowd = centre + 0.01 * rng.normal(size=(500, 16))
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    vectors, owners = np.concatenate([crowd, -centre]), np.array([0] * 500 + [1])
    people, similarities = PersonIndex(vectors, owners).search(centre)
    assert people.tolist() == [[0, 1]]
    assert similarities[0, 1] == pytest.approx(-1.0, abs=1e-5)


def test_an_empty_index_knows_nobody() -> None:
    people, similarities = PersonIndex(np.empty((0, 4), np.float32), np.empty(0, np.int64)).search(np.eye(4)[:2])
    assert people.tolist() == [[NOBODY, NOBODY]] * 2
    assert similarities.tolist() == [[-1.0, -1.0]] * 2


def test_no_query_gives_no_answer() -> None:
    index = PersonIndex(np.eye(4, dtype=np.float32), np.arange(4))
    people, similarities = index.search(np.empty((0, 4), np.float32))
    assert people.shape == similarities.shape == (0, 2)


@pytest.mark.parametrize(
    "bad",
    [np.zeros((1, 4)), np.full((1, 4), np.nan), np.array([[np.inf, 0, 0, 0]]), np.full((1, 4), 0.6), np.eye(5)[:1]],
)
def test_refuses_what_is_not_a_unit_vector(bad: np.ndarray) -> None:
    index = PersonIndex(np.eye(4, dtype=np.float32), np.arange(4))
    for refuse in (lambda: require_unit(bad, 4), lambda: index.search(bad)):
        with pytest.raises(ValueError, match=r"expected vectors|not finite and of unit length"):
            refuse()


def test_takes_the_number_of_threads_it_is_given_in_any_thread() -> None:
    index = PersonIndex(np.eye(4, dtype=np.float32), np.arange(4))
    seen: list[int] = []

    def search() -> None:
        index.search(np.eye(4, dtype=np.float32), threads=3)
        seen.append(faiss.omp_get_max_threads())

    thread = threading.Thread(target=search)
    thread.start()
    thread.join()
    assert seen == [3]
