"""What a worker tells of itself, and what ``facestream status`` makes of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.support.command_line import facestream
from tests.support.waiting import eventually
from worker.cli.status_table import status_text
from worker.config import Config, FleetConfig, MetricsConfig, load_config
from worker.service.health import Health, HealthServer
from worker.service.metrics import PrometheusObserver
from worker.service.reporting import StatusBoard, StatusReporter
from worker.service.status import WorkerStatus, age_s, condition_of, reported
from worker.video.cameras import Cameras
from worker.wire import rfc3339


class Rig:
    def __init__(self) -> None:
        self.config = load_config(None, {"worker_id": "w1"})
        self.observer, self.health = PrometheusObserver(), Health()
        self.cameras = SomeCameras(self.config, self.observer)
        self.board = StatusBoard("w1", self.observer, self.health, self.cameras, lambda: {"lobby": 7})


class SomeCameras(Cameras):
    """Cameras whose sources say what a test wants."""

    def __init__(self, config: Config, observer: PrometheusObserver) -> None:
        super().__init__(config, observer, lasting=True)
        self.told = {"lobby": ("streaming", ""), "door": ("waiting", "rtsp://10.0.0.5: [111] refused")}

    def states(self) -> dict[str, tuple[str, str]]:
        return self.told


@pytest.fixture
def rig() -> Rig:
    return Rig()


def fresh(rig: Rig) -> dict[str, Any]:
    """A report that counts as just made for a minute: on a busy machine a command starts slowly."""
    return rig.board.status().document() | {"at": (datetime.now(UTC) + timedelta(minutes=1)).isoformat()}


def test_a_camera_is_told_with_its_state_and_what_came_of_it(rig: Rig) -> None:
    rig.board.status()
    for _ in range(50):
        rig.observer.frame_read("lobby")
    rig.observer.event_published("lobby", "started")
    for seconds in (0.12, 0.12, 0.7):
        rig.observer.event_latency("lobby", seconds)
    rig.observer.frame_dropped("lobby", "stale", 3)
    rig.observer.face_rejected("lobby", "blurred", 2)
    door, lobby = rig.board.status().cameras
    assert (door.camera_id, door.state, door.reason, door.fps) == (
        "door",
        "waiting",
        "rtsp://10.0.0.5: [111] refused",
        0,
    )
    assert door.last_event_age_s is None
    assert (lobby.state, lobby.epoch) == ("streaming", 7)
    assert lobby.fps > 0
    assert lobby.last_event_age_s is not None
    assert lobby.last_event_age_s < 10
    assert lobby.latency_p95_s == 0.75
    assert (set(lobby.drops), set(lobby.refused)) == ({"stale"}, {"blurred"})
    assert (door.drops, door.refused) == ({}, {})


def test_what_keeps_a_worker_from_being_ready_stands_in_its_status(rig: Rig) -> None:
    rig.health.condition("redis", "Redis cannot be reached")
    status = rig.board.status()
    assert not status.ready
    assert status.reasons == {"redis": "Redis cannot be reached"}


def test_the_database_of_a_fleet_stands_in_the_status(rig: Rig) -> None:
    assert rig.board.status().database is None
    away = ["no answer within 30 s"]
    rig.board.watch_database(lambda: away[0], 7)
    rig.observer.gallery_current()
    rig.observer.queue_depth("history", 12)
    found = rig.board.status()
    assert found.database is not None
    assert (found.database.reachable, found.database.problem) == (False, "no answer within 30 s")
    assert (found.database.waiting_rows, found.database.layout) == (12, 7)
    assert found.database.copy_age_s is not None
    assert WorkerStatus.parse(found.document()).database == found.database
    text = str(status_text([found], {}, [], 120))
    assert "database: away (no answer within 30 s), copy of the gallery 0 s old, 12 rows waiting, layout 7" in text
    away[0] = ""
    rig.observer.history_degraded(degraded=True)
    written = rig.board.status().database
    assert written is not None
    assert "cannot be written" in written.problem
    rig.observer.history_degraded(degraded=False)
    assert "database: reachable, " in str(status_text([rig.board.status()], {}, [], 120))


def test_whoever_asks_for_a_status_loads_nothing_that_a_worker_is_made_of() -> None:
    program = (
        "import sys\n"
        "import worker.cli.status_table, worker.fleet.registry, worker.service.status\n"
        "print([name for name in ('numpy', 'cv2', 'av', 'prometheus_client', 'sqlalchemy') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_status_survives_its_document_also_from_a_later_version(rig: Rig) -> None:
    status = rig.board.status()
    document = json.loads(json.dumps(status.document()))
    document["new"] = document["cameras"][0]["newer"] = 1
    assert WorkerStatus.parse(document) == status
    with pytest.raises(ValueError, match="status"):
        WorkerStatus.parse({"cameras": []})


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def test_a_worker_reports_to_its_fleet_until_it_leaves(rig: Rig, client: redis.Redis) -> None:
    fleet = FleetConfig().name
    reporter = StatusReporter(client, fleet, rig.board)
    reporter.start()
    try:
        assert eventually(lambda: list(reported(client, fleet)))[0].worker_id == "w1"
    finally:
        reporter.close()
    assert list(reported(client, fleet)) == []


@pytest.mark.parametrize("off_h", [-1, 1])
def test_a_worker_whose_clock_is_an_hour_off_is_neither_gone_nor_of_the_future(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch, off_h: int
) -> None:
    wrong = rfc3339(datetime.now(UTC) + timedelta(hours=off_h))
    monkeypatch.setattr("worker.service.reporting.now_rfc3339", lambda: wrong)
    reporter = StatusReporter(client, "facestream", Rig().board)
    reporter.start()
    try:
        [status] = eventually(lambda: list(reported(client, "facestream")))
    finally:
        reporter.close()
    assert condition_of(status) != "gone"
    assert abs(age_s(status)) < 1800


def test_who_has_been_silent_for_a_day_is_forgotten(rig: Rig, client: redis.Redis) -> None:
    old = {**rig.board.status().document(), "at": (datetime.now(UTC) - timedelta(days=2)).isoformat()}
    client.hset("{facestream}:status", "w0", json.dumps(old))
    client.hset("{facestream}:status", "broken", "[]")
    assert list(reported(client, "facestream")) == []
    assert client.hkeys("{facestream}:status") == [b"broken"]


def test_the_command_shows_a_worker_that_is_asked_itself(rig: Rig) -> None:
    rig.health.describe(lambda: rig.board.status().document())
    with closing(HealthServer(MetricsConfig(host="127.0.0.1", port=0), rig.health, rig.observer.registry)) as server:
        url = f"http://127.0.0.1:{server.port}"
        shown = facestream("status", "--worker", url, "--once", COLUMNS="200")
        as_json = facestream("status", "--worker", url, "--json")
    assert shown.code == 0, shown.stderr
    assert "lobby" in shown.stdout
    assert "[111] refused" in shown.stdout
    assert as_json.documents[0]["cameras"][1]["camera_id"] == "lobby"


def test_a_port_that_is_no_worker_s_is_an_error_in_one_line() -> None:
    told = facestream("status", "--worker", "http://user:hunter2@127.0.0.1:9", "--once")
    error = told.only_error(1)
    assert "no status from" in error
    assert "hunter2" not in error


def test_cameras_that_nobody_reads_stand_first(rig: Rig, redis_url: str, client: redis.Redis) -> None:
    added = facestream("camera", "add", "yard", "rtsp://10.0.0.9/stream", "--redis", redis_url)
    assert added.code == 0, added.stderr
    client.hset("{facestream}:status", "w1", json.dumps(fresh(rig)))
    shown = facestream("status", "--redis", redis_url, "--once", COLUMNS="200")
    assert shown.code == 0, shown.stderr
    assert "nobody reads it" in shown.stdout
    assert shown.stdout.index("yard") < shown.stdout.index("door") < shown.stdout.index("lobby")


def test_silence_is_told_and_not_a_state_of_the_past(rig: Rig, redis_url: str, client: redis.Redis) -> None:
    silent = {**rig.board.status().document(), "at": (datetime.now(UTC) - timedelta(minutes=5)).isoformat()}
    client.hset("{facestream}:status", "w1", json.dumps(silent))
    shown = facestream("status", "--redis", redis_url, "--once", COLUMNS="200")
    assert shown.stdout.count("worker gone") == 2
    assert "last heard of 5 min ago" in shown.stdout
    assert "streaming" not in shown.stdout
    assert "0%" not in shown.stdout
    [as_json] = facestream("status", "--redis", redis_url, "--json").documents
    assert as_json["state"] == "gone"
    silent["at"] = (datetime.now(UTC) - timedelta(seconds=10)).isoformat()
    client.hset("{facestream}:status", "w1", json.dumps(silent))
    assert "worker silent" in facestream("status", "--redis", redis_url, "--once", COLUMNS="200").stdout


def test_workers_of_one_name_stand_beside_each_other(rig: Rig, redis_url: str, client: redis.Redis) -> None:
    reporters = [StatusReporter(client, "facestream", Rig().board) for _ in range(2)]
    for reporter in reporters:
        reporter.start()
    try:
        assert eventually(lambda: len(list(reported(client, "facestream"))) == 2)
        shown = facestream("status", "--redis", redis_url, "--once", COLUMNS="200").stdout
    finally:
        reporters[0].close()
    assert "Several workers are called w1: give each a name of its own with --worker-id" in shown
    assert [status.worker_id for status in reported(client, "facestream")] == ["w1"]
    reporters[1].close()
    assert list(reported(client, "facestream")) == []


def test_a_worker_that_was_started_again_is_one_worker(rig: Rig, client: redis.Redis) -> None:
    now = rig.board.status().document()
    killed = {**now, "at": (datetime.now(UTC) - timedelta(minutes=4)).isoformat(), "uptime_s": 900.0}
    client.hset("{facestream}:status", "w1:old", json.dumps(killed))
    [alone] = reported(client, "facestream")
    assert condition_of(alone) == "gone"
    client.hset("{facestream}:status", "w1:new", json.dumps({**now, "uptime_s": 60.0}))
    [after] = reported(client, "facestream")
    assert condition_of(after) == "ready"
    # Another process of the name that was there before that one fell silent is another worker.
    client.hset("{facestream}:status", "w1:new", json.dumps({**now, "uptime_s": 600.0}))
    assert len(list(reported(client, "facestream"))) == 2


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_table_fits_the_screen_and_cuts_no_word(width: int, rig: Rig, redis_url: str, client: redis.Redis) -> None:
    reason = "rtsp://10.0.0.5:554/stream1 cannot be opened: [111] Connection refused; is it on, is the address right?"
    long = "a-camera-with-a-long-name-in-the-basement-of-building-seven"
    rig.cameras.told = {"lobby": ("streaming", ""), "door": ("waiting", reason), long: ("streaming", "")}
    rig.health.condition("redis", reason)
    client.hset("{facestream}:status", "w1", json.dumps(fresh(rig) | {"worker_id": "kiosk-entrance"}))
    shown = facestream("status", "--redis", redis_url, "--once", COLUMNS=str(width)).stdout
    lines = shown.splitlines()
    assert max(map(len, lines)) <= width
    assert {*reason.split(), long, "kiosk-entrance", "streaming"} <= set(shown.split())
    door = next(number for number, line in enumerate(lines) if line.startswith("door"))
    assert "rtsp" not in lines[door], "a reason has lines of its own"


def test_an_empty_fleet_leads_to_the_worker_itself(redis_url: str) -> None:
    shown = facestream("status", "--redis", redis_url, "--once", COLUMNS="80").stdout
    assert "--worker http://HOST:9464" in shown


def test_of_a_camera_that_was_taken_over_only_its_owner_is_shown(rig: Rig, redis_url: str, client: redis.Redis) -> None:
    status = fresh(rig)
    for worker_id, epoch in (("w1", 7), ("w2", 8)):
        cameras = [{**status["cameras"][1], "epoch": epoch}]
        client.hset(
            "{facestream}:status", worker_id, json.dumps({**status, "worker_id": worker_id, "cameras": cameras})
        )
    shown = facestream("status", "--redis", redis_url, "--once", COLUMNS="200")
    (row,) = [line for line in shown.stdout.splitlines() if "lobby" in line]
    assert "w2" in row


def test_a_worker_with_a_token_is_asked_with_it(rig: Rig, tmp_path: Path) -> None:
    token = "0123456789abcdef-t0ken"
    (tmp_path / "token").write_text(f"{token}\n")
    rig.health.describe(lambda: rig.board.status().document())
    with closing(HealthServer(MetricsConfig(port=0, token=token), rig.health, rig.observer.registry)) as server:
        url = f"http://127.0.0.1:{server.port}"
        without = facestream("status", "--worker", url, "--once")
        shown = facestream("status", "--worker", url, "--once", "--token-file", tmp_path / "token")
    assert "--token-file" in without.only_error(1)
    assert (shown.code, "lobby" in shown.stdout) == (0, True)
