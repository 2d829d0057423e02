"""``facestream status`` and ``camera``: the workers and cameras of a fleet."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from worker.cli.options import (
    AsJson,
    ConfigFile,
    NamingThreshold,
    RedisUrl,
    command_group,
    quiet_logs,
)
from worker.cli.parsing import read_source
from worker.cli.screen import Document, complain, count_of, print_json, say, say_lines, screen_width, table
from worker.errors import ConfigError, FacestreamError, FleetError
from worker.redaction import redact, redact_url

if TYPE_CHECKING:
    from rich.text import Text

    from worker.asking import Answer
    from worker.config import Config
    from worker.fleet.registry import CameraRegistry, Registered
    from worker.service.status import WorkerStatus

Look: TypeAlias = "Callable[[], tuple[list[WorkerStatus], dict[str, str], list[str]]]"
"""Answers with the workers, with the state of each camera that none of them reads, and with what cannot be read."""

_STATUS_TIMEOUT_S = 5.0
_LONGEST_STATUS = 8 * 2**20

CameraId = Annotated[str, typer.Argument(metavar="ID", help="Name of the camera.")]
CameraIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Names of cameras.")]
FleetName = Annotated[str | None, typer.Option("--fleet-name", metavar="NAME", help="Name of the fleet.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    app.command("status")(status)
    group = command_group(
        app, "camera", "The cameras that a fleet reads: add, list, pause, resume, remove. Workers follow at once."
    )
    group.command("add")(add_camera)
    group.command("list")(list_cameras)
    group.command("remove")(remove_cameras)
    group.command("pause")(pause_cameras)
    group.command("resume")(resume_cameras)


def status(
    redis: RedisUrl = None,
    fleet: FleetName = None,
    worker: Annotated[
        list[str] | None,
        typer.Option("--worker", metavar="URL", help="Ask this worker itself, such as http://host:9464; repeatable."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option("--token-file", metavar="FILE", help="File that holds the metrics.token of --worker.")
    ] = None,
    ca_file: Annotated[
        Path | None,
        typer.Option("--ca-file", metavar="FILE", help="Certificate of the authority behind https:// of --worker."),
    ] = None,
    interval_s: Annotated[float, typer.Option("--interval-s", min=0.2, help="Pause between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print the table once and end.")] = False,
    json_output: AsJson = False,
) -> int:
    """Show each camera: its owner, frame rate, latency, drops, last event, state and why; until Ctrl-C.

    The cameras of a fleet that nobody reads come first. It shows all once with --json, or if output is not a terminal.
    """
    from worker.service.status import condition_of

    look: Look = _ask_workers(worker, token_file, ca_file) if worker else _ask_redis(redis, fleet)
    if json_output:
        workers, unowned, problems = look()
        for found in workers:
            print_json(found.document() | {"state": condition_of(found)})
        for camera_id, state in unowned.items():
            print_json({"camera_id": camera_id, "state": state})
        for problem in problems:
            complain(problem)
        return 0 if workers else 1
    from rich.console import Console
    from rich.live import Live

    from worker.cli.status_table import status_text

    width = screen_width()
    console = Console(width=width)

    def draw() -> "Text":
        return status_text(*look(), width)

    if once or not console.is_terminal:
        console.print(draw(), soft_wrap=True, end="")
        return 0
    with Live(draw(), console=console, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_s)
            live.update(draw(), refresh=True)


def _ask_workers(urls: list[str], token_file: Path | None, ca_file: Path | None) -> "Look":
    import ssl

    import httpx

    from worker.asking import Asker
    from worker.config import MetricsConfig
    from worker.service.status import WorkerStatus

    token = MetricsConfig(token_file=token_file).read_token()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        trusted = True if ca_file is None else ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--ca-file {ca_file} holds no certificate that can be read: {error}") from None

    def look() -> "tuple[list[WorkerStatus], dict[str, str], list[str]]":
        found = []
        with closing(Asker(_STATUS_TIMEOUT_S, verify=trusted)) as server:
            for url in urls:
                try:
                    answer = server.ask("GET", f"{url.rstrip('/')}/status", headers=headers, most_bytes=_LONGEST_STATUS)
                    found.append(WorkerStatus.parse(_json_of(answer)))
                except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError) as problem:
                    raise FacestreamError(
                        f"no status from {redact(url)}: {redact(str(problem))}; is it the metrics port of a worker?"
                    ) from None
        return found, {}, []

    return look


def _json_of(answer: "Answer") -> object:
    """
    Raises:
        ValueError: the answer is an error, too long, or not JSON.
    """
    if answer.status == HTTPStatus.UNAUTHORIZED:
        raise ValueError("it asks for its metrics.token: give --token-file")
    if answer.status != HTTPStatus.OK or answer.body is None:
        raise ValueError(f"the answer has the status {answer.status}, or is too long")
    return json.loads(answer.body)


def _ask_redis(url: str | None, fleet: str | None) -> "Look":
    from worker.fleet.registry import CameraRegistry, why_unowned
    from worker.redis.client import connect
    from worker.redis.errors import told_redis_errors
    from worker.service.status import reported

    config = _fleet_config(None, url, fleet)
    client = connect(config.redis, read_only=True)
    registry = CameraRegistry(client, config.fleet)

    def look() -> "tuple[list[WorkerStatus], dict[str, str], list[str]]":
        with told_redis_errors(config.redis):
            problems: list[str] = []
            workers = list(reported(client, config.fleet.name, problems.append))
            registered = registry.cameras()
        unowned = {camera.definition.camera_id: why_unowned(camera) for camera in registered if not camera.owner}
        return workers, unowned, problems

    return look


def add_camera(
    camera_id: CameraId,
    source: Annotated[
        str | None,
        typer.Argument(metavar="SOURCE", help="rtsp(s):// or http(s):// URL; '-' reads it from standard input."),
    ] = None,
    source_file: Annotated[
        Path | None, typer.Option("--source-file", metavar="FILE", help="A file that holds the URL of the camera.")
    ] = None,
    policy: Annotated[str | None, typer.Option("--policy", help="auto, newest or every.")] = None,
    transport: Annotated[str | None, typer.Option("--transport", help="RTSP transport: tcp or udp.")] = None,
    decode_on: Annotated[str | None, typer.Option("--decode-on", help="processor, or gpu.")] = None,
    open_timeout_s: Annotated[
        float | None, typer.Option("--open-timeout-s", help="Longest wait until it is open, s.")
    ] = None,
    read_timeout_s: Annotated[
        float | None, typer.Option("--read-timeout-s", help="Longest wait for its next frame, s.")
    ] = None,
    rotate: Annotated[
        int | None, typer.Option("--rotate", help="Turn the picture clockwise: 0, 90, 180 or 270 degrees.")
    ] = None,
    flip: Annotated[str | None, typer.Option("--flip", help="Then mirror it: none, horizontal or vertical.")] = None,
    pixel_aspect: Annotated[
        str | None, typer.Option("--pixel-aspect", metavar="W:H", help="Width of a pixel by its height.")
    ] = None,
    snapshot_interval_s: Annotated[
        float | None, typer.Option("--snapshot-interval-s", help="How often a single picture is asked for, s.")
    ] = None,
    threshold: NamingThreshold = None,
    redis: RedisUrl = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Have one worker of the fleet read a network camera; a camera that it has already gets this definition."""
    from worker.config import load_config

    quiet_logs()
    options = {
        "policy": policy, "transport": transport, "open_timeout_s": open_timeout_s, "read_timeout_s": read_timeout_s,
        "rotate": rotate, "flip": flip, "pixel_aspect": pixel_aspect, "snapshot_interval_s": snapshot_interval_s,
        "threshold": threshold, "decode_on": decode_on,
    }  # fmt: skip
    where = read_source(source, source_file)
    if where is None:
        raise ConfigError("SOURCE is missing: write rtsp://HOST/PATH, or '-', or give --source-file")
    fields: dict[str, object] = {"id": camera_id, "source": where}
    fields |= {name: value for name, value in options.items() if value is not None}
    camera = load_config(None, {"cameras": [fields]}).cameras[0]
    with _registry(config, redis, fleet) as registry:
        outcome = registry.add(camera)
    _tell_outcome(camera_id, outcome, json_output)


