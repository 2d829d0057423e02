"""One worker: its parts as configured, started, stopped in the order that loses nothing, and watched meanwhile."""

import os
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from tests.support.processes import fork_servers_of
from tests.support.stand_ins import StandInDetector, StandInEmbedder, gallery_of
from tests.support.waiting import eventually
from worker.background import Heartbeats
from worker.config import Config, ConfigOrigin, load_config
from worker.errors import FacestreamError, SinkError, SourceError
from worker.observer import Observer
from worker.service import parts as parts_module
from worker.service.health import Health
from worker.service.metrics import PrometheusObserver
from worker.service.parts import Parts, build
from worker.service.service import Service

NO_PORT = {"metrics": {"enabled": False}}


class Part:
    """Any part of a worker: notes in ``log`` what is asked of it."""

    def __init__(self, name: str, log: list[str]) -> None:
        self._name = name
        self._log = log

    def start(self) -> None:
        self._log.append(f"{self._name} starts")

    def close(self) -> None:
        self._log.append(f"{self._name} closes")

    def drain(self) -> None:
        self._log.append(f"{self._name} claims no more")

    def leave(self, _states: Any) -> None:
        self._log.append(f"{self._name} leaves")

    def reload(self) -> None:
        self._log.append(f"{self._name} reloads")

    def report(self) -> dict[str, Any]:
        return {"tracks": 3}


class StandInLoop:
    """A loop that does what ``while_it_runs`` says."""

    def __init__(self, log: list[str], while_it_runs: Callable[[threading.Event], None]) -> None:
        self._log = log
        self._while_it_runs = while_it_runs

    def start_camera(self, camera: Any) -> None:
        self._log.append(f"{camera.id} is read")

    def run(self, stop: threading.Event) -> None:
        self._log.append("loop runs")
        self._while_it_runs(stop)

    def shut_down(
        self, leave: Callable[[Any], None] | None, remember: Callable[[], None] | None
    ) -> tuple[tuple[FacestreamError, ...], int]:
        self._log.append("loop shuts down")
        if leave:
            leave({})
        if remember:
            remember()
        return (SinkError("2 events could not be delivered"),), 2


class Rig:
    """A service whose parts are stand-ins; those named are configured."""

    def __init__(self, *names: str, while_it_runs: Callable[[threading.Event], None] = lambda _stop: None) -> None:
        self.log: list[str] = []
        self.names = names
        self.loop = StandInLoop(self.log, while_it_runs)
        self.health: Health | None = None

    def build(self, _config: Config, health: Health, observer: Observer, **_options: Any) -> Parts:
        self.health = health
        close = observer.close

        def closing() -> None:
            self.log.append("observer closes")
            close()

        observer.close = closing  # type: ignore[method-assign]
        made = {name: Part(name, self.log) for name in self.names}
        return Parts(loop=cast(Any, self.loop), lag=cast(Any, Part("lag", self.log)), **cast(Any, made))

    def service(self, **settings: Any) -> Service:
        return Service(load_config(None, NO_PORT | settings), build=self.build)


CAMERAS = {"cameras": [{"id": "door", "source": "rtsp://127.0.0.1/a"}, {"id": "gate", "source": "rtsp://127.0.0.1/b"}]}


def test_everything_is_started_and_stopped_in_the_order_that_loses_nothing() -> None:
    rig = Rig("recorder", "evidence", "shadow", "member", "reporter", "reloader")
    stopped = rig.service(**CAMERAS).run()
    assert rig.log == [
        "reloader starts", "reporter starts", "lag starts", "member starts", "door is read", "gate is read",
        "loop runs",
        "member claims no more", "loop shuts down", "member leaves",
        "recorder closes", "shadow closes", "evidence closes", "observer closes",
        "lag closes", "reporter closes", "reloader closes",
    ]  # fmt: skip
    assert [str(error) for error in stopped.errors] == ["2 events could not be delivered"]
    assert (stopped.summary.undelivered, stopped.summary.shadow, stopped.interrupted) == (2, {"tracks": 3}, False)


