import re
import shutil
import subprocess

import pytest
from prometheus_client import generate_latest

from tests.support.repository import REPOSITORY
from worker import __version__
from worker.api.metrics import ConsoleMetrics
from worker.observer import SOURCE_STATES, Observer
from worker.service.metrics import Exposition, PrometheusObserver

DOCUMENT = (REPOSITORY / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.fixture
def used() -> PrometheusObserver:
    """An observer that has been told everything once."""
    observer = PrometheusObserver()
    observer.frame_read("door")
    observer.frame_skipped("door", "no_motion")
    observer.frame_dropped("door", "stale", 3)
    observer.faces_detected("door", 7)
    observer.face_rejected("door", "blurred", 2)
    observer.track_ended("door", "matched")
    observer.face_quality("door", 0.55)
    observer.verdict("door", named=True, similarity=0.61, margin=0.2)
    observer.verdict("door", named=False, similarity=-0.05, margin=None)
    observer.record_dropped("buffer_full", 2)
    observer.shadow_verdict("door", "agree")
    observer.batch("detect", 4)
    observer.second_pass("detect")
    observer.queue_depth("outbox", 5)
    observer.event_published("door", "started")
    observer.event_dropped("door", "buffer_full")
    observer.event_latency("door", 0.25)
    observer.sink_up(True)
    observer.stream_lag({"gone": 9})
    observer.stream_lag({"crm": 4})
    observer.gallery_size(people=10, samples=30, version=4)
    observer.gallery_current()
    observer.entry_refused("camera")
    observer.source_state("door", "streaming")
    observer.lease_gained("door", 1_700_000_000_123)
    observer.lease_lost("rebalanced")
    observer.leases_renewed(3)
    observer.fleet_seen(workers=4, cameras=12, unowned=1)
    observer.worker_load(0.5)
    observer.config_reloaded("taken")
    observer.evidence_dropped("buffer_full")
    observer.history_degraded(degraded=True)
    observer.database_statement(0.01)
    observer.database_connections(2)
    observer.look_late("door")
    observer.decoder_died("door", "killed")
    observer.stage_took("decode", 0.25)
    observer.looks({"door": 2.1}, 3.5)
    observer.engine_loaded("embed", "openvino", "CPU", "bf16")
    with observer.stage("embed"):
        pass
    return observer


def value(observer: PrometheusObserver, name: str, **labels: str) -> float | None:
    return observer.registry.get_sample_value(f"facestream_{name}", labels)


def test_what_stages_report_is_what_prometheus_reads(used: PrometheusObserver) -> None:
    assert value(used, "frames_read_total", camera="door") == 1
    assert value(used, "frames_dropped_total", camera="door", reason="stale") == 3
    assert value(used, "faces_detected_total", camera="door") == 7
    assert value(used, "faces_rejected_total", camera="door", reason="blurred") == 2
    assert value(used, "tracks_ended_total", camera="door", reason="matched") == 1
    assert value(used, "face_quality_bucket", camera="door", le="0.5") == 0
    assert value(used, "face_quality_bucket", camera="door", le="0.6") == 1
    assert value(used, "match_similarity_sum", camera="door", named="yes") == 0.61
    assert value(used, "match_similarity_bucket", camera="door", named="no", le="0.0") == 1
    assert value(used, "match_similarity_sum", camera="door", named="no") == 0
    assert value(used, "match_margin_bucket", camera="door", named="yes", le="0.2") == 1
    assert value(used, "match_margin_count", camera="door", named="no") is None
    assert value(used, "records_dropped_total", reason="buffer_full") == 2
    assert value(used, "history_degraded") == 1
    assert value(used, "late_looks_total", camera="door") == 1
    assert value(used, "decoder_deaths_total", camera="door", fate="killed") == 1
    assert value(used, "stage_duration_seconds_sum", stage="decode") == 0.25
    assert value(used, "look_gap_seconds", camera="door") == 2.1
    assert value(used, "cameras_carried") == 3.5
    assert value(used, "batch_items_sum", stage="detect") == 4
    assert value(used, "queue_items", queue="outbox") == 5
    assert value(used, "events_published_total", camera="door", type="started") == 1
    assert value(used, "events_dropped_total", camera="door", reason="buffer_full") == 1
    assert value(used, "event_latency_seconds_sum", camera="door") == 0.25
    assert value(used, "event_latency_seconds_bucket", camera="door", le="0.2") == 0
    assert value(used, "event_latency_seconds_bucket", camera="door", le="0.3") == 1
    assert value(used, "sink_up") == 1
    assert value(used, "stream_lag_entries", group="crm") == 4
    assert value(used, "stream_lag_entries", group="gone") is None
    assert value(used, "gallery_people") == 10
    assert value(used, "gallery_samples") == 30
    assert value(used, "gallery_version") == 4
    assert value(used, "camera_epoch", camera="door") == 1_700_000_000_123
    assert value(used, "leases_lost_total", reason="rebalanced") == 1
    assert value(used, "cameras_owned") == 3
    assert value(used, "fleet_workers") == 4
    assert value(used, "fleet_cameras") == 12
    assert value(used, "fleet_cameras_unowned") == 1
    assert value(used, "worker_load_ratio") == 0.5
    assert value(used, "stage_duration_seconds_count", stage="embed") == 1
    assert (value(used, "last_frame_timestamp_seconds", camera="door") or 0) > 1_700_000_000
    assert f'version="{__version__}"' in generate_latest(used.registry).decode()


def test_the_age_of_the_last_renewal_grows_by_itself(used: PrometheusObserver) -> None:
    before = value(used, "lease_beat_age_seconds")
    assert before is not None
    assert (value(used, "lease_beat_age_seconds") or 0) > before


def test_the_epoch_of_a_camera_that_was_given_up_is_told_no_more(used: PrometheusObserver) -> None:
    used.lease_ended("door")
    assert value(used, "camera_epoch", camera="door") is None


def test_only_the_engine_in_use_is_told(used: PrometheusObserver) -> None:
    used.engine_loaded("detect", "keras", "GPU", "bf16")
    used.engine_loaded("embed", "keras", "GPU", "fp32")
    assert value(used, "engine_info", stage="embed", engine="openvino", device="CPU", precision="bf16") is None
    assert value(used, "engine_info", stage="embed", engine="keras", device="GPU", precision="fp32") == 1
    assert value(used, "engine_info", stage="detect", engine="keras", device="GPU", precision="bf16") == 1


def test_every_method_of_the_observer_has_a_metric() -> None:
    # The two that are left out tell of the passage of frames, which is for traces.
    reports = {name for name in vars(Observer) if not name.startswith("_")} - {"frames", "close"}
    assert reports <= set(vars(PrometheusObserver)) | set(vars(ConsoleMetrics))


def test_a_source_is_in_one_state_at_a_time() -> None:
    observer = PrometheusObserver()
    for state in SOURCE_STATES:
        observer.source_state("door", state)
        states = {known: value(observer, "source_state", camera="door", state=known) for known in SOURCE_STATES}
        assert states == {known: float(known == state) for known in SOURCE_STATES}


def test_a_stage_that_raises_is_timed_too() -> None:
    observer = PrometheusObserver()
    with pytest.raises(ZeroDivisionError), observer.stage("detect"):
        raise ZeroDivisionError
    assert value(observer, "stage_duration_seconds_count", stage="detect") == 1


def test_the_summary_adds_up_over_cameras_and_reasons(used: PrometheusObserver) -> None:
    used.frame_read("yard")
    used.frame_dropped("yard", "stale", 2)
    used.faces_detected("yard", 1)
    assert used.summary() == {
        "frames": 2,
        "faces": 8,
        "tracks": 1,
        "events": 1,
        "dropped": {"stale": 5, "buffer_full": 1},
        "skipped": {"no_motion": 1},
    }
    nothing = {"frames": 0, "faces": 0, "tracks": 0, "events": 0, "dropped": {}, "skipped": {}}
    assert PrometheusObserver().summary() == nothing


def test_two_observers_share_nothing(used: PrometheusObserver) -> None:
    assert PrometheusObserver().summary()["frames"] == 0


def test_the_document_lists_every_metric_with_type_and_labels_and_no_other(used: PrometheusObserver) -> None:
    real = {}
    for family in used.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        real[name] = (family.type, labels)
    rows = re.findall(r"^\| `(facestream_(?!console_)\w+)` \| (\w+) \| ([^|]*)\|", DOCUMENT, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert documented == real


def test_names_keep_to_the_contract(used: PrometheusObserver) -> None:
    for family in used.registry.collect():
        assert family.name.startswith("facestream_")
        assert family.documentation
        assert not re.search(r"_(ms|milliseconds|percent|px|kb|mb)(_|$)", family.name)


def test_queries_of_the_document_name_real_metrics(used: PrometheusObserver) -> None:
    samples = {sample.name for family in used.registry.collect() for sample in family.samples}
    queries = DOCUMENT.partition("## Questions")[2]
    names = set(re.findall(r"facestream_(?!console_)\w+", queries))
    assert names
    assert names <= samples


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_finds_nothing_to_complain_about(used: PrometheusObserver) -> None:
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=generate_latest(used.registry), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_the_series_of_a_removed_camera_go_and_its_counts_stay_in_the_summary(used: PrometheusObserver) -> None:
    before, cameras = used.summary(), {"lobby", "door"}
    text = Exposition(used.registry).encode().decode()
    assert any(f'camera="{camera}"' in text for camera in cameras)
    for camera in cameras:
        used.camera_removed(camera)
    used.event_published("lobby", "ended")
    used.event_latency("lobby", 0.1)
    used.queue_depth("lobby", 3)
    text = Exposition(used.registry).encode().decode()
    assert 'camera="' not in text.replace('camera="garden"', "")
    assert 'queue="lobby"' not in text
    assert used.summary() == before | {"events": before["events"] + 1}
    used.camera_added("lobby")
    used.frame_read("lobby")
    assert 'camera="lobby"' in Exposition(used.registry).encode().decode()


def test_groups_that_anybody_can_make_are_limited() -> None:
    observer = PrometheusObserver()
    observer.stream_lag({f"group {number} {'x' * 10_000}": number for number in range(5000)})
    text = Exposition(observer.registry).encode().decode()
    assert text.count("facestream_stream_lag_entries{") == 100
    assert len(text) < 100_000
    assert 'group="group 4999 ' in text
