import json
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from tests.support.command_line import RETAIL, facestream, running
from tests.support.repository import REPOSITORY
from worker.config import cache_dir
from worker.errors import ClassifierError, ModelError, SourceError
from worker.evaluation.plots import plot_confusion
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.gallery.classifier import Classifier
from worker.training import cnn
from worker.training.dataset import read_data_set
from worker.training.output import write_report
from worker.training.training import Trained, train_cnn, train_svm
from worker.types import Chips, Detections, Embeddings, Image

# A network that learns takes a minute on idle processors, and its fixture counts for the test that asks first.
pytestmark = pytest.mark.timeout(400)

DIMENSION = 16
POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.34, 0.8], [0.66, 0.8]], np.float32)


class StandInDetector:
    """Finds what the colour of the first pixel says: red / 10 faces."""

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        return [self._faces(int(image[0, 0, 0]) // 10) for image in images]

    def _faces(self, count: int) -> Detections:
        boxes = np.array([[10 + i, 10, 110 + i, 110] for i in range(count)], np.float32).reshape(-1, 4)
        return Detections(boxes, np.full(count, 0.99, np.float32), boxes[:, None, :2] + POINTS[None] * 100)


class StandInEmbedder:
    """The person is the blue of the first pixel, the photo the green."""

    model_id, preprocessing_digest, dimension, threshold = "stand-in", "d", DIMENSION, 0.5

    def align(self, image: Image, detections: Detections) -> Chips:
        return Chips(np.broadcast_to(image[0, 0], (len(detections), 2, 2, 3)))

    def embed(self, chips: Chips) -> Embeddings:
        pixels = chips.images[:, 0, 0].astype(int)
        vectors = np.eye(DIMENSION)[pixels[:, 2]]
        vectors += np.stack([np.random.default_rng(row.tolist()).normal(scale=0.05, size=DIMENSION) for row in pixels])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Embeddings(vectors.astype(np.float32), self.model_id)


def save(path: Path, person: int, photo: int, faces: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full((120, 120, 3), 128, np.uint8)
    image[0, 0] = 10 * faces, photo, person
    Pillow.fromarray(image).save(path)
    return path


def people(folder: Path, count: int, each: int, first_photo: int = 0) -> Path:
    for person in range(count):
        for photo in range(each):
            save(folder / f"person {person}" / f"{photo}.png", person, first_photo + photo)
    return folder


def svm(tmp_path: Path, data: Path, test: Path | None = None, **options: Any) -> Trained:
    how = {key: options.pop(key) for key in ("train_per_person", "leave_out") if key in options}
    return train_svm(
        read_data_set(data, test, **how), cast(FaceDetector, StandInDetector()),
        cast(FaceEmbedder, StandInEmbedder()), tmp_path / "out", **options,
    )  # fmt: skip


def test_photos_of_people_become_a_classifier_and_a_report(tmp_path: Path) -> None:
    test = people(tmp_path / "test", 4, 3, first_photo=50)
    save(test / "person 1" / "faceless.png", 1, 99, faces=0)
    save(test / "a stranger" / "0.png", 9, 0)
    trained = svm(tmp_path, people(tmp_path / "data", 4, 6), test)
    assert trained.test is not None
    figures = trained.test.report
    assert (figures["photos"], figures["accuracy"], figures["without_face"]) == (13, round(12 / 13, 4), 1)
    assert (figures["strangers"]["faces"], figures["strangers"]["named"]) == (1, 0)
    assert trained.report["cross_validation"]["accuracy"] == 1.0
    assert trained.report["rejection"]["held_out_people"] == 4
    by_name = {row["name"]: row for row in figures["per_person"]}
    assert (by_name["person 1"]["right"], by_name["person 1"]["without_face"]) == (3, 1)
    assert trained.test.confusion.sum() == 13
    classifier = Classifier.open(tmp_path / "out")
    assert classifier.people == tuple(f"person {number}" for number in range(4))
    assert classifier.threshold >= StandInEmbedder.threshold  # a model's own is not gone below
    write_report(trained.report | {"test": figures}, tmp_path / "out")
    page = (tmp_path / "out" / "report.md").read_text()
    assert "| person 1 | 4 | 3 | 0 | 0 | 1 | 75.0% |" in page
    assert json.loads((tmp_path / "out" / "report.json").read_text())["test"]["photos"] == 13


def test_a_confusion_matrix_is_drawn_whatever_people_are_called(tmp_path: Path) -> None:
    plot_confusion(np.eye(2, 4, dtype=np.int64), ("李 雷", "$x_1$"), title="two people", path=tmp_path / "c.png")
    with Pillow.open(tmp_path / "c.png") as picture:
        assert len(picture.convert("L").getcolors() or []) > 10


def test_a_folder_with_train_and_val_needs_no_further_word(tmp_path: Path) -> None:
    people(tmp_path / "data" / "train", 3, 4)
    people(tmp_path / "data" / "val", 3, 2, first_photo=50)
    data = read_data_set(tmp_path / "data")
    assert (len(data.train), len(data.test), data.people) == (12, 6, ("person 0", "person 1", "person 2"))
    with pytest.raises(SourceError, match="split into train and test already"):
        read_data_set(tmp_path / "data", train_per_person=2)


def test_a_flat_folder_goes_by_the_names_of_its_photos(tmp_path: Path) -> None:
    for number, name in enumerate(("Ada_1", "Ada_2", "Bo-01", "Bo (2)", "R2D2")):
        save(tmp_path / "data" / f"{name}.png", 0, number)
    assert read_data_set(tmp_path / "data").people == ("Ada", "Bo", "R2D2")


def test_photos_and_people_are_drawn_by_the_seed(tmp_path: Path) -> None:
    data = people(tmp_path / "data", 5, 6)
    first = read_data_set(data, train_per_person=4, leave_out=2, seed=1)
    assert (len(first.train), len(first.test), len(first.strangers)) == (12, 6, 12)
    assert not {photo.name for photo in first.strangers} & set(first.people)
    assert read_data_set(data, train_per_person=4, leave_out=2, seed=1).train == first.train
    assert read_data_set(data, train_per_person=4, leave_out=2, seed=2).train != first.train


def test_what_cannot_be_used_is_told_photo_by_photo(tmp_path: Path) -> None:
    data = people(tmp_path / "data", 3, 4)
    save(data / "person 0" / "faceless.png", 0, 70, faces=0)
    save(data / "person 0" / "crowd.png", 0, 71, faces=3)
    (data / "person 1" / "broken.jpg").write_bytes(b"no picture")
    (data / "person 1" / "copy.png").write_bytes((data / "person 1" / "0.png").read_bytes())
    (data / "person 2" / "of another.png").write_bytes((data / "person 0" / "0.png").read_bytes())
    test = people(tmp_path / "test", 3, 1)  # the same pixels as the first photo of each
    report = svm(tmp_path, data, test).report
    reasons = sorted((Path(gone["path"]).name, gone["reason"]) for gone in report["left_out"])
    assert reasons == [
        ("0.png", "in_training"), ("0.png", "in_training"), ("0.png", "shows_two_names"), ("0.png", "shows_two_names"),
        ("broken.jpg", "unreadable"), ("copy.png", "duplicate_photo"), ("crowd.png", "several_faces"),
        ("faceless.png", "no_face"), ("of another.png", "shows_two_names"),
    ]  # fmt: skip
    assert report["people"] == {"person 0": 3, "person 1": 4, "person 2": 4}
    assert report["cross_validation"]["without_face"] == 3


def _only_one(folder: Path) -> None:
    people(folder, 1, 5)


def _one_photo_each(folder: Path) -> None:
    people(folder, 3, 1)


def _one_too_few(folder: Path) -> None:
    people(folder, 3, 4)
    save(folder / "Late" / "0.png", 5, 0)


def _no_faces(folder: Path) -> None:
    for number in range(6):
        save(folder / f"person {number % 2}" / f"{number}.png", 0, number, faces=0)


def _unreadable(folder: Path) -> None:
    people(folder, 2, 3)
    for photo in (folder / "person 1").iterdir():
        photo.write_bytes(photo.name.encode())


def _same_name(folder: Path) -> None:
    people(folder, 2, 3)
    save(folder / "Person_1" / "0.png", 1, 80)


def _empty(folder: Path) -> None:
    (folder / "Ada").mkdir(parents=True)


def _absent(folder: Path) -> None:
    pass


def _file(folder: Path) -> None:
    folder.write_text("not a folder")


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (_only_one, "shows only person 0 to train with"),
        (_one_photo_each, r"at least 2 a person are needed: person 0 \(1\), person 1 \(1\), person 2 \(1\)"),
        (_one_too_few, r"at least 2 a person are needed: Late \(1\); add photos, or take the person's folder out"),
        (_no_faces, r"person 0 \(0\), person 1 \(0\); not usable: 6 no_face"),
        (_unreadable, r"person 1 \(0\); not usable: 3 unreadable"),
        (_same_name, "'person 1' .* and 'Person_1' .* are nearly the same name|'Person_1' .* and 'person 1' .* nearly"),
        (_empty, "no photos in"),
        (_absent, "no photo or folder at"),
        (_file, "is a file: give a folder"),
    ],
)
def test_a_bad_data_set_is_told_in_one_line(tmp_path: Path, make: Any, problem: str) -> None:
    make(tmp_path / "data")
    with pytest.raises(SourceError, match=problem) as caught:
        svm(tmp_path, tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_too_few_photos_for_cross_validation_are_no_obstacle(tmp_path: Path) -> None:
    report = svm(tmp_path, people(tmp_path / "data", 3, 2)).report
    assert report["cross_validation"] == {"accuracy": None, "problem": "a person has fewer than 3 photos"}
    assert report["rejection"]["held_out_people"] == 0
    assert Classifier.open(tmp_path / "out").threshold == StandInEmbedder.threshold


def test_faces_and_embeddings_are_kept_only_where_asked_for(tmp_path: Path) -> None:
    data, test = people(tmp_path / "data", 3, 4), people(tmp_path / "test", 3, 1, first_photo=50)
    svm(tmp_path, data, test)
    assert not list(tmp_path.glob("*.npz"))
    svm(tmp_path, data, test, npz=tmp_path / "faces.npz")
    with np.load(tmp_path / "faces.npz", allow_pickle=False) as held:
        assert held["train_faces"].shape == (12, 2, 2, 3)
        assert held["train_embeddings"].shape == (12, DIMENSION)
        assert held["test_names"].tolist() == ["person 0", "person 1", "person 2"]


def test_a_folder_with_other_things_in_it_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letters.txt").write_text("dear")
    with pytest.raises(ClassifierError, match="holds other things"):
        svm(tmp_path, people(tmp_path / "data", 3, 3))


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (("svm", "--data", "one", "--output", "out"), 1, "shows only Ada to train with"),
        (("svm", "--data", "nowhere", "--output", "out"), 1, "no photo or folder at nowhere"),
        (("svm", "--data", "one", "--output", "out", "--test", "one", "--train-per-person", "2"), 2, "exclude"),
        (("cnn", "--data", "one", "--output", "one"), 1, "holds other things"),
    ],
)
def test_the_command_says_what_is_wrong_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, problem: str
) -> None:
    save(tmp_path / "one" / "Ada" / "0.png", 0, 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    assert problem in facestream("train", *arguments).only_error(code)


class Counting:
    """A network that learns nothing, but counts; the loss on unseen photos is least after epoch ``best``."""

    def __init__(self, people: int, epochs: int, seed: int, best: int = 3) -> None:
        self.count, self.people, self.best = 0, people, best
        self.label = np.zeros(5, int)
        self.directions = np.eye(people, DIMENSION, dtype=np.float32)

    def epoch(self, number: int, images: np.ndarray, labels: np.ndarray) -> float:
        assert number == self.count
        assert set(labels.tolist()) == set(range(self.people))
        self.label[images[:, 0, 0]] = labels
        self.count += 1
        return 1.0 / self.count

    def look(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        sure = 1.0 - 0.2 * abs(self.count - 1 - self.best)
        who = self.label[images[:, 0, 0]]
        features = np.eye(DIMENSION, dtype=np.float32)[images[:, 0, 0]]
        return (sure * np.eye(self.people)[who]).astype(np.float32), features

    def state(self) -> dict[str, np.ndarray]:
        return {"0000": np.array([self.count]), "0001": self.label}

    def resume(self, state: dict[str, np.ndarray]) -> None:
        self.count, self.label = int(state["0000"][0]), state["0001"]


@pytest.fixture
def counting(tmp_path: Path) -> SimpleNamespace:
    owners = np.repeat(np.arange(5), 4)
    images = np.broadcast_to(owners[:, None, None].astype(np.uint8), (20, 4, 4)).copy()
    told: list[cnn.Epoch] = []

    def run(stop_at: int | None = None, **settings: int) -> cnn.ResumableTraining:
        def told_of(epoch: cnn.Epoch, _total: int) -> None:
            told.append(epoch)
            if stop_at is not None and len(told) == stop_at:
                raise KeyboardInterrupt

        return cnn.ResumableTraining(
            images, owners, cnn.Settings(**settings), tmp_path / "checkpoint.npz", Counting, told_of
        )

    return SimpleNamespace(run=run, told=told, file=tmp_path / "checkpoint.npz", images=images, owners=owners)


def test_training_stops_where_unseen_photos_say(counting: SimpleNamespace) -> None:
    learnt = counting.run(epochs=40, patience=4).train()
    trial = [epoch for epoch in learnt.history if epoch.stage == "trial"]
    assert len(trial) == 3 + 1 + 4  # the best one, and as many after it as patience has
    assert len(set(learnt.strangers.people.tolist())) == 1
    assert learnt.network.people == 5  # in the end nobody is held out


@pytest.mark.parametrize("stop_at", [1, 3, 8, 9, 12])
def test_an_interrupted_training_ends_as_if_it_had_not_been(counting: SimpleNamespace, stop_at: int) -> None:
    whole = counting.run(epochs=40, patience=4).train()
    counting.file.unlink()
    counting.told.clear()
    with pytest.raises(KeyboardInterrupt):
        counting.run(stop_at, epochs=40, patience=4).train()
    again = counting.run(epochs=40, patience=4)
    again.resume()
    learnt = again.train()
    assert learnt.history == whole.history
    assert learnt.resumed_at == whole.history[stop_at - 1]
    assert (learnt.epochs, learnt.scale) == (whole.epochs, whole.scale)
    np.testing.assert_array_equal(learnt.strangers.cosine, whole.strangers.cosine)


def test_a_checkpoint_of_other_photos_or_settings_is_not_gone_on_with(counting: SimpleNamespace) -> None:
    counting.run(epochs=40, patience=4).train()
    with pytest.raises(ModelError, match="other photos or settings"):
        counting.run(epochs=40, patience=5).resume()
    counting.images[0] += 1
    with pytest.raises(ModelError, match="other photos or settings"):
        counting.run(epochs=40, patience=4).resume()
    counting.file.write_bytes(counting.file.read_bytes()[:100])
    with pytest.raises(ModelError, match="is damaged"):
        counting.run(epochs=40, patience=4).resume()


def _drawn(folder: Path, count: int, each: int) -> Path:
    """People who are blobs, each in slightly different places and light."""
    for person in range(count):
        blobs = cv2.GaussianBlur(np.random.default_rng(person).normal(size=(120, 100)), (0, 0), 8)
        for photo in range(each):
            random = np.random.default_rng((person, photo))
            moved = np.roll(blobs / blobs.std(), tuple(random.integers(-4, 5, 2)), (0, 1))
            noisy = moved * 40 * random.uniform(0.8, 1.2) + 120 + random.normal(scale=6, size=moved.shape)
            path = folder / f"drawn {person}" / f"{photo}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(path)
    return folder


@pytest.mark.slow
def test_a_network_learns_people_from_whole_photos_and_embeds_them_as_any_model_does(tmp_path: Path) -> None:
    def load(manifest: Path) -> FaceEmbedder:
        return load_embedder(str(manifest), models_dir=None, cache_dir=cache_dir(), engine="keras")

    data = read_data_set(_drawn(tmp_path / "data", 4, 7), train_per_person=5)
    trained = train_cnn(
        data, cast(FaceDetector, StandInDetector()), tmp_path / "out", load, faces="whole",
        settings=cnn.Settings(epochs=12, patience=12),
    )  # fmt: skip
    assert trained.test is not None
    assert trained.test.report["accuracy"] >= 0.9  # by chance it would be 0.25
    classifier = Classifier.open(tmp_path / "out")
    embedder = load(Path(classifier.model))
    classifier.require_model(embedder.model_id, embedder.preprocessing_digest)
    assert not (tmp_path / "out" / "checkpoint.npz").exists()


@pytest.mark.slow
def test_a_network_in_training_goes_on_from_its_state_as_if_it_had_not_stopped() -> None:
    from worker.faces.networks.face_cnn import Training

    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (12, 40, 40), dtype=np.uint8), np.repeat(np.arange(3), 4)
    whole, first = Training(3, 4, 7, side=40), Training(3, 4, 7, side=40)
    for number in range(3):
        whole.epoch(number, images, labels)
    first.epoch(0, images, labels)
    second = Training(3, 4, 7, side=40)
    second.resume(first.state())
    for number in (1, 2):
        second.epoch(number, images, labels)
    np.testing.assert_allclose(second.look(images)[0], whole.look(images)[0], atol=1e-5)


KNOWN = (1, 2, 3, 4, 6, 7, 8, 9)
STRANGERS = (5, *range(11, 20))


@pytest.fixture(scope="module")
def orl(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight people to train with, and three photos of each, and of ten strangers, not to: one stranger alone may
    happen to resemble somebody."""
    folder = tmp_path_factory.mktemp("orl")
    for person in (*KNOWN, *STRANGERS):
        for photo in range(1 if person in KNOWN else 8, 11):
            part = "probes" if photo > 7 else "train"
            target = folder / part / f"s{person}" / f"{photo}.pgm"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(test_data / "orl" / f"s{person}" / f"{photo}.pgm")
    return folder


@pytest.fixture(scope="module")
def killed_and_resumed(orl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "cnn"
    arguments = ("train", "cnn", "--data", orl / "train", "--epochs", 16, "--output", output)
    with running(*arguments) as command:
        command.until((output / "checkpoint.npz").exists)
        os.kill(command.process.pid, signal.SIGKILL)
        assert command.ended().code == -signal.SIGKILL
    assert not Classifier.exists(output)
    assert "--resume" in facestream(*arguments).only_error(1)
    assert facestream(*arguments, "--resume", timeout_s=300).code == 0
    return output


@pytest.fixture(scope="module")
def models(test_data: Path) -> dict[str, Any]:
    return {"FACESTREAM_MODELS_DIR": str(test_data / "models")}


@pytest.fixture(scope="module")
def machine(orl: Path, models: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "svm"
    done = facestream(
        "train", "svm", "--data", orl / "train", "--model", RETAIL, "--output", output, "--json", **models
    )  # fmt: skip
    assert done.code == 0, done.stderr
    assert done.documents[0]["cross_validation"]["accuracy"] >= 0.9
    return output


@pytest.fixture(params=["killed_and_resumed", "machine"])
def trained(request: pytest.FixtureRequest) -> Path:
    """A network whose training was killed in the middle, and a support vector machine."""
    return cast(Path, request.getfixturevalue(request.param))


@pytest.mark.data
@pytest.mark.slow
def test_a_training_that_was_killed_is_finished_by_resuming_it(killed_and_resumed: Path) -> None:
    report = json.loads((killed_and_resumed / "report.json").read_text())
    assert report["resumed_after"] is not None
    epochs = [(epoch["stage"], epoch["epoch"]) for epoch in report["history"]]
    assert len(epochs) == len(set(epochs))  # none is run twice
    assert not (killed_and_resumed / "checkpoint.npz").exists()
    for picture in ("learning.png",):
        assert (killed_and_resumed / picture).stat().st_size > 10_000


@pytest.mark.data
@pytest.mark.slow
def test_identify_names_people_by_either_classifier(trained: Path, orl: Path, models: dict[str, Any]) -> None:
    done = facestream("identify", "--classifier", trained, orl / "probes", "--json", **models)
    assert done.code == 0, done.stderr
    strangers = [face for face in done.documents if int(Path(face["path"]).parent.name[1:]) in STRANGERS]
    known = [face for face in done.documents if face not in strangers]
    named = [face for face in known if face["identity_name"] == Path(face["path"]).parent.name]
    assert len(known) >= 8
    assert len(named) >= 0.7 * len(known)
    assert not [face for face in known if face["identity_name"] and face not in named]
    assert all(0 <= face["probability"] <= 1 for face in done.documents)
    assert len(strangers) >= 20
    # A network that has seen eight people for so short a time tells most strangers from them, and no more.
    assert sum(bool(face["identity_name"]) for face in strangers) <= len(strangers) / 3


@pytest.mark.data
@pytest.mark.redis
@pytest.mark.slow
def test_run_publishes_the_same_events_by_either_classifier(
    trained: Path, orl: Path, redis_url: str, models: dict[str, Any]
) -> None:
    done = facestream(
        "run", "--source", orl / "probes" / "s2", "--classifier", trained, "--redis", redis_url, "--json",
        "--metrics-port", 0, **models,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    events = [document for document in done.documents if "summary" not in document]
    assert {event["type"] for event in events} >= {"started", "ended"}
    assert {event["identity_name"] for event in events} == {"s2"}
    assert {event["model_id"] for event in events} == {Classifier.open(trained).model_id}
    assert all(-1 <= float(event["similarity"]) <= 1 and event["gallery_version"] == "1" for event in events)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(("identify", "x.jpg"), "one of --gallery PATH and --classifier DIR"),
     (("identify", "x.jpg", "--gallery", "a", "--classifier", "b"), "one of --gallery PATH and --classifier DIR"),
     (("run", "--source", "x.mp4", "--gallery", "a", "--classifier", "b"), "gallery and classifier")],
)  # fmt: skip
def test_a_gallery_and_a_classifier_exclude_each_other(arguments: tuple[str, ...], problem: str) -> None:
    assert problem in facestream(*arguments).only_error(2)
