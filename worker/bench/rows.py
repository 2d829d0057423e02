"""A row of the result: two sets of measurements, their medians, and whether the two sides answered alike."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

_DIGITS: Final = 4


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison.

    ``ours`` and ``peer`` are medians in ``unit``; ``ratio`` is above 1 where ours is better; ``spread`` holds the
    smallest and the largest measurement of each side; ``agree`` says whether the answers of this very run agree.
    What could not be measured is None, and ``note`` says why.
    """

    name: str
    ours: float | None
    peer: float | None
    unit: str
    ratio: float | None
    spread: dict[str, tuple[float, float]] | None
    agree: bool | None
    note: str

    def document(self) -> dict[str, Any]:
        """The row in JSON types."""
        return asdict(self)


def compared(
    name: str,
    ours: Sequence[float],
    peer: Sequence[float],
    unit: str,
    *,
    more_is_better: bool = False,
    agree: bool | None = None,
    note: str = "",
) -> Row:
    """The row of the measurements ``ours`` and ``peer``, either of which may be empty."""
    mine, theirs = _median(ours), _median(peer)
    ratio = None
    if mine and theirs:
        ratio = mine / theirs if more_is_better else theirs / mine
    spread = {side: _range(values) for side, values in (("ours", ours), ("peer", peer)) if values}
    return Row(name, _rounded(mine), _rounded(theirs), unit, _rounded(ratio), spread or None, agree, note)


def unable(name: str, unit: str, why: str) -> Row:
    """The row of what could not be measured at all."""
    return Row(name, None, None, unit, None, None, None, why)


def joined(*notes: str) -> str:
    """The notes that are not empty, as one."""
    return "; ".join(note for note in notes if note)


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _range(values: Sequence[float]) -> tuple[float, float]:
    return _to_digits(min(values)), _to_digits(max(values))


def _rounded(value: float | None) -> float | None:
    return None if value is None else _to_digits(value)


def _to_digits(value: float) -> float:
    if not value or not math.isfinite(value):
        return value
    return round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))
