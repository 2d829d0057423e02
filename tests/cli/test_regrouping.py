"""``facestream unknown merge``, ``split`` and ``undo``."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.past import AXES, sighting, unknown
from worker.cli import run_command_line
from worker.history.store import History

DAY_S = 86_400.0


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[dict[str, object]]]:
    """Runs ``facestream unknown ...`` on a history of two people, with --json."""
    with History.open(tmp_path, create=True) as past:
        past.write(
            [sighting(1, unknown_id="u-1"), sighting(2, unknown_id="u-1"), sighting(3, AXES[1], unknown_id="u-2")],
            [unknown("u-1"), unknown("u-2", AXES[1])],
            keep_s=DAY_S,
            remember_s=DAY_S,
        )

    def run(*words: str) -> list[dict[str, object]]:
        code = run_command_line(["unknown", *words, "--state-dir", str(tmp_path), "--json"])
        said = capsys.readouterr()
        assert code == 0, said
        return [json.loads(line) for line in said.out.splitlines()]

    return run


def test_merge_split_and_undo(say: Callable[..., list[dict[str, object]]]) -> None:
    def sightings() -> dict[object, object]:
        return {person["unknown_id"]: person["sightings"] for person in say("list")}

    (merged,) = say("merge", "u-1", "u-2")
    assert (merged["unknown_id"], merged["merged"]) == ("u-1", "u-2")
    assert sightings() == {"u-1": 3}
    assert say("undo", str(merged["step"])) == [{"step": merged["step"], "from": "u-1", "to": "u-2"}]
    assert sightings() == {"u-1": 2, "u-2": 1}
    (split,) = say("split", "u-1", "door_2")
    assert sightings() == {"u-1": 1, "u-2": 1, split["new_unknown_id"]: 1}
    say("undo", str(split["step"]))
    assert sightings() == {"u-1": 2, "u-2": 1}
