"""Options that several commands share, what they open, and how commands print."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from worker.errors import SinkError, SourceError
from worker.names import screen_cell, screen_json, screen_text
from worker.redaction import redact

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from worker.config import RedisConfig
    from worker.faces.detection import FaceDetector
    from worker.faces.embedding import FaceEmbedder
    from worker.gallery.crops import CropStore
    from worker.gallery.gallery import Gallery

Document: TypeAlias = dict[str, Any]
"""A JSON object, as ``--json`` prints it."""

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line on standard output.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Configuration file (YAML).")]

GalleryPath = Annotated[
    str,
    typer.Option(
        "--gallery",
        metavar="PATH",
        help="Folder of the gallery, or the postgresql:// URL of one that a fleet shares.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="ID_OR_MANIFEST",
        help="Model id or path of a manifest. A gallery that exists keeps its own; this can only confirm it.",
    ),
]
ModelsDir = Annotated[
    Path | None,
    typer.Option(
        "--models-dir",
        help="Folder in which weight files are looked for, at any depth, by name and digest (default: as configured).",
    ),
]
EngineName = Annotated[
    str,
    typer.Option("--engine", help="What runs the networks: auto, openvino, keras, tensorflow, jax, torch, onnx, dlib."),
]
PrecisionName = Annotated[str, typer.Option("--precision", help="Arithmetic of the embedder: auto, fp32, bf16, int8.")]
DetectorName = Annotated[
    str | None,
    typer.Option("--detector", help="What finds faces: mtcnn, yunet or dlib-hog (default: as configured, else mtcnn)."),
]
MinFacePx = Annotated[int, typer.Option("--min-face-px", min=12, help="Smallest face to look for, px.")]
NamingThreshold = Annotated[
    float | None, typer.Option("--threshold", help="Cosine from which a person is named (default: as in use).")
]
SameThreshold = Annotated[
    float | None, typer.Option("--threshold", help="Cosine from which two faces are of one person.")
]
DrawDir = Annotated[Path | None, typer.Option("--draw", metavar="DIR", help="Write annotated pictures to this folder.")]

RedisUrl = Annotated[
    str | None,
    typer.Option(
        "--redis",
        metavar="URL",
        help="The Redis to use: redis://, rediss://, redis+sentinel:// or redis+cluster:// (default: as configured).",
    ),
]
StreamName = Annotated[
    str | None,
    typer.Option("--stream", help="Key of the event stream; with '{camera_id}' in it, each camera has its own."),
]

PHOTO_MIN_FACE_PX = 20
_USUAL_WIDTH = 80
"""Photos are searched for smaller faces than streams: there is no next frame to be ready for."""


def command_group(app: typer.Typer, name: str, description: str) -> typer.Typer:
    """A group of commands, ``facestream NAME ...``, that is added to ``app``."""
    group = typer.Typer(help=description, no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


def json_line(document: Document) -> str:
    """``document`` as JSON on one line, with the line's end.

    A text that is no proper Unicode, such as the name of a file whose bytes are no UTF-8, or that standard output has
    no letters for, is escaped: the line is valid JSON, and Python reads the name back as it was.
    """
    line = json.dumps(document, ensure_ascii=False)
    try:
        line.encode()
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(document)
    return screen_json(line) + "\n"


def print_json(document: Document) -> None:
    """Writes one JSON document on one line of standard output, and flushes it."""
    sys.stdout.write(json_line(document))
    sys.stdout.flush()


def say(text: object, *, err: bool = False) -> None:
    """Writes one line to standard output, or to standard error.

    This, :func:`say_sentence` and :func:`say_lines` are the only ways in which commands print for people. Names,
    reasons and paths come from outside: what a terminal would obey is taken out, and a line break in a name does not
    make a line.
    """
    typer.echo(screen_cell(text), err=err)


def say_lines(text: str) -> None:
    """Writes lines that were made by :func:`fit`, :func:`wrapped` or another that keeps a value to its line."""
    typer.echo(screen_text(text))


def say_sentence(text: str, *, err: bool = False) -> None:
    """Writes a line like :func:`say`; a terminal that is too narrow gets it broken between words."""
    typer.echo(wrapped(text, screen_width(err=err), "", below="    "), err=err)


def complain(message: str) -> None:
    """Writes an error to standard error: one line, without credentials."""
    say(f"facestream: error: {' '.join(redact(message).split())}", err=True)


def count_of(number: int, noun: str, plural: str = "") -> str:
    """``1 face``, ``2 faces``; ``plural`` where it is not made with an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def people_of(number: int) -> str:
    """``1 person``, ``2 people``."""
    return count_of(number, "person", "people")


def time_text(value: datetime, timespec: Literal["seconds", "milliseconds"] = "seconds") -> str:
    """A time for people to read, that of this machine with its offset: ``2026-03-01 09:30:00+01:00``."""
    return value.astimezone().isoformat(" ", timespec)


