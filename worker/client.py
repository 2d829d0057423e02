"""Consume events: the names that programs import. ``docs/consuming.md`` is a guide."""

from worker.events.consumer.blocking import AsyncConsumer, Consumer, Counts, Delivery, Event

__all__ = ["AsyncConsumer", "Consumer", "Counts", "Delivery", "Event"]
