"""``facestream correct``: that was not Anna."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.history import GalleryOption, StateDir, open_history, settings
from worker.cli.options import AsJson, ConfigFile, RedisUrl, StreamName, open_gallery, quiet_logs
from worker.cli.screen import print_json, say_lines, screen_width, wrapped
from worker.errors import ConfigError, HistoryError, SinkError

if TYPE_CHECKING:
    from worker.recognition.corrections import Correction


def register(app: typer.Typer) -> None:
    """Adds the command of this chapter to ``app``."""
    app.command("correct")(correct)


def correct(
    sighting_id: Annotated[
        str, typer.Argument(metavar="SIGHTING_ID", help="The sighting, as in events and 'explain'.")
    ],
    person: Annotated[
        str | None, typer.Option("--person", metavar="NAME", help="Whom it shows instead: somebody who is enrolled.")
    ] = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="It shows somebody unknown (the default).")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the last correction of this sighting back.")] = False,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    redis: RedisUrl = None,
    stream: StreamName = None,
    json_output: AsJson = False,
) -> int:
    """Say that a past sighting does not show the person whom it names; that face is not named so again."""
    from worker.events.publisher import publish_at_once
    from worker.recognition import corrections
    from worker.redis.client import connect

    quiet_logs()
    if (person is not None) + unknown + undo > 1:
        raise ConfigError("give one of --person NAME, --unknown and --undo")
    config_ = settings(config, gallery, state_dir, url=redis, stream=stream)
    if config_.gallery is None:
        raise ConfigError("which gallery holds the names? give --gallery PATH or --config FILE")
    with open_history(config_, "correct", sighting_id) as history:
        found = history.sightings(sighting_id=sighting_id)
        if not found:
            raise HistoryError(
                f"no sighting {sighting_id} in {history.label}: it still goes on (wait for its 'ended' event), "
                "has expired, or was seen by a worker with another state_dir"
            )
        opened = open_gallery(config_.gallery)
        made = (
            corrections.undo(found[0], opened)
            if undo
            else corrections.correct(found[0], person, history, opened, config_)
        )
        # Connects before anything is changed: those who have read the wrong name must learn of it.
        client = connect(config_.redis)
        if publish_at_once(client, config_.redis, [made.event]):
            raise SinkError("the 'corrected' event could not be delivered, and nothing was changed; try again")
        corrections.settle(made, history, config_)
    _tell(made, json_output)
    return 0


def _tell(made: "Correction", json_output: bool) -> None:
    sighting, event = made.sighting, made.event
    if json_output:
        print_json(
            {
                "sighting_id": sighting.sighting_id,
                "event_id": event.event_id,
                "identity_id": event.identity_id,
                "identity_name": event.identity_name,
                "unknown_id": event.unknown_id,
                "previous_id": sighting.identity_id,
                "previous_name": sighting.identity_name,
                "counter_example": not made.undoes and not made.caveat,
                "caveat": made.caveat,
            }
        )
        return
    now = event.identity_name or event.unknown_id or "unknown"
    if made.undoes:
        text = f"{sighting.sighting_id} is {now} again; the face is no counter-example any more"
    elif made.caveat:
        text = f"{sighting.sighting_id} is now {now}. It is no counter-example: {made.caveat}"
    else:
        text = f"{sighting.sighting_id} is now {now}; that face is not named {sighting.identity_name} any more"
    say_lines(wrapped(text, screen_width(), ""))
