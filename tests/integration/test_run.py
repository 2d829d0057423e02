"""The worker from its command line: real footage and people in, a real Redis out, and what is in between broken."""

import json
import signal
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import jsonschema
import pytest
import redis
import yaml

from tests.support.command_line import RETAIL, Ended, Running, facestream, running, worker_arguments
from tests.support.ground_truth import GroundTruth, make_ground_truth_clip
from tests.support.redis_servers import RedisServer
from tests.support.repository import REPOSITORY
from tests.support.rtsp import RtspServer, require_rtsp

pytestmark = [pytest.mark.data, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(180)]

CONTRACT_FIELDS = {
    "schema", "event_id", "type", "camera_id", "track_id", "sighting_id", "identity_id", "identity_name", "similarity",
    "threshold", "margin", "quality", "box", "frame_size", "captured_at", "started_at", "ended_at", "pts_s",
    "model_id", "gallery_version", "worker_id", "epoch",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Truth:
    """A clip with known people, their gallery, and what the worker said of it."""

    clip: GroundTruth
    gallery: Path
    run: Ended
    stream: list[dict[str, str]]
    redis_url: str

    def of(self, kind: str) -> list[dict[str, str]]:
        return [event for event in self.stream if event["type"] == kind]


def entries(url: str, stream: str = "facestream:events") -> list[dict[str, str]]:
    with redis.Redis.from_url(url, decode_responses=True) as client:
        return [fields for _, fields in client.xrange(stream)]


def cut(clip: Path, target: Path, frames: int) -> Path:
    """The first ``frames`` packets of a clip, not compressed again."""
    with av.open(str(clip)) as source, av.open(str(target), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number >= frames or packet.dts is None:
                break
            packet.stream = stream
            copy.mux(packet)
    return target


def assert_sightings_are_whole(events: list[dict[str, str]]) -> None:
    """Of each sighting one ``started``, first, and one ``ended``, last; no event twice."""
    assert len({event["event_id"] for event in events}) == len(events)
    for sighting in {event["sighting_id"] for event in events}:
        kinds = [event["type"] for event in events if event["sighting_id"] == sighting]
        assert kinds[0] == "started"
        assert kinds[-1] == "ended"
        assert set(kinds[1:-1]) <= {"updated"}, kinds


def assert_no_thread_died(ended: Ended) -> None:
    """Nothing was logged as an error, nor with a traceback."""
    logged = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith("{")]
    assert [entry for entry in logged if entry["level"] == "error" or "exception" in entry] == []
    assert ended.complaints == []


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Any:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def truth(test_data: Path, own_redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """One run of the ground-truth clip that many tests look at."""
    folder = tmp_path_factory.mktemp("truth")
    # With this seed no stranger resembles an enrolled person: how often that happens is measured by the benchmarks.
    clip = make_ground_truth_clip(test_data / "lfw_dev", folder, seed=4)
    gallery = folder / "gallery"
    enrolled = facestream(
        "enroll", "--gallery", gallery, "--model", RETAIL, "--models-dir", test_data / "models", "--json",
        clip.enroll_folder,
    )  # fmt: skip
    assert enrolled.code == 0, enrolled
    assert [document["accepted"] for document in enrolled.documents] == [True] * 8
    run = facestream(
        *worker_arguments(clip.clip, own_redis.url, test_data, "--camera-id", "gate", "--gallery", gallery, "--json")
    )
    assert run.code == 0, run
    return Truth(clip, gallery, run, entries(own_redis.url), own_redis.url)


def test_everybody_enrolled_is_reported_once_by_name(truth: Truth) -> None:
    enrolled = {visit.name for visit in truth.clip.visits if visit.enrolled}
    named = Counter(event["identity_name"] for event in truth.of("started") if event["identity_name"])
    assert {name: named[name] for name in enrolled} == dict.fromkeys(enrolled, 1)
    ever_named = {event["identity_name"] for event in truth.stream} - {""}
    assert len(ever_named - enrolled) == 0
    # A stranger with a name would be a further sighting of somebody enrolled.
    assert sum(named.values()) <= len(enrolled) + 1


def test_a_name_stands_where_its_person_is(truth: Truth) -> None:
    visits = {visit.name: visit for visit in truth.clip.visits}
    for event in truth.of("started"):
        if event["identity_name"]:
            visit = visits[event["identity_name"]]
            assert visit.start_s - 0.2 <= float(event["pts_s"]) <= visit.end_s + 0.2
            x1, y1, x2, y2 = map(float, event["box"].split(","))
            near = min(visit.boxes, key=lambda frame: abs(frame / 25 - float(event["pts_s"])))
            left, top, right, bottom = visit.boxes[near]
            assert abs((x1 + x2) - (left + right)) / 2 < (right - left) / 2
            assert abs((y1 + y2) - (top + bottom)) / 2 < (bottom - top) / 2


def test_a_visit_is_one_sighting(truth: Truth) -> None:
    assert_sightings_are_whole(truth.stream)
    assert len(truth.clip.visits) <= len(truth.of("started")) <= len(truth.clip.visits) + 2


def test_events_have_all_fields_of_the_contract(truth: Truth) -> None:
    schema = json.loads((files("worker") / "schemas" / "sighting.v1.json").read_text())
    for event in truth.stream:
        assert event.keys() >= CONTRACT_FIELDS
        jsonschema.validate(event, schema)
        assert event["schema"] == "facestream.sighting.v1"
        assert (event["camera_id"], event["model_id"], event["epoch"]) == ("gate", RETAIL, "0")
        assert event["frame_size"] == "1280,720"
        assert bool(event["ended_at"]) == (event["type"] == "ended")
        assert bool(event["identity_id"]) == bool(event["identity_name"])
        assert event["started_at"] <= event["captured_at"]
        if event["identity_name"]:
            assert float(event["similarity"]) >= float(event["threshold"])


def test_run_prints_the_events_of_the_stream_and_a_summary(truth: Truth) -> None:
    *events, last = truth.run.documents
    assert events == truth.stream
    summary = last["summary"]
    assert summary["frames"] == truth.clip.frames
    assert summary["events"] == len(truth.stream)
    assert summary["tracks"] >= len(truth.clip.visits)
    assert summary["faces"] > summary["tracks"]
    assert summary["dropped"] == {}
    assert summary["fps"] > 0
    assert summary["duration_s"] > 0
    assert_no_thread_died(truth.run)


def test_tail_shows_what_the_stream_holds(truth: Truth) -> None:
    shown = facestream("tail", "--redis", truth.redis_url, "--from", "0", "--no-follow", "--json")
    assert (shown.code, shown.stderr) == (0, "")
    assert shown.documents == truth.stream
    table = facestream("tail", "--redis", truth.redis_url, "--from", "0", "-n", 3)
    heading, *rows = table.stdout.splitlines()
    assert "who" in heading
    assert len(rows) == 3
    assert all(event["sighting_id"] in row for event, row in zip(truth.stream, rows, strict=False))


def test_two_runs_of_a_file_give_the_same_ids(test_data: Path, redis_url: str, tmp_path: Path) -> None:
    clip = cut(test_data / "video" / "crowd_1080p.mp4", tmp_path / "crowd.mp4", 25)
    streams = []
    for name in ("first", "second"):
        more = ("--model", RETAIL, "--stream", name)
        run = facestream(*worker_arguments(clip, redis_url, test_data, *more))
        assert run.code == 0, run
        assert run.stdout.startswith("25 frames, ")
        assert len(run.stdout.splitlines()) == 1
        assert_sightings_are_whole(entries(redis_url, name))
        streams.append({event["event_id"] for event in entries(redis_url, name)})
    assert streams[0] == streams[1]
    assert len(streams[0]) >= 2 * 3


def test_files_of_every_kind_in_one_worker(test_data: Path, truth: Truth, redis_url: str, tmp_path: Path) -> None:
    video = test_data / "video"
    sources = {
        "walking": video / "walking.gif",
        "heads": video / "two_heads.gif",
        "alexandria": video / "speaker_alexandria_ocasio_cortez.mp4",
        "katie": video / "speaker_katie_hill.mp4",
    }
    config = tmp_path / "worker.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "cameras": [{"id": name, "source": str(path)} for name, path in sources.items()],
                "gallery": str(truth.gallery),
                "models_dir": str(test_data / "models"),
                "redis": {"url": redis_url},
                "metrics": {"enabled": False},
            }
        )
    )
    run = facestream("run", "--config", config, "--json")
    assert run.code == 0, run
    events = entries(redis_url)
    assert_sightings_are_whole(events)
    seen = Counter(event["camera_id"] for event in events if event["type"] == "started")
    assert seen["alexandria"] == 1
    assert seen["katie"] == 1
    assert seen["heads"] >= 1
    assert {event["identity_name"] for event in events} == {""}
    assert run.documents[-1]["summary"]["frames"] == sum(frames_of(path) for path in sources.values())
    assert run.complaints == []


