"""The dashboards, as Python; ``python deploy/generate.py`` writes the JSON that Grafana reads."""

from typing import Any, Final

from panels import Panel, dashboard, label_variable, panel

_CAMERA: Final = 'camera=~"$camera"'


def _quantile(share: float, metric: str, by: str, where: str = "", over: str = "$__rate_interval") -> str:
    matcher = f"{{{where}}}" if where else ""
    grouping = f"{by}, le" if by else "le"
    return f"histogram_quantile({share}, sum by ({grouping}) (rate({metric}_bucket{matcher}[{over}])))"


def _rate(metric: str, by: str, where: str = "") -> str:
    matcher = f"{{{where}}}" if where else ""
    return f"sum by ({by}) (rate({metric}{matcher}[$__rate_interval]))"


def _mean(metric: str, by: str, where: str, over: str) -> str:
    total, count = (f"sum by ({by}) (increase({metric}_{part}{{{where}}}[{over}]))" for part in ("sum", "count"))
    return f"{total} / {count}"


def fleet() -> dict[str, Any]:
    """Who is blind and why, and how the workers are."""
    now = [
        panel(
            "Blind cameras", "stat",
            "count(max by (camera) (facestream_source_state{state=~\"streaming|ended\"}) == 0) or vector(0)",
            width=4, bad_from=1,
        ),
        panel("Cameras that stream", "stat", 'sum(max by (camera) (facestream_source_state{state="streaming"}))',
              width=4, good=True),
        panel("Cameras that nobody reads", "stat", "max(facestream_fleet_cameras_unowned)", width=4, bad_from=1),
        panel("Workers that answer", "stat", 'sum(up{job="facestream"})', width=4, good=True),
        panel("Events a second", "stat", "sum(rate(facestream_events_published_total[5m]))", unit="reqps", width=4),
        panel("Oldest undelivered event", "stat", "max(facestream_outbox_oldest_seconds)", unit="s", width=4,
              bad_from=60),
    ]  # fmt: skip
    why = [
        panel(
            "Blind cameras, and why", "table",
            'facestream_source_state{state!~"streaming|ended"} == 1',
            columns=("camera", "state", "instance"),
            help="connecting, waiting: the camera cannot be reached; stalled: it is silent; failed: it cannot be read "
            "at all. The whole reason stands in /readyz of the worker and in facestream status.",
        ),
        panel("Alerts", "table", 'ALERTS{alertstate="firing", alertname=~"Facestream.*"}',
              columns=("alertname", "severity", "camera", "instance")),
        panel("Cameras over time", "state-timeline",
              ('max by (camera) (facestream_source_state{state="streaming"})', "{{camera}}"),
              width=24, good=True, help="Green while a worker has frames of the camera."),
    ]  # fmt: skip
    load = [
        panel("Load of each worker", "timeseries", ("facestream_worker_load_ratio", "{{instance}}"),
              unit="percentunit", maximum=1.0, help="Share of time that the pipeline is busy."),
        panel("Cameras of each worker", "timeseries", ("facestream_cameras_owned", "{{instance}}")),
        panel("Frames read", "timeseries", (_rate("facestream_frames_read_total", "camera"), "{{camera}}"),
              unit="reqps"),
        panel("Frames given up for lack of time", "timeseries",
              ("camera:facestream_frames_late:ratio5m", "{{camera}}"), unit="percentunit",
              help="Of those that were worth searching."),
        panel("Where the time goes", "timeseries",
              (_rate("facestream_stage_duration_seconds_sum", "stage"), "{{stage}}"), unit="percentunit",
              help="Seconds of each second, over all workers."),
        panel("Processor", "timeseries",
              (_rate("facestream_process_cpu_seconds_total", "instance"), "{{instance}}")),
        panel("Memory", "timeseries", ("facestream_process_resident_memory_bytes", "{{instance}}"), unit="bytes"),
        panel("Engines", "table", "facestream_engine_info",
              columns=("instance", "stage", "engine", "device", "precision")),
    ]  # fmt: skip
    leases = [
        panel("Since the leases were renewed", "timeseries",
              ("facestream_lease_beat_age_seconds", "{{instance}}"), unit="s"),
        panel("Cameras given up", "timeseries",
              ("sum by (reason) (increase(facestream_leases_lost_total[5m]))", "{{reason}}")),
        panel("Workers that see each other", "timeseries", ("facestream_fleet_workers", "{{instance}}")),
        panel("Age of the gallery", "timeseries", ("facestream_gallery_lag_seconds", "{{instance}}"), unit="s"),
        panel("Rows that wait for the database", "timeseries",
              ('facestream_queue_items{queue="history"}', "{{instance}}")),
        panel("Threads that hang", "timeseries", ("facestream_threads_silent", "{{instance}}")),
    ]  # fmt: skip
    rows = [("Now", now), ("Which camera, and why", why), ("Load", load), ("Fleet", leases)]
    return dashboard("facestream-fleet", "facestream: fleet", rows)


