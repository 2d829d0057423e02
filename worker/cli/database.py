"""``facestream database``: what must last, in a SQLite file or in PostgreSQL: looked at, upgraded, saved."""

import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.history import StateDir, settings
from worker.cli.options import AsJson, ConfigFile, RedisUrl, command_group, quiet_logs
from worker.cli.screen import Document, count_of, people_of, print_json, say
from worker.errors import ConfigError, DatabaseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.config import Config
    from worker.database.address import DatabaseAddress
    from worker.database.database import Database

Where = Annotated[
    str | None,
    typer.Option(
        "--gallery",
        metavar="PATH",
        help="postgresql://user@host/database, or the folder of a gallery whose history lies beside it.",
    ),
]


_WAIT_S = 15.0


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    group = command_group(
        app, "database", "What must last, in a SQLite file or in PostgreSQL: check, upgrade, backup, restore, expire."
    )
    group.command("check")(check)
    group.command("upgrade")(upgrade)
    group.command("backup")(backup)
    group.command("restore")(restore)
    group.command("expire")(expire)


def check(
    gallery: Where = None, state_dir: StateDir = None, config: ConfigFile = None, json_output: AsJson = False
) -> int:
    """Say which layout the database has, how much is in it, and what is wrong; exit code 1 if something is."""
    from worker.database.inspection import inspect

    quiet_logs()
    with _opened(settings(config, gallery, state_dir)) as (database, _address):
        found = inspect(database)
    if json_output:
        print_json(found.document())
    else:
        rows = ", ".join(count_of(count, "row") + f" in {table}" for table, count in found.rows.items())
        say(f"{found.label}: {found.server}, layout {found.layout} of {found.newest_layout}; {rows or 'empty'}")
        for problem in found.problems:
            say(problem, err=True)
        if not found.problems:
            say("no problem found")
    return 1 if found.problems else 0


def upgrade(
    gallery: Where = None, state_dir: StateDir = None, config: ConfigFile = None, json_output: AsJson = False
) -> None:
    """Make the tables in an empty database, or bring older ones to the layout of this version; all of it or nothing."""
    from worker.database import layout

    quiet_logs()
    with _opened(settings(config, gallery, state_dir)) as (database, _address):
        before, after = layout.upgrade(database)
    if json_output:
        print_json({"database": database.label, "layout_before": before, "layout": after})
    elif before == after:
        say(f"{database.label} has the newest layout, {after}")
    else:
        say(f"{database.label}: layout {after}, before {before or 'nothing'}")


def backup(
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="New file to write.")],
    gallery: Where = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
) -> None:
    """Write everything to one file, while workers go on: by pg_dump, or for a SQLite file by SQLite itself."""
    from worker.database.backup import back_up

    quiet_logs()
    with _opened(settings(config, gallery, state_dir)) as (database, address):
        back_up(database, output, address)
    say(f"wrote {output}")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that 'database backup' wrote.")],
    gallery: Where = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace what the database holds now.")] = False,
) -> None:
    """Put back what a backup holds, in one transaction, in the layout of this version."""
    from worker.database import backup as backups

    quiet_logs()
    config_ = settings(config, gallery, state_dir)
    with _opened(config_, create=True) as (database, address):
        if not replace and not backups.is_empty(database):
            raise ConfigError(f"{database.label} is not empty: give --replace to lose what it holds now")
        backups.restore(database, file, address)
    _erase_again(config_)
    say(f"{database.label} holds what was in {file}")


def _erase_again(config: "Config") -> None:
    """Who was forgotten since the backup stays so."""
    from worker.erased import read_erased
    from worker.erasure.forgetting import remove_erased
    from worker.erasure.own import erasure_folders
    from worker.history.store import History

    erased = read_erased(erasure_folders(config))
    if not erased:
        return
    place = _place(config)
    with History.open(place) as history:
        again = history.erased_at_open + history.erase(erased)
    if isinstance(place, str):
        again += remove_erased(place, erased)
    if again:
        say(f"removed again who was forgotten since: {', '.join(f'{count} {what}' for what, count in again.items())}")


