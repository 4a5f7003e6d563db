"""The monitoring side put together: what is heard goes to history, alerts and groups; couriers tell people of it.

The rule it keeps: that some of it cannot be had (a disk, a database of another version) is said, and is no reason for
the rest not to serve. It holds no logic of its own; whoever asks (the API) finds each part here by its name, or None.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final

from peanutd import fleet, groups
from peanutd.alert_rules import Rulebook
from peanutd.alerts import FILE_NAME, Alert, Alerts
from peanutd.config import Config
from peanutd.couriers import Audience, Couriers
from peanutd.discovery import Discovery
from peanutd.groups import Groups, Progress
from peanutd.history import History, HistoryError, Reader
from peanutd.judges import Node
from peanutd.log import Log
from peanutd.mouth import Mouth
from peanutd.recorder import Recorder

GATEWAY: Final = "gateway"
"""The name under which the gateway's own certificate is looked after."""


class Monitor:
    """Everything that hears the nodes. Between `with` and its end it has threads of its own."""

    def __init__(
        self,
        home: Path,
        settings: Config,
        log: Log,
        rulebook: Rulebook,
        mouth: Mouth,
        expires: Callable[[], datetime | None],
        clock: Callable[[], float] = time.time,
        version: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """expires: when the gateway's own certificate ends, as it is now. clock: Unix seconds; monotonic: seconds that
        pass.
        """
        self._home = home
        self._log = log
        self._expires = expires
        self._known: list[Node] = []
        self._problem: fleet.LedgerError | None = None
        self.told: list[Callable[[Alert | Progress], None]] = []
        """Hear of each alert that changes and of the progress of groups, in the recorder's thread, quickly."""
        self.audience: Audience | None = None
        """Which devices a user may know of, for any thread; None: nobody can say that, as long as there is no API."""
        history: History | None = None
        self.reader: Reader | None = None
        """What was measured, for any thread."""
        if settings.history.keep:
            path = home / settings.history.path
            try:
                history = History(path, settings.history, lambda text: log.error("history", text))
                self.reader = Reader(path)
            except HistoryError as error:
                log.error("history", f"nothing is kept: {error}")
        self.recorder = Recorder(log, settings.history, history, clock=clock, monotonic=monotonic)
        self.alerts: Alerts | None = None
        """To be used by `recorder.ask`."""
        self._couriers: Couriers | None = None
        try:
            self.alerts = alerts = Alerts(home, log, self.nodes, rulebook, clock(), told=self._tell)
            self._couriers = Couriers(home, log, lambda: alerts.rulebook, lambda: self.audience, clock=clock)
            self.recorder.parts.append(alerts)
        except (sqlite3.Error, OSError) as error:
            log.error("alerts", f"there are none: {home / FILE_NAME}: {error}")
        self.groups: Groups | None = None
        """To be used by `recorder.ask`, but for what it says any thread may ask."""
        try:
            self.groups = Groups(home, log, self.nodes, mouth, clock(), told=self._tell)
            self.recorder.parts.append(self.groups)
        except (sqlite3.Error, OSError) as error:
            log.error("groups", f"there are none: {home / groups.FILE_NAME}: {error}")

        self.home_assistant = settings.home_assistant
        discovery = Discovery(settings.home_assistant, self.nodes, mouth, version, clock())
        self.recorder.parts.append(discovery)

    def __enter__(self) -> Monitor:
        self.recorder.__enter__()
        if self._couriers is not None:
            self._couriers.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._couriers is not None:
            self._couriers.__exit__()
        self.recorder.end()

    def nodes(self) -> Sequence[Node]:
        """The fleet as the ledger has it, or last had it, and the gateway itself."""
        try:
            devices = fleet.devices(self._home)
        except fleet.LedgerError as error:
            if self._problem is None:
                level = "warning" if self._known else "debug"  # at the start it was said already
                self._log.write(level, "monitor", f"going by the nodes that were known last: {error}")
            self._problem = error
        else:
            ends: dict[str, float] = {}
            with contextlib.suppress(fleet.LedgerError):  # without this column it is a ledger still
                ends = fleet.expiries(self._home)
            self._known = [Node(device.name, device.root, ends.get(device.name)) for device in devices]
            self._problem = None
        own = self._expires()
        return self._known if own is None else list(_with_gateway(self._known, own.timestamp()))

    def _tell(self, news: Alert | Progress) -> None:
        for told in self.told:
            told(news)


def _with_gateway(nodes: Sequence[Node], ends: float) -> Iterator[Node]:
    """The nodes and the gateway, whose certificate ends then. A greenhouse that has its name is looked after as well:
    the two are one to the alerts, with the certificate that ends first.
    """
    namesake = next((node for node in nodes if node.name == GATEWAY), Node(GATEWAY, ""))
    yield from (node for node in nodes if node is not namesake)
    yield replace(namesake, not_after=min(ends, namesake.not_after or ends))
