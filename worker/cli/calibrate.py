"""``facestream calibrate``: the threshold for the false-match rate that a site accepts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.calibration_report import (
    ask_visits,
    counted_visits,
    draw_deciding,
    plot_curves,
    print_result,
    show_stored,
    tell_deciding,
    threshold_without_doubtful,
)
from worker.cli.history import StateDir, open_history
from worker.cli.networks import Networks
from worker.cli.options import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    EngineName,
    GalleryPath,
    MinFacePx,
    ModelName,
    ModelsDir,
    PrecisionName,
    open_gallery,
    quiet_logs,
)
from worker.cli.screen import Document, print_json, progress_bar, say
from worker.errors import ConfigError, GalleryError

if TYPE_CHECKING:
    from worker.evaluation.calibration import Target
    from worker.evaluation.deciding import DecidingPair
    from worker.evaluation.past_probes import PastStrangers
    from worker.evaluation.probes import NonMatedProbes
    from worker.evaluation.promise import CalibrationSet
    from worker.gallery.gallery import Gallery

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
    history: Annotated[
        bool,
        typer.Option("--history", help="Evidence: the people without a name whom the worker has seen on its cameras."),
    ] = False,
    state_dir: StateDir = None,
    camera: Annotated[
        str | None,
        typer.Option("--camera", "--camera-id", metavar="ID", help="Write the threshold for this camera only."),
    ] = None,
    visits_per_day: Annotated[
        float | None,
        typer.Option(
            "--visits-per-day",
            metavar="NUMBER",
            parser=counted_visits,
            help="Strangers who pass a camera in a day, for the false alarms (default: asked at a terminal).",
        ),
    ] = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", metavar="FILE", help="Picture of the pairs of faces that decide the threshold."),
    ] = None,
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

    A target that the data cannot support is refused. Ends with 1 if strangers show that the target is missed.
    """
    quiet_logs()
    if show:
        show_stored(open_gallery(gallery), json_output)
        return 0
    _check(target_fmr, target_fpir, pairs, images, bool(people or strangers or history), camera)
    from worker.config import cache_dir
    from worker.evaluation.calibration import Target
    from worker.evaluation.face_cache import remove_cache
    from worker.evaluation.past_probes import rates_by_camera, set_of_history
    from worker.evaluation.promise import calibration_document
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
    if visits_per_day is None and not history and not json_output:
        # Asked first, so that nobody must come back after the photos have been embedded.
        visits_per_day = ask_visits(camera)
    evidence, deciding = _photos_and_footage(pairs, images, people, strangers, networks, target)
    past = _past_strangers(gallery, state_dir, camera, networks) if history else None
    if past:
        evidence.append(set_of_history(past, target, must_decide=not evidence))
    visits = past.per_camera_and_day if past and visits_per_day is None else visits_per_day
    result = calibration_document(evidence, target, visits, networks.gallery) | {
        "visits_from": "the history" if past and visits_per_day is None else "--visits-per-day",
        "deciding_pairs": [pair.document() for pair in deciding],
        **threshold_without_doubtful(evidence, target, deciding),
        "model_id": networks.gallery.model_id,
        "camera_id": camera or "",
        "calibrated_at": now_rfc3339(),
    }
    result["cameras"] = rates_by_camera(past, result["threshold"])
    tell_deciding(result)
    if sheet:
        draw_deciding(deciding, networks, sheet)
        say(f"written: {sheet}", err=json_output)
    if plot:
        plot_curves(plot, evidence, result)
    if not dry_run:
        _store(networks.gallery, result, camera)
    if json_output:
        print_json(result | {"written": not dry_run})
    else:
        print_result(result, networks.gallery.label, camera, dry_run)
    return 1 if result["target_met"] is False else 0


