"""The times of a recording's packets, put right before anything is decoded.

A few packets are looked at in advance where the times jump, and only there: the time of a single picture that is hours
away does not come back by itself once it has been believed.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

_BACK_S: Final = 0.1
_AHEAD_S: Final = 0.3
_FAR_S: Final = 10.0
_FAR_AWAY_S: Final = 60.0
_REORDERED_S: Final = 5.0
_LOOK_AHEAD: Final = 8
_MOST_REORDERED: Final = 16  # what H.264 and HEVC allow
_LOOK_FAR_AHEAD: Final = 250
_MOST_BYTES: Final = 32_000_000
_FEW: Final = 2
"""So few pictures at the beginning or the end of a file do not prove a clock of their own."""


class SteadyPackets:
    """The packets of one video stream of a recording, in the order in which they are decoded, with times that go on.

    - Pictures whose times are far off, and between pictures whose times go on, get times in between.
    - A clock that starts anew goes on where it was, an interval later.
    - Times that stand still, or go in steps, are spread evenly.
    - A gap stays a gap: a forward jump after which the clock goes on from there.

    ``interval_s`` is the usual distance of two pictures, ``start`` the time in ticks that counts as zero. ``on_oddity``
    is told what kind of times the file does not mean. Packets need ``dts``, ``pts`` (ticks or None, both are written)
    and ``size``; None in place of a packet stays where it is.
    """

    def __init__(
        self,
        packets: Iterator[Any],
        time_base: Fraction,
        interval_s: float,
        start: int | None,
        *,
        on_oddity: Callable[[str], None] = lambda _what: None,
    ) -> None:
        def ticks(seconds: float) -> int:
            return max(1, round(seconds / time_base))

        self._coming = _LookAhead(packets)
        self._on_oddity = on_oddity
        self._interval = ticks(interval_s)
        self._back = ticks(max(_BACK_S, 2.5 * interval_s))
        self._ahead = ticks(max(_AHEAD_S, 3 * interval_s))
        self._far = ticks(max(_FAR_S, 5 * interval_s))
        self._far_away = ticks(max(_FAR_AWAY_S, 5 * interval_s))
        self._reordered = ticks(max(_REORDERED_S, 20 * interval_s))
        self._start = start
        self._accepted = 0
        self._raw = 0  # what the last accepted packet says, and what it became
        self._out = 0
        self._raw_pts: int | None = None
        self._lead = 0  # pts before dts
        self._raw_lead = 0
        self._shown: int | None = None  # the latest time of display so far

    def __iter__(self) -> Iterator[Any]:
        self._complete()
        for packet in self._coming:
            key = _key(packet)
            if key is None:
                yield packet
            elif not self._accepted:
                self._begin(key)
                yield self._stamp(packet, self._out)
            elif self._stands_still(packet, key):
                yield from self._spread(packet, key)
            elif self._follows(self._raw, key):
                yield self._accept(packet, key, self._out + key - self._raw)
            else:
                yield from self._settle_jump(packet, key)

    def _complete(self) -> None:
        """Gives the first packets a time of decoding. Matroska stores times of display alone: where pictures are
        reordered, the time of decoding is known only from the first picture that comes later than it is shown."""
        without: list[Any] = []
        for packet in self._coming.peek(_MOST_REORDERED + 1):
            if packet is not None and packet.dts is not None:
                for number, earlier in enumerate(reversed(without), 1):
                    earlier.dts = packet.dts - number * self._interval
                return
            if packet is not None and packet.pts is not None:
                without.append(packet)

    def _begin(self, key: int) -> None:
        far = self._start is None or abs(key - self._start) > self._far
        self._raw, self._out, self._accepted = key, self._start if far and self._start is not None else key, 1

    def _follows(self, before: int, key: int) -> bool:
        return -self._back <= key - before <= self._ahead

    def _stands_still(self, packet: Any, key: int) -> bool:
        return key == self._raw and (packet.pts is None or packet.pts == self._raw_pts)

    def _accept(self, packet: Any, key: int, out: int) -> Any:
        self._accepted += 1
        self._raw, self._out = key, out
        return self._stamp(packet, out)

    def _stamp(self, packet: Any, out: int) -> Any:
        """``packet`` with the time ``out``; its time of display keeps its distance from the time of decoding."""
        self._raw_pts = packet.pts
        if packet.pts is not None:
            lead = packet.pts - packet.dts if packet.dts is not None else 0
            odd = abs(lead - self._lead) > self._reordered and abs(lead - self._raw_lead) > self._reordered
            self._raw_lead = lead
            if not odd or self._accepted == 1:
                self._lead = lead
            packet.pts = out + self._lead
            self._shown = packet.pts if self._shown is None else max(self._shown, packet.pts)
        if packet.dts is not None:
            packet.dts = out
        return packet

    # Times that stand still

    def _spread(self, packet: Any, key: int) -> Iterator[Any]:
        """``packet`` and those behind it that say the same, up to what the next one says."""
        count, room = 1, 0
        for other in self._coming.peek(_LOOK_FAR_AHEAD):
            here = _key(other)
            if here is not None and not self._stands_still(other, here):
                room = here - key
                break
            count += here is not None
        usual = (count + 1) * self._interval
        stepping = (0 if count <= _LOOK_AHEAD else 0.4 * usual) < room <= 2 * usual
        if count > _LOOK_AHEAD:
            self._on_oddity("its times stand still or go in steps: they are spread evenly")
        step = Fraction(room, count + 1) if stepping else Fraction(self._interval)
        moved = round(count * step)
        yield from self._place(packet, count, step)
        self._out += moved
        # If the clock has gone on meanwhile, this moves nothing behind it.
        self._raw = key + moved if room > moved else key

    def _place(self, packet: Any, count: int, step: Fraction) -> Iterator[Any]:
        """``packet`` and those behind it, ``count`` in all, a ``step`` apart."""
        number = 1
        yield self._stamp(packet, self._out + round(step))
        while number < count:
            packet = next(self._coming)
            if _key(packet) is None:
                yield packet
                continue
            number += 1
            yield self._stamp(packet, self._out + round(number * step))
        self._accepted += count

    # Times that jump

    def _settle_jump(self, packet: Any, key: int) -> Iterator[Any]:
        ahead = key - self._raw
        jump = self._look_beyond(key, _LOOK_FAR_AHEAD if abs(ahead) > self._far else _LOOK_AHEAD)
        few = self._accepted <= _FEW or jump.at_the_end <= _FEW
        if jump.strays:
            self._on_oddity("single pictures have times that are far off: they get times in between")
            yield from self._place(packet, jump.strays, Fraction(jump.hole, jump.strays + 1))
        elif ahead < 0 or (ahead > self._far_away and few):
            yield self._accept(packet, key, self._behind_all(packet))
        else:
            yield self._accept(packet, key, self._out + ahead)

    def _behind_all(self, packet: Any) -> int:
        """When ``packet`` is decoded if it is shown an interval after all before it."""
        if packet.pts is None or packet.dts is None or self._shown is None:
            return self._out + self._interval
        lead = packet.pts - packet.dts
        return self._out + self._interval if abs(lead) > self._reordered else self._shown + self._interval - lead

    def _look_beyond(self, key: int, most: int) -> "_Jump":
        count, before = 1, key
        for other in self._coming.peek(most):
            here = _key(other)
            if here is None:
                continue
            hole = here - self._raw
            fits = count * self._interval // 2 < hole <= self._ahead + 2 * (count + 1) * self._interval
            if fits and not self._follows(before, here):
                return _Jump(strays=count, hole=hole)
            count, before = count + 1, here
        return _Jump(at_the_end=count) if self._coming.exhausted else _Jump()


@dataclass(frozen=True, slots=True)
class _Jump:
    """``strays``: how many pictures are astray, where the clock goes on behind them as it was, ``hole`` ticks later.
    ``at_the_end``: how many pictures are left, where the file ends soon."""

    strays: int = 0
    hole: int = 0
    at_the_end: int = sys.maxsize


class _LookAhead:
    """Packets that can be looked at before they are taken, within a number and a size."""

    def __init__(self, packets: Iterator[Any]) -> None:
        self._packets = packets
        self._seen: deque[Any] = deque()
        self.exhausted = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._seen.popleft() if self._seen else next(self._packets)

    def peek(self, most: int) -> Iterator[Any]:
        """The next ones, which stay where they are. ``exhausted`` says whether there are no more behind them."""
        size = 0
        for number in range(most):
            if number == len(self._seen):
                if size > _MOST_BYTES:
                    return
                try:
                    self._seen.append(next(self._packets))
                except StopIteration:
                    self.exhausted = True
                    return
            packet = self._seen[number]
            size += packet.size if packet is not None else 0
            yield packet


def _key(packet: Any) -> int | None:
    """When it is decoded, in ticks: unlike the time of display it only grows."""
    if packet is None:
        return None
    key: int | None = packet.dts if packet.dts is not None else packet.pts
    return key
