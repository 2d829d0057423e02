"""The audit log: whole, or it says where it is not; and it names nobody."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.galleries import DIGEST, DIMENSION, MODEL, sample
from tests.support.past import sighting
from worker.audit_log import HEAD, KEY, LOG, AuditLog, note
from worker.cli import run_command_line
from worker.errors import AuditError
from worker.gallery.folder import FolderGallery
from worker.history.store import History

WEEK_S = 7 * 86_400.0


@pytest.fixture
def log(tmp_path: Path) -> AuditLog:
    made = AuditLog(tmp_path)
    for number in range(4):
        made.add("looked up", [f"p-{number}"], command="search")
    return made


def test_a_log_that_nobody_touched_is_whole(log: AuditLog) -> None:
    head, problems = log.verify()
    assert (head.number, problems) == (4, [])


def lines(log: AuditLog) -> list[bytes]:
    return (log.folder / LOG).read_bytes().splitlines(keepends=True)


def write(log: AuditLog, kept: list[bytes]) -> None:
    (log.folder / LOG).write_bytes(b"".join(kept))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda all_: [all_[0], all_[1].replace(b"looked up", b"enrolled "), *all_[2:]], "line 2: it was changed"),
        (lambda all_: [all_[0], *all_[2:]], "line 2: what came before it is missing"),
        (lambda all_: [all_[1], all_[0], *all_[2:]], "what came before it is missing"),
        (lambda all_: all_[:2], "the end was cut off: there were 4 lines"),
        (lambda all_: [], "the end was cut off"),
        (lambda all_: [*all_, b"{broken\n"], "line 5: it was changed"),
    ],
    ids=["changed", "taken out", "exchanged", "cut off", "emptied", "added"],
)
def test_what_was_done_to_the_log_is_seen(log: AuditLog, harm: Callable[[list[bytes]], list[bytes]], says: str) -> None:
    write(log, harm(lines(log)))
    assert any(says in problem for problem in log.verify()[1])
    # What comes later does not hide it.
    log.add("looked up", ["p-9"])
    assert log.verify()[1]


def test_a_head_that_was_put_back_with_a_shorter_log_shows_in_a_line_that_is_kept_elsewhere(
    log: AuditLog, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (log.folder / LOG).read_bytes(), (log.folder / HEAD).read_bytes()
    log.add("looked up", ["p-9"])
    kept = f"{log.verify()[0].number}:{log.verify()[0].chain}"
    assert run_command_line(["audit", "verify", "--state-dir", str(log.folder), "--expect", kept]) == 0
    (log.folder / LOG).write_bytes(before[0])
    (log.folder / HEAD).write_bytes(before[1])
    assert log.verify()[1] == []
    capsys.readouterr()
    assert run_command_line(["audit", "verify", "--state-dir", str(log.folder), "--expect", kept]) == 1
    assert "is not the one that was expected" in capsys.readouterr().err


def test_a_missing_head_or_key_is_told(log: AuditLog) -> None:
    (log.folder / HEAD).unlink()
    assert any("is missing or was changed" in problem for problem in log.verify()[1])
    (log.folder / KEY).unlink()
    with pytest.raises(AuditError, match="key of the audit log"):
        log.verify()


def test_a_writer_that_was_killed_between_a_line_and_the_head_breaks_nothing(log: AuditLog) -> None:
    head = (log.folder / HEAD).read_bytes()
    log.add("looked up", ["p-8"])
    (log.folder / HEAD).write_bytes(head)
    log.add("looked up", ["p-9"])
    assert (log.verify()[0].number, log.verify()[1]) == (6, [])


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from worker.audit_log import AuditLog\n"
    code += "for n in range(10): AuditLog(Path(sys.argv[1])).add('looked up', [str(n)])"
    writers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    head, problems = AuditLog(tmp_path).verify()
    assert (head.number, problems) == (30, [])


def test_where_nothing_can_be_written_the_work_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    note(tmp_path / "file" / "below", "looked up")
    assert "missing in the audit log" in caplog.text


def test_what_is_done_with_people_is_noted_and_names_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = tmp_path / "people"
    gallery = FolderGallery.create(people, MODEL, DIGEST, DIMENSION)
    gallery.add([sample("Anna Berg", 1), sample("Ben Okafor", 2)])
    anna = gallery.person("Anna Berg").identity_id
    gallery.rename("Ben Okafor", "Benjamin Okafor")
    gallery.set_thresholds(0.5, {}, {})
    gallery.export_npz(tmp_path / "people.npz")
    with History.open(tmp_path / "people.state", create=True) as history:
        history.write([sighting(1, identity_id=anna, identity_name="Anna Berg")], keep_s=WEEK_S, remember_s=WEEK_S)
    given = ["--gallery", str(people)]
    assert run_command_line(["explain", "door_1", *given]) == 0
    assert run_command_line(["unknown", "list", *given]) == 0
    assert run_command_line(["forget", "Anna Berg", *given, "--yes", "--no-events"]) == 0
    capsys.readouterr()
    assert run_command_line(["audit", "list", *given, "--json"]) == 0
    noted = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["action"] for entry in noted] == [
        "enrolled", "renamed", "calibrated", "exported", "past looked up", "past looked up", "erasure asked for",
        "erased",
    ]  # fmt: skip
    text = (tmp_path / "people.state" / LOG).read_text()
    assert not any(name in text for name in ("Anna", "Berg", "Okafor", anna))
    assert run_command_line(["audit", "list", *given, "--json", "--about", anna]) == 0
    about = [json.loads(line)["action"] for line in capsys.readouterr().out.splitlines()]
    assert about == ["enrolled", "erasure asked for"]
    assert run_command_line(["audit", "verify", *given]) == 0
