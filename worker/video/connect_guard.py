"""Asks before each TCP connection that this thread, and those that it starts, make: libraries connect without asking.

FFmpeg follows a redirect of an RTSP server to any host, and has no option against it. So the kernel stops the thread at
each ``connect`` (seccomp, user notification) and asks another thread, which sees the address and says yes or no. Linux
on x86-64 and 64-bit ARM; the process must have given up new privileges. Why so: docs/decisions/hostile-input.md.
"""

import ctypes
import errno
import fcntl
import os
import platform
import queue
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# Number of the system call ``seccomp``, that of ``connect``, and what the kernel calls the architecture.
_MACHINES: Final = {"x86_64": (317, 42, 0xC000003E), "aarch64": (277, 203, 0xC00000B7)}
_SET_MODE_FILTER: Final = 1
_KNOWS_ACTION: Final = 2
_NEW_LISTENER: Final = 1 << 3
_ALLOW: Final = 0x7FFF0000
_ASK: Final = 0x7FC00000
_RECEIVE: Final = 0xC0502100
_ANSWER: Final = 0xC0182101
_NOTICE_BYTES: Final = 80
_CONTINUE: Final = 1
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_LONGEST_ADDRESS: Final = 128


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def can_guard() -> bool:
    """Whether the system has what :func:`guard_connections` needs, as far as can be told without it."""
    numbers = _numbers()
    return numbers is not None and _seccomp(numbers[0], _KNOWS_ACTION, 0, ctypes.c_uint(_ASK)) == 0


def guard_connections(may_connect: Callable[[str], bool]) -> bool:
    """From now on, ``may_connect`` is asked, in another thread, with the address of each TCP connection; one that it
    refuses fails with EACCES. Returns whether the system can do that; once in a thread, and for good."""
    numbers = _numbers()
    if numbers is None:
        return False
    listener: queue.SimpleQueue[int] = queue.SimpleQueue()
    # It begins before, so the filter is not its own.
    threading.Thread(target=_answer, args=(listener, may_connect), name="connections", daemon=True).start()
    found = _install(*numbers)
    listener.put(found)
    return found >= 0


def _numbers() -> tuple[int, int, int] | None:
    """Those of this machine in ``_MACHINES``; None where it is another one."""
    return _MACHINES.get(platform.machine()) if platform.system() == "Linux" else None


def _install(seccomp: int, connect: int, architecture: int) -> int:
    """The descriptor from which notices are read; -1 where the system refuses."""
    instructions = b"".join(
        struct.pack("=HBBI", *one)
        for one in (
            (_LOAD, 0, 0, 4), (_IF_EQUAL, 0, 3, architecture), (_LOAD, 0, 0, 0), (_IF_EQUAL, 0, 1, connect),
            (_RETURN, 0, 0, _ASK), (_RETURN, 0, 0, _ALLOW),
        )
    )  # fmt: skip
    held = ctypes.create_string_buffer(instructions)
    program = _Program(len(instructions) // 8, ctypes.addressof(held))
    return _seccomp(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, program)


def _seccomp(number: int, operation: int, flags: int, about: ctypes.c_uint | _Program) -> int:
    asked = ctypes.c_long(number), ctypes.c_uint(operation), ctypes.c_uint(flags), ctypes.byref(about)
    return int(ctypes.CDLL(None).syscall(*asked))


def _answer(listener: "queue.SimpleQueue[int]", may_connect: Callable[[str], bool]) -> None:
    descriptor = listener.get()
    while descriptor >= 0:
        notice = bytearray(_NOTICE_BYTES)
        try:
            fcntl.ioctl(descriptor, _RECEIVE, notice)
        except OSError as error:
            if error.errno in (errno.EINTR, errno.ENOENT):  # who asked is gone
                continue
            return
        (number,) = struct.unpack_from("=Q", notice)
        asked, place, length = struct.unpack_from("=3Q", notice, 32)
        refused = True
        with suppress(Exception):  # whatever goes wrong, nothing is connected
            refused = not _may(asked, place, length, may_connect)
        answer = struct.pack("=QqiI", number, 0, -errno.EACCES if refused else 0, 0 if refused else _CONTINUE)
        with suppress(OSError):
            fcntl.ioctl(descriptor, _ANSWER, answer)


def _may(descriptor: int, place: int, length: int, may_connect: Callable[[str], bool]) -> bool:
    with socket.socket(fileno=os.dup(ctypes.c_int(descriptor & 0xFFFFFFFF).value)) as asked:
        if asked.family not in (socket.AF_INET, socket.AF_INET6) or asked.type != socket.SOCK_STREAM:
            return True  # such as the question for the address of a name
    raw = ctypes.string_at(place, min(length, _LONGEST_ADDRESS))
    (family,) = struct.unpack_from("=H", raw)
    start, size = (4, 4) if family == socket.AF_INET else (8, 16)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return bool(family == socket.AF_UNSPEC)
    return may_connect(socket.inet_ntop(family, raw[start : start + size]))
