"""For receivers of a webhook: whether a request came from the worker."""

from worker.events.consumer.webhook import verify

__all__ = ["verify"]