def test_decoders_are_prepared_first_and_end_with_a_worker_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    before, meanwhile = fork_servers_of(os.getpid()), []

    def connect(*_: object) -> Any:
        # For a moment after it was started, the system has no command line of a process.
        eventually(lambda: len(fork_servers_of(os.getpid())) > len(before))
        meanwhile.extend(fork_servers_of(os.getpid()))
        raise SinkError("Redis refused")

    monkeypatch.setattr(parts_module, "connect_when_ready", connect)
    with pytest.raises(SinkError, match="Redis refused"):
        build(load_config(None, NO_PORT | CAMERAS), Health(Heartbeats()), PrometheusObserver())
    assert len(meanwhile) == len(before) + 1
    assert fork_servers_of(os.getpid()) == before


def test_parts_that_are_not_configured_are_not_there() -> None:
    rig = Rig()
    stopped = rig.service(**CAMERAS).run()
    assert rig.log == [
        "lag starts", "door is read", "gate is read", "loop runs", "loop shuts down", "observer closes", "lag closes",
    ]  # fmt: skip
    assert stopped.summary.shadow is None


def test_a_loop_that_fails_is_stopped_as_well_as_one_that_ends() -> None:
    def fail(_stop: threading.Event) -> None:
        raise FacestreamError("the gallery is damaged")

    rig = Rig("recorder", while_it_runs=fail)
    with pytest.raises(FacestreamError, match="damaged"):
        rig.service(**CAMERAS).run()
    assert rig.log[-4:] == ["loop shuts down", "recorder closes", "observer closes", "lag closes"]


def test_a_stop_that_is_cut_short_still_takes_the_worker_out_of_the_fleet_s_status() -> None:
    rig = Rig("recorder", "reporter")

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    rig.loop.shut_down = interrupted  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        rig.service().run()
    assert rig.log[-2:] == ["lag closes", "reporter closes"]


def test_a_worker_that_is_asked_to_stop_ends_its_loop() -> None:
    waiting = threading.Event()

    def until_stopped(stop: threading.Event) -> None:
        waiting.set()
        assert stop.wait(10)

    rig = Rig(while_it_runs=until_stopped)
    service = rig.service(**CAMERAS)
    thread = threading.Thread(target=service.run)
    thread.start()
    assert waiting.wait(10)
    service.stop()
    thread.join(10)
    assert rig.log[-1] == "lag closes"


def test_the_port_is_open_until_all_has_stopped() -> None:
    answers: list[int] = []

    class Last(Part):
        def close(self) -> None:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
                answers.append(answer.status)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    rig = Rig()
    inner = rig.build

    def build_with_last(*arguments: Any, **options: Any) -> Parts:
        made = inner(*arguments, **options)
        return Parts(loop=made.loop, lag=cast(Any, Last("lag", rig.log)))

    settings = {"metrics": {"host": "127.0.0.1", "port": port}}
    Service(load_config(None, CAMERAS | settings), build=build_with_last).run()
    assert answers == [200]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz")


def test_sources_that_can_never_be_read_are_told_before_anything_is_loaded(tmp_path: Path) -> None:
    rig = Rig()
    broken = [{"id": "a", "source": str(tmp_path / "a.mp4")}, {"id": "b", "source": str(tmp_path / "b.mp4")}]
    with pytest.raises(SourceError, match=r"a\.mp4"):
        rig.service(cameras=broken).run()
    assert rig.health is None
    rig.service(cameras=[*broken, *CAMERAS["cameras"]]).run()
    assert rig.health is not None, "one that can be read is enough"


def test_a_worker_is_not_ready_while_its_models_load() -> None:
    rig = Rig()
    rig.service().run()
    assert rig.health is not None
    assert rig.health.obstacles() == {"models": "loading"}


# The parts that are built.


