"""A comparison of two works that do the same: which works, what their unit is, who judges the answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from worker.bench.agree import Verdict
from worker.bench.contest import ContestantProcess, Results, Starter, compete
from worker.bench.material import Material
from worker.bench.rows import Row, compared, joined, unable


class Setup:
    """What the families of rows need.

    Args:
        make_material: called once, when a row first needs the material.
        rounds: turns of each side.
        quick: less of everything, for a first look.
        wanted: whether a row of this name is asked for.
    """

    def __init__(
        self,
        make_material: Callable[[], Material],
        *,
        rounds: int,
        quick: bool = False,
        wanted: Callable[[str], bool] = lambda _name: True,
        start: Starter = ContestantProcess,
    ) -> None:
        self._make_material = make_material
        self.rounds = rounds
        self.quick = quick
        self.wanted = wanted
        self.start = start

    @cached_property
    def material(self) -> Material:
        return self._make_material()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The row ``name``: the work ``ours`` against the quickest of ``peers``.

    ``judge`` gets the answer of the quickest peer, or of the first one with ``judged_by_first``, and ours. Works are
    ``contestant/work``.
    """

    name: str
    ours: str
    peers: tuple[str, ...]
    judge: Callable[[Any, Any], Verdict]
    note: str = ""
    judged_by_first: bool = False

    @property
    def works(self) -> tuple[str, ...]:
        return (self.ours, *self.peers)


@dataclass(frozen=True, slots=True)
class Family:
    """Comparisons that share contestants.

    ``items``: how many frames or faces each work takes and answers for; works that take fewer take the first of the
    others'. ``unit`` is ``ms/...`` for the time of one item, else items
    a second.
    """

    contestants: Mapping[str, tuple[str, Mapping[str, Any]]]
    comparisons: Sequence[Comparison]
    items: Mapping[str, int]
    unit: str

    def measure(self, setup: Setup) -> Iterator[Row]:
        """Lets the contestants of the wanted comparisons compete, and yields a row for each."""
        wanted = [comparison for comparison in self.comparisons if setup.wanted(comparison.name)]
        if not wanted:
            return
        works = list(dict.fromkeys(work for comparison in wanted for work in comparison.works))
        needed = {work.partition("/")[0] for work in works}
        contestants = {name: entry for name, entry in self.contestants.items() if name in needed}
        results = compete(contestants, works, setup.rounds, start=setup.start)
        for comparison in wanted:
            yield self.row(comparison, results)

    def row(self, comparison: Comparison, results: Results) -> Row:
        """The row of ``comparison`` from what was measured."""
        ours = comparison.ours
        if problem := results.problem(ours.partition("/")[0]):
            return unable(comparison.name, self.unit, f"ours: {problem}")
        peer = results.quickest({work: self.items[work] for work in comparison.peers})
        if peer is None:
            missing = {name: results.problem(name) for name in (work.partition("/")[0] for work in comparison.peers)}
            why = joined(*(f"{name}: {problem}" for name, problem in missing.items()))
            return compared(comparison.name, self._values(ours, results), [], self.unit, note=joined(why))
        reference = comparison.peers[0] if comparison.judged_by_first else peer
        both = min(self.items[ours], self.items[reference])
        verdict = comparison.judge(results.answer(reference)[:both], results.answer(ours)[:both])
        best = f"the peer's best: {peer.partition('/')[2]}" if len(comparison.peers) > 1 else ""
        return compared(
            comparison.name,
            self._values(ours, results),
            self._values(peer, results),
            self.unit,
            more_is_better=not self.unit.startswith("ms/"),
            agree=verdict.agree,
            note=joined(comparison.note, best, verdict.text),
        )

    def _values(self, work: str, results: Results) -> list[float]:
        per_item = results.seconds(work, per=self.items[work])
        return [1000 * s for s in per_item] if self.unit.startswith("ms/") else [1 / s for s in per_item]
