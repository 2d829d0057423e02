"""``facestream audit``: the log of who changed, looked up or gave away what. ``gallery audit`` is another thing."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.history import GalleryOption, StateDir, audit_folder, settings
from worker.cli.options import AsJson, ConfigFile, command_group, quiet_logs
from worker.cli.screen import count_of, fit, padded, print_json, say, say_lines, screen_width, time_text
from worker.errors import AuditError, ConfigError, GalleryError

if TYPE_CHECKING:
    from worker.audit_log import AuditLog
    from worker.config import Config


def register(app: typer.Typer) -> None:
    """Adds the commands of this chapter to ``app``."""
    group = command_group(
        app, "audit", "The audit log: who changed, looked up, exported or erased what, and whether the log is whole."
    )
    group.command("verify")(verify)
    group.command("list")(list_entries)


def verify(
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    expect: Annotated[
        str | None,
        typer.Option(
            "--expect", metavar="LINE:CHAIN", help="A line as an earlier run printed it: it must still be there."
        ),
    ] = None,
    json_output: AsJson = False,
) -> int:
    """Say whether the audit log is whole: nothing changed, taken out or cut off. Exit code 1 if it is not."""
    quiet_logs()
    problems_found = False
    for log in _logs(settings(config, gallery, state_dir)):
        head, problems = log.verify()
        if expect is not None and not _has(log, expect):
            problems.append(f"line {expect.partition(':')[0]} is not the one that was expected")
        problems_found |= bool(problems)
        if json_output:
            told = {"audit_log": str(log.folder), "lines": head.number, "chain": head.chain, "problems": problems}
            print_json(told)
            continue
        for problem in problems:
            say(f"{log.folder}: {problem}", err=True)
        say(f"{log.folder}: {count_of(head.number, 'line')}, {'NOT whole' if problems else 'whole'}")
        say(f"keep this elsewhere, for --expect: {head.number}:{head.chain}")
    return 1 if problems_found else 0


def list_entries(
    about: Annotated[
        str | None, typer.Option("--about", metavar="WHO", help="Only what is about this person (name or id).")
    ] = None,
    gallery: GalleryOption = None,
    state_dir: StateDir = None,
    config: ConfigFile = None,
    json_output: AsJson = False,
) -> None:
    """Print the audit log, oldest first."""
    from worker.wire import parse_rfc3339

    quiet_logs()
    config_ = settings(config, gallery, state_dir)
    for log in _logs(config_):
        subject = None if about is None else log.subject_of(_id_of(about, config_))
        for entry in log.entries():
            if subject is not None and subject not in entry.get("subjects", ()):
                continue
            if json_output:
                print_json(entry)
            elif "damaged" in entry:
                say("(a line that cannot be read)")
            else:
                details = ", ".join(f"{name} {value}" for name, value in entry["details"].items())
                people = count_of(len(entry["subjects"]), "subject") if entry["subjects"] else ""
                when = time_text(parse_rfc3339(entry["at"]))
                columns = [f"{entry['number']:>6}  {when}", padded(entry["action"], 20), people, details, entry["by"]]
                say_lines(fit([column for column in columns if column], screen_width()))


def _logs(config: "Config") -> "list[AuditLog]":
    """The log of the gallery and that of the past, which are one unless ``state_dir`` names another folder.

    Raises:
        ConfigError: neither a gallery nor a folder is named.
        AuditError: there is none.
    """
    from worker.audit_log import LOG, AuditLog
    from worker.erased import folders_of

    if config.gallery is None and config.classifier is None and config.state_dir is None:
        raise ConfigError("which audit log? give --gallery PATH, --state-dir DIR or --config FILE")
    folders: list[Path] = [*folders_of(config.gallery)[1:], audit_folder(config).resolve()]
    logs = [AuditLog(folder) for folder in dict.fromkeys(folders)]
    found = [log for log in logs if log.exists]
    if not found:
        raise AuditError(f"no audit log at {folders[0] / LOG}: it begins with the first enrolment or look-up")
    return found


def _has(log: "AuditLog", expected: str) -> bool:
    number, _, chain = expected.partition(":")
    return any(str(entry.get("number")) == number and entry.get("chain") == chain for entry in log.entries())


def _id_of(who: str, config: "Config") -> str:
    """The id of somebody who is known by this name; else ``who`` itself, which is an id then."""
    from worker.gallery import opening

    if config.gallery is None:
        return who
    try:
        return opening.open_gallery(config.gallery).person(who).identity_id
    except GalleryError:
        return who
