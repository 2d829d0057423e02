import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from worker.cli import run_command_line
from worker.errors import GalleryError
from worker.faces.detection import FaceDetector
from worker.faces.embedding import FaceEmbedder
from worker.gallery import opening as migration
from worker.gallery import re_embedding
from worker.gallery.crops import CropStore
from worker.gallery.enrolment import enroll_photos
from worker.gallery.folder import FolderGallery
from worker.gallery.re_embedding import ReEmbedded
from worker.types import Chips, Detections, Embeddings, Image

KEY = bytes(range(32))
POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.34, 0.8], [0.66, 0.8]], np.float32)


class StandInDetector:
    """One face in the middle of each image."""

    def detect(self, images: Sequence[Image]) -> list[Detections]:
        box = np.array([[60, 60, 160, 160]], np.float32)
        return [Detections(box, np.array([0.99], np.float32), 60 + POINTS[None] * 100) for _ in images]


class StandInEmbedder:
    """The mean colour of the face, in ``dimension`` numbers."""

    def __init__(self, model_id: str, dimension: int) -> None:
        self.model_id, self.preprocessing_digest, self.dimension, self.threshold = model_id, model_id, dimension, 0.5

    def align(self, image: Image, detections: Detections) -> Chips:
        x1, y1, x2, y2 = detections.boxes[0].astype(int).clip(0)
        return Chips(cv2.resize(image[y1:y2, x1:x2], (4, 4), interpolation=cv2.INTER_AREA)[None])

    def embed(self, chips: Chips) -> Embeddings:
        means = chips.images.astype(np.float32).mean(axis=(1, 2)) - 128
        vectors = np.tile(means, (1, self.dimension))[:, : self.dimension]
        return Embeddings(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), self.model_id)


OLD, NEW = StandInEmbedder("old-model", 3), StandInEmbedder("new-model", 6)
DETECTOR = cast(FaceDetector, StandInDetector())
COLOURS = {"Ann": (220, 60, 90), "Bob": (40, 200, 60), "Cem": (70, 90, 230)}


def write_photos(folder: Path) -> Path:
    random = np.random.default_rng(1)
    for name, colour in COLOURS.items():
        for number in (1, 2):
            blobs = cv2.GaussianBlur(random.normal(size=(220, 220, 3)), (0, 0), 2)
            image = np.clip(blobs / blobs.std() * 35 + colour, 0, 255).astype(np.uint8)
            (folder / name).mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(image).save(folder / name / f"{number}.png")
    return folder


def enroll(folder: Path, path: Path, crops: CropStore | None) -> FolderGallery:
    gallery = FolderGallery.create(path, OLD.model_id, OLD.preprocessing_digest, OLD.dimension)
    results = list(enroll_photos(folder, gallery, DETECTOR, cast(FaceEmbedder, OLD), crops=crops))
    assert all(result.accepted for result in results)
    return gallery


def re_embed(old: FolderGallery, path: Path, **options: Any) -> tuple[FolderGallery, ReEmbedded]:
    new = (
        FolderGallery.open(path)
        if FolderGallery.exists(path)
        else FolderGallery.create(path, NEW.model_id, NEW.preprocessing_digest, NEW.dimension)
    )
    options = {"crops": CropStore(old.path)} | options
    return new, re_embedding.re_embed(old, new, cast(FaceEmbedder, NEW), **options)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos")


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "encrypted"])
def test_everybody_is_embedded_anew_from_crops_alone(tmp_path: Path, photos: Path, key: bytes | None) -> None:
    old = enroll(photos, tmp_path / "old", CropStore(tmp_path / "old", key))
    direct = FolderGallery.create(tmp_path / "direct", NEW.model_id, NEW.preprocessing_digest, NEW.dimension)
    list(enroll_photos(photos, direct, DETECTOR, cast(FaceEmbedder, NEW)))
    shutil.rmtree(photos)
    new, result = re_embed(
        old, tmp_path / "new", crops=CropStore(old.path, key), new_crops=CropStore(tmp_path / "new", key)
    )
    assert (result.people, result.samples, result.missing, result.partial) == (3, 6, (), ())
    assert {p.identity_id: p.name for p in new.people()} == {p.identity_id: p.name for p in old.people()}
    for name in COLOURS:
        by_photo = {sample.photo: vector for vector, sample in zip(*direct.vectors(name), strict=True)}
        for vector, sample in zip(*new.vectors(name), strict=True):
            assert float(vector @ by_photo[sample.photo]) > 0.999
    assert CropStore(tmp_path / "new", key).sample_ids() == {s.sample_id for p in new.people() for s in p.samples}


