"""How many cameras a worker could carry: its weight when the cameras of a fleet are shared out."""

import math
from typing import Final


class Capacity:
    """How many cameras a worker could carry, from the load that those it reads cause.

    The estimate that is told changes only when it is clearly wrong: each change moves cameras.
    """

    TARGET_LOAD: Final = 0.8
    SMOOTHING_S: Final = 30.0
    SETTLING_S: Final = 15.0
    CLEARLY_WRONG: Final = 0.25

    def __init__(self, most: int) -> None:
        self._most = most
        self._cameras = 0
        self._settled_s = math.inf
        self._updated_s = 0.0
        self._load_per_camera: float | None = None
        self._told: int | None = None

    def update(self, load: float, cameras: int, now_s: float) -> int | None:
        """Cameras, 1 to ``most``, after ``cameras`` caused ``load`` (0..1); None while that is not known."""
        if cameras != self._cameras:
            self._cameras, self._settled_s = cameras, now_s + self.SETTLING_S
        elif cameras and now_s >= self._settled_s:
            self._learn(load / cameras, now_s)
        self._updated_s = now_s
        return self._told

    def _learn(self, load_per_camera: float, now_s: float) -> None:
        known = self._load_per_camera
        share = 1 - math.exp(-(now_s - self._updated_s) / self.SMOOTHING_S)
        self._load_per_camera = load_per_camera if known is None else known + share * (load_per_camera - known)
        could_carry = self.TARGET_LOAD / max(self._load_per_camera, self.TARGET_LOAD / self._most)
        if self._told is None or abs(could_carry - self._told) > self.CLEARLY_WRONG * self._told:
            self._told = max(1, round(could_carry))
