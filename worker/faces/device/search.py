"""Exact search among many vectors on the device: a matrix product and the best of it."""

from typing import Any, Final

import numpy as np
from keras import ops
from numpy.typing import NDArray

from worker.faces.device.runtimes import Runtime

_BLOCK: Final = 128
_SPARE: Final = 16
"""So many more than are wanted are looked at again in fp32: the product itself is in fp16 on a GPU."""
_QUERIES: Final = (1, 8, 64, 256)
"""The only numbers of queries that are compiled."""


class DeviceSearch:
    """Vectors of unit length on the device. Cosines are those of fp32, and so is the order of the best."""

    def __init__(self, vectors: NDArray[np.float32], runtime: Runtime) -> None:
        """``vectors``: float32 (n, d), n at least 1."""
        self._count, dimension = vectors.shape
        padding = -self._count % _BLOCK
        whole = np.concatenate([vectors, np.zeros((padding, dimension), np.float32)]) if padding else vectors
        self._runtime = runtime
        self._vectors = runtime.put(whole)
        on_gpu = runtime.device == "GPU"
        self._coarse = ops.cast(self._vectors, "float16") if on_gpu else self._vectors
        self._searches: dict[int, Any] = {}

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Cosines float32 (m, k) and rows int64 (m, k) of the nearest vectors, best first, of ``queries`` (m, d).

        ``k`` may not exceed the number of vectors.
        """
        return self.collect(self.submit(queries, k))

    def submit(self, queries: NDArray[np.float32], k: int) -> list[tuple[int, Any]]:
        """Begins a search and returns at once; :meth:`collect` takes what it returns."""
        parts = []
        for start in range(0, len(queries), _QUERIES[-1]):
            some = queries[start : start + _QUERIES[-1]]
            size = next(size for size in _QUERIES if size >= len(some))
            filled = np.zeros((size, queries.shape[1]), np.float32)
            filled[: len(some)] = some
            parts.append((len(some), self._compiled(k)(self._vectors, self._coarse, self._runtime.put(filled))))
        return parts

    def collect(self, parts: list[tuple[int, Any]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What :meth:`search` returns, once it is there."""
        fetched = self._runtime.fetched
        cosines = [fetched(found[0])[:count] for count, found in parts]
        rows = [fetched(found[1])[:count] for count, found in parts]
        return np.concatenate(cosines), np.concatenate(rows).astype(np.int64)

    def _compiled(self, k: int) -> Any:
        if k not in self._searches:

            def search(vectors: Any, coarse: Any, queries: Any) -> tuple[Any, Any]:
                return _nearest(vectors, coarse, queries, k, self._count)

            self._searches[k] = self._runtime.compiled(search)
        return self._searches[k]


def _nearest(vectors: Any, coarse: Any, queries: Any, k: int, count: int) -> tuple[Any, Any]:
    total, blocks = vectors.shape[0], vectors.shape[0] // _BLOCK
    asked = queries.shape[0]
    cosines = ops.matmul(ops.cast(queries, coarse.dtype), ops.transpose(coarse))
    if total > count:
        cosines = ops.where(ops.arange(total, dtype="int32")[None, :] < count, cosines, -2.0)
    # The best of all lie in the blocks with the best maxima: so few numbers are sorted.
    wanted = min(k + _SPARE, count)
    grouped = ops.reshape(cosines, (asked, blocks, _BLOCK))
    _, best = ops.top_k(ops.max(grouped, axis=2), min(wanted, blocks))
    best = ops.cast(best, "int32")
    first = ops.arange(asked, dtype="int32")[:, None] * blocks
    candidates = ops.take(ops.reshape(grouped, (asked * blocks, _BLOCK)), first + best, axis=0)
    rows = best[:, :, None] * _BLOCK + ops.arange(_BLOCK, dtype="int32")
    candidates, rows = ops.reshape(candidates, (asked, -1)), ops.reshape(rows, (asked, -1))
    _, places = ops.top_k(candidates, wanted)
    rows = ops.take_along_axis(rows, ops.cast(places, "int32"), axis=1)
    exact = ops.sum(ops.take(vectors, rows, axis=0) * queries[:, None, :], axis=2)
    exact = ops.where(rows < count, exact, -2.0)
    nearest, order = ops.top_k(exact, k)
    return nearest, ops.take_along_axis(rows, ops.cast(order, "int32"), axis=1)
