import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from worker.config import DetectionConfig, cache_dir
from worker.errors import GalleryError, SourceError
from worker.faces.detection import FaceDetector, load_detector
from worker.faces.embedding import FaceEmbedder, load_embedder
from worker.gallery.enrolment import PhotoResult, choose_face, enroll_photos, hash_distance, hash_photo, people_of
from worker.gallery.folder import FolderGallery
from worker.types import Chips, Detections, Embeddings, Image

DIMENSION = 16
POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.34, 0.8], [0.66, 0.8]], np.float32)


def squares(*sides: float, score: float = 0.99) -> Detections:
    corners = np.array([[20 + 5 * i, 20, 20 + 5 * i + side, 20 + side] for i, side in enumerate(sides)], np.float32)
    corners = corners.reshape(-1, 4)
    landmarks = corners[:, None, :2] + POINTS[None] * np.array(sides, np.float32)[:, None, None]
    return Detections(corners, np.full(len(sides), score, np.float32), landmarks.astype(np.float32))


class StandInDetector:
    """Finds what the colour of the first pixel says: red / 10 faces of 100 px."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        self.batches.append(len(images))
        return [squares(*[100.0] * (int(image[0, 0, 0]) // 10)) for image in images]


class StandInEmbedder:
    """The person is the blue of the first pixel: two photos of one are alike, those of two people are not."""

    model_id, preprocessing_digest, dimension, threshold = "stand-in", "d", DIMENSION, 0.5

    def align(self, image: Image, detections: Detections) -> Chips:
        return Chips(np.broadcast_to(image[0, 0], (len(detections), 2, 2, 3)))

    def embed(self, chips: Chips) -> Embeddings:
        vectors = np.eye(DIMENSION, dtype=np.float32)[chips.images[:, 0, 0, 2].astype(int)]
        return Embeddings(vectors, self.model_id)


def save(path: Path, seed: int, person: int, faces: int = 1, blur: float = 2.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    blobs = cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(160, 160, 3)), (0, 0), blur)
    image = np.clip(blobs / blobs.std() * 45 + 125, 0, 255).astype(np.uint8)
    image[0, 0] = 10 * faces, 0, person
    Pillow.fromarray(image).save(path)
    return path


@pytest.fixture
def bench(tmp_path: Path) -> SimpleNamespace:
    return SimpleNamespace(
        photos=tmp_path / "photos",
        gallery=FolderGallery.create(tmp_path / "gallery", "stand-in", "d", DIMENSION),
        detector=StandInDetector(),
        embedder=StandInEmbedder(),
    )


def enroll(bench: SimpleNamespace, *paths: Path) -> dict[str, PhotoResult]:
    results = enroll_photos(
        list(paths) or bench.photos,
        bench.gallery,
        cast(FaceDetector, bench.detector),
        cast(FaceEmbedder, bench.embedder),
    )
    return {str(result.path.relative_to(bench.photos)): result for result in results}


def test_names_come_from_folders_or_from_photos(tmp_path: Path) -> None:
    names = ["Zoë van Dijk/1.jpg", "Zoë van Dijk/indoors/2.jpg", "李 雷.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert people_of(tmp_path) == [
        (tmp_path / names[0], "Zoë van Dijk"),
        (tmp_path / names[1], "Zoë van Dijk"),
        (tmp_path / names[2], "李 雷"),
    ]
    assert people_of(tmp_path / names[2]) == [(tmp_path / names[2], "李 雷")]


def folder(path: Path, raw: bytes) -> Path:
    """The folder of this name in bytes."""
    made = path / os.fsdecode(raw)
    made.mkdir(parents=True)
    return made


def test_one_person_whose_name_is_written_in_several_ways(bench: SimpleNamespace) -> None:
    ways = ["Zoe\u0308".encode(), "Zo\u00eb".encode(), b" Zo\xc3\xab ", b"Zo\xeb", "\u200bZoë".encode()]
    for number, raw in enumerate(ways):
        save(folder(bench.photos, raw) / "1.png", number, person=1)
    save(bench.photos / "Zo\u00eb.png", 9, person=1)
    results = enroll(bench)
    assert {result.identity_name for result in results.values()} == {"Zoë"}
    (person,) = bench.gallery.people()
    assert (person.name, len(person.samples)) == ("Zoë", 6)
    assert bench.gallery.person("Zoe\u0308").identity_id == person.identity_id


def test_a_later_photo_under_another_form_of_the_name_is_of_the_same_person(bench: SimpleNamespace) -> None:
    save(bench.photos / "Zo\u00eb" / "1.png", 1, person=1)
    enroll(bench)
    save(bench.photos / "Zoe\u0308" / "2.png", 2, person=1)
    assert enroll(bench)["Zoe\u0308/2.png"].accepted
    (person,) = bench.gallery.people()
    assert len(person.samples) == 2


def test_names_that_differ_little_are_two_people_and_named(
    bench: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    for number, name in enumerate(["Ann", "ann", "Ann (1)", "Bob"]):
        save(bench.photos / f"{name}.png", number, person=1)
    enroll(bench)
    assert sorted(person.name for person in bench.gallery.people()) == ["Ann", "Ann (1)", "Bob", "ann"]
    (told,) = [message for message in caplog.messages if "differ little" in message]
    assert "Ann, Ann (1), ann" in told
    assert "Bob" not in told


def test_a_name_of_nothing_but_blanks_is_refused(bench: SimpleNamespace) -> None:
    save(folder(bench.photos, " \u3000".encode()) / "1.png", 1, person=1)
    save(bench.photos / "ann.png", 2, person=2)
    assert {name: result.reason for name, result in enroll(bench).items()} == {
        " \u3000/1.png": "no_name",
        "ann.png": "",
    }


def test_names_that_are_no_utf8_are_read_and_named(bench: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    made = folder(bench.photos, b"Kat\xe9")
    save(made / os.fsdecode(b"ph\xe9.png"), 1, person=1)
    (result,) = enroll(bench).values()
    assert (result.accepted, result.identity_name) == (True, "Katé")
    (person,) = FolderGallery.open(bench.gallery.path).people()
    assert [sample.photo for sample in person.samples] == ["phé.png"]
    assert any("Windows-1252" in message and "Katé" in message for message in caplog.messages)


def test_photos_become_people(bench: SimpleNamespace) -> None:
    save(bench.photos / "ann" / "1.png", 1, person=1)
    save(bench.photos / "ann" / "2.png", 2, person=1)
    save(bench.photos / "bob.png", 3, person=2)
    results = enroll(bench)
    people = {person.name: person for person in FolderGallery.open(bench.gallery.path).people()}
    assert {name: len(person.samples) for name, person in people.items()} == {"ann": 2, "bob": 1}
    for result in results.values():
        assert (result.accepted, result.reason) == (True, "")
        assert result.identity_id == people[result.identity_name].identity_id
        assert 0.2 < result.quality <= 1.0
    assert bench.gallery.version == 2
    assert bench.detector.batches == [3]


def test_each_photo_that_is_not_taken_says_why(bench: SimpleNamespace) -> None:
    save(bench.photos / "a" / "none.png", 1, person=1, faces=0)
    save(bench.photos / "a" / "two.png", 2, person=1, faces=2)
    save(bench.photos / "a" / "blurred.png", 3, person=1, blur=25.0)
    (bench.photos / "a" / "text.jpg").write_text("no picture")
    assert {name: (result.accepted, result.reason) for name, result in enroll(bench).items()} == {
        "a/blurred.png": (False, "blurred"),
        "a/none.png": (False, "no_face"),
        "a/text.jpg": (False, "unreadable"),
        "a/two.png": (False, "several_faces"),
    }
    assert len(bench.gallery) == 0
    assert bench.gallery.version == 1


def test_a_tiny_photo_that_was_enlarged_is_not_taken_and_the_line_says_what_is_wrong(bench: SimpleNamespace) -> None:
    path = save(bench.photos / "a" / "thumbnail.png", 1, person=1)
    with Pillow.open(path) as photo:
        large = photo.resize((22, 22), Pillow.Resampling.BOX).resize((160, 160), Pillow.Resampling.BICUBIC)
    large.putpixel((0, 0), (10, 0, 1))
    large.save(path)
    (result,) = enroll(bench).values()
    assert (result.accepted, result.reason, result.detail) == (False, "blurred", "a tiny face that was enlarged")


def test_results_come_in_the_order_of_the_photos(bench: SimpleNamespace) -> None:
    for number in range(40):
        save(bench.photos / f"p{number:02d}.png", number, person=1, faces=number % 2)
    assert list(enroll(bench)) == [f"p{number:02d}.png" for number in range(40)]


def test_the_same_photo_is_taken_once(bench: SimpleNamespace) -> None:
    first = save(bench.photos / "a" / "1.png", 1, person=1)
    (bench.photos / "a" / "2.png").write_bytes(first.read_bytes())
    (bench.photos / "b").mkdir()
    (bench.photos / "b" / "3.png").write_bytes(first.read_bytes())
    results = enroll(bench)
    assert [(r.accepted, r.reason) for r in results.values()] == [(True, "")] + [(False, "duplicate_photo")] * 2
    assert results["a/2.png"].detail == "the same file as 1.png"
    again = enroll(bench)
    assert {r.reason for r in again.values()} == {"duplicate_photo"}
    assert again["a/1.png"].identity_id == results["a/1.png"].identity_id
    assert bench.gallery.sample_count == 1


def test_a_copy_in_another_size_and_quality_is_no_new_sample(bench: SimpleNamespace) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (160, 160, 3), dtype=np.uint8)
    image = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 8), None, 0, 255, cv2.NORM_MINMAX)
    smaller = cv2.resize(image, (100, 100), interpolation=cv2.INTER_AREA)
    assert hash_distance(hash_photo(image), hash_photo(smaller)) <= 10
    assert hash_distance(hash_photo(image), hash_photo(image[:, ::-1].copy())) > 60
    bench.photos.mkdir()
    for name, picture in (("big", image), ("small", smaller)):
        marked = picture.copy()
        marked[0, 0] = 10, 0, 1
        (bench.photos / "a").mkdir(exist_ok=True)
        Pillow.fromarray(marked).save(bench.photos / "a" / f"{name}.png")
    results = enroll(bench)
    assert results["a/big.png"].accepted
    assert (results["a/small.png"].accepted, results["a/small.png"].reason) == (False, "near_duplicate")
    assert enroll(bench, save(bench.photos / "a" / "other.png", 9, person=1))["a/other.png"].accepted


def test_somebody_who_looks_like_another_person_is_taken_with_a_warning(bench: SimpleNamespace) -> None:
    enroll(bench, save(bench.photos / "ann.png", 1, person=1))
    save(bench.photos / "bob" / "1.png", 2, person=2)
    save(bench.photos / "bob" / "2.png", 3, person=1)
    save(bench.photos / "eve.png", 4, person=2)
    results = enroll(bench, bench.photos / "bob", bench.photos / "eve.png")
    seen = {name: (result.accepted, result.reason, result.detail) for name, result in results.items()}
    assert seen["bob/1.png"] == (True, "", "")
    assert seen["bob/2.png"] == (True, "nearer_to_another_person", "looks like ann")
    assert seen["eve.png"] == (True, "nearer_to_another_person", "looks like 1")


def test_an_interrupt_keeps_what_was_taken(bench: SimpleNamespace) -> None:
    for number in range(40):
        save(bench.photos / f"p{number:02d}.png", number, person=1)
    detect: Callable[[Sequence[Image]], list[Detections]] = bench.detector.detect

    def interrupted(images: Sequence[Image]) -> list[Detections]:
        if len(bench.detector.batches) == 2:
            raise KeyboardInterrupt
        return detect(images)

    bench.detector.detect = interrupted
    with pytest.raises(KeyboardInterrupt):
        enroll(bench)
    assert len(FolderGallery.open(bench.gallery.path)) == 32
    bench.detector.detect = detect
    assert Counter(result.reason for result in enroll(bench).values())["duplicate_photo"] == 32
    assert len(bench.gallery) == 40


def test_another_model_is_refused_before_any_photo_is_read(bench: SimpleNamespace) -> None:
    bench.embedder.model_id = "other"
    with pytest.raises(GalleryError, match=r"stand-in.*other"):
        enroll(bench, bench.photos / "missing")
    bench.embedder.model_id = "stand-in"
    with pytest.raises(SourceError, match="no photo or folder"):
        enroll(bench, bench.photos / "missing")


@pytest.mark.parametrize(
    ("found", "reason", "side"),
    [
        (squares(), "no_face", None),
        (squares(50), "", 50),
        (squares(50, 60), "several_faces", None),
        (squares(30, 100), "", 100),
        (squares(51, 100), "several_faces", None),
    ],
)
def test_the_face_meant_is_the_only_or_much_the_largest(found: Detections, reason: str, side: float | None) -> None:
    chosen, why = choose_face(found, (1000, 1000))
    assert why == reason
    if side:
        assert float(chosen.boxes[0, 2] - chosen.boxes[0, 0]) == side


def placed(*boxes: tuple[float, float, float]) -> Detections:
    """Square faces by left, top and side."""
    faces = squares(*(side for _, _, side in boxes))
    corners = np.array([[x, y, x + side, y + side] for x, y, side in boxes], np.float32)
    return Detections(corners, faces.scores, faces.landmarks)


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (placed((70, 60, 100), (180, 70, 80)), ""),
        (placed((70, 60, 100), (180, 70, 120)), "several_faces"),
        (placed((5, 60, 100), (140, 70, 90)), "several_faces"),
        (placed((70, 60, 100), (110, 70, 90)), "several_faces"),
        (placed((90, 90, 80), (5, 90, 75), (180, 90, 75)), "several_faces"),
    ],
    ids=["bystander", "bystander nearer", "couple", "cheek to cheek", "group of three"],
)
def test_a_bystander_does_not_spoil_a_portrait(found: Detections, reason: str) -> None:
    chosen, why = choose_face(found, (250, 250))
    assert why == reason
    if not reason:
        assert chosen.boxes[0].tolist() == found.boxes[0].tolist()


def test_uncertain_faces_beside_a_certain_one_are_passed_over() -> None:
    both = [squares(50), squares(60, score=0.7)]
    found = Detections(*(np.concatenate([getattr(d, name) for d in both]) for name in Detections.__slots__))
    chosen, reason = choose_face(found, (1000, 1000))
    assert (len(chosen), reason) == (1, "")
    assert chosen.scores[0] == pytest.approx(0.99)


@pytest.mark.data
@pytest.mark.slow
def test_real_people_are_enrolled_and_recognised(test_data: Path, tmp_path: Path) -> None:
    detector = load_detector(DetectionConfig(min_face_px=20), cache_dir=cache_dir())
    embedder = load_embedder(
        "face-reidentification-retail-0095", models_dir=test_data / "models", cache_dir=cache_dir()
    )
    gallery = FolderGallery.create(
        tmp_path / "gallery", embedder.model_id, embedder.preprocessing_digest, embedder.dimension
    )
    photos = test_data / "five_celebrities"
    results = list(enroll_photos(photos / "train", gallery, detector, embedder))
    assert sum(result.accepted for result in results) >= 0.8 * len(results)
    assert {person.name for person in gallery.people()} == {path.name for path in (photos / "train").iterdir()}
    right = wrong = 0
    for photo, name in people_of(photos / "test"):
        image = np.array(Pillow.open(photo).convert("RGB"))
        faces, reason = choose_face(detector.detect([image])[0], image.shape[1::-1])
        if not reason:
            (found,) = gallery.search(embedder.embed(embedder.align(image, faces)))
            right, wrong = right + (found.identity_name == name), wrong + (found.identity_name != name)
    assert right >= 4
    assert wrong == 0
