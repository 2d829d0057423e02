"""What load costs: the share of sightings that still get a name with more cameras than the machine carries in full."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from worker.bench.comparison import Row, Setup, unable
from worker.bench.contest import UnableError
from worker.bench.live import MOST_CAMERAS, start_sweep, step

NAMES: Final = ("live_1080p25/load",)
LEAST_AT_TWICE: Final = 0.9
LEAST_AT_FOUR_TIMES: Final = 0.6
_SECONDS: Final = 15.0
_UNIT: Final = "% named"


def measure(setup: Setup) -> Iterator[Row]:
    """The row, if it is wanted; not a quick one, because many cameras take minutes."""
    if not setup.wanted(NAMES[0]):
        return
    if setup.quick:
        yield unable(NAMES[0], _UNIT, "left out by --quick")
        return
    if setup.material.real_problem:
        yield unable(NAMES[0], _UNIT, setup.material.real_problem)
        return
    numbers = [2**power for power in range(MOST_CAMERAS.bit_length())]
    results: list[Mapping[str, Any]] = []
    try:
        with closing(start_sweep(setup, numbers, _SECONDS, real=True)) as contestant:
            for cameras in numbers:
                results.append(contestant.work(str(cameras)).answer)
                carried = max((result["cameras"] for result in results if result["kept_up"]), default=1)
                if cameras >= 4 * carried:
                    break
    except UnableError as error:
        yield unable(NAMES[0], _UNIT, str(error))
    else:
        yield row(results)


def row(results: Sequence[Mapping[str, Any]]) -> Row:
    """The row of the ``results`` of 1, 2, 4, ... cameras: the share of named sightings at twice the largest number that
    the worker kept up with. 100 % is what a camera alone gives in the same time.

    It agrees if at least 90 % are named at twice that number, and 60 % at four times.
    """
    alone = results[0]["named"] / results[0]["seconds"]
    if not alone:
        return unable(NAMES[0], _UNIT, f"one camera alone gave no name; {step(results[0])}")
    shares = {
        result["cameras"]: min(1.0, result["named"] / result["seconds"] / result["cameras"] / alone)
        for result in results
    }
    carried = max((result["cameras"] for result in results if result["kept_up"]), default=1)
    twice, four_times = shares.get(2 * carried), shares.get(4 * carried)
    said = "; ".join(f"{shares[result['cameras']]:.0%} named with {step(result)}" for result in results)
    note = f"twice the {carried} that are carried in full; {said}"
    if twice is None or four_times is None:
        return unable(NAMES[0], _UNIT, f"more cameras are carried than can be doubled here; {said}")
    agree = twice >= LEAST_AT_TWICE and four_times >= LEAST_AT_FOUR_TIMES
    return Row(NAMES[0], round(100 * twice, 1), None, _UNIT, None, None, agree, note)
