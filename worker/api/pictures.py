"""Pictures, for who is logged in: of sightings, and of the photos of people who are enrolled."""

import io
from http import HTTPStatus
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, Query, Response
from PIL import Image as Pillow

from worker.api import people, sightings
from worker.api.access import Reader, SharedParts
from worker.api.parts import Parts
from worker.api.problems import not_found, responses
from worker.api.sight import sees
from worker.encryption import parse_key
from worker.gallery.crops import CropStore
from worker.history.evidence_store import Seen, stored_face, stored_scene
from worker.types import Image

router = APIRouter()

LARGEST_PX: Final = 1920
_THUMBNAIL_PX: Final = 240
_JPEG_QUALITY: Final = 80
_PICTURE: Final = responses(HTTPStatus.NOT_FOUND, media="image/jpeg", meaning="the picture")
SidePx = Annotated[int, Query(ge=16, le=LARGEST_PX)]


def face_jpeg(parts: Parts, sighting: Seen, side_px: int) -> bytes | None:
    """The best face of a sighting as a JPEG with sides of at most ``side_px``; None if no picture is kept.

    Raises:
        SinkError: the store cannot be read.
    """
    store = parts.pictures() if sees(sighting.camera_id) else None
    return None if store is None else _jpeg(stored_face(store, sighting), side_px)


def scene_jpeg(parts: Parts, sighting: Seen, side_px: int) -> bytes | None:
    """The frame from which that face is, in the same form. Raises as :func:`face_jpeg` does."""
    store = parts.pictures() if sees(sighting.camera_id) else None
    return None if store is None else _jpeg(stored_scene(store, sighting), side_px)


def sample_jpeg(parts: Parts, identity_id: str, sample_id: str, side_px: int) -> bytes | None:
    """An enrolled face, in the same form; None if it was enrolled without its picture, or there is no such face.

    Raises:
        Problem: nobody has this id.
        GalleryError: the picture is damaged, or its key is missing or is not the right one.
    """
    samples = [sample for sample in people.find(parts, identity_id).samples if sample.sample_id == sample_id]
    folder = parts.gallery().folder
    if not samples or folder is None:
        return None
    key = parts.config.read_gallery_key()
    crops = CropStore(folder, None if key is None else parse_key(key, "the gallery key"))
    return _jpeg(crops.face(sample_id), side_px)


def _jpeg(image: Image | None, side_px: int) -> bytes | None:
    return None if image is None else jpeg_of(image, side_px)


def jpeg_of(image: Image, side_px: int) -> bytes:
    """A JPEG with sides of at most ``side_px``."""
    picture, out = Pillow.fromarray(np.ascontiguousarray(image)), io.BytesIO()
    picture.thumbnail((side_px, side_px))
    picture.save(out, "JPEG", quality=_JPEG_QUALITY)
    return out.getvalue()


def _answer(jpeg: bytes | None) -> Response:
    if jpeg is None:
        raise not_found("no such picture is kept")
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})


@router.get(
    "/sightings/{sighting_id}/face", operation_id="show_face", tags=["sightings"], response_class=Response,
    responses=_PICTURE,
)  # fmt: skip
def show_face(_caller: Reader, parts: SharedParts, sighting_id: str, side_px: SidePx = _THUMBNAIL_PX) -> Response:
    """The best face of a sighting, if pictures are kept (``evidence.store``)."""
    return _answer(face_jpeg(parts, sightings.find(parts, sighting_id), side_px))


@router.get(
    "/sightings/{sighting_id}/scene", operation_id="show_scene", tags=["sightings"], response_class=Response,
    responses=_PICTURE,
)  # fmt: skip
def show_scene(_caller: Reader, parts: SharedParts, sighting_id: str, side_px: SidePx = LARGEST_PX) -> Response:
    """The frame from which the best face of a sighting is, if frames are kept (``evidence.frames``)."""
    return _answer(scene_jpeg(parts, sightings.look(parts, sighting_id), side_px))


@router.get(
    "/people/{identity_id}/samples/{sample_id}/face", operation_id="show_sample", tags=["people"],
    response_class=Response, responses=_PICTURE,
)  # fmt: skip
def show_sample(
    _caller: Reader, parts: SharedParts, identity_id: str, sample_id: str, side_px: SidePx = _THUMBNAIL_PX
) -> Response:
    """An enrolled face, if it was enrolled with its picture (``enroll --keep-crops``)."""
    return _answer(sample_jpeg(parts, identity_id, sample_id, side_px))
