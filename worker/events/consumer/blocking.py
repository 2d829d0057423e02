"""Consume events: a consumer of a group, blocking or for asyncio.

    from worker.events.consumer.blocking import Consumer

    with Consumer("redis://localhost:6379/0", group="door") as consumer:
        for delivery in consumer:
            print(delivery.event.camera_id, delivery.event.identity_name)

``docs/consuming.md`` is a guide.
"""

import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from redis.exceptions import ReadOnlyError

from worker.events.consumer.asynchronous import AsyncConsumer
from worker.events.consumer.base import ConsumerBase
from worker.events.consumer.group import Counts, Delivery
from worker.events.consumer.streams import FIND_COUNT, Call, Find, Pause, Split, Step, Steps, Transaction
from worker.redis.client import REDIS_ERRORS, connect, find_servers_again, one_transaction_each
from worker.types import Event

__all__ = ["AsyncConsumer", "Consumer", "Counts", "Delivery", "Event"]

_T = TypeVar("_T")


class Consumer(ConsumerBase):
    """A consumer of a group, for blocking code; :class:`ConsumerBase` describes its arguments.

    Iterate over it, or :meth:`run` a handler. Use it in a ``with`` statement, or :meth:`close` it.

    Raises:
        ConfigError: a URL, a file or a number is wrong.
        SinkError: Redis cannot be reached, or refuses this consumer.
    """

    def _open(self) -> None:
        self._client = connect(self._config, read_only=True)
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # From here on a Redis that is away is not waited for.
        self._stop.set()
        if kind is None and self._outstanding is not None:
            self.done(self._outstanding)
        self.close()

    def __iter__(self) -> Iterator[Delivery]:
        """Events to handle until :meth:`stop`. One is acknowledged when the next is asked for, or the ``with`` ends.

        An exception that leaves the loop acknowledges nothing: the event comes again.
        """
        while not self._stop.is_set():
            delivery = self.poll()
            if delivery is not None:
                self._outstanding = delivery
                yield delivery
                if self._outstanding is delivery:
                    self.done(delivery)

    def run(self, handler: Callable[[Delivery], object], stop: threading.Event | None = None) -> None:
        """Calls ``handler`` with each delivery until ``stop`` is set, or :meth:`stop` called.

        When it returns, the event is acknowledged; when it raises an ``Exception``, the event comes again later.
        """
        if stop is not None:
            self._stop = stop
        while not self._stop.is_set():
            delivery = self.poll()
            if delivery is None:
                continue
            try:
                handler(delivery)
            except Exception as error:  # noqa: BLE001 - a handler may raise anything, and its event comes again
                self.failed(delivery, error)
            else:
                self.done(delivery)

    def poll(self, wait_s: float = 1.0) -> Delivery | None:
        """The next event to handle, None if there was none in about ``wait_s``. Not acknowledged until :meth:`done`.

        Raises:
            SinkError: Redis refuses this consumer: login, permission, or a key of another type.
        """
        return self._drive(self._consuming.poll(wait_s))

    def done(self, delivery: Delivery) -> None:
        """The event was handled: acknowledge it, and remember that it was."""
        self._outstanding = None
        self._drive(self._consuming.done(delivery))

    def failed(self, delivery: Delivery, error: BaseException) -> None:
        """The event could not be handled now: it comes again later, or is buried after its last delivery."""
        self._outstanding = None
        self._drive(self._consuming.failed(delivery, error))

    def bury(self, delivery: Delivery, reason: str) -> None:
        """The event can never be handled: move it to the dead letters at once."""
        self._outstanding = None
        self._drive(self._consuming.bury(delivery, reason))

    def stop(self) -> None:
        """End the iteration or :meth:`run`, from any thread; seen within a second."""
        self._stop.set()

    def close(self) -> None:
        """Hand back what was fetched and not begun, and give up the connection."""
        self._drive(self._consuming.leave(for_good=self._anonymous))
        self._client.close()

    def _drive(self, steps: Steps[_T]) -> _T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._perform(step)
                except REDIS_ERRORS as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            result: _T = end.value
            return result

    def _perform(self, step: Step) -> Any:
        match step:
            case Call(name, arguments, options):
                try:
                    return getattr(self._client, name)(*arguments, **options)
                except ReadOnlyError:
                    find_servers_again(self._client)
                    raise
            case Transaction(calls):
                with self._client.pipeline(transaction=True) as pipeline:
                    for each in calls:
                        getattr(pipeline, each.name)(*each.arguments, **each.options)
                    return pipeline.execute()
            case Find(pattern):
                return list(self._client.scan_iter(match=pattern, count=FIND_COUNT, _type="stream"))
            case Split(keys):
                return one_transaction_each(self._client, keys)
            case Pause(seconds):
                return self._stop.wait(seconds)
