"""``facestream models``: which networks there are, and their weights."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from worker.cli.options import AsJson, ModelsDir, command_group, open_embedder, photo_detector, quiet_logs
from worker.cli.screen import fit, print_json, progress_bar, say, say_lines, screen_width
from worker.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from worker.faces.embedding import FaceEmbedder
    from worker.faces.standin import Proof
    from worker.faces.weights import WeightSet


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    group = command_group(app, "models", "List the models, pull their weights, check them.")
    group.command("list")(list_models)
    group.command("pull")(pull_model)
    group.command("quantize")(quantize_model)
    group.command("check")(check_models)


def list_models(models_dir: ModelsDir = None, json_output: AsJson = False) -> None:
    """The models, and whether their weights are here."""
    from worker.faces.manifests import Manifest, list_weights

    quiet_logs()
    width = screen_width()
    for manifest in list_weights():
        state = _weights_state(manifest, models_dir)
        embedder = manifest if isinstance(manifest, Manifest) else None
        if json_output:
            print_json(
                {
                    "model_id": manifest.id,
                    "description": manifest.description,
                    "kind": "embedder" if embedder else "detector",
                    "dimension": embedder.dimension if embedder else None,
                    "threshold": embedder.threshold if embedder else None,
                    "licence": manifest.licence,
                    "weights": state,
                }
            )
        else:
            say_lines(fit([f"{manifest.id:<36}", f"weights {state:<8}", manifest.description], width))


def pull_model(model: Annotated[str, typer.Argument(help="Model or detector id, or path of a manifest.")]) -> None:
    """Fetch the weights of a model: resumed where it stopped, checked against the digest."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

    from worker.faces import weights
    from worker.faces.manifests import load_weight_set

    quiet_logs()
    manifest = load_weight_set(model)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int | None) -> None:
            task = tasks.get(name)
            if task is None:
                task = tasks[name] = bars.add_task(name, total=total)
            bars.update(task, completed=done, total=total)

        files = weights.pull(manifest, _cache_dir(), progress)
    for path in files.values():
        say(str(path))


def quantize_model(
    photos: Annotated[list[Path], typer.Argument(help="Photos of many people, or folders of them: 64 faces or more.")],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="DIR", help="Folder for a new model and its manifest.")
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", help="Pairs of photos (as for evaluate): show that INT8 may stand in for the model."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="The folder of the photos that --pairs names.")
    ] = None,
    model: Annotated[str, typer.Option("--model", metavar="ID_OR_MANIFEST", help="The model.")] = "vggface2-resnet50",
    models_dir: ModelsDir = None,
    json_output: AsJson = False,
) -> int:
    """Make an INT8 version of a model: faster.

    With --output it is a model of its own, to be evaluated and calibrated before use. With --pairs and --images it
    stands in for the model itself, with the galleries and thresholds that exist, if at most 0.1 point of accuracy is
    lost: --precision auto takes it then, on processors of this kind that do not compute in BF16.
    """
    from worker.training import quantization
    from worker.video.photos import list_photos

    quiet_logs()
    stands_in = pairs is not None and images is not None and output is None
    if not stands_in and (output is None or pairs or images):
        raise ConfigError(
            "give --output DIR for a model of its own, or --pairs FILE and --images DIR to let INT8 stand in for it"
        )
    embedder = open_embedder(model, models_dir, engine="openvino", precision="fp32")
    paths = [path for given in photos for path in list_photos(given)]
    folders: dict[str, Any] = {"models_dir": _models_dir(models_dir), "cache_dir": _cache_dir()}
    if output is not None:
        manifest = quantization.quantize_model(embedder, photo_detector(), paths, output, **folders)
        if json_output:
            print_json({"manifest": str(manifest)})
        else:
            say(f"{manifest}")
        return 0
    with TemporaryDirectory() as scratch:
        manifest = quantization.quantize_model(embedder, photo_detector(), paths, Path(scratch), **folders)
        proof = _prove(embedder, manifest, cast(Path, pairs), cast(Path, images))
    if json_output:
        print_json(proof.model_dump() | {"lost": round(proof.lost, 6), "admitted": proof.holds})
    else:
        for line in _told(proof):
            say(line)
    return 0 if proof.holds else 1


