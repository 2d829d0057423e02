"""Does ``facestream gallery audit`` find planted faults, and how often does it cry wolf? On a folder of people.

    python tests/bench/audit_faults.py PEOPLE_DIR --model ID [--models-dir DIR] [--galleries 20]

Each gallery holds everybody, with two photos put under other people, one person split into two names, and a photo of
somebody who is not enrolled put under another name.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from worker.audit import audit
from worker.cli.networks import Networks
from worker.gallery import Gallery, NewSample
from worker.photo_faces import PeopleFaces

_MARGIN = 0.03


def plant(faces: PeopleFaces, seed: int) -> tuple[list[str], dict[int, str], frozenset[str]]:
    """The name under which each sample is enrolled ("": not at all), the faults by sample, and the split person."""
    chance = np.random.default_rng(seed)
    counts = np.bincount(faces.people)
    several = np.flatnonzero(counts >= 4)
    a, b, c, split, gone, host = chance.choice(several, 6, replace=False).tolist()
    names = [faces.names[person] for person in faces.people.tolist()]
    faults: dict[int, str] = {}
    for row, under in zip(
        chance.choice(np.flatnonzero(faces.people == b), 2, replace=False).tolist(), (a, c), strict=True
    ):
        names[row], faults[row] = faces.names[under], "photo of another person of the gallery"
    rows = np.flatnonzero(faces.people == split)
    for row in rows[: len(rows) // 2].tolist():
        names[row] = f"{faces.names[split]} again"
    first, *others = np.flatnonzero(faces.people == gone).tolist()
    names[first], faults[first] = faces.names[host], "photo of a stranger"
    for row in others:
        names[row] = ""
    return names, faults, frozenset((faces.names[split], f"{faces.names[split]} again"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--galleries", type=int, default=20)
    options = parser.parse_args()
    networks = Networks(None, options.model, options.models_dir, 20, "auto", "auto")
    faces = networks.embed_people(options.people, "embedding faces")
    planted: Counter[str] = Counter()
    found: Counter[str] = Counter()
    false: Counter[str] = Counter()
    samples = 0
    for seed in range(options.galleries):
        names, faults, split = plant(faces, seed)
        gallery = Gallery.in_memory(networks.embedder.model_id, "bench", faces.vectors.shape[1])
        gallery.add([NewSample(n, faces.vectors[row], str(row), str(row)) for row, n in enumerate(names) if n])
        samples += gallery.sample_count
        planted.update([*faults.values(), "one person under two names"])
        for finding in audit(gallery, threshold=networks.embedder.threshold, margin=_MARGIN):
            if finding.kind == "same_person":
                if frozenset(finding.people) == split:
                    found["one person under two names"] += 1
                else:
                    false["two people called one"] += 1
            elif finding.kind in {"wrong_sample", "odd_sample"}:
                if fault := faults.pop(int(finding.photos[0]), ""):
                    found[fault] += 1
                else:
                    false["good sample called wrong or odd"] += 1
    for fault, count in planted.items():
        print(f"{fault}: {found[fault]} of {count} found")  # noqa: T201
    print(f"false alarms in {options.galleries} galleries, {samples} samples: {dict(false)}")  # noqa: T201


if __name__ == "__main__":
    main()
