"""A real terminal, of any width, in front of a command."""

import fcntl
import io
import os
import pty
import struct
import termios
import threading
from typing import TextIO

import pytest

from worker.cli import run_command_line


def shown(arguments: list[str], columns: int | None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that a command writes, on both outputs, to a terminal of so many columns; None: into a pipe."""
    if columns is None:
        written = io.StringIO()
        _run(arguments, written, monkeypatch)
        return written.getvalue().splitlines()
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    pieces: list[bytes] = []
    reader = threading.Thread(target=_drain, args=(master, pieces))
    reader.start()
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        _run(arguments, stream, monkeypatch)
    reader.join()
    os.close(master)
    return b"".join(pieces).decode().splitlines()


def _run(arguments: list[str], stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("COLUMNS", raising=False)
        patch.setenv("NO_COLOR", "1")
        patch.setenv("TERM", "dumb")
        patch.setattr("sys.stdout", stream)
        patch.setattr("sys.stderr", stream)
        run_command_line(arguments)


def _drain(master: int, pieces: list[bytes]) -> None:
    while True:
        try:
            piece = os.read(master, 65_536)
        except OSError:  # so ends a terminal whose other side is closed
            return
        if not piece:
            return
        pieces.append(piece)
