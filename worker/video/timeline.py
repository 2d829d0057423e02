"""Where each frame of a camera lies in time: strictly increasing, whatever the source says of itself."""

from typing import Final, Protocol

MAX_DRIFT_S: Final = 2.0
"""How far a live stream's own clock may be from its arrival before it is believed no longer."""

_JUMP_BACK_S: Final = 0.5
_STEP_S: Final = 0.001


class Timeline(Protocol):
    def reopened(self) -> None:
        """The source starts anew: its clock may begin anywhere."""

    def at(self, pts_s: float | None, received_s: float, frame_interval_s: float) -> float:
        """Seconds since the camera's first frame, of a frame that says ``pts_s`` and came at ``received_s``."""


class RecordingTimeline:
    """As the file says. Missing times are counted on; a clock that starts over goes on from the frame before."""

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._offset_s = 0.0

    def reopened(self) -> None:
        """Nothing to do: a recording is opened once."""

    def at(self, pts_s: float | None, received_s: float, frame_interval_s: float) -> float:  # noqa: ARG002
        if self._last_s is None:
            self._last_s = max(0.0, pts_s or 0.0)
            return self._last_s
        if pts_s is None:
            at_s = self._last_s + frame_interval_s
        else:
            at_s = pts_s + self._offset_s
            if at_s < self._last_s - _JUMP_BACK_S:
                at_s = self._last_s + frame_interval_s
                self._offset_s = at_s - pts_s
            at_s = max(at_s, self._last_s + _STEP_S)
        self._last_s = at_s
        return at_s


class LiveTimeline:
    """The stream's own spacing, tied to the monotonic clock of arrival across reconnects and jumps."""

    def __init__(self) -> None:
        self._origin_s: float | None = None
        self._offset_s: float | None = None
        self._last_s = -_STEP_S

    def reopened(self) -> None:
        self._offset_s = None

    def at(self, pts_s: float | None, received_s: float, frame_interval_s: float) -> float:  # noqa: ARG002
        if self._origin_s is None:
            self._origin_s = received_s
        arrived_s = received_s - self._origin_s
        at_s = arrived_s
        if pts_s is not None:
            if self._offset_s is None or abs(pts_s + self._offset_s - arrived_s) > MAX_DRIFT_S:
                self._offset_s = arrived_s - pts_s
            at_s = pts_s + self._offset_s
        self._last_s = max(at_s, self._last_s + _STEP_S)
        return self._last_s
