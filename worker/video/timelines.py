"""When a picture is: what streams say of their times, and what is believed of it."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

MAX_DRIFT_S: Final = 2.0
"""A live stream's own clock is set anew when it is this far from the time of arrival."""

_LOOSE_S: Final = 0.3
"""So far a live stream's clock may be from the time of arrival before it is drawn towards it: networks jitter."""
_JUMP_BACK_S: Final = 0.5
_STEP_S: Final = 0.001
_WINDOW_S: Final = 2.0
_FEW_PICTURES: Final = 4
_STILL_PICTURES: Final = 8
_STILL_SHARE: Final = 0.6
"""If more than this share of the times are not later than the one before, they stand still or go in steps."""
_SLOWEST: Final = 0.75
_FASTEST: Final = 1.33
_WINDOWS_TO_BELIEVE: Final = 5
_LATE_S: Final = 1.5
_PATIENCE_S: Final = 1.0
"""What a network has held back comes all at once: a reader that is fast enough has read it by then."""
_THERE_S: Final = 0.4
_GAIN_S: Final = 0.1
_SETTLED_S: Final = 0.2
_GLANCE_S: Final = 1.0
_FRUITLESS_S: Final = 1.5
_STARVED: Final = 0.2
"""A thread that waited for a processor for more than this share of the time is the slow one, not its stream."""
_FIRST_PAUSE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 960.0
_OTHER_CLOCK_S: Final = 60.0
_DRIFT: Final = 2e-4
"""Two clocks of quartz are no further apart; a usual delay that is longer than it was is believed so slowly."""


class Timeline(Protocol):
    @property
    def believed(self) -> bool:
        """Whether the source's own times are used."""

    def reopened(self) -> None:
        """The source starts anew: its clock may begin anywhere."""

    def interrupted(self) -> None:
        """The pace of what comes is the reader's own: it says nothing of the source's clock."""

    def at(self, pts_s: float | None, received_s: float, frame_interval_s: float) -> float:
        """The time of a frame, in seconds since the camera's first one; it says ``pts_s`` itself, and came at
        ``received_s``."""


class RecordingTimeline:
    """Times as the file says. A missing one is that of the frame before and an interval; so is the first one of a clock
    that starts over."""

    believed = True

    def __init__(self) -> None:
        self._last_s: float | None = None
        self._offset_s = 0.0

    def reopened(self) -> None:
        """Nothing to do: a recording is opened once."""

    def interrupted(self) -> None:
        """Nothing to do: a recording's times do not hang on its reader."""

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
    """The stream's own spacing, tied to the monotonic clock of arrival across reconnects and jumps.

    A clock that stands still, goes in steps, or is much too slow or too fast, is not believed: the time of arrival is
    used until it goes right for a while. ``on_doubt`` is told the first time, with the reason.
    """

    def __init__(self, on_doubt: Callable[[str], None] = lambda _reason: None) -> None:
        self._on_doubt = on_doubt
        self._judge = _Judge()
        self._told = False
        self._origin_s: float | None = None
        self._offset_s: float | None = None
        self._arrived_s = 0.0
        self._last_s = -_STEP_S

    @property
    def believed(self) -> bool:
        return not self._judge.doubt

    def reopened(self) -> None:
        self._offset_s = None
        self._judge.begin_anew()

    def interrupted(self) -> None:
        self._judge.begin_anew()

    def at(self, pts_s: float | None, received_s: float, frame_interval_s: float) -> float:  # noqa: ARG002
        if self._origin_s is None:
            self._origin_s = received_s
        arrived_s = received_s - self._origin_s
        doubt = self._judge.hear(pts_s, arrived_s)
        if doubt and not self._told:
            self._told = True
            self._on_doubt(doubt)
        if pts_s is None or doubt:
            at_s, self._offset_s = arrived_s, None
        else:
            at_s = pts_s + self._offset(pts_s, arrived_s)
        self._arrived_s = arrived_s
        self._last_s = max(at_s, self._last_s + _STEP_S)
        return self._last_s

    def _offset(self, pts_s: float, arrived_s: float) -> float:
        """What to add to the stream's own time."""
        if self._offset_s is None:
            self._offset_s = arrived_s - pts_s
        drift_s = pts_s + self._offset_s - arrived_s
        if abs(drift_s) > MAX_DRIFT_S:
            self._offset_s = arrived_s - pts_s
        elif abs(drift_s) > _LOOSE_S:
            excess_s = drift_s - (_LOOSE_S if drift_s > 0 else -_LOOSE_S)
            self._offset_s -= excess_s * min(1.0, arrived_s - self._arrived_s)
        return self._offset_s


@dataclass(slots=True)
class _Window:
    began_s: float
    first_pts_s: float
    last_pts_s: float
    pictures: int = 0
    still: int = 0

    def rate(self, arrived_s: float) -> float:
        return (self.last_pts_s - self.first_pts_s) / max(arrived_s - self.began_s, _STEP_S)


