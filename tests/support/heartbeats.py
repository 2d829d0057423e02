"""Beats that a test can wait for."""

from collections.abc import Callable

from worker.background import Heartbeats


class HeardBeats(Heartbeats):
    """Calls ``on_beat`` at each beat of any thread."""

    def __init__(self, on_beat: Callable[[], object]) -> None:
        super().__init__()
        self._on_beat = on_beat

    def watch(self, name: str, max_silence_s: float) -> Callable[[], None]:
        beat = super().watch(name, max_silence_s)

        def heard() -> None:
            beat()
            self._on_beat()

        return heard
