"""Does ``facestream gallery audit`` find planted faults, and how many findings are false? On a folder of people.

    python -m tests.bench.audit_faults PEOPLE_DIR --model ID [--models-dir DIR] [--galleries 20]

Each gallery holds everybody. Two photos are put under other people, one person is split into two names, one photo is
put under two names, and a photo of a person who is not enrolled is put under another name. Findings before anything is
planted are listed: they may be mistakes of the data. Look-alikes need no planting: all pairs of people with samples as
near as the threshold are counted without the audit, and a pair without a finding was missed.

    python -m tests.bench.audit_faults PEOPLE_DIR --model ID --swaps 500

Instead of all that, two people exchange a photo, or one photo is moved to somebody else, in galleries of 100 people.
How often is the misplaced photo found, and how often is a correct one blamed?
"""

import argparse
from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from tests.bench.promises import embedded
from worker.evaluation.audit import Finding, audit, counts
from worker.evaluation.probes import PeopleFaces
from worker.faces.manifests import load_manifest
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery

_MARGIN = 0.03
_OF_SAMPLES = ("wrong_sample", "odd_sample")


@dataclass(frozen=True, slots=True)
class Planted:
    """``names`` under which each sample is enrolled ("": not at all), the ``faults`` by sample, and by the two names
    that one person has in ``doubles``; the sample ``copied`` is enrolled as "copy" too (-1: none)."""

    names: list[str]
    faults: dict[int, str]
    doubles: dict[frozenset[str], str]
    copied: int


