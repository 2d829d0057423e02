"""Heartbeats that a test counts, and waits for."""

import threading
from collections.abc import Callable

from worker.background import Heartbeats


class CountedHeartbeats(Heartbeats):
    """``beats`` is released at each beat of any thread."""

    def __init__(self) -> None:
        super().__init__()
        self.beats = threading.Semaphore(0)

    def watch(self, name: str, max_silence_s: float) -> Callable[[], None]:
        beat = super().watch(name, max_silence_s)

        def counted() -> None:
            beat()
            self.beats.release()

        return counted