def expire(
    gallery: Where = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    redis: RedisUrl = None,
    events: Annotated[
        bool,
        typer.Option("--events/--no-events", help="Tell consumers of people whose consent is over."),
    ] = True,
    json_output: AsJson = False,
) -> int:
    """Remove what has expired, also where no worker is running: for a timer or a cron job.

    That is past sightings and unknown people, pictures of sightings, and people whose consent is over: these are erased
    as 'facestream forget' does it.
    """
    from worker.erasure.plan import has_past
    from worker.gallery.opening import gallery_exists
    from worker.history.evidence_store import open_store
    from worker.history.store import History

    quiet_logs()
    config_ = settings(config, gallery, state_dir, url=redis)
    place = _place(config_)
    told: Document = {"removed": 0, "pictures": 0, "people": 0}
    if has_past(place) or config_.gallery is None or not gallery_exists(config_.gallery):
        with History.open(place) as history:
            told["database"] = history.label
            config_ = history.retention().over(config_)
            told["removed"] = history.prune(
                keep_s=timedelta(days=config_.history.keep_days).total_seconds(),
                remember_s=timedelta(days=config_.unknowns.remember_days).total_seconds(),
            )
    if config_.evidence.store is not None:
        store = open_store(config_.evidence)
        told["pictures"] = store.prune(time.time() - timedelta(days=config_.evidence.keep_days).total_seconds())
    whole = _erase_lapsed(config_, told, events=events, json_output=json_output)
    if json_output:
        print_json(told)
    else:
        say(f"{count_of(told['removed'], 'row')} removed from {told.get('database', place)}")
        if told["pictures"] or told["people"]:
            pictures, people = count_of(told["pictures"], "picture"), people_of(told["people"])
            say(f"{pictures} removed, and {people} whose consent is over")
    return 0 if whole else 1


def _erase_lapsed(config: "Config", told: Document, *, events: bool, json_output: bool) -> bool:
    """Erases the people whose consent is over; notes in ``told`` how many, and says whether nothing of them is left."""
    from worker.cli import forget
    from worker.erasure.forgetting import open_galleries
    from worker.erasure.plan import Request
    from worker.gallery.opening import gallery_exists

    if config.gallery is None or not gallery_exists(config.gallery):
        return True
    galleries = open_galleries(config)
    now = datetime.now(UTC)
    over = [person for person in galleries[0].people() if person.consent is not None and person.consent.is_over(now)]
    told["people"] = len(over)
    if not over:
        return True
    request = Request(people=tuple(person.identity_id for person in over))
    receipt, path = forget.erase(
        request, galleries, config, yes=True, events=events, delete_entries=False, wait_s=_WAIT_S,
        json_output=json_output,
    )  # fmt: skip
    told["receipt"] = str(path)
    return bool(receipt["whole"])


def _place(config: "Config") -> Path | str:
    from worker.config import history_place

    place = history_place(config)
    if place is None:
        raise ConfigError("which database? give --gallery PATH, --state-dir DIR or --config FILE")
    return place


@contextmanager
def _opened(config: "Config", *, create: bool = False) -> "Iterator[tuple[Database, DatabaseAddress | None]]":
    """The database as it is, in whatever layout; with the address of a PostgreSQL one."""
    from worker.database.address import parse_database_url
    from worker.database.backup import open_file
    from worker.database.database import open_postgres
    from worker.history.store import FILE

    place = _place(config)
    address = parse_database_url(place) if isinstance(place, str) else None
    if address is not None:
        database = open_postgres(address, patience_s=None)
    else:
        file = Path(place) / FILE
        if create:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not file.exists():
            raise DatabaseError(f"no history in {place}: 'facestream run' writes one beside its gallery")
        database = open_file(file)
    try:
        yield database, address
    finally:
        database.close()
