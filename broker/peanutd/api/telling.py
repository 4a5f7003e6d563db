"""From the monitoring side to people: alerts that change and how far groups are, live; and who may know of what.

The rule it keeps: an alert is told to who may see its device. Of a group everybody hears how many are where, and nobody
who: that is for `GET /groups/{group}/desired`, which knows who asks.
"""

from __future__ import annotations

import asyncio
import contextlib

from peanutd.alerts import Alert
from peanutd.api import audience
from peanutd.api.nodes import News
from peanutd.api.services import Services
from peanutd.groups import Progress
from peanutd.monitor import Monitor


def connect(monitor: Monitor, services: Services, loop: asyncio.AbstractEventLoop) -> None:
    """Has whoever looks told of it, in the API's loop, from now on, and the couriers told whom they may tell."""
    monitor.audience = audience.for_couriers(services, loop)

    def told(changed: Alert | Progress) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the gateway ends
            loop.call_soon_threadsafe(services.nodes.tell, news(changed))

    monitor.told.append(told)


def news(changed: Alert | Progress) -> News:
    """What the stream says of it."""
    if isinstance(changed, Alert):
        return News(changed.device, "alert", changed.as_json())
    return News(None, "group", {**changed.as_json(), "devices": []})
