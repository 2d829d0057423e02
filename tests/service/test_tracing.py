"""Traces of frames, as a real receiver gets them."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from worker.config import TracingConfig
from worker.service.metrics import PrometheusObserver
from worker.service.tracing import TracingObserver, open_observer
from worker.types import Frame

FRAME = Frame("lobby", 7, 0.0, datetime.now(UTC), 0.0, np.zeros((4, 4, 3), np.uint8))


class Receiver:
    """Takes OTLP over HTTP."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.resource: dict[str, str] = {}
        self.spans: list[Any] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                import gzip

                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    receiver.resource |= {one.key: one.value.string_value for one in resource.resource.attributes}
                    receiver.spans += [span for scope in resource.scope_spans for span in scope.spans]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1/traces"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    receiver = Receiver()
    yield receiver
    receiver.server.shutdown()
    receiver.server.server_close()


def pass_through(observer: PrometheusObserver) -> None:
    with observer.frames([FRAME]):
        for stage in ("detect", "embed", "search"):
            with observer.stage(stage):
                pass
    with observer.stage("publish"):
        pass


def test_a_sampled_batch_is_a_trace_with_its_stages_in_order(receiver: Receiver) -> None:
    chances = iter([0.04, 0.9, 0.9])
    config = TracingConfig(sample_ratio=0.05, endpoint=receiver.endpoint)
    observer = TracingObserver(config, "w1", lambda: next(chances))
    for _ in range(3):
        pass_through(observer)
    observer.close()
    (root,) = [span for span in receiver.spans if span.name == "frames"]
    stages = sorted((span for span in receiver.spans if span is not root), key=lambda span: span.start_time_unix_nano)
    assert [span.name for span in stages] == ["detect", "embed", "search"]
    assert {span.parent_span_id for span in stages} == {root.span_id}
    assert {span.trace_id for span in stages} == {root.trace_id}
    cameras = {one.key: one.value for one in root.attributes}["facestream.cameras"].array_value.values
    assert [camera.string_value for camera in cameras] == ["lobby"]
    assert (receiver.resource["service.name"], receiver.resource["service.instance.id"]) == ("facestream", "w1")


def test_metrics_are_kept_of_every_batch_all_the_same(receiver: Receiver) -> None:
    observer = TracingObserver(TracingConfig(sample_ratio=0.5, endpoint=receiver.endpoint), "w1", lambda: 0.9)
    pass_through(observer)
    observer.close()
    assert observer.registry.get_sample_value("facestream_stage_duration_seconds_count", {"stage": "embed"}) == 1
    assert receiver.spans == []


def test_a_stage_that_fails_ends_its_span_and_the_batch_s(receiver: Receiver) -> None:
    observer = TracingObserver(TracingConfig(sample_ratio=1, endpoint=receiver.endpoint), "w1")
    with pytest.raises(ValueError, match="broken"), observer.frames([FRAME]), observer.stage("detect"):
        raise ValueError("broken")
    pass_through(observer)
    observer.close()
    assert [span.name for span in receiver.spans].count("frames") == 2


def test_nothing_is_traced_unless_asked_for() -> None:
    assert type(open_observer(TracingConfig(), "w1")) is PrometheusObserver
