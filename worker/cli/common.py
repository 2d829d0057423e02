"""Options that several commands share, and how they print."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

GalleryPath = Annotated[
    str,
    typer.Option(
        "--gallery", metavar="PATH", help="Folder of the gallery, or redis://HOST/0?gallery=NAME of a shared one."
    ),
]
WaitS = Annotated[
    float,
    typer.Option("--wait-s", min=0, help="How long to wait for the workers that follow a shared gallery, in seconds."),
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
        help="Folder in which weight files are looked for, at any depth, by name and digest"
        " (default: FACESTREAM_MODELS_DIR).",
    ),
]
EngineName = Annotated[
    str, typer.Option("--engine", help="What runs the networks: auto, openvino, keras, onnx or dlib.")
]
PrecisionName = Annotated[str, typer.Option("--precision", help="Arithmetic of the embedder: auto, fp32, bf16.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line on standard output.")]
DetectorName = Annotated[
    str | None,
    typer.Option("--detector", help="What finds faces: mtcnn, yunet or dlib-hog (default: as configured, else mtcnn)."),
]
MinFacePx = Annotated[int, typer.Option("--min-face-px", min=12, help="Smallest face to look for, px.")]
DrawDir = Annotated[Path | None, typer.Option("--draw", metavar="DIR", help="Write annotated pictures to this folder.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Configuration file (YAML).")]

PHOTO_MIN_FACE_PX = 20
"""Photos are searched for smaller faces than streams: nobody waits for the next frame."""


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on one line of standard output, at once."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def quiet_logs(level: Literal["info", "warning"] = "warning") -> None:
    """Logs of commands that are not a service: warnings to standard error."""
    from worker.config import LogConfig
    from worker.logs import configure

    configure(LogConfig(level=level, format="human"))


def photo_detector(
    min_face_px: int = PHOTO_MIN_FACE_PX,
    engine: str = "auto",
    detector: str | None = None,
    models_dir: Path | None = None,
) -> Any:
    """The detector for photos: the same object as the stream's, looking for smaller faces.

    Raises:
        ConfigError: no such detector, or ``min_face_px`` is out of range.
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


def open_embedder(model: str, models_dir: Path | None, engine: str = "auto", precision: str = "auto") -> Any:
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


def open_gallery(path: str, redis: Any = None) -> Any:
    """The gallery in a folder or in Redis, connected to as ``redis`` or, without it, the environment says.

    Raises:
        ConfigError: a URL that is none of a gallery.
        GalleryError: see :func:`worker.gallery.opening.open_gallery`.
    """
    from worker.config import load_config
    from worker.gallery import opening as galleries

    return galleries.open_gallery(path, redis=redis or load_config(None, {}).redis)


def open_crops(gallery: Any) -> Any:
    """The kept crops of an open gallery; None where it has no folder.

    Raises:
        ConfigError: the key for them cannot be read.
    """
    from worker.gallery.crops import CropStore

    return None if gallery.folder is None else CropStore(gallery.folder, gallery_key())


def gallery_key() -> bytes | None:
    """The key of kept crops (``FACESTREAM_GALLERY_KEY``, or the file ``FACESTREAM_GALLERY_KEY_FILE``), if any.

    Raises:
        ConfigError: it is no key, or the file cannot be read.
    """
    from worker.config import load_config
    from worker.gallery.crops import parse_key

    text = load_config(None, {}).read_gallery_key()
    return None if text is None else parse_key(text)
