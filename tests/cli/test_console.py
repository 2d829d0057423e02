"""``facestream console`` as its users start it: a process of its own beside the workers."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.command_line import facestream, running
from tests.support.console import API, PASSWORD


def test_it_says_where_it_is_gives_the_first_code_and_stops_when_told(tmp_path: Path, redis_url: str) -> None:
    place = ["--gallery", tmp_path / "people", "--redis", redis_url, "--port", 0]
    with running("console", *place) as console:
        address = console.until(lambda: re.search(r"http://127\.0\.0\.1:\d+", "".join(console.stdout)))[0]
        code = console.until(lambda: re.search(r"/setup#(\S+)", "".join(console.stdout)))[1]
        with httpx.Client(base_url=address) as client:
            assert client.get(f"{API}/people").status_code == 401
            made = client.post(f"{API}/setup", json={"code": code, "name": "root", "password": PASSWORD})
            assert made.status_code == 200
            assert "server" not in made.headers
            with client.stream("GET", f"{API}/events") as events:
                assert next(events.iter_lines()).startswith("retry")
                ended = console.end(signal.SIGTERM)
        assert ended.code == 0, ended.stderr
        assert code not in ended.stderr
    with running("console", *place) as console:
        console.until(lambda: "The console is at" in "".join(console.stdout))
        assert "/setup" not in console.end(signal.SIGTERM).stdout, "there is an admin now"


def test_what_it_cannot_start_with_is_told_in_one_line(tmp_path: Path, redis_url: str) -> None:
    assert "set gallery" in facestream("console", "--redis", redis_url).only_error(2)
    named = ["--gallery", tmp_path / "people", "--redis", redis_url, "--port", 0]
    refused = facestream("console", *named, FACESTREAM_CONSOLE__CERT_FILE="/none.pem").only_error(2)
    assert "go together" in refused


def test_a_worker_has_nothing_of_it() -> None:
    """All that a worker and the commands load, and no module of the console's libraries."""
    code = (
        "import sys, json, worker.cli, worker.service.service; "
        "print(json.dumps([n for n in ('fastapi','starlette','uvicorn','argon2','worker.api') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
