"""Who is in a photo, and where and when the person was seen."""

import base64
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

import numpy as np
from fastapi import APIRouter, File, Query, UploadFile

from worker.api.access import Reader, SharedParts
from worker.api.paging import MOST
from worker.api.parts import Parts
from worker.api.pictures import jpeg_of
from worker.api.problems import Problem, responses
from worker.api.sighting_documents import FaceDocument, FacesPage, Found, FoundSighting
from worker.audit_log import note
from worker.errors import SourceError
from worker.files import without_name
from worker.gallery.enrolment import choose_face
from worker.history.documents import sighting_document
from worker.history.records import EmbedderId, PastSighting, Vector
from worker.types import Detections, Image
from worker.video.photos import read_photo

router = APIRouter(tags=["sightings"])

_AROUND: Final = 0.5
"""Of the side of a face: so much is shown on each side of it."""
_FACE_PX: Final = 480


@dataclass(frozen=True, slots=True)
class FacesInPhoto:
    """A photo as an image, and the faces in it from left to right: those among which somebody has to choose."""

    image: Image
    faces: Detections

    def cut(self, number: int) -> Image:
        """The photo around one face."""
        box = self.faces.boxes[number]
        margin = _AROUND * max(float(box[2] - box[0]), float(box[3] - box[1]))
        left, top = (max(int(value - margin), 0) for value in box[:2])
        right, bottom = (int(value + margin) for value in box[2:])
        return self.image[top:bottom, left:right]

    @property
    def middle(self) -> int:
        """The number of the face that is nearest to the middle of the photo."""
        centre = np.array(self.image.shape[1::-1], np.float32) / 2
        middles = (self.faces.boxes[:, :2] + self.faces.boxes[:, 2:]) / 2
        return int(np.square(middles - centre).sum(axis=1).argmin())


def faces_in(parts: Parts, photo: UploadFile) -> FacesInPhoto:
    """The one face in a photo that is meant, or all of them where that cannot be told.

    Raises:
        SourceError: the photo cannot be read, or shows no face.
        ModelError: the networks cannot be loaded.
    """
    with without_name(photo.file) as path:
        try:
            image = read_photo(path)
        except SourceError as error:
            raise SourceError(str(error).replace(f"photo {path}", "the photo")) from None
    (found,) = parts.networks().detector.detect([image])
    chosen, problem = choose_face(found, (image.shape[1], image.shape[0]))
    if problem == "no_face":
        raise SourceError("no face found: take a photo in which the face is larger, or turned to the camera")
    return FacesInPhoto(image, chosen.take(np.argsort(chosen.boxes[:, 0])))


def search(
    parts: Parts, photo: FacesInPhoto, limit: int, face: int | None = None
) -> tuple[list[tuple[PastSighting, float]], float]:
    """The sightings of the person in a photo, the most similar first, and the lowest cosine that counts.

    Raises:
        Problem: the photo shows several people, and ``face`` does not say which one is meant.
        ModelError: the networks cannot be loaded.
    """
    count = len(photo.faces)
    if (face is None and count > 1) or not 0 <= (face or 0) < count:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"the photo shows {count} people: say which one by face=0 to face={count - 1}, from left to right"
            if count > 1 else "the photo shows one person alone: leave face out",
        )  # fmt: skip
    embedder = parts.networks().embedder
    threshold = parts.threshold(parts.gallery()) if parts.has_gallery() else embedder.threshold
    aligned = embedder.align(photo.image, photo.faces.take(np.array([face or 0])))
    probe: Vector = embedder.embed(aligned).vectors[0]
    with parts.history() as history:
        found = history.similar(
            probe, EmbedderId(embedder.model_id, embedder.preprocessing_digest), threshold, limit=limit
        )
    subjects = {one for sighting, _ in found for one in (sighting.identity_id, sighting.unknown_id) if one}
    note(parts.audit_folder, "past found", subjects, command="search", sightings=len(found))
    return found, threshold


def face_picture(photo: FacesInPhoto, number: int) -> str:
    """One face with what is around it, as a JPEG in base64."""
    return base64.b64encode(jpeg_of(photo.cut(number), _FACE_PX)).decode()


@router.post("/faces", operation_id="find_faces", responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY))
def find_faces(
    _caller: Reader, parts: SharedParts, photo: Annotated[UploadFile, File(description="a photo; it is not kept")]
) -> FacesPage:
    """The people in a photo, from left to right, each as a picture: to choose one for ``/search``. It is one alone
    where it is clear who is meant."""
    found = faces_in(parts, photo)
    return FacesPage(
        items=[
            FaceDocument(
                face=number, box=[round(float(value), 1) for value in box], picture=face_picture(found, number)
            )
            for number, box in enumerate(found.faces.boxes)
        ]
    )


@router.post("/search", operation_id="search_photo", responses=responses(HTTPStatus.UNPROCESSABLE_ENTITY))
def search_photo(
    _caller: Reader,
    parts: SharedParts,
    photo: Annotated[UploadFile, File(description="a photo; it is not kept")],
    face: Annotated[
        int | None,
        Query(ge=0, le=1000, description="which of several people in the photo, from left to right: 0, 1 ..."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MOST)] = 50,
) -> Found:
    """The past sightings of the person in a photo, as ``facestream search`` lists them. The photo is not kept."""
    found, threshold = search(parts, faces_in(parts, photo), limit, face)
    items = [
        FoundSighting(**sighting_document(sighting), similarity=round(similarity, 4)) for sighting, similarity in found
    ]
    return Found(items=items, threshold=threshold)
