"""What the sightings of all cameras have in common."""

from dataclasses import dataclass

from worker.config import RecognitionConfig
from worker.history.evidence import Evidence
from worker.history.recorder import Recorder
from worker.history.store import EmbedderId
from worker.observer import Observer
from worker.recognition.unknowns import Unknowns


@dataclass(frozen=True, slots=True)
class RecognitionContext:
    """Made once for each model by the pipeline, and again when the rules in ``config`` change.

    ``dimension`` is the length of the model's vectors, ``min_detections`` how often somebody must be seen to count.
    ``recorder``, ``evidence`` and ``unknowns`` are None where they are not configured.
    """

    config: RecognitionConfig
    model_id: str
    preprocessing_digest: str
    dimension: int
    min_detections: int
    worker_id: str
    observer: Observer
    recorder: Recorder | None = None
    evidence: Evidence | None = None
    unknowns: Unknowns | None = None

    @property
    def embedder(self) -> EmbedderId:
        """Which vectors compare with those of this model."""
        return EmbedderId(self.model_id, self.preprocessing_digest)