def _prove(embedder: "FaceEmbedder", manifest: Path, pairs_file: Path, images: Path) -> "Proof":
    """Measures the INT8 model of ``manifest`` beside ``embedder`` on pairs, and admits it if it holds."""
    from worker.evaluation.probes import embed_photos
    from worker.evaluation.verification import find_photos, read_pairs, substitution_accuracies
    from worker.faces.standin import admit

    pairs = read_pairs(pairs_file)
    files = find_photos(pairs.photos, images)
    detector = photo_detector()
    reduced = open_embedder(str(manifest), None, engine="openvino", precision="fp32")
    with progress_bar("comparing", 2 * len(files)) as advance:
        before, after = (embed_photos(files, detector, each, advance=advance) for each in (embedder, reduced))
    rates = substitution_accuracies(pairs, before.vectors, after.vectors, before.found & after.found)
    return admit(embedder.manifest, manifest.with_suffix(".xml"), rates, len(pairs), _cache_dir())


def _told(proof: "Proof") -> tuple[str, str]:
    from worker.faces.standin import FEWEST_PAIRS, MOST_LOST

    measured = (
        f"accuracy on {proof.pairs:,} pairs: {proof.accuracy:.2%}; in INT8 {proof.accuracy_int8:.2%}; one vector of "
        f"each pair in INT8 {proof.accuracy_mixed:.2%}"
    )
    if proof.holds:
        return measured, f"admitted: --precision auto takes INT8 for {proof.model_id} on this kind of processor"
    if proof.pairs < FEWEST_PAIRS:
        return measured, f"not admitted: at least {FEWEST_PAIRS:,} pairs are needed to see a loss of 0.1 point"
    return measured, f"not admitted: {proof.lost * 100:.2f} points are lost, {MOST_LOST * 100:.1f} are allowed"


def check_models(
    models: Annotated[list[str] | None, typer.Argument(help="Model ids or manifests (default: all).")] = None,
    models_dir: ModelsDir = None,
    parity: Annotated[
        bool, typer.Option("--parity", help="Compare our network with keras-vggface itself (needs the extra 'parity').")
    ] = False,
    json_output: AsJson = False,
) -> int:
    """Check the weights that are here against their digests; --parity compares networks with their originals."""
    if parity:
        return _check_parity(models or ["vggface2-resnet50"], json_output)
    from worker.faces.manifests import list_weights, load_weight_set
    from worker.faces.weights import find_weights

    quiet_logs()
    failed = 0
    for manifest in [load_weight_set(name) for name in models] if models else list_weights():
        try:
            find_weights(manifest, _models_dir(models_dir), _cache_dir())
        except ModelError as error:
            # Weights that were never fetched are a fault only if they were asked for by name.
            failed += bool(models) or "digest" in str(error)
            result = {"model_id": manifest.id, "ok": False, "problem": str(error)}
        else:
            result = {"model_id": manifest.id, "ok": True, "problem": ""}
        if json_output:
            print_json(result)
        else:
            say(f"{manifest.id}: {'weights intact' if result['ok'] else result['problem']}")
    return 1 if failed else 0


def _check_parity(models: list[str], json_output: bool) -> int:
    from worker.faces.networks.parity import check_parity

    quiet_logs()
    failed = 0
    for model in models:
        report = check_parity(model)
        failed += not report.ok
        if json_output:
            print_json(report.as_dict())
        else:
            say(f"{model}: {report}")
    return 1 if failed else 0


def _weights_state(manifest: "WeightSet", models_dir: Path | None) -> str:
    from worker.faces.weights import find_weights

    try:
        find_weights(manifest, _models_dir(models_dir), _cache_dir())
    except ModelError:
        return "missing"
    return "present"


def _models_dir(given: Path | None) -> Path | None:
    from worker.config import models_dir

    return given or models_dir()


def _cache_dir() -> Path:
    from worker.config import cache_dir

    return cache_dir()
