"""Options that several commands share, and what they open."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from worker.errors import SourceError

if TYPE_CHECKING:
    from worker.config import RedisConfig
    from worker.faces.detection import FaceDetector
    from worker.faces.embedding import FaceEmbedder
    from worker.gallery.crops import CropStore
    from worker.gallery.gallery import Gallery

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
PrecisionName = Annotated[
    str, typer.Option("--precision", help="Arithmetic of the embedder: auto, fp32, bf16, fp16, int8.")
]
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
"""Photos are searched for smaller faces than streams: there is no next frame to be ready for."""


def command_group(app: typer.Typer, name: str, description: str) -> typer.Typer:
    """A group of commands, ``facestream NAME ...``, that is added to ``app``."""
    group = typer.Typer(help=description, no_args_is_help=True)
    app.add_typer(group, name=name)
    return group


def quiet_logs(level: Literal["info", "warning"] = "warning") -> None:
    """Sends the logs of a command that is not a service to standard error: only warnings, unless ``level`` is lower."""
    from worker.config import LogConfig
    from worker.logs import configure

    configure(LogConfig(level=level, format="human"))


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