class Registered(Heartbeats):
    """Keeps the names of the threads that are watched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def watch(self, name: str, max_silence_s: float) -> Callable[[], None]:
        self.names.add(name)
        return super().watch(name, max_silence_s)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch, redis_url: str) -> Iterator[Callable[..., tuple[Parts, Health, Registered]]]:
    """Builds the parts of a configuration with stand-ins for the networks, and closes them at the end."""
    made: list[Parts] = []
    embedder = StandInEmbedder()
    monkeypatch.setattr(parts_module, "load_detector", lambda *_, **__: StandInDetector())
    monkeypatch.setattr(parts_module, "load_embedder", lambda *_, **__: embedder)
    monkeypatch.setattr(parts_module, "open_gallery", lambda *_, **__: gallery_of(embedder, Alice=1))

    def load_parts(origin: ConfigOrigin | None = None, **settings: Any) -> tuple[Parts, Health, Registered]:
        redis = {"url": redis_url, "flush_timeout_s": 0.1}
        heartbeats = Registered()
        health = Health(heartbeats)
        health.condition("models", "loading")
        config = load_config(None, {"redis": redis, "history": {"enabled": False}} | settings)
        made.append(build(config, health, PrometheusObserver(), origin=origin))
        return made[-1], health, heartbeats

    yield load_parts
    for parts in made:
        parts.loop.shut_down()
        for part in (parts.recorder, parts.evidence):
            if part:
                part.close()


def stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


def configured(parts: Parts) -> set[str]:
    names = ("recorder", "evidence", "shadow", "member", "reporter", "reloader")
    return {name for name in names if getattr(parts, name) is not None}


def test_what_is_not_configured_is_not_built_and_not_watched(load: Callable[..., Any]) -> None:
    parts, _, heartbeats = load()
    assert configured(parts) == set()
    assert heartbeats.names <= {"outbox"}


def test_what_is_configured_is_built_and_each_thread_registers_itself(load: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "worker.yaml"
    file.write_text("{}")
    parts, _, heartbeats = load(
        origin=ConfigOrigin(file, {}),
        fleet={"enabled": True},
        history={"enabled": True},
        state_dir=str(tmp_path / "state"),
        evidence={"store": str(tmp_path / "pictures")},
        shadow_gallery="second",
    )
    assert configured(parts) == {"recorder", "evidence", "shadow", "member", "reporter", "reloader"}
    for part in (parts.lag, parts.reporter, parts.reloader):
        part.start()
        part.close()
    parts.loop.run(stopped())
    assert heartbeats.names >= {"history", "evidence", "lag", "status", "configuration", "pipeline"}


def test_readiness_depends_on_models_redis_outbox_and_sources(load: Callable[..., Any]) -> None:
    parts, health, _ = load()
    assert "models" not in health.obstacles()
    assert health.status()["gallery_people"] == 0
    parts.loop.start_camera(load_config(None, CAMERAS).cameras[0])
    assert "door" in health.obstacles()["sources"]


def test_a_gallery_is_what_is_searched_and_counted(load: Callable[..., Any], tmp_path: Path) -> None:
    _, health, _ = load(gallery=str(tmp_path / "people"))
    assert (health.status()["gallery_people"], health.status()["ready"]) == (1, True)


def test_a_worker_with_a_small_gallery_loads_no_library_that_it_does_without() -> None:
    program = (
        "import sys, numpy as np\n"
        "import worker.service.service, worker.faces.detectors.mtcnn, worker.faces.engines.openvino\n"
        "from worker.gallery.index import PersonIndex\n"
        "people, _ = PersonIndex(np.eye(8, dtype=np.float32), np.arange(8)).search(np.eye(8, dtype=np.float32))\n"
        "assert people[:, 0].tolist() == list(range(8))\n"
        "names = 'tensorflow', 'keras', 'scipy', 'faiss', 'joblib', 'openvino.tools.ovc', 'httpx'\n"
        "print([name for name in names if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
