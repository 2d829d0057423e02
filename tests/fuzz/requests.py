"""Requests to the API: whatever is sent, the answer is a document of its own, and never says that something broke."""

import asyncio
import json
import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from fastapi import FastAPI

from tests.fuzz.common import Target, scratch
from tests.support.console import add_account, console_config, fill, place_of
from worker.api.app import PREFIX, described, make_app
from worker.api.parts import Parts
from worker.api.roles import ROLES
from worker.database.database import open_sqlite
from worker.history.store import FILE

_BROKEN: Final = 500
_NOBODYS_PORT: Final = "redis://127.0.0.1:1/0"
_LEFT_OUT: Final = frozenset(
    {
        "enroll_person",
        "search_photo",
        "look_through_camera",
        "check_camera",
        "follow_events",
        "remove_account",
        "erase_person",
        "erase_unknown",
    }
)
"""They load networks, open cameras, start processes, never end, or lock the one who asks out."""
_BODIES: Final[dict[str, Any]] = {
    "create_rule": {"name": "nights", "webhook": "https://site.example/x", "webhook_secret": "0123456789abcdef",
                    "after": "22:00", "before": "06:00", "people": ["p-anna"], "time_zone": "Europe/Berlin"},
    "rename_person": {"identity_name": "Anna B"},
    "regroup_person": {"groups": ["staff"]},
    "set_group": {"threshold": 0.5, "colour": "red", "advice": "say hello"},
    "correct_sighting": {"identity_name": "Bob"},
    "name_unknown": {"identity_name": "Carla"},
    "merge_unknowns": {"other": "u-2"},
    "split_unknown": {"sighting_ids": ["door_3"]},
    "create_account": {"name": "eve", "password": "correct horse 1", "role": "viewer"},
    "create_token": {"name": "program", "scopes": ["read"], "days": 3},
    "log_in": {"name": "admin", "password": "correct horse 1"},
    "set_up": {"code": "x", "name": "admin", "password": "correct horse 1"},
    "add_camera": {"id": "yard", "source": "rtsp://u:p@127.0.0.1/x"},
}  # fmt: skip


class Asked:
    """An application over people and a past of its own, without a Redis; asked by one loop."""

    def __init__(self) -> None:
        folder = self.folder = scratch() / "console"
        folder.mkdir()
        config = console_config(folder, _NOBODYS_PORT)
        fill(config.gallery, place_of(config))
        self.parts = Parts(config)
        database = open_sqlite(Path(place_of(config)) / FILE)
        add_account(database, "admin", "admin")
        database.close()
        (admin,) = self.parts.accounts.accounts()
        _, self.secret = self.parts.tokens.create(admin, "fuzz", ROLES["admin"], 1e6)
        self.app: FastAPI = make_app(self.parts)
        self.loop = asyncio.new_event_loop()
        self.lifespan = self.app.router.lifespan_context(self.app)
        self.loop.run_until_complete(self.lifespan.__aenter__())
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://localhost")

    def close(self) -> None:
        self.loop.run_until_complete(self.client.aclose())
        self.loop.run_until_complete(self.lifespan.__aexit__(None, None, None))
        self.loop.close()
        shutil.rmtree(self.folder)

    def answer(self, method: str, path: str, headers: dict[str, str], content: bytes) -> httpx.Response:
        request = self.client.request(method, path, headers=headers, content=content)
        return self.loop.run_until_complete(request)


@cache
def asked() -> Asked:
    return Asked()


@cache
def operations() -> list[tuple[str, str, str]]:
    """Name, method and path of what is tried."""
    return [
        (operation["operationId"], method.upper(), path)
        for path, methods in described()["paths"].items()
        for method, operation in methods.items()
        if operation["operationId"] not in _LEFT_OUT
    ]


@cache
def request_seeds() -> list[bytes]:
    """Number of the operation, what stands in its path, what is asked for, a header, and the body; one a line."""
    ids = {"people": "p-anna", "sightings": "door_1", "unknowns": "u-1", "groups": "staff", "samples": "x"}
    seeds = []
    for number, (name, _, path) in enumerate(operations()):
        first = path.removeprefix(f"{PREFIX}/").split("/")[0]
        body = json.dumps(_BODIES.get(name, {"other": "x"}))
        seeds.append(f"{number}\n{ids.get(first, 'x')}\nlimit=3&cursor=&q=a\nkey-{number}\n{body}".encode())
    return seeds


def check_request(data: bytes) -> None:
    number, in_path, query, key, body = (data.split(b"\n", 4) + [b""] * 5)[:5]
    _, method, path = operations()[int(number[:4]) % len(operations()) if number[:4].isdigit() else 0]
    while "{" in path:
        before, _, rest = path.partition("{")
        path = before + (quote(in_path[:400], safe="") or "x") + rest.partition("}")[2]
    headers = {
        "Authorization": f"Bearer {asked().secret}",
        "Content-Type": "application/json",
        "Idempotency-Key": re.sub(r"[^ -~]", "", key.decode("ascii", "replace"))[:300],
        "If-Match": "*" if key.startswith(b"*") else '"x"',
    }
    answer = asked().answer(method, f"{path}?{quote(query[:400], safe='=&%')}", headers, body)
    if answer.status_code == _BROKEN or "should not have happened" in answer.text:
        raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text[:300]}")
    if answer.status_code >= httpx.codes.BAD_REQUEST and answer.json()["status"] != answer.status_code:
        raise AssertionError(f"{method} {path}: no problem document: {answer.text[:300]}")


def _close() -> None:
    asked().close()
    asked.cache_clear()


TARGET: Final = Target("requests", request_seeds, check_request, _close)
