"""``facestream config``: check and show the configuration."""

import json
from pathlib import Path
from typing import Annotated

import typer

_app = typer.Typer(help="Check a configuration, or show it with everything that is set.", no_args_is_help=True)
File = Annotated[Path | None, typer.Option("--config", help="Configuration file (YAML).")]


def register(app: typer.Typer) -> None:
    """Adds the commands to ``app``."""
    app.add_typer(_app, name="config")


@_app.command()
def check(config: File = None) -> None:
    """Say whether the configuration is valid; the first mistake is named by its field."""
    from worker.config import load_config

    settings = load_config(config)
    count = len(settings.cameras)
    typer.echo(f"valid: {count} {'camera' if count == 1 else 'cameras'}")


@_app.command()
def show(config: File = None) -> None:
    """Print the configuration as it is understood, defaults included, secrets masked."""
    import yaml

    from worker.config import load_config

    settings = json.loads(load_config(config).model_dump_json())
    typer.echo(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True).rstrip())


@_app.command()
def schema() -> None:
    """Print the JSON Schema of the configuration."""
    from worker.config import Config

    typer.echo(json.dumps(Config.model_json_schema(), indent=2))
