import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from tests.support.redis_servers import RedisServer
from tests.support.sample_events import make_event
from worker.config import LogConfig, RedisConfig
from worker.errors import FacestreamError
from worker.events.publisher import Publisher
from worker.logs import configure, get_logger
from worker.redis.client import connect

SECRET = "s3cr3t-pa55"
URL = f"redis://worker:{SECRET}@redis.example:6379/0"


class Output:
    """What was logged, as text and as JSON documents."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


Start = Callable[..., Output]


@pytest.fixture
def start() -> Iterator[Start]:
    """Configures logging into an :class:`Output`; undone after the test."""
    root, worker = logging.getLogger(), logging.getLogger("worker")
    before = list(root.handlers), root.level, worker.level

    def configured(
        form: Literal["human", "json", "auto"] = "json", level: Literal["debug", "info", "warning"] = "info"
    ) -> Output:
        output = Output()
        configure(LogConfig(format=form, level=level), output.stream)
        return output

    yield configured
    logging.captureWarnings(False)
    root.handlers[:], root.level, worker.level = before
    logging.getLogger("worker").setLevel(before[2])


def test_json_is_one_document_a_line_with_time_level_and_logger(start: Start) -> None:
    output = start()
    get_logger("worker.video.reader").info("camera opened", camera_id="door", fps=25.0, size=(1920, 1080), policy=None)
    (document,) = output.documents
    assert document.pop("timestamp").endswith("Z")
    assert document == {
        "event": "camera opened", "level": "info", "logger": "worker.video.reader",
        "camera_id": "door", "fps": 25.0, "size": [1920, 1080], "policy": None,
    }  # fmt: skip


def test_people_get_a_line_of_text(start: Start) -> None:
    output = start("human")
    get_logger("worker.video.reader").info("camera opened", camera_id="door")
    assert "camera opened" in output.text
    assert "camera_id=door" in output.text
    assert output.text.count("\n") == 1


def test_what_is_no_terminal_gets_json(start: Start) -> None:
    output = start("auto")
    get_logger("worker").info("hello")
    assert output.documents[0]["event"] == "hello"


def test_the_level_holds_for_us_and_libraries_speak_when_they_warn(start: Start) -> None:
    output = start(level="info")
    get_logger("worker.a").debug("too much")
    get_logger("worker.a").info("just right")
    logging.getLogger("httpx").info("GET /")
    logging.getLogger("httpx").warning("slow: %s", "yes", extra={"host": "example"})
    assert [document["event"] for document in output.documents] == ["just right", "slow: yes"]
    assert output.documents[1]["host"] == "example"
    assert output.documents[1]["logger"] == "httpx"
    assert start(level="debug") is not output
    assert get_logger("worker.a").is_enabled_for(logging.DEBUG)


def test_warnings_become_records(start: Start) -> None:
    output = start()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn(f"old way used for {URL}", UserWarning, stacklevel=1)
    assert "old way used" in output.text
    assert SECRET not in output.text


def test_configuring_again_replaces_the_first_handler(start: Start) -> None:
    first, second = start(), start()
    get_logger("worker").info("hello")
    assert first.text == ""
    assert len(second.documents) == 1


class Odd:
    def __str__(self) -> str:
        return f"connection to {URL}"


def fail(form: str) -> None:
    try:
        raise ConnectionError(f"cannot open {URL}")  # noqa: TRY301
    except ConnectionError as error:
        log = get_logger("worker.x")
        if form == "traceback":
            log.exception("it failed")
        elif form == "value":
            log.warning("it failed", error=error)
        else:
            logging.getLogger("library").exception("it failed")


@pytest.mark.parametrize("form", ["json", "human"])
@pytest.mark.parametrize(
    "say",
    [
        lambda: get_logger("worker.x").warning(f"cannot open {URL}"),
        lambda: get_logger("worker.x").warning("cannot open %s", URL),
        lambda: get_logger("worker.x").warning("cannot open", source=URL),
        lambda: get_logger("worker.x").warning("cannot open", sources=[{"url": (URL,)}]),
        lambda: get_logger("worker.x").warning(
            "cannot open", config={"password": SECRET, "nested": {"api_key": SECRET}}
        ),
        lambda: get_logger("worker.x").warning("cannot open", token=SECRET, secret=SecretStr(SECRET)),
        lambda: get_logger("worker.x").warning("cannot open", odd=Odd()),
        lambda: get_logger("worker.x").bind(source=URL).warning("cannot open"),
        lambda: logging.getLogger("library").warning("cannot open %s", URL),
        lambda: logging.getLogger("library").warning("cannot open", extra={"source": URL, "url": Odd()}),
        lambda: fail("traceback"),
        lambda: fail("value"),
        lambda: fail("library"),
    ],
)
def test_no_credential_is_logged_in_any_form(
    start: Start, form: Literal["human", "json"], say: Callable[[], None]
) -> None:
    output = start(form)
    say()
    assert "cannot open" in output.text
    assert SECRET not in output.text
    assert "***" in output.text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=50)
@given(
    st.text(
        st.characters(codec="ascii", exclude_characters=" \n\t\r\"'<>", categories=["L", "N", "P", "S"]), min_size=6
    )
)
def test_any_password_in_a_url_is_taken_out(start: Start, password: str) -> None:
    output = start()
    get_logger("worker.x").info("opened", source=f"rtsp://admin:{password}@10.0.0.1/live")
    assert output.documents[0]["source"].endswith("@10.0.0.1/live")
    assert f":{password}@" not in output.text


def test_tracebacks_are_kept_apart_from_the_credentials(start: Start) -> None:
    output = start()
    fail("traceback")
    (document,) = output.documents
    assert "Traceback (most recent call last)" in document["exception"]
    assert "ConnectionError: cannot open redis://***@redis.example" in document["exception"]


def test_arrays_are_named_by_their_shape_only(start: Start) -> None:
    output = start()
    get_logger("worker.x").info("embedded", vector=np.full((1, 512), 0.125, np.float32))
    assert output.documents[0]["vector"] == "<ndarray of shape (1, 512)>"


def test_a_warning_that_repeats_is_held_back_and_counted(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr("worker.logs.time.monotonic", lambda: now_s)
    output = start()
    log = get_logger("worker.video.reader")
    for _ in range(20):
        log.warning("camera away", camera_id="door")
    log.warning("camera away", camera_id="yard")
    log.warning("something else", camera_id="door")
    for _ in range(20):
        log.info("frame")
    said = [(document["event"], document.get("camera_id")) for document in output.documents]
    assert said.count(("camera away", "door")) == 5
    assert said.count(("camera away", "yard")) == 1
    assert said.count(("something else", "door")) == 1
    assert said.count(("frame", None)) == 20
    now_s += 61
    log.warning("camera away", camera_id="door")
    assert output.documents[-1]["suppressed"] == 15


@pytest.mark.parametrize("form", ["json", "human"])
def test_a_wrong_password_of_redis_is_nowhere(
    start: Start, form: Literal["human", "json"], redis_server: RedisServer, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real server asks for a password; it is changed while the publisher runs."""
    output = start(form, "debug")
    with connect(RedisConfig(url=SecretStr(redis_server.url))) as admin:
        admin.config_set("requirepass", SECRET)
        config = RedisConfig(url=SecretStr(redis_server.url.replace("redis://", f"redis://:{SECRET}@")), timeout_s=1)
        with connect(config) as client:
            publisher = Publisher(client, config)
            admin.config_set("requirepass", "an0th3r-pa55")
            client.connection_pool.disconnect()
            publisher.publish(make_event())
            assert publisher.close(0.5) == 1
            assert "refuses the login" in publisher.error
        with pytest.raises(FacestreamError) as caught:
            connect(config)
    written = capfd.readouterr()
    everything = output.text + publisher.error + str(caught.value) + written.out + written.err
    assert "refuses the login" in output.text
    assert SECRET not in everything
    assert "an0th3r-pa55" not in everything
    assert make_event().identity_name not in everything
