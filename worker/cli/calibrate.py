"""``facestream calibrate``: the threshold for the false-match rate that a site accepts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.networks import Networks
from worker.cli.options import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    Document,
    EngineName,
    GalleryPath,
    MinFacePx,
    ModelName,
    ModelsDir,
    PrecisionName,
    open_gallery,
    print_json,
    progress_bar,
    quiet_logs,
    say,
)
from worker.errors import ConfigError, GalleryError

if TYPE_CHECKING:
    from worker.evaluation.calibration import CalibrationSet, Target
    from worker.evaluation.probes import NonMatedProbes
    from worker.gallery.gallery import Gallery

DEFAULT_VISITS_PER_DAY = 1000.0
_SUSPECTS = 5


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("calibrate")(calibrate)


def calibrate(
    gallery: GalleryPath,
    target_fmr: Annotated[
        float | None,
        typer.Option("--target-fmr", help="False-match rate of one comparison: a face with one enrolled face."),
    ] = None,
    target_fpir: Annotated[
        float | None, typer.Option("--target-fpir", help="Share of strangers who may be given a name.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option("--pairs", help="Evidence: labelled pairs (with --images).")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of their images: Name/Name_0001.jpg.")] = None,
    people: Annotated[
        Path | None, typer.Option("--people", help="Evidence: a folder of one folder per person.")
    ] = None,
    strangers: Annotated[
        list[Path] | None,
        typer.Option(
            "--strangers",
            metavar="VIDEO_OR_FOLDER",
            help="Evidence: the site's own footage, or photos, of people who are not enrolled; repeatable.",
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option("--camera", "--camera-id", metavar="ID", help="Write the threshold for this camera only."),
    ] = None,
    visits_per_day: Annotated[
        float, typer.Option("--visits-per-day", min=0, help="Strangers who pass a camera in a day.")
    ] = DEFAULT_VISITS_PER_DAY,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Do not write to the gallery.")] = False,
    model: ModelName = None,
    models_dir: ModelsDir = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    engine: EngineName = "auto",
    precision: PrecisionName = "auto",
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Write the curves as a PNG.")] = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache",
            help="Embed every photo anew, keep no face for the next run, and delete those of earlier runs.",
        ),
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Only print the thresholds that the gallery keeps.")] = False,
    json_output: AsJson = False,
) -> int:
    """Find the threshold for a target false-match rate, with its confidence interval, and write it to the gallery.

    A target that the data cannot support is refused.
    """
    quiet_logs()
    if show:
        _show(open_gallery(gallery), json_output)
        return 0
    _check(target_fmr, target_fpir, pairs, images, people, strangers, camera)
    from worker.config import cache_dir
    from worker.evaluation.calibration import Target, calibration_document
    from worker.evaluation.face_cache import remove_cache
    from worker.wire import now_rfc3339

    if no_cache:
        remove_cache(cache_dir())
    networks = Networks(gallery, model, models_dir, min_face_px, engine, precision, remember_faces=not no_cache)
    samples = networks.gallery.sample_count
    target = (
        Target.of_comparisons(target_fmr, samples)
        if target_fmr is not None
        else Target.of_strangers(target_fpir or 0.0, samples)
    )
    evidence: list[CalibrationSet] = []
    if pairs and images:
        evidence.append(_from_pairs(pairs, images, networks, target))
    if people:
        evidence.append(_from_people(people, networks, target))
    if strangers:
        evidence.append(_from_strangers(strangers, networks, target))
    result = calibration_document(evidence, target, visits_per_day) | {
        "model_id": networks.embedder.model_id,
        "camera_id": camera or "",
        "calibrated_at": now_rfc3339(),
    }
    if plot:
        _plot(plot, evidence, result)
    if not dry_run:
        _store(networks.gallery, result, camera)
    if json_output:
        print_json(result | {"written": not dry_run})
    else:
        _print(result, networks.gallery.label, camera, dry_run)
    return 0


def _check(
    target_fmr: float | None, target_fpir: float | None, pairs: Path | None, images: Path | None, people: Path | None,
    strangers: list[Path] | None, camera: str | None,
) -> None:  # fmt: skip
    from worker.config import load_config

    if (target_fmr is None) == (target_fpir is None):
        raise ConfigError("give one of --target-fmr (of one comparison) and --target-fpir (of a stranger)")
    for option, value in (("--target-fmr", target_fmr), ("--target-fpir", target_fpir)):
        if value is not None and not 0 < value < 0.5:
            raise ConfigError(f"{option} is a rate above 0 and below 0.5, not {value:g}")
    if (pairs is None) != (images is None):
        raise ConfigError("--pairs and --images go together: give both")
    if not (pairs or people or strangers):
        raise ConfigError("no evidence: give --people DIR, --pairs FILE --images DIR, or --strangers VIDEO_OR_FOLDER")
    if camera is not None:
        load_config(None, {"cameras": [{"id": camera, "source": "0"}]})


def _from_pairs(pairs_file: Path, images: Path, networks: Networks, target: "Target") -> "CalibrationSet":
    from worker.evaluation.calibration import calibration_set, listed_pairs
    from worker.evaluation.verification import find_photos, pair_similarities, read_pairs

    pairs = read_pairs(pairs_file)
    faces = networks.embed(find_photos(pairs.photos, images), "embedding faces of pairs")
    similarities = pair_similarities(pairs, faces.vectors, faces.found)
    people, _ = pairs.people
    same = (similarities[pairs.same], people[pairs.same])
    return calibration_set("pairs", listed_pairs(pairs, similarities), target, same)


def _from_people(folder: Path, networks: Networks, target: "Target") -> "CalibrationSet":
    import numpy as np

    from worker.evaluation.calibration import calibration_set, same_person_similarities
    from worker.evaluation.false_matches import everybody_with_everybody, strangers_against_gallery
    from worker.types import Embeddings

    faces = networks.embed_people(folder, "embedding faces of people")
    scores = everybody_with_everybody(faces.vectors, faces.people, target.fmr)
    enrolled = {person.name for person in networks.gallery.people()}
    apart = np.array([name not in enrolled for name in faces.names])[faces.people]
    against = None
    if apart.any():
        found = networks.gallery.search(Embeddings(faces.vectors[apart], networks.embedder.model_id))
        _, people = np.unique(faces.people[apart], return_inverse=True)
        against = strangers_against_gallery(np.array([candidate.similarity for candidate in found]), people)
    return calibration_set("people", scores, target, same_person_similarities(faces.vectors, faces.people), against)


def _from_strangers(paths: list[Path], networks: Networks, target: "Target") -> "CalibrationSet":
    from worker.config import load_config
    from worker.evaluation.calibration import calibration_set
    from worker.evaluation.false_matches import strangers_against_gallery
    from worker.evaluation.probes import non_mated_probes

    if not networks.gallery.sample_count:
        raise GalleryError("--strangers are compared with the gallery, and it is empty: enroll people first")
    threshold, _ = networks.own_threshold()
    detector, embedder = networks.detector(load_config(None, {}).detection), networks.embedder
    with progress_bar("footage of strangers") as advance:
        visits = non_mated_probes(
            paths, networks.gallery, networks.photo_detector, detector, embedder, threshold=threshold,
            advance=lambda _done: advance(1), cache=networks.face_cache,
        )  # fmt: skip
    _name_suspects(visits, threshold)
    return calibration_set("strangers", strangers_against_gallery(visits.similarities, visits.people), target)


def _name_suspects(visits: "NonMatedProbes", threshold: float) -> None:
    """Names the strangers who may be enrolled people: such a person spoils the calibration."""
    order = [row for row in (-visits.similarities).argsort()[:_SUSPECTS] if visits.similarities[row] >= threshold]
    for row in order:
        say(
            f"facestream: {visits.places[row]} looks like {visits.nearest[row]} "
            f"(cosine {visits.similarities[row]:.3f}): if that is right, leave it out",
            err=True,
        )


def _store(gallery: "Gallery", result: Document, camera: str | None) -> None:
    cameras, calibration = gallery.camera_thresholds, gallery.calibration
    default = gallery.threshold
    if camera:
        cameras[camera] = result["threshold"]
        calibration["cameras"] = {**calibration.get("cameras", {}), camera: result}
    else:
        default = result["threshold"]
        calibration["default"] = result
    gallery.set_thresholds(default, cameras, calibration)


def _show(gallery: "Gallery", as_json: bool) -> None:
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


def _plot(path: Path, evidence: "list[CalibrationSet]", result: Document) -> None:
    import numpy as np

    from worker.evaluation.plots import plot_calibration

    decisive = next(found for found in evidence if found.source == result["decided_by"])
    scores = decisive.scores
    curves = [("FPIR" if scores.of_strangers else "FMR", scores.similarities, scores.rates)]
    same = np.sort(decisive.mated[0])
    if len(same):
        curves.append(("FNMR", same, np.arange(len(same)) / len(same)))
    plot_calibration(
        curves,
        title=f"Calibration of {result['model_id']}",
        target=decisive.threshold.target,
        threshold=result["threshold"],
        interval=tuple(result["threshold_interval_95"]),
        path=path,
    )


def _print(result: Document, gallery: str, camera: str | None, dry_run: bool) -> None:
    from worker.evaluation.calibration import one_to_many

    low, high = result["threshold_interval_95"]
    say(f"threshold {result['threshold']:.4f} (95 % confidence: {low:.4f} to {high:.4f})")
    for name, what in (
        ("fmr", "false-match rate of one comparison"),
        ("fpir", "strangers who match somebody"),
        ("fnmr", "photos of one person that do not match"),
        ("false_alarms_per_camera_and_day", "false alarms per camera and day"),
    ):
        if result[name] is not None:
            low, high = result[f"{name}_interval_95"]
            say(f"{what}: {result[name]:.3g} (with a new group of the same size: {low:.3g} to {high:.3g}, 95 %)")
    say(f"strangers judged from {result['fpir_from']}; {result['visits_per_day']:g} strangers a day assumed")
    if samples := result["enrolled_samples"]:
        doubled = one_to_many(result["fpir"], 2)
        say(f"this holds for a gallery of {samples:,} faces; calibrate again after it has grown")
        say(f"with twice as many faces, up to {doubled:.2g} of all strangers would match somebody")
    for found in result["evidence"]:
        say(
            f"evidence from {found['source']}: {found['people']} people, equal to {found['effective_comparisons']:,} "
            f"independent comparisons; threshold from this evidence: {found['threshold']:.4f}"
        )
    where = f"camera {camera} in {gallery}" if camera else gallery
    say("not written (--dry-run)" if dry_run else f"written to {where}")
