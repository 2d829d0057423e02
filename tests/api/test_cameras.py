"""Cameras by the API: tested on a real RTSP server, added, changed, paused, removed; no password ever comes back."""

import base64
import io
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from PIL import Image

from tests.support.console import API, LONG_S, Console, console_config, running_console
from tests.support.past import sighting
from tests.support.rtsp import RtspServer, camera_with_login
from worker.config import FleetConfig
from worker.fleet.registry import CameraRegistry, decode_camera
from worker.history.records import Account, Tally
from worker.redis.keys import fleet_key
from worker.service.status import CameraStatus, WorkerStatus
from worker.wire import now_rfc3339, rfc3339

CAMERAS = f"{API}/cameras"
SECRET = "s3cret/p:w"
GIVEN = {"camera_id": "door", "source": "rtsp://admin:s3cret%2Fp%3Aw@127.0.0.1:9/1"}
MASK = [[0, 0], [0.5, 0], [0.5, 0.5]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RtspServer]:
    with camera_with_login(tmp_path_factory.mktemp("clips"), "admin:secret") as running:
        yield running


def report(url: str, *cameras: CameraStatus) -> None:
    """A worker tells how its cameras are."""
    status = WorkerStatus(
        worker_id="w-1", at=now_rfc3339(), version="1", uptime_s=5.0, ready=True, reasons={}, outbox_events=0,
        gallery_people=2, gallery_version=1, cameras=list(cameras),
    )  # fmt: skip
    with redis.Redis.from_url(url) as client:
        client.hset(fleet_key(FleetConfig().name, "status"), "w-1:1", status.model_dump_json())


def defined(console: Console, camera_id: str = "door") -> object:
    rows = CameraRegistry(console.parts.redis(), console.parts.config.fleet).cameras()
    (row,) = [row for row in rows if row.definition.camera_id == camera_id]
    return decode_camera(row.definition.document or "", camera_id)


def test_a_camera_is_tested_before_it_is_added_with_a_picture_or_the_reason(
    console: Console, server: RtspServer
) -> None:
    admin = console.as_role("admin")
    good = admin.post(
        f"{CAMERAS}/check", json={"camera_id": "door", "source": server.url("/cam", "admin:secret")}
    ).json()
    assert (good["works"], good["width"], good["height"]) == (True, 320, 240)
    assert Image.open(io.BytesIO(base64.b64decode(good["picture"]))).size == (320, 240)
    for login, path in (("admin:wr0ng", "/cam"), ("admin:secret", "/none")):
        bad = admin.post(f"{CAMERAS}/check", json={"camera_id": "door", "source": server.url(path, login)})
        assert bad.json()["works"] is False
        assert "cannot be opened" in bad.json()["reason"]
        assert login.partition(":")[2] not in bad.text
    assert admin.get(CAMERAS).json()["items"] == [], "a test adds nothing"


def test_addresses_that_the_policy_refuses_are_not_connected_to(tmp_path: Path, redis_url: str) -> None:
    config = console_config(tmp_path, redis_url, network={"refused_ranges": ["loopback", "link-local"]})
    with running_console(config) as console:
        admin = console.as_role("admin")
        for source in ("rtsp://127.0.0.1:9/", "http://localhost:9/", "rtsp://169.254.169.254/latest"):
            told = admin.post(f"{CAMERAS}/check", json={"camera_id": "door", "source": source}).json()
            assert "range of addresses that is refused" in told["reason"], source
        for source in ("/etc/passwd", "0", "file:///etc/passwd", "rtsp://", "concat:a|b"):
            assert admin.post(CAMERAS, json={"camera_id": "door", "source": source}).status_code == 422, source


def test_a_camera_is_added_changed_paused_and_removed_and_its_password_never_shown(console: Console) -> None:
    admin, viewer = console.as_role("admin"), console.as_role("viewer")
    made = admin.post(CAMERAS, json=GIVEN, headers={"Idempotency-Key": "c-1"})
    assert (made.status_code, made.json()["source"]) == (201, "rtsp://***@127.0.0.1:9/1")
    assert admin.post(CAMERAS, json=GIVEN, headers={"Idempotency-Key": "c-1"}).json() == made.json()
    assert admin.post(CAMERAS, json=GIVEN).status_code == 409
    one = f"{CAMERAS}/door"
    change = {"masks": [MASK], "zones": {"till": MASK}, "rotate": 180, "threshold": 0.4}
    changed = admin.patch(one, json=change)
    assert {name: changed.json()[name] for name in change} == change
    assert SECRET in defined(console).source.get_secret_value().replace("%2F", "/").replace("%3A", ":")  # type: ignore[attr-defined]
    assert admin.patch(one, json={"rotate": 0, "threshold": None}).json()["masks"] == [MASK], "the rest stays"
    paused = admin.patch(one, json={"paused": True})
    assert (paused.json()["state"], paused.json()["paused"]) == ("paused", True)
    for answer in (made, changed, paused, viewer.get(CAMERAS), viewer.get(one)):
        assert "s3cret" not in answer.text
    assert admin.patch(one, json={"paused": False}).json()["state"] == "nobody reads it"
    assert admin.delete(one).status_code == 204
    assert admin.get(one).status_code == 404
    assert "camera removed" in (console.parts.audit_folder / "audit.jsonl").read_text()


