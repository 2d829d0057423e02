"""What the targets share."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from worker.errors import FacestreamError

SECRET: Final = "hunter2hunter2"


@dataclass(frozen=True, slots=True)
class Target:
    """``check`` raises where something is wrong; ``seeds`` are good inputs, made once. ``close`` ends what runs."""

    name: str
    seeds: Callable[[], Sequence[bytes]]
    check: Callable[[bytes], None]
    close: Callable[[], None] = lambda: None


@cache
def scratch() -> Path:
    """A folder of this process, in memory where the machine has such a place."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="facestream-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


def one_line(error: FacestreamError) -> None:
    text = str(error)
    if not text.strip() or "\n" in text.strip():
        raise AssertionError(f"not one line: {text!r}")


def placed(data: bytes, name: str) -> Path:
    path = scratch() / name
    path.write_bytes(data)
    return path
