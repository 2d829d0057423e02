"""What the gallery that a worker searches tells about its own people: do they resemble each other too much?"""

import threading
from collections.abc import Callable

from worker.gallery.gallery import Gallery
from worker.gallery.resemblance import Resemblance, resemblance_in
from worker.recognition.matching import People


class GalleryResemblance:
    """Compares the people of the gallery that is searched, once for each of its versions, when somebody asks.

    ``searched`` gives the gallery; ``default`` is the threshold of a gallery that is not calibrated. Metrics ask from
    the thread that answers Prometheus, so that no frame waits for it.
    """

    def __init__(self, searched: Callable[[], People], default: float) -> None:
        self._searched, self._default = searched, default
        self._lock = threading.Lock()
        self._made_of: tuple[str, int] | None = None
        self._found: Resemblance | None = None

    def now(self) -> Resemblance | None:
        """None if nothing can be said: a classifier, few people, or no evidence to compare with."""
        gallery = self._searched()
        if not isinstance(gallery, Gallery):
            return None
        with self._lock:
            version = (gallery.model_id, gallery.version)
            if version != self._made_of:
                threshold = self._default if gallery.threshold is None else gallery.threshold
                self._found, self._made_of = resemblance_in(gallery, threshold), version
            return self._found
