"""JPEGs one after another, however the network cuts them and whatever stands between them."""

import io
import itertools
import re
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from worker.video.jpeg_stream import JpegStream

_HEAD = re.compile(rb"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: (\d+)\r\n\r\n")


@dataclass
class Pieces:
    """What comes over the network, piece by piece."""

    pieces: list[bytes]
    name: str = "http://camera/stream"

    def read(self, _size: int) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""


def jpeg(seed: int, *, progressive: bool = False, restarts: int = 0) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "jpeg", progressive=progressive, restart_marker_blocks=restarts)
    return buffer.getvalue()


def pictures_in(pieces: list[bytes]) -> list[bytes]:
    stream = JpegStream(cast(Any, Pieces([piece for piece in pieces if piece])), alone=True)
    content = b"".join(iter(lambda: stream.read(7000), b""))
    found = list[bytes]()
    while head := _HEAD.match(content):
        end = head.end() + int(head[1])
        found.append(content[head.end() : end])
        assert content[end : end + 2] == b"\r\n"
        content = content[end + 2 :]
    assert not content
    return found


PICTURES = [jpeg(1), jpeg(2, progressive=True), jpeg(3, restarts=1), jpeg(4)]


@given(
    cuts=st.lists(st.integers(0, 9000), max_size=12),
    between=st.lists(st.binary(max_size=40).filter(lambda some: b"\xff" not in some), min_size=5, max_size=5),
)
def test_pictures_come_out_as_they_went_in_wherever_they_are_cut(cuts: list[int], between: list[bytes]) -> None:
    sent = between[0] + b"".join(content + gap for content, gap in zip(PICTURES, between[1:], strict=True))
    places = sorted({0, *(min(cut, len(sent)) for cut in cuts), len(sent)})
    assert pictures_in([sent[begin:end] for begin, end in itertools.pairwise(places)]) == PICTURES


@example([b"\xff\xd8", b"\xff\xd8"])
@example([b"\xff\xd8" * 3000 + PICTURES[0]])
@given(
    st.lists(st.binary(max_size=60) | st.sampled_from([*PICTURES, b"\xff", b"\xff\xd8\xff\xe0\xff\xff"]), max_size=8)
)
def test_any_bytes_are_read_to_their_end(pieces: list[bytes]) -> None:
    for picture in pictures_in(pieces):
        assert picture.startswith(b"\xff\xd8\xff")