def _check(
    target_fmr: float | None, target_fpir: float | None, pairs: Path | None, images: Path | None, others: bool,
    camera: str | None,
) -> None:  # fmt: skip
    from worker.config import load_config

    if (target_fmr is None) == (target_fpir is None):
        raise ConfigError("give one of --target-fmr (of one comparison) and --target-fpir (of a stranger)")
    for option, value in (("--target-fmr", target_fmr), ("--target-fpir", target_fpir)):
        if value is not None and not 0 < value < 0.5:
            raise ConfigError(f"{option} is a rate above 0 and below 0.5, not {value:g}")
    if (pairs is None) != (images is None):
        raise ConfigError("--pairs and --images go together: give both")
    if not (pairs or others):
        raise ConfigError(
            "no evidence: give --people DIR, --pairs FILE --images DIR, --strangers VIDEO_OR_FOLDER, or --history"
        )
    if camera is not None:
        load_config(None, {"cameras": [{"id": camera, "source": "0"}]})


def _photos_and_footage(
    pairs: Path | None,
    images: Path | None,
    people: Path | None,
    strangers: "list[Path] | None",
    networks: Networks,
    target: "Target",
) -> "tuple[list[CalibrationSet], list[DecidingPair]]":
    """What the evidence that was named shows, and the pairs of faces that decide."""
    evidence: list[CalibrationSet] = []
    deciding: list[DecidingPair] = []
    if pairs and images:
        evidence.append(_from_pairs(pairs, images, networks, target, deciding))
    if people:
        evidence += _from_people(people, networks, target, deciding)
    if strangers:
        evidence.append(_from_strangers(strangers, networks, target, alone=not evidence))
    return evidence, deciding


def _from_pairs(
    pairs_file: Path, images: Path, networks: Networks, target: "Target", deciding: "list[DecidingPair]"
) -> "CalibrationSet":
    from worker.evaluation.calibration import listed_pairs
    from worker.evaluation.deciding import deciding_listed
    from worker.evaluation.promise import calibration_set
    from worker.evaluation.verification import NO_FACE, find_photos, pair_similarities, read_pairs
    from worker.gallery.resemblance import impostors_in

    pairs = read_pairs(pairs_file)
    photos = find_photos(pairs.photos, images)
    faces = networks.embed(photos, "embedding faces of pairs")
    similarities = pair_similarities(pairs, faces.vectors, faces.found)
    people, _ = pairs.people
    same = (similarities[pairs.same], people[pairs.same])
    scores = listed_pairs(pairs, similarities)
    deciding += deciding_listed(scores, pairs, similarities, photos, same)
    impostors = impostors_in(similarities[~pairs.same & (similarities > NO_FACE)])
    return calibration_set("pairs", scores, target, same, impostors=impostors)


def _from_people(
    folder: Path, networks: Networks, target: "Target", deciding: "list[DecidingPair]"
) -> "list[CalibrationSet]":
    """Everybody with everybody, and everybody with this gallery. Both decide if both can."""
    from worker.evaluation.deciding import deciding_people
    from worker.evaluation.promise import sets_of_people

    faces = networks.embed_people(folder, "embedding faces of people")
    sets = sets_of_people(faces, networks.gallery, target)
    deciding += deciding_people(sets[0].scores, faces, sets[0].mated)
    return sets


def _from_strangers(paths: list[Path], networks: Networks, target: "Target", *, alone: bool) -> "CalibrationSet":
    """``alone``: nothing else decides. Beside other evidence, too few strangers still show which rate is reached."""
    from worker.config import load_config
    from worker.evaluation.false_matches import strangers_against_gallery
    from worker.evaluation.probes import non_mated_probes
    from worker.evaluation.promise import calibration_set

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
    scores = strangers_against_gallery(visits.similarities, visits.people)
    who = "people not enrolled, against this gallery"
    return calibration_set("strangers", scores, target, who=who, must_decide=alone)


def _past_strangers(gallery: str, state_dir: Path | None, camera: str | None, networks: Networks) -> "PastStrangers":
    """The sightings without a name in the history beside the gallery; of one camera if it is named."""
    from worker.config import load_config
    from worker.evaluation.past_probes import past_strangers

    if not networks.gallery.sample_count:
        raise GalleryError("--history is compared with the gallery, and it is empty: enroll people first")
    config = load_config(None, {"gallery": gallery} | ({"state_dir": state_dir} if state_dir else {}))
    with open_history(config, "calibrate") as kept:
        return past_strangers(kept.sightings(camera_id=camera), networks.gallery)


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
