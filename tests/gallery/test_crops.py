import base64
import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from worker.encryption import parse_key
from worker.errors import ConfigError, GalleryError
from worker.gallery.contents import NewSample
from worker.gallery.crops import CONTEXT, LARGEST_PX, CropStore, cut_crop
from worker.gallery.folder import FolderGallery
from worker.types import Detections, Image

KEY, OTHER_KEY = bytes(range(32)), bytes(32)
A, B = "a" * 32, "b" * 32


def photo(width: int = 400, height: int = 300) -> Image:
    noise = np.random.default_rng(0).normal(size=(height, width, 3))
    blobs = cv2.GaussianBlur(noise, (0, 0), 4)
    picture: Image = np.clip(blobs / blobs.std() * 40 + 120, 0, 255).astype(np.uint8)
    return picture


def face(x1: float, y1: float, side: float) -> Detections:
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.34, 0.8], [0.66, 0.8]])
    box = np.array([[x1, y1, x1 + side, y1 + side]], np.float32)
    return Detections(box, np.array([0.98], np.float32), ((x1, y1) + points[None] * side).astype(np.float32))


@pytest.fixture(params=[None, KEY], ids=["plain", "encrypted"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    value: bytes | None = request.param
    return value


def test_a_crop_comes_back_as_it_was(tmp_path: Path, key: bytes | None) -> None:
    store = CropStore(tmp_path, key)
    assert not store.exists
    store.open_for_writing()
    crop = cut_crop(photo(), face(150, 100, 80))
    store.add(A, crop)
    found = CropStore(tmp_path, key).read(A)
    assert found is not None
    assert np.abs(found.image.astype(int) - crop.image).mean() < 2
    np.testing.assert_array_equal(found.detections.boxes, crop.detections.boxes)
    np.testing.assert_array_equal(found.detections.landmarks, crop.detections.landmarks)
    assert store.sample_ids() == {A}
    assert store.read(B) is None


def test_the_crop_shows_the_same_face_with_its_surroundings() -> None:
    image, found = photo(), face(150, 100, 80)
    crop = cut_crop(image, found)
    assert crop.image.shape[:2] == (round(80 * CONTEXT), round(80 * CONTEXT))
    offset = found.boxes[0, :2] - crop.detections.boxes[0, :2]
    x, y = offset.astype(int)
    np.testing.assert_array_equal(crop.image, image[y : y + 160, x : x + 160])
    np.testing.assert_allclose(crop.detections.landmarks + offset, found.landmarks)


@pytest.mark.parametrize("found", [face(-20, -30, 90), face(350, 250, 90), face(390, 0, 300)])
def test_faces_at_the_edge_are_cut_at_the_edge(found: Detections) -> None:
    crop = cut_crop(photo(), found)
    assert min(crop.image.shape[:2]) >= 1
    assert crop.image.shape[0] <= 300
    assert crop.image.shape[1] <= 400


def test_large_faces_are_reduced_with_their_landmarks() -> None:
    crop = cut_crop(photo(2000, 2000), face(500, 500, 1000))
    assert max(crop.image.shape[:2]) == LARGEST_PX
    eyes = crop.detections.landmarks[0, 1] - crop.detections.landmarks[0, 0]
    assert eyes[0] == pytest.approx(400 * LARGEST_PX / 2000, abs=0.5)


def test_encrypted_crops_show_nothing_and_open_with_their_key_alone(tmp_path: Path) -> None:
    store = CropStore(tmp_path, KEY)
    store.open_for_writing()
    store.add(A, cut_crop(photo(), face(150, 100, 80)))
    (file,) = (tmp_path / "crops").glob("*.crop")
    assert b"landmarks" not in file.read_bytes()
    assert b"JFIF" not in file.read_bytes()
    for wrong, message in ((None, "FACESTREAM_GALLERY_KEY"), (OTHER_KEY, "another key")):
        with pytest.raises(GalleryError, match=message):
            CropStore(tmp_path, wrong).read(A)
        with pytest.raises(GalleryError, match=message):
            CropStore(tmp_path, wrong).open_for_writing()


def test_a_sealed_crop_is_that_of_its_sample_only(tmp_path: Path) -> None:
    store = CropStore(tmp_path, KEY)
    store.open_for_writing()
    store.add(A, cut_crop(photo(), face(150, 100, 80)))
    (file,) = (tmp_path / "crops").glob("*.crop")
    file.rename(file.with_name(file.name.replace(A, B)))
    with pytest.raises(GalleryError, match="not sealed with this key"):
        store.read(B)


def test_every_flipped_byte_is_seen(tmp_path: Path, key: bytes | None) -> None:
    store = CropStore(tmp_path, key)
    store.open_for_writing()
    store.add(A, cut_crop(photo(), face(150, 100, 20)))
    (file,) = (tmp_path / "crops").glob("*.crop")
    content = bytearray(file.read_bytes())
    for position in range(0, len(content), 97):
        damaged = content.copy()
        damaged[position] ^= 1
        file.write_bytes(damaged)
        with pytest.raises(GalleryError, match="does not match its digest"):
            store.read(A)


def test_a_plain_file_is_no_way_round_the_key(tmp_path: Path) -> None:
    plain, sealed = CropStore(tmp_path / "plain"), CropStore(tmp_path / "sealed", KEY)
    for store in (plain, sealed):
        store.open_for_writing()
    plain.add(A, cut_crop(photo(), face(150, 100, 80)))
    (file,) = (tmp_path / "plain" / "crops").glob("*.crop")
    os.link(file, tmp_path / "sealed" / "crops" / file.name)
    with pytest.raises(GalleryError, match=r"as settings\.json says"):
        sealed.read(A)


def test_prune_leaves_only_the_crops_of_samples_that_are_left(tmp_path: Path) -> None:
    store = CropStore(tmp_path)
    store.open_for_writing()
    for sample_id in (A, B):
        store.add(sample_id, cut_crop(photo(), face(150, 100, 80)))
    assert store.prune({B}) == 1
    assert store.sample_ids() == {B}


def test_crops_go_with_their_samples(tmp_path: Path) -> None:
    gallery = FolderGallery.create(tmp_path / "g", "m", "d", 4)
    vectors = np.eye(4, dtype=np.float32)
    stored = gallery.add([NewSample("aaab"[n], vector, f"{n}.jpg", str(n)) for n, vector in enumerate(vectors)])
    store = CropStore(gallery.path)
    store.open_for_writing()
    ids = [sample.sample_id for sample in stored if sample]
    for sample_id in ids:
        store.add(sample_id, cut_crop(photo(), face(150, 100, 80)))
    gallery.remove_sample(ids[0])
    assert store.sample_ids() == set(ids[1:])
    gallery.rename("a", "c")
    assert store.sample_ids() == set(ids[1:])
    gallery.remove("c")
    assert store.sample_ids() == {ids[3]}


def test_a_copy_is_sealed_anew_bit_for_bit(tmp_path: Path) -> None:
    store, other = CropStore(tmp_path / "1", KEY), CropStore(tmp_path / "2")
    for each in (store, other):
        each.open_for_writing()
    store.add(A, cut_crop(photo(), face(150, 100, 80)))
    store.copy(A, other, B)
    first, second = store.read(A), other.read(B)
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.image, second.image)


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", json.dumps({"format": "x", "encrypted": 1, "key_fingerprint": ""})]
)
def test_damaged_settings_are_told_in_one_line(tmp_path: Path, content: str) -> None:
    store = CropStore(tmp_path)
    store.open_for_writing()
    (tmp_path / "crops" / "settings.json").write_text(content)
    with pytest.raises(GalleryError, match=r"settings\.json cannot be read|upgrade") as told:
        store.open_for_writing()
    assert "\n" not in str(told.value)