class _Judge:
    """Compares the times that a live stream says with the times at which its pictures come, a window at a time."""

    def __init__(self) -> None:
        self.doubt = ""
        self._window: _Window | None = None
        self._before: _Window | None = None
        self._good = 0

    def begin_anew(self) -> None:
        """What comes next does not continue what came before; a doubt stays."""
        self._window = self._before = None

    def hear(self, pts_s: float | None, arrived_s: float) -> str:
        """Why the times are not believed; empty as long as they are."""
        if pts_s is None:
            self.begin_anew()
            return self.doubt
        window = self._window
        if window is None:
            self._window = _Window(arrived_s, pts_s, pts_s)
            return self.doubt
        window.pictures += 1
        window.still += pts_s - window.last_pts_s < _STEP_S
        window.last_pts_s = pts_s
        stands = window.still > _STILL_SHARE * window.pictures
        full = arrived_s - window.began_s >= _WINDOW_S and window.pictures >= _FEW_PICTURES
        if full or (stands and window.pictures >= _STILL_PICTURES):
            self._close(window, arrived_s, stands)
            self._window = _Window(arrived_s, pts_s, pts_s)
        return self.doubt

    def _close(self, window: _Window, arrived_s: float, stands: bool) -> None:
        wrong = not _SLOWEST <= window.rate(arrived_s) <= _FASTEST
        if stands:
            self.doubt = "they stand still, go back or go in steps"
        elif wrong and self._before is not None:
            # Together with the window before: what a network has held back comes all at once.
            rate = _Window(self._before.began_s, self._before.first_pts_s, window.last_pts_s).rate(arrived_s)
            if not _SLOWEST <= rate <= _FASTEST:
                self.doubt = f"they run at {rate:.2f} times the speed of the clock"
        self._before = window if wrong and not stands else None
        self._good = 0 if wrong or stands else self._good + 1
        if self._good >= _WINDOWS_TO_BELIEVE:
            self.doubt = ""


def waited_for_processor_s() -> float:
    """How long this thread was ready to run in its life and had no processor; 0 where the system does not tell."""
    with suppress(OSError, IndexError, ValueError):
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    return 0.0


class LiveEdge:
    """Keeps what is read of a live stream near to what is sent.

    A reader that is slower than its stream gets pictures that are older and older, up to what the network holds: many
    seconds. Nobody would notice, since a stream's times say nothing of the time of day. So if a stream has been late
    for a while, its packets are passed over until it is there again, apart from a key picture now and then. If that
    does not help, it is the stream's clock that is slow, or its sender: then the delay counts as usual. But not if this
    thread had to wait for a processor: then it is the reader that is slow.

    Attributes:
        late_s: by how much longer than usual the last packet was under way.
    """

    def __init__(self, begun_s: float, waited_s: Callable[[], float] = waited_for_processor_s) -> None:
        """``begun_s``: when its opening began (monotonic). What came while it took long to open is old already."""
        self.late_s = 0.0
        self._waited_s = waited_s
        self._waited_by_then_s = 0.0
        self._begun_s = begun_s
        self._usual_s: float | None = None  # the least time from a picture's own time until it was read
        self._heard_s = 0.0
        self._late_since_s: float | None = None
        self._catching_up = False
        self._least_s = 0.0
        self._least_at_s = 0.0
        self._seen_s = 0.0
        self._not_before_s = 0.0
        self._pause_s = _FIRST_PAUSE_S

    @property
    def behind(self) -> bool:
        """Pictures come late, or are passed over for that: their pace is the reader's, not that of their clock."""
        return self._late_since_s is not None

    def passes_over(self, pts_s: float, arrived_s: float, *, is_key: bool) -> bool:
        """Whether the packet of this time, read at ``arrived_s`` (monotonic), is one that need not be decoded."""
        delay_s = arrived_s - pts_s
        if self._usual_s is None:
            self._usual_s = delay_s
            if arrived_s - self._begun_s >= _LATE_S:
                self._late_since_s = arrived_s
                self._catch_up(delay_s, arrived_s)
        elif abs(delay_s - self._usual_s) > _OTHER_CLOCK_S:
            self._usual_s = self._least_s = delay_s
            self._late_since_s = None
        drift_s = _DRIFT * (arrived_s - self._heard_s)
        self._usual_s, self._heard_s = min(self._usual_s + drift_s, delay_s), arrived_s
        self.late_s = delay_s - self._usual_s
        if not self._catching_up:
            self._begin(delay_s, arrived_s)
        return self._catching_up and self._is_old(delay_s, arrived_s, is_key=is_key)

    def _begin(self, delay_s: float, arrived_s: float) -> None:
        if self.late_s < _LATE_S or arrived_s < self._not_before_s:
            self._late_since_s = None
            return
        if self._late_since_s is None:
            self._late_since_s = arrived_s
        if arrived_s - self._late_since_s >= _PATIENCE_S:
            self._catch_up(delay_s, arrived_s)

    def _catch_up(self, delay_s: float, arrived_s: float) -> None:
        self._catching_up = True
        self._seen_s = arrived_s
        self._gain(delay_s, arrived_s)

    def _gain(self, delay_s: float, arrived_s: float) -> None:
        self._least_s, self._least_at_s, self._waited_by_then_s = delay_s, arrived_s, self._waited_s()

    def _is_old(self, delay_s: float, arrived_s: float, *, is_key: bool) -> bool:
        if delay_s < self._least_s - _GAIN_S:
            self._gain(delay_s, arrived_s)
        gained_s = arrived_s - self._least_at_s
        # As long as the delay becomes less, there is more to be read at once.
        there = self.late_s <= _THERE_S and gained_s >= _SETTLED_S
        if is_key and (there or (gained_s >= _FRUITLESS_S and not self._starved(gained_s))):
            self._end(delay_s, arrived_s, in_vain=not there)
            return False
        if is_key and arrived_s - self._seen_s >= _GLANCE_S:
            self._seen_s = arrived_s
            return False
        return True

    def _starved(self, lasted_s: float) -> bool:
        return self._waited_s() - self._waited_by_then_s > _STARVED * lasted_s

    def _end(self, delay_s: float, arrived_s: float, *, in_vain: bool) -> None:
        self._catching_up, self._late_since_s = False, None
        if in_vain:
            self.late_s, self._usual_s, self._not_before_s = 0.0, delay_s, arrived_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        else:
            self._pause_s = _FIRST_PAUSE_S
