"""``facestream unknown``: people who are not enrolled, and how they get a name."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.history import GalleryOption, StateDir, open_history, settings
from worker.cli.options import AsJson, ConfigFile, RedisUrl, StreamName, command_group, open_gallery, quiet_logs
from worker.cli.screen import count_of, fit, padded, print_json, say, say_lines, screen_width, table, time_text, wrapped
from worker.errors import ConfigError, SinkError, SourceError

if TYPE_CHECKING:
    from worker.config import Config, EvidenceConfig
    from worker.gallery.gallery import Gallery
    from worker.history.records import PastSighting
    from worker.history.regrouping import Tell

UnknownId = Annotated[str, typer.Argument(metavar="ID", help="The unknown_id, as in events and in the list.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    group = command_group(app, "unknown", "Unknown people: list, show, enroll, ignore, forget; merge, split, undo.")
    group.command("list")(list_unknown)
    group.command("show")(show_unknown)
    group.command("enroll")(enroll_unknown)
    group.command("ignore")(ignore_unknown)
    group.command("forget")(forget_unknown)
    group.command("merge")(merge_unknown)
    group.command("split")(split_unknown)
    group.command("undo")(undo_unknown)


def list_unknown(
    gallery: GalleryOption = None, state_dir: StateDir = None, config: ConfigFile = None, json_output: AsJson = False
) -> None:
    """Who was seen and is not enrolled, the latest first."""
    from worker.history.documents import unknown_document

    quiet_logs()
    with open_history(settings(config, gallery, state_dir), "unknown list") as history:
        people, _revision = history.unknowns()
        seen = history.seen_unknown()
    people.sort(key=lambda person: person.last_seen, reverse=True)
    rows = [["unknown_id", "times", "first seen", "last seen", "cameras"]]
    for person in people:
        cameras = seen.get(person.unknown_id, {})
        summary = unknown_document(person, sum(cameras.values()), cameras)
        if json_output:
            print_json(summary)
        else:
            times = [f"{summary['sightings']:>5}", time_text(person.first_seen), time_text(person.last_seen)]
            rows.append([person.unknown_id, *times, ", ".join(summary["cameras"])])
    if not json_output:
        say_lines(table(rows, screen_width()))


def show_unknown(
    who: UnknownId,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", metavar="FILE.png", help="Picture of the faces, where pictures of sightings are kept."),
    ] = None,
    json_output: AsJson = False,
) -> None:
    """One unknown person: every sighting, whom they were nearest to, and with --sheet their face."""
    from worker.history.documents import sighting_document, unknown_document
    from worker.history.records import explain

    quiet_logs()
    config_ = settings(config, gallery, state_dir)
    with open_history(config_, "unknown show", who) as history:
        person = history.unknown(who)
        sightings = history.sightings(unknown_id=who)
    drawn = "" if sheet is None else _draw_sheet(who, sightings, config_.evidence, sheet)
    if json_output:
        cameras = {sighting.camera_id for sighting in sightings}
        seen = [sighting_document(sighting) for sighting in sightings]
        print_json(unknown_document(person, len(sightings), cameras) | {"seen": seen})
        return
    times = [f"first seen {time_text(person.first_seen)}", f"last seen {time_text(person.last_seen)}"]
    say_lines(fit([f"{who}:", *times], screen_width()))
    for sighting in sightings:
        columns = [f"  {time_text(sighting.started_at)}", padded(sighting.camera_id, 16), sighting.sighting_id]
        say_lines(fit(columns, screen_width()))
        say_lines(wrapped(explain(sighting), screen_width()))
    if drawn:
        say(f"wrote {sheet}: {drawn}")


def enroll_unknown(
    who: UnknownId,
    name: Annotated[
        str, typer.Option("--name", help="Who it is; a person who is enrolled already gets further samples.")
    ],
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    redis: RedisUrl = None,
    stream: StreamName = None,
    json_output: AsJson = False,
) -> int:
    """Give an unknown person a name: they join the gallery, and their past sightings are published as corrected."""
    from worker.events.publisher import publish_at_once
    from worker.recognition import unknowns
    from worker.redis.client import connect

    quiet_logs()
    config_ = settings(config, gallery, state_dir, url=redis, stream=stream)
    if config_.gallery is None:
        raise ConfigError("enroll into which gallery? give --gallery PATH or --config FILE")
    if not name.strip():
        raise ConfigError("--name must not be empty")
    with open_history(config_, "unknown enroll", who) as history:
        history.unknown(who)
        # Connects before anything is changed: without Redis, past sightings could not be corrected.
        client = connect(config_.redis)
        named = unknowns.enroll_unknown(who, name, history, open_gallery(config_.gallery))
        if lost := publish_at_once(client, config_.redis, named.corrections):
            raise SinkError(
                f"{name} is enrolled, but {count_of(lost, 'corrected event')} could not be delivered; "
                "run the same command again: nothing is done twice"
            )
        step = unknowns.settle(who, named, history)
    result = {
        "unknown_id": who,
        "identity_id": named.identity_id,
        "identity_name": named.identity_name,
        "samples": named.samples,
        "corrected": len(named.corrections),
        "step": step,
    }
    if json_output:
        print_json(result)
    else:
        say(
            f"{who} is now {name}: {count_of(named.samples, 'sample')}, "
            f"{count_of(len(named.corrections), 'past sighting')} corrected; "
            f"'facestream unknown undo {step}' takes this back"
        )
    return 0


def ignore_unknown(
    who: UnknownId,
    undo: Annotated[bool, typer.Option("--undo", help="Let people be asked about this person again.")] = False,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Nobody wants to be asked who this is: the console lists the person apart."""
    quiet_logs()
    with open_history(settings(config, gallery, state_dir), "unknown ignore", who) as history:
        history.ignore_unknown(who, ignored=not undo)
    if json_output:
        print_json({"unknown_id": who, "ignored": not undo})
    else:
        say(f"{who} is {'no longer' if undo else 'now'} ignored")


