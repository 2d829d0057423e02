"""What a decoder's process and its worker tell each other, each message a packet of a socket.

The worker does not trust what it gets: a decoder reads what a camera sends, and may do whatever that makes it do.
"""

import json
import socket
import struct
from dataclasses import dataclass, fields
from types import GenericAlias, UnionType
from typing import Any, Final, get_type_hints

from worker.config import CameraConfig
from worker.hosts import HostPolicy
from worker.video.addresses import Address

MOST_BYTES: Final = 65_536
_ANSWER: Final = struct.Struct("<qqd")
NOT_WANTED: Final = -1
BEGIN: Final = -1
"""In place of a picture's number: the first answer, for which the decoder waits once it is open."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The source is open; see the attributes of :class:`worker.video.decoder.Video`."""

    recording: bool
    still: bool
    frame_interval_s: float
    duration_s: float | None


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture was decoded, and waits for an answer, with its ``number``. ``strides`` and ``rows`` are those of its
    planes; ``decode_s`` is what the decoder took since the last message; ``passed`` are the times of pictures that were
    passed over before it. ``behind`` and ``late_s`` are those of the video."""

    number: int
    pts_s: float | None
    form: str
    width: int
    height: int
    strides: list[int]
    rows: list[int]
    colour_range: int
    matrix: int
    turn: list[int]
    aspect: float
    decode_s: float
    passed: list[float | None]
    behind: bool
    late_s: float


@dataclass(frozen=True, slots=True)
class Written:
    """The picture of this number lies in the shared memory."""

    number: int


@dataclass(frozen=True, slots=True)
class Passed:
    """Pictures were passed over, and no other one follows at once."""

    passed: list[float | None]
    behind: bool


@dataclass(frozen=True, slots=True)
class Damaged:
    """A picture cannot be decoded."""


@dataclass(frozen=True, slots=True)
class Alive:
    """Data comes, and no picture yet."""


@dataclass(frozen=True, slots=True)
class Told:
    """Something is odd about the source; ``refused``: pictures are not decoded for their size."""

    text: str
    refused: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """Nothing more comes. Without a ``problem`` the source is through; ``kind`` is ``silent``, ``source``, ``memory``
    or ``crash``."""

    problem: str
    kind: str


@dataclass(frozen=True, slots=True)
class Died:
    """From the process that has forked the decoder: its exit code, or the negative number of a signal."""

    code: int


Message = Opened | Shown | Written | Passed | Damaged | Alive | Told | Ended | Died
_KINDS: Final = {kind.__name__: kind for kind in (Opened, Shown, Written, Passed, Damaged, Alive, Told, Ended, Died)}
_FIELDS: Final = {name: [field.name for field in fields(kind)] for name, kind in _KINDS.items()}
_HINTS: Final = {name: list(get_type_hints(kind).values()) for name, kind in _KINDS.items()}


def send(link: socket.socket, message: Message) -> None:
    """Raises OSError where the other end is gone."""
    name = type(message).__name__
    link.send(json.dumps([name, *(getattr(message, field) for field in _FIELDS[name])]).encode())


def parse(packet: bytes) -> Message:
    """The message in ``packet``, whose fields have the types that they should.

    Raises:
        ValueError: it is no such message.
    """
    try:
        name, *values = json.loads(packet, parse_constant=_refuse)
        sound = all(_fits(value, hint) for value, hint in zip(values, _HINTS[name], strict=True))
        message: Message | None = _KINDS[name](*values) if sound else None
    except (ValueError, KeyError, TypeError, RecursionError):
        message = None
    if message is None:
        raise ValueError("no message of a decoder")
    return message


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _fits(value: Any, hint: Any) -> bool:
    if type(value) is hint:
        return True
    if isinstance(value, list):
        return isinstance(hint, GenericAlias) and all(_fits(item, hint.__args__[0]) for item in value)
    if value is None:
        return isinstance(hint, UnionType)
    return (type(value) is int and hint is float) or (type(value) in (int, float) and isinstance(hint, UnionType))


def answer(number: int, place: int, look_interval_s: float) -> bytes:
    """Where in the shared memory the picture is to go, or :data:`NOT_WANTED`; how often anybody looks from now on."""
    return _ANSWER.pack(number, place, look_interval_s)


def parse_answer(packet: bytes) -> tuple[int, int, float]:
    """The number of the picture, its place, and how often anybody looks."""
    number, place, look_interval_s = _ANSWER.unpack(packet)
    return number, place, look_interval_s


def request(address: Address, camera: CameraConfig, hosts: HostPolicy, memory_bytes: int, shared_bytes: int) -> bytes:
    """What a child is told to do; it holds the camera's password."""
    fields = camera.model_dump(mode="json", exclude={"source", "password_file"})
    asked = {
        "address": [address.kind, address.target, address.label],
        "camera": fields | {"source": camera.source.get_secret_value()},
        "hosts": [list(hosts.allowed), list(hosts.refused)],
        "limits": [memory_bytes, shared_bytes],
    }
    return json.dumps(asked).encode()
