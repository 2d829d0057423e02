"""Nearest-person search over samples: the only user of FAISS.

A person is as near as their nearest sample. So the runner-up is the nearest sample of any other person, however many
samples the nearest person has.

Small galleries are compared in float32. Larger ones are scanned as short codes, and the nearest samples of that scan
are compared again with the float32 vectors, which may lie in memory-mapped files. So similarities are always exact;
only a sample that the scan ranks behind all its candidates can be missed. A code depends only on its own vector, so
after a change only the samples that changed are encoded.
"""

import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, Final, Literal, get_args

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from worker.types import Vectors

Representation = Literal["flat", "sq8", "rabitq"]

NOBODY: Final = -1
_FIRST_NEIGHBOURS: Final = 8
# How many samples the scan gives; how many of them are compared again in any case; and 3.5 standard deviations of the
# scan's error, as measured on random unit vectors, times the square root of the dimension.
_SCAN: Final[dict[Representation, tuple[int, int, float]]] = {"sq8": (256, 16, 0.047), "rabitq": (4096, 256, 2.7)}
_FLAT_BYTES: Final = 128 * 2**20
_SQ8_DIMENSION: Final = 512
_SQ8_RANGE: Final = 6.0  # in standard deviations of a rotated component; larger values are clipped
_QUERY_BITS: Final = 4
_ENCODED_ROWS: Final = 4096
_SHARED_ROWS: Final = 100_000
_MAPPED_ROWS: Final = 16_384
_SHARED_READS: Final = 512
_UNIT_TOLERANCE: Final = (
    1e-2  # vectors of BF16 networks are far below, since they are normalised in float32; raw vectors far above
)


