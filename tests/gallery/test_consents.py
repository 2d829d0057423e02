"""Consent: outside of its time nobody is found; it is kept with the person, and the end of it is told before."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.galleries import DIGEST, DIMENSION, MODEL, made_gallery, probe, sample
from tests.support.stand_ins import Film, StandInDetector, StandInEmbedder, camera, detector_of, embedder_of, gallery_of
from worker.cli import run_command_line
from worker.config import Config
from worker.errors import ConfigError
from worker.gallery import opening
from worker.gallery.consents import Consent
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.recognition.pipeline import Pipeline
from worker.wire import rfc3339


def after(**time: float) -> str:
    return rfc3339(datetime.now(UTC) + timedelta(**time))


@pytest.fixture(params=["folder", "database"])
def gallery(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    """Anna and Ben."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = made_gallery(request, tmp_path / "people")
    made.add([sample("Anna", 1), sample("Ben", 2)])
    return made


def found(gallery: Gallery) -> list[str]:
    return [candidate.identity_name for candidate in gallery.search(probe(1, 2))]


@pytest.mark.parametrize(
    ("consent", "is_found"),
    [
        (Consent(until=after(days=1)), True),
        (Consent(since=after(days=-1)), True),
        (Consent(basis="contract"), True),
        (Consent(until=after(days=-1)), False),
        (Consent(since=after(days=1)), False),
    ],
)
def test_nobody_is_found_outside_of_the_time(gallery: Gallery, consent: Consent, is_found: bool) -> None:
    gallery.set_consent("Anna", consent)
    assert found(gallery) == (["Anna", "Ben"] if is_found else ["Ben", "Ben"])
    gallery.set_consent("Anna", None)
    assert found(gallery) == ["Anna", "Ben"]


def test_a_consent_is_kept_and_seen_by_others(gallery: Gallery, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = gallery.folder or request.getfixturevalue("postgres_url")
    other = opening.open_gallery(path)
    given = Consent(after(days=-1), after(days=300), "contract", "see drawer 4")
    gallery.set_consent("Anna", given)
    gallery.rename("Anna", "Anna Berg")
    other.reload_if_changed()
    assert other.person("Anna Berg").consent == given
    assert other.person("Ben").consent is None
    copy = opening.copy_gallery(path, tmp_path / "copy")
    assert copy.person("Anna Berg").consent == given
    opening.switch(path, tmp_path / "copy")
    assert opening.open_gallery(path).person("Anna Berg").consent == given
    gallery.reload_if_changed()
    gallery.remove("Anna Berg")
    assert opening.open_gallery(path).contents.consents == {}


def test_a_switch_keeps_a_consent_that_the_new_gallery_does_not_know(
    gallery: Gallery, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = gallery.folder or request.getfixturevalue("postgres_url")
    opening.copy_gallery(path, tmp_path / "new")
    gallery.set_consent("Anna", Consent(until=after(days=-1)))
    opening.switch(path, tmp_path / "new")
    assert found(opening.open_gallery(path)) == ["Ben", "Ben"]


def test_who_was_put_aside_comes_back_with_their_consent(
    gallery: Gallery, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = gallery.folder or request.getfixturevalue("postgres_url")
    opening.copy_gallery(path, tmp_path / "new").remove("Anna")
    gallery.set_consent("Anna", Consent(until=after(days=-1)))
    opening.switch(path, tmp_path / "new", accept=opening.difference(path, tmp_path / "new"))
    opening.roll_back(path, accept=opening.difference(path, opening.previous_of(path)))
    back = opening.open_gallery(path)
    assert [person.name for person in back.people()] == ["Anna", "Ben"]
    assert found(back) == ["Ben", "Ben"]


def test_who_stands_in_front_of_a_camera_loses_the_name_when_the_consent_ends() -> None:
    embedder = StandInEmbedder()
    people = gallery_of(embedder, alice=1)
    pipeline = Pipeline(Config(cameras=(camera(),)), detector_of(StandInDetector(1)), embedder_of(embedder), people)
    film = Film()
    told = [event for _ in range(12) for event in pipeline.process([film.frame()])]
    assert [event.identity_name for event in told] == ["alice"]
    people.set_consent("alice", Consent(until=after(seconds=-1)))
    told = [event for _ in range(3) for event in pipeline.process([film.frame()])]
    assert [(event.type, event.identity_name) for event in told] == [("updated", "")]


def test_a_consent_cannot_end_before_it_begins() -> None:
    with pytest.raises(ConfigError, match="cannot end"):
        Consent(after(days=2), after(days=1))


def test_what_ends_is_told_and_what_is_over_is_erased(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = tmp_path / "people"
    FolderGallery.create(people, MODEL, DIGEST, DIMENSION).add([sample(name, seed) for seed, name in enumerate("ABC")])
    note = ["gallery", "consent", "--gallery", str(people)]
    assert run_command_line([*note, "A", "--until", after(days=-1), "--basis", "contract"]) == 0
    assert run_command_line([*note, "B", "--until", after(days=3)[:10]]) == 0
    assert run_command_line([*note, "C"]) == 2
    capsys.readouterr()
    assert run_command_line(["gallery", "list", "--gallery", str(people)]) == 0
    said = capsys.readouterr()
    assert "consent IS OVER until" in said.out
    assert "(contract)" in said.out
    assert "consent ends soon" in said.out
    assert "the consent of 1 person is over, that of 1 more ends within 30 days" in said.err
    assert run_command_line(["database", "expire", "--gallery", str(people), "--no-events", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["people"] == 1
    assert Path(told["receipt"]).is_file()
    assert [person.name for person in FolderGallery.open(people).people()] == ["B", "C"]
