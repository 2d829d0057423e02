"""What commands write is for their user only, also where everything else may be read and written by everybody."""

import base64
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command_line import facestream, running
from tests.support.console import API, PASSWORD
from tests.support.postgres import with_tables
from tests.support.remembered import ANNA, BEN, make_site
from worker.evaluation.face_cache import FaceCache


@pytest.fixture(autouse=True)
def everybody_may() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def wider(folder: Path) -> dict[str, str]:
    """What others have rights on."""
    found = {str(path.relative_to(folder)): path.lstat() for path in folder.rglob("*") if not path.is_symlink()}
    return {name: oct(stat.S_IMODE(status.st_mode)) for name, status in found.items() if status.st_mode & 0o077}


def files(folder: Path) -> str:
    return " ".join(sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))


WRITTEN = (
    "people/CURRENT", "people/crops/", "people/snapshots/", "people/previous/", "people/erased.jsonl",
    "people.state/history.sqlite3", "people.state/outbox-door.sqlite3", "people.state/audit.jsonl",
    "people.state/audit.key", "people.state/audit.head.json", "people.state/erased.jsonl", "people.state/erased.key",
    "people.state/erased.receipts/", "out/deep/export.npz", "out/receipt.json", "out/history.backup", "out/copy/",
    "pictures/", "out/look.jpg",
)  # fmt: skip
"""Where there must be something: else nothing was tried."""


@pytest.mark.slow
@pytest.mark.redis
def test_nothing_that_a_command_writes_may_be_read_by_others(tmp_path: Path, redis_url: str) -> None:
    site = make_site(tmp_path)
    out, cache = tmp_path / "out", tmp_path / "cache"
    out.mkdir(mode=0o700)
    (out / "deep").mkdir(mode=0o700)
    FaceCache.open(cache, ["tiny"]).close()
    key = out / "key"
    key.write_text(base64.b64encode(os.urandom(32)).decode())
    key.chmod(0o600)
    environment: dict[str, Any] = {"FACESTREAM_CACHE_DIR": str(cache), "FACESTREAM_EVIDENCE__STORE": str(site.pictures),
                   "XDG_STATE_HOME": str(tmp_path / "xdg")}  # fmt: skip
    given = ("--gallery", site.gallery)
    told = [
        facestream(*command, **environment)
        for command in (
            ("gallery", "export", *given, "--npz", out / "deep" / "export.npz"),
            ("gallery", "copy", site.gallery, out / "copy"),
            ("gallery", "rename", BEN, "Benjamin", *given),
            ("gallery", "consent", "Benjamin", *given, "--until", "2099-01-01"),
            ("database", "backup", "--output", out / "history.backup", *given),
            ("search", "--help"), ("explain", *given), ("unknown", "list", *given), ("audit", "verify", *given),
        )
    ]  # fmt: skip
    assert [one.code for one in told] == [0] * len(told), [one.stderr for one in told]
    with running("console", *given, "--port", 0, "--redis", redis_url, **environment) as console:
        found = console.until(lambda: re.search(r"(http://127\S+)/setup#(\S+)", "".join(console.stdout)), timeout_s=120)
        with httpx.Client(base_url=found[1], timeout=60, trust_env=False) as client:
            made = {"code": found[2], "name": "admin", "password": PASSWORD}
            assert client.post(f"{API}/setup", json=made).is_success
        assert wider(tmp_path) == {}, "while it runs"
        assert "cache/faces" in files(tmp_path)
    forgotten = facestream("forget", ANNA, *given, "--yes", "--no-events", "--receipt", out / "receipt.json",
                           "--classifier", out / "none", **environment)  # fmt: skip
    assert forgotten.code == 1
    forgotten = facestream(
        "forget", ANNA, *given, "--yes", "--no-events", "--receipt", out / "receipt.json", **environment
    )
    assert forgotten.code == 0, forgotten.stderr
    for command in (("apply",), ("rotate",)):
        environment["FACESTREAM_ENCRYPTION__KEY_FILE"] = str(key)
        assert facestream("encryption", *command, *given, **environment).code == 0
    picture = next(site.pictures.rglob("*.jpg"))
    opened = facestream("encryption", "open", picture, "--output", out / "look.jpg", **environment)
    assert opened.code == 0, opened.stderr
    assert wider(tmp_path) == {}
    assert [name for name in WRITTEN if name not in files(tmp_path)] == []


def test_the_copy_of_a_shared_gallery_and_the_keys_of_people_are_for_their_user_only(
    tmp_path: Path, postgres_url: str
) -> None:
    with_tables(postgres_url)
    key = tmp_path / "people.key"
    key.write_text(base64.b64encode(os.urandom(32)).decode())
    key.chmod(0o600)
    environment: dict[str, Any] = {
                   "FACESTREAM_CACHE_DIR": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "xdg"),
                   "FACESTREAM_ENCRYPTION__PEOPLE_FILE": str(key)}  # fmt: skip
    site = make_site(tmp_path / "site")
    copied = facestream("gallery", "copy", site.gallery, postgres_url, **environment)
    assert copied.code == 0, copied.stderr
    assert facestream("forget", ANNA, "--gallery", postgres_url, "--yes", "--no-events", **environment).code == 0
    assert "nodes" in key.read_text()
    assert wider(tmp_path) == {}
    assert "facestream/erased.receipts/" in files(tmp_path / "xdg")
