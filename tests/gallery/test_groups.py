"""Groups of people: kept with the gallery, wherever it lies, carried by events, and asked for the threshold."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.support.galleries import DIGEST, DIMENSION, MODEL, made_gallery, probe, sample
from tests.support.past import sighting
from tests.support.sample_events import make_event
from tests.support.stand_ins import Film, StandInDetector, StandInEmbedder, camera, detector_of, embedder_of, gallery_of
from worker.cli import run_command_line
from worker.config import Config, RecognitionConfig
from worker.erased import Erased, Erasure, digest_of
from worker.errors import ConfigError, GalleryError
from worker.events.codec import decode, encode
from worker.gallery import opening
from worker.gallery.folder import FolderGallery
from worker.gallery.gallery import Gallery
from worker.gallery.groups import Group
from worker.history.records import Account, explain
from worker.recognition.matching import decide, identify_faces
from worker.recognition.pipeline import Pipeline
from worker.types import Candidate, Membership

STRICT = Group(threshold=0.9, colour="red", advice="call the guard")


def address_of(gallery: Gallery, request: pytest.FixtureRequest) -> Path | str:
    url: Path | str = gallery.folder or request.getfixturevalue("postgres_url")
    return url


@pytest.fixture(params=["folder", "database"])
def gallery(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    """Anna, Ben and Carl."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    made = made_gallery(request, tmp_path / "people")
    made.add([sample("Anna", 1), sample("Ben", 2), sample("Carl", 3)])
    made.set_group("banned", STRICT)
    made.set_group("staff", Group())
    return made


def groups_in(gallery: Gallery) -> dict[str, tuple[str, ...]]:
    return {person.name: person.groups for person in gallery.people()}


def test_groups_are_kept_and_others_follow_them(gallery: Gallery, request: pytest.FixtureRequest) -> None:
    other = opening.open_gallery(address_of(gallery, request))
    gallery.regroup(["Anna", "Ben"], join=["staff"])
    gallery.regroup(["Anna"], join=["banned"])
    gallery.regroup(["Ben"], leave=["staff"])
    other.reload_if_changed()
    again = opening.open_gallery(address_of(gallery, request))
    for seen in (gallery, other, again):
        assert groups_in(seen) == {"Anna": ("banned", "staff"), "Ben": (), "Carl": ()}
        assert seen.groups == {"banned": STRICT, "staff": Group()}
        (anna, ben) = seen.search(probe(1, 2))
        assert anna.membership == Membership(("banned", "staff"), 0.9, "banned")
        assert ben.membership == Membership()
    gallery.remove_group("banned")
    other.reload_if_changed()
    assert groups_in(other)["Anna"] == ("staff",)
    assert set(other.groups) == {"staff"}


