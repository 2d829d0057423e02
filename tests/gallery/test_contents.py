"""Versions of what a gallery holds, each made from the one before."""

import numpy as np
import pytest

from tests.support.galleries import DIGEST, DIMENSION, MODEL, vector
from worker.gallery.contents import Contents, Sample, empty
from worker.gallery.gallery import searchable
from worker.types import Vectors


def with_people(before: Contents, *seeds: int, block_samples: int = 8192) -> Contents:
    """With a sample of each of these people more."""
    new = [Sample(f"s{seed}", f"p{seed}", f"{seed}.jpg", f"{seed}", "", 1.0, "") for seed in seeds]
    names = before.names | {sample.identity_id: sample.identity_id for sample in new}
    return before.plus(new, np.stack([vector(seed) for seed in seeds]), names, block_samples=block_samples)


def held(contents: Contents) -> dict[str, list[float]]:
    ids = [sample.sample_id for sample in contents.samples]
    return dict(zip(ids, contents.vectors_of().tolist(), strict=True))


def expected(*seeds: int) -> dict[str, list[float]]:
    return {f"s{seed}": vector(seed).tolist() for seed in seeds}


def nearest(contents: Contents, before: Contents | None = None) -> list[str]:
    ready = searchable(contents, None if before is None else searchable(before))
    queries: Vectors = np.stack([vector(seed) for seed in range(10)])
    return [ready.identity_ids[number] for number in ready.index.search(queries)[0][:, 0].tolist()]


@pytest.fixture
def first() -> Contents:
    return with_people(empty(MODEL, DIGEST, DIMENSION), 1, 2, 3)


def test_two_versions_that_grow_from_one_do_not_disturb_it_or_each_other(first: Contents) -> None:
    one = with_people(first, 4, 5)
    other = with_people(first, 6)  # as after a change that the database refused
    both = with_people(one, 7)
    assert held(first) == expected(1, 2, 3)
    assert held(one) == expected(1, 2, 3, 4, 5)
    assert held(other) == expected(1, 2, 3, 6)
    assert held(both) == expected(1, 2, 3, 4, 5, 7)
    for after in (one, other, both, first):
        for before in (one, other, both, first):
            assert nearest(after, before) == nearest(after)


def test_a_block_that_is_full_stays_as_it_is(first: Contents) -> None:
    grown = first
    for seed in range(4, 12):
        grown = with_people(grown, seed, block_samples=4)
    assert [len(block.samples) for block in grown.blocks] == [4, 4, 3]
    assert with_people(grown, 12, 13, block_samples=4).blocks[:2] == grown.blocks[:2]
    assert held(grown) == expected(*range(1, 12))


def test_of_a_block_that_grows_only_the_new_part_is_looked_at(first: Contents) -> None:
    before = searchable(first)
    grown = with_people(first, 4)
    grown.blocks[-1].vectors[0, 0] = np.nan  # whoever reads it again complains
    assert len(searchable(grown, before).index) == 4
    with pytest.raises(ValueError, match="not finite"):
        searchable(grown)
    grown.blocks[-1].vectors[3, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        searchable(grown, before)


def test_who_goes_is_in_no_memory_of_the_version_without_them(first: Contents) -> None:
    left = with_people(with_people(first, 4).minus({"s2"}), 5)
    assert held(left) == expected(1, 3, 4, 5)
    for block in left.blocks:
        whole = block.vectors if block.vectors.base is None else block.vectors.base
        assert vector(2).tobytes() not in whole.tobytes()
