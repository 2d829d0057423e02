"""``facestream explain``: why was somebody not recognised?"""

import dataclasses
from typing import Annotated, Any

import typer

from worker.cli.common import AsJson, ConfigFile, print_json, quiet_logs
from worker.cli.past import (
    CameraOption,
    GalleryOption,
    Since,
    StateDir,
    Until,
    open_past,
    parse_time,
    settings,
    sighting_json,
    time_json,
    time_text,
    who,
)


def register(app: typer.Typer) -> None:
    """Adds the command to ``app``."""
    app.command()(explain)


def explain(
    sighting_id: Annotated[
        str | None, typer.Argument(metavar="[SIGHTING_ID]", help="One sighting; without it, all since --since.")
    ] = None,
    camera: CameraOption = None,
    since: Since = "24h",
    until: Until = None,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> int:
    """Say of each sighting what happened to its faces, whom they were nearest to, and why there is (no) match."""
    from worker.errors import HistoryError
    from worker.history import explanation

    quiet_logs()
    first, last = parse_time(since, "--since"), parse_time(until, "--until")
    with open_past(settings(config, gallery, state_dir)) as history:
        if sighting_id is not None:
            sightings, tallies = history.sightings(sighting_id=sighting_id), []
            if not sightings:
                raise HistoryError(f"no sighting {sighting_id} in {history.path}: it goes on still, or has expired")
        else:
            sightings = history.sightings(since=first, until=last, camera_id=camera)
            tallies = history.tallies(since=first, until=last, camera_id=camera)
    for sighting in sightings:
        if json_output:
            print_json(sighting_json(sighting) | sighting.account.to_json() | {"text": explanation.explain(sighting)})
        else:
            typer.echo(f"{time_text(sighting.started_at)}  {sighting.sighting_id}  {who(sighting)}")
            typer.echo(f"    {explanation.explain(sighting)}")
    if json_output:
        for tally in tallies:
            print_json(_tally_json(tally))
    else:
        for sentence in explanation.explain_rest(tallies):
            typer.echo(sentence)
        if not sightings and not tallies:
            typer.echo("nothing was seen in that time")
    return 0


def _tally_json(tally: Any) -> dict[str, Any]:
    return dataclasses.asdict(tally) | {"hour": time_json(tally.hour)}
