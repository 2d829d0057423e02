"""Short codes of vectors, and their scan: the only user of FAISS.

FAISS is loaded with this module, by galleries that need codes. A code depends only on its own vector, so after a
change only the samples that changed are encoded.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from worker.gallery.stored import place_of, release, require_unit, side_by_side
from worker.types import Vectors

NOTHING: Final = -1
_PART_ROWS: Final = 131_072
_NIBBLES: Final = 342
"""Of a code, at most. Each stands for the same number of components of the rotated vector, for one or more."""
_CENTROIDS: Final = 16
_FITTED_ON: Final = 100_000
_LANES: Final = 32
"""So many codes are interleaved in the memory of FAISS, which compares a query with all of them at once."""
_DEVIATIONS: Final = 3.5
_PIECE_ROWS: Final = 1024
"""A block that grows at its end keeps the codes of all its pieces except the last."""
_ENCODED_ROWS: Final = 4096

Scanned = tuple[Vectors, NDArray[np.int64]]
"""Of one query: estimated similarities float32 (n,), best first, and rows int64 (n,), of which -1 is no sample."""


class Codes:
    """The codes of all vectors in some blocks, in parts that are scanned one by one.

    What ``previous`` has encoded is taken over, with the memory it lies in where a whole part stays as it was. A part
    holds ``part_rows`` codes at most, a multiple of 32; 0 leaves it to this module.
    """

    def __init__(self, blocks: Sequence[Vectors], previous: "Codes | None" = None, part_rows: int = 0) -> None:
        self._code = _code_for(blocks[0].shape[1])
        known = {piece.key: (part, piece) for part in (previous.parts if previous else ()) for piece in part.pieces}
        self.parts: tuple[Part, ...] = tuple(
            _made_part(self._code, pieces, known) for pieces in _pieces(blocks, part_rows or _PART_ROWS)
        )

    @property
    def margin(self) -> float:
        """How far an estimated similarity may be off: 3.5 standard deviations."""
        return self._code.margin

    def asked(self, queries: Vectors) -> Vectors:
        """Unit vectors (q, d) as parts take them."""
        return self._code.asked(queries)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows of one block: those from ``begin`` up to ``end``. ``row`` is the first one's number in the whole index,
    and ``place`` that of its code within its part."""

    block: Vectors
    begin: int
    end: int
    row: int
    place: int

    @property
    def key(self) -> tuple[object, int, int]:
        return place_of(self.block), self.begin, self.end

    def __len__(self) -> int:
        return self.end - self.begin

    @property
    def places(self) -> int:
        """How many places its codes take: whole groups of lanes."""
        return -(-len(self) // _LANES) * _LANES


@dataclass(frozen=True, slots=True)
class Part:
    """The codes of some pieces, which one thread scans at a time."""

    pieces: tuple[_Piece, ...]
    index: Any

    def scan(self, asked: Vectors, neighbours: int) -> tuple[Vectors, NDArray[np.int64]]:
        """Estimated similarities, best first, and rows, both (q, neighbours) or fewer; row -1 is no sample."""
        faiss.omp_set_num_threads(1)
        estimates, places = self.index.search(asked, min(neighbours, self.index.ntotal))
        starts = np.array([piece.place for piece in self.pieces])
        within = np.searchsorted(starts, places, side="right") - 1
        offsets = places - starts[within]
        lengths = np.array([len(piece) for piece in self.pieces])[within]
        rows = np.array([piece.row for piece in self.pieces])[within]
        return estimates, np.where((places >= 0) & (offsets < lengths), rows + offsets, NOTHING)

    def completed(self, asked: Vectors, found: Scanned, limit: float) -> Scanned:
        """What :meth:`scan` has ``found`` for one query, with all the rest whose estimates reach ``limit``."""
        estimates, rows = found
        while len(estimates) < self.index.ntotal and estimates[-1] >= limit:
            (estimates,), (rows,) = self.scan(asked, 4 * len(estimates))
        return estimates, rows

    def codes(self) -> NDArray[np.uint8]:
        """The codes of all places, as FAISS interleaves them: a view."""
        return _codes(self.index)


@dataclass(frozen=True, slots=True)
class _Code:
    """How vectors of one dimension become codes: rotated, and in groups of components.

    The components of a rotated unit vector are spread normally, whatever the vector was. So one set of 16 centroids,
    fitted to random numbers, serves all groups of all vectors, and a code depends on its own vector alone.

    Attributes:
        group: how many components half a byte stands for.
        nibbles: the half bytes of a code, an even number.
        centroids: float32 (16, group).
        kept: the share of a vector's square that its code keeps.
        signs: float32 (dimension,), -1 or 1.
    """

    group: int
    nibbles: int
    centroids: NDArray[np.float32]
    kept: float
    signs: NDArray[np.float32]

    @property
    def margin(self) -> float:
        """How far an estimated similarity may be off: 3.5 standard deviations."""
        return _DEVIATIONS * float(np.sqrt((1 / self.kept - 1) / len(self.signs)))

    def index(self) -> Any:
        """An empty index for rotated vectors."""
        index: Any = faiss.IndexPQFastScan(self.group * self.nibbles, self.nibbles, 4, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(np.tile(self.centroids, (self.nibbles, 1)).ravel(), index.pq.centroids)
        index.is_trained = True
        return index

    def rotated(self, vectors: Vectors) -> Vectors:
        """A fixed random rotation, float32 (n, group * nibbles) with zeros at the end. It spreads each vector evenly
        over all components."""
        turned = np.zeros((len(vectors), self.group * self.nibbles), np.float32)
        turned[:, : len(self.signs)] = dct(vectors * self.signs, norm="ortho", axis=1, overwrite_x=True)
        return turned

    def asked(self, queries: Vectors) -> Vectors:
        """Queries rotated, and as much longer as codes are short of their vectors on average."""
        return self.rotated(queries) / np.float32(self.kept)

    def codes(self, vectors: Vectors) -> NDArray[np.uint8]:
        """The codes of unit vectors, interleaved as FAISS scans them, with codes of nothing up to whole lanes."""
        faiss.omp_set_num_threads(1)
        index = self.index()
        for start in range(0, len(vectors), _ENCODED_ROWS):
            index.add(self.rotated(require_unit(vectors[start : start + _ENCODED_ROWS], len(self.signs))))
        release(vectors)
        return _codes(index).copy()


@functools.cache
def _code_for(dimension: int) -> _Code:
    # Threads of FAISS wait for each other with all their might, and so few numbers are no work for two.
    faiss.omp_set_num_threads(1)
    group = -(-dimension // _NIBBLES)
    nibbles = -(-dimension // group)
    random = np.random.default_rng(dimension)
    signs = random.choice(np.array([-1, 1], np.float32), dimension)
    fitted, other = random.standard_normal((2, _FITTED_ON, group), np.float32)
    clustering = faiss.Kmeans(group, _CENTROIDS, seed=1, max_points_per_centroid=_FITTED_ON)
    clustering.train(fitted)
    distances, _ = clustering.index.search(other, 1)
    centroids = clustering.centroids / np.sqrt(np.float32(dimension))
    return _Code(group, nibbles + nibbles % 2, centroids, 1 - float(distances.mean()) / group, signs)


def _codes(index: Any) -> NDArray[np.uint8]:
    """The codes that ``index`` holds: a view."""
    if not index.ntotal:
        return np.empty(0, np.uint8)
    view: NDArray[np.uint8] = faiss.rev_swig_ptr(index.codes.get(), index.codes.size())
    return view


def _pieces(blocks: Sequence[Vectors], part_rows: int) -> Iterator[list[_Piece]]:
    """The pieces of each part: together ``part_rows`` places at most."""
    pieces: list[_Piece] = []
    row = place = 0
    for block in blocks:
        rows = min(part_rows, _PIECE_ROWS)
        for begin in range(0, len(block), rows):
            piece = _Piece(block, begin, min(begin + rows, len(block)), row, place)
            if pieces and place + piece.places > part_rows:
                yield pieces
                pieces, place = [], 0
                piece = replace(piece, place=0)
            pieces.append(piece)
            row, place = row + len(piece), place + piece.places
    if pieces:
        yield pieces


def _made_part(
    code: _Code, pieces: Sequence[_Piece], known: Mapping[tuple[object, int, int], tuple[Part, _Piece]]
) -> Part:
    """The part of these pieces. Codes that are ``known`` are taken over, or the whole part if it stays as it was."""
    before, _ = known.get(pieces[0].key, (None, None))
    if before is not None and [piece.key for piece in before.pieces] == [piece.key for piece in pieces]:
        return Part(tuple(pieces), before.index)
    places = pieces[-1].place + pieces[-1].places
    codes = np.empty((places, code.nibbles // 2), np.uint8)

    def fill(piece: _Piece) -> None:
        own = codes[piece.place : piece.place + piece.places]
        if piece.key in known:
            part, source = known[piece.key]
            own[:] = part.codes().reshape(-1, own.shape[1])[source.place : source.place + source.places]
        else:
            own[:] = code.codes(piece.block[piece.begin : piece.end]).reshape(own.shape)

    new = sum(piece.key not in known for piece in pieces)
    side_by_side(fill, pieces, len(os.sched_getaffinity(0)) if new > 1 else 1)
    index = code.index()
    faiss.copy_array_to_AlignedTable(codes.ravel(), index.codes)
    index.ntotal = index.ntotal2 = places
    return Part(tuple(pieces), index)
