from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.gallery.index import NOBODY, PersonIndex, Representation, representation_for
from worker.gallery.stored import require_unit


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    vectors = rng.normal(size=(n, d))
    scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def by_hand(vectors: np.ndarray, owners: np.ndarray, query: np.ndarray) -> list[tuple[int, float]]:
    similarities = vectors @ query
    best = {owner: float(similarities[owners == owner].max()) for owner in set(owners.tolist())}
    ranked = sorted(best.items(), key=lambda item: -item[1])
    return (ranked + [(NOBODY, -1.0)] * 2)[:2]


@pytest.mark.parametrize("representation", ["flat", "codes"])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), samples=st.lists(st.integers(1, 60), min_size=1, max_size=5))
def test_finds_the_best_person_and_the_best_other_person(
    representation: Representation, seed: int, samples: list[int]
) -> None:
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(len(samples)), samples)
    vectors = unit(rng, len(owners), 8)
    queries = np.concatenate([unit(rng, 5, 8), vectors[:3]])
    people, similarities = PersonIndex(vectors, owners, representation).search(queries)
    for query, found, cosines in zip(queries, people, similarities, strict=True):
        expected = by_hand(vectors, owners, query)
        assert cosines == pytest.approx([cosine for _, cosine in expected], abs=1e-5)
        assert found[0] == expected[0][0] or expected[0][1] - expected[1][1] < 1e-5
        assert found[0] != found[1]


@pytest.mark.parametrize("representation", ["flat", "codes"])
def test_sees_past_any_number_of_samples_of_the_best_person(representation: Representation) -> None:
    rng = np.random.default_rng(3)
    centre = unit(rng, 1, 16)
    crowd = centre + 0.01 * rng.normal(size=(2500, 16))
    crowd = (crowd / np.linalg.norm(crowd, axis=1, keepdims=True)).astype(np.float32)
    vectors, owners = np.concatenate([crowd, -centre]), np.array([0] * 2500 + [1])
    people, similarities = PersonIndex(vectors, owners, representation).search(centre)
    assert people.tolist() == [[0, 1]]
    assert similarities[0, 1] == pytest.approx(-1.0, abs=1e-5)


@pytest.mark.parametrize("representation", ["flat", "codes"])
@pytest.mark.parametrize("threads", [1, 4])
def test_people_who_are_passed_over_are_as_if_they_were_not_there(representation: Representation, threads: int) -> None:
    rng = np.random.default_rng(1)
    owners = np.repeat(np.arange(12), 50)
    vectors, queries = unit(rng, len(owners), 16), unit(rng, 2, 16)
    index = PersonIndex(vectors, owners, representation)
    nearest = index.search(queries)[0][:, 0].tolist()
    for without in ([], nearest, list(range(11)), list(range(12))):
        left = ~np.isin(owners, without)
        people, similarities = index.search(queries, threads=threads, without=without)
        for query, found, cosines in zip(queries, people, similarities, strict=True):
            expected = by_hand(vectors[left], owners[left], query)
            assert found.tolist() == [person for person, _ in expected]
            assert cosines == pytest.approx([cosine for _, cosine in expected], abs=1e-5)


def test_a_change_does_not_read_again_what_was_checked_before() -> None:
    rng = np.random.default_rng(3)
    old, new = unit(rng, 40, 8), unit(rng, 1, 8)
    before = PersonIndex([old], np.arange(40))
    kept = old.copy()
    old[:] = np.nan
    after = PersonIndex([old, new], np.arange(41), previous=before)
    old[:] = kept
    assert after.search(new)[0][0, 0] == 40
    old[:] = np.nan
    with pytest.raises(ValueError, match="40 of 40 vectors"):
        PersonIndex([old, new], np.arange(41))


def test_an_empty_index_knows_nobody() -> None:
    people, similarities = PersonIndex(np.empty((0, 4), np.float32), np.empty(0, np.int64)).search(
        np.eye(4, dtype=np.float32)[:2]
    )
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


def faces(rng: np.random.Generator, people: int, d: int, samples: int = 3) -> tuple[np.ndarray, ...]:
    """Samples, a further one of each of the first people, and strangers: two samples of a person are at about 0.6."""
    spread = np.arange(1, d + 1) ** -0.1
    centres = rng.normal(size=(people, d)) * spread
    strangers = rng.normal(size=(100, d)) * spread

    def seen(whom: np.ndarray) -> np.ndarray:
        vectors = np.sqrt(0.6) * whom + np.sqrt(0.4) * rng.normal(size=whom.shape) * spread
        scaled: np.ndarray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        return scaled

    return seen(np.repeat(centres, samples, axis=0)), seen(centres[:100]), seen(strangers)


@pytest.mark.parametrize("d", [128, 600, 2048])
def test_codes_end_in_the_decisions_of_an_exact_search(d: int) -> None:
    vectors, known, strangers = faces(np.random.default_rng(5), 2000, d)
    owners = np.arange(len(vectors)) // 3
    queries = np.concatenate([known, strangers])
    people, similarities = PersonIndex(vectors, owners, "codes").search(queries)
    exact_people, exact = PersonIndex(vectors, owners, "flat").search(queries)
    accepted, exactly_accepted = similarities[:, 0] > 0.45, exact[:, 0] > 0.45
    assert 80 < exactly_accepted.sum() < 120
    assert (accepted == exactly_accepted).all()
    assert (people[accepted, 0] == exact_people[accepted, 0]).all()
    same = (people == exact_people) & (np.abs(similarities - exact) < 1e-5)
    assert same.mean() >= 0.999


