"""Traces of sampled frames through the stages: they show where the time of one frame went.

Optional (extra ``tracing``): OpenTelemetry spans, sent by OTLP over HTTP. One trace is one batch of frames: its root
tells the cameras, its children are the stages in the order in which they ran. A trace holds nothing of a face.
"""

import io
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from worker import __version__
from worker.config import TracingConfig
from worker.errors import ConfigError
from worker.observer import Stage
from worker.service.metrics import PrometheusObserver
from worker.types import Frame

_FLUSH_MS: Final = 3000


class TracingObserver(PrometheusObserver):
    """Keeps metrics, and traces a share of the batches. The stages of a batch run in the thread that began it."""

    def __init__(self, config: TracingConfig, worker_id: str, chance: Callable[[], float] = random.random) -> None:
        """
        Raises:
            ConfigError: OpenTelemetry is not installed.
        """
        super().__init__()
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from requests import PreparedRequest, Response, Session
        except ImportError:
            raise ConfigError(
                "tracing.sample_ratio: traces need the extra 'tracing': pip install 'facestream[tracing]'"
            ) from None

        class Headlong(Session):
            """Reads the head of an answer only: what a collector says beside its status could be without end."""

            def send(self, request: PreparedRequest, **settings: Any) -> Response:
                answer = super().send(request, **(settings | {"stream": True}))
                answer.close()
                answer.raw = io.BytesIO()
                return answer

        resource = Resource.create(
            {"service.name": "facestream", "service.version": __version__, "service.instance.id": worker_id}
        )
        exporter = OTLPSpanExporter(endpoint=config.endpoint, session=Headlong())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer: Any = self._provider.get_tracer("facestream")
        self._ratio = config.sample_ratio
        self._chance = chance
        self._tracing = False

    @contextmanager
    def frames(self, frames: Sequence[Frame]) -> Iterator[None]:
        if self._chance() >= self._ratio:
            yield
            return
        attributes = {
            "facestream.cameras": [frame.camera_id for frame in frames],
            "facestream.sequences": [frame.sequence for frame in frames],
        }
        with self._tracer.start_as_current_span("frames", attributes=attributes):
            self._tracing = True
            try:
                yield
            finally:
                self._tracing = False

    @contextmanager
    def stage(self, stage: Stage) -> Iterator[None]:
        with ExitStack() as stack:
            # Decoding and publishing run in other threads, beside the batch and not in it.
            if self._tracing and stage not in {"decode", "publish"}:
                stack.enter_context(self._tracer.start_as_current_span(stage))
            stack.enter_context(super().stage(stage))
            yield

    def close(self) -> None:
        """Sends what is left, for at most some seconds."""
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()


def open_observer(config: TracingConfig, worker_id: str) -> PrometheusObserver:
    """An observer; it traces where ``config`` asks for that.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    return TracingObserver(config, worker_id) if config.sample_ratio else PrometheusObserver()
