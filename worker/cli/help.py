"""What ``--help`` shows beside the names and meanings of options: groups of commands, and examples of each."""

from pathlib import Path
from typing import Any, Final

import typer

PANELS: Final[dict[str, tuple[str, ...]]] = {
    "Start here": ("demo", "run", "config"),
    "Who is known": ("enroll", "gallery", "unknown", "forget"),
    "Photos": ("detect", "identify", "verify", "report"),
    "What was seen": ("tail", "forward", "events", "search", "explain", "correct"),
    "Workers and cameras": ("status", "camera", "console", "database", "audit", "encryption"),
    "Accuracy and speed": ("evaluate", "calibrate", "bench"),
    "Models": ("models", "train", "version"),
}

_REDIS: Final = "--redis redis://localhost:6379/0"
_DATABASE: Final = "--gallery postgresql://facestream@localhost/site"

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "demo": ("facestream demo", "facestream demo --output /tmp/demo --json"),
    "run": (
        f"facestream run --source rtsp://viewer@10.0.0.11/stream1 --camera-id door --gallery people {_REDIS}",
        "facestream run --source clip.mp4 --gallery people --json",
        "facestream run --config worker.yaml",
        "facestream run --config worker.yaml --fleet",
    ),
    "config check": ("facestream config check --config worker.yaml",),
    "config show": ("facestream config show --config worker.yaml",),
    "config schema": ("facestream config schema > facestream.schema.json",),
    "enroll": (
        "facestream enroll --gallery people photos/            # photos/Anna/1.jpg, or photos/Anna.jpg",
        "facestream enroll --gallery people --keep-crops photos/",
    ),
    "gallery list": ("facestream gallery list --gallery people",),
    "gallery show": ("facestream gallery show Anna --gallery people",),
    "gallery remove": ("facestream gallery remove Anna --gallery people",),
    "gallery remove-sample": ("facestream gallery remove-sample 4f1c9a02 --gallery people",),
    "gallery rename": ("facestream gallery rename Anna 'Anna Berg' --gallery people",),
    "gallery merge": ("facestream gallery merge 'Anna Berg' Anna --gallery people",),
    "gallery consent": ("facestream gallery consent Anna --until 2027-03-01 --basis contract --gallery people",),
    "gallery group list": ("facestream gallery group list --gallery people",),
    "gallery group set": (
        "facestream gallery group set banned --threshold 0.45 --colour red --advice 'call the guard' --gallery people",
        "facestream gallery group set staff --gallery people",
    ),
    "gallery group delete": ("facestream gallery group delete banned --gallery people",),
    "gallery group add": ("facestream gallery group add staff Anna Ben --gallery people",),
    "gallery group remove": ("facestream gallery group remove staff Ben --gallery people",),
    "gallery copy": ("facestream gallery copy people 'postgresql://facestream@localhost/site?gallery=people'",),
    "gallery export": ("facestream gallery export --gallery people --npz people.npz",),
    "gallery audit": ("facestream gallery audit --gallery people --sheet findings.png",),
    "gallery re-embed": ("facestream gallery re-embed --gallery people --output people-new --model dlib-resnet",),
    "gallery switch": ("facestream gallery switch --gallery people --to people-new",),
    "gallery roll-back": ("facestream gallery roll-back --gallery people",),
    "unknown list": ("facestream unknown list --gallery people",),
    "unknown show": (
        "facestream unknown show u-3fa9c01b2d4e --gallery people",
        "facestream unknown show u-3fa9c01b2d4e --config worker.yaml --sheet who.png",
    ),
    "unknown enroll": (f"facestream unknown enroll u-3fa9c01b2d4e --name Anna --gallery people {_REDIS}",),
    "unknown ignore": ("facestream unknown ignore u-3fa9c01b2d4e --gallery people",),
    "unknown forget": ("facestream unknown forget u-3fa9c01b2d4e --gallery people",),
    "unknown merge": ("facestream unknown merge u-3fa9c01b2d4e u-77ab01c2d3e4 --gallery people",),
    "unknown split": ("facestream unknown split u-3fa9c01b2d4e door_2026-03-01T08:30:00.123Z_7 --gallery people",),
    "unknown undo": ("facestream unknown undo 5c1f09ab --gallery people",),
    "forget": (
        f"facestream forget Anna --gallery people {_REDIS}",
        f"facestream forget u-3fa9c01b2d4e --gallery people {_REDIS}",
        "facestream forget anna.jpg --config worker.yaml --delete-entries --receipt anna.json",
        "facestream forget --verify anna.json --gallery people",
    ),
    "console": ("facestream console --config worker.yaml", f"facestream console --gallery people {_REDIS}"),
    "audit verify": ("facestream audit verify --gallery people",),
    "audit list": ("facestream audit list --gallery people --about Anna",),
    "database check": ("facestream database check --gallery people", f"facestream database check {_DATABASE}"),
    "database upgrade": (f"facestream database upgrade {_DATABASE}",),
    "database backup": (f"facestream database backup {_DATABASE} --output site.backup",),
    "database restore": (f"facestream database restore site.backup {_DATABASE} --replace",),
    "database expire": ("facestream database expire --config worker.yaml",),
    "encryption check": ("facestream encryption check --config worker.yaml",),
    "encryption apply": ("facestream encryption apply --config worker.yaml",),
    "encryption undo": ("facestream encryption undo --config worker.yaml",),
    "encryption rotate": ("facestream encryption rotate --config worker.yaml",),
    "encryption open": ("facestream encryption open evidence/door/2026-03-01/x.face.jpg --output look.jpg",),
    "detect": ("facestream detect photo.jpg", "facestream detect photos/ --draw drawn --json"),
    "identify": ("facestream identify --gallery people photo.jpg", "facestream identify --classifier trained photos/"),
    "verify": ("facestream verify a.jpg b.jpg", "facestream verify a.jpg b.jpg --draw both.jpg"),
    "report": ("facestream report --probe anna.jpg photos/ --output report",),
    "tail": (f"facestream tail {_REDIS}", f"facestream tail {_REDIS} --from 0 --no-follow --json"),
    "forward": (f"facestream forward --group door --url https://example.org/hook --secret-file secret {_REDIS}",),
    "events dead": (f"facestream events dead {_REDIS}", f"facestream events dead --group door --retry {_REDIS}"),
    "search": ("facestream search anna.jpg --gallery people --since 24h",),
    "explain": (
        "facestream explain --gallery people --camera door --since 2h",
        "facestream explain door_2026-03-01T08:30:00.123Z_7 --gallery people",
    ),
    "correct": (
        f"facestream correct door_2026-03-01T08:30:00.123Z_7 --gallery people {_REDIS}",
        f"facestream correct door_2026-03-01T08:30:00.123Z_7 --person Ben --gallery people {_REDIS}",
        f"facestream correct door_2026-03-01T08:30:00.123Z_7 --undo --gallery people {_REDIS}",
    ),
    "status": (f"facestream status {_REDIS}", "facestream status --worker http://localhost:9464"),
    "camera add": (
        f"facestream camera add door rtsp://viewer@10.0.0.11/stream1 {_REDIS}",
        f"facestream camera add gate - {_REDIS} < gate.url    # keeps the password off the command line",
    ),
    "camera list": (f"facestream camera list {_REDIS}",),
    "camera remove": (f"facestream camera remove door gate {_REDIS}",),
    "camera pause": (f"facestream camera pause door {_REDIS}",),
    "camera resume": (f"facestream camera resume door {_REDIS}",),
    "evaluate": ("facestream evaluate --pairs pairs.txt --images photos/",),
    "calibrate": (
        "facestream calibrate --gallery people --people photos/ --target-fpir 0.01 --dry-run",
        "facestream calibrate --gallery people --show",
    ),
    "bench": ("facestream bench", "facestream bench --video clip.mp4 --json"),
    "models list": ("facestream models list",),
    "models pull": ("facestream models pull vggface2-resnet50",),
    "models quantize": (
        "facestream models quantize photos/ --pairs pairsDevTrain.txt --images lfw/",
        "facestream models quantize photos/ --output vggface2-int8",
    ),
    "models check": ("facestream models check vggface2-resnet50",),
    "train svm": ("facestream train svm --data photos/ --output trained --seed 1",),
    "train cnn": ("facestream train cnn --data photos/ --output trained --seed 1",),
    "version": ("facestream version",),
}