def forget_unknown(
    who: UnknownId, gallery: GalleryOption = None, state_dir: StateDir = None, config: ConfigFile = None
) -> None:
    """Delete what an unknown person is recognised by, in past sightings too; the next sighting is of somebody new."""
    quiet_logs()
    with open_history(settings(config, gallery, state_dir), "unknown forget", who) as history:
        history.unknown(who)
        history.drop_unknown(who, sightings_too=True)
    say(f"{who} is forgotten")


def _draw_sheet(who: str, sightings: "list[PastSighting]", config: "EvidenceConfig", sheet: Path) -> str:
    """Writes one picture of the faces of ``sightings``, as far as they are kept; returns of how many there is one.

    Raises:
        SourceError: none is kept; it says what to switch on.
        SinkError: the store cannot be read.
        OutputError: ``sheet`` cannot be written.
    """
    from worker.history.evidence_store import open_store, stored_face
    from worker.video.drawing import Tile, contact_sheet

    if config.store is None:
        raise SourceError(
            f"no pictures of {who}: none are kept. Set evidence.store in the worker's configuration to a folder, and "
            "restart it; pictures are kept from then on. If it is set, give that file with --config"
        )
    is_there = "://" in config.store or Path(config.store).is_dir()
    store = open_store(config) if is_there else None
    tiles = [
        Tile(face, f"{time_text(sighting.started_at)} {sighting.camera_id}", "unknown")
        for sighting in sightings
        if store is not None and (face := stored_face(store, sighting)) is not None
    ]
    if not tiles:
        raise SourceError(
            f"no pictures of {who} in {config.store}: those of {count_of(len(sightings), 'sighting')} are older than "
            f"evidence.keep_days, were made before evidence.store was set, or evidence.of is {config.of!r}"
        )
    shown = f"{len(tiles)} of {count_of(len(sightings), 'sighting')}"
    contact_sheet(tiles, sheet, title=f"{who}: {shown}")
    return shown


def merge_unknown(
    who: UnknownId,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Another unknown_id of the same person, which goes.")],
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    redis: RedisUrl = None,
    stream: StreamName = None,
    json_output: AsJson = False,
) -> None:
    """Two ids are one person: the first gets all sightings of the other. It can be undone."""
    quiet_logs()
    config_ = settings(config, gallery, state_dir, url=redis, stream=stream)
    with open_history(config_, "unknown merge", who, other) as history:
        step = history.merge_unknowns(who, other, _correcting(config_))
    if json_output:
        print_json({"unknown_id": who, "merged": other, "step": step})
    else:
        say(f"{other} is now {who}; 'facestream unknown undo {step}' takes this back")


def split_unknown(
    who: UnknownId,
    sightings: Annotated[list[str], typer.Argument(metavar="SIGHTING_ID...", help="The sightings of somebody else.")],
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    redis: RedisUrl = None,
    stream: StreamName = None,
    json_output: AsJson = False,
) -> None:
    """Some sightings of an unknown person are of somebody else, who gets an id. It can be undone."""
    quiet_logs()
    config_ = settings(config, gallery, state_dir, url=redis, stream=stream)
    with open_history(config_, "unknown split", who) as history:
        new_id, step = history.split_unknown(who, sightings, _correcting(config_))
    if json_output:
        print_json({"unknown_id": who, "new_unknown_id": new_id, "sightings": len(set(sightings)), "step": step})
    else:
        say(
            f"{count_of(len(set(sightings)), 'sighting')} of {who} went to {new_id}; "
            f"'facestream unknown undo {step}' takes this back"
        )


def undo_unknown(
    step: Annotated[str, typer.Argument(metavar="STEP", help="As 'merge', 'split' and 'enroll' have said.")],
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    redis: RedisUrl = None,
    stream: StreamName = None,
    json_output: AsJson = False,
) -> None:
    """Take a merge, a split or a name back, also a merge of two enrolled people on the console's pages; sightings that
    bore the name are published as corrected."""
    from worker.recognition.merging import take_back
    from worker.redis.client import connect

    quiet_logs()
    config_ = settings(config, gallery, state_dir, url=redis, stream=stream)
    with open_history(config_, "unknown undo") as history:
        from_id, to_id = take_back(
            step, history, partial(_gallery_of_names, config_), partial(connect, config_.redis), config_.redis
        )
    if json_output:
        print_json({"step": step, "from": from_id, "to": to_id})
    else:
        say(f"undone: the sightings went back from {from_id} to {to_id}")


def _correcting(config: "Config") -> "Tell":
    """Tells those who read the events whom past sightings show now.

    Raises:
        SinkError: Redis cannot be reached.
    """
    from worker.recognition.unknowns import publish_regrouping
    from worker.redis.client import connect

    return partial(publish_regrouping, connect(config.redis), config.redis)


def _gallery_of_names(config: "Config") -> "Gallery":
    if config.gallery is None:
        raise ConfigError("which gallery holds the name? give --gallery PATH or --config FILE")
    return open_gallery(config.gallery)
