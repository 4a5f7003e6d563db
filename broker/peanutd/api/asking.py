"""Asking the monitoring side: history is read in a thread, everything else is asked of the recorder's.

The rule it keeps: nobody waits for long; what there is not is said to be unavailable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Final, TypeVar

from peanutd.alerts import Alerts
from peanutd.api.problem import Problem
from peanutd.api.services import Services
from peanutd.groups import Groups
from peanutd.history import HistoryError, Reader

TIMEOUT: Final = 10.0
"""Seconds that the recorder may take; it sorts in what has come every five minutes."""

T = TypeVar("T")


async def read(services: Services, what: Callable[[Reader], T]) -> T:
    """Reads the history. Problem `unavailable`."""
    try:
        return await asyncio.to_thread(what, reader(services))
    except HistoryError:
        raise Problem("unavailable", "the history cannot be read; the gateway's log says more") from None


def reader(services: Services) -> Reader:
    """Problem `unavailable` where no history is kept."""
    found = services.monitor.reader if services.monitor is not None else None
    if found is None:
        raise Problem("unavailable", "this gateway keeps no history")
    return found


async def ask_alerts(services: Services, what: Callable[[Alerts], T]) -> T:
    """Asks the alerts. Problem `unavailable`."""
    alerts = services.monitor.alerts if services.monitor is not None else None
    if alerts is None:
        raise Problem("unavailable", "this gateway has no alerts; its log says why")
    return await _ask(services, lambda: what(alerts))


async def ask_groups(services: Services, what: Callable[[Groups], T]) -> T:
    """Asks the groups. Problem `unavailable`."""
    groups = services.monitor.groups if services.monitor is not None else None
    if groups is None:
        raise Problem("unavailable", "this gateway has no groups; its log says why")
    return await _ask(services, lambda: what(groups))


async def _ask(services: Services, what: Callable[[], T]) -> T:
    assert services.monitor is not None
    try:
        return await asyncio.wait_for(asyncio.wrap_future(services.monitor.recorder.ask(what)), TIMEOUT)
    except (TimeoutError, CancelledError):
        raise Problem("unavailable", "the gateway has too much to do", retry_after=5) from None