def camera() -> dict[str, Any]:
    """One camera, or some, from the connection to the events."""
    video = [
        panel("State", "state-timeline",
              (f"max by (camera, state) (facestream_source_state{{{_CAMERA}}})", "{{camera}}: {{state}}"), width=24,
              good=True),
        panel("Since the last frame", "timeseries",
              (f"time() - max by (camera) (facestream_last_frame_timestamp_seconds{{{_CAMERA}}})", "{{camera}}"),
              unit="s"),
        panel("Frames read", "timeseries", (_rate("facestream_frames_read_total", "camera", _CAMERA), "{{camera}}"),
              unit="reqps"),
        panel("Frames passed over", "timeseries",
              (_rate("facestream_frames_skipped_total", "camera, reason", _CAMERA), "{{camera}}: {{reason}}"),
              unit="reqps", help="interval, no_motion: they would have told nothing new; load: the worker is late."),
        panel("Frames dropped", "timeseries",
              (_rate("facestream_frames_dropped_total", "camera, reason", _CAMERA), "{{camera}}: {{reason}}"),
              unit="reqps"),
        panel("Epoch of the lease", "timeseries",
              (f"max by (camera) (facestream_camera_epoch{{{_CAMERA}}})", "{{camera}}"),
              help="Rises whenever another worker takes the camera over."),
        panel("Frames that wait", "timeseries", ('facestream_queue_items{queue=~"$camera"}', "{{queue}}")),
    ]  # fmt: skip
    faces = [
        panel("Faces found", "timeseries",
              (_rate("facestream_faces_detected_total", "camera", _CAMERA), "{{camera}}"), unit="reqps"),
        panel("Faces not embedded", "timeseries",
              (_rate("facestream_faces_rejected_total", "camera, reason", _CAMERA), "{{camera}}: {{reason}}"),
              unit="reqps"),
        panel("Quality of faces", "heatmap",
              (f"sum by (le) (increase(facestream_face_quality_bucket{{{_CAMERA}}}[$__rate_interval]))", "{{le}}")),
        panel("How tracks ended", "timeseries",
              (f"sum by (camera, reason) (increase(facestream_tracks_ended_total{{{_CAMERA}}}[5m]))",
               "{{camera}}: {{reason}}")),
    ]  # fmt: skip
    events = [
        panel("Events", "timeseries",
              (_rate("facestream_events_published_total", "camera, type", _CAMERA), "{{camera}}: {{type}}"),
              unit="reqps"),
        panel("From frame to event", "timeseries",
              (_quantile(0.5, "facestream_event_latency_seconds", "camera", _CAMERA, "5m"), "{{camera}}: half"),
              (_quantile(0.95, "facestream_event_latency_seconds", "camera", _CAMERA, "5m"), "{{camera}}: 95 of 100"),
              unit="s"),
        panel("Since the last event", "timeseries",
              (f"time() - max by (camera) (facestream_last_event_timestamp_seconds{{{_CAMERA}}})", "{{camera}}"),
              unit="s"),
    ]  # fmt: skip
    rows = [("Video", video), ("Faces", faces), ("Events", events)]
    choice = [label_variable("camera", "facestream_source_state")]
    return dashboard("facestream-camera", "facestream: camera", rows, choice)


