"""Exact nearest-person search over samples: the only user of FAISS.

A person is as near as their nearest sample, so the runner-up is the best sample of anybody else, however many
samples the best person has.
"""

from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

NOBODY: Final = -1
_FIRST_NEIGHBOURS: Final = 8
_UNIT_TOLERANCE: Final = 1e-2  # BF16 networks are normalised in float32: far below; a raw vector is far above


def require_unit(vectors: NDArray[Any], dimension: int) -> Vectors:
    """``vectors`` as contiguous float32 (n, dimension).

    FAISS itself takes NaN, and a zero vector matches arbitrary samples at similarity 0: both stop here.

    Raises:
        ValueError: wrong shape, a value that is not finite, or a row that is not of unit length.
    """
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"expected vectors (n, {dimension}), got {vectors.shape}")
    ready = np.ascontiguousarray(vectors, dtype=np.float32)
    squared = np.einsum("nd,nd->n", ready, ready)
    wrong = ~(np.abs(squared - 1.0) <= 2 * _UNIT_TOLERANCE)
    if wrong.any():
        raise ValueError(f"{int(wrong.sum())} of {len(ready)} vectors are not finite and of unit length")
    return ready


class PersonIndex:
    """Samples and the people they belong to; never changed once built, so that any thread may search it.

    ``vectors`` float32 (n, d) of unit length; ``owners`` int64 (n,): the person of each, a number from 0 up.
    """

    def __init__(self, vectors: Vectors, owners: NDArray[np.int64]) -> None:
        if len(vectors) != len(owners):
            raise ValueError(f"{len(vectors)} vectors but {len(owners)} owners")
        self._owners = owners
        self._index = faiss.IndexFlatIP(vectors.shape[1])
        self._index.add(require_unit(vectors, vectors.shape[1]))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(self, queries: Vectors, *, threads: int = 1) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nearest person and the nearest other person of each query.

        Returns ``people`` int64 (q, 2) and ``similarities`` float32 (q, 2), best first; a person who does not
        exist is ``NOBODY`` at -1.

        Raises:
            ValueError: queries that are not unit vectors of the index's dimension.
        """
        queries = require_unit(queries, self._index.d)
        people = np.full((len(queries), 2), NOBODY, np.int64)
        similarities = np.full((len(queries), 2), -1.0, np.float32)
        # OpenMP keeps this number for each calling thread, and would otherwise take every core beside the networks.
        faiss.omp_set_num_threads(threads)
        open_rows = np.arange(len(queries))
        neighbours = min(_FIRST_NEIGHBOURS, len(self))
        while len(open_rows) and neighbours:
            found, rows = self._index.search(queries[open_rows], neighbours)
            owners = np.where(rows >= 0, self._owners[rows], NOBODY)
            others = (owners != owners[:, :1]) & (owners != NOBODY)
            second = others.argmax(axis=1)
            has_second = others.any(axis=1)
            people[open_rows, 0] = owners[:, 0]
            similarities[open_rows, 0] = found[:, 0]
            settled, column = open_rows[has_second], second[has_second]
            people[settled, 1] = owners[has_second, column]
            similarities[settled, 1] = found[has_second, column]
            if neighbours == len(self):
                break
            # All neighbours belong to one person: only a wider search can show the next.
            open_rows = open_rows[~has_second]
            neighbours = min(neighbours * 4, len(self))
        return people, np.clip(similarities, -1.0, 1.0)
