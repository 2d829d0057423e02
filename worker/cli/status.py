"""``facestream status``: who reads which camera, and how well."""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from worker.cli.common import AsJson, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from worker.service.status import CameraStatus, WorkerStatus

    # The workers, and the state of each camera that none of them reads.
    Look = Callable[[], tuple[list[WorkerStatus], dict[str, str]]]


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(status)


def status(
    redis: Annotated[
        str | None, typer.Option("--redis", metavar="URL", help="Redis of the fleet (default: redis.url).")
    ] = None,
    fleet: Annotated[str | None, typer.Option("--fleet", metavar="NAME", help="Name of the fleet.")] = None,
    worker: Annotated[
        list[str] | None,
        typer.Option("--worker", metavar="URL", help="Ask this worker itself, such as http://host:9464; repeatable."),
    ] = None,
    interval_s: Annotated[float, typer.Option("--interval-s", min=0.2, help="Pause between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the table once and end.")] = False,
    json_output: AsJson = False,
) -> int:
    """Show each camera: its owner, frame rate, latency, drops, last event, state and why; until Ctrl-C.

    Cameras of a fleet that nobody reads stand first. With --json, or where output is no terminal, once.
    """
    look: Look = _ask_workers(worker) if worker else _ask_redis(redis, fleet)
    if json_output:
        workers, unowned = look()
        for found in workers:
            print_json(found.document())
        for camera_id, state in unowned.items():
            print_json({"camera_id": camera_id, "state": state})
        return 0 if workers else 1
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once or not console.is_terminal:
        console.print(_table(*look()))
        return 0
    with Live(_table(*look()), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            live.update(_table(*look()), refresh=True)


def _ask_workers(urls: list[str]) -> "Look":
    import httpx

    from worker.errors import FacestreamError
    from worker.redaction import redact
    from worker.service.status import WorkerStatus

    def look() -> "tuple[list[WorkerStatus], dict[str, str]]":
        found = []
        for url in urls:
            try:
                answer = httpx.get(f"{url.rstrip('/')}/status", timeout=5.0)
                found.append(WorkerStatus.parse(answer.raise_for_status().json()))
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
                raise FacestreamError(
                    f"no status from {redact(url)}: {redact(str(problem))}; is it the metrics port of a worker?"
                ) from None
        return found, {}

    return look


def _ask_redis(url: str | None, fleet: str | None) -> "Look":
    from redis.exceptions import RedisError

    from worker.config import load_config
    from worker.errors import SinkError
    from worker.fleet.registry import CameraRegistry
    from worker.redis.client import connect, explain
    from worker.service.status import reported

    overrides: dict[str, Any] = {}
    if url is not None:
        overrides["redis"] = {"url": url}
    if fleet is not None:
        overrides["fleet"] = {"name": fleet}
    config = load_config(None, overrides)
    client = connect(config.redis, read_only=True)
    registry = CameraRegistry(client, config.fleet)

    def look() -> "tuple[list[WorkerStatus], dict[str, str]]":
        try:
            workers = list(reported(client, config.fleet.name))
            registered = registry.cameras()
        except (RedisError, OSError) as error:
            raise SinkError(explain(error, config.redis)) from None
        unowned = {
            camera.definition.camera_id: "paused" if camera.definition.paused else "nobody reads it"
            for camera in registered
            if camera.definition.document is not None and not camera.owner
        }
        return workers, unowned

    return look


def _table(workers: "list[WorkerStatus]", unowned: dict[str, str]) -> "RenderableType":
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table

    from worker.service.status import SILENT_AFTER_S, age_s

    table = Table("camera", "worker", "state", "frames/s", "p95", "dropped/s", "last event", "reason", expand=True)
    for camera_id, state in sorted(unowned.items()):
        table.add_row(camera_id, "-", f"[{'yellow' if state == 'paused' else 'red'}]{state}[/]", *[""] * 5)
    summary = Table("worker", "cameras", "load", "outbox", "gallery", "up", "reported", "reason", expand=True)
    newest: dict[str, int] = {}
    for camera in (camera for worker in workers for camera in worker.cameras):
        newest[camera.camera_id] = max(camera.epoch, newest.get(camera.camera_id, 0))
    for worker in workers:
        silent = age_s(worker) > SILENT_AFTER_S
        # What a dead worker last said of a camera that another one has taken over is of the past.
        current = [camera for camera in worker.cameras if camera.epoch == newest[camera.camera_id]]
        for camera in sorted(current, key=_worst_first):
            _add_camera(table, camera, worker.worker_id, silent=silent)
        reasons = "; ".join(f"{name}: {reason}" for name, reason in worker.reasons.items())
        summary.add_row(
            worker.worker_id,
            str(len(current)),
            "" if worker.load is None else f"{worker.load:.0%}",
            str(worker.outbox_events),
            f"{worker.gallery_people} people, version {worker.gallery_version}",
            _age(worker.uptime_s),
            f"[red]{_age(age_s(worker))} ago[/]" if silent else "now",
            escape(reasons),
        )
    if not workers:
        summary.caption = "no worker has reported: is it running with --fleet, on this Redis and under this name?"
    return Group(table, summary)


def _add_camera(table: Any, camera: "CameraStatus", worker_id: str, *, silent: bool) -> None:
    from rich.markup import escape

    state = "worker silent" if silent else camera.state
    colour = "green" if state in {"streaming", "ended"} else "red"
    table.add_row(
        camera.camera_id,
        worker_id,
        f"[{colour}]{state}[/]",
        f"{camera.fps:.1f}",
        "" if camera.latency_p95_s is None else f"{1000 * camera.latency_p95_s:.0f} ms",
        f"{camera.dropped_per_s:.1f}",
        "never" if camera.last_event_age_s is None else f"{_age(camera.last_event_age_s)} ago",
        escape(camera.reason),
    )


def _worst_first(camera: "CameraStatus") -> tuple[bool, str]:
    return camera.state in {"streaming", "ended"}, camera.camera_id


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
