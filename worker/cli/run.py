"""``facestream run`` and ``demo``: a worker, and a demonstration of it."""

import dataclasses
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.console import require_console
from worker.cli.events import table_header, table_row
from worker.cli.options import (
    AsJson,
    ConfigFile,
    DetectorName,
    ModelsDir,
    NamingThreshold,
    RedisUrl,
    StreamName,
    quiet_logs,
)
from worker.cli.parsing import read_source
from worker.cli.screen import Document, count_of, print_json, say, say_lines

if TYPE_CHECKING:
    from worker.demo import DemoResult
    from worker.service.service import Summary
    from worker.types import Event


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("demo")(demo)
    app.command("run")(run)


def demo(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for clip and pictures.")] = Path(
        "demo-output"
    ),
    console: Annotated[
        bool, typer.Option("--console", help="Then serve the console until Ctrl-C: a stranger waits for a name.")
    ] = False,
    json_output: AsJson = False,
) -> int:
    """Make a clip, enrol one person from a still, run the worker on an embedded Redis, show what it publishes."""
    if console:
        require_console()
    from worker.demo import run_demo
    from worker.events.codec import encode

    quiet_logs()
    shown: list[str] = []

    def tell(line: str) -> None:
        say(line, err=json_output)

    def show(event: "Event") -> None:
        if json_output:
            print_json(encode(event))
            return
        if not shown:
            say_lines(table_header())
        shown.append(event.event_id)
        say_lines(table_row(event))

    tell("Making a clip of Eileen Collins and a cat; starting an embedded Redis and a worker ...")
    result = run_demo(output, tell, show)
    summary = result.stopped.summary
    if json_output:
        print_json({"summary": dataclasses.asdict(summary)})
    else:
        _tell_of_demo(result)
    if console:
        from worker.demo.pages import show_pages

        show_pages(result.gallery, output, tell)
    elif not json_output:
        say("")
        say(f"Next, name a stranger in your browser: {sys.argv[0]} demo --console")
    return 0


def _tell_of_demo(result: "DemoResult") -> None:
    summary = result.stopped.summary
    say("")
    say(f"frames   {summary.frames}")
    say(f"faces    {summary.faces}")
    say(f"tracks   {summary.tracks}")
    say(f"events   {summary.events}")
    say(f"fps      {summary.fps}")
    say(f"dropped  {sum(summary.dropped.values())}")
    say(f"model    {result.model_id}")
    say("")
    say(f"Annotated clip: {result.annotated_clip}")
    say(f"Contact sheet:  {result.contact_sheet}")


def run(
    config: ConfigFile = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--source",
            metavar="URL_OR_FILE",
            envvar="FACESTREAM_SOURCE",
            help="One camera: URL, file, folder or device; '-' reads it from standard input, so that nobody sees it.",
        ),
    ] = None,
    source_file: Annotated[
        Path | None, typer.Option("--source-file", metavar="FILE", help="A file that holds the URL of the camera.")
    ] = None,
    camera_id: Annotated[str | None, typer.Option("--camera-id", help="Name of that camera (default: camera).")] = None,
    fleet: Annotated[
        bool | None, typer.Option("--fleet", help="Share the cameras registered by 'facestream camera add'.")
    ] = None,
    worker_id: Annotated[
        str | None,
        typer.Option("--worker-id", help="Name of this worker, which no other worker has (default: host name)."),
    ] = None,
    gallery: Annotated[
        str | None, typer.Option("--gallery", metavar="PATH", help="Who is known; without one, everybody is unknown.")
    ] = None,
    classifier: Annotated[
        str | None, typer.Option("--classifier", metavar="DIR", help="Who is known: what 'facestream train' made.")
    ] = None,
    redis: RedisUrl = None,
    stream: StreamName = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="ID_OR_MANIFEST", help="Embedding model (default: that of the gallery)."),
    ] = None,
    models_dir: ModelsDir = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="auto, openvino, keras, tensorflow, jax, torch, onnx, dlib.")
    ] = None,
    detector: DetectorName = None,
    min_face_px: Annotated[int | None, typer.Option("--min-face-px", help="Smallest face to look for, px.")] = None,
    shadow_gallery: Annotated[
        str | None,
        typer.Option("--shadow-gallery", metavar="PATH", help="Gallery of another model: compare its verdicts."),
    ] = None,
    threshold: NamingThreshold = None,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", help="Port of /metrics, /healthz, /readyz; 0 takes a free one.")
    ] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
    json_output: AsJson = False,
) -> int:
    """Read cameras and publish who is in front of them.

    If the source is a file, the run ends with it; cameras are read until SIGTERM or Ctrl-C. The worker takes up changes
    of the configuration file while it runs (cameras, recognition, log level), and does so at once on SIGHUP.
    """
    from worker.config import ConfigOrigin
    from worker.errors import ConfigError
    from worker.video.addresses import parse_address

    overrides = _nested(
        {
            "worker_id": worker_id, "fleet.enabled": fleet or None,
            "gallery": gallery, "classifier": classifier, "shadow_gallery": shadow_gallery,
            "model": model, "models_dir": models_dir, "engine": engine,
            "redis.url": redis, "redis.stream": stream, "detection.min_face_px": min_face_px,
            "detection.detector": detector,
            "recognition.threshold": threshold, "metrics.port": metrics_port, "log.level": log_level,
        }
    )  # fmt: skip
    source = read_source(source, source_file)
    if source is not None:
        overrides["cameras"] = [{"id": camera_id or "camera", "source": source}]
    elif camera_id is not None:
        raise ConfigError("--camera-id names the camera of --source: give both")
    origin = ConfigOrigin(config, overrides)
    settings = origin.load()
    if not settings.cameras and not settings.fleet.enabled:
        raise ConfigError(
            "no camera: give --source URL_OR_FILE, list cameras in --config FILE, or take part in a fleet with --fleet"
        )
    for camera in settings.cameras:
        parse_address(camera.source.get_secret_value())  # a wrong source is told before anything is opened

    from worker.events.codec import encode
    from worker.logs import configure

    configure(settings.log, worker_id=settings.worker_id)
    on_event = (lambda event: print_json(encode(event))) if json_output else None
    gc.disable()  # until the worker has started: what is made until then stays
    try:
        from worker.service.service import Service

        stopped = Service(settings, origin=origin, on_event=on_event).run()
    finally:
        gc.enable()
    if json_output:
        print_json({"summary": dataclasses.asdict(stopped.summary)})
    else:
        _print_summary(stopped.summary)
    if stopped.errors:
        raise stopped.errors[0]
    return 130 if stopped.interrupted else 0


def _nested(flags: dict[str, object]) -> Document:
    """The flags that were given, nested at their dots."""
    nested: Document = {}
    for path, value in flags.items():
        if value is None:
            continue
        section, _, name = path.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return nested


def _print_summary(summary: "Summary") -> None:
    dropped = ", ".join(f"{count} {reason}" for reason, count in summary.dropped.items()) or "none"
    say(
        f"{count_of(summary.frames, 'frame')}, {count_of(summary.faces, 'face')}, {count_of(summary.tracks, 'track')}, "
        f"{count_of(summary.events, 'event')}, "
        f"{summary.fps} frames/s, {summary.duration_s} s, dropped: {dropped}"
    )
    if shadow := summary.shadow:
        say(
            f"shadow {shadow['model_id']}: {shadow['tracks']} tracks, {shadow['agree']} agree, "
            f"{shadow['only_primary']} named by the first alone, {shadow['only_shadow']} by the shadow alone, "
            f"{shadow['different']} named differently"
        )
