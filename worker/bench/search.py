"""Search among 10 thousand, 100 thousand and a million faces of 2048 numbers each, one query at a time."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from worker.bench.comparison import Row, Setup, compared, joined, same_people, unable
from worker.bench.contest import Results, compete
from worker.bench.material import DIMENSION
from worker.files import scratch_folder

SAMPLES: Final = 4
THRESHOLD: Final = 0.55
NAMES: Final = ("search_10k/query", "search_100k/query", "search_1m/query", "search_1m/memory")
SIZES: Final = {"10k": (10_000, 40), "100k": (100_000, 40), "1m": (1_000_000, 8)}
_BOTH_IN_MEMORY: Final = 4.0
_HEADROOM: Final = 1.3
"""The flat index holds all vectors in memory. The disk holds them as files, which our index maps."""


def measure(setup: Setup) -> Iterator[Row]:
    """A row of time for each size, and a row of memory for the largest. Only rows that are wanted are measured."""
    for size, (count, queries) in SIZES.items():
        wanted = [name for name in NAMES if name.startswith(f"search_{size}/") and setup.wanted(name)]
        if not wanted:
            continue
        with scratch_folder() as folder:
            vectors_gb = count * DIMENSION * 4 / 1e9
            if problem := _problem(size, vectors_gb, folder, quick=setup.quick):
                yield from (unable(name, _unit(name), problem) for name in wanted)
                continue
            arguments = {"folder": str(folder), "people": count // SAMPLES, "samples": SAMPLES, "queries": queries}
            contestants = {
                "ours": ("worker.bench.ours:search", arguments),
                "flat": ("worker.bench.peers:flat_search", arguments),
            }
            if available_gb() > _BOTH_IN_MEMORY * vectors_gb:
                results = compete(contestants, ["ours/query", "flat/query"], setup.rounds, start=setup.start)
            else:
                results = _one_after_the_other(contestants, setup)
        yield from rows(wanted, results, queries)


def _one_after_the_other(contestants: Mapping[str, tuple[str, Mapping[str, Any]]], setup: Setup) -> Results:
    """Lets one side do all its turns before the other.

    Memory is too small for the flat index and the mapped files at once. If the sides took turns, the files would be
    read anew each time.
    """
    results = Results()
    for name, entry in contestants.items():
        alone = compete({name: entry}, [f"{name}/query"], setup.rounds, start=setup.start)
        results.outcomes.update(alone.outcomes)
        results.problems.update(alone.problems)
    return results


def _problem(size: str, vectors_gb: float, folder: Path, *, quick: bool) -> str:
    """Why this size cannot be measured; empty if it can."""
    if quick and size == "1m":
        return "left out by --quick"
    needed_gb = _HEADROOM * vectors_gb
    for what, free_gb in (("memory", available_gb()), (f"{folder.parent}", shutil.disk_usage(folder).free / 1e9)):
        if free_gb < needed_gb:
            return f"needs {needed_gb:.0f} GB of {what}, and {free_gb:.0f} GB are free"
    return ""


def rows(wanted: list[str], results: Results, queries: int) -> Iterator[Row]:
    """The rows of one size from the measured ``results``."""
    problem = joined(*(f"{name}: {results.problem(name)}" for name in ("ours", "flat") if results.problem(name)))
    ours, flat = results.answer("ours/query"), results.answer("flat/query")
    verdict = same_people(flat["found"], ours["found"], THRESHOLD) if ours and flat else None
    agree = verdict.agree if verdict else None
    kind = f"{ours['kind']} against FAISS IndexFlatIP, both on all cores" if ours else ""
    note = joined(problem, kind, verdict.text if verdict else "")
    for name in wanted:
        if name.endswith("/memory"):
            mine, theirs = _memory(ours), _memory(flat)
        else:
            mine, theirs = (
                [1000 * seconds for seconds in results.seconds(f"{side}/query", per=queries)]
                for side in ("ours", "flat")
            )
        where = "private memory; our vectors stay in mapped files" if name.endswith("/memory") else ""
        yield compared(name, mine, theirs, _unit(name), agree=agree, note=joined(where, note))


def _unit(name: str) -> str:
    return "MB" if name.endswith("/memory") else "ms/query"


def _memory(answer: Any) -> list[float]:
    return [answer["memory_mb"]] if answer else []


def available_gb() -> float:
    """The memory that programs can still use, GB; 0 if the system does not say."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) / 1e6
    return 0.0
