"""``facestream run``: the worker."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli.common import AsJson, DetectorName, ModelsDir, print_json


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(run)


def run(
    config: Annotated[Path | None, typer.Option("--config", help="Configuration file (YAML).")] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="URL_OR_FILE", help="One camera: URL, file, folder or device.")
    ] = None,
    camera_id: Annotated[str | None, typer.Option("--camera-id", help="Name of that camera (default: camera).")] = None,
    fleet: Annotated[
        bool | None, typer.Option("--fleet", help="Share the cameras registered by 'facestream camera add'.")
    ] = None,
    worker_id: Annotated[
        str | None, typer.Option("--worker-id", help="Name of this worker, unlike any other's (default: host name).")
    ] = None,
    gallery: Annotated[
        str | None, typer.Option("--gallery", metavar="PATH", help="Who is known; without one, everybody is unknown.")
    ] = None,
    classifier: Annotated[
        str | None, typer.Option("--classifier", metavar="DIR", help="Who is known, by what 'facestream train' made.")
    ] = None,
    redis: Annotated[str | None, typer.Option("--redis", metavar="URL", help="Where events go.")] = None,
    stream: Annotated[str | None, typer.Option("--stream", help="Key of the event stream.")] = None,
    model: Annotated[str | None, typer.Option("--model", metavar="ID_OR_MANIFEST", help="Embedding model.")] = None,
    models_dir: ModelsDir = None,
    engine: Annotated[str | None, typer.Option("--engine", help="auto, openvino, keras, onnx or dlib.")] = None,
    detector: DetectorName = None,
    min_face_px: Annotated[int | None, typer.Option("--min-face-px", help="Smallest face to look for, px.")] = None,
    shadow_gallery: Annotated[
        str | None,
        typer.Option("--shadow-gallery", metavar="PATH", help="Gallery of another model: compare its verdicts."),
    ] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="Cosine from which a person is named.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="Port of /metrics, /healthz, /readyz; 0 takes a free one.")
    ] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
    json_output: AsJson = False,
) -> int:
    """Read cameras and publish who is in front of them.

    A file as source ends the run at its end; cameras are read until SIGTERM or Ctrl-C. Changes of the configuration
    file are taken up while it runs (cameras, recognition, log level), at once on SIGHUP.
    """
    from worker.config import ConfigOrigin
    from worker.errors import ConfigError
    from worker.video.addresses import parse_address

    overrides = _overrides(
        {
            "worker_id": worker_id, "fleet.enabled": fleet or None,
            "gallery": gallery, "classifier": classifier, "shadow_gallery": shadow_gallery,
            "model": model, "models_dir": models_dir, "engine": engine,
            "redis.url": redis, "redis.stream": stream, "detection.min_face_px": min_face_px,
            "detection.detector": detector,
            "recognition.threshold": threshold, "metrics.port": metrics_port, "log.level": log_level,
        }
    )  # fmt: skip
    if source is not None:
        overrides["cameras"] = [{"id": camera_id or "camera", "source": source}]
    elif camera_id is not None:
        raise ConfigError("--camera-id names the camera of --source: give both")
    origin = ConfigOrigin(config, overrides)
    settings = origin.load()
    if not settings.cameras and not settings.fleet.enabled:
        raise ConfigError(
            "no camera: give --source URL_OR_FILE, list cameras in --config FILE, or take part in a fleet by --fleet"
        )
    for camera in settings.cameras:
        parse_address(camera.source.get_secret_value())  # a source that is never read is told before all else

    from worker.events.codec import encode
    from worker.logs import configure

    configure(settings.log, worker_id=settings.worker_id)
    from worker.service.service import Service

    service = Service(
        settings, origin=origin, on_event=(lambda event: print_json(encode(event))) if json_output else None
    )
    stopped = service.run()
    if json_output:
        print_json({"summary": dataclasses.asdict(stopped.summary)})
    else:
        _print_summary(stopped.summary)
    if stopped.errors:
        raise stopped.errors[0]
    return 130 if stopped.interrupted else 0


def _overrides(flags: dict[str, Any]) -> dict[str, Any]:
    """The flags that were given, nested at their dots."""
    nested: dict[str, Any] = {}
    for path, value in flags.items():
        if value is None:
            continue
        section, _, name = path.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _print_summary(summary: Any) -> None:
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary.dropped.items()) or "none"
    typer.echo(
        f"{summary.frames} frames, {summary.faces} faces, {summary.tracks} tracks, {summary.events} events, "
        f"{summary.fps} frames/s, {summary.duration_s} s, dropped: {dropped}"
    )
    if shadow := summary.shadow:
        typer.echo(
            f"shadow {shadow['model_id']}: {shadow['tracks']} tracks, {shadow['agree']} agree, "
            f"{shadow['only_primary']} named by the first alone, {shadow['only_shadow']} by the shadow alone, "
            f"{shadow['different']} named differently"
        )
