"""One memory for two machines: who walks past all cameras is one stranger, and a mistake can be taken back."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault.cameras import Cameras
from tests.fault.checks import accepted
from tests.fault.fleet import Fleet
from tests.support.command_line import RETAIL, facestream
from tests.support.redis_servers import RedisServer
from tests.support.rtsp import require_rtsp

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow]

STRANGERS = 12
PATIENCE_S = 240
"""All strangers have walked past within half a minute; a machine that has other work needs longer to see them."""


@pytest.fixture
def cameras(tmp_path: Path, test_data: Path) -> Iterator[Cameras]:
    """Six cameras that show the same strangers at the same moment: workers meet them in the same second."""
    require_rtsp()
    found = Cameras(
        tmp_path / "cameras",
        test_data / "lfw_dev",
        6,
        people=1,
        strangers=STRANGERS,
        visit_s=(4.0, 5.0),
        apart_s=0.0,
        seed=6,
    )
    found.start()
    yield found
    found.stop()


@pytest.mark.timeout(600)
def test_twelve_strangers_before_the_cameras_of_two_workers_have_twelve_ids(
    cameras: Cameras,
    redis_server: RedisServer,
    postgres_url: str,
    test_data: Path,
    tmp_path: Path,
    tell: Callable[[str], None],
) -> None:
    url = f"{postgres_url}?gallery=site"
    assert facestream("database", "upgrade", "--gallery", url).code == 0
    enrolled = facestream("enroll", "--gallery", url, "--model", RETAIL, "--models-dir", test_data / "models",
                          cameras.truth.enroll_folder)  # fmt: skip
    assert enrolled.code == 0, enrolled

    def unknown(*words: str) -> list[dict[str, Any]]:
        to = [] if words[0] == "list" else ["--redis", redis_server.url]
        ended = facestream("unknown", *words, "--gallery", url, *to, "--json")
        assert ended.code == 0, ended
        return ended.documents

    def strangers() -> dict[str, int]:
        return {person["unknown_id"]: person["sightings"] for person in unknown("list")}

    fleet = Fleet(tmp_path, redis_server.url, 2, gallery=url, models_dir=test_data / "models")
    for camera_id in cameras.ids:
        fleet.add_camera(camera_id, cameras.url(camera_id))

    def told() -> Counter[str]:
        """Whom a reader of the stream has before them: how many sightings each stranger has."""
        last = {event.sighting_id: event for event in accepted(fleet.events()) if event.ended_at is not None}
        return Counter(event.unknown_id for event in last.values() if event.unknown_id)

    def everywhere() -> bool:
        seen = {(event.camera_id, event.unknown_id) for _, event in fleet.events() if event.unknown_id}
        at_each = Counter(camera_id for camera_id, _ in seen)
        return len(at_each) == len(cameras.ids) and min(at_each.values()) >= STRANGERS

    def all_told() -> bool:
        """Everywhere, and each of them has a sighting that is over: one that goes on is not in the past yet."""
        return everywhere() and len(told()) >= STRANGERS

    with fleet.running():
        fleet.wait_until(fleet.balanced, 120, "each worker has its share of the cameras")
        passed_s = fleet.wait_until(all_told, PATIENCE_S, "all strangers were seen by all cameras")
        owners = Counter(owner for owner, _ in fleet.owners().values())
        for worker in fleet.workers:
            assert worker.stop(60) == 0, worker.tail()
    found = strangers()
    tell(f"{STRANGERS} strangers before {len(cameras.ids)} cameras of {len(owners)} workers ({passed_s:.0f} s): "
         f"{len(found)} unknown ids, {sum(found.values())} sightings")  # fmt: skip
    assert len(found) == STRANGERS
    assert told() == found

    kept, other = sorted(found)[:2]
    (merged,) = unknown("merge", kept, other)
    together = {who: count for who, count in found.items() if who != other} | {kept: found[kept] + found[other]}
    assert strangers() == together
    assert told() == together
    (undone,) = unknown("undo", merged["step"])
    assert (undone["from"], undone["to"]) == (kept, other)
    assert strangers() == found
    assert told() == found
    corrected = [event for event in accepted(fleet.events()) if event.type == "corrected"]
    assert len(corrected) == 2 * found[other]
    tell(f"one merge and its undo: {len(corrected)} events corrected what was published of {found[other]} sightings")
