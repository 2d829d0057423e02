"""The typed client: as the description of the API has it, against a real console, over lines that break."""

import importlib.util
import inspect
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, get_type_hints

import pytest
import redis

from tests.support.console import API, Console
from tests.support.publishing import STREAM
from tests.support.repository import REPOSITORY
from tests.support.sample_events import make_event, stream_fields
from worker.api import client
from worker.api.client import ApiError, ConsoleUnreachableError
from worker.api.person_documents import GroupSettings, PersonChange
from worker.api.unknown_documents import NameRequest

HEAVY = {
    "fastapi", "starlette", "uvicorn", "jinja2", "sqlalchemy", "numpy", "cv2", "av", "faiss", "tensorflow", "openvino",
    "redis", "argon2", "prometheus_client", "apprise",
}  # fmt: skip


class Line:
    """A line to a console that may be cut. ``swallow``: so many answers are lost on their way."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.swallow = 0
        self.requests = 0
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._port))
                self._ends += [near, far]
                threading.Thread(target=self._carry, args=(near, far, True), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, is_request: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self.requests += is_request
                if not is_request and self.swallow:
                    self.swallow -= 1
                    break
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Ends all connections; new ones may be made."""
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
        self.cut()


def token(console: Console, *scopes: str) -> str:
    given = {"name": "program", "scopes": scopes or ["read", "change"], "days": 1}
    made = console.as_role("admin").post(f"{API}/tokens", json=given)
    return str(made.json()["token"])


@contextmanager
def connected(console: Console, *scopes: str) -> Iterator[tuple[client.Console, Line]]:
    line = Line(int(console.address.rpartition(":")[2]))
    with client.Console(line.address, token(console, *scopes)) as opened:
        yield opened, line
    line.close()


def test_it_is_the_one_that_the_description_makes() -> None:
    spec = importlib.util.spec_from_file_location("api_client", REPOSITORY / "docs" / "api_client.py")
    assert spec is not None
    assert spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    described = json.loads((REPOSITORY / "docs" / "openapi.json").read_text())
    made = maker.source(described)
    assert (REPOSITORY / "worker" / "api" / "client.py").read_text() == made, "write it anew: python docs/reference.py"


def test_it_has_each_operation_with_each_parameter_typed() -> None:
    described = json.loads((REPOSITORY / "docs" / "openapi.json").read_text())
    operations = [each for methods in described["paths"].values() for each in methods.values()]
    for operation in operations:
        method = getattr(client.Console, operation["operationId"])
        hints = get_type_hints(method)
        assert hints.keys() == {*inspect.signature(method).parameters, "return"} - {"self"}, method
        assert Any not in hints.values()
        wanted = {each["name"].lower().replace("-", "_") for each in operation.get("parameters", [])}
        assert wanted - {"last_event_id"} <= hints.keys(), method


def test_it_loads_nothing_heavy() -> None:
    code = "import sys, worker.api.client; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(loaded)


def test_documents_come_and_go_and_problems_are_errors(console: Console) -> None:
    with connected(console) as (api, _line):
        assert [person.identity_name for person in api.list_people(limit=1)] == ["Anna", "Bob"], "all pages"
        assert [each.sighting_id for each in api.list_sightings(unknown_id="u-1", limit=1)] == ["door_4", "door_3"]
        bob = api.show_person("p-bob")
        seen = api.etag
        assert bob.samples == 1
        assert api.rename_person("p-bob", PersonChange(identity_name="Rob"), if_match=seen).identity_name == "Rob"
        with pytest.raises(ApiError, match="changed meanwhile") as late:
            api.rename_person("p-bob", PersonChange(identity_name="Bert"), if_match=seen)
        assert late.value.problem.status == 412
        assert api.set_group("b ü?", GroupSettings(advice="wave")).advice == "wave"
        assert api.show_group("b ü?").group == "b ü?"
        api.delete_group("b ü?")
        with pytest.raises(ApiError, match="needs the scope 'manage'"):
            api.list_audit().__next__()
        with pytest.raises(ApiError, match="no such picture"):
            api.show_face("door_1")


def test_an_answer_that_is_lost_makes_nothing_twice(console: Console) -> None:
    with connected(console) as (api, line):
        line.swallow = 1
        named = api.name_unknown("u-1", NameRequest(identity_name="Carla"))
        assert named.corrected == 2
        assert line.requests > 1, "it was asked again"
        assert len(console.parts.gallery().person("Carla").samples) == 1
        line.swallow = 1
        assert len(list(api.list_people())) == 3, "what reads is asked again as well"
        line.swallow = 1
        with pytest.raises(ConsoleUnreachableError, match="has not answered"):
            api.remove_person("p-bob")


def test_who_is_no_console_and_who_is_not_there(console: Console) -> None:
    with client.Console("http://127.0.0.1:9") as api, pytest.raises(ConsoleUnreachableError, match="cannot be reached"):
        api.show_me()
    with (
        client.Console(f"{console.address}/static") as api,
        pytest.raises(ConsoleUnreachableError, match="is it a facestream console"),
    ):
        api.show_me()
    with client.Console(console.address, "fst_guess") as api, pytest.raises(ApiError, match="expired, or was revoked"):
        api.show_me()


def test_events_go_on_after_a_break_each_once(console: Console, redis_url: str) -> None:
    with connected(console) as (api, line), redis.Redis.from_url(redis_url) as stream:

        def add(ordinal: int) -> str:
            return str(stream.xadd(STREAM, stream_fields(make_event(ordinal))).decode())

        ids = [add(0)]
        events = api.follow_events(after="0-0")
        got = [next(events)]
        for ordinal in range(1, 4):
            line.cut()
            ids.append(add(ordinal))
            got.append(next(events))
        assert [event.event_id for event in got] == ids
        assert [event.fields["pts_s"] for event in got] == ["0", "1", "2", "3"]


def test_the_example_of_the_documentation_works(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    page = (REPOSITORY / "docs" / "console.md").read_text()
    (example,) = re.findall(r"```python\n(from worker\.api\.client.*?)```", page, re.DOTALL)
    example = example.replace("http://127.0.0.1:8460", console.address).replace("fst_...", token(console))
    exec(compile(example, "docs/console.md", "exec"), {})  # what people copy
    assert "Anna" in capsys.readouterr().out
    assert console.parts.gallery().person("p-bob").name == "Robert"
