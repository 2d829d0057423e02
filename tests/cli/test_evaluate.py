"""``facestream evaluate`` and ``facestream calibrate`` as users run them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.ground_truth import make_ground_truth_clip
from worker.cli import run_command_line
from worker.gallery.folder import FolderGallery

RETAIL = "face-reidentification-retail-0095"


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    code = run_command_line([*arguments, "--json"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    (line,) = captured.out.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["evaluate"], 2, "give one of --pairs, --people, --video"),
        (["evaluate", "--pairs", "p.txt"], 2, "--pairs needs --images"),
        (["evaluate", "--people", "d", "--images", "d"], 2, "--images goes with --pairs"),
        (["evaluate", "--video", "v.mp4", "--truth", "t.json"], 2, "--video needs --gallery"),
        (["evaluate", "--pairs", "none.txt", "--images", "."], 1, "pairs file none.txt: No such file"),
        (["evaluate", "--pairs", "bad.txt", "--images", "."], 1, "pairs file bad.txt, line 2: expected"),
        (["evaluate", "--pairs", "empty.txt", "--images", "."], 1, "pairs file empty.txt holds no pairs"),
        (["evaluate", "--pairs", "good.txt", "--images", "."], 1, "no image Ann/Ann_0001.jpg"),
        (["evaluate", "--pairs", "good.txt", "--images", "nowhere"], 1, "no folder of images at nowhere"),
        (["evaluate", "--people", "nowhere"], 1, "no photo or folder at nowhere"),
        (["calibrate", "--gallery", "g"], 2, "give one of --target-fmr"),
        (["calibrate", "--gallery", "g", "--target-fmr", "0.01"], 2, "no evidence"),
        (["calibrate", "--gallery", "g", "--target-fmr", "0", "--people", "."], 2, "above 0 and below 0.5"),
        (["calibrate", "--gallery", "g", "--target-fmr", "0.01", "--people", "."], 1, "no gallery at g"),
        (
            ["calibrate", "--gallery", "g", "--target-fmr", "0.01", "--people", ".", "--camera", "a/b"],
            2,
            "cameras.0.id",
        ),
    ],
)
def test_mistakes_end_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.txt").write_text("Ann\t1\t2\nAnn\t1\tBo\t1\n")
    Path("bad.txt").write_text("Ann\t1\t2\nAnn\t1\n")
    Path("empty.txt").touch()
    assert run_command_line(arguments) == code
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert message in line
    assert captured.out == ""


@pytest.fixture(scope="session")
def lfw(test_data: Path) -> Path:
    return test_data / "lfw_dev"


@pytest.fixture
def weights(test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESTREAM_MODELS_DIR", str(test_data / "models"))


@pytest.fixture
def people(lfw: Path, tmp_path: Path) -> Path:
    """48 people, a third of them with two photos."""
    folder = tmp_path / "people"
    folder.mkdir()
    everybody = sorted(path for path in (lfw / "images").iterdir() if path.is_dir())
    several = [path for path in everybody if len(list(path.iterdir())) >= 2][:16]
    single = [path for path in everybody if len(list(path.iterdir())) == 1][:32]
    for person in [*several, *single]:
        (folder / person.name).mkdir()
        for photo in sorted(person.iterdir())[:2]:
            (folder / person.name / photo.name).symlink_to(photo)
    return folder


@pytest.mark.data
def test_pairs_are_verified_and_the_results_written(
    lfw: Path, weights: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (lfw / "pairsDevTest.txt").read_text().splitlines()
    same = [line for line in lines if len(line.split("\t")) == 3][10:30]
    different = [line for line in lines if len(line.split("\t")) == 4][10:30]
    (tmp_path / "pairs.txt").write_text("\n".join(["2\t10", *same[:10], *different[:10], *same[10:], *different[10:]]))
    document = run_json(
        capsys, "evaluate", "--pairs", str(tmp_path / "pairs.txt"), "--images", str(lfw / "images"),
        "--model", RETAIL, "--plot", str(tmp_path / "roc.png"), "--output", str(tmp_path / "out"),
    )  # fmt: skip
    assert (document["pairs"], document["folds"], document["failed_images"]) == (40, 2, 0)
    assert document["accuracy"] >= 0.9
    assert document["auc"] >= 0.98
    assert set(document["tar_at_far"]) == {"0.1", "0.01", "0.001"}
    assert document["model_id"] == RETAIL
    assert document["threshold_source"] == "fitted on the other folds"
    assert (tmp_path / "roc.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == document


@pytest.mark.data
def test_a_missing_image_is_a_failed_one_and_its_warning_stays_off_standard_output(
    lfw: Path, weights: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (lfw / "pairsDevTest.txt").read_text().splitlines()
    assert lines[0] == "Abdullah_Gul\t13\t14"  # which the images lack
    different = [line for line in lines if len(line.split("\t")) == 4][:12]
    (tmp_path / "pairs.txt").write_text("\n".join([lines[0], *different]))
    document = run_json(
        capsys, "evaluate", "--pairs", str(tmp_path / "pairs.txt"), "--images", str(lfw / "images"),
        "--model", RETAIL, "--threshold", "0.9",
    )  # fmt: skip
    assert (document["failed_images"], document["threshold_source"]) == (1, "--threshold")
    assert document["accuracy"] == pytest.approx(12 / 13, abs=1e-6)
    assert document["tar_at_far"]["0.1"] == 0.0


@pytest.mark.data
def test_people_are_identified(people: Path, weights: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = run_json(
        capsys, "evaluate", "--people", str(people), "--model", RETAIL, "--plot", str(tmp_path / "det.png")
    )
    assert (document["enrolled_people"], document["probes_enrolled"], document["probes_strangers"]) == (16, 32, 32)
    assert document["rank_1"] >= 0.9
    assert document["fnir_at_fpir"]["0.1"] <= 0.1
    assert run_command_line(["evaluate", "--people", str(people), "--model", RETAIL]) == 0
    text = capsys.readouterr().out
    assert "share of known people who are missed, if this share of strangers is given a name 0.1: 0." in text
    assert "fpir" not in text.split("confidence")[0]
    assert (tmp_path / "det.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.data
def test_a_threshold_is_calibrated_and_written_where_asked(
    people: Path, weights: None, shared_cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrolled = tmp_path / "enroll"
    enrolled.mkdir()
    for person in sorted(people.iterdir())[:3]:
        photo = min(person.iterdir())
        (enrolled / f"{person.name}.jpg").symlink_to(photo.resolve())
    path = str(tmp_path / "gallery")
    assert run_command_line(["enroll", "--gallery", path, "--model", RETAIL, str(enrolled)]) == 0
    common = ["calibrate", "--gallery", path, "--people", str(people)]

    document = run_json(capsys, *common, "--target-fmr", "0.02", "--dry-run")
    assert FolderGallery.open(path).threshold is None
    assert not document["written"]
    assert document["fmr"] <= 0.02
    assert document["fmr_interval_95"][0] < document["fmr"] < document["fmr_interval_95"][1]
    assert "45 people not enrolled" in document["fpir_from"]
    assert document["false_alarms_per_camera_and_day"] is None  # nobody said how many strangers pass
    assert (document["target_asked"], document["holds_for"]) == ("fmr", "people like those in the evidence")
    assert len(document["deciding_pairs"]) == 10

    assert run_command_line([*common, "--target-fmr", "0.02", "--plot", str(tmp_path / "plot.png")]) == 0
    text = capsys.readouterr().out
    assert "this holds for a gallery of 3 faces; calibrate again after it has grown" in text
    assert "holds for people like those in the evidence" in text
    assert "give --visits-per-day to see false alarms a day" in text
    assert "upper bound" not in text
    assert f"up to {1 - (1 - document['fpir']) ** 2:.2g} of all strangers would match somebody" in text
    gallery = FolderGallery.open(path)
    assert gallery.threshold == document["threshold"]
    assert gallery.calibration["default"]["target_fmr"] == 0.02
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")

    assert any((shared_cache / "faces").iterdir())
    anew = run_json(capsys, *common, "--target-fmr", "0.02", "--dry-run", "--no-cache")
    assert anew["threshold"] == document["threshold"]
    assert not any((shared_cache / "faces").iterdir())

    strangers = tmp_path / "strangers"
    strangers.mkdir()
    for person in sorted(people.iterdir())[3:]:
        (strangers / f"{person.name}.jpg").symlink_to(min(person.iterdir()).resolve())
    door = run_json(
        capsys, "calibrate", "--gallery", path, "--strangers", str(strangers), "--target-fpir", "0.2",
        "--camera", "door", "--visits-per-day", "200",
    )  # fmt: skip
    gallery = FolderGallery.open(path)
    assert gallery.threshold == document["threshold"]
    assert gallery.camera_thresholds == {"door": door["threshold"]}
    assert 40 <= door["evidence"][0]["people"] <= 45
    assert door["false_alarms_per_camera_and_day"] == pytest.approx(200 * door["fpir"], rel=1e-3)

    capsys.readouterr()
    assert run_command_line([*common, "--target-fmr", "0.0001"]) == 1
    assert "48 people (1,128 pairs of people) are given, about" in capsys.readouterr().err
    assert FolderGallery.open(path).version == gallery.version


@pytest.mark.data
def test_one_person_under_two_names_in_the_evidence_is_named_and_shown(
    people: Path, weights: None, lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    double = people / "Abdel_Nasser_Assidi"  # whose two photos resemble each other
    first, second = sorted(double.iterdir())
    (people / "somebody else").mkdir()
    second.rename(people / "somebody else" / second.name)
    enrolled = tmp_path / "enroll"
    enrolled.mkdir()
    (enrolled / "first.jpg").symlink_to(first.resolve())
    path = str(tmp_path / "gallery")
    assert run_command_line(["enroll", "--gallery", path, "--model", RETAIL, str(enrolled)]) == 0
    capsys.readouterr()
    common = ["calibrate", "--gallery", path, "--people", str(people), "--target-fmr", "0.02"]
    assert run_command_line([*common, "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr().err.splitlines()
    (line,) = [line for line in said if "as similar as one person" in line]
    for named in (f"somebody else ({second.name})", f"{double.name} ({first.name})"):
        assert named in line
    assert any("without 1 such pair the people allow 0." in line for line in said)
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.data
def test_a_target_that_strangers_show_to_be_missed_ends_with_1(
    people: Path, weights: None, lfw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The only stranger in the footage is enrolled under another name: too few to decide, but they tell."""
    enrolled, strangers = tmp_path / "enroll", tmp_path / "strangers"
    enrolled.mkdir()
    strangers.mkdir()
    double = next(person for person in sorted(people.iterdir()) if len(list(person.iterdir())) == 2)
    first, second = sorted(double.iterdir())
    (enrolled / "first.jpg").symlink_to(first.resolve())
    (strangers / "second.jpg").symlink_to(second.resolve())
    path = str(tmp_path / "gallery")
    assert run_command_line(["enroll", "--gallery", path, "--model", RETAIL, str(enrolled)]) == 0
    capsys.readouterr()
    common = ["calibrate", "--gallery", path, "--target-fpir", "0.05", "--visits-per-day", "100"]
    assert run_command_line([*common, "--people", str(people), "--strangers", str(strangers), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["target_status"], document["target_met"], document["reached"]) == ("missed", False, 1.0)
    assert "strangers would do" in document["to_reach"]
    assert run_command_line([*common, "--people", str(people), "--strangers", str(strangers)]) == 1
    assert "TARGET MISSED: asked 0.05 of the strangers, reached 1 " in capsys.readouterr().out
    assert run_command_line([*common, "--strangers", str(strangers)]) == 1
    assert "cannot support" in capsys.readouterr().err


@pytest.mark.data
def test_footage_of_strangers_calibrates_a_camera_and_an_enrolled_person_in_it_is_pointed_out(
    lfw: Path, weights: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = make_ground_truth_clip(lfw, tmp_path, enrolled=1, strangers=8, seed=5, visit_s=(0.7, 0.9))
    (known,) = (visit for visit in truth.visits if visit.enrolled)
    footage = truth.clip.rename(tmp_path / "monday.recorded")
    path = str(tmp_path / "gallery")
    assert run_command_line(["enroll", "--gallery", path, "--model", RETAIL, str(truth.enroll_folder)]) == 0
    capsys.readouterr()
    arguments = ["calibrate", "--gallery", path, "--strangers", str(footage), "--target-fpir", "0.45"]
    assert run_command_line([*arguments, "--camera", "door", "--json"]) == 0
    said = capsys.readouterr()
    (evidence,) = json.loads(said.out)["evidence"]
    assert (evidence["source"], evidence["people"]) == ("strangers", 9)
    (line,) = [line for line in said.err.splitlines() if "looks like" in line]
    assert f"looks like {known.name} (cosine " in line
    seconds = float(line.split("monday.recorded at ")[1].split(" s ")[0])
    assert seconds == pytest.approx(known.start_s, abs=0.2)
    gallery = FolderGallery.open(path)
    assert list(gallery.camera_thresholds) == ["door"]
    assert gallery.threshold is None
    assert run_command_line(["calibrate", "--gallery", path, "--show"]) == 0
    others, door = capsys.readouterr().out.splitlines()
    assert others == "all other cameras: the model's threshold; not calibrated"
    assert door.startswith(f"camera door: {gallery.camera_thresholds['door']:.4f} (by strangers, fpir ")
    kept = run_json(capsys, "calibrate", "--gallery", path, "--show")
    assert (kept["threshold"], kept["camera_thresholds"]) == (None, gallery.camera_thresholds)


@pytest.mark.data
def test_a_clip_is_judged_by_its_ground_truth(
    lfw: Path, weights: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = make_ground_truth_clip(lfw, tmp_path, enrolled=2, strangers=1, seed=4, visit_s=(1.5, 2.0))
    path = str(tmp_path / "gallery")
    assert run_command_line(["enroll", "--gallery", path, "--model", RETAIL, str(truth.enroll_folder)]) == 0
    document = run_json(
        capsys, "evaluate", "--video", str(truth.clip), "--truth", str(truth.json_path), "--gallery", path
    )
    assert document["frames"] == truth.frames
    assert (document["visits"], document["visits_enrolled"]) == (3, 2)
    assert (document["precision"], document["recall"], document["sightings_per_visit"]) == (1.0, 1.0, 1.0)
    assert 0 < document["time_to_identify_s"]["median"] < 1.5