def plant(faces: PeopleFaces, seed: int) -> Planted:
    chance = np.random.default_rng(seed)
    several = np.flatnonzero(np.bincount(faces.people) >= 4)
    a, b, c, split, gone, host = chance.choice(several, 6, replace=False).tolist()
    copied = int(chance.choice(np.flatnonzero(~np.isin(faces.people, [a, b, c, split, gone, host]))))
    names = [faces.names[person] for person in faces.people.tolist()]
    faults: dict[int, str] = {}
    swapped = chance.choice(np.flatnonzero(faces.people == b), 2, replace=False).tolist()
    for row, under in zip(swapped, (a, c), strict=True):
        names[row], faults[row] = faces.names[under], "photo of another person of the gallery"
    rows = np.flatnonzero(faces.people == split)
    for row in rows[: len(rows) // 2].tolist():
        names[row] = f"{faces.names[split]} again"
    first, *others = np.flatnonzero(faces.people == gone).tolist()
    names[first], faults[first] = faces.names[host], "photo of a stranger"
    for row in others:
        names[row] = ""
    doubles = {
        frozenset((faces.names[split], f"{faces.names[split]} again")): "one person under two names",
        frozenset((names[copied], "copy")): "one photo under two names",
    }
    return Planted(names, faults, doubles, copied)


def audited(faces: PeopleFaces, planted: Planted, model_id: str, threshold: float) -> tuple[list[Finding], int]:
    """What the audit finds, and for how many pairs of people with samples at the threshold there is no finding."""
    gallery = FolderGallery.in_memory(model_id, "bench", faces.vectors.shape[1])
    samples = [
        NewSample(name, faces.vectors[row], str(row), str(row)) for row, name in enumerate(planted.names) if name
    ]
    if planted.copied >= 0:
        samples.append(NewSample("copy", faces.vectors[planted.copied], "copy", "copy"))
    gallery.add(samples)
    findings = audit(gallery, threshold=threshold, margin=_MARGIN)
    vectors = np.stack([sample.vector for sample in samples])
    names = [sample.identity_name for sample in samples]
    near = zip(*np.nonzero(np.triu(vectors @ vectors.T >= threshold, 1)), strict=True)
    alike = {frozenset((names[first], names[second])) for first, second in near} - {frozenset((n,)) for n in names}
    told = {frozenset(pair) for finding in findings for pair in combinations(finding.people, 2)}
    suspects = {name for finding in findings if finding.kind in _OF_SAMPLES for name in finding.people[:1]}
    return findings, sum(not (pair in told or pair & suspects) for pair in alike)


def key(finding: Finding) -> object:
    return frozenset(finding.people) if finding.kind == "same_person" else finding.photos[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--galleries", type=int, default=20)
    parser.add_argument("--swaps", type=int, default=0)
    parser.add_argument("--cache", type=Path)
    options = parser.parse_args()
    faces = embedded(options)
    model = options.model, load_manifest(options.model).threshold
    if options.swaps:
        measure_swaps(faces, options.swaps, *model)
        return
    untouched = Planted([faces.names[person] for person in faces.people.tolist()], {}, {}, -1)
    findings, missed = audited(faces, untouched, *model)
    own = {key(finding): finding for finding in findings if finding.kind in {"same_person", *_OF_SAMPLES}}
    print(f"{len(faces.names)} people, {len(faces.people)} samples; in the data as they are: {counts(findings)}")  # noqa: T201
    for finding in own.values():
        where = (
            f", {untouched.names[int(finding.photos[0])]}: photo {_number(faces, finding)}" if finding.photos else ""
        )
        print(f"  {finding.kind}: {', '.join(finding.people)}{where}: {finding.detail}")  # noqa: T201
    print(f"  look-alikes that no finding is about: {missed}")  # noqa: T201
    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    false: Counter[str] = Counter()
    for seed in range(options.galleries):
        faulty = plant(faces, seed)
        planted.update([*faulty.faults.values(), *faulty.doubles.values()])
        findings, missed = audited(faces, faulty, *model)
        false["look-alikes missed"] += missed
        for finding in findings:
            if finding.kind not in {"same_person", *_OF_SAMPLES}:
                continue
            fault = faulty.doubles.pop(frozenset(finding.people), "") or faulty.faults.pop(_row(finding), "")
            if fault:
                found[fault] += 1
            elif key(finding) not in own:
                false[f"false {finding.kind}"] += 1
    for fault, count in planted.items():
        print(f"{fault}: {found[fault]} of {count} found")  # noqa: T201
    print(f"beyond both, in {options.galleries} galleries: {dict(false)}")  # noqa: T201


def measure_swaps(faces: PeopleFaces, swaps: int, model_id: str, threshold: float) -> None:
    """Prints how often a misplaced photo is found, and how often a correct one is blamed instead or as well."""
    several = np.flatnonzero(np.bincount(faces.people) >= 2)
    for moved_only in (False, True):
        told: Counter[str] = Counter()
        for seed in range(swaps):
            chance = np.random.default_rng(seed)
            chosen = chance.choice(several, 100, replace=False)
            rows = np.flatnonzero(np.isin(faces.people, chosen))
            names = [faces.names[person] if person in chosen else "" for person in faces.people.tolist()]
            own = {key(found) for found in audited(faces, Planted(names, {}, {}, -1), model_id, threshold)[0]
                   if found.kind in _OF_SAMPLES}  # fmt: skip
            a, b = (int(chance.choice(rows[faces.people[rows] == person])) for person in chosen[:2])
            wrong = {str(a)} if moved_only else {str(a), str(b)}
            names[a], names[b] = names[b], names[b] if moved_only else names[a]
            findings, _ = audited(faces, Planted(names, {}, {}, -1), model_id, threshold)
            blamed = {found.photos[0] for found in findings if found.kind in _OF_SAMPLES} - own
            told["a correct photo is blamed"] += bool(blamed - wrong)
            told["all misplaced photos are named"] += wrong <= blamed
            told["a finding is about them"] += bool(blamed & wrong) or any(
                set(found.photos) & wrong for found in findings if found.kind not in {"look_alikes", "poor_coverage"}
            )
        kind = "one photo moved" if moved_only else "two photos exchanged"
        print(f"{kind}, {swaps} times: {dict(told)}")  # noqa: T201


def _row(finding: Finding) -> int:
    return int(finding.photos[0]) if finding.photos[0].isdecimal() else -1


def _number(faces: PeopleFaces, finding: Finding) -> int:
    """The number of the photo among those of the person in which a face was found."""
    row = _row(finding)
    return int((faces.people[: row + 1] == faces.people[row]).sum())


if __name__ == "__main__":
    main()