def recognition() -> dict[str, Any]:
    """Whether people are recognised as well as they were."""
    named, unnamed = f'named="yes", {_CAMERA}', f'named="no", {_CAMERA}'
    drift = [
        panel("Quality of faces: one day, and the week before", "timeseries",
              (_mean("facestream_face_quality", "camera", _CAMERA, "1d"), "{{camera}}: one day"),
              (f"camera:facestream_face_quality:mean7d_before{{{_CAMERA}}}", "{{camera}}: week before"), maximum=1.0),
        panel("Similarity of named people: one day, and the week before", "timeseries",
              (_mean("facestream_match_similarity", "camera", named, "1d"), "{{camera}}: one day"),
              (f"camera:facestream_match_similarity:mean7d_before{{{_CAMERA}}}", "{{camera}}: week before"),
              maximum=1.0),
    ]  # fmt: skip
    verdicts = [
        panel("Named people: similarity", "timeseries",
              (_quantile(0.1, "facestream_match_similarity", "camera", named, "1h"), "{{camera}}: lowest tenth"),
              (_quantile(0.5, "facestream_match_similarity", "camera", named, "1h"), "{{camera}}: half"), maximum=1.0,
              help="A lowest tenth that comes near the threshold means that people are about to be missed."),
        panel("Strangers: similarity to the nearest person", "timeseries",
              (_quantile(0.5, "facestream_match_similarity", "camera", unnamed, "1h"), "{{camera}}: half"),
              (_quantile(0.99, "facestream_match_similarity", "camera", unnamed, "1h"), "{{camera}}: 99 of 100"),
              maximum=1.0, help="99 of 100 near the threshold means that strangers are about to be named."),
        panel("Margin to the next person", "timeseries",
              (_quantile(0.1, "facestream_match_margin", "camera", named, "1h"), "{{camera}}: lowest tenth"),
              (_quantile(0.5, "facestream_match_margin", "camera", named, "1h"), "{{camera}}: half")),
        panel("How tracks ended", "timeseries",
              (f"sum by (reason) (increase(facestream_tracks_ended_total{{{_CAMERA}}}[1h]))", "{{reason}}")),
        panel("Faces not embedded", "timeseries",
              (f"sum by (reason) (increase(facestream_faces_rejected_total{{{_CAMERA}}}[1h]))", "{{reason}}")),
        panel("Second model", "timeseries",
              (f"sum by (outcome) (increase(facestream_shadow_verdicts_total{{{_CAMERA}}}[1h]))", "{{outcome}}"),
              help="Only where a shadow gallery is configured."),
    ]  # fmt: skip
    gallery = [
        panel("People", "timeseries", ("facestream_gallery_people", "{{instance}}"), width=8),
        panel("Faces", "timeseries", ("facestream_gallery_samples", "{{instance}}"), width=8),
        panel("Version", "timeseries", ("facestream_gallery_version", "{{instance}}"), width=8),
        panel("Duration of a search", "timeseries",
              (_quantile(0.95, "facestream_stage_duration_seconds", "instance", 'stage="search"'), "{{instance}}"),
              unit="s"),
    ]  # fmt: skip
    rows = [("Drift", drift), ("Verdicts", verdicts), ("Gallery", gallery)]
    choice = [label_variable("camera", "facestream_source_state")]
    return dashboard("facestream-recognition", "facestream: recognition", rows, choice)


