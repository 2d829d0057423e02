"""What is wrong with a gallery: people enrolled twice, look-alikes, samples of other people, too few samples."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from worker.evaluation.misplaced import Misplaced, find_misplaced
from worker.gallery.contents import Person, Sample
from worker.gallery.gallery import Gallery
from worker.gallery.resemblance import Resemblance, resemblance_in
from worker.types import Rows, Vectors

Kind = Literal[
    "resemblance", "same_person", "wrong_sample", "mixed_samples", "odd_sample", "look_alikes", "poor_coverage"
]
KINDS: Final[tuple[Kind, ...]] = (
    "resemblance", "same_person", "wrong_sample", "mixed_samples", "odd_sample", "look_alikes", "poor_coverage",
)  # fmt: skip

_BLOCK_ROWS: Final = 1024
_SAME_PERSON_QUANTILE: Final = 0.1
"""Two people are probably one if they are as near to each other as the least coherent tenth of people to themselves."""
_FEWEST_FOR_QUANTILE: Final = 10
_OWN_LIKENESS: Final = 0.75
"""Or if their similarity is at least this share of that of the less coherent of them to itself."""
_ALIKE_SHARE: Final = 0.75
"""Samples whose similarity lies beyond this share of the way from the threshold to 1 were taken at one moment."""
_LOW_QUALITY: Final = 0.4
_MOST_PAIRS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at.

    ``people`` are the names; the person to act on comes first. ``identity_ids`` are in the same order. ``sample_ids``
    and ``photos`` are the samples that show it. ``similarity`` is a cosine, or None if the finding is not about one.
    ``detail`` says what was found, ``advice`` what to do.
    """

    kind: Kind
    people: tuple[str, ...]
    identity_ids: tuple[str, ...]
    sample_ids: tuple[str, ...]
    photos: tuple[str, ...]
    similarity: float | None
    detail: str
    advice: str


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who resembles whom. The rows are samples, person after person, as in ``owners``.

    ``own`` and ``own_median`` float32 (n,) are the highest and the median similarity to the person's other samples, NaN
    for an only sample. ``rival`` float32 (n,) is the similarity to the nearest sample of anybody else; ``rival_person``
    and ``rival_row`` int64 (n,) say which one that is. ``pairs`` int64 (m, 2) are people a < b who are near each other;
    ``pair_nearest`` and ``pair_mean`` float32 (m,) are the highest and the mean similarity of all their samples.
    """

    own: Vectors
    own_median: Vectors
    rival: Vectors
    rival_person: Rows
    rival_row: Rows
    pairs: Rows
    pair_nearest: Vectors
    pair_mean: Vectors


def pair_threshold(found: Resemblance | None, threshold: float) -> float:
    """From which cosine on two people are conspicuous who resemble each other as ``found``, if people are named from
    ``threshold`` on.

    It is the same, unless the people resemble each other more than those in the evidence: then many reach ``threshold``
    without being one person, and the one that keeps its promise for them is higher.
    """
    return max(threshold, found.offered) if found and found.is_high else threshold


def audit(
    gallery: Gallery,
    *,
    threshold: float,
    margin: float,
    between: float | None = None,
    resemblance: Resemblance | None = None,
    block_rows: int = _BLOCK_ROWS,
) -> list[Finding]:
    """Everything that is worth looking at in ``gallery``, the gravest kinds and cases first.

    Args:
        gallery: who is enrolled.
        threshold: cosine from which a person is named.
        margin: how much nearer than the next person a named person must be.
        between: cosine from which two people look alike; None: see :func:`pair_threshold`.
        resemblance: how much its people resemble each other at ``threshold``; None: that is worked out.
        block_rows: how many samples are compared with all others at a time.
    """
    contents = gallery.contents  # one version, while others change the gallery
    people, vectors, samples = contents.people(), contents.vectors_of(), contents.samples
    if not samples:
        return []
    row_of = {sample.sample_id: row for row, sample in enumerate(samples)}
    order = np.array([row_of[sample.sample_id] for person in people for sample in person.samples], np.int64)
    owners = np.repeat(np.arange(len(people)), [len(person.samples) for person in people])
    resemblance = resemblance or resemblance_in(gallery, threshold)
    between = pair_threshold(resemblance, threshold) if between is None else between
    numbers = compare(vectors[order], owners, near=between - margin, block_rows=block_rows)
    report = _Audit(
        people, [samples[row] for row in order.tolist()], vectors[order], owners, numbers, threshold, between, margin
    )  # fmt: skip
    findings = [*_of_everybody(resemblance), *report.pairs(), *report.samples(), *report.coverage()]
    worth = {kind: rank for rank, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda finding: (worth[finding.kind], -(finding.similarity or 0.0), finding.people))


def _of_everybody(found: Resemblance | None) -> Iterator[Finding]:
    """That the people resemble each other more than those for whom the threshold was chosen."""
    if found and found.is_high:
        yield Finding(
            "resemblance", (), (), (), (), None, found.warning,
            "calibrate with people like these: facestream calibrate --people, or --strangers from the site",
        )  # fmt: skip


def compare(vectors: Vectors, owners: Rows, near: float, block_rows: int = _BLOCK_ROWS) -> Neighbours:
    """Compares all samples with all others, in blocks: n^2 products, memory for ``block_rows`` x n.

    Args:
        vectors: unit vectors float32 (n, d).
        owners: the person of each, int64 (n,), ascending from 0.
        near: cosine from which a pair of people counts as near each other.
        block_rows: about how many rows a block has; the samples of one person are never split.
    """
    n, starts = len(owners), np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    sums = np.add.reduceat(vectors, starts, axis=0)
    counts = np.diff(np.r_[starts, n])
    own, median = np.full(n, np.nan, np.float32), np.full(n, np.nan, np.float32)
    rival, rival_row = np.full(n, -1.0, np.float32), np.full(n, -1, np.int64)
    found: list[tuple[Rows, Vectors]] = []
    for first_person, last_person in _blocks(counts, block_rows):
        first, last = int(starts[first_person]), int(starts[last_person - 1] + counts[last_person - 1])
        block = vectors[first:last] @ vectors.T
        for person in range(first_person, last_person):  # the samples of the person must not count as rivals
            begin, end = int(starts[person]), int(starts[person] + counts[person])
            own_block = block[begin - first : end - first, begin:end]
            if end - begin > 1:
                others = own_block[~np.eye(end - begin, dtype=bool)].reshape(end - begin, -1)
                own[begin:end], median[begin:end] = others.max(axis=1), np.median(others, axis=1)
            own_block[:] = -1.0
        if len(starts) > 1:
            rival_row[first:last] = block.argmax(axis=1)
            rival[first:last] = block[np.arange(last - first), rival_row[first:last]]
        by_person = np.maximum.reduceat(block, starts, axis=1)
        nearest = np.maximum.reduceat(by_person, starts[first_person:last_person] - first, axis=0)
        a, b = np.nonzero(nearest >= near)
        ahead = a + first_person < b
        found.append((np.stack([a[ahead] + first_person, b[ahead]], axis=1), nearest[a[ahead], b[ahead]]))
    pairs, pair_nearest = np.concatenate([p for p, _ in found]), np.concatenate([s for _, s in found])
    keep = np.argsort(-pair_nearest, kind="stable")[:_MOST_PAIRS]
    pairs, pair_nearest = pairs[keep], pair_nearest[keep]
    means = sums / counts[:, None]
    pair_mean = np.einsum("pd,pd->p", means[pairs[:, 0]], means[pairs[:, 1]]).astype(np.float32)
    rival_person = np.where(rival_row >= 0, owners[rival_row], -1)
    return Neighbours(own, median, rival, rival_person, rival_row, pairs, pair_nearest, pair_mean)


def _blocks(counts: Rows, block_rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole people who have about ``block_rows`` samples together."""
    first = rows = 0
    for person, count in enumerate(counts.tolist()):
        if rows and rows + count > block_rows:
            yield first, person
            first, rows = person, 0
        rows += count
    yield first, len(counts)


