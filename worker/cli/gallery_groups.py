"""``facestream gallery group``: groups of people, such as staff or banned."""

from collections.abc import Sequence
from typing import Annotated

import typer

from worker.cli.options import AsJson, GalleryPath, command_group, open_gallery, quiet_logs
from worker.cli.screen import fit, padded, people_of, print_json, say, say_lines, screen_width
from worker.errors import ConfigError

GroupName = Annotated[str, typer.Argument(metavar="GROUP", help="Name of the group.")]
People = Annotated[list[str], typer.Argument(metavar="WHO...", help="Names or ids of people.")]


def register(group: typer.Typer) -> None:
    """Adds these commands to the group ``facestream gallery``."""
    groups = command_group(group, "group", "Groups of people: make them, put people in, take people out.")
    groups.command("list")(list_groups)
    groups.command("set")(set_group)
    groups.command("delete")(delete_group)
    groups.command("add")(add_people)
    groups.command("remove")(remove_people)


def list_groups(gallery: GalleryPath, json_output: AsJson = False) -> None:
    """The groups: who is in them, their thresholds, and what to do when one of their people is seen."""
    quiet_logs()
    opened = open_gallery(gallery)
    people = opened.people()
    for name, group in sorted(opened.groups.items()):
        members = [person for person in people if name in person.groups]
        if json_output:
            listed = [{"identity_id": each.identity_id, "identity_name": each.name} for each in members]
            print_json({"group": name, **group.document(), "people": listed})
            continue
        threshold = "" if group.threshold is None else f"threshold {group.threshold:.3f}"
        columns = [padded(name, 24), f"{people_of(len(members)):>12}", padded(group.colour, 7), threshold, group.advice]
        say_lines(fit(columns, screen_width()))
    if not json_output and not opened.groups:
        say("no groups yet: make one with 'facestream gallery group set'")


def set_group(
    name: GroupName,
    gallery: GalleryPath,
    threshold: Annotated[
        float | None,
        typer.Option(
            "--threshold", help="Cosine (-1 to 1) from which its people are named, in place of every other threshold."
        ),
    ] = None,
    no_threshold: Annotated[
        bool, typer.Option("--no-threshold", help="Its people are named as everybody else is.")
    ] = False,
    colour: Annotated[
        str | None, typer.Option("--colour", help="red, orange, yellow, green, blue, violet or grey; for pages.")
    ] = None,
    advice: Annotated[
        str | None, typer.Option("--advice", metavar="TEXT", help="What to do when one of its people is seen.")
    ] = None,
    json_output: AsJson = False,
) -> None:
    """Make a group, or change its settings; what is not given stays as it is."""
    from dataclasses import replace

    from worker.gallery.groups import Group, group_name

    quiet_logs()
    if threshold is not None and no_threshold:
        raise ConfigError("--threshold or --no-threshold: give one of the two")
    name = group_name(name)
    opened = open_gallery(gallery)
    group = opened.groups.get(name, Group())
    if threshold is not None or no_threshold:
        group = replace(group, threshold=threshold)
    group = replace(
        group,
        colour=group.colour if colour is None else colour,
        advice=group.advice if advice is None else advice,
    )
    opened.set_group(name, group)
    if json_output:
        print_json({"group": name, **group.document(), "version": opened.version})
    else:
        own = "no threshold of its own" if group.threshold is None else f"threshold {group.threshold:.3f}"
        say(f"group {name}: {own}; version {opened.version}")


def delete_group(name: GroupName, gallery: GalleryPath, json_output: AsJson = False) -> None:
    """Delete a group; its people stay in the gallery."""
    quiet_logs()
    opened = open_gallery(gallery)
    opened.remove_group(name)
    if json_output:
        print_json({"group": name, "deleted": True, "version": opened.version})
    else:
        say(f"group {name} is deleted; version {opened.version}")


def add_people(name: GroupName, who: People, gallery: GalleryPath, json_output: AsJson = False) -> None:
    """Put people into a group."""
    _regroup(gallery, who, json_output, join=[name])


def remove_people(name: GroupName, who: People, gallery: GalleryPath, json_output: AsJson = False) -> None:
    """Take people out of a group; they stay in the gallery."""
    _regroup(gallery, who, json_output, leave=[name])


def _regroup(
    path: str, who: list[str], json_output: bool, *, join: Sequence[str] = (), leave: Sequence[str] = ()
) -> None:
    quiet_logs()
    opened = open_gallery(path)
    opened.regroup(who, join=join, leave=leave)
    for person in map(opened.person, who):
        if json_output:
            told = {"identity_id": person.identity_id, "identity_name": person.name, "groups": list(person.groups)}
            print_json(told | {"version": opened.version})
        else:
            say(f"{person.name}: {', '.join(person.groups) or 'in no group'}; version {opened.version}")
