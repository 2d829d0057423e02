"""``facestream camera``: which cameras a fleet reads."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli.common import AsJson, ConfigFile, print_json, quiet_logs

_app = typer.Typer(
    help="The cameras that a fleet reads: add, list, pause, resume, remove. Workers follow at once.",
    no_args_is_help=True,
)
CameraId = Annotated[str, typer.Argument(metavar="ID", help="Name of the camera.")]
CameraIds = Annotated[list[str], typer.Argument(metavar="ID...", help="Names of cameras.")]
RedisUrl = Annotated[str | None, typer.Option("--redis", metavar="URL", help="Where the fleet is.")]
FleetName = Annotated[str | None, typer.Option("--fleet", metavar="NAME", help="Name of the fleet.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.add_typer(_app, name="camera")


@_app.command()
def add(
    camera_id: CameraId,
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="rtsp(s):// or http(s):// URL; '-' reads it from input."),
    ],
    policy: Annotated[str | None, typer.Option("--policy", help="auto, newest or every.")] = None,
    transport: Annotated[str | None, typer.Option("--transport", help="RTSP transport: tcp or udp.")] = None,
    open_timeout_s: Annotated[float | None, typer.Option("--open-timeout-s", help="Longest wait to open it.")] = None,
    read_timeout_s: Annotated[float | None, typer.Option("--read-timeout-s", help="Longest silence of it.")] = None,
    threshold: Annotated[float | None, typer.Option("--threshold", help="Cosine from which a person is named.")] = None,
    redis: RedisUrl = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Have a network camera read by one worker of the fleet; one that is there already gets this definition."""
    from worker.config import load_config

    quiet_logs()
    options = {
        "policy": policy, "transport": transport, "open_timeout_s": open_timeout_s, "read_timeout_s": read_timeout_s,
        "threshold": threshold,
    }  # fmt: skip
    fields = {"id": camera_id, "source": sys.stdin.readline().strip() if source == "-" else source}
    fields |= {name: value for name, value in options.items() if value is not None}
    camera = load_config(None, {"cameras": [fields]}).cameras[0]
    with _registry(config, redis, fleet) as registry:
        outcome = registry.add(camera)
    _tell(camera_id, outcome, json_output)


@_app.command("list")
def list_cameras(
    redis: RedisUrl = None, fleet: FleetName = None, config: ConfigFile = None, json_output: AsJson = False
) -> None:
    """The cameras, who reads each, and since which epoch; credentials are not shown."""
    quiet_logs()
    with _registry(config, redis, fleet) as registry:
        rows = [_row(registered) for registered in registry.cameras()]
    if json_output:
        for row in rows:
            print_json(row)
        return
    if rows:
        typer.echo(f"{'camera':<16}  {'state':<8}  {'owner':<24}  {'epoch':<13}  source")
    for row in rows:
        typer.echo(
            f"{row['camera_id']:<16}  {row['state']:<8}  {row['owner'] or '-':<24}  {row['epoch'] or '-':<13}  "
            f"{row['source']}"
        )
    unowned = sum(row["state"] == "unowned" for row in rows)
    typer.echo(f"{len(rows)} cameras, {unowned} unowned")


@_app.command()
def remove(
    camera_ids: CameraIds,
    redis: RedisUrl = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Have cameras read no more, and forget their definitions."""
    with _registry(config, redis, fleet) as registry:
        _each(camera_ids, registry.remove, "removed", json_output)


@_app.command()
def pause(
    camera_ids: CameraIds,
    redis: RedisUrl = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Have cameras read no more until they are resumed."""
    with _registry(config, redis, fleet) as registry:
        _each(camera_ids, registry.pause, "paused", json_output)


@_app.command()
def resume(
    camera_ids: CameraIds,
    redis: RedisUrl = None,
    fleet: FleetName = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Have paused cameras read again."""
    with _registry(config, redis, fleet) as registry:
        _each(camera_ids, registry.resume, "resumed", json_output)


@contextmanager
def _registry(path: Path | None, redis: str | None, fleet: str | None) -> Iterator[Any]:
    from redis.exceptions import RedisError

    from worker.config import load_config
    from worker.errors import SinkError
    from worker.fleet.registry import CameraRegistry
    from worker.redis.client import connect, explain

    quiet_logs()
    overrides: dict[str, Any] = {"redis": {"url": redis} if redis else {}, "fleet": {"name": fleet} if fleet else {}}
    config = load_config(path, overrides)
    client = connect(config.redis)
    try:
        yield CameraRegistry(client, config.fleet)
    except (RedisError, OSError) as error:
        raise SinkError(explain(error, config.redis)) from None
    finally:
        client.close()


def _each(camera_ids: list[str], change: Callable[[str], bool], outcome: str, json_output: bool) -> None:
    from worker.errors import FleetError

    missing = []
    for camera_id in camera_ids:
        if change(camera_id):
            _tell(camera_id, outcome, json_output)
        else:
            missing.append(camera_id)
    if missing:
        raise FleetError(f"the fleet has no camera {', '.join(missing)}; see 'facestream camera list'")


def _tell(camera_id: str, outcome: str, json_output: bool) -> None:
    if json_output:
        print_json({"camera_id": camera_id, "outcome": outcome})
    else:
        typer.echo(f"{camera_id} {outcome}")


def _row(registered: Any) -> dict[str, Any]:
    from worker.fleet.registry import decode_camera
    from worker.redaction import redact_url

    definition = registered.definition
    camera = decode_camera(definition.document)
    state = "paused" if definition.paused else "owned" if registered.owner else "unowned"
    return {
        "camera_id": definition.camera_id,
        "state": state,
        "owner": registered.worker_id,
        "epoch": registered.epoch,
        "source": redact_url(camera.source.get_secret_value()),
        "revision": definition.revision,
    }
