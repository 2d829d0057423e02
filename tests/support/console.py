"""A console as its users meet it: on a real port, over a gallery, a history, pictures and a Redis of the test's own."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import argon2
import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

from tests.support.past import AXES, MODEL, NOON, sighting, unknown
from tests.support.sample_events import make_event
from tests.support.waiting import eventually
from worker.api.parts import Parts
from worker.api.roles import ROLES, Role
from worker.config import EvidenceConfig, history_place, load_config
from worker.console.app import make_console
from worker.database import schema
from worker.database.address import parse_database_url
from worker.database.database import Database, open_postgres, open_sqlite
from worker.events.codec import encode
from worker.gallery.contents import NewSample
from worker.gallery.opening import create_gallery
from worker.history.evidence import Evidence
from worker.history.evidence_store import FolderStore, Seen
from worker.history.records import PastSighting
from worker.history.store import FILE, History

PASSWORD = "correct horse 1"
API = "/api/v1"
LONG_S = 3650 * 86_400.0
GREEN = np.full((240, 320, 3), (0, 200, 0), np.uint8)


class Console:
    """A console that runs, with an account of each role whose name is that of the role."""

    def __init__(self, app: FastAPI, address: str, parts: Parts) -> None:
        self.app, self.address, self.parts = app, address, parts
        self._clients: list[httpx.Client] = []

    def anybody(self, **headers: str) -> httpx.Client:
        """A client that has not logged in."""
        client = httpx.Client(base_url=self.address, headers=headers, timeout=30, trust_env=False)
        self._clients.append(client)
        return client

    def as_role(self, role: Role) -> httpx.Client:
        """A client that has logged in as this role."""
        client = self.anybody()
        answer = client.post(f"{API}/session", json={"name": role, "password": PASSWORD})
        assert answer.status_code == 200, answer.text
        client.headers["X-CSRF-Token"] = answer.json()["csrf"]
        return client

    def close(self) -> None:
        for client in self._clients:
            client.close()


def form(client: httpx.Client, page: str, path: str, **fields: str) -> httpx.Response:
    """Sends a form of a page as a browser would, with the values that it hides."""
    text = client.get(page).text
    action = re.search(rf'<form[^>]*action="{re.escape(path)}"[^>]*>(.*?)</form>', text, re.DOTALL)
    assert action, f"{page} has no form for {path}"
    hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', action[1]))
    came = {"Referer": str(client.base_url.join(page)), "Origin": str(client.base_url).rstrip("/")}
    return client.post(path, data={name: unescape(value) for name, value in hidden.items()} | fields, headers=came)


def of_anna(number: int, **changes: Any) -> PastSighting:
    """A past sighting that names Anna, or says that it is of somebody unknown."""
    at = NOON + timedelta(minutes=number)
    known = not changes.get("unknown_id")
    who: dict[str, Any] = {"identity_id": "p-anna" if known else "", "identity_name": "Anna" if known else ""}
    made = sighting(number, **who | changes)
    event = make_event(
        type="ended", sighting_id=made.sighting_id, camera_id=made.camera_id, started_at=at, captured_at=at,
        ended_at=made.ended_at, unknown_id=made.unknown_id, model_id=MODEL.model_id,
        identity_id=made.identity_id, identity_name=made.identity_name,
    )  # fmt: skip
    return sighting(number, **who | {"template": AXES[0], "event": encode(event)} | changes)


def fill(gallery: Path | str, past: Path | str) -> None:
    """Anna and Bob are known; two unknown people were seen, one of them twice."""
    made = create_gallery(gallery, MODEL.model_id, MODEL.preprocessing_digest, len(AXES))
    vectors = {"Anna": AXES[0], "Bob": AXES[1]}
    made.add(
        [
            NewSample(name, vector, f"{name}.jpg", f"{number:064x}", quality=0.5, identity_id=f"p-{name.lower()}")
            for number, (name, vector) in enumerate(vectors.items())
        ]
    )
    made.close()
    like_anna = (0.6 * AXES[0] + 0.8 * AXES[2]).astype(np.float32)
    with History.open(past, create=True) as history:
        history.write(
            [
                of_anna(1), of_anna(2), of_anna(3, unknown_id="u-1", template=like_anna),
                of_anna(4, unknown_id="u-1", template=like_anna, camera_id="yard"),
                of_anna(5, unknown_id="u-2", template=AXES[3]),
            ],
            [unknown("u-1", like_anna), unknown("u-2", AXES[3])],
            keep_s=LONG_S,
            remember_s=LONG_S,
        )  # fmt: skip


def keep_picture(folder: Path, past: Seen) -> None:
    """A picture of a sighting: all green."""
    evidence = Evidence(EvidenceConfig(store=str(folder)), FolderStore(folder))
    evidence.face(past.sighting_id, GREEN, np.array([100, 60, 140, 110], np.float32), 0.9)
    evidence.told(make_event(sighting_id=past.sighting_id, camera_id=past.camera_id, started_at=past.started_at))
    evidence.close()


def console_config(folder: Path, redis_url: str, gallery: Path | str | None = None, **more: Any) -> Any:
    """The configuration of a console in ``folder``."""
    (folder / "pictures").mkdir(exist_ok=True)
    values = {
        "gallery": str(gallery or folder / "people"),
        "redis": {"url": redis_url, "timeout_s": 1.0, "flush_timeout_s": 1.0},
        "evidence": {"store": str(folder / "pictures")},
        "recognition": {"threshold": 0.5},
    }
    return load_config(None, values | more)


def add_account(database: Database, name: str, role: Role) -> None:
    """An account whose password costs next to nothing to check: a real hash takes a tenth of a second."""
    quick = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    with database.writing() as connection:
        row = {"account": name, "role": role, "password_hash": quick, "created_s": 0.0}
        connection.execute(schema.accounts.insert(), row)


def place_of(config: Any) -> Path | str:
    """Where the history is, and the accounts."""
    place = history_place(config)
    assert place is not None
    return place


def add_accounts(config: Any) -> None:
    """One of each role."""
    place = place_of(config)
    database = open_postgres(parse_database_url(place)) if isinstance(place, str) else open_sqlite(place / FILE)
    for role in ROLES:
        add_account(database, role, role)
    database.close()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The address of ``app``, which is served by a thread."""
    opened = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=lambda: server.run(sockets=[opened]))
    thread.start()
    try:
        eventually(lambda: server.started)
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        app.state.live.close()
        server.should_exit = True
        thread.join(30)
        opened.close()
    assert not thread.is_alive()


@contextmanager
def running_console(config: Any, *, filled: bool = True) -> Iterator[Console]:
    """A console with an account of each role; ``filled``: with people and a past."""
    if filled:
        fill(config.gallery, place_of(config))
    parts = Parts(config)
    add_accounts(config)
    app = make_console(parts)
    with serving(app) as address:
        console = Console(app, address, parts)
        try:
            yield console
        finally:
            console.close()
