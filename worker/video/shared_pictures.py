"""Memory that a decoder's process writes pictures to and its worker reads: nobody else has it, and it has no name.

It is gone when the last descriptor and the last array of it are, so also if either side is killed.
"""

import fcntl
import mmap
import os
from queue import Empty, LifoQueue
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from worker.errors import SourceError

_PAGE: Final = mmap.PAGESIZE


class SharedPictures:
    """Places for ``count`` pictures at a time, ``most_bytes`` for all of them. For one thread; arrays of it for any.

    The process that has :attr:`descriptor` can write to it. It cannot make it smaller, at which a reader would crash.
    Attributes:
        descriptor: the memory as a file.
        most_bytes: how large it may become.
    """

    def __init__(self, count: int, most_bytes: int) -> None:
        self._count = count
        self.most_bytes = most_bytes
        self.descriptor = os.memfd_create("facestream-pictures", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
        self._size = 0
        self._each = 0
        self._mapped: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._begin = 0
        self._free: LifoQueue[int] = LifoQueue()

    def place_for(self, size: int, timeout_s: float) -> int:
        """Where a picture of ``size`` bytes may be written: bytes from the beginning.

        Raises:
            SourceError: all are larger than they may be, or no place becomes free in time.
        """
        if size > self._each:
            self._grow(size)
        try:
            return self._free.get(timeout=timeout_s)
        except Empty:
            raise SourceError("no room for another picture: earlier ones are still in use") from None

    def view(self, place: int, size: int) -> NDArray[np.uint8]:
        """The bytes (size,) at ``place``, read-only. The place is free again once no array of them is left."""
        return np.asarray(_Lent(self._mapped[place - self._begin :][:size], self._free, place))

    def close(self) -> None:
        """No more pictures. Those that are there stay readable."""
        os.close(self.descriptor)

    def _grow(self, size: int) -> None:
        """Larger places, behind those that there were: their pictures may still be in use."""
        each = -(-max(size, 2 * self._each if self._each else size) // _PAGE) * _PAGE
        if self._size + self._count * each > self.most_bytes:
            raise SourceError(f"{self._count} pictures of {size / 1e6:.0f} MB are more than max_megapixels allows")
        begin, self._size = self._size, self._size + self._count * each
        os.ftruncate(self.descriptor, self._size)
        shared = mmap.mmap(self.descriptor, self._size - begin, prot=mmap.PROT_READ, offset=begin)
        self._mapped, self._begin, self._each = np.frombuffer(shared, np.uint8), begin, each
        self._free = LifoQueue()
        for number in reversed(range(self._count)):
            self._free.put(begin + number * each)


class _Lent:
    """What the arrays of one picture refer to. It holds the mapping, and gives the place back at its end."""

    def __init__(self, mapped: NDArray[np.uint8], free: LifoQueue[int], place: int) -> None:
        self.__array_interface__: dict[str, Any] = mapped.__array_interface__
        self._mapped, self._free, self._place = mapped, free, place

    def __del__(self) -> None:
        self._free.put(self._place)