_TYPES: Final = {str: "TEXT", Path: "PATH", int: "NUMBER", float: "NUMBER"}


def furnish(command: Any, names: tuple[str, ...] = ()) -> None:
    """Gives ``command``, and all that it holds, panels and examples, and words in place of the types of Python."""
    if examples := EXAMPLES.get(" ".join(names)):
        # An empty line between two: a single line break would be taken for a blank.
        command.epilog = "\n\n".join(["Examples:", *(f"  {_plain(example)}" for example in examples)])
    if not names:
        # Help shows the panels in the order of their first commands.
        panel_of = {name: panel for panel, members in PANELS.items() for name in members}
        placed = [name for name in panel_of if name in command.commands]
        command.commands = {name: command.commands[name] for name in dict.fromkeys([*placed, *command.commands])}
        for name in placed:
            command.commands[name].rich_help_panel = panel_of[name]
    context = typer.Context(command, help_option_names=["-h", "--help"])
    if command.help:
        # Line breaks of the source would break lines at any width.
        command.help = "\n\n".join(" ".join(part.split()) for part in command.help.split("\n\n"))
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            vars(parameter)["display_type"] = _nothing  # its name says what is meant
        elif parameter.is_flag:
            parameter.metavar = ""
        elif parameter.metavar is None:
            parameter.metavar = _TYPES.get(parameter.type_descriptor.annotation)
    for name, inner in getattr(command, "commands", {}).items():
        furnish(inner, (*names, name))


def _nothing(_context: Any) -> None:
    return None


def _plain(text: str) -> str:
    """``text`` so that no square bracket of it is taken for markup."""
    return text.replace("[", r"\[")