def test_groups_stay_through_all_that_happens_to_a_gallery(
    gallery: Gallery, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = address_of(gallery, request)
    gallery.regroup(["Anna", "Carl"], join=["banned"])
    gallery.regroup(["Ben"], join=["staff"])
    gallery.rename("Anna", "Anna Berg")
    gallery.merge("Ben", "Carl")
    both = {"Anna Berg": ("banned",), "Ben": ("banned", "staff")}
    assert groups_in(opening.open_gallery(path)) == both
    copy = opening.copy_gallery(path, tmp_path / "copy")
    assert (groups_in(copy), copy.groups) == (both, gallery.groups)
    copy.regroup(["Anna Berg"], join=["staff"], only=True)
    assert groups_in(copy)["Anna Berg"] == ("staff",)
    copy.regroup(["Anna Berg"], leave=["staff"])
    opening.switch(path, tmp_path / "copy")
    switched = opening.open_gallery(path)
    assert (groups_in(switched), switched.groups) == (both, gallery.groups)
    copy.export_npz(tmp_path / "people.npz")
    exported = np.load(tmp_path / "people.npz")
    assert set(zip(exported["names"].tolist(), exported["groups"].tolist(), strict=True)) == {
        ("Anna Berg", ""), ("Ben", "banned,staff"),
    }  # fmt: skip
    switched.remove("Anna Berg")
    assert list(opening.open_gallery(path).contents.memberships.values()) == [("banned", "staff")]


def test_a_threshold_does_not_go_over_to_another_model(
    gallery: Gallery, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    gallery.regroup(["Anna"], join=["banned"])
    new = FolderGallery.create(tmp_path / "new", "other", DIGEST, DIMENSION)
    for person in gallery.people():
        new.add([sample(person.name, int(person.samples[0].photo[0]))])
    path = address_of(gallery, request)
    difference = opening.difference(path, tmp_path / "new")
    opening.switch(path, tmp_path / "new", accept=difference)
    switched = opening.open_gallery(path)
    assert switched.groups["banned"] == Group(None, "red", "call the guard")
    switched.set_group("banned", Group(0.5, "red", "call the guard"))
    opening.roll_back(path, accept=opening.difference(path, opening.previous_of(path)))
    assert opening.open_gallery(path).groups["banned"] == STRICT


def test_an_erased_person_leaves_no_group_behind(gallery: Gallery) -> None:
    gallery.regroup(["Anna", "Ben"], join=["banned"])
    anna = gallery.person("Anna").identity_id
    left = gallery.contents.without(Erased([Erasure("e", "2026-01-01T00:00:00.000Z", frozenset([digest_of(anna)]))]))
    assert set(left.memberships) == {gallery.person("Ben").identity_id}


@pytest.mark.parametrize("joins", [True, False])
def test_there_must_be_such_a_group_and_such_a_person(gallery: Gallery, joins: bool) -> None:
    def regroup(who: list[str], group: str) -> None:
        gallery.regroup(who, join=[group] if joins else [], leave=[] if joins else [group])

    before = gallery.version
    with pytest.raises(GalleryError, match=r"no group 'guests' \(banned, staff\): make it with"):
        regroup(["Anna"], "guests")
    with pytest.raises(GalleryError, match="knows nobody called 'Zoe'"):
        regroup(["Anna", "Zoe"], "staff")
    with pytest.raises(GalleryError, match="no group"):
        gallery.remove_group("guests")
    assert (gallery.version, groups_in(gallery)["Anna"]) == (before, ())


@pytest.mark.parametrize("name", ["", " ", "a,b", "a/b", "x" * 61, "\u200b"])
def test_not_every_text_names_a_group(gallery: Gallery, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a group"):
        gallery.set_group(name, Group())


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.5}, {"threshold": float("nan")}, {"colour": "#f00"}, {"advice": "x" * 301}]
)
def test_what_cannot_be_set_for_a_group(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Group(**wrong)  # type: ignore[arg-type]


def test_who_is_in_a_strict_group_is_not_named_where_the_rest_is(gallery: Gallery) -> None:
    gallery.regroup(["Anna"], join=["banned"])
    near = probe(1, 2)
    noisy = near.vectors + np.float32(0.8) * probe(7, 7).vectors
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    faces = type(near)(noisy.astype(np.float32), near.model_id)
    anna, ben = identify_faces(faces, gallery, 0.5)
    assert anna.similarity < 0.9
    assert (anna.reason, anna.threshold, anna.threshold_group, anna.groups) == ("below_threshold", 0.9, "banned", ())
    assert (ben.reason, ben.identity_name, ben.threshold) == ("matched", "Ben", 0.5)
    assert [match.identity_name for match in identify_faces(faces, gallery, 0.5, same_for_all=True)] == ["Anna", "Ben"]
    gallery.set_group("banned", Group(threshold=0.2))
    (anna, _) = identify_faces(faces, gallery, 0.99)
    assert (anna.identity_name, anna.groups, anna.threshold) == ("Anna", ("banned",), 0.2)


def test_of_two_groups_the_stricter_one_decides_and_a_name_stays_by_its_own_threshold() -> None:
    config = RecognitionConfig(min_embeddings=1, hysteresis=0.05, margin=0.05)
    strict = Membership(("banned",), 0.7, "banned")

    def verdict(similarity: float, runner_up: float, **kept: object) -> str:
        candidate = Candidate("a", "Anna", similarity, runner_up, "b", "Ben", membership=strict)
        previous = decide(Candidate("b", "Ben", 0.9, 0.1), config, threshold=0.4, evidence=3, gallery_version=1)
        match = decide(
            candidate, config, threshold=0.4, evidence=3, gallery_version=1, previous=previous if kept else None
        )
        return match.identity_name

    assert verdict(0.71, 0.3) == "Anna"
    assert verdict(0.69, 0.3) == ""
    # Ben was named before, is still above his own floor, and Anna is not beyond hers.
    assert verdict(0.72, 0.36, kept=True) == "Ben"
    assert verdict(0.76, 0.36, kept=True) == "Anna"
    assert verdict(0.76, 0.34, kept=True) == "Anna"


def test_a_worker_follows_the_groups_and_tells_them() -> None:
    embedder = StandInEmbedder()
    people = gallery_of(embedder, alice=1)
    pipeline = Pipeline(Config(cameras=(camera(),)), detector_of(StandInDetector(1)), embedder_of(embedder), people)
    film = Film()

    def look(times: int) -> list[tuple[str, str, str]]:
        told = [event for _ in range(times) for event in pipeline.process([film.frame()])]
        return [(event.type, event.identity_name, event.groups) for event in told]

    people.set_group("staff", Group())
    people.regroup(["alice"], join=["staff"])
    assert look(12) == [("started", "alice", "staff")]
    people.set_group("banned", Group(threshold=1.0))
    people.regroup(["alice"], join=["banned"])
    people.set_group("banned", Group(threshold=0.1))
    assert look(3) == []
    (ended,) = pipeline.close()
    assert (ended.groups, ended.threshold) == ("banned,staff", 0.1)
    assert decode(encode(ended)).groups == ended.groups


def test_an_entry_of_before_there_were_groups_is_read() -> None:
    fields = encode(make_event())
    del fields["groups"]
    assert decode(fields).groups == ""


def test_the_explanation_names_the_group_whose_threshold_it_was() -> None:
    account = Account(faces=3, embedded=3)
    strict = Membership(("banned",), 0.7, "banned")
    candidate = Candidate("a", "Anna", 0.6, 0.1, membership=strict)
    match = decide(candidate, RecognitionConfig(), threshold=0.4, evidence=9, gallery_version=1)
    account.conclude(candidate, match, 0.4, match.reason)
    past = sighting(1, account=Account.from_json(account.to_json()))
    assert "nearest was Anna at 0.60 (threshold 0.70 of the group banned): below threshold" in explain(past)


def test_the_commands_make_groups_and_fill_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = tmp_path / "people"
    FolderGallery.create(people, MODEL, DIGEST, DIMENSION).add([sample("Anna", 1), sample("Ben", 2)])

    def run(*words: str) -> tuple[int, str, str]:
        code = run_command_line(["gallery", "group", *words, "--gallery", str(people)])
        return (code, *capsys.readouterr())

    assert run("set", "banned", "--threshold", "0.45", "--colour", "red", "--advice", "call the guard")[0] == 0
    assert run("set", "banned", "--advice", "call somebody")[1] == "group banned: threshold 0.450; version 4\n"
    assert run("add", "banned", "Anna", "Ben")[0] == 0
    assert run("remove", "banned", "Ben")[1] == "Ben: in no group; version 6\n"
    told = json.loads(run("list", "--json")[1])
    assert told["advice"] == "call somebody"
    assert (told["threshold"], [person["identity_name"] for person in told["people"]]) == (0.45, ["Anna"])
    for words, code, message in (
        (("add", "guests", "Anna"), 1, "no group 'guests'"),
        (("set", "a,b"), 2, "cannot name a group"),
        (("set", "staff", "--threshold", "2"), 2, "-1..1"),
        (("set", "staff", "--colour", "pink"), 2, "not a colour"),
        (("set", "staff", "--threshold", "0.4", "--no-threshold"), 2, "one of the two"),
    ):
        found, out, err = run(*words)
        assert (found, out, err.count("\n"), message in err) == (code, "", 1, True), err
    assert run("set", "banned", "--no-threshold")[1] == "group banned: no threshold of its own; version 7\n"
    assert run("delete", "banned")[0] == 0
    assert run("list")[1].startswith("no groups yet")
