"""The networks and the gallery of a command that measures, each loaded when it is first needed."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli.options import open_embedder, open_gallery, photo_detector
from worker.cli.screen import progress_bar
from worker.errors import ConfigError

if TYPE_CHECKING:
    from worker.config import DetectionConfig
    from worker.evaluation.face_cache import FaceCache
    from worker.evaluation.probes import PeopleFaces, PhotoFaces
    from worker.faces.detection import FaceDetector
    from worker.faces.embedding import FaceEmbedder
    from worker.gallery.gallery import Gallery


class Networks:
    """What the options of a command name.

    The gallery is opened at once and networks only when they are needed, so that a wrong path is told without delay.
    """

    def __init__(
        self,
        gallery: str | None,
        model: str | None,
        models_dir: Path | None,
        min_face_px: int,
        engine: str,
        precision: str,
        detector: str | None = None,
        *,
        remember_faces: bool = False,
    ) -> None:
        self._gallery = None if gallery is None else open_gallery(gallery)
        self._model = model
        self._models_dir = models_dir
        self._min_face_px = min_face_px
        self._engine = engine
        self._precision = precision
        self._detector = detector
        self._remember_faces = remember_faces

    @property
    def gallery(self) -> "Gallery":
        """The open gallery.

        Raises:
            ConfigError: the options name no gallery.
        """
        if self._gallery is None:
            raise ConfigError("this needs a gallery: give --gallery PATH")
        return self._gallery

    @cached_property
    def embedder(self) -> "FaceEmbedder":
        """The embedder; if there is a gallery, that of its model."""
        from worker.config import DEFAULT_MODEL_ID

        default = DEFAULT_MODEL_ID if self._gallery is None else self._gallery.model_id
        embedder = open_embedder(self._model or default, self._models_dir, self._engine, self._precision)
        if self._gallery is not None:
            self._gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
        return embedder

    @cached_property
    def photo_detector(self) -> "FaceDetector":
        """The detector with the settings for photos."""
        return photo_detector(self._min_face_px, self._engine, self._detector, self._models_dir)

    def detector(self, config: "DetectionConfig") -> "FaceDetector":
        """The detector with the settings of a worker."""
        from worker.config import cache_dir, models_dir
        from worker.faces.detection import load_detector

        folder = self._models_dir or models_dir()
        return load_detector(config, cache_dir=cache_dir(), models_dir=folder, engine=self._engine)

    def own_threshold(self) -> tuple[float, str]:
        """The threshold that is in use unless another one is given, and where it comes from."""
        if self._gallery is not None and self._gallery.threshold is not None:
            return self._gallery.threshold, "the gallery's"
        return self.embedder.threshold, "the model's manifest"

    @cached_property
    def face_cache(self) -> "FaceCache | None":
        """The faces of photos that earlier runs with the same networks have embedded, where they are to be kept."""
        from worker.config import cache_dir, load_config
        from worker.evaluation.face_cache import FaceCache

        if not self._remember_faces:
            return None
        embedder, detection = self.embedder, load_config(None, {}).detection
        embedded_by = [embedder.model_id, embedder.preprocessing_digest, embedder.engine, embedder.precision]
        found_by = [detection.model_dump(mode="json"), self._detector, self._min_face_px, self._engine]
        return FaceCache.open(cache_dir(), [*embedded_by, embedder.device, *found_by])

    def embed(self, paths: Sequence[Path | None], what: str) -> "PhotoFaces":
        """The central face of each photo, with progress; see :func:`worker.evaluation.probes.embed_photos`."""
        from worker.evaluation.probes import embed_photos

        detector, embedder = self.photo_detector, self.embedder
        with progress_bar(what, len(paths)) as advance:
            return embed_photos(paths, detector, embedder, advance=advance, cache=self.face_cache)

    def embed_people(self, folder: Path, what: str) -> "PeopleFaces":
        """The faces of a folder of people, with progress; see :func:`worker.evaluation.probes.people_faces`."""
        from worker.evaluation.probes import people_faces
        from worker.gallery.enrolment import people_of

        named = people_of(folder)
        return people_faces(named, self.embed([path for path, _ in named], what))
