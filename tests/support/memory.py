"""How much memory a program takes at most."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_KILL_AT_MB: Final = 6_000


@dataclass(frozen=True, slots=True)
class Measured:
    """How a program ended; ``peak_mb`` is the largest resident memory, MB."""

    code: int
    peak_mb: float
    output: str
    errors: str


def measured(*command: object, timeout_s: float = 60, **environment: str) -> Measured:
    """Runs ``command`` with a limit of address space for a machine's sake, and measures its peak.

    Raises:
        TimeoutError: it did not end in time; it was killed.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            ["prlimit", f"--data={_KILL_AT_MB * 1_000_000}", "--", *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=os.environ | environment,
        )
        deadline_s, peak_kb = time.monotonic() + timeout_s, 0
        # The kernel's figure for a child that has ended counts what this process held when it began the child.
        while process.poll() is None:
            peak_kb = max(peak_kb, _peak_kb(process.pid))
            if time.monotonic() > deadline_s:
                process.kill()
                process.wait()
                raise TimeoutError(f"{command} did not end within {timeout_s:g} s")
            time.sleep(0.005)
        output.seek(0)
        errors.seek(0)
        return Measured(process.returncode, peak_kb / 1000, output.read(), errors.read())


def _peak_kb(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    return 0


def measured_python(code: str, *arguments: object, timeout_s: float = 60, **environment: str) -> Measured:
    """:func:`measured` of Python code, which finds ``arguments`` in ``sys.argv``."""
    return measured(sys.executable, "-c", code, *arguments, timeout_s=timeout_s, **environment)
