"""``facestream evaluate``: how well faces are verified, people identified, and visits to a camera recognised."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.networks import Networks
from worker.cli.options import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    DetectorName,
    EngineName,
    MinFacePx,
    ModelName,
    ModelsDir,
    PrecisionName,
    SameThreshold,
    quiet_logs,
)
from worker.cli.screen import Document, people_of, print_json, progress_bar, say
from worker.errors import ConfigError
from worker.files import writing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from worker.evaluation.verification import Pairs
    from worker.types import Event


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("evaluate")(evaluate)


def evaluate(
    pairs: Annotated[
        Path | None, typer.Option("--pairs", help="Verification: labelled pairs in the format of LFW.")
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of their images: Name/Name_0001.jpg.")] = None,
    threshold_from: Annotated[
        Path | None, typer.Option("--threshold-from", metavar="PAIRS", help="Pairs on which the threshold is fitted.")
    ] = None,
    people: Annotated[
        Path | None, typer.Option("--people", help="Open-set identification: a folder of one folder per person.")
    ] = None,
    probes: Annotated[
        Path | None,
        typer.Option("--probes", help="Photos to identify, by person (default: each of --people, left out in turn)."),
    ] = None,
    video: Annotated[
        Path | None, typer.Option("--video", help="A clip, which goes through the worker's own pipeline.")
    ] = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="Who is in the clip, when and where (JSON).")] = None,
    gallery: Annotated[
        str | None,
        typer.Option("--gallery", metavar="PATH", help="Who is known in --video; gives model and threshold too."),
    ] = None,
    model: ModelName = None,
    models_dir: ModelsDir = None,
    threshold: SameThreshold = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    precision: PrecisionName = "auto",
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Write the curve as a PNG.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Write result and curve to this folder.")
    ] = None,
    json_output: AsJson = False,
) -> int:
    """Measure accuracy on labelled data: pairs of photos, folders of people, or a clip with known answers."""
    quiet_logs()
    _require_one_task({"--pairs": pairs, "--people": people, "--video": video})
    _require_beside("--pairs", pairs, {"--images": images})
    _require_beside("--video", video, {"--truth": truth, "--gallery": gallery})
    _refuse_without("--pairs", pairs, {"--images": images, "--threshold-from": threshold_from})
    _refuse_without("--people", people, {"--probes": probes})
    _refuse_without("--video", video, {"--truth": truth})
    if threshold is not None and threshold_from is not None:
        raise ConfigError("--threshold and --threshold-from exclude each other: give one")
    networks = Networks(gallery, model, models_dir, min_face_px, engine, precision, detector)
    curve = plot or (output / "curve.png" if output else None)
    if pairs and images:
        result = _verify(pairs, images, threshold_from, threshold, networks, curve)
    elif people:
        result = _identify(people, probes, networks, curve)
    elif video and truth:
        if plot:
            raise ConfigError("--plot draws no curve for --video: leave it out")
        result, curve = _replay(video, truth, threshold, networks, detector), None
    result["model_id"] = networks.embedder.model_id
    if output:
        _write(output / "evaluation.json", result)
    if json_output:
        print_json(result)
    else:
        _print(result)
        for path in filter(None, (curve, output and output / "evaluation.json")):
            say(f"written: {path}")
    return 0


def _verify(
    pairs_file: Path, images: Path, threshold_from: Path | None, threshold: float | None, networks: Networks,
    curve: Path | None,
) -> Document:  # fmt: skip
    from worker.evaluation.verification import (
        accuracy_document,
        find_photos,
        fit_threshold,
        pair_similarities,
        read_pairs,
        verify_at,
        verify_in_folds,
    )

    pairs = read_pairs(pairs_file)
    fitting = read_pairs(threshold_from) if threshold_from else None
    keys = list(dict.fromkeys([*pairs.photos, *(fitting.photos if fitting else ())]))
    faces = networks.embed(find_photos(keys, images), "embedding faces")
    row = {key: number for number, key in enumerate(keys)}

    def similarities(of: "Pairs") -> "NDArray[np.float64]":
        rows = [row[photo] for photo in of.photos]
        return pair_similarities(of, faces.vectors[rows], faces.found[rows])

    scores = similarities(pairs)
    if threshold is not None:
        result = verify_at(pairs, scores, threshold, "--threshold")
    elif fitting:
        fitted = fit_threshold(similarities(fitting), fitting.same)
        result = verify_at(pairs, scores, fitted, f"fitted on {threshold_from.name}" if threshold_from else "")
    elif pairs.fold_count > 1:
        result = verify_in_folds(pairs, scores)
    else:
        result = verify_at(pairs, scores, *networks.own_threshold())
    if curve:
        from worker.evaluation.plots import plot_roc

        impostors = int((~pairs.same).sum())
        label = f"accuracy {result.accuracy:.2%} ± {result.accuracy_sem:.2%}, AUC {result.roc.auc:.4f}"
        title = f"{networks.embedder.model_id} on {pairs_file.name}"
        plot_roc(result.roc.far, result.roc.tar, title=title, label=label, impostors=impostors, path=curve)
    failed = int((~faces.found[[row[photo] for photo in pairs.photos]]).sum())
    return accuracy_document(result, pairs) | {"images": len(pairs.photos), "failed_images": failed}


def _identify(people: Path, probes: Path | None, networks: Networks, curve: Path | None) -> Document:
    from worker.evaluation.open_set import det_curve, identification_document, search_left_out, search_probes

    gallery = networks.embed_people(people, "embedding the gallery")
    if probes:
        probed = networks.embed_people(probes, "embedding probes")
        searches, failed = search_probes(gallery, probed), gallery.failed + probed.failed
    else:
        searches, failed = search_left_out(gallery), gallery.failed
    result = identification_document(searches) | {"failed_images": failed}
    if curve:
        from worker.evaluation.plots import plot_det

        found, strangers = det_curve(searches), len(searches.strangers)
        label = f"{people_of(searches.enrolled_people)} enrolled, rank 1 {result['rank_1']:.2%}"
        title = f"{networks.embedder.model_id} on {people.name}"
        plot_det(found.fpir, found.fnir, title=title, label=label, strangers=strangers, path=curve)
    return result


def _replay(
    video: Path, truth_file: Path, threshold: float | None, networks: Networks, detector: str | None
) -> Document:
    from worker.config import load_config
    from worker.evaluation.recordings import frame_count, judge, read_ground_truth, replay

    truth = read_ground_truth(truth_file)
    frames = frame_count(video)
    source = "--threshold"
    if threshold is None:
        threshold, source = networks.own_threshold()
    config = load_config(
        None,
        {
            "cameras": [{"id": "evaluation", "source": str(video), "policy": "every"}],
            "recognition": {"threshold": threshold},
            "detection": {} if detector is None else {"detector": detector},
        },
    )
    events: list[Event] = []
    embedder, searcher = networks.embedder, networks.detector(config.detection)
    with progress_bar("frames", frames) as advance:
        read = replay(config, searcher, embedder, networks.gallery, on_event=events.append, advance=advance)
    return judge(truth, events) | {"frames": read, "threshold": threshold, "threshold_source": source}


def _require_one_task(tasks: dict[str, Path | None]) -> None:
    if sum(value is not None for value in tasks.values()) != 1:
        raise ConfigError(f"give one of {', '.join(tasks)}: what to evaluate")


def _require_beside(option: str, value: Path | None, others: dict[str, object]) -> None:
    missing = [name for name, other in others.items() if other is None]
    if value is not None and missing:
        raise ConfigError(f"{option} needs {' and '.join(missing)}")


def _refuse_without(option: str, value: Path | None, others: dict[str, object]) -> None:
    given = [name for name, other in others.items() if other is not None]
    if value is None and given:
        raise ConfigError(f"{given[0]} goes with {option}: give both")


def _write(path: Path, result: Document) -> None:
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


_WORDS = {
    "rank_1": "nearest is the right person",
    "fnir_at_fpir": "share of known people who are missed, if this share of strangers is given a name",
    "threshold_at_fpir": "threshold at which this share of strangers is given a name",
    "tar_at_far": "share of same people accepted, if this share of different people is accepted",
}


def _print(result: Document) -> None:
    """Prints a line for each value; a nested document takes one line."""
    for name, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
        say(f"{_WORDS.get(name, name.replace('_', ' ')):<26} {_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)
