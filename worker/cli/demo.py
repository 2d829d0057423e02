"""``facestream demo``: the whole chain at work, on footage it makes itself."""

from pathlib import Path
from typing import Annotated, Any

import typer

from worker.cli.common import AsJson, print_json


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(demo)


def demo(
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Folder for clip and pictures.")] = Path(
        "demo-output"
    ),
    json_output: AsJson = False,
) -> int:
    """Make a clip, enrol one person from a still, run the worker on an embedded Redis, show what it publishes."""
    import dataclasses

    from worker.cli.common import quiet_logs
    from worker.cli.tail import table_header, table_row
    from worker.demo.demo import run_demo
    from worker.events.codec import encode

    quiet_logs()

    def say(line: str) -> None:
        typer.echo(line, err=json_output)

    def show(event: Any) -> None:
        if json_output:
            print_json(encode(event))
            return
        if not shown:
            say(table_header())
        shown.append(event.event_id)
        say(table_row(event))

    shown: list[str] = []
    say("Making a clip of Eileen Collins and a cat; starting an embedded Redis and a worker ...")
    result = run_demo(output, say, show)
    summary = result.stopped.summary
    if json_output:
        print_json({"summary": dataclasses.asdict(summary)})
        return 0
    dropped = sum(summary.dropped.values())
    say("")
    say(f"frames   {summary.frames}")
    say(f"faces    {summary.faces}")
    say(f"tracks   {summary.tracks}")
    say(f"events   {summary.events}")
    say(f"fps      {summary.fps}")
    say(f"dropped  {dropped}")
    say(f"model    {result.model_id}")
    say("")
    say(f"Annotated clip: {result.annotated_clip}")
    say(f"Contact sheet:  {result.contact_sheet}")
    return 0
