"""A worker takes up what changes in its configuration file while it reads cameras."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.command_line import RETAIL, Running, running
from tests.support.rtsp import RtspServer

pytestmark = [pytest.mark.data, pytest.mark.rtsp, pytest.mark.redis]


def states(worker: Running) -> dict[str, str]:
    return {camera["camera_id"]: camera["state"] for camera in json.loads(worker.get("/status")[1]).get("cameras", [])}


def test_cameras_and_the_log_level_change_while_the_worker_runs(
    rtsp_server: RtspServer, redis_url: str, test_data: Path, tmp_path: Path
) -> None:
    file = tmp_path / "worker.yaml"
    lobby = {"id": "lobby", "source": rtsp_server.url("/clip")}
    door = {"id": "door", "source": rtsp_server.url("/wide")}

    def write(cameras: list[Any], **more: Any) -> None:
        config = {
            "cameras": cameras, "redis": {"url": redis_url}, "model": RETAIL, "models_dir": str(test_data / "models"),
            "metrics": {"host": "127.0.0.1", "port": 0}, "worker_id": "w7", "log": {"format": "json"}, **more,
        }  # fmt: skip
        draft = file.with_suffix(".draft")
        draft.write_text(yaml.safe_dump(config))
        draft.replace(file)

    write([lobby])
    with running("run", "--config", file) as worker:
        worker.until(lambda: states(worker).get("lobby") == "streaming")
        write([lobby, door])
        worker.until(lambda: states(worker).get("door") == "streaming")
        write([{"id": "lobby"}])
        refused = json.loads(worker.said("refused"))
        assert "cameras.0.source" in refused["problem"]
        assert refused["worker_id"] == "w7"
        assert set(states(worker)) == {"lobby", "door"}
        write([door], log={"format": "json", "level": "debug"})
        worker.until(lambda: set(states(worker)) == {"door"})
        worker.get("/metrics")
        worker.said('"level": "debug"')
