"""The page Health: what is wrong now, and what to do about it."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml

from tests.support.console import API, Console
from tests.support.repository import REPOSITORY
from worker.api.fleet import RUNBOOKS
from worker.config import FleetConfig
from worker.redis.keys import fleet_key
from worker.service.status import CameraStatus, DatabaseStatus, WorkerStatus
from worker.wire import rfc3339

OVER_TIME = {
    "FacestreamCameraUnstable", "FacestreamDecoderDies", "FacestreamEventsDropped", "FacestreamDatabaseSlow",
    "FacestreamStreamLag", "FacestreamWorkerRestarting", "FacestreamLeasesNotRenewed", "FacestreamConfigRefused",
    "FacestreamGpuFallback", "FacestreamQualityDrift", "FacestreamSimilarityDrift", "FacestreamStrangersDrift",
    "FacestreamPeopleResemble", "FacestreamConsoleDown", "FacestreamConsoleSlow", "FacestreamConsoleLate",
    "FacestreamConsoleLogins", "FacestreamRecordsDropped",
}  # fmt: skip
"""What Prometheus alone can tell: it counts over time, or looks at the console from outside."""


def worker(url: str, *cameras: CameraStatus, silent_s: float = -3600.0, **told: Any) -> None:
    """A worker tells how it is; by a clock that is ahead, so that it is not silent on a slow machine."""
    fields = {
        "worker_id": "w-1", "at": rfc3339(datetime.now(UTC) - timedelta(seconds=silent_s)), "version": "1",
        "uptime_s": 5.0, "ready": True, "reasons": {}, "outbox_events": 0, "gallery_people": 2, "gallery_version": 1,
        "cameras": list(cameras),
    }  # fmt: skip
    status = WorkerStatus.model_validate(fields | told)
    with redis.Redis.from_url(url) as client:
        client.hset(fleet_key(FleetConfig().name, "status"), f"{status.worker_id}:1", status.model_dump_json())


def camera(camera_id: str, **told: Any) -> CameraStatus:
    return CameraStatus.model_validate({"camera_id": camera_id, "state": "streaming", "reason": "", "fps": 10.0} | told)


def test_every_alert_that_the_console_can_see_for_itself_has_the_runbook_of_prometheus() -> None:
    rules = [
        rule
        for path in (REPOSITORY / "deploy" / "prometheus" / "rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    pages = {rule["alert"]: Path(rule["annotations"]["runbook_url"].rpartition("/")[2]).stem for rule in rules}
    assert {alert: page for alert, page in pages.items() if alert not in OVER_TIME} == RUNBOOKS


@pytest.mark.parametrize(
    ("cameras", "told", "alerts"),
    [
        ([camera("door")], {}, []),
        ([camera("door", state="waiting", reason="no answer")], {}, ["CameraDown"]),
        ([camera("door", last_frame_age_s=50.0)], {}, ["CameraStalled"]),
        ([camera("door", drops={"undecodable": 1.0, "superseded": 6.0})], {}, ["CameraDamaged", "FallingBehind"]),
        ([camera("door", drops={"undecodable": 0.2, "superseded": 1.0}, latency_p95_s=3.0)], {}, ["EventsLate"]),
        ([], {"silent_s": 60.0}, ["WorkerLost"]),
        ([], {"outbox_events": 500, "reasons": {"redis": "away"}}, ["RedisUnreachable", "OutboxGrowing"]),
        ([], {"reasons": {"outbox": "full", "history": "no sign of life for 9.0 s (limit 5 s)"}},
         ["OutboxDegraded", "ThreadSilent"]),
        ([], {"warnings": {"load": "too slow"}}, ["Overloaded"]),
        ([], {"database": DatabaseStatus(reachable=False, problem="away", copy_age_s=90.0, waiting_rows=7)},
         ["HistoryDegraded", "GalleryOutOfDate"]),
    ],
)  # fmt: skip
def test_what_is_wrong_comes_with_its_alert_and_what_to_do(
    console: Console, redis_url: str, cameras: list[CameraStatus], told: dict[str, Any], alerts: list[str]
) -> None:
    worker(redis_url, *cameras, **told)
    viewer = console.as_role("viewer")
    status = viewer.get(f"{API}/status").json()
    assert [each["alert"].removeprefix("Facestream") for each in status["wrong"]] == alerts
    assert status["problems"] == [each["what"] for each in status["wrong"]]
    links = re.findall(r'href="(/runbooks/[^"]+)"', viewer.get("/health").text)
    assert links == [f"/runbooks/{each['runbook']}" for each in status["wrong"]]
    for link in links:
        assert viewer.get(link).status_code == 200


def test_of_much_that_is_wrong_the_first_are_shown_and_the_others_are_folded(console: Console, redis_url: str) -> None:
    worker(redis_url, *(camera(f"c-{number}", state="waiting", reason="no answer") for number in range(25)))
    text = console.as_role("viewer").get("/health").text
    assert (text.count('href="/runbooks/camera-down"'), "<summary>5 more</summary>" in text) == (25, True)
    assert (
        text.index("c-19: waiting") < text.index("<summary>") < text.index("c-20: waiting") < text.index("</details>")
    )


def test_without_a_worker_and_without_redis_it_says_what_to_do(tmp_path: Path, redis_server: Any) -> None:
    from tests.support.console import console_config, running_console

    with running_console(console_config(tmp_path, redis_server.url)) as console:
        viewer = console.as_role("viewer")
        assert [each["runbook"] for each in viewer.get(f"{API}/status").json()["wrong"]] == ["worker-lost"]
        redis_server.stop()
        assert [each["runbook"] for each in viewer.get(f"{API}/status").json()["wrong"]] == ["redis-unreachable"]


def test_each_runbook_is_a_page_that_leads_to_no_other_place(console: Console) -> None:
    viewer = console.as_role("viewer")
    folder = REPOSITORY / "docs" / "runbooks"
    for path in folder.glob("*.md"):
        text = viewer.get(f"/runbooks/{path.stem}").text
        article = text[text.index("<article") : text.index("</article>")]
        assert f"<h1>{path.read_text().partition(chr(10))[0].removeprefix('# ')}</h1>" in article
        assert article.count("<a ") == article.count("</a>")
        for link in re.findall(r'href="([^"]*)"', article):
            assert link.startswith("https://") or viewer.get(link).status_code == 200, (path.name, link)
    assert "<table>" in viewer.get("/runbooks/camera-down").text
    assert viewer.get("/runbooks/none").status_code == 404
    assert viewer.get("/runbooks/..%2F..%2FREADME").status_code == 404
    assert console.anybody().get("/runbooks/camera-down").status_code == 303