@pytest.mark.parametrize("representation", ["flat", "codes"])
def test_blocks_in_files_are_searched_like_one_array(representation: Representation, tmp_path: Path) -> None:
    vectors, known, _ = faces(np.random.default_rng(6), 1000, 64)
    owners = np.arange(len(vectors)) // 3
    blocks = []
    for number, block in enumerate(np.split(vectors, [700, 701, 2000])):
        np.save(tmp_path / f"{number}.npy", block)
        blocks.append(np.load(tmp_path / f"{number}.npy", mmap_mode="r"))
    for found, expected in zip(
        PersonIndex(blocks, owners, representation).search(known),
        PersonIndex(vectors, owners, representation).search(known),
        strict=True,
    ):
        assert found == pytest.approx(expected)


@pytest.mark.parametrize("representation", ["flat", "codes"])
def test_an_index_made_from_another_is_that_made_from_nothing(representation: Representation) -> None:
    vectors, known, strangers = faces(np.random.default_rng(7), 500, 32)
    first, second, third, new = np.split(vectors, [400, 900, 1200])
    before = PersonIndex([first, second, third], np.arange(1200) // 3, representation)
    blocks, owners = [third, first, new], np.arange(len(third) + len(first) + len(new)) // 3
    queries = np.concatenate([known, strangers])
    from_before = PersonIndex(blocks, owners, representation, previous=before).search(queries)
    from_nothing = PersonIndex(np.concatenate(blocks), owners, representation).search(queries)
    for found, expected in zip(from_before, from_nothing, strict=True):
        assert found == pytest.approx(expected)


def test_the_codes_of_a_block_that_stays_are_not_computed_again() -> None:
    vectors, _, _ = faces(np.random.default_rng(7), 300, 32)
    first, second, new = (part.copy() for part in np.split(vectors[:300], [100, 200]))
    owners = np.arange(200)
    before = PersonIndex([first, second], owners, "codes")
    first[:] = 0
    PersonIndex([first, new], owners, "codes", previous=before)
    with pytest.raises(ValueError, match="100 of 100 vectors"):  # where the block is read again
        PersonIndex([first, new], owners, "codes")


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    dimension=st.sampled_from([16, 61, 350, 1030]),
    blocks=st.lists(st.integers(0, 150), min_size=1, max_size=6),
    part_rows=st.sampled_from([32, 96, 1024]),
    samples=st.integers(1, 40),
    threads=st.sampled_from([1, 3]),
)
def test_codes_of_any_blocks_and_parts_find_what_an_exact_search_finds(
    seed: int, dimension: int, blocks: list[int], part_rows: int, samples: int, threads: int
) -> None:
    vectors, known, strangers = faces(np.random.default_rng(seed), 200, dimension, samples=5)
    vectors, owners = vectors[: sum(blocks)], np.arange(sum(blocks)) // samples
    queries = np.concatenate([known[:10], strangers[:10]])
    split = np.split(vectors, np.cumsum(blocks)[:-1])
    index = PersonIndex(split, owners, "codes", part_rows=part_rows)
    exact_people, exact = PersonIndex(vectors, owners, "flat").search(queries)
    # Without its first block, and with what had been encoded before: parts begin at other samples.
    fewer = PersonIndex([*split[1:], split[0]], np.roll(owners, -blocks[0]), "codes", previous=index)
    for searched in (index, fewer):
        people, similarities = searched.search(queries, threads=threads)
        assert people.tolist() == exact_people.tolist()
        assert similarities == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize(
    ("samples", "dimension", "expected"),
    [(10, 2048, "flat"), (16_384, 2048, "flat"), (16_385, 2048, "codes"), (1_000_000, 128, "codes")],
)
def test_the_representation_follows_from_the_size(samples: int, dimension: int, expected: str) -> None:
    assert representation_for(samples, dimension) == expected


def test_refuses_what_it_cannot_represent() -> None:
    vectors = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="3 owners"):
        PersonIndex(vectors, np.arange(3))
    with pytest.raises(ValueError, match="'flta'"):
        PersonIndex(vectors, np.arange(4), "flta")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one block"):
        PersonIndex([], np.arange(0))


def test_threads_that_share_the_rows_of_a_query_find_the_same() -> None:
    vectors, known, strangers = faces(np.random.default_rng(8), 2000, 64)
    index = PersonIndex(vectors, np.arange(len(vectors)) // 3, "codes", part_rows=512)
    for query in [*known[:20], *strangers[:20]]:
        for found, expected in zip(index.search(query[None], threads=3), index.search(query[None]), strict=True):
            assert found == pytest.approx(expected)
    for found, expected in zip(index.search(known, threads=3), index.search(known), strict=True):
        assert found == pytest.approx(expected)
