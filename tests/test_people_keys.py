"""A key for each person: what is destroyed is gone for good, for every copy of the file that has heard of it."""

import base64
import json
import os
from pathlib import Path

import pytest

from worker.errors import ConfigError, EncryptionError
from worker.people_keys import FORMAT, Owned, PeopleKeys, is_sealed, named, tag_in


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "people.key"
    path.write_text(base64.b64encode(os.urandom(32)).decode())
    return path


def test_what_is_destroyed_cannot_be_opened_again_and_everything_else_can(file: Path) -> None:
    keys, elsewhere = PeopleKeys(file), file.with_name("copy.key")
    elsewhere.write_bytes(file.read_bytes())
    sealed = {owner: keys.seal(Owned(owner, f"face of {owner}".encode())) for owner in map(str, range(200))}
    gone = {str(owner) for owner in range(0, 200, 7)}
    keys.destroy(keys.tag_of(owner) for owner in gone)
    # Another machine, which destroys the same one by one and in another order.
    other = PeopleKeys(elsewhere)
    for owner in sorted(gone, reverse=True):
        other.destroy([other.tag_of(owner)])
    for each in (keys, PeopleKeys(file), other, PeopleKeys(elsewhere)):
        opened = {owner: each.unseal(one) for owner, one in sealed.items()}
        assert {owner for owner, content in opened.items() if content == b""} == gone
        assert all(content == f"face of {owner}".encode() for owner, content in opened.items() if owner not in gone)
    assert FORMAT in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_who_was_forgotten_is_sealed_into_nothing(file: Path) -> None:
    keys = PeopleKeys(file)
    keys.destroy([keys.tag_of("anna")])
    assert keys.seal(Owned("anna", b"face")) == b""
    assert keys.seal_text(Owned("anna", "Anna")) == ""
    assert keys.mark("anna", "digest of a photo") == ""


def test_somebody_else_of_the_same_name_gets_another_key(file: Path) -> None:
    keys = PeopleKeys(file)
    before = keys.seal_text(named("Anna"))
    keys.destroy([keys.living_tag_of(named("Anna").owner)])
    after = keys.seal_text(named("Anna"))
    assert (keys.unseal_text(before), keys.unseal_text(after)) == ("", "Anna")
    assert tag_in(before) != tag_in(after)


def test_another_process_that_destroys_a_key_is_followed(file: Path) -> None:
    keys, other = PeopleKeys(file), PeopleKeys(file)
    sealed = keys.seal(Owned("anna", b"face"))
    other.destroy([other.tag_of("anna")])
    keys.destroy([keys.tag_of("anna")])  # which it learns from the list; by then the file has gone on
    assert keys.unseal(sealed) == b""
    assert PeopleKeys(file).unseal(sealed) == b""


def test_nothing_that_is_damaged_opens(file: Path) -> None:
    keys = PeopleKeys(file)
    sealed = keys.seal(Owned("anna", b"face"))
    text = keys.seal_text(Owned("anna", "Anna"))
    assert is_sealed(sealed)
    assert is_sealed(text)
    assert keys.unseal(sealed[:-1] + bytes([sealed[-1] ^ 1])) == b""
    assert keys.unseal(sealed[:9]) == b""
    # Not empty: an empty consent would allow everything.
    for damaged in (text[:-4], text[:8] + "%%%", text[:8] + "aGk="):
        assert keys.unseal_text(damaged) == "\ufffd"


@pytest.mark.parametrize("content", ["", "c2hvcnQ=", "{}", '{"format": "facestream.people-keys.v1"}', "no base64!"])
def test_a_file_that_holds_no_keys_is_refused_and_its_text_not_repeated(tmp_path: Path, content: str) -> None:
    path = tmp_path / "people.key"
    path.write_text(content)
    with pytest.raises(ConfigError, match="openssl rand") as told:
        PeopleKeys(path)
    assert not content or content not in str(told.value).replace(str(path), "")
    with pytest.raises(ConfigError, match="people_file"):
        PeopleKeys(tmp_path / "none")


def test_a_file_that_cannot_be_written_keeps_the_erasure_from_being_called_done(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = PeopleKeys(file)

    def refuse(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("worker.people_keys.replace_file", refuse)
    with pytest.raises(EncryptionError, match=f"{file}.*Read-only"):
        keys.destroy([keys.tag_of("anna")])


def test_of_a_file_with_several_ways_to_a_key_none_is_left(file: Path) -> None:
    keys = PeopleKeys(file)
    tag, sealed = keys.tag_of("anna"), keys.seal(Owned("anna", b"face"))
    keys.destroy([keys.tag_of("ben")])
    told = json.loads(file.read_text())
    told["nodes"] |= {tag[:length]: base64.b64encode(os.urandom(32)).decode() for length in (0, 3, 12)}
    file.write_text(json.dumps(told))
    keys = PeopleKeys(file)
    keys.destroy([tag])
    for each in (keys, PeopleKeys(file)):
        assert not each.has(tag)
        assert each.unseal(sealed) == b""
        assert each.has(each.tag_of("carla"))
