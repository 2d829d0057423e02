"""What stands on the command line can be read by every user of the machine: secrets are taken out of it."""

import ctypes
import os
import sys
from itertools import takewhile
from pathlib import Path

from worker.redaction import redact

_ARGUMENTS_BEGIN = 47
"""The place of ``arg_start`` in /proc/PID/stat, counted from 0; ``arg_end`` follows it. See proc(5)."""


def blank_secrets() -> None:
    """Overwrites credentials in the arguments of this process, so that ``ps`` does not show them from now on.

    Until then they could be read: a source that is read from a file or from standard input never can. Where the system
    is not Linux, nothing happens.
    """
    if all(redact(argument) == argument for argument in sys.orig_argv):
        return
    try:
        # The name of the program, in brackets, may hold blanks.
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        begin, end = (int(fields[place - 2]) for place in (_ARGUMENTS_BEGIN, _ARGUMENTS_BEGIN + 1))
    except (OSError, ValueError, IndexError):
        return
    if not 0 < begin < end:
        return
    arguments = ctypes.string_at(begin, end - begin).split(b"\0")
    if [os.fsdecode(argument) for argument in arguments[: len(sys.orig_argv)]] != sys.orig_argv:
        return  # somebody else has changed them: it is not known what stands there
    blanked = b"\0".join(_blanked(argument) for argument in arguments)
    ctypes.memmove(begin, blanked, len(blanked))


def _blanked(argument: bytes) -> bytes:
    """``argument`` in as many bytes, with stars over what :func:`redact` takes out."""
    text = os.fsdecode(argument)
    shown = redact(text)
    if shown == text:
        return argument
    before = _alike(text, shown)
    after = min(_alike(text[::-1], shown[::-1]), len(text) - before)
    hidden = len(os.fsencode(text[before : len(text) - after]))
    return os.fsencode(text[:before]) + b"*" * hidden + os.fsencode(text[len(text) - after :])


def _alike(one: str, other: str) -> int:
    """How many characters are the same at the beginning of both."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
