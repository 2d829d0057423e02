"""Are the promises of ``facestream calibrate`` kept on people whom it has not seen? Measured on a folder of people.

    python -m tests.bench.promises PEOPLE_DIR --model ID [--models-dir DIR] [--galleries 60] [--cache FILE.npz]

People are divided anew for each gallery: some are enrolled with a photo each, half of the others are the evidence, and
the rest are the strangers who judge. The threshold is found as ``--people`` does it. A promise is kept if no more of
the strangers than asked for match somebody. ``--cache`` keeps the embeddings, so that another run needs no network.

    python -m tests.bench.promises PEOPLE_DIR --model ID --resemblance [--others PEOPLE_DIR]

Is the warning of people who resemble each other given where it is due, and nowhere else? The evidence is everybody in
PEOPLE_DIR; galleries are drawn from everybody, from people with certain family names (a crude proxy for a group, from
the folders' names and never from looks), and from the people of another folder.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np

from worker.cli.networks import Networks
from worker.evaluation.calibration import Target
from worker.evaluation.false_matches import UnsupportedTargetError, everybody_with_everybody
from worker.evaluation.probes import PeopleFaces, probes_of_people
from worker.evaluation.promise import calibration_document, sets_of_people
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.gallery.resemblance import impostors_among, resemblance_in

MODEL_ID, DIGEST = "bench", "bench"
NAMES = """
chang chen cheung choi chung gao gong han hong hu huang hung jia jiang kim kong kwon leung li lim lin liu lu park qian
roh shi tang tse wang wen wu yang yao yeoh yoon yu zeng zhang zhong zhu akashi fukui hagiwara hasuike hatoyama izawa
kamei katayama kawaguchi kitajima matsui mori oguchi sato sugiyama suetsugu takebe tamura tanaka watanabe yabunaka
yamada yamasaki
"""


def some(faces: PeopleFaces, people: np.ndarray) -> PeopleFaces:
    """The faces of these people only."""
    rows = np.isin(faces.people, people)
    known, numbers = np.unique(faces.people[rows], return_inverse=True)
    photos = tuple(np.array(faces.photos, object)[rows]) if faces.photos else ()
    return PeopleFaces(
        faces.vectors[rows], numbers.astype(np.int64), tuple(faces.names[person] for person in known), 0, photos
    )


def gallery_of(faces: PeopleFaces, people: np.ndarray) -> FolderGallery:
    """A gallery in memory of the first photo of each of these people."""
    gallery = FolderGallery.in_memory(MODEL_ID, DIGEST, faces.vectors.shape[1])
    rows = [int(np.argmax(faces.people == person)) for person in people]
    gallery.add(
        [NewSample(faces.names[faces.people[row]], faces.vectors[row], f"{row}.jpg", f"{row:064x}") for row in rows]
    )
    return gallery


def measure_targets(faces: PeopleFaces, size: int, target: float, galleries: int) -> str:
    """How often ``target`` is kept with galleries of ``size`` people, and what was said where it is not."""
    told: Counter[str] = Counter()
    broken: Counter[str] = Counter()
    rates, thresholds, misses = [], [], []
    for seed in range(galleries):
        shuffled = np.random.default_rng(seed).permutation(len(faces.names))
        enrolled, rest = shuffled[:size], shuffled[size:]
        gallery = gallery_of(faces, enrolled)
        wanted = Target.of_strangers(target, gallery.sample_count)
        try:
            sets = sets_of_people(some(faces, rest[::2]), gallery, wanted)
        except UnsupportedTargetError:
            told["refused"] += 1
            continue
        found = calibration_document(sets, wanted, None)
        judged = probes_of_people(some(faces, rest[1::2]), gallery)
        if judged is None:
            raise ValueError("no strangers are left to judge")
        rate = judged[0].rate_at(found["threshold"])
        told[found["target_status"]] += 1
        rates.append(rate)
        thresholds.append(found["threshold"])
        misses.append(found["fnmr"])
        if rate > target:
            broken[found["target_status"]] += 1
    text = f"people {size:5} target {target:<6g} said {dict(told)}"
    if rates:
        text += (
            f"; others reached {np.mean(rates):.4f} on average, {max(rates):.4f} at most; threshold "
            f"{np.mean(thresholds):.3f}, photos missed {np.mean(misses):.3f}; over the target {dict(broken)}"
        )
    return text


def measure_resemblance(faces: PeopleFaces, others: PeopleFaces | None, galleries: int) -> None:
    """Prints how many galleries of each kind are warned of."""
    impostors = impostors_among(faces.vectors, faces.people)
    threshold = everybody_with_everybody(faces.vectors, faces.people, 0.0002).threshold_at(0.0002)
    impostors = impostors.model_copy(update={"threshold": threshold, "at_threshold": 0.0002})
    ends = [(name.split("_")[0].lower(), name.split("_")[-1].lower()) for name in faces.names]
    group = np.array([number for number, (first, last) in enumerate(ends) if {first, last} & set(NAMES.split())])
    kinds: list[tuple[str, PeopleFaces, np.ndarray, tuple[int, ...]]] = []
    kinds.append((f"everybody ({len(faces.names)})", faces, np.arange(len(faces.names)), (15, 25, 50, 200, 1000)))
    kinds.append((f"family names ({len(group)})", faces, group, (15, 25, 50, 100)))
    if others:
        kinds.append((f"other folder ({len(others.names)})", others, np.arange(len(others.names)), (20, 30, 40)))
    for name, source, people, sizes in kinds:
        for size in sizes:
            drawn = [np.random.default_rng(seed).choice(people, size, replace=False) for seed in range(galleries)]
            found = [resemblance_in(gallery_of(source, chosen), threshold, impostors) for chosen in drawn]
            told = [resemblance for resemblance in found if resemblance]
            times = np.quantile([resemblance.at_reference * 100 for resemblance in told], [0, 0.5, 1])
            warned = sum(resemblance.is_high for resemblance in told)
            offered = np.median([resemblance.offered for resemblance in told])
            print(  # noqa: T201
                f"{name}, {size} enrolled: {warned} of {len(told)} warned; at the reference "
                f"{times[0]:.1f}, {times[1]:.1f}, {times[2]:.1f} times as many; threshold {threshold:.3f}, "
                f"offered {offered:.3f}",
                flush=True,
            )


def embedded(options: argparse.Namespace) -> PeopleFaces:
    """The faces of the folder; from the cache, if there is one."""
    cache: Path | None = options.cache
    if cache and cache.exists():
        kept = np.load(cache)
        photos = tuple(Path(path) for path in kept["paths"].tolist())
        return PeopleFaces(kept["vectors"], kept["people"].astype(np.int64), tuple(kept["names"].tolist()), 0, photos)
    networks = Networks(None, options.model, options.models_dir, 20, "auto", "auto")
    faces = networks.embed_people(options.people, "embedding faces")
    if cache:
        np.savez(
            cache, vectors=faces.vectors, people=faces.people, names=np.array(faces.names),
            paths=np.array([str(path) for path in faces.photos]),
        )  # fmt: skip
    return faces


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("people", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--galleries", type=int, default=60)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000])
    parser.add_argument("--targets", type=float, nargs="+", default=[0.1, 0.03, 0.01])
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--resemblance", action="store_true")
    parser.add_argument("--others", type=Path)
    options = parser.parse_args()
    faces = embedded(options)
    if options.resemblance:
        others = None
        if options.others:
            networks = Networks(None, options.model, options.models_dir, 20, "auto", "auto")
            others = networks.embed_people(options.others, "embedding others")
        measure_resemblance(faces, others, options.galleries)
        return
    for size in options.sizes:
        for target in options.targets:
            print(measure_targets(faces, size, target, options.galleries), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