def list_cameras(
    redis: RedisUrl = None, fleet: FleetName = None, config: ConfigFile = None, json_output: AsJson = False
) -> None:
    """The cameras, who reads each, and since which epoch; credentials are not shown."""
    quiet_logs()
    with _registry(config, redis, fleet) as registry:
        rows = [_camera_row(registered) for registered in registry.cameras()]
    if json_output:
        for row in rows:
            print_json(row)
        return
    shown = [
        [row["camera_id"], row["state"], row["owner"] or "-", str(row["epoch"] or "-"), row["source"] or row["reason"]]
        for row in rows
    ]
    if shown:
        say_lines(table([["camera", "state", "owner", "epoch", "source"], *shown], screen_width()))
    unowned = sum(row["state"] == "unowned" for row in rows)
    say(f"{count_of(len(rows), 'camera')}, {unowned} unowned")


def remove_cameras(
    camera_ids: CameraIds,
    redis: RedisUrl = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Stop reading cameras, and forget their definitions."""
    with _registry(config, redis, fleet) as registry:
        _change_each(camera_ids, registry.remove, "removed", json_output)


def pause_cameras(
    camera_ids: CameraIds,
    redis: RedisUrl = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Stop reading cameras until they are resumed."""
    with _registry(config, redis, fleet) as registry:
        _change_each(camera_ids, registry.pause, "paused", json_output)


def resume_cameras(
    camera_ids: CameraIds,
    redis: RedisUrl = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Read paused cameras again."""
    with _registry(config, redis, fleet) as registry:
        _change_each(camera_ids, registry.resume, "resumed", json_output)


@contextmanager
def _registry(path: Path | None, redis: str | None, fleet: str | None) -> "Iterator[CameraRegistry]":
    from worker.fleet.registry import CameraRegistry
    from worker.redis.client import connect
    from worker.redis.errors import told_redis_errors

    quiet_logs()
    config = _fleet_config(path, redis, fleet)
    with closing(connect(config.redis)) as client, told_redis_errors(config.redis):
        yield CameraRegistry(client, config.fleet)


def _fleet_config(path: Path | None, redis: str | None, fleet: str | None) -> "Config":
    from worker.config import load_config

    return load_config(path, {"redis": {"url": redis} if redis else {}, "fleet": {"name": fleet} if fleet else {}})


def _change_each(camera_ids: list[str], change: Callable[[str], bool], outcome: str, json_output: bool) -> None:
    missing = []
    for camera_id in camera_ids:
        if change(camera_id):
            _tell_outcome(camera_id, outcome, json_output)
        else:
            missing.append(camera_id)
    if missing:
        raise FleetError(f"the fleet has no camera {', '.join(missing)}; see 'facestream camera list'")


def _tell_outcome(camera_id: str, outcome: str, json_output: bool) -> None:
    if json_output:
        print_json({"camera_id": camera_id, "outcome": outcome})
    else:
        say(f"{camera_id} {outcome}")


def _camera_row(registered: "Registered") -> Document:
    from worker.fleet.registry import decode_camera

    definition = registered.definition
    state = "paused" if definition.paused else "owned" if registered.owner else "unowned"
    source = reason = ""
    try:
        camera = decode_camera(definition.document or "", definition.camera_id)
    except ConfigError as error:
        state, reason = "refused", str(error)
    else:
        source = redact_url(camera.source.get_secret_value())
    return {
        "camera_id": definition.camera_id,
        "state": state,
        "owner": registered.worker_id,
        "epoch": registered.epoch,
        "source": source,
        "reason": reason,
        "revision": definition.revision,
    }
