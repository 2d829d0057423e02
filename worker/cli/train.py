"""``facestream train``: a classifier for one's own people. ``identify`` and ``run`` take it in place of a gallery."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from worker.cli.options import (
    PHOTO_MIN_FACE_PX,
    AsJson,
    DetectorName,
    EngineName,
    MinFacePx,
    ModelName,
    ModelsDir,
    command_group,
    open_embedder,
    photo_detector,
    quiet_logs,
)
from worker.cli.screen import print_json, progress_bar, say, terminal_progress
from worker.errors import ConfigError

if TYPE_CHECKING:
    from worker.training.cnn import Epoch
    from worker.training.dataset import DataSet
    from worker.training.training import Trained

Data = Annotated[
    Path, typer.Option("--data", metavar="DIR", help="A folder of photos for each person, or DIR/train and DIR/test.")
]
Test = Annotated[
    Path | None,
    typer.Option("--test", metavar="DIR", help="Photos to test with, by person; other people there are strangers."),
]
PerPerson = Annotated[
    int | None,
    typer.Option(
        "--train-per-person", min=1, help="How many photos of each person to train with; the rest are for the test."
    ),
]
LeaveOut = Annotated[
    int,
    typer.Option("--leave-out", min=0, help="How many people to leave out of the training, as strangers for the test."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed of everything that is drawn at random.")]
Output = Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder of the classifier and its report.")]
StrangerRate = Annotated[
    float, typer.Option("--stranger-rate", min=0, max=1, help="Share of strangers' photos that may get a name.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    group = command_group(app, "train", "Train a classifier on photos of one's own people.")
    group.command("svm")(svm)
    group.command("cnn")(cnn)


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
    with progress_bar("finding and embedding faces", total) as advance:
        trained = train_svm(
            found, searcher, embedder, output,
            seed=seed, stranger_rate=stranger_rate, npz=npz, advance=advance,
        )  # fmt: skip
    _report(trained, output, json_output)
    if npz and not json_output:
        say(f"written: {npz} (faces and embeddings of people: biometric data, protect or delete it)")
    return 0


def cnn(
    data: Data,
    output: Output,
    test: Test = None,
    train_per_person: PerPerson = None,
    leave_out: LeaveOut = 0,
    seed: Seed = 0,
    stranger_rate: StrangerRate = 0.01,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Most epochs; training may stop earlier.")] = 60,
    patience: Annotated[
        int, typer.Option("--patience", min=1, help="Epochs without improvement that end the trial.")
    ] = 12,
    faces: Annotated[
        Literal["detect", "whole", "auto"],
        typer.Option(
            "--faces", help="'whole': each photo is a face already; 'auto': a photo in which no face is found is one."
        ),
    ] = "detect",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")] = False,
    models_dir: ModelsDir = None,
    min_face_px: MinFacePx = PHOTO_MIN_FACE_PX,
    detector: DetectorName = None,
    engine: EngineName = "auto",
    json_output: AsJson = False,
) -> int:
    """A small convolutional network on grey faces of 200 x 200 px, trained on these photos alone."""
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


def _read(data: Path, test: Path | None, train_per_person: int | None, leave_out: int, seed: int) -> "DataSet":
    from worker.training.dataset import read_data_set

    if test is not None and train_per_person is not None:
        raise ConfigError("--test and --train-per-person exclude each other: give one")
    return read_data_set(data, test, train_per_person=train_per_person, leave_out=leave_out, seed=seed)


@contextmanager
def _shown_epochs() -> "Iterator[Callable[[Epoch, int], None]]":
    """A progress bar for epochs, with the loss and the accuracy of the last one."""
    from rich.progress import TaskID, TimeElapsedColumn

    with terminal_progress(TimeElapsedColumn()) as progress:
        tasks: dict[str, TaskID] = {}

        def show(epoch: "Epoch", total: int) -> None:
            if epoch.stage not in tasks:
                tasks[epoch.stage] = progress.add_task(epoch.stage, total=total)
            seen = "" if epoch.accuracy is None else f", {epoch.accuracy:.1%} of unseen photos right"
            text = f"{epoch.stage}: loss {epoch.loss:.3f}{seen}"
            progress.update(tasks[epoch.stage], completed=epoch.number + 1, description=text)

        yield show


def _report(trained: "Trained", output: Path, json_output: bool) -> None:
    from worker.evaluation.plots import plot_confusion, plot_learning
    from worker.training.output import summary, write_report

    report = trained.report | {"test": trained.test.report if trained.test else None}
    if trained.history:
        trial = [epoch for epoch in trained.history if epoch.stage == "trial"]
        report["history"] = [
            {"stage": e.stage, "epoch": e.number + 1, "loss": e.loss, "validation_loss": e.validation_loss,
             "validation_accuracy": e.accuracy}
            for e in trained.history
        ]  # fmt: skip
        plot_learning(
            [("trial", [e.loss for e in trial]),
             ("trial, unseen photos", [e.validation_loss for e in trial if e.validation_loss is not None]),
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
        say(line)
    say(f"written: {output} (report: {output / 'report.md'}); use it with --classifier {output}")
