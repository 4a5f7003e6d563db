"""Who hears of whose alerts: on a page, in the live stream, and by Web Push.

The rule it keeps: an alert is for who may see its device at the moment at which it is told; the gateway's own is for
who is held to no group. A browser that has subscribed is its user's, and has no rights of its own.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from typing import Final

from peanutd.api.audit import Origin
from peanutd.api.people import Person
from peanutd.api.problem import Problem
from peanutd.api.services import Services
from peanutd.monitor import GATEWAY

TIMEOUT: Final = 10.0
"""Seconds that a courier waits to be told whom he may tell."""


async def devices(services: Services, person: Person) -> frozenset[str]:
    """Names of the devices whose alerts somebody may see."""
    names = frozenset(await services.rights.visible(person))
    return names if person.scope is not None else names | {GATEWAY}


async def of_user(services: Services, name: str) -> frozenset[str] | None:
    """The same of a user who need not be there; None if there is no such user."""
    user = services.passwords.user(name)
    if user is None:
        return None
    nobody = Origin(f"user/{name}", "push", "")
    return await devices(services, Person("user", name, user.role, "", nobody, 0.0, services.scopes.of(name)))


def for_couriers(services: Services, loop: asyncio.AbstractEventLoop) -> Callable[[str], frozenset[str] | None]:
    """`of_user` for other threads than the API's loop. OSError when it cannot be said now."""

    def ask(name: str) -> frozenset[str] | None:
        asked = of_user(services, name)
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, loop)
        except RuntimeError:
            asked.close()
            raise OSError("the gateway ends") from None
        try:
            return answer.result(TIMEOUT)
        except (Problem, concurrent.futures.TimeoutError, concurrent.futures.CancelledError):
            answer.cancel()
            raise OSError("the gateway has too much to do to say who may know of it") from None

    return ask
