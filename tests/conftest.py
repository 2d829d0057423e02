"""Fixtures that several test modules share: real data, a real Redis."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.postgres import PostgresServer, running_postgres
from tests.support.redis_servers import RedisServer
from tests.support.repository import REPOSITORY
from worker.encryption import Keys, use

MEASURED = "measured"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-rounds", type=int, default=5, help="how many workers are killed, one after another")
    parser.addoption("--outage-s", type=float, default=5.0, help="how long Redis is away, seconds")
    parser.addoption("--minutes", type=float, default=1.0, help="how long the database has one fault after another")
    parser.addoption("--soak-s", type=float, default=20.0, help="how long the soak lasts, seconds")


@pytest.fixture
def tell(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Prints a figure that the test measured, at the end of the run."""
    return lambda figure: record_property(MEASURED, f"{request.node.name}: {figure}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    figures = [text for report in reports for name, text in report.user_properties if name == MEASURED]
    if figures:
        terminalreporter.section("measured")
        for figure in figures:
            terminalreporter.line(figure)


def pytest_configure(config: pytest.Config) -> None:
    """Tests, and the processes they start, share converted networks: each conversion loads TensorFlow for seconds."""
    # How fast a machine makes inputs, and tries them, says nothing about what is tested.
    settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any machine")
    # Whoever was started in the background by a shell has SIGINT ignored, and would hand that on to every command.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert config.cache is not None
    # Output that no terminal shows is never wrapped; processes that share the tests are told a width all the same.
    os.environ.pop("COLUMNS", None)
    os.environ["FACESTREAM_CACHE_DIR"] = str(config.cache.mkdir("facestream"))


@pytest.fixture(autouse=True)
def _own_turn() -> Iterator[None]:
    """No test leaves its process with another right to the processors, which all that it starts would inherit."""
    before = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
    yield
    after = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getaffinity(0)
    assert after == before, "policy, niceness and processors of this thread are others than before the test"


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


@pytest.fixture(autouse=True)
def _no_keys() -> Iterator[None]:
    """What a test encrypts with is no key of the next one."""
    yield
    use(Keys())


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


@pytest.fixture(scope="session")
def _shared_postgres() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres(_shared_postgres: PostgresServer) -> PostgresServer:
    """A real PostgreSQL that tests share: it is not to be stopped."""
    return _shared_postgres


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> str:
    """URL of a real, empty PostgreSQL database."""
    return postgres.new_database("test")
