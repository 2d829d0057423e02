"""Nearest-person search over samples.

A person is as near as their nearest sample. So the runner-up is the nearest sample of any other person, however many
samples the nearest person has.

Small galleries are compared in float32. Larger ones are scanned as short codes, and every sample whose estimate comes
near enough is compared again with the float32 vector, which may lie in a memory-mapped file. So similarities are
always exact; only a sample that the scan underrates by far can be missed. A worker that uses a GPU has the vectors
compared there (:meth:`PersonIndex.use`).
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from worker.gallery.stored import StoredVectors, place_of, require_unit, side_by_side
from worker.logs import get_logger
from worker.types import Vectors

if TYPE_CHECKING:
    from worker.faces.device.runtimes import Runtime
    from worker.faces.device.search import DeviceIndex
    from worker.gallery.codes import Codes, Scanned

Representation = Literal["flat", "codes"]

NOBODY: Final = -1
_FLAT_BYTES: Final = 128 * 2**20
_QUERIES: Final = 32  # that are compared with all samples at once
_SCANNED: Final = 512  # samples that the scan of a part gives at first
_COMPARED: Final = 64  # samples that are compared in any case
_MOST: Final = 4096  # samples that are compared to find the nearest two people, once there are two
_SHARED_ROWS: Final = 100_000
_DEVICE_BYTES: Final = 16 * 2**20
"""From so many on a device is asked: fewer are compared here in a millisecond or two."""
_DEVICE_SHARE: Final = 0.5
"""Of the memory that is free on a device, a gallery may take so much."""
_MOST_ABSENT: Final = 512

_log = get_logger(__name__)


def representation_for(samples: int, dimension: int) -> Representation:
    """How so many samples are searched: as they are up to 128 MiB, else by codes of 171 bytes at most."""
    return "flat" if samples * dimension * 4 <= _FLAT_BYTES else "codes"


class PersonIndex:
    """Samples and the people they belong to. It never changes once built, so any thread may search it.

    ``vectors``: float32 (n, d) of unit length, or a sequence of such blocks. They are not copied, and searches read
    them, so they may be memory-mapped.
    ``owners``: int64 (n,), the person of each row, a number from 0 up.
    ``representation``: how the samples are searched; by default as :func:`representation_for` chooses.
    ``previous``: an index whose checks and codes are taken over for the blocks that lie at the same place in memory.
    ``part_rows``: how many codes one thread scans at a time; 0 leaves it to the codes.
    """

    def __init__(
        self,
        vectors: Vectors | Sequence[Vectors],
        owners: NDArray[np.int64],
        representation: Representation | Literal["auto"] = "auto",
        *,
        previous: "PersonIndex | None" = None,
        part_rows: int = 0,
    ) -> None:
        self._stored = StoredVectors((vectors,) if isinstance(vectors, np.ndarray) else vectors)
        if len(self._stored) != len(owners):
            raise ValueError(f"{len(self._stored)} vectors but {len(owners)} owners")
        if representation not in ("auto", *get_args(Representation)):
            raise ValueError(f"no representation is called {representation!r}")
        self._owners = owners
        self.representation: Representation = (
            representation_for(len(owners), self._stored.dimension) if representation == "auto" else representation
        )
        self._codes: Codes | None = None
        self._device: DeviceIndex | None = None
        self._before = previous._device if previous is not None else None
        self._asked: Runtime | None = None
        if self.representation == "codes":
            from worker.gallery import codes

            self._codes = codes.Codes(self._stored.blocks, previous._codes if previous is not None else None, part_rows)
        else:
            # After a change most blocks are those of before, and one has grown at its end.
            checked = {place_of(block): len(block) for block in previous._stored.blocks} if previous is not None else {}
            for block in self._stored.blocks:
                if len(new := block[checked.get(place_of(block), 0) :]):
                    require_unit(new, self._stored.dimension)

    def __len__(self) -> int:
        return len(self._stored)

    def use(self, runtime: "Runtime") -> None:
        """Has searches done by ``runtime`` from now on, if there are enough samples and its device has room."""
        if self._asked is runtime:
            return
        self._asked, before = runtime, self._before
        self._before = None
        if len(self) * self._stored.dimension * 4 < _DEVICE_BYTES:
            return
        from worker.faces.device.search import DeviceIndex, bytes_for

        needed, free = bytes_for(len(self), self._stored.dimension), runtime.free_bytes()
        if free is not None and needed > free * _DEVICE_SHARE:
            _log.info("gallery is searched by the processor: the GPU has no room", needed_bytes=needed, free_bytes=free)
            return
        self._device = DeviceIndex(self._stored.blocks, self._owners, runtime, before)

    @property
    def on_device(self) -> bool:
        """Whether a device searches."""
        return self._device is not None

    def search(
        self, queries: Vectors, *, threads: int = 0, without: Sequence[int] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The nearest person and the nearest other person of each query, as if the people ``without`` were not there.

        Returns ``people`` int64 (q, 2) and ``similarities`` float32 (q, 2), best first. If there is no such person,
        it is ``NOBODY`` at similarity -1. ``threads`` scan codes; 0 takes one, and all cores among very many samples.

        Raises:
            ValueError: queries that are not unit vectors of the index's dimension.
        """
        queries = require_unit(queries, self._stored.dimension)
        people = np.full((len(queries), 2), NOBODY, np.int64)
        similarities = np.full((len(queries), 2), -1.0, np.float32)
        if not len(self) or not len(queries):
            return people, similarities
        absent = np.array(without, np.int64)
        if self._device is not None and len(absent) <= _MOST_ABSENT:
            people, similarities = self._device.search(queries, without)
        elif self._codes is None:
            for start in range(0, len(queries), _QUERIES):
                some = queries[start : start + _QUERIES]
                for number, found in enumerate(self._stored.all_similarities(some), start):
                    people[number], similarities[number] = _nearest_two(self._owners, found, absent)
        else:
            threads = threads or (len(os.sched_getaffinity(0)) if len(self) >= _SHARED_ROWS else 1)
            self._search_codes(self._codes, queries, threads, absent, people, similarities)
        return people, np.clip(similarities, -1.0, 1.0)

    def _search_codes(
        self,
        codes: "Codes",
        queries: Vectors,
        threads: int,
        absent: NDArray[np.int64],
        people: NDArray[np.int64],
        similarities: Vectors,
    ) -> None:
        asked = codes.asked(queries)
        scanned = side_by_side(lambda part: part.scan(asked, _SCANNED), codes.parts, threads)
        at_once = threads if len(queries) >= threads else 1

        def settle(number: int) -> None:
            own = [(estimates[number], rows[number]) for estimates, rows in scanned]
            people[number], similarities[number] = self._settled(
                codes, queries[number], asked[number : number + 1], own, threads // at_once, absent
            )

        side_by_side(settle, range(len(queries)), at_once)

    def _settled(
        self,
        codes: "Codes",
        query: Vectors,
        asked: Vectors,
        scanned: "list[Scanned]",
        threads: int,
        absent: NDArray[np.int64],
    ) -> tuple[NDArray[np.int64], Vectors]:
        """The nearest two people of one query; ``scanned`` is what the scan of each part gave.

        The samples with the best estimates are compared first. Then all others whose estimates do not rule out that
        they are nearer than the second person of those; a part whose scan ended above that is scanned for more.
        """
        rows, exact = np.empty(0, np.int64), np.empty(0, np.float32)
        limit, last = np.inf, False
        while True:
            estimates, candidates = (np.concatenate(column) for column in zip(*scanned, strict=True))
            if limit == np.inf:
                first = min(_COMPARED, len(estimates)) - 1
                limit = -float(np.partition(-estimates, first)[first])
            elif len(estimates) > _MOST and np.isfinite(limit):  # among vectors in all directions alike, many reach it
                limit = max(limit, -float(np.partition(-estimates, _MOST)[_MOST]))
                last = True
            new = np.setdiff1d(candidates[(estimates >= limit) & (candidates >= 0)], rows)
            rows = np.concatenate([rows, new])
            exact = np.concatenate([exact, self._stored.similarities(new, query, threads)])
            people, similarities = _nearest_two(self._owners[rows], exact, absent)
            needed = float(similarities[1]) - codes.margin if people[1] != NOBODY else -np.inf
            if limit <= needed or last or len(rows) == len(self):
                return people, similarities
            limit = needed
            scanned = [part.completed(asked, own, limit) for part, own in zip(codes.parts, scanned, strict=True)]


def _nearest_two(
    owners: NDArray[np.int64], similarities: Vectors, absent: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Vectors]:
    """The nearest person and the nearest other one, int64 (2,), and their similarities (2,), of some samples (n,).

    The people ``absent`` (k,) do not count.
    """
    if len(absent):
        similarities = np.where(np.isin(owners, absent), -np.inf, similarities)
    people, best = np.full(2, NOBODY, np.int64), np.full(2, -1.0, np.float32)
    for place in range(2):
        left = similarities if place == 0 else np.where(owners == people[0], -np.inf, similarities)
        nearest = left.argmax() if len(left) else 0
        if len(left) and left[nearest] > -np.inf:
            people[place], best[place] = owners[nearest], left[nearest]
    return people, best
