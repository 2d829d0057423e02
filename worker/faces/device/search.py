"""Exact search for people on the device: a matrix product, and the best two people of it."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from keras import ops
from numpy.typing import NDArray

from worker.faces.device.runtimes import Runtime
from worker.types import Vectors

_BLOCK: Final = 128
_SPARE: Final = 17
"""So many of the nearest are looked at again in fp32: the product itself is in fp16 on a GPU."""
_QUERIES: Final = (1, 8, 64, 256)
"""The only numbers of queries that are compiled."""
MOST_ABSENT: Final = 512
_ABSENT: Final = (0, 8, 64, MOST_ABSENT)
_LEAST_ROOM: Final = 1024
_NONE: Final = -2.0
"""Below any cosine."""


def room_for(samples: int) -> int:
    """For how many samples there is room where there are ``samples``: an eighth more at most from 8192 on, so that a
    gallery that grows is seldom compiled anew."""
    step = max(_LEAST_ROOM, 1 << max(0, samples.bit_length() - 4))
    return max(1, -(-samples // step)) * step


def bytes_for(samples: int, dimension: int) -> int:
    """What an index takes on the device, at most, while it replaces another one."""
    return room_for(samples) * dimension * (2 * 4 + 2 * 2)


class DeviceIndex:
    """Samples and the people whom they show, on the device. It never changes.

    A person is as near as their nearest sample. Cosines are those of fp32, and so is the order of people.
    """

    def __init__(
        self,
        blocks: Sequence[Vectors],
        owners: NDArray[np.int64],
        runtime: Runtime,
        previous: "DeviceIndex | None" = None,
    ) -> None:
        """``blocks``: float32 (n, d) of unit length, one or more. ``owners``: int64 (n,), the person of each, from 0.
        Blocks that ``previous`` has are not sent again."""
        self._runtime = runtime
        self._blocks = tuple(blocks)
        count, room = len(owners), room_for(len(owners))
        filling = np.zeros((room - count, blocks[0].shape[1]), np.float32)
        pieces = [*_pieces(self._blocks, previous, runtime), *([runtime.put(filling)] if len(filling) else [])]
        self._vectors = ops.concatenate(pieces) if len(pieces) > 1 else pieces[0]
        self._coarse = ops.cast(self._vectors, "float16") if runtime.device == "GPU" else self._vectors
        self._owners = runtime.put(np.concatenate([owners, np.full(room - count, -1)]).astype(np.int32))
        self._search: Callable[..., Any] = previous._search if previous is not None else runtime.compiled(_nearest_two)

    def search(self, queries: Vectors, absent: Sequence[int] = ()) -> tuple[NDArray[np.int64], Vectors]:
        """People int64 (q, 2) and cosines float32 (q, 2): the nearest person and the nearest other one of each of
        ``queries`` (q, d), as if the people ``absent`` (:data:`MOST_ABSENT` at most) were not there; -1 at -1 where
        there is no such person."""
        return self.collect(self.submit(queries, absent))

    def submit(self, queries: Vectors, absent: Sequence[int] = ()) -> list[tuple[int, Any]]:
        """Begins a search and returns at once; :meth:`collect` takes what it returns."""
        hidden = np.full(next(size for size in _ABSENT if size >= len(absent)), -1, np.int32)
        hidden[: len(absent)] = absent
        put, parts = self._runtime.put, []
        for start in range(0, len(queries), _QUERIES[-1]):
            some = queries[start : start + _QUERIES[-1]]
            filled = np.zeros((next(size for size in _QUERIES if size >= len(some)), queries.shape[1]), np.float32)
            filled[: len(some)] = some
            found = self._search(self._vectors, self._coarse, self._owners, put(filled), put(hidden))
            parts.append((len(some), found))
        return parts

    def collect(self, parts: list[tuple[int, Any]]) -> tuple[NDArray[np.int64], Vectors]:
        """What :meth:`search` returns, once it is there."""
        fetched = self._runtime.fetched
        people = np.concatenate([fetched(found[0])[:count] for count, found in parts]).astype(np.int64)
        cosines = np.concatenate([fetched(found[1])[:count] for count, found in parts])
        return people, np.where(people < 0, np.float32(-1), cosines)


def _pieces(blocks: Sequence[Vectors], previous: DeviceIndex | None, runtime: Runtime) -> list[Any]:
    """The vectors of all blocks as few tensors; those that ``previous`` has are cut out of its own."""
    known: dict[tuple[object, ...], int] = {}
    place = 0
    for block in previous._blocks if previous is not None else ():
        known[_key(block)] = place
        place += len(block)
    cuts: list[tuple[int, int] | Vectors] = []
    for block in blocks:
        begin = known.get(_key(block))
        last = cuts[-1] if cuts else None
        if begin is None:
            cuts.append(block)
        elif isinstance(last, tuple) and last[1] == begin:
            cuts[-1] = last[0], begin + len(block)
        else:
            cuts.append((begin, begin + len(block)))
    stored = previous._vectors if previous is not None else None
    return [
        stored[cut[0] : cut[1]] if isinstance(cut, tuple) and stored is not None else runtime.put(np.asarray(cut))
        for cut in cuts
    ]


def _key(block: Vectors) -> tuple[object, ...]:
    """The same for two living blocks that lie at the same place in memory."""
    return block.__array_interface__["data"][0], block.strides, block.shape


def _nearest_two(vectors: Any, coarse: Any, owners: Any, queries: Any, absent: Any) -> tuple[Any, Any]:
    there = owners >= 0
    if absent.shape[0]:
        there = there & ops.logical_not(ops.any(owners[:, None] == absent[None, :], axis=1))
    cosines = ops.matmul(ops.cast(queries, coarse.dtype), ops.transpose(coarse))
    cosines = ops.where(there[None, :], ops.cast(cosines, "float32"), _NONE)
    person, cosine = _nearest(vectors, owners, cosines, queries)
    cosines = ops.where(owners[None, :] == person[:, None], _NONE, cosines)
    other, runner_up = _nearest(vectors, owners, cosines, queries)
    return ops.stack([person, other], axis=1), ops.stack([cosine, runner_up], axis=1)


def _nearest(vectors: Any, owners: Any, cosines: Any, queries: Any) -> tuple[Any, Any]:
    """The nearest person int32 (q,), -1 where there is none, and the cosine float32 (q,)."""
    asked, blocks = cosines.shape[0], cosines.shape[1] // _BLOCK
    # The best of all lie in the blocks with the best maxima: so few numbers are sorted.
    grouped = ops.reshape(cosines, (asked, blocks, _BLOCK))
    _, best = ops.top_k(ops.max(grouped, axis=2), min(_SPARE, blocks))
    best = ops.cast(best, "int32")
    first = ops.arange(asked, dtype="int32")[:, None] * blocks
    candidates = ops.take(ops.reshape(grouped, (asked * blocks, _BLOCK)), first + best, axis=0)
    rows = best[:, :, None] * _BLOCK + ops.arange(_BLOCK, dtype="int32")
    candidates, rows = ops.reshape(candidates, (asked, -1)), ops.reshape(rows, (asked, -1))
    values, places = ops.top_k(candidates, _SPARE)
    rows = ops.take_along_axis(rows, ops.cast(places, "int32"), axis=1)
    exact = ops.sum(ops.take(vectors, rows, axis=0) * queries[:, None, :], axis=2)
    exact = ops.where(values > (_NONE + 0.5), exact, _NONE)
    nearest = ops.cast(ops.argmax(exact, axis=1), "int32")[:, None]
    cosine = ops.take_along_axis(exact, nearest, axis=1)[:, 0]
    person = ops.take(owners, ops.take_along_axis(rows, nearest, axis=1)[:, 0], axis=0)
    return ops.where(cosine > (_NONE + 0.5), person, -1), cosine
