"""What holds for the arguments of every command."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from worker.cli import app, run_command_line
from worker.cli.help import EXAMPLES, PANELS, furnish
from worker.cli.parsing import parsed_command
from worker.gallery.folder import FolderGallery

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gallery", "list", "--gallery", ""], "--gallery is empty"),
        (["gallery", "list", "--gallery="], "--gallery is empty"),
        (["enroll", "--gallery", "people", ""], "an argument is empty"),
        (["detect", "  "], "an argument is empty"),
        (["run", "--source", "x.mp4", "--redis", "\t"], "--redis is empty"),
        (["tail", "--stream="], "--stream is empty"),
        (["forward", "--group", ""], "--group is empty"),
        (["camera", "add", "door", ""], "an argument is empty"),
        (["config", "check", "--config", ""], "--config is empty"),
    ],
)
def test_an_empty_argument_is_told_as_one(arguments: list[str], says: str, capsys: Output) -> None:
    assert run_command_line(arguments) == 2
    assert f"{says}; give a value, or leave it out" in capsys.readouterr().err


@pytest.mark.parametrize("written", [["--gallery", "~/people"], ["--gallery=~/people"]])
def test_a_path_of_a_command_may_begin_at_home(
    written: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    FolderGallery.create(tmp_path / "people", "m", "d", 4)
    assert run_command_line(["gallery", "export", *written, "--npz=~/people.npz"]) == 0
    assert (tmp_path / "people.npz").exists()
    assert not (tmp_path / "~").exists()


def leaves(command: Any, names: tuple[str, ...] = ()) -> dict[str, Any]:
    found = {} if hasattr(command, "commands") else {" ".join(names): command}
    for name, inner in getattr(command, "commands", {}).items():
        found |= leaves(inner, (*names, name))
    return found


def test_no_option_that_takes_a_path_is_forgotten() -> None:
    """An option named like one that takes a path expands the home, whatever its type."""
    paths = {"gallery", "classifier", "shadow_gallery", "models_dir", "config", "source", "state_dir", "output", "npz"}
    for name, command in leaves(parsed_command(app)).items():
        for parameter in command.params:
            if parameter.name in paths and name != "camera add":
                given: Any = ["~/x"] if parameter.multiple else "~/x"
                assert parameter.process_value(typer.Context(command), given) is not None
                assert "~" not in str(parameter.process_value(typer.Context(command), given)), (name, parameter.name)


def test_an_unknown_home_is_told(capsys: Output) -> None:
    assert run_command_line(["gallery", "list", "--gallery", "~nobody-of-that-name/people"]) == 2
    assert "--gallery: '~nobody-of-that-name/people' begins with a user unknown" in capsys.readouterr().err


def test_variables_that_nothing_reads_are_named_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    FolderGallery.create(tmp_path / "people", "m", "d", 4)
    monkeypatch.setenv("FACESTREAM_REDIS_URL", "redis://h")
    assert run_command_line(["gallery", "list", "--gallery", str(tmp_path / "people"), "--json"]) == 0
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert stderr == (
        "facestream: warning: FACESTREAM_REDIS_URL is not a setting, and is ignored; "
        "did you mean FACESTREAM_REDIS__URL?\n"
    )
    assert run_command_line(["--help"]) == 0
    assert capsys.readouterr().err == ""


# Help.


def test_every_command_stands_in_a_group_and_has_examples_that_can_be_typed() -> None:
    command = parsed_command(app)
    furnish(command)
    assert set(command.commands) == {name for members in PANELS.values() for name in members}
    assert set(leaves(command)) == set(EXAMPLES)
    for name, examples in EXAMPLES.items():
        assert examples, name
        for example in examples:
            words = shlex.split(example.partition(" #")[0].partition(" <")[0].partition(" >")[0])
            assert words[: 1 + len(name.split())] == ["facestream", *name.split()]
            leaf = leaves(command)[name]
            arguments = words[1 + len(name.split()) :]
            leaf.make_context(name, arguments)


def test_no_word_of_help_is_cut_and_no_type_of_python_shows(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    for name in ["", *leaves(parsed_command(app))]:
        assert run_command_line([*name.split(), "--help"]) == 0
        shown = capsys.readouterr().out
        assert "…" not in shown, shown
        assert not re.search(r"<(str|int|float|path|bool|list)\b", shown), shown
        assert max(map(len, shown.splitlines())) <= 80, shown


def test_paragraphs_of_help_fill_their_lines(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    assert run_command_line(["run", "--help"]) == 0
    assert "The worker takes up changes of the configuration file while it runs" in capsys.readouterr().out


@pytest.mark.parametrize("width", ["80", "200"])
def test_help_shows_groups_examples_and_no_type_for_flags(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("TERMINAL_WIDTH", width)
    assert run_command_line(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [shown.index(f"─ {panel} ") for panel in PANELS] == sorted(shown.index(f"─ {panel} ") for panel in PANELS)
    assert "─ Commands ─" not in shown
    assert run_command_line(["tail", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "<bool>" not in shown
    assert "Examples:" in shown
    assert "facestream tail --redis redis://localhost:6379/0" in shown