def screen_width(*, err: bool = False) -> int | None:
    """How many columns standard output (or error) has; None where lines may be of any length, as in a pipe."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns):
        return int(columns)
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty():
        return None
    with suppress(OSError, ValueError):  # as where a test stands in for the terminal
        return os.get_terminal_size(stream.fileno()).columns or _USUAL_WIDTH
    return _USUAL_WIDTH


def columns_of(text: str) -> int:
    """How many columns a terminal needs for ``text``: two for each character of a wide script."""
    from rich.cells import cell_len

    return cell_len(text)


def padded(text: str, width: int) -> str:
    """``text`` with blanks after it up to ``width`` columns of a terminal."""
    return text + " " * (width - columns_of(text))


def fit(parts: Sequence[str], width: int | None) -> str:
    """The columns of a row on one line, or, if that is too long, as many after another as fit; none is cut."""
    # A line break in a name must not look like another row.
    parts = [screen_cell(part) for part in parts]
    line = "  ".join(parts).rstrip()
    if width is None or columns_of(line) <= width:
        return line
    lines: list[str] = []
    indent = " " * (len(line) - len(line.lstrip()))
    for part in (part.strip() for part in parts):
        if part and lines and columns_of(f"{lines[-1]}  {part}") <= width:
            lines[-1] += f"  {part}"
        elif part:
            lines.append(f"{indent}    {part}" if lines else indent + part)
    return "\n".join(lines)


def wrapped(text: str, width: int | None, indent: str = "    ", *, below: str | None = None) -> str:
    """``text`` with its lines broken between words, each after ``indent``; those after the first after ``below``."""
    first, *words = screen_cell(text).split(" ")
    lines, indent_below = [indent + first], indent if below is None else below
    for word in words:
        longer = f"{lines[-1]} {word}"
        if width is None or columns_of(longer) <= max(width, 20):
            lines[-1] = longer
        else:
            lines.append(indent_below + word)
    return "\n".join(line.rstrip() for line in lines) if width is not None else lines[0]


def quiet_logs(level: Literal["info", "warning"] = "warning") -> None:
    """Sends the logs of a command that is not a service to standard error: only warnings, unless ``level`` is lower."""
    from worker.config import LogConfig
    from worker.logs import configure

    configure(LogConfig(level=level, format="human"))


@contextmanager
def progress_bar(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Shows ``description`` and a bar on standard error until the block ends, if that is a terminal.

    Yields a function that is told how many more are done.
    """
    from rich.progress import TimeRemainingColumn

    with terminal_progress(TimeRemainingColumn()) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


def terminal_progress(clock: "ProgressColumn") -> "Progress":
    """Bars on standard error with counts and ``clock``. They vanish at the end, and show on a terminal only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    # What is shown there may be the name of a file, and brackets in it are no markup.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), clock)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def no_face(photo: Path) -> SourceError:
    """The error of a photo that shows no face, where one is needed."""
    return SourceError(f"{photo}: no face found; use a photo in which the face is larger or turned to the camera")


def photo_detector(
    min_face_px: int = PHOTO_MIN_FACE_PX,
    engine: str = "auto",
    detector: str | None = None,
    models_dir: Path | None = None,
) -> "FaceDetector":
    """The detector for photos: the same object as the stream's, but it looks for smaller faces.

    Raises:
        ConfigError: there is no such detector, or ``min_face_px`` is out of range.
        ModelError: its weights are missing or damaged.
    """
    from worker.config import cache_dir, load_config
    from worker.faces.detection import load_detector

    chosen = {} if detector is None else {"detector": detector}
    config = load_config(None, {"detection": {"min_face_px": min_face_px} | chosen, "engine": engine})
    return load_detector(
        config.detection,
        cache_dir=cache_dir(),
        models_dir=models_dir or config.models_dir,
        engine=config.engine,
    )


def open_embedder(model: str, models_dir: Path | None, engine: str = "auto", precision: str = "auto") -> "FaceEmbedder":
    """The embedder named ``model``.

    Raises:
        ConfigError: wrong engine or precision.
        ModelError: unknown model, missing or damaged weights.
    """
    from worker.config import cache_dir, load_config
    from worker.faces.embedding import load_embedder

    config = load_config(None, {"engine": engine, "precision": precision})
    return load_embedder(
        model,
        models_dir=models_dir or config.models_dir,
        cache_dir=cache_dir(),
        engine=config.engine,
        precision=config.precision,
    )


def open_gallery(path: str) -> "Gallery":
    """The gallery in a folder or in a database.

    Raises:
        ConfigError: ``path`` is a URL, but not that of a gallery.
        GalleryError: see :func:`worker.gallery.opening.open_gallery`.
    """
    from worker.gallery import opening

    return opening.open_gallery(path)


def open_crops(gallery: "Gallery") -> "CropStore | None":
    """The kept crops of an open gallery; None if it has no folder.

    Raises:
        ConfigError: the key for them cannot be read.
    """
    from worker.gallery.crops import CropStore

    return None if gallery.folder is None else CropStore(gallery.folder, gallery_key())


def gallery_key() -> bytes | None:
    """The key of kept crops (``FACESTREAM_GALLERY_KEY``, or the file ``FACESTREAM_GALLERY_KEY_FILE``), if there is one.

    Raises:
        ConfigError: it is not a key, or the file cannot be read.
    """
    from worker.config import load_config
    from worker.encryption import parse_key

    text = load_config(None, {}).read_gallery_key()
    return None if text is None else parse_key(text, "the gallery key")


def redis_settings(config: Path | None, url: str | None, stream: str | None) -> "RedisConfig":
    """The section ``redis`` of the configuration, with what the command line says.

    Raises:
        ConfigError: unreadable file, or a wrong field.
    """
    from worker.config import load_config

    given = {name: value for name, value in {"url": url, "stream": stream}.items() if value is not None}
    return load_config(config, {"redis": given}).redis


@contextmanager
def told_redis_errors(config: "RedisConfig") -> Iterator[None]:
    """Turns an error of Redis in the block into a :class:`SinkError` that says what to do.

    Raises:
        SinkError: Redis cannot be reached, or refuses a command.
    """
    from worker.redis.client import REDIS_ERRORS, explain

    try:
        yield
    except REDIS_ERRORS as error:
        raise SinkError(explain(error, config)) from None