def require_unit(vectors: NDArray[Any], dimension: int) -> Vectors:
    """``vectors`` as contiguous float32 (n, dimension).

    FAISS itself accepts NaN, and a zero vector matches arbitrary samples at similarity 0: both are refused here.

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


def representation_for(samples: int, dimension: int) -> Representation:
    """How so many samples are kept for the scan: float32 up to 128 MiB, else 1 byte or 1 bit for each dimension."""
    if samples * dimension * 4 <= _FLAT_BYTES:
        return "flat"
    return "sq8" if dimension <= _SQ8_DIMENSION else "rabitq"


class PersonIndex:
    """Samples and the people they belong to. It never changes once built, so any thread may search it.

    ``vectors``: float32 (n, d) of unit length, or a sequence of such blocks. They are not copied, and searches read
    them, so they may be memory-mapped.
    ``owners``: int64 (n,), the person of each row, a number from 0 up.
    ``representation``: how the samples are scanned; by default as :func:`representation_for` chooses.
    ``previous``: an index whose codes are taken over for the blocks that are the same objects.
    ``shared_rows``: from so many samples on, several threads share the samples of one query.
    """

    def __init__(
        self,
        vectors: Vectors | Sequence[Vectors],
        owners: NDArray[np.int64],
        representation: Representation | Literal["auto"] = "auto",
        *,
        previous: "PersonIndex | None" = None,
        shared_rows: int = _SHARED_ROWS,
    ) -> None:
        self._shared_rows = shared_rows
        self._blocks = (vectors,) if isinstance(vectors, np.ndarray) else tuple(vectors)
        if not self._blocks:
            raise ValueError("expected one block of vectors or more, got none")
        self._ends = np.cumsum([len(block) for block in self._blocks])
        if self._ends[-1] != len(owners):
            raise ValueError(f"{self._ends[-1]} vectors but {len(owners)} owners")
        if representation not in ("auto", *get_args(Representation)):
            raise ValueError(f"no representation is called {representation!r}")
        self._owners = owners
        self._mapped_rows = 0
        dimension = self._blocks[0].shape[1]
        self.representation: Representation = (
            representation_for(len(owners), dimension) if representation == "auto" else representation
        )
        self._signs = np.random.default_rng(dimension).choice(np.array([-1, 1], np.float32), dimension)
        self._index = _empty_index(self.representation, dimension)
        self._fill(previous if previous is not None and previous.representation == self.representation else None)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def search(
        self, queries: Vectors, *, threads: int = 1, without: Sequence[int] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nearest person and the nearest other person of each query, as if the people ``without`` were not there.

        Returns ``people`` int64 (q, 2) and ``similarities`` float32 (q, 2), best first. If there is no such person,
        it is ``NOBODY`` at similarity -1.

        Raises:
            ValueError: queries that are not unit vectors of the index's dimension.
        """
        queries = require_unit(queries, self._index.d)
        people = np.full((len(queries), 2), NOBODY, np.int64)
        similarities = np.full((len(queries), 2), -1.0, np.float32)
        _use_threads(threads)
        open_rows = np.arange(len(queries))
        selected = np.flatnonzero(~np.isin(self._owners, without)) if len(without) else None
        if selected is not None and not len(selected):
            return people, similarities
        neighbours = min(
            _FIRST_NEIGHBOURS if self.representation == "flat" else _SCAN[self.representation][0], len(self)
        )
        while len(open_rows) and neighbours:
            found, rows = self._nearest(queries[open_rows], neighbours, threads, selected)
            owners = np.where(rows >= 0, self._owners[rows], NOBODY)
            found = np.where(rows >= 0, found, np.float32(-1.0))
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
            # All neighbours belong to one person: only a wider search can find the next person.
            open_rows = open_rows[~has_second]
            neighbours = min(neighbours * 4, len(self))
        return people, np.clip(similarities, -1.0, 1.0)

    def _nearest(
        self, queries: Vectors, neighbours: int, threads: int, selected: NDArray[np.int64] | None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Similarities float32 and rows int64, both (q, neighbours), best first; row -1 if there are fewer. Only rows
        that are ``selected`` are looked at; None: all."""
        if self.representation == "flat":
            similarities, rows = self._index.search(queries, neighbours, params=_parameters("flat", _chosen(selected)))
            return similarities, rows
        estimates, rows = self._scan(self._rotated(queries), neighbours, threads, selected)
        similarities = np.full(rows.shape, -2.0, np.float32)
        for query, estimated, own_rows, own in zip(queries, estimates, rows, similarities, strict=True):
            count = self._compare(query, estimated, own_rows, own, threads)
            own_rows[count:] = NOBODY
        order = np.argsort(-similarities, axis=1, kind="stable")
        return np.take_along_axis(similarities, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def _scan(
        self, rotated: Vectors, neighbours: int, threads: int, selected: NDArray[np.int64] | None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Estimated similarities and rows, both (q, neighbours), best first."""
        parts = threads if len(rotated) < threads and len(self) >= self._shared_rows else 1
        if parts == 1:  # FAISS divides the queries of a batch among threads, but never the rows of one query
            parameters = _parameters(self.representation, _chosen(selected))
            estimates, rows = self._index.search(rotated, neighbours, params=parameters)
            return estimates, rows
        bounds = np.linspace(0, len(self), parts + 1).astype(int).tolist()

        def scan(first: int, last: int) -> tuple[Vectors, NDArray[np.int64]]:
            _use_threads(1)
            part = faiss.IDSelectorRange(first, last)
            chosen = part if selected is None else faiss.IDSelectorAnd(part, _chosen(selected))
            parameters = _parameters(self.representation, chosen)
            estimates, rows = self._index.search(rotated, neighbours, params=parameters)
            return estimates, rows

        with ThreadPoolExecutor(parts) as pool:
            found = list(pool.map(scan, bounds[:-1], bounds[1:]))
        estimates, rows = (np.concatenate(column, axis=1) for column in zip(*found, strict=True))
        order = np.argsort(np.where(rows >= 0, -estimates, np.inf), axis=1)[:, :neighbours]
        return np.take_along_axis(estimates, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def _compare(
        self, query: Vectors, estimates: Vectors, rows: NDArray[np.int64], similarities: Vectors, threads: int
    ) -> int:
        """Fills in ``similarities`` for those first ``rows`` that may hold the nearest two people; returns how many."""
        _, certain, error = _SCAN[self.representation]
        there = int(np.count_nonzero(rows >= 0))
        certain = min(certain, there)
        similarities[:certain] = self._similarities_at(rows[:certain], query, threads)
        owners = self._owners[rows[:certain]]
        others = similarities[:certain][owners != owners[similarities[:certain].argmax()]]
        worst = (others.max() if len(others) else -1.0) - error / np.sqrt(self._index.d)
        count = max(certain, int(np.searchsorted(-estimates[:there], -worst)))
        similarities[certain:count] = self._similarities_at(rows[certain:count], query, threads)
        return count

    def _similarities_at(self, rows: NDArray[np.int64], query: Vectors, threads: int) -> Vectors:
        """Exact similarities float32 (n,) of the samples ``rows``, read in the order of the files."""
        if not len(rows):
            return np.empty(0, np.float32)
        order = np.argsort(rows)
        ordered = rows[order]
        found = np.empty(len(rows), np.float32)
        vectors = np.empty((len(rows), self._index.d), np.float32)
        owning, first = np.unique(np.searchsorted(self._ends, ordered, side="right"), return_index=True)
        pieces = list(zip(owning.tolist(), first.tolist(), [*first[1:].tolist(), len(rows)], strict=True))

        def compare(pieces: list[tuple[int, int, int]]) -> None:
            for number, start, end in pieces:
                block = self._blocks[number]
                places = ordered[start:end] - (self._ends[number] - len(block))
                # With the default mode, "raise", NumPy copies everything once more.
                np.take(block, places, axis=0, out=vectors[start:end], mode="clip")
            start, end = pieces[0][1], pieces[-1][2]
            found[order[start:end]] = vectors[start:end] @ query

        if threads == 1 or len(rows) < _SHARED_READS:
            compare(pieces)
        else:
            cuts = np.linspace(0, len(pieces), min(threads, len(pieces)) + 1).astype(int).tolist()
            with ThreadPoolExecutor(len(cuts) - 1) as pool:
                list(pool.map(compare, (pieces[begin:end] for begin, end in pairwise(cuts))))
        self._mapped_rows += len(rows)
        if self._mapped_rows > _MAPPED_ROWS:
            self._mapped_rows = 0
            for block in self._blocks:
                _release(block)
        return found

    def _rotated(self, vectors: Vectors) -> Vectors:
        """A fixed random rotation. It spreads each vector evenly over all dimensions, so that one grid fits all."""
        return np.ascontiguousarray(dct(vectors * self._signs, norm="ortho", axis=1), dtype=np.float32)

    def _fill(self, previous: "PersonIndex | None") -> None:
        if self.representation == "flat":
            for block in self._blocks:
                self._index.add(require_unit(block, self._index.d))
            return
        known = {} if previous is None else dict(zip(map(id, previous._blocks), previous._ends, strict=True))
        codes = _room_for(self._index, int(self._ends[-1]))
        for block, end in zip(self._blocks, self._ends, strict=True):
            begin = end - len(block)
            if previous is not None and id(block) in known:
                source = known[id(block)]
                codes[begin:end] = _codes(previous._index)[source - len(block) : source]
                continue
            for start in range(0, len(block), _ENCODED_ROWS):
                part = require_unit(block[start : start + _ENCODED_ROWS], self._index.d)
                codes[begin + start : begin + start + len(part)] = self._index.sa_encode(self._rotated(part))
            _release(block)


def _empty_index(representation: Representation, dimension: int) -> Any:
    """An index for rotated vectors. It is not fitted to data, so the code of a vector depends on no other vector."""
    if representation == "flat":
        return faiss.IndexFlatIP(dimension)
    if representation == "sq8":
        index: Any = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_8bit_uniform, faiss.METRIC_INNER_PRODUCT
        )
        edge = np.full((1, dimension), _SQ8_RANGE / np.sqrt(dimension), np.float32)
        index.train(np.concatenate([-edge, edge]))
        return index
    # 1 bit a dimension, after Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors", 2024
    index = faiss.IndexRaBitQ(dimension, faiss.METRIC_INNER_PRODUCT)
    index.train(np.zeros((2, dimension), np.float32))
    index.qb = _QUERY_BITS
    return index


def _chosen(rows: NDArray[np.int64] | None) -> Any:
    """What lets FAISS look at these rows only; None: at all."""
    return None if rows is None else faiss.IDSelectorBatch(rows)


def _parameters(representation: Representation, selector: Any) -> Any:
    if selector is None:
        return None
    kinds: dict[str, tuple[Any, dict[str, int]]] = {
        "flat": (faiss.SearchParameters, {}),
        "sq8": (faiss.SearchParameters, {}),
        "rabitq": (faiss.RaBitQSearchParameters, {"qb": _QUERY_BITS}),
    }
    kind, options = kinds[representation]
    return kind(sel=selector, **options)


def _use_threads(threads: int) -> None:
    # OpenMP keeps this number for each calling thread; by default it would take every core, which the networks need.
    faiss.omp_set_num_threads(threads)


def _room_for(index: Any, samples: int) -> NDArray[np.uint8]:
    index.codes.resize(samples * index.code_size)
    index.ntotal = samples
    return _codes(index)


def _codes(index: Any) -> NDArray[np.uint8]:
    """The codes of ``index``, uint8 (n, bytes): a view."""
    if not index.ntotal:
        return np.empty((0, index.code_size), np.uint8)
    view: NDArray[np.uint8] = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    return view.reshape(index.ntotal, index.code_size)


def _release(block: Vectors) -> None:
    """Gives the pages of a memory-mapped block back to the system, which then reads only the rows asked for."""
    owner: Any = block
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and not block.flags.writeable:  # a private change would be lost
        owner.madvise(mmap.MADV_DONTNEED)
        owner.madvise(mmap.MADV_RANDOM)
