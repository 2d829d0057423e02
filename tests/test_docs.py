"""The documentation builds, its links lead somewhere, and its commands are commands."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.support.repository import REPOSITORY
from worker.cli import app
from worker.config import Config

PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md"), *(REPOSITORY / "deploy").rglob("*.md")])
WRITTEN = [page for page in PAGES if "docs/reference" not in str(page)]


def name_of(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


def code_lines(page: Path) -> Iterator[str]:
    """The lines of the blocks of code, those that end in a backslash joined with the next."""
    fenced, line = False, ""
    for raw in page.read_text().splitlines():
        if raw.lstrip().startswith("```"):
            fenced = not fenced
            continue
        if not fenced and not raw.startswith("    "):
            continue
        line += raw.strip()
        if line.endswith("\\"):
            line = line[:-1]
            continue
        yield line
        line = ""


def commands(page: Path) -> list[str]:
    found = []
    for line in code_lines(page):
        for part in re.split(r"\s&&\s|;\s|\s\|\s", line):
            text = re.sub(r"^(\$ |[A-Z_]+=\S+ |sudo |exec )+", "", part.strip())
            if text.startswith("facestream "):
                found.append(text)
    return found


def fault_of(command: str) -> str:
    """What is wrong with the command line; empty if nothing is."""
    words = shlex.split(command, comments=True)[1:]
    current: Any = typer.main.get_command(app)
    while getattr(current, "commands", None) and words and not words[0].startswith("-"):
        name = words.pop(0)
        if name == "...":
            return ""
        if name not in current.commands:
            return f"no command {name!r}"
        current = current.commands[name]
    options = {option for parameter in current.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options |= {"--help", "-h", "--debug", "--version"}
    given = [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return ", ".join(f"no option {option}" for option in given if option not in options)


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_commands_in_the_pages_are_commands(page: Path) -> None:
    assert {command: fault for command in commands(page) if (fault := fault_of(command))} == {}


def test_the_check_sees_what_is_wrong() -> None:
    assert fault_of("facestream gallery list --gallery people") == ""
    assert fault_of("facestream galery list") == "no command 'galery'"
    assert fault_of("facestream run --fleat") == "no option --fleat"
    assert sum(len(commands(page)) for page in WRITTEN) > 60


def test_make_targets_in_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = {
        (name_of(page), target)
        for page in WRITTEN
        for line in code_lines(page)
        for target in re.findall(r"^make ([a-z-]+)", line)
    }
    assert {(page, target) for page, target in named if target not in targets} == set()


def settings_of(model: Any, prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if hasattr(inner, "model_fields"):
                yield from settings_of(inner, f"{prefix}{name}.")


@pytest.mark.parametrize("page", WRITTEN, ids=name_of)
def test_settings_that_the_pages_name_exist(page: Path) -> None:
    known = set(settings_of(Config))
    sections = {setting.split(".")[0] for setting in known if "." in setting}
    named = re.findall(rf"`((?:{'|'.join(sections)})\.[a-z0-9_.]+?)(?:: [^`]*)?`", page.read_text())
    files = (".py", ".md", ".json", ".sqlite3", ".yaml", ".yml")
    assert {setting for setting in named if setting not in known and not setting.endswith(files)} == set()


@pytest.mark.slow
def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("sphinx")
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "sphinx",
            "-q",
            "-W",
            "--keep-going",
            "-d",
            tmp_path / "trees",
            "docs",
            tmp_path / "html",
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "facestream run" in (tmp_path / "html" / "reference" / "commands.html").read_text()


def test_each_threat_names_tests_that_exist() -> None:
    """And each named test stands in the file that is named last before it, in the same row."""
    table = (REPOSITORY / "SECURITY.md").read_text().split("| who | what they try |")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) > 40
    missing = []
    for row in rows:
        content = ""
        for path, name in re.findall(r"`(tests/[\w/]+\.py)`|`(test_\w+)`", row[-1]):
            if path:
                file = REPOSITORY / path
                content = file.read_text() if file.exists() else ""
            if (path and not content) or (name and f"def {name}(" not in content):
                missing.append(path or name)
        if "tests/" not in row[-1]:
            missing.append(f"no test is named: {row}")
    assert missing == []
