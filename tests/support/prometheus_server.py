"""A real Prometheus on a free port of the loopback interface."""

import json
import shutil
import signal
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

_START_S = 20


def require_prometheus() -> None:
    """Skip the test where Prometheus and promtool are not installed."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("no prometheus and promtool on the PATH: install the package prometheus")


class PrometheusServer:
    """``folder`` keeps its configuration and its data."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.data = folder / "data"
        self._config = folder / "prometheus.yml"
        self._config.write_text(yaml.safe_dump(config))
        self._log = folder / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            "prometheus", f"--config.file={self._config}", f"--storage.tsdb.path={self.data}",
            f"--web.listen-address={self._address}", "--storage.tsdb.retention.time=30d", "--log.level=warn",
        ]  # fmt: skip
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while True:
            try:
                urllib.request.urlopen(f"http://{self._address}/-/ready", timeout=1).close()
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Prometheus did not start: {self._log.read_text()[-2000:]}") from None
                time.sleep(0.1)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(10)
            self._process = None

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The samples of an instant query, each with ``metric`` (its labels) and ``value``."""
        found: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return found

    def query_range(self, expr: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get("query_range", query=expr, start=start_s, end=end_s, step=step_s)[
            "result"
        ]
        return found

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """The alerts of that name that are pending or firing, each with ``labels``, ``annotations`` and ``state``."""
        return [alert for alert in self._get("alerts")["alerts"] if alert["labels"]["alertname"] == name]

    def _get(self, path: str, **parameters: Any) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"http://{self._address}/api/v1/{path}?{query}", timeout=10) as reply:
            return json.load(reply)["data"]