class _Audit:
    def __init__(
        self,
        people: Sequence[Person],
        samples: Sequence[Sample],
        vectors: Vectors,
        owners: Rows,
        numbers: Neighbours,
        threshold: float,
        between: float,
        margin: float,
    ) -> None:
        self._people, self._samples, self._owners, self._numbers = people, samples, owners, numbers
        self._vectors = vectors
        self._threshold, self._between, self._margin = threshold, between, margin
        self._rows = np.split(np.arange(len(owners)), np.flatnonzero(np.diff(owners)) + 1)
        self._same_from = self._likeness_of_one_person()
        self._doubles: set[tuple[int, int]] = set()
        self._wrong = Misplaced()

    def pairs(self) -> Iterator[Finding]:
        """People who are probably one, and people who look alike."""
        n = self._numbers
        rows = list(zip(n.pairs.tolist(), n.pair_nearest.tolist(), n.pair_mean.tolist(), strict=True))
        for (a, b), _, mean in rows:
            if mean >= min(self._same_from, self._likeness_of_these(a, b)):
                self._doubles.add((a, b))
        self._find_wrong_samples()
        for a, b in sorted(self._wrong.mixed):
            yield self._of_mixed(a, b)
        for (a, b), nearest, mean in rows:
            if (a, b) in self._doubles:
                names = f"{self._people[a].name} and {self._people[b].name}"
                yield self._of_pair(
                    "same_person", a, b, mean, f"{names} are as alike as one person",
                    "if they are one, 'facestream gallery merge' makes them one",
                )  # fmt: skip
            elif not self._explained(a, b):
                effect = "would be taken for each other" if nearest >= self._between else "are near the threshold"
                yield self._of_pair(
                    "look_alikes", a, b, nearest, f"{effect} (threshold {self._between:.2f})",
                    "enroll more and better photos of both; raise the threshold if they are still confused",
                )  # fmt: skip

    def samples(self) -> Iterator[Finding]:
        """Samples that show another person, and samples that are unlike the other samples of the person."""
        n = self._numbers
        for row, rival in sorted(self._wrong.moved.items()):
            name, own = self._people[int(self._owners[row])].name, float(n.own[row])
            like = self._wrong.like[row]
            yield self._of_sample(
                "wrong_sample", row, (rival,), float(self._vectors[row] @ self._vectors[like]),
                f"shows {self._people[rival].name} rather than {name} (own samples {own:.2f})",
                "look at the photo; if it is wrong: facestream gallery remove-sample", like=like,
            )  # fmt: skip
        for person, rows in enumerate(self._rows):
            if self._is_mixed(person):
                continue
            for row in self._odd(person):
                yield self._of_sample(
                    "odd_sample", row, (), float(n.own[row]),
                    f"is unlike the other {len(rows) - 1} samples of {self._people[person].name}"
                    if len(rows) > 2 else f"and the other sample of {self._people[person].name} are unlike",
                    "look at the photos; facestream gallery remove-sample, or enroll more",
                )  # fmt: skip

    def coverage(self) -> Iterator[Finding]:
        """People with too few or too poor samples."""
        alike = self._threshold + _ALIKE_SHARE * (1 - self._threshold)
        for person, rows in zip(self._people, self._rows, strict=True):
            best = max(sample.quality for sample in person.samples)
            problems = []
            if len(rows) == 1:
                problems.append("one sample only")
            elif len(rows) > 1 and float(self._numbers.own_median[rows].min()) >= alike:
                problems.append(f"{len(rows)} samples that are all alike")
            if best < _LOW_QUALITY:
                problems.append(f"no sample of quality {_LOW_QUALITY} (best {best:.2f})")
            if problems:
                ids = tuple(sample.sample_id for sample in person.samples)
                photos = tuple(sample.photo for sample in person.samples)
                yield Finding(
                    "poor_coverage", (person.name,), (person.identity_id,), ids, photos, None, ", ".join(problems),
                    "enroll photos of other days, light and angles",
                )  # fmt: skip

    def _likeness_of_one_person(self) -> float:
        """The mean similarity of the samples of two people from which they are probably one person.

        It is the one that people of this gallery have to themselves, and at least the threshold for pairs plus the
        margin.
        """
        inner = [float(np.median(self._numbers.own_median[rows])) for rows in self._rows if len(rows) > 1]
        floor = self._between + self._margin
        if len(inner) < _FEWEST_FOR_QUANTILE:
            return floor
        return max(floor, float(np.quantile(inner, _SAME_PERSON_QUANTILE)))

    def _likeness_of_these(self, a: int, b: int) -> float:
        """The same for two people with several samples each: about as near as each of them to themselves."""
        inner = [float(np.median(self._numbers.own_median[self._rows[person]])) for person in (a, b)]
        # People whose own samples are unlike each other have wrong samples, which say nothing about two being one.
        if np.isnan(inner).any() or min(inner) < self._threshold:
            return float("inf")
        return max(self._between + self._margin, _OWN_LIKENESS * min(inner))

    def _find_wrong_samples(self) -> None:
        """A sample is suspect if it is nearer to another person, by the margin, than to all others of its own."""
        n = self._numbers
        suspects = np.flatnonzero((n.rival >= self._threshold) & (n.rival >= n.own + self._margin))
        self._wrong = find_misplaced(
            self._vectors, self._owners, suspects, threshold=self._threshold, margin=self._margin,
            doubles=self._doubles,
        )  # fmt: skip

    def _is_mixed(self, person: int) -> bool:
        return any(person in pair for pair in self._wrong.mixed)

    def _odd(self, person: int) -> list[int]:
        """Samples that are far below the threshold to all others of the person. Of two that differ, the poorer one.

        Misplaced samples count where they belong: they may be what the others of their person resemble.
        """
        moved, rows = self._wrong.moved, self._rows[person]
        if len(rows) < 2:
            return []
        rows = rows[[row not in moved for row in rows.tolist()]]
        others = np.concatenate([rows, [row for row, belongs in moved.items() if belongs == person]]).astype(np.int64)
        own = self._numbers.own[rows]
        if not np.array_equal(others, self._rows[person]):
            if len(others) < 2 or not len(rows):
                return []
            cosines = self._vectors[rows] @ self._vectors[others].T
            cosines[rows[:, None] == others[None, :]] = -1.0
            own = cosines.max(axis=1)
        low = rows[own < self._threshold - self._margin]
        if len(others) == len(rows) == 2 and len(low):
            low = rows[:1] if self._samples[rows[0]].quality < self._samples[rows[1]].quality else rows[1:]
        return [int(row) for row in low]

    def _explained(self, a: int, b: int) -> bool:
        """Whether two people seem alike only because of a wrong sample: one of the other person or of their double."""
        return (a, b) in self._wrong.mixed or any(
            self._is_or_doubles(rival, other)
            for person, other in ((a, b), (b, a))
            for row in self._rows[person].tolist()
            if (rival := self._wrong.moved.get(row)) is not None
        )

    def _is_or_doubles(self, person: int, other: int) -> bool:
        return person == other or (min(person, other), max(person, other)) in self._doubles

    def _of_pair(self, kind: Kind, a: int, b: int, similarity: float, detail: str, advice: str) -> Finding:
        first, second = self._people[a], self._people[b]
        shown = (first.samples[0], second.samples[0])
        return Finding(
            kind, (first.name, second.name), (first.identity_id, second.identity_id),
            tuple(s.sample_id for s in shown), tuple(s.photo for s in shown), round(similarity, 4), detail, advice,
        )  # fmt: skip

    def _of_mixed(self, a: int, b: int) -> Finding:
        first, second = self._people[a], self._people[b]
        shown = [self._samples[row] for person in (a, b) for row in self._rows[person].tolist()]
        return Finding(
            "mixed_samples", (first.name, second.name), (first.identity_id, second.identity_id),
            tuple(s.sample_id for s in shown), tuple(s.photo for s in shown), None,
            f"samples of {first.name} and {second.name} are mixed, and nothing tells which ones are right",
            "look at these photos; remove the wrong ones: facestream gallery remove-sample",
        )  # fmt: skip

    def _of_sample(
        self, kind: Kind, row: int, rivals: tuple[int, ...], similarity: float, detail: str, advice: str,
        *, like: int | None = None,
    ) -> Finding:  # fmt: skip
        people = [self._people[person] for person in (int(self._owners[row]), *rivals)]
        shown = [self._samples[row]]
        if like is not None:
            shown.append(self._samples[like])
        else:
            mine = [other for other in self._rows[int(self._owners[row])].tolist() if other != row]
            shown.append(self._samples[mine[0]])
        return Finding(
            kind, tuple(p.name for p in people), tuple(p.identity_id for p in people),
            tuple(s.sample_id for s in shown), tuple(s.photo for s in shown), round(similarity, 4), detail, advice,
        )  # fmt: skip


