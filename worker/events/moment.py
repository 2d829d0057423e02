"""Points in time whose age can be told whatever happens to the wall clock, and still after a restart."""

import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4


def _name_of_clock() -> str:
    """Of the monotonic clock: all processes between two starts of the machine share it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return uuid4().hex


CLOCK = _name_of_clock()


@dataclass(frozen=True, slots=True)
class Moment:
    """``wall_s``: Unix time; ``monotonic_s``: by the monotonic clock called ``clock``."""

    wall_s: float
    monotonic_s: float
    clock: str

    @classmethod
    def at(cls, monotonic_s: float) -> "Moment":
        """When this machine's monotonic clock showed ``monotonic_s``."""
        return cls(time.time() - (time.monotonic() - monotonic_s), monotonic_s, CLOCK)

    @property
    def age_s(self) -> float:
        """Seconds since then; by the wall clock if the machine was restarted in between. Never negative."""
        if self.clock == CLOCK and (age_s := time.monotonic() - self.monotonic_s) >= 0:
            return age_s
        return max(0.0, time.time() - self.wall_s)
