"""What ``facestream calibrate`` asks, and what it says about a threshold: in words, as a plot, and in pictures of the
deciding pairs."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.networks import Networks
from worker.cli.screen import Document, count_of, print_json, say
from worker.errors import ConfigError

if TYPE_CHECKING:
    from worker.evaluation.calibration import Target
    from worker.evaluation.deciding import DecidingPair
    from worker.evaluation.promise import CalibrationSet
    from worker.gallery.gallery import Gallery

_MANY_MISSED = 0.1
_TOLD_PAIRS = 3


def ask_visits(camera: str | None) -> float | None:
    """How many strangers pass a camera in a day, from the person at the terminal; None if they do not know.

    Nobody is asked unless both standard input and standard error are a terminal: a script must not wait for ever.
    """
    if not (sys.stdin and sys.stdin.isatty() and sys.stderr and sys.stderr.isatty()):
        return None
    which = f"camera {camera}" if camera else "a camera"
    say(f"How many strangers pass {which} in a day? From it follow the false alarms a day.", err=True)
    while True:
        sys.stderr.write("Strangers a day (Enter: not known): ")
        sys.stderr.flush()
        answer = sys.stdin.readline().strip()
        if not answer:
            return None
        try:
            return counted_visits(answer)
        except ConfigError as error:
            say(str(error), err=True)


def counted_visits(text: str) -> float:
    """The number of strangers a day that ``text`` gives.

    Raises:
        ConfigError: it is not a number, below 0, or without end.
    """
    try:
        visits = float(text)
    except ValueError:
        visits = math.nan
    if not 0 <= visits < math.inf:
        raise ConfigError(f"--visits-per-day: {text!r} is not a number from 0 up; write it like 400 or 12.5")
    return visits


def show_stored(gallery: "Gallery", as_json: bool) -> None:
    """Prints the thresholds that ``gallery`` keeps."""
    kept = {
        "threshold": gallery.threshold,
        "camera_thresholds": gallery.camera_thresholds,
        "calibration": gallery.calibration,
    }
    if as_json:
        print_json(kept)
        return
    documents = {"": gallery.calibration.get("default", {})} | gallery.calibration.get("cameras", {})
    for camera, threshold in {"": gallery.threshold, **gallery.camera_thresholds}.items():
        made = documents.get(camera, {})
        which = f"camera {camera}" if camera else "all other cameras" if gallery.camera_thresholds else "all cameras"
        if threshold is None:
            say(f"{which}: the model's threshold; not calibrated")
        else:
            origin = f" (by {made['decided_by']}, fpir {made['fpir']:.3g}, {made['calibrated_at']})" if made else ""
            say(f"{which}: {threshold:.4f}{origin}")


def threshold_without_doubtful(
    evidence: "Sequence[CalibrationSet]", target: "Target", deciding: "Sequence[DecidingPair]"
) -> Document:
    """What the threshold would be if the pairs that look like one person were left out; None if there are none."""
    from worker.evaluation.deciding import threshold_without

    compared = next((found for found in evidence if not found.scores.of_strangers), None)
    without = threshold_without(compared.scores, target.fmr, deciding) if compared else None
    return {"threshold_without_doubtful_pairs": None if without is None else round(without, 6)}


def tell_deciding(result: Document) -> None:
    """Names the pairs of the evidence that decide, on standard error, before anything is written."""
    doubtful = [pair for pair in result["deciding_pairs"] if pair["looks_like_one_person"]]
    shown = doubtful or [pair for pair in result["deciding_pairs"] if pair["similarity"] >= result["threshold"]]
    for pair in shown[: max(_TOLD_PAIRS, len(doubtful))]:
        first, second = (
            f"{name} ({Path(photo).name})" if photo else name
            for name, photo in zip(pair["names"], pair["photos"], strict=True)
        )
        doubt = (
            "as similar as one person: if they are one, put the photos under one name" if doubtful else "they decide"
        )
        say(f"facestream: {first} and {second}, cosine {pair['similarity']:.3f}: {doubt}", err=True)
    without = result["threshold_without_doubtful_pairs"]
    if doubtful and without is not None:
        say(
            f"facestream: without {count_of(len(doubtful), 'such pair')} the people allow {without:.4f}; "
            "--sheet FILE.png shows them",
            err=True,
        )


def draw_deciding(deciding: "Sequence[DecidingPair]", networks: Networks, sheet: Path) -> None:
    """Draws the faces of each pair side by side, the most similar pair first."""
    from worker.faces.detection import only_central
    from worker.gallery.crops import cut_crop
    from worker.video.drawing import Tile, contact_sheet
    from worker.video.photos import read_photo

    tiles: list[Tile] = []
    for pair in deciding:
        for name, photo in zip(pair.names, pair.photos, strict=True):
            if photo is not None:
                image = read_photo(photo)
                face = only_central(networks.photo_detector.detect([image])[0], image)
                caption = f"{pair.similarity:.2f} {name}"
                picture = cut_crop(image, face).image if len(face) else image
                tiles.append(Tile(picture, caption, "rejected" if pair.looks_like_one else None))
    contact_sheet(tiles, sheet, title="The most similar faces with different names", columns=2)


def plot_curves(path: Path, evidence: "Sequence[CalibrationSet]", result: Document) -> None:
    """Draws the rates of the evidence that decided against the threshold."""
    import numpy as np

    from worker.evaluation.plots import plot_calibration

    decisive = next(
        found
        for found in evidence
        if found.threshold is not None and round(found.threshold.value, 6) == result["threshold"]
    )
    asked = result[f"target_{'fpir' if decisive.scores.of_strangers else 'fmr'}"]
    scores = decisive.scores
    curves = [("FPIR" if scores.of_strangers else "FMR", scores.similarities, scores.rates)]
    same = np.sort(next((found.mated[0] for found in evidence if len(found.mated[0])), np.empty(0)))
    if len(same):
        curves.append(("FNMR", same, np.arange(len(same)) / len(same)))
    plot_calibration(
        curves,
        title=f"Calibration of {result['model_id']}",
        target=asked,
        threshold=result["threshold"],
        interval=tuple(result["threshold_interval_95"]),
        path=path,
    )


def print_result(result: Document, gallery: str, camera: str | None, dry_run: bool) -> None:
    """Prints the document of a calibration in words."""
    low, high = result["threshold_interval_95"]
    say(f"threshold {result['threshold']:.4f} (the one with exactly the target lies in {low:.4f} to {high:.4f}, 95 %)")
    say(_promise_line(result))
    for name, what in (
        ("fmr", "false-match rate of one comparison"),
        ("fpir", "strangers who match somebody"),
        ("fnmr", "photos of one person that do not match"),
        ("false_alarms_per_camera_and_day", "false alarms per camera and day"),
    ):
        if result[name] is not None:
            low, high = result[f"{name}_interval_95"]
            say(f"{what}: {result[name]:.3g} (with a new group of the same size: {low:.3g} to {high:.3g}, 95 %)")
    if result["fnmr"] and result["fnmr"] > _MANY_MISSED:
        say(f"so strict a threshold misses {result['fnmr']:.0%} of the photos of known people: ask for less")
    say(f"strangers judged from {result['fpir_from']}; {_visits(result)}")
    if samples := result["enrolled_samples"]:
        from worker.evaluation.calibration import one_to_many

        doubled = one_to_many(result["fpir"], 2)
        say(f"this holds for a gallery of {samples:,} faces; calibrate again after it has grown")
        say(f"with twice as many faces, up to {doubled:.2g} of all strangers would match somebody")
    for found in result["evidence"]:
        say(_evidence_line(found))
    for camera_id, seen in result.get("cameras", {}).items():
        rate = "too few to tell" if seen["fpir"] is None else f"{seen['fpir']:.3g} of them reach the threshold"
        say(f"camera {camera_id}: {seen['sightings']} sightings without a name; {rate}")
    if result["resemblance"] and result["resemblance"]["warning"]:
        say(f"WARNING: {result['resemblance']['warning']}")
    where = f"camera {camera} in {gallery}" if camera else gallery
    say("not written (--dry-run)" if dry_run else f"written to {where}")


def _promise_line(result: Document) -> str:
    asked = result[f"target_{result['target_asked']}"]
    what = "of the strangers" if result["target_asked"] == "fpir" else "of the comparisons of different people"
    seen = (
        f"asked {asked:.3g} {what}, reached {result['reached']:.3g} "
        f"(at most {result['reached_at_most_95']:.3g} with 95 % certainty; {result['reached_from']})"
    )
    return {
        "kept": f"target kept: {seen}. This {_for_whom(result)}",
        "not_certain": f"target not certain: {seen}; {result['to_reach']}. This {_for_whom(result)}",
        "missed": f"TARGET MISSED: {seen}; {result['to_reach']}",
        "not_measured": f"target not measured for this gallery: {seen}; {result['to_reach']}",
    }[result["target_status"]]


def _for_whom(result: Document) -> str:
    return f"holds for {result['holds_for']}"


def _visits(result: Document) -> str:
    if (visits := result["visits_per_day"]) is None:
        return "give --visits-per-day to see false alarms a day"
    return f"{visits:.3g} strangers a day" + (" (from the history)" if result["visits_from"] == "the history" else "")


def _evidence_line(found: Document) -> str:
    what = "against this gallery" if found["rate"] == "fpir" else "with each other"
    start = f"evidence from {found['source']} {what}: {found['people']} people"
    if not found["decides"]:
        return f"{start}; it does not decide" + (f": {found['shortage']}" if found["shortage"] else "")
    return (
        f"{start}, equal to {found['effective_comparisons']:,} independent comparisons; "
        f"threshold from this evidence: {found['threshold']:.4f}"
    )
