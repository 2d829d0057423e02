import json
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from worker.cli import run_command_line
from worker.evaluation.audit import Finding, audit, compare, counts, fold_look_alikes
from worker.gallery.contents import NewSample
from worker.gallery.folder import FolderGallery
from worker.gallery.resemblance import resemblance_in

DIMENSION = 128
THRESHOLD, MARGIN = 0.4, 0.03


class People:
    """People as directions; a photo of one is the direction with noise, at a cosine of about 0.8 to another."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._directions: dict[str, NDArray[np.float64]] = {}
        self.samples: list[NewSample] = []

    def photo(self, of: str, spread: float = 0.5) -> NDArray[np.float32]:
        direction = self._directions.setdefault(of, self._unit(self._random.normal(size=DIMENSION)))
        return self._unit(direction + spread * self._unit(self._random.normal(size=DIMENSION))).astype(np.float32)

    def enroll(
        self, name: str, count: int = 1, *, shows: str | None = None, spread: float = 0.5, quality: float = 0.9
    ) -> None:
        for _ in range(count):
            number = len(self.samples)
            vector = self.photo(shows or name, spread)
            self.samples.append(NewSample(name, vector, f"{number}.jpg", f"{number:064x}", quality=quality))

    def blend(self, name: str, other: str, share: float) -> None:
        """Makes ``name`` look like ``other``."""
        self.photo(name), self.photo(other)
        self._directions[name] = self._unit(self._directions[name] + share * self._directions[other])

    def gallery(self) -> FolderGallery:
        made = FolderGallery.in_memory("a-model", "d", DIMENSION)
        made.add(self.samples)
        return made

    def audit(self) -> list[Finding]:
        return audit(self.gallery(), threshold=THRESHOLD, margin=MARGIN)

    @staticmethod
    def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        return vector / np.linalg.norm(vector)


@pytest.fixture
def people() -> People:
    crowd = People()
    for number in range(20):
        crowd.enroll(f"person {number}", 4)
    return crowd


def grave(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.kind != "poor_coverage"]


def test_nothing_is_found_where_nothing_is_wrong(people: People) -> None:
    assert people.audit() == []
    assert audit(People().gallery(), threshold=THRESHOLD, margin=MARGIN) == []


@pytest.mark.parametrize("samples", [1, 3])
def test_one_person_under_two_names_is_found(people: People, samples: int) -> None:
    people.enroll("Ann again", samples, shows="person 3")
    (finding,) = grave(people.audit())
    assert (finding.kind, set(finding.people)) == ("same_person", {"person 3", "Ann again"})
    assert finding.similarity is not None
    assert finding.similarity > THRESHOLD


def test_a_photo_of_somebody_else_is_found(people: People) -> None:
    people.enroll("person 5", 1, shows="person 9")
    (finding,) = grave(people.audit())
    assert finding.kind == "wrong_sample"
    assert finding.people == ("person 5", "person 9")
    assert finding.photos[0] == "80.jpg"


@pytest.mark.parametrize("seed", range(8))
def test_the_misplaced_photo_is_blamed_and_not_the_one_that_it_resembles(seed: int) -> None:
    """Of three photos, one lies under another name; the two others are nearer to it than to each other."""
    crowd = People(seed)
    for number in range(10):
        crowd.enroll(f"person {number}", 3)
    crowd.enroll("victim", 2, spread=1.1)
    crowd.enroll("person 5", 1, shows="victim", spread=0.1)
    blamed = [(finding.kind, finding.photos[0]) for finding in grave(crowd.audit()) if finding.kind != "look_alikes"]
    assert blamed == [("wrong_sample", "32.jpg")]


def test_two_photos_that_were_exchanged_are_both_named() -> None:
    crowd = People()
    for name in ("Ann", "Bo"):
        crowd.enroll(name, 3)
    crowd.enroll("Ann", 1, shows="Bo")
    crowd.enroll("Bo", 1, shows="Ann")
    found = [finding for finding in grave(crowd.audit()) if finding.kind != "look_alikes"]
    assert sorted((finding.kind, finding.people, finding.photos[0]) for finding in found) == [
        ("wrong_sample", ("Ann", "Bo"), "6.jpg"),
        ("wrong_sample", ("Bo", "Ann"), "7.jpg"),
    ]


def test_where_nothing_tells_which_photo_is_right_all_of_them_are_shown(people: People) -> None:
    for name, shows in (("Ann", "Ann"), ("Ann", "Bo"), ("Bo", "Ann"), ("Bo", "Bo")):
        people.enroll(name, 1, shows=shows)
    (finding,) = grave(people.audit())
    assert (finding.kind, set(finding.people)) == ("mixed_samples", {"Ann", "Bo"})
    assert set(finding.photos) == {"80.jpg", "81.jpg", "82.jpg", "83.jpg"}
    assert "remove-sample" in finding.advice


def test_somebody_who_resembles_many_is_one_line_to_look_at(
    people: People, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = np.sum([people.photo(f"person {number}", spread=0.0) for number in range(8)], axis=0)  # 0.35 to each
    people.samples.append(NewSample("average", (hub / np.linalg.norm(hub)).astype(np.float32), "hub.jpg", "f" * 64))
    (group, *_) = fold_look_alikes(audit(people.gallery(), threshold=0.25, margin=MARGIN))
    assert {finding.people[0] for finding in group} == {"average"}
    assert len(group) == 8
    FolderGallery.create(tmp_path / "g", "a-model", "d", DIMENSION).add(people.samples)
    assert run_command_line(["gallery", "audit", "--gallery", str(tmp_path / "g"), "--threshold", "0.25"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("look-alikes: "))
    assert "average resembles 8 people: " in line
    assert " and 4 more; look at the photos of average" in line


def test_a_threshold_with_many_look_alikes_is_called_too_low(
    people: People, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    FolderGallery.create(tmp_path / "g", "a-model", "d", DIMENSION).add(people.samples)
    assert run_command_line(["gallery", "audit", "--gallery", str(tmp_path / "g"), "--threshold", "0.1"]) == 0
    out = capsys.readouterr().out
    assert "too low for this gallery. At 0." in out
    assert sum(line.startswith("look-alikes: ") for line in out.splitlines()) <= 20
    assert run_command_line(["gallery", "audit", "--gallery", str(tmp_path / "g"), "--threshold", "0.4"]) == 0
    assert "too low" not in capsys.readouterr().out


@pytest.fixture
def relatives() -> list[NewSample]:
    """Four photos of each of 30 people who have much in common: at the model's threshold many of their pairs are alike.

    The last two are one person under two names.
    """
    kin = People(seed=3)
    for number in range(30):
        kin.blend(f"cousin {number}", "grandmother", 0.7)
        kin.enroll(f"cousin {number}", 4)
    kin.enroll("cousin 29 again", 4, shows="cousin 29")
    return kin.samples


def test_pairs_that_are_ordinary_among_people_who_resemble_each_other_are_not_blamed(
    relatives: list[NewSample], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = "face-reidentification-retail-0095"  # whose manifest tells how alike other people are
    made = FolderGallery.create(tmp_path / "g", model, "d", DIMENSION)
    made.add(relatives)
    resemblance = resemblance_in(made, THRESHOLD)
    assert resemblance is not None
    assert resemblance.is_high
    assert 0.05 < resemblance.share < 0.5
    ordinary = counts(audit(made, threshold=THRESHOLD, margin=MARGIN, between=THRESHOLD))
    found = audit(made, threshold=THRESHOLD, margin=MARGIN)
    assert [sorted(finding.people) for finding in found if finding.kind == "same_person"] == [
        ["cousin 29", "cousin 29 again"]
    ]
    assert counts(found)["resemblance"] == 1
    assert counts(found)["look_alikes"] < ordinary["look_alikes"] / 4
    assert counts(found)["wrong_sample"] == counts(found)["odd_sample"] == 0
    assert run_command_line(["gallery", "audit", "--gallery", str(tmp_path / "g")]) == 0
    assert "people here resemble each other: two of them were compared at 0." in capsys.readouterr().out
    assert run_command_line(["gallery", "audit", "--gallery", str(tmp_path / "g"), "--threshold", "0.4"]) == 0
    assert "were compared at" not in capsys.readouterr().out


def test_a_wrong_photo_explains_why_others_seem_alike(people: People) -> None:
    people.enroll("Ann again", 3, shows="person 9")
    people.enroll("person 5", 1, shows="person 9")
    assert sorted(finding.kind for finding in grave(people.audit())) == ["same_person", "wrong_sample"]


def test_a_photo_of_a_stranger_is_found(people: People) -> None:
    people.enroll("person 5", 1, shows="nobody")
    (finding,) = grave(people.audit())
    assert (finding.kind, finding.people, finding.photos[0]) == ("odd_sample", ("person 5",), "80.jpg")


def test_of_two_photos_that_differ_the_poorer_one_is_named(people: People) -> None:
    people.enroll("somebody", 1, quality=0.9)
    people.enroll("somebody", 1, shows="nobody", quality=0.5)
    (finding,) = grave(people.audit())
    assert (finding.kind, finding.photos[0]) == ("odd_sample", "81.jpg")


def test_look_alikes_are_found_and_are_not_taken_for_one_person(people: People) -> None:
    people.blend("twin", "person 2", 0.65)
    people.enroll("twin", 4)
    (finding,) = grave(people.audit())
    assert (finding.kind, set(finding.people)) == ("look_alikes", {"person 2", "twin"})


def test_thin_coverage_says_why(people: People) -> None:
    people.enroll("one", 1)
    people.enroll("burst", 4, spread=0.05)
    people.enroll("blurred", 3, quality=0.25)
    details = {finding.people[0]: finding.detail for finding in people.audit()}
    assert details["one"] == "one sample only"
    assert details["burst"] == "4 samples that are all alike"
    assert "best 0.25" in details["blurred"]
    assert len(details) == 3


def test_blocks_change_nothing(people: People) -> None:
    people.enroll("person 5", 1, shows="person 9")
    people.enroll("Ann again", 2, shows="person 3")
    gallery = people.gallery()
    whole = audit(gallery, threshold=THRESHOLD, margin=MARGIN)
    assert audit(gallery, threshold=THRESHOLD, margin=MARGIN, block_rows=5) == whole


def test_the_numbers_are_those_of_a_plain_comparison() -> None:
    random = np.random.default_rng(3)
    vectors = random.normal(size=(30, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    owners = np.sort(random.integers(0, 9, 30))
    owners = np.unique(owners, return_inverse=True)[1]
    found = compare(vectors, owners, near=0.3)
    table = vectors @ vectors.T
    for row in range(30):
        mine = [other for other in range(30) if owners[other] == owners[row] and other != row]
        others = [other for other in range(30) if owners[other] != owners[row]]
        assert found.rival[row] == pytest.approx(max(table[row, others]), abs=1e-5)
        if mine:
            assert found.own[row] == pytest.approx(max(table[row, mine]), abs=1e-5)
            assert found.own_median[row] == pytest.approx(np.median(table[row, mine]), abs=1e-5)
        else:
            assert np.isnan(found.own[row])
    expected = {
        (a, b): table[np.ix_(owners == a, owners == b)]
        for a in range(owners.max() + 1)
        for b in range(a + 1, owners.max() + 1)
        if table[np.ix_(owners == a, owners == b)].max() >= 0.3
    }
    assert {tuple(pair) for pair in found.pairs.tolist()} == set(expected)
    for pair, nearest, mean in zip(found.pairs.tolist(), found.pair_nearest, found.pair_mean, strict=True):
        assert nearest == pytest.approx(expected[tuple(pair)].max(), abs=1e-5)
        assert mean == pytest.approx(expected[tuple(pair)].mean(), abs=1e-5)


def test_the_command_prints_a_line_for_each_and_ends_with_0(
    people: People, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people.enroll("person 5", 1, shows="person 9")
    people.enroll("Ann again", 2, shows="person 3")
    FolderGallery.create(tmp_path / "g", "a-model", "d", DIMENSION).add(people.samples)
    common = ["gallery", "audit", "--gallery", str(tmp_path / "g")]
    assert run_command_line(common) == 2
    assert "give --threshold" in capsys.readouterr().err
    assert run_command_line([*common, "--threshold", "0.4", "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert re.search(r"probably one person.*Ann again / person 3.*gallery merge", said)
    assert re.search(r"80\.jpg.*person 9", said)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert run_command_line([*common, "--threshold", "0.4", "--json"]) == 0
    documents = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["kind"] for document in documents] == ["same_person", "wrong_sample"]
    assert counts(people.audit())["same_person"] == 1