def test_keys_are_base64_or_hex() -> None:
    assert parse_key(base64.b64encode(KEY).decode() + "\n") == KEY
    assert parse_key(base64.urlsafe_b64encode(b"\xff" * 32).decode()) == b"\xff" * 32
    assert parse_key(KEY.hex()) == KEY
    for wrong in ("", "secret words", KEY.hex()[:-2], base64.b64encode(KEY[:-1]).decode()):
        with pytest.raises(ConfigError, match="openssl rand -base64 32") as told:
            parse_key(wrong)
        assert not wrong or wrong not in str(told.value)


def test_export_holds_the_faces_that_were_kept(tmp_path: Path) -> None:
    gallery = FolderGallery.create(tmp_path / "g", "m", "d", 2)
    first, _ = gallery.add(
        [NewSample(name, np.eye(2, dtype=np.float32)[n], f"{name}.jpg", name) for n, name in enumerate(("Ann", "Bob"))]
    )
    assert first is not None
    store = CropStore(gallery.path)
    store.open_for_writing()
    store.add(first.sample_id, cut_crop(photo(), face(150, 100, 80)))
    assert gallery.export_npz(tmp_path / "out.npz", store) == 2
    with np.load(tmp_path / "out.npz", allow_pickle=False) as written:
        faces = dict(zip(written["names"].tolist(), written["faces"], strict=True))
        assert written["embeddings"].shape == (2, 2)
    assert faces["Ann"].shape == (224, 224, 3)
    assert faces["Ann"].any()
    assert not faces["Bob"].any()
