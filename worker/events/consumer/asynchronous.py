"""A consumer of a group for asyncio."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from inspect import isawaitable
from types import TracebackType
from typing import Any, Self, TypeVar

from worker.events.consumer.base import ConsumerBase
from worker.events.consumer.group import Delivery
from worker.events.consumer.streams import FIND_COUNT, Call, Find, Pause, Split, Step, Steps, Transaction
from worker.redis.client import REDIS_ERRORS, close_async, connect_async, one_transaction_each

_T = TypeVar("_T")


class AsyncConsumer(ConsumerBase):
    """A consumer of a group, for asyncio; :class:`ConsumerBase` describes its arguments.

    Iterate over it with ``async for``, or :meth:`run` a handler. Use it in an ``async with`` statement. It connects
    when it is first asked for an event.

    Raises:
        ConfigError: a URL, a file or a number is wrong.
    """

    def _open(self) -> None:
        self._client = connect_async(self._config)
        self._stop = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # From here on a Redis that is away is not waited for.
        self._stop.set()
        if kind is None and self._outstanding is not None:
            await self.done(self._outstanding)
        await self.close()

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        """See :meth:`worker.events.consumer.blocking.Consumer.__iter__`."""
        while not self._stop.is_set():
            delivery = await self.poll()
            if delivery is not None:
                self._outstanding = delivery
                yield delivery
                if self._outstanding is delivery:
                    await self.done(delivery)

    async def run(self, handler: Callable[[Delivery], object], stop: asyncio.Event | None = None) -> None:
        """Calls ``handler`` with each delivery, and awaits a coroutine.

        See :meth:`worker.events.consumer.blocking.Consumer.run`.
        """
        if stop is not None:
            self._stop = stop
        while not self._stop.is_set():
            delivery = await self.poll()
            if delivery is None:
                continue
            try:
                result = handler(delivery)
                if isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 - a handler may raise anything, and its event comes again
                await self.failed(delivery, error)
            else:
                await self.done(delivery)

    async def poll(self, wait_s: float = 1.0) -> Delivery | None:
        """See :meth:`worker.events.consumer.blocking.Consumer.poll`."""
        return await self._drive(self._consuming.poll(wait_s))

    async def done(self, delivery: Delivery) -> None:
        """See :meth:`worker.events.consumer.blocking.Consumer.done`."""
        self._outstanding = None
        await self._drive(self._consuming.done(delivery))

    async def failed(self, delivery: Delivery, error: BaseException) -> None:
        """See :meth:`worker.events.consumer.blocking.Consumer.failed`."""
        self._outstanding = None
        await self._drive(self._consuming.failed(delivery, error))

    async def bury(self, delivery: Delivery, reason: str) -> None:
        """See :meth:`worker.events.consumer.blocking.Consumer.bury`."""
        self._outstanding = None
        await self._drive(self._consuming.bury(delivery, reason))

    def stop(self) -> None:
        """End the iteration or :meth:`run`, from the same event loop; seen within a second."""
        self._stop.set()

    async def close(self) -> None:
        """See :meth:`worker.events.consumer.blocking.Consumer.close`."""
        await self._drive(self._consuming.leave(for_good=self._anonymous))
        await close_async(self._client)

    async def _drive(self, steps: Steps[_T]) -> _T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = await self._perform(step)
                except REDIS_ERRORS as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
        except StopIteration as end:
            result: _T = end.value
            return result

    async def _perform(self, step: Step) -> Any:
        match step:
            case Call(name, arguments, options):
                reply: Awaitable[Any] = getattr(self._client, name)(*arguments, **options)
                return await reply
            case Transaction(calls):
                async with self._client.pipeline(transaction=True) as pipeline:
                    for each in calls:
                        getattr(pipeline, each.name)(*each.arguments, **each.options)
                    return await pipeline.execute()
            case Find(pattern):
                found = self._client.scan_iter(match=pattern, count=FIND_COUNT, _type="stream")
                return [key async for key in found]
            case Split(keys):
                return one_transaction_each(self._client, keys)
            case Pause(seconds):
                try:
                    await asyncio.wait_for(self._stop.wait(), seconds)
                except TimeoutError:
                    return False
                return True
