"""Small files that take gigabytes where nobody sets a limit."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av


def png_bomb(path: Path, side: int, colour_type: int) -> Path:
    """A PNG of one colour: ``colour_type`` 0 is grey, 3 a palette, 6 RGBA. It is written without being held."""
    channels = {0: 1, 3: 1, 6: 4}[colour_type]
    depth = 8 if colour_type == 6 else 1
    row = b"\0" * (1 + (side * depth * channels + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, depth, colour_type, 0, 0, 0))]
    chunks += [(b"PLTE", b"\0\0\0\xff\xff\xff")] if colour_type == 3 else []
    chunks += [(b"IDAT", packed), (b"IEND", b"")]
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in chunks:
            file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
    return path


def video(path: Path, side: int, *, codec: str = "libx264", container: str | None = None, frames: int = 3) -> Path:
    """A grey video of ``side`` x ``side`` px."""
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=25)
        stream.width = stream.height = side
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast", "crf": "40"}
        frame = av.VideoFrame(side, side, stream.pix_fmt)
        for plane in frame.planes:
            plane.update(bytes([128]) * plane.buffer_size)
        for number in range(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def resized_sps(path: Path, donor: Path, target: Path) -> Path:
    """The H.264 of ``path`` with, behind it, that of ``donor``: a camera that changes its size on the way."""
    target.write_bytes(path.read_bytes() + donor.read_bytes())
    return target
