"""HDF5 over many files: a process with limits reads one after the other, and another one goes on where it ends."""

import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

ELSEWHERE: Final = 12345.678
"""The value of the numbers in another file."""
_LONGEST_S: Final = 4
_PATIENCE_S: Final = 60.0
_AT_ONCE: Final = 500
_AT_END: Final = 99


class H5Process:
    """Reads files as the product's own process does."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None

    def read(self, path: Path, target: Path, said: Path) -> int:
        """How the process ended that wrote the arrays of ``path`` to ``target``; below 0: by which signal."""
        if self._server is None or self._server.poll() is not None:
            path_to_ours = os.pathsep.join(filter(None, sys.path))
            environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": path_to_ours}
            self._server = subprocess.Popen(
                [sys.executable, "-m", "tests.fuzz.h5_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                env=environment,
            )  # fmt: skip
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(f"{path}\t{target}\t{said}\n".encode())
        self._server.stdin.flush()
        if not select.select([self._server.stdout], [], [], _PATIENCE_S)[0]:
            self._server.kill()
            self._server.wait()
            raise AssertionError("neither an answer nor an end")
        return int(self._server.stdout.readline())

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate(timeout=_PATIENCE_S)
            self._server = None


@cache
def h5_process() -> H5Process:
    """The one of this process."""
    return H5Process()


def _serve() -> None:
    """Forks a process that reads files until one of them ends it, and says how it ended; then another one."""
    from worker.faces.networks.h5 import main

    warnings.simplefilter("ignore")
    while True:
        child = os.fork()
        if not child:
            code = 70
            try:
                code = _read_many(main)
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        ended = os.waitstatus_to_exitcode(status)
        if ended == _AT_END:
            return
        if ended:
            os.write(1, f"{ended}\n".encode())


def _read_many(main: Callable[[str, str], int]) -> int:
    for _ in range(_AT_ONCE):
        line = os.read(0, 65_536)  # one at a time is asked for
        if not line:
            return _AT_END
        path, target, said = line.decode().rstrip("\n").split("\t")
        signal.alarm(_LONGEST_S)
        with Path(said).open("w", encoding="utf-8", errors="replace") as out:
            sys.stderr = sys.stdout = out
            code = main(path, target)
        signal.alarm(0)
        os.write(1, f"{code}\n".encode())
    return 0


if __name__ == "__main__":
    _serve()
