"""The bridge between the API's loop and the broker's: what may be asked over there, and what is told from there.

The rule it keeps: the broker's side of it is short, everything that crosses is bounded, and nobody over there ever
waits for anybody here. What is told too fast is counted as lost, and whoever listens is told so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from peanutd.api.problem import Problem

TIMEOUT: Final = 5.0
"""Seconds that the broker's loop may take for a question."""
QUESTIONS: Final = 256
"""Questions that are under way at once; one more is turned away as busy."""
TOLD: Final = 20_000
"""Reports that wait for the API's loop; one more is lost."""

T = TypeVar("T")


class Bridge:
    """Asks things of the broker's loop. To be used in the API's loop."""

    def __init__(self, broker_loop: asyncio.AbstractEventLoop) -> None:
        self._over_there = broker_loop
        self._asked = 0

    async def ask(self, question: Callable[[], T]) -> T:
        """Has `question` called in the broker's loop, soon; it must be quick. Problem `busy` or `unavailable`."""
        if self._asked >= QUESTIONS:
            raise Problem("busy", "the gateway has too much to do", retry_after=1)
        here = asyncio.get_running_loop()
        answer: asyncio.Future[T] = here.create_future()
        self._asked += 1
        try:
            self._over_there.call_soon_threadsafe(self._answer, question, here, answer)
            return await asyncio.wait_for(answer, TIMEOUT)
        except (RuntimeError, TimeoutError):  # the loop is closed: the gateway ends
            raise Problem("unavailable", "the gateway does not answer", retry_after=5) from None
        finally:
            self._asked -= 1

    @staticmethod
    def _answer(question: Callable[[], T], loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T]) -> None:
        set_: Callable[[Any], None] = answer.set_result
        try:
            result: Any = question()
        except Exception as error:
            set_, result = answer.set_exception, error

        def tell() -> None:
            if not answer.done():
                set_(result)

        with contextlib.suppress(RuntimeError):  # nobody is there any more
            loop.call_soon_threadsafe(tell)


class Relay(Generic[T]):
    """Carries what happens in the broker's loop over to the API's, many at a time and in order."""

    def __init__(self, take: Callable[[list[T], int], None]) -> None:
        """`take` gets what has come, and how much was lost, in the API's loop."""
        self._take = take
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: deque[T] = deque()  # both threads use it; its single steps are whole
        self._lost = self._told_lost = 0
        self._due = False

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """The API's loop is there; what came before is held."""
        self._loop = loop
        loop.call_soon_threadsafe(self._deliver)

    def put(self, item: T) -> None:
        """To be called in the broker's loop."""
        if len(self._held) >= TOLD:
            self._lost += 1
            return
        self._held.append(item)
        if not self._due and self._loop is not None:
            self._due = True
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        self._due = False
        held: list[T] = []
        with contextlib.suppress(IndexError):
            while len(held) < TOLD:
                held.append(self._held.popleft())
        lost, self._told_lost = self._lost - self._told_lost, self._lost
        if held or lost:
            self._take(held, lost)
