"""Vectors in blocks, often memory-mapped, of which a search reads some rows."""

import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.types import Vectors

_MAPPED_ROWS: Final = 16_384
_SHARED_READS: Final = 256
_UNIT_TOLERANCE: Final = (
    1e-2  # vectors of BF16 networks are far below, since they are normalised in float32; raw vectors far above
)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def require_unit(vectors: NDArray[Any], dimension: int) -> Vectors:
    """``vectors`` as contiguous float32 (n, dimension).

    Not a number, or a vector of zeros, would match arbitrary samples: both are refused here.

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


class StoredVectors:
    """Blocks float32 (n, d) as one list of rows. They are not copied; they may be memory-mapped."""

    def __init__(self, blocks: Sequence[Vectors]) -> None:
        self.blocks = tuple(blocks)
        if not self.blocks:
            raise ValueError("expected one block of vectors or more, got none")
        self.dimension: int = self.blocks[0].shape[1]
        self._ends = np.cumsum([len(block) for block in self.blocks])
        self._rows_read = 0

    def __len__(self) -> int:
        return int(self._ends[-1])

    def all_similarities(self, queries: Vectors) -> Vectors:
        """The dot products float32 (q, n) of ``queries`` (q, d) with all vectors."""
        found = np.empty((len(queries), len(self)), np.float32)
        for block, end in zip(self.blocks, self._ends, strict=True):
            np.matmul(queries, block.T, out=found[:, end - len(block) : end])
        return found

    def similarities(self, rows: NDArray[np.int64], query: Vectors, threads: int) -> Vectors:
        """The dot products float32 (n,) of ``query`` with the vectors of ``rows``, read in the order of the files."""
        if not len(rows):
            return np.empty(0, np.float32)
        order = np.argsort(rows)
        ordered = rows[order]
        found = np.empty(len(rows), np.float32)
        vectors = np.empty((len(rows), len(query)), np.float32)
        owning, first = np.unique(np.searchsorted(self._ends, ordered, side="right"), return_index=True)
        pieces = list(zip(owning.tolist(), first.tolist(), [*first[1:].tolist(), len(rows)], strict=True))

        def compare(pieces: list[tuple[int, int, int]]) -> None:
            for number, start, end in pieces:
                block = self.blocks[number]
                places = ordered[start:end] - (self._ends[number] - len(block))
                # With the default mode, "raise", NumPy copies everything once more.
                np.take(block, places, axis=0, out=vectors[start:end], mode="clip")
            start, end = pieces[0][1], pieces[-1][2]
            found[order[start:end]] = vectors[start:end] @ query

        shares = min(threads, len(pieces)) if len(rows) >= _SHARED_READS else 1
        cuts = np.linspace(0, len(pieces), shares + 1).astype(int).tolist()
        side_by_side(compare, [pieces[begin:end] for begin, end in pairwise(cuts)], threads)
        self._rows_read += len(rows)
        if self._rows_read > _MAPPED_ROWS:
            self._rows_read = 0
            for block in self.blocks:
                release(block)
        return found


def place_of(block: Vectors) -> tuple[int, tuple[int, ...]]:
    """Where it lies in memory, and its strides: the same for two living blocks of which one begins with the other."""
    return block.__array_interface__["data"][0], block.strides


def side_by_side(work: Callable[[_Item], _Result], items: Sequence[_Item], threads: int) -> list[_Result]:
    """What ``work`` makes of each item, by so many threads."""
    if threads == 1 or len(items) == 1:
        return list(map(work, items))
    with ThreadPoolExecutor(min(threads, len(items))) as pool:
        return list(pool.map(work, items))


def release(block: Vectors) -> None:
    """Gives the pages of a memory-mapped block back to the system, which then reads only the rows asked for."""
    owner: Any = block
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and not block.flags.writeable:  # a private change would be lost
        owner.madvise(mmap.MADV_DONTNEED)
        owner.madvise(mmap.MADV_RANDOM)
