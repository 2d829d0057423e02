"""``facestream train``: a classifier for one's own people, for ``identify`` and ``run`` in place of a gallery."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from worker.cli.common import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    DetectorName,
    EngineName,
    MinFacePx,
    ModelName,
    ModelsDir,
    open_embedder,
    photo_detector,
    print_json,
    quiet_logs,
)
from worker.cli.progress import progress_bar
from worker.errors import ConfigError

_app = typer.Typer(help="Train a classifier on photos of one's own people.", no_args_is_help=True)

Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="A folder of photos for each person, or DIR/train and DIR/test.")
]
Test = Annotated[
    Path | None,
    typer.Option("--test", metavar="DIR", help="Photos to test with, by person; other people there are strangers."),
]
PerPerson = Annotated[
    int | None, typer.Option("--train-per-person", min=1, help="Train with so many photos of each, test with the rest.")
]
LeaveOut = Annotated[
    int, typer.Option("--leave-out", min=0, help="Leave so many people out of training: the test's strangers.")
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of everything that is drawn at random.")]
Output = Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder of the classifier and its report.")]
StrangerRate = Annotated[
    float, typer.Option("--stranger-rate", min=0, max=1, help="Share of strangers' photos that may get a name.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.add_typer(_app, name="train")


@_app.command()
def svm(
    data: Data,
    output: Output,
    test: Test = None,
    train_per_person: PerPerson = None,
    leave_out: LeaveOut = 0,
    seed: Seed = 0,
    stranger_rate: StrangerRate = 0.01,
    model: ModelName = None,
    models_dir: ModelsDir = None,
    npz: Annotated[
        Path | None,
        typer.Option("--npz", metavar="FILE", help="Also write faces, embeddings and names. This is biometric data."),
    ] = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """A linear support vector machine with calibrated probabilities, on the embeddings of a model."""
    from worker.config import DEFAULT_MODEL_ID

    quiet_logs()
    found = _read(data, test, train_per_person, leave_out, seed)
    embedder = open_embedder(model or DEFAULT_MODEL_ID, models_dir, engine)
    searcher = photo_detector(min_face_px, engine, detector, models_dir)
    from worker.training.training import train_svm

    total = len(found.train) + len(found.test) + len(found.strangers)
    with progress_bar("finding and embedding faces", total) as bar:
        trained = train_svm(
            found, searcher, embedder, output,
            seed=seed, stranger_rate=stranger_rate, npz=npz, advance=bar.advance,
        )  # fmt: skip
    _report(trained, output, json_output)
    if npz and not json_output:
        typer.echo(f"written: {npz} (faces and embeddings of people: biometric data, protect or delete it)")
    return 0


@_app.command()
def cnn(
    data: Data,
    output: Output,
    test: Test = None,
    train_per_person: PerPerson = None,
    leave_out: LeaveOut = 0,
    seed: Seed = 0,
    stranger_rate: StrangerRate = 0.01,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="At most; training stops early.")] = 60,
    patience: Annotated[
        int, typer.Option("--patience", min=1, help="Epochs without improvement that end the trial.")
    ] = 12,
    faces: Annotated[
        Literal["detect", "whole", "auto"],
        typer.Option("--faces", help="'whole': the photos are faces already; 'auto': those without a face found are."),
    ] = "detect",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    models_dir: ModelsDir = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """A small convolutional network on grey faces of 200 x 200 px, trained from nothing but these photos."""
    from worker.training.cnn import Settings
    from worker.training.output import require_own_folder

    quiet_logs()
    require_own_folder(output)
    found = _read(data, test, train_per_person, leave_out, seed)
    searcher = photo_detector(min_face_px, engine, detector, models_dir)
    from worker.training.training import train_cnn

    with _shown_epochs() as on_epoch:
        trained = train_cnn(
            found, searcher, output, lambda manifest: open_embedder(str(manifest), models_dir, engine),
            settings=Settings(epochs, patience, seed), faces=faces, resume=resume, stranger_rate=stranger_rate,
            on_epoch=on_epoch,
        )  # fmt: skip
    _report(trained, output, json_output)
    return 0


def _read(data: Path, test: Path | None, train_per_person: int | None, leave_out: int, seed: int) -> Any:
    from worker.training.dataset import read_data_set

    if test is not None and train_per_person is not None:
        raise ConfigError("--test and --train-per-person exclude each other: give one")
    return read_data_set(data, test, train_per_person=train_per_person, leave_out=leave_out, seed=seed)


@contextmanager
def _shown_epochs() -> Iterator[Any]:
    """A progress bar for epochs, with the loss and the accuracy of the last one."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def show(epoch: Any, total: int) -> None:
            if epoch.stage not in tasks:
                tasks[epoch.stage] = progress.add_task(epoch.stage, total=total)
            seen = "" if epoch.accuracy is None else f", {epoch.accuracy:.1%} of unseen photos right"
            text = f"{epoch.stage}: loss {epoch.loss:.3f}{seen}"
            progress.update(tasks[epoch.stage], completed=epoch.number + 1, description=text)

        yield show


def _report(trained: Any, output: Path, json_output: bool) -> None:
    from worker.evaluation.plots import plot_confusion, plot_learning
    from worker.training.output import summary, write_report

    report = trained.report | {"test": trained.test.report if trained.test else None}
    if trained.history:
        epochs = [epoch for epoch in trained.history if epoch.stage == "trial"]
        report["history"] = [
            {"stage": e.stage, "epoch": e.number + 1, "loss": e.loss, "validation_loss": e.validation_loss,
             "validation_accuracy": e.accuracy}
            for e in trained.history
        ]  # fmt: skip
        plot_learning(
            [("trial", [e.loss for e in epochs]), ("trial, unseen photos", [e.validation_loss for e in epochs]),
             ("all photos", [e.loss for e in trained.history if e.stage == "final"])],
            title=f"Training of {report['model_id']}", path=output / "learning.png",
        )  # fmt: skip
    if trained.test and trained.test.report["photos"]:
        plot_confusion(
            trained.test.confusion, trained.test.people, title=f"{report['kind']}, {report['model_id']}",
            path=output / "confusion.png",
        )  # fmt: skip
    write_report(report, output)
    if json_output:
        print_json(report)
        return
    for line in summary(report):
        typer.echo(line)
    typer.echo(f"written: {output} (report: {output / 'report.md'}); use it with --classifier {output}")
