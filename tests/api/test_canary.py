"""One password goes through every door of the console and every way to fail, and is seen nowhere."""

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.console import API, console_config, running_console

CANARY = "c4n4ry-hunter22-Zx"
DOORS: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/session", {"json": {"name": "admin", "password": CANARY}}),
    ("POST", "/session", {"json": {"name": CANARY, "password": CANARY}}),
    ("POST", "/session", {"json": {"name": [CANARY], "password": {"is": CANARY}}}),
    ("POST", "/session", {"json": {"name": "admin", "pass": CANARY}}),
    ("POST", "/session", {"json": [CANARY]}),
    ("POST", "/session", {"content": f'{{"password": "{CANARY}', "headers": {"content-type": "application/json"}}),
    ("POST", "/session", {"data": {"name": "admin", "password": CANARY}}),
    ("POST", "/session", {"json": {"name": "admin", "password": CANARY * 100}}),
    ("POST", "/setup", {"json": {"code": CANARY, "name": "x", "password": CANARY}}),
    ("POST", "/setup", {"json": {"code": [CANARY], "name": "x", "password": CANARY}}),
    ("POST", "/accounts", {"json": {"name": "eve", "role": "viewer", "password": CANARY}}),
    ("POST", "/accounts", {"json": {"name": "eve", "role": "viewer", "password": CANARY}}),
    ("POST", "/accounts", {"json": {"name": "eva", "role": "king", "password": CANARY}}),
    ("POST", "/accounts", {"json": {"name": "e v e\n", "role": "viewer", "password": CANARY}}),
    ("POST", "/accounts", {"json": {"name": "eva", "role": CANARY, "password": [CANARY]}}),
    ("PATCH", "/accounts/eve", {"json": {"password": CANARY}}),
    ("PATCH", "/accounts/nobody", {"json": {"password": CANARY}}),
    ("PATCH", "/accounts/eve", {"json": {"password": {"new": CANARY}}}),
    ("POST", "/tokens", {"json": {"name": "t", "scopes": [CANARY], "days": CANARY}}),
    ("GET", "/people", {"headers": {"authorization": f"Bearer {CANARY}"}}),
    ("GET", "/people", {"headers": {"authorization": f"Basic {CANARY}"}}),
    ("GET", "/people", {"headers": {"cookie": f"facestream_session={CANARY}"}}),
    ("POST", "/people/x", {"headers": {"x-csrf-token": CANARY}}),
    ("PUT", "/groups/vip", {"headers": {"idempotency-key": CANARY, "x-csrf-token": CANARY}, "json": {}}),
]

FORMS: list[tuple[str, dict[str, str]]] = [
    ("/login", {"name": "admin", "password": CANARY}),
    ("/login?to=/people", {"name": "admin", "password": CANARY * 100}),
    ("/login", {"password": CANARY}),
    ("/setup", {"code": "x", "name": "y", "password": CANARY, "again": CANARY}),
    ("/setup", {"code": "x", "name": "y", "password": CANARY, "again": "other"}),
]
"""Pages. What was typed as a name or as a code is shown again to who has typed it."""


def shown(answer: httpx.Response) -> str:
    """All that a client sees, except what it has sent."""
    return f"{answer.status_code} {dict(answer.headers)} {answer.text}"


def test_no_answer_log_or_file_has_it(tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = console_config(tmp_path, redis_url)
    with running_console(config) as console:
        clients = [console.anybody(), console.as_role("admin")]
        for method, path, given in DOORS:
            for client in clients:
                answer = client.request(method, f"{API}{path}", **given)
                assert "c4n4ry" not in shown(answer), (method, path, shown(answer))
                assert answer.status_code < 500, (method, path, shown(answer))
        for form, given in FORMS:
            answer = clients[0].post(form, data=given)
            assert "c4n4ry" not in shown(answer), (form, shown(answer))
        logged_in = console.anybody().post(f"{API}/session", json={"name": "eve", "password": CANARY})
        assert logged_in.status_code == 200, "the password is known, and was never shown"
        assert "c4n4ry" not in shown(logged_in)
        made = clients[1].post(f"{API}/tokens", json={"name": "t", "scopes": ["read"], "days": 1})
        assert made.status_code == 201, made.text
        token = json.loads(made.text)["token"]
        assert console.anybody(authorization=f"Bearer {token}").get(f"{API}/people").status_code == 200
        assert token not in clients[1].get(f"{API}/tokens").text
    assert "c4n4ry" not in caplog.text
    assert token not in caplog.text
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept
    held = [str(path) for path in kept if any(one in path.read_bytes() for one in (b"c4n4ry", token.encode()))]
    assert held == [], "only their hashes are kept"


def test_the_login_of_a_redis_that_is_away_is_told_to_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    config = console_config(tmp_path, f"redis://u:{CANARY}@127.0.0.1:9/0")
    with running_console(config) as console:
        client = console.as_role("admin")
        for path in ("/status", "/sightings", "/people", "/unknowns", "/groups"):
            assert "c4n4ry" not in shown(client.get(f"{API}{path}"))
    assert "c4n4ry" not in caplog.text