def events() -> dict[str, Any]:
    """From the decision to those who read the events."""
    stream = [
        panel("Events published", "timeseries", (_rate("facestream_events_published_total", "type"), "{{type}}"),
              unit="reqps"),
        panel("Events given up", "timeseries",
              ("sum by (camera, reason) (increase(facestream_events_dropped_total[5m]))", "{{camera}}: {{reason}}"),
              help="stale_epoch: another worker owned the camera by then, so these are refused by right."),
        panel("From frame to event", "timeseries",
              *((_quantile(share, "facestream_event_latency_seconds", "", over="5m"), name)
                for share, name in ((0.5, "half"), (0.95, "95 of 100"), (0.99, "99 of 100"))), unit="s"),
        panel("One write to Redis", "timeseries",
              (_quantile(0.95, "facestream_stage_duration_seconds", "instance", 'stage="publish"'), "{{instance}}"),
              unit="s"),
        panel("Redis takes events", "state-timeline", ("facestream_sink_up", "{{instance}}"), good=True),
        panel("Records of past sightings given up", "timeseries",
              ("sum by (reason) (increase(facestream_records_dropped_total[5m]))", "{{reason}}")),
        panel("Past sightings are not recorded", "state-timeline", ("facestream_history_degraded", "{{instance}}"),
              bad_from=1),
        panel("One statement of the database", "timeseries",
              (_quantile(0.95, "facestream_database_statement_seconds", "instance"), "{{instance}}"), unit="s"),
        panel("Connections to the database", "timeseries", ("facestream_database_connections", "{{instance}}")),
    ]  # fmt: skip
    outbox = [
        panel("Events that wait", "timeseries", ("facestream_outbox_events", "{{instance}}"), width=8),
        panel("Age of the oldest", "timeseries", ("facestream_outbox_oldest_seconds", "{{instance}}"), unit="s",
              width=8),
        panel("On disk", "timeseries", ("facestream_outbox_bytes", "{{instance}}"), unit="bytes", width=8),
        panel("Cannot write to its disk", "state-timeline", ("facestream_outbox_degraded", "{{instance}}"),
              bad_from=1),
    ]  # fmt: skip
    consumers = [
        panel("Entries that a group has yet to read", "timeseries",
              ("max by (group) (facestream_stream_lag_entries)", "{{group}}"), width=24),
    ]  # fmt: skip
    rows: list[tuple[str, list[Panel]]] = [("Stream", stream), ("Outbox", outbox), ("Consumers", consumers)]
    return dashboard("facestream-events", "facestream: events and consumers", rows)


def console() -> dict[str, Any]:
    """Whether people who look are answered, and soon."""
    pages = [
        panel("Consoles that answer", "stat", 'sum(up{job="facestream-console"})', width=6, good=True),
        panel("Followers", "stat", "sum(facestream_console_listeners)", width=6,
              help="Pages and programs that follow live events."),
        panel("Followers sent away", "stat", "sum(increase(facestream_console_listeners_sent_away_total[1h]))", width=6,
              bad_from=1),
        panel("Log-ins refused", "stat", 'sum(increase(facestream_console_logins_total{outcome!="ok"}[1h]))', width=6),
        panel("Answers", "timeseries",
              (_rate("facestream_console_requests_total", "kind, status"), "{{kind}} {{status}}"), unit="reqps"),
        panel("Until an answer begins: 95 of 100", "timeseries",
              (_quantile(0.95, "facestream_console_request_seconds", "kind"), "{{kind}}"), unit="s"),
        panel("From the stream to the page", "timeseries",
              (_quantile(0.5, "facestream_console_event_delay_seconds", "", over="5m"), "half"),
              (_quantile(0.95, "facestream_console_event_delay_seconds", "", over="5m"), "95 of 100"), unit="s"),
        panel("Log-ins", "timeseries",
              ("sum by (outcome) (increase(facestream_console_logins_total[10m]))", "{{outcome}}"),
              help="limited: too many had failed, and the password was not looked at."),
    ]  # fmt: skip
    rules = [
        panel("Alerts that wait", "stat", "max(facestream_console_alerts_waiting)", width=6, bad_from=1),
        panel("Age of the oldest", "stat", "max(facestream_console_alert_oldest_seconds)", width=6, unit="s"),
        panel("Alerts given up", "stat",
              'sum(increase(facestream_console_alert_deliveries_total{outcome="given_up"}[1h]))', width=6, bad_from=1),
        panel("Until an alert is delivered: 95 of 100", "stat",
              _quantile(0.95, "facestream_console_alert_seconds", "", over="1h"), width=6, unit="s"),
        panel("Events about which rules were asked", "timeseries",
              ("sum(rate(facestream_console_rules_events_total[5m]))", "events"), unit="cps"),
        panel("Deliveries", "timeseries",
              ("sum by (outcome) (increase(facestream_console_alert_deliveries_total[10m]))", "{{outcome}}"),
              help="postponed: the receiver is away, and is tried again."),
    ]  # fmt: skip
    return dashboard("facestream-console", "facestream: console", [("Console", pages), ("Rules", rules)])


DASHBOARDS: Final = {
    "fleet": fleet,
    "camera": camera,
    "recognition": recognition,
    "events": events,
    "console": console,
}
