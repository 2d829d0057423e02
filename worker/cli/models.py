"""``facestream models``: which networks there are, and their weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.options import (
    AsJson,
    ModelsDir,
    command_group,
    open_embedder,
    photo_detector,
    print_json,
    quiet_logs,
    say,
)
from worker.errors import ModelError

if TYPE_CHECKING:
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
            say(f"{manifest.id:<36}  weights {state:<8}  {manifest.description}")


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
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for the new model and its manifest.")],
    model: Annotated[str, typer.Option("--model", metavar="ID_OR_MANIFEST", help="The model.")] = "vggface2-resnet50",
    models_dir: ModelsDir = None,
) -> None:
    """Make an INT8 version of a model: faster, a model of its own, to be evaluated and calibrated before use."""
    from worker.training import quantization
    from worker.video.photos import list_photos

    quiet_logs()
    embedder = open_embedder(model, models_dir, engine="openvino", precision="fp32")
    paths = [path for given in photos for path in list_photos(given)]
    manifest = quantization.quantize_model(
        embedder, photo_detector(), paths, output, models_dir=_models_dir(models_dir), cache_dir=_cache_dir()
    )
    say(f"{manifest}")


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