def counts(findings: Sequence[Finding]) -> dict[Kind, int]:
    """How many findings of each kind, in the order of :data:`KINDS`."""
    numbers: dict[Kind, int] = defaultdict(int)
    for finding in findings:
        numbers[finding.kind] += 1
    return {kind: numbers[kind] for kind in KINDS}


def fold_look_alikes(findings: Sequence[Finding]) -> list[list[Finding]]:
    """The findings of look-alikes in groups that have a person in common: the largest groups first.

    Somebody who resembles forty others is one thing to look at, not forty.
    """
    left = [finding for finding in findings if finding.kind == "look_alikes"]
    of_person: dict[str, set[int]] = defaultdict(set)
    for number, finding in enumerate(left):
        for identity_id in finding.identity_ids:
            of_person[identity_id].add(number)
    groups: list[list[Finding]] = []
    while of_person:
        hub = max(of_person, key=lambda person: len(of_person[person]))
        numbers = of_person.pop(hub)
        if not numbers:
            break
        groups.append([_first(left[number], hub) for number in sorted(numbers)])
        for number in numbers:
            for identity_id in left[number].identity_ids:
                of_person.get(identity_id, set()).discard(number)
    return groups


def _first(finding: Finding, identity_id: str) -> Finding:
    """``finding`` with that person first."""
    if finding.identity_ids[0] == identity_id:
        return finding
    return replace(
        finding, people=finding.people[::-1], identity_ids=finding.identity_ids[::-1],
        sample_ids=finding.sample_ids[::-1], photos=finding.photos[::-1],
    )  # fmt: skip