def test_what_somebody_changed_meanwhile_is_not_overwritten(console: Console) -> None:
    one, other = console.as_role("admin"), console.as_role("admin")
    one.post(CAMERAS, json=GIVEN)
    seen = {"If-Match": one.get(f"{CAMERAS}/door").headers["ETag"]}
    assert other.patch(f"{CAMERAS}/door", json={"rotate": 90}, headers=seen).status_code == 200
    for late in (
        one.patch(f"{CAMERAS}/door", json={"rotate": 270}, headers=seen),
        one.patch(f"{CAMERAS}/door", json={"paused": True}, headers=seen),
        one.delete(f"{CAMERAS}/door", headers=seen),
    ):
        assert (late.status_code, "changed meanwhile" in late.json()["detail"]) == (412, True)
    assert defined(console).rotate == 90  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "change", [{"masks": [[[0, 0], [1, 1]]]}, {"zones": {"a,b": MASK}}, {"rotate": 45},
               {"masks": [[[0, 0], [2, 0], [0, 1]]]}, {"source": "/etc/passwd"}, {"id": "x"}]
)  # fmt: skip
def test_a_change_that_makes_no_sense_is_refused_and_changes_nothing(
    console: Console, change: dict[str, object]
) -> None:
    admin = console.as_role("admin")
    admin.post(CAMERAS, json=GIVEN)
    before = defined(console)
    assert admin.patch(f"{CAMERAS}/door", json=change).status_code == 422
    assert defined(console) == before


def test_the_list_says_how_each_camera_is_and_why(console: Console, redis_url: str) -> None:
    console.as_role("admin").post(CAMERAS, json=GIVEN)
    report(
        redis_url,
        CameraStatus(camera_id="yard", state="streaming", reason="", fps=24.8, drops={"superseded": 2.0},
                     refused={"blurred": 0.5}, latency_p95_s=0.25),
        CameraStatus(camera_id="gate", state="waiting", reason="no answer within 10 s"),
    )  # fmt: skip
    viewer = console.as_role("viewer")
    first = viewer.get(CAMERAS, params={"limit": 2}).json()
    rest = viewer.get(CAMERAS, params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [one["camera_id"] for one in first["items"] + rest["items"]] == ["door", "gate", "yard"]
    yard = rest["items"][0]
    assert (yard["fps"], yard["drops"], yard["refused"], yard["owner"]) == (
        24.8,
        {"superseded": 2.0},
        {"blurred": 0.5},
        "w-1",
    )
    assert (first["items"][1]["state"], first["items"][1]["reason"]) == ("waiting", "no answer within 10 s")
    assert yard["defined"] is False
    refused = console.as_role("admin").patch(f"{CAMERAS}/yard", json={"paused": True})
    assert (refused.status_code, "configuration of its worker" in refused.json()["detail"]) == (409, True)


def test_without_redis_it_says_so(tmp_path: Path) -> None:
    with running_console(console_config(tmp_path, "redis://127.0.0.1:9")) as console:
        assert console.as_role("admin").get(CAMERAS).status_code == 503


def test_focus_and_light_are_told_hour_by_hour(console: Console, redis_url: str) -> None:
    report(redis_url, CameraStatus(camera_id="door", state="streaming", reason="", fps=9.0))
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    account = Account(faces=9, rejected=Counter(blurred=3, too_short=4, exposure=1), embedded=2)
    with console.parts.history() as history:
        history.write(
            [
                sighting(90, started_at=now, ended_at=now, account=account),
                sighting(91, started_at=now - timedelta(days=5), ended_at=now, account=account),
                sighting(92, camera_id="yard", started_at=now, ended_at=now, account=account),
            ],
            tallies=[Tally("door", now - timedelta(hours=3), "blurred", 1, 5), Tally("door", now, "too_short", 1, 9)],
            keep_s=LONG_S,
            remember_s=LONG_S,
        )  # fmt: skip
    viewer = console.as_role("viewer")
    assert viewer.get(f"{CAMERAS}/door/hours").json()["items"] == [
        {"hour": rfc3339(now - timedelta(hours=3)), "faces": 5, "blurred": 5, "exposure": 0},
        {"hour": rfc3339(now), "faces": 6, "blurred": 3, "exposure": 1},
    ]
    assert viewer.get(f"{CAMERAS}/none/hours").status_code == 404
    page = viewer.get("/cameras/door").text
    assert "faces out of focus: 73 % of all" in page
    assert page.count('class="part"') == 4
