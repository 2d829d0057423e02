"""``facestream unknown``: people who are not enrolled, and how they get a name."""

from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.history import GalleryOption, StateDir, open_history, settings, sighting_json
from worker.cli.options import (
    AsJson,
    ConfigFile,
    Document,
    RedisUrl,
    StreamName,
    command_group,
    count_of,
    fit,
    open_gallery,
    print_json,
    quiet_logs,
    screen_width,
    time_text,
    wrapped,
)
from worker.errors import ConfigError, SinkError

if TYPE_CHECKING:
    from worker.history.records import PastSighting, UnknownPerson

UnknownId = Annotated[str, typer.Argument(metavar="ID", help="The unknown_id, as in events and in the list.")]


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    group = command_group(app, "unknown", "Unknown people: list, show, enroll, forget; merge, split and undo.")
    group.command("list")(list_unknown)
    group.command("show")(show_unknown)
    group.command("enroll")(enroll_unknown)
    group.command("forget")(forget_unknown)
    group.command("merge")(merge_unknown)
    group.command("split")(split_unknown)
    group.command("undo")(undo_unknown)


def list_unknown(
    gallery: GalleryOption = None, state_dir: StateDir = None, config: ConfigFile = None, json_output: AsJson = False
) -> None:
    """Who was seen and is not enrolled, the latest first."""
    quiet_logs()
    with open_history(settings(config, gallery, state_dir)) as history:
        people, _revision = history.unknowns()
        sightings: dict[str, list[PastSighting]] = {person.unknown_id: [] for person in people}
        for sighting in history.sightings():
            if sighting.unknown_id in sightings:
                sightings[sighting.unknown_id].append(sighting)
    people.sort(key=lambda person: person.last_seen, reverse=True)
    if not json_output:
        heads = [f"{'unknown_id':<16}", "sightings", f"{'first seen':<25}", f"{'last seen':<25}", "cameras"]
        typer.echo(fit(heads, screen_width()))
    for person in people:
        summary = _summary(person, sightings[person.unknown_id])
        if json_output:
            print_json(summary)
        else:
            columns = [f"{person.unknown_id:<16}", f"{summary['sightings']:>9}", time_text(person.first_seen)]
            columns += [time_text(person.last_seen), ", ".join(summary["cameras"])]
            typer.echo(fit(columns, screen_width()))


def show_unknown(
    who: UnknownId,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """One unknown person: every sighting, and whom they were nearest to."""
    from worker.history.records import explain

    quiet_logs()
    with open_history(settings(config, gallery, state_dir)) as history:
        person = history.unknown(who)
        sightings = history.sightings(unknown_id=who)
    if json_output:
        print_json(_summary(person, sightings) | {"seen": [sighting_json(sighting) for sighting in sightings]})
        return
    typer.echo(f"{who}: first seen {time_text(person.first_seen)}, last {time_text(person.last_seen)}")
    for sighting in sightings:
        columns = [f"  {time_text(sighting.started_at)}", f"{sighting.camera_id:<16}", sighting.sighting_id]
        typer.echo(fit(columns, screen_width()))
        typer.echo(wrapped(explain(sighting), screen_width()))


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
    from worker.events.publisher import Publisher
    from worker.recognition import unknowns
    from worker.redis.client import connect

    quiet_logs()
    config_ = settings(config, gallery, state_dir, url=redis, stream=stream)
    if config_.gallery is None:
        raise ConfigError("enroll into which gallery? give --gallery PATH or --config FILE")
    if not name.strip():
        raise ConfigError("--name must not be empty")
    with open_history(config_) as history:
        history.unknown(who)
        # Connects before anything is changed: without Redis, past sightings could not be corrected.
        client = connect(config_.redis)
        named = unknowns.enroll_unknown(who, name, history, open_gallery(config_.gallery))
        publisher = Publisher(client, config_.redis)
        refused = sum(not publisher.publish(event) for event in named.corrections)
        if lost := refused + publisher.close():
            raise SinkError(
                f"{name} is enrolled, but {count_of(lost, 'corrected event')} could not be delivered; "
                "run the same command again: nothing is done twice"
            )
        unknowns.settle(who, named, history)
    result = {
        "unknown_id": who,
        "identity_id": named.identity_id,
        "identity_name": named.identity_name,
        "samples": named.samples,
        "corrected": len(named.corrections),
    }
    if json_output:
        print_json(result)
    else:
        typer.echo(
            f"{who} is now {name}: {count_of(named.samples, 'sample')}, "
            f"{count_of(len(named.corrections), 'past sighting')} corrected"
        )
    return 0


def forget_unknown(
    who: UnknownId, gallery: GalleryOption = None, state_dir: StateDir = None, config: ConfigFile = None
) -> None:
    """Delete what an unknown person is recognised by, in past sightings too; the next sighting is of somebody new."""
    quiet_logs()
    with open_history(settings(config, gallery, state_dir)) as history:
        history.unknown(who)
        history.drop_unknown(who, sightings_too=True)
    typer.echo(f"{who} is forgotten")


def merge_unknown(
    who: UnknownId,
    other: Annotated[str, typer.Argument(metavar="OTHER", help="Another unknown_id of the same person, which goes.")],
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Two ids are one person: the first gets all sightings of the other. It can be undone."""
    quiet_logs()
    with open_history(settings(config, gallery, state_dir)) as history:
        step = history.merge_unknowns(who, other)
    if json_output:
        print_json({"unknown_id": who, "merged": other, "step": step})
    else:
        typer.echo(f"{other} is now {who}; 'facestream unknown undo {step}' takes this back")


def split_unknown(
    who: UnknownId,
    sightings: Annotated[list[str], typer.Argument(metavar="SIGHTING_ID...", help="The sightings of somebody else.")],
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Some sightings of an unknown person are of somebody else, who gets an id. It can be undone."""
    quiet_logs()
    with open_history(settings(config, gallery, state_dir)) as history:
        new_id, step = history.split_unknown(who, sightings)
    if json_output:
        print_json({"unknown_id": who, "new_unknown_id": new_id, "sightings": len(set(sightings)), "step": step})
    else:
        typer.echo(
            f"{count_of(len(set(sightings)), 'sighting')} of {who} went to {new_id}; "
            f"'facestream unknown undo {step}' takes this back"
        )


def undo_unknown(
    step: Annotated[str, typer.Argument(metavar="STEP", help="As 'merge' and 'split' have said.")],
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Take a merge or a split back."""
    quiet_logs()
    with open_history(settings(config, gallery, state_dir)) as history:
        from_id, to_id = history.undo_regrouping(step)
    if json_output:
        print_json({"step": step, "from": from_id, "to": to_id})
    else:
        typer.echo(f"undone: the sightings went back from {from_id} to {to_id}")


def _summary(person: "UnknownPerson", sightings: "list[PastSighting]") -> Document:
    from worker.wire import rfc3339

    return {
        "unknown_id": person.unknown_id,
        "sightings": len(sightings),
        "first_seen": rfc3339(person.first_seen),
        "last_seen": rfc3339(person.last_seen),
        "cameras": sorted({sighting.camera_id for sighting in sightings}),
        "model_id": person.embedder.model_id,
    }