def frames_of(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_nobody_is_named_where_no_face_is_seen(test_data: Path, truth: Truth, redis_url: str) -> None:
    clip = test_data / "video" / "one_by_one_no_faces.mp4"
    run = facestream(*worker_arguments(clip, redis_url, test_data, "--gallery", truth.gallery, "--json"))
    assert run.code == 0, run
    assert run.documents[-1]["summary"]["frames"] == 1394
    assert {event["identity_name"] for event in entries(redis_url)} <= {""}


# Live sources: the clip from an RTSP server.


@pytest.fixture(scope="module")
def camera(truth: Truth) -> Any:
    require_rtsp()
    server = RtspServer({"/gate": truth.clip.clip})
    server.start()
    yield server
    server.stop()


def live(camera: RtspServer, truth: Truth, redis_url: str, test_data: Path, *more: object) -> list[object]:
    return worker_arguments(
        camera.url("/gate"), redis_url, test_data, "--camera-id", "gate", "--gallery", truth.gallery, *more
    )


def state(worker: Running, name: str) -> bool:
    return worker.metric(f'facestream_source_state{{camera="gate",state="{name}"}}') == 1


def read(worker: Running) -> float:
    return worker.metric('facestream_frames_read_total{camera="gate"}')


@pytest.mark.rtsp
def test_a_camera_that_drops_comes_back(
    camera: RtspServer, truth: Truth, redis_url: str, test_data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "worker.yaml"
    patience = {"read_timeout_s": 1, "reconnect_initial_s": 0.1, "reconnect_max_s": 0.3}
    config.write_text(
        yaml.safe_dump(
            {
                "cameras": [{"id": "gate", "source": camera.url("/gate"), **patience}],
                "gallery": str(truth.gallery),
                "models_dir": str(test_data / "models"),
                "redis": {"url": redis_url},
                "metrics": {"port": 0, "host": "127.0.0.1"},
            }
        )
    )
    with running("run", "--config", config) as worker:
        worker.until(lambda: any(event["identity_name"] for event in entries(redis_url)))
        assert state(worker, "streaming")
        camera.stop()
        worker.until(lambda: state(worker, "waiting") or state(worker, "stalled"))
        assert not state(worker, "streaming")
        status, body = worker.get("/readyz")
        assert status == 503
        assert "gate" in json.loads(body)["reasons"]["sources"]
        assert worker.get("/healthz")[0] == 200
        before, known = read(worker), len(entries(redis_url))
        camera.start()
        worker.until(lambda: state(worker, "streaming") and read(worker) > before + 20)
        assert worker.get("/readyz")[0] == 200
        worker.until(lambda: len(entries(redis_url)) > known)
        ended = worker.end(signal.SIGTERM)
    assert ended.code == 0, ended
    assert_sightings_are_whole(entries(redis_url))
    assert_no_thread_died(ended)


@pytest.mark.rtsp
def test_a_redis_that_dies_stops_no_camera(
    camera: RtspServer, truth: Truth, redis_server: RedisServer, test_data: Path
) -> None:
    with running(*live(camera, truth, redis_server.url, test_data)) as worker:
        worker.until(lambda: entries(redis_server.url))
        assert worker.get("/readyz")[0] == 200
        assert_metrics_make_sense(worker)
        redis_server.stop()
        status, body = worker.until(lambda: (answer := worker.get("/readyz"))[0] == 503 and answer)
        assert "cannot be reached" in json.loads(body)["reasons"]["redis"]
        assert status == 503
        assert worker.metric("facestream_sink_up") == 0
        before = read(worker)
        worker.until(lambda: read(worker) > before + 25)
        assert worker.get("/healthz")[0] == 200
        worker.until(lambda: worker.metric('facestream_queue_items{queue="outbox"}') > 0)
        redis_server.start()
        worker.until(lambda: worker.metric("facestream_sink_up") == 1)
        worker.until(lambda: entries(redis_server.url))
        assert worker.get("/readyz")[0] == 200
        ended = worker.end(signal.SIGTERM)
    assert ended.code == 0, ended
    assert_no_thread_died(ended)
    # Redis forgot what it held when it was killed: all that came after is here, in order.
    kept = entries(redis_server.url)
    assert all(earlier["captured_at"] <= later["captured_at"] for earlier, later in pairwise(kept[:-8]))
    assert kept[-1]["type"] == "ended"


def assert_metrics_make_sense(worker: Running) -> None:
    status, text = worker.get("/metrics")
    assert status == 200
    documented = REPOSITORY / "docs" / "metrics.md"
    rows = [line.split("|") for line in documented.read_text().splitlines() if line.startswith("| `facestream_")]
    rows = [row for row in rows if not row[1].strip().startswith("`facestream_console_")]
    for name, kind in ((row[1].strip().strip("`"), row[2].strip()) for row in rows):
        assert f"# TYPE {name} {kind}" in text, name
    assert worker.metric("facestream_gallery_people") == 8
    assert worker.metric("facestream_gallery_samples") == 8
    assert worker.metric("facestream_sink_up") == 1
    assert worker.metric('facestream_faces_detected_total{camera="gate"}') > 0
    assert worker.metric('facestream_events_published_total{camera="gate",type="started"}') > 0
    assert worker.metric('facestream_stage_duration_seconds_count{stage="detect"}') > 0
    assert worker.metric('facestream_batch_items_count{stage="detect"}') > 0
    assert 50e6 < worker.metric("facestream_process_resident_memory_bytes") < 4e9


# Signals.


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_while_it_runs_loses_nothing(
    truth: Truth, redis_url: str, test_data: Path, number: signal.Signals, code: int
) -> None:
    arguments = worker_arguments(truth.clip.clip, redis_url, test_data, "--gallery", truth.gallery, "--json")
    with running(*arguments) as worker:
        worker.until(lambda: len(entries(redis_url)) >= 3)
        ended = worker.end(number)
    assert ended.code == code, ended
    events = entries(redis_url)
    assert_sightings_are_whole(events)
    assert len(events) < len(truth.stream)
    assert ended.documents[:-1] == events
    assert ended.documents[-1]["summary"]["events"] == len(events)
    assert_no_thread_died(ended)


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("metrics and health are served", signal.SIGINT, 130),
        ("model loaded", signal.SIGTERM, 0),
        ("source connecting", signal.SIGINT, 130),
    ],
)
def test_a_signal_before_the_first_event(
    truth: Truth, redis_url: str, test_data: Path, moment: str, number: signal.Signals, code: int
) -> None:
    with running(*worker_arguments(truth.clip.clip, redis_url, test_data, "--gallery", truth.gallery)) as worker:
        worker.said(moment)
        ended = worker.end(number)
    assert ended.code == code, ended
    assert ended.complaints == []
    assert_sightings_are_whole(entries(redis_url))


def test_a_second_interrupt_ends_a_slow_stop(truth: Truth, redis_server: RedisServer, test_data: Path) -> None:
    arguments = worker_arguments(truth.clip.clip, redis_server.url, test_data, "--gallery", truth.gallery)
    with running(*arguments) as worker:
        worker.until(lambda: entries(redis_server.url))
        redis_server.stop()
        worker.said("events are kept until Redis takes them")
        worker.process.send_signal(signal.SIGINT)
        worker.said("source ended")
        ended = worker.end(signal.SIGINT, timeout_s=8)
    assert ended.code == 130, ended
    assert ended.complaints == []
