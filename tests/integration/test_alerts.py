"""The alert for a dead camera, from end to end: a real camera server, worker and Prometheus, with the shipped rules."""

import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_line import RETAIL, running
from tests.support.prometheus_server import PrometheusServer, require_prometheus
from tests.support.repository import REPOSITORY
from tests.support.rtsp import RtspServer

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(150)]

DEPLOY = REPOSITORY / "deploy" / "prometheus"
TOLD_WITHIN_S = 30


def shipped_configuration(port: int) -> dict[str, Any]:
    """``deploy/prometheus/prometheus.yml`` as it is, but for the worker's address."""
    config: dict[str, Any] = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["rule_files"] = [f"{DEPLOY}/rules/*.yml"]
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "facestream")
    job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
    config["scrape_configs"] = [job]
    return config


def test_the_alert_for_a_dead_camera_fires_within_half_a_minute_and_resolves(
    rtsp_server: RtspServer, redis_url: str, test_data: Path, tmp_path: Path
) -> None:
    require_prometheus()
    config = tmp_path / "worker.yaml"
    camera = {"id": "door", "source": rtsp_server.url("/clip"), "reconnect_max_s": 1.0}
    config.write_text(yaml.safe_dump({"cameras": [camera]}))
    arguments = ["--redis", redis_url, "--models-dir", test_data / "models", "--model", RETAIL, "--metrics-port", 0]
    with running("run", "--config", config, *arguments) as worker:
        prometheus = PrometheusServer(tmp_path, shipped_configuration(worker.port))
        prometheus.start()
        try:
            streaming = 'facestream_source_state{state="streaming"} == 1'
            worker.until(lambda: prometheus.query(streaming))
            # A camera that is being connected counts as blind, until the rules are evaluated again.
            worker.until(lambda: not prometheus.alerts("FacestreamCameraDown"), timeout_s=TOLD_WITHIN_S)

            rtsp_server.stop()
            killed_s = time.monotonic()
            (alert,) = worker.until(lambda: firing(prometheus), timeout_s=TOLD_WITHIN_S)
            fired_s = time.monotonic()
            assert alert["labels"] | {"alertname": ""} == {
                "alertname": "", "job": "facestream", "camera": "door", "severity": "page",
            }  # fmt: skip
            assert alert["annotations"]["summary"].startswith("Camera door is blind: ")
            assert any(state in alert["annotations"]["summary"] for state in ("waiting", "connecting"))

            rtsp_server.start()
            back_s = time.monotonic()
            worker.until(lambda: not prometheus.alerts("FacestreamCameraDown"), timeout_s=TOLD_WITHIN_S)
            resolved_s = time.monotonic()
        finally:
            prometheus.stop()
    print(f"fired after {fired_s - killed_s:.1f} s, resolved after {resolved_s - back_s:.1f} s")  # noqa: T201 - quoted in docs/deployment.md


def firing(prometheus: PrometheusServer) -> list[dict[str, Any]]:
    return [alert for alert in prometheus.alerts("FacestreamCameraDown") if alert["state"] == "firing"]
