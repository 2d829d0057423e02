"""JPEGs that come over HTTP one after another: as parts of a multipart answer, or with nothing between them."""

import re
from typing import Final

from worker.video.web import WebFile

FORMAT: Final = "mpjpeg"
"""FFmpeg's name for what :class:`JpegStream` gives."""

_BEGIN: Final = b"\xff\xd8\xff"
_CHUNK: Final = 65_536
_PREFIX: Final = 0xFF
_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_WITHOUT_LENGTH: Final = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})
_MARKER_IN_SCAN: Final = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""The end of the compressed part of a picture. In it, 0xff 0x00 is a byte, and 0xff 0xd0 to 0xd7 are restarts."""


def jpegs_in(file: WebFile) -> "JpegStream | None":
    """The JPEGs of ``file``, if it is one JPEG after another; None if it is anything else.

    Raises:
        SourceError: nothing came in time, or the connection broke.
    """
    head = file.head()
    if file.kind.startswith("multipart/") or head.lstrip().startswith(b"--"):
        return JpegStream(file, alone=False)
    return JpegStream(file, alone=True) if head.startswith(_BEGIN[: max(2, len(head))]) else None


class JpegStream:
    """The JPEGs of ``file``, each as a part of a multipart answer that FFmpeg reads.

    Cameras differ in what they write between pictures: lengths that are missing or wrong, other types, or nothing.
    FFmpeg refuses some of that, and of JPEGs with nothing in between it reads a megabyte before it shows the first. So
    the pictures are found by their own markers.

    Attributes:
        alone: the answer is no multipart one. It may be a single picture.
    """

    def __init__(self, file: WebFile, *, alone: bool) -> None:
        self._file = file
        self.name = file.name
        self.alone = alone
        self._held = bytearray()
        self._ended = False
        self._place = 0  # how far the picture at the beginning of what is held has been looked through
        self._in_scan = False
        self._pictures = 0
        self._ready = b""

    def read(self, size: int) -> bytes:
        """What comes next, at most ``size`` bytes; waits until a picture is whole.

        Raises:
            SourceSilentError: nothing came in time.
            SourceError: the connection broke, or too much came without a whole picture.
        """
        while not self._ready:
            if picture := self._next():
                self._pictures += 1
                head = b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                self._ready = head + picture + b"\r\n"
            elif self._ended:
                return b""
            else:
                content = self._file.read(_CHUNK)
                self._held += content
                self._ended = not content
        content, self._ready = self._ready[:size], self._ready[size:]
        return content

    def _next(self) -> bytes:
        while True:
            if not self._place:
                begin = self._held.find(_BEGIN)
                del self._held[: begin if begin >= 0 else max(0, len(self._held) - len(_BEGIN) + 1)]
                if begin < 0:
                    return b""
                self._place, self._in_scan = 2, False
            end = self._end()
            if end < 0:
                if not self._ended or self._pictures:
                    return b""
                # A single picture that is cut off; how much is missing is judged where it is decoded.
                end = len(self._held)
            picture = bytes(self._held[:end])
            del self._held[:end]
            self._place = 0
            if picture.startswith(_BEGIN):  # else the next picture begins before anything has come of this one
                return picture

    def _end(self) -> int:
        """Where the picture ends at whose beginning what is held begins; -1 if that has not come yet."""
        held = self._held
        while True:
            if self._in_scan:
                found = _MARKER_IN_SCAN.search(held, self._place)
                if not found:
                    self._place = max(self._place, len(held) - 1)
                    return -1
                self._place, self._in_scan = found.start(), False
            if len(held) < self._place + 2:
                return -1
            first, marker = held[self._place : self._place + 2]
            if first != _PREFIX or marker == _PREFIX:
                # A filling byte; or damage, behind which the next marker is looked for.
                self._place, self._in_scan = self._place + 1, first != _PREFIX
            elif marker == _END:
                return self._place + 2
            elif marker == _START:
                return self._place  # the end is missing: the next picture begins
            elif marker in _WITHOUT_LENGTH:
                self._place += 2
            elif len(held) < self._place + 4:
                return -1
            else:
                length = int.from_bytes(held[self._place + 2 : self._place + 4], "big")
                self._place, self._in_scan = self._place + 2 + length, marker == _SCAN
