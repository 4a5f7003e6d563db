"""What Home Assistant would have a vehicle do: judged, signed and sent like a command of the API, and in the audit log.

The rule it keeps: whoever may publish to `vin/<VIN>/ha/<verb>` (rules.toml) may lock, sound the horn and stop the
engine; unlocking takes the code of `[home_assistant] code_file` besides, with an end to guessing; the engine is not
started from here, for a button has no code. What is not obeyed is in the audit log too.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from peanutd.api.audit import Audit, Origin
from peanutd.api.commands import Commands
from peanutd.api.nodes import Nodes
from peanutd.api.problem import Problem
from peanutd.config import HomeAssistant as Settings
from peanutd.ear import Report
from peanutd.log import Log

ORIGIN: Final = Origin("home-assistant", "mqtt", "")
PREFIX: Final = "ha/"
FREE: Final = ("lock", "horn", "stop")
"""Verbs that need no code."""
WRONG: Final = 5
"""Wrong codes within WINDOW after which none counts any more until it is over."""
WINDOW: Final = 300.0
"""Seconds."""
UNDER_WAY: Final = 20
"""Wishes that are being carried out; one more is dropped."""


class Homes:
    """In the API's loop; `take` gets what the ear has heard."""

    def __init__(
        self,
        home: Path,
        settings: Settings,
        nodes: Nodes,
        commands: Commands,
        audit: Audit,
        log: Log,
        monotonic: Callable[[], float],
    ) -> None:
        self._home = home
        self._settings = settings
        self._nodes = nodes
        self._commands = commands
        self._audit = audit
        self._log = log
        self._monotonic = monotonic
        self._wrong: deque[float] = deque(maxlen=WRONG)
        self._tasks: set[asyncio.Task[None]] = set()

    @staticmethod
    def wants(report: Report) -> bool:
        """Whether a report is such a wish. A retained one is none: it would be obeyed again and again."""
        return report.leaf.startswith(PREFIX) and not report.retained

    def take(self, reports: list[Report], lost: int) -> None:
        """Wishes that have come."""
        for report in reports:
            if len(self._tasks) >= UNDER_WAY:
                self._log.warning("home assistant", "too many wishes at once, one is dropped", topic=report.root)
                continue
            task = asyncio.get_running_loop().create_task(self._carry_out(report))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, report: Report) -> None:
        await self._nodes.look(self._monotonic())  # the car may have been added a minute ago
        node = next((node for node in self._nodes.all.values() if node.root == report.root), None)
        if node is None or not node.vehicle:
            self._log.warning("home assistant", "no such vehicle in the ledger", topic=report.root)
            return
        verb, code = _wish(report)
        if (why := self._objection(verb, code)) is not None:
            await self._audit.add(ORIGIN, "command", node.name, "refused", why, command=verb)
            self._log.warning("home assistant", "refused", vehicle=node.name, command=verb, why=why)
            return
        try:
            outcome = await self._commands.send(ORIGIN, node, verb, {})
        except Problem as problem:
            self._log.warning("home assistant", "not sent", vehicle=node.name, command=verb, why=problem.detail)
        else:
            level = "info" if outcome.outcome == "done" else "warning"
            self._log.write(level, "home assistant", outcome.outcome, vehicle=node.name, command=verb, why=outcome.why)

    def _objection(self, verb: str, code: str) -> str | None:
        """Why it is not done; None if it is."""
        if verb in FREE:
            return None
        if verb != "unlock":
            return "Home Assistant may lock, unlock, sound the horn and stop the engine"
        if not self._settings.code_file:
            return "unlocking needs a code: code_file in [home_assistant]"
        now = self._monotonic()
        if len(self._wrong) == WRONG and now - self._wrong[0] < WINDOW:
            return f"{WRONG} wrong codes; none counts for a while"
        try:
            right = (self._home / self._settings.code_file).read_text().split("\n", 1)[0].strip()
        except (OSError, UnicodeDecodeError):
            return "the file with the code cannot be read"
        if not right or not hmac.compare_digest(right.encode(), code.encode("utf-8", "replace")):
            self._wrong.append(now)
            return "wrong code"
        self._wrong.clear()
        return None


def _wish(report: Report) -> tuple[str, str]:
    """Verb and code. The lock has one topic for both of its verbs."""
    verb, said = report.leaf.removeprefix(PREFIX), _object(report.payload)
    if verb == "lock":
        verb = str(said.get("do", ""))[:32]
    return verb if verb.isascii() and verb.isalnum() else "?", str(said.get("code", ""))[:64]


def _object(payload: bytes) -> dict[str, Any]:
    try:
        found = json.loads(payload[:512])
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
