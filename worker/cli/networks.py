"""The networks and the gallery of a command that measures, each loaded when it is first needed."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from worker.cli.common import open_embedder, open_gallery, photo_detector
from worker.cli.progress import progress_bar


class Networks:
    """What the options of a command name. Inputs are read before networks are loaded: a wrong path costs no time."""

    def __init__(
        self,
        gallery: str | None,
        model: str | None,
        models_dir: Path | None,
        min_face_px: int,
        engine: str,
        precision: str,
        detector: str | None = None,
    ) -> None:
        self._gallery = gallery
        self._model = model
        self._models_dir = models_dir
        self._min_face_px = min_face_px
        self._engine = engine
        self._precision = precision
        self._detector = detector
        if gallery is not None:
            _ = self.gallery

    @cached_property
    def gallery(self) -> Any:
        """The open gallery, None where none is named."""
        return open_gallery(self._gallery) if self._gallery is not None else None

    @cached_property
    def embedder(self) -> Any:
        """The embedder: of the gallery's model, where there is one."""
        from worker.config import DEFAULT_MODEL_ID

        default = self.gallery.model_id if self.gallery else DEFAULT_MODEL_ID
        embedder = open_embedder(self._model or default, self._models_dir, self._engine, self._precision)
        if self.gallery:
            self.gallery.require_model(embedder.model_id, embedder.preprocessing_digest)
        return embedder

    @cached_property
    def photo_detector(self) -> Any:
        """The detector with the settings for photos."""
        return photo_detector(self._min_face_px, self._engine, self._detector, self._models_dir)

    def detector(self, config: Any) -> Any:
        """The detector with the settings of a worker."""
        from worker.config import cache_dir, models_dir
        from worker.faces.detection import load_detector

        folder = self._models_dir or models_dir()
        return load_detector(config, cache_dir=cache_dir(), models_dir=folder, engine=self._engine)

    def own_threshold(self) -> tuple[float, str]:
        """The threshold in use without a word to the contrary, and where it is from."""
        if self.gallery is not None and self.gallery.threshold is not None:
            return self.gallery.threshold, "the gallery's"
        return self.embedder.threshold, "the model's manifest"

    def embed(self, paths: Sequence[Path | None], what: str) -> Any:
        """The central face of each photo, with progress; see :func:`worker.evaluation.probes.embed_photos`."""
        from worker.evaluation.probes import embed_photos

        detector, embedder = self.photo_detector, self.embedder
        with progress_bar(what, len(paths)) as bar:
            return embed_photos(paths, detector, embedder, advance=bar.advance)

    def embed_people(self, folder: Path, what: str) -> Any:
        """The faces of a folder of people, with progress; see :func:`worker.evaluation.probes.people_faces`."""
        from worker.evaluation.probes import people_faces
        from worker.gallery.enrolment import people_of

        named = people_of(folder)
        return people_faces(named, self.embed([path for path, _ in named], what))