def test_without_crops_the_photos_serve_and_who_is_left_is_named(tmp_path: Path, photos: Path) -> None:
    old = enroll(photos, tmp_path / "old", None)
    (photos / "Ann" / "1.png").unlink()
    shutil.rmtree(photos / "Bob")
    (photos / "Cem").rename(photos / "renamed meanwhile")
    new, result = re_embed(old, tmp_path / "new", photos=photos, detector=DETECTOR)
    assert [person.name for person in result.missing] == ["Bob"]
    assert [(person.name, count) for person, count in result.partial] == [("Ann", 1)]
    assert {person.name: len(person.samples) for person in new.people()} == {"Ann": 1, "Cem": 2}


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, photos: Path) -> None:
    old = enroll(photos, tmp_path / "old", CropStore(tmp_path / "old"))
    re_embed(old, tmp_path / "new")
    new, result = re_embed(old, tmp_path / "new")
    assert (result.samples, new.sample_count) == (6, 6)


@pytest.fixture
def pair(tmp_path: Path, photos: Path) -> tuple[FolderGallery, FolderGallery]:
    old = enroll(photos, tmp_path / "old", CropStore(tmp_path / "old"))
    return old, re_embed(old, tmp_path / "new", new_crops=CropStore(tmp_path / "new"))[0]


def model_of(path: Path) -> str:
    return FolderGallery.open(path).model_id


def test_a_switch_can_be_rolled_back_and_done_again(pair: tuple[FolderGallery, FolderGallery]) -> None:
    old, new = pair
    samples = {s.sample_id for p in old.people() for s in p.samples}
    assert migration.switch(old.path, new.path) > old.version
    switched = FolderGallery.open(old.path)
    assert (switched.model_id, switched.dimension, len(switched)) == (NEW.model_id, NEW.dimension, 3)
    versions = [switched.version, migration.roll_back(old.path)]
    back = FolderGallery.open(old.path)
    assert back.model_id == OLD.model_id
    assert {s.sample_id for p in back.people() for s in p.samples} == samples
    versions.append(migration.roll_back(old.path))
    assert model_of(old.path) == NEW.model_id
    assert versions == sorted(set(versions))
    assert samples <= CropStore(old.path).sample_ids()


def test_an_open_gallery_notices_that_the_model_changed(pair: tuple[FolderGallery, FolderGallery]) -> None:
    old, new = pair
    migration.switch(old.path, new.path)
    with pytest.raises(GalleryError, match="new-model"):
        old.reload_if_changed()
    assert old.model_id == OLD.model_id


def test_other_people_are_not_lost_or_brought_back_unasked(pair: tuple[FolderGallery, FolderGallery]) -> None:
    old, new = pair
    old.remove("Ann")
    new.remove("Bob")
    with pytest.raises(GalleryError, match=r"leaving: Bob; coming: Ann"):
        migration.switch(old.path, new.path)
    assert model_of(old.path) == OLD.model_id
    migration.switch(old.path, new.path, accept=migration.difference(old.path, new.path))
    assert [person.name for person in FolderGallery.open(old.path).people()] == ["Ann", "Cem"]


def test_there_must_be_something_to_switch_to_and_back(
    pair: tuple[FolderGallery, FolderGallery], tmp_path: Path
) -> None:
    old, _ = pair
    with pytest.raises(GalleryError, match="never switched"):
        migration.roll_back(old.path)
    with pytest.raises(GalleryError, match="no gallery at"):
        migration.switch(old.path, tmp_path / "nowhere")
    with pytest.raises(GalleryError, match="is the gallery itself"):
        migration.switch(old.path, old.path)


def test_a_sample_is_removed_with_its_crop(
    pair: tuple[FolderGallery, FolderGallery], capsys: pytest.CaptureFixture[str]
) -> None:
    old, _ = pair
    first, *others = (s.sample_id for p in old.people() for s in p.samples)
    assert run_command_line(["gallery", "remove-sample", first, "--gallery", str(old.path)]) == 0
    assert "removed sample" in capsys.readouterr().out
    assert {s.sample_id for p in FolderGallery.open(old.path).people() for s in p.samples} == set(others)
    assert CropStore(old.path).sample_ids() == set(others)


def test_who_is_removed_is_gone_from_the_gallery_put_aside_and_from_the_crops(
    pair: tuple[FolderGallery, FolderGallery],
) -> None:
    old, new = pair
    migration.switch(old.path, new.path)
    gallery = FolderGallery.open(old.path)
    assert migration.remove_person(gallery, "Ann").name == "Ann"
    left = {s.sample_id for p in gallery.people() for s in p.samples}
    previous = migration.previous_of(old.path)
    assert [person.name for person in previous.people()] == ["Bob", "Cem"]
    left |= {s.sample_id for p in previous.people() for s in p.samples}
    assert CropStore(old.path).sample_ids() == left
