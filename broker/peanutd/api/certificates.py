"""Certificates: what each node came with and until when it is good, and the way to have one revoked.

The rule it keeps: the gateway issues and revokes nothing itself. What is listed is what handshakes have proved
(seen.py) and what is in force (revoked.py); revoking is done by the program `peanut` on this machine, which owns the
list. Where that program is not, the answer says so.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from peanutd.access import Identity
from peanutd.api.bridge import Bridge
from peanutd.api.nodes import Node
from peanutd.api.problem import Problem
from peanutd.revoked import Entry

TIMEOUT: Final = 60.0
"""Seconds that `peanut` may take; it needs one or two."""
WORDS_MAX: Final = 400
"""Characters of what it says that are passed on when it fails."""

_PROGRAM: Final = "peanut"


Standing = tuple[Mapping[str, Mapping[str, Any]], Mapping[str, Entry]]
"""Who has been seen (seen.py) and who is revoked (revoked.py), by identity."""


class Certificates:
    """The list, and the way to have it changed."""

    def __init__(self, home: Path, bridge: Bridge, look: Callable[[], Standing]) -> None:
        """`look` is called in the broker's loop."""
        self._home = home
        self._bridge = bridge
        self._look = look
        self.program = shutil.which(_PROGRAM, path=str(Path(sys.executable).parent)) or shutil.which(_PROGRAM)
        """`peanut`; None where it is not on this machine."""
        self._one_at_a_time = asyncio.Lock()

    async def of(self, nodes: list[Node]) -> list[dict[str, Any]]:
        """As the contract has them."""
        names = [str(Identity(node.kind, node.name)) for node in nodes]

        def question() -> list[tuple[Mapping[str, Any], Entry | None]]:
            records, revoked = self._look()
            return [(dict(records.get(name, {})), revoked.get(name)) for name in names]

        found = await self._bridge.ask(question)
        return [_public(node, seen, entry) for node, (seen, entry) in zip(nodes, found, strict=True)]

    async def change(self, what: str, name: str, *options: str) -> None:
        """`peanut device revoke|restore NAME`. Problem `unavailable` where it cannot be done here, and why."""
        if self.program is None:
            there = f"run `peanut device {what} {name}` where it is"
            raise Problem("unavailable", f"there is no `peanut` on the gateway; {there}")
        command = [self.program, "--home", str(self._home), "device", what, *options, "--", name]
        async with self._one_at_a_time:
            done = await asyncio.to_thread(_run, command)
        if done is None:
            raise Problem("unavailable", f"`peanut device {what}` takes too long")
        if done.returncode:
            words = done.stdout.decode(errors="replace").strip()[-WORDS_MAX:]
            raise Problem("unavailable", f"`peanut device {what}` failed: {words}")


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[bytes] | None:
    """None when it takes too long."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return None


def _public(node: Node, seen: Mapping[str, Any], entry: Entry | None) -> dict[str, Any]:
    chips = seen.get("chips") or [None]
    revoked = entry is not None and seen.get("serial") not in entry.good
    return {
        "device": node.name,
        "serial": seen.get("serial"),
        "not_after": seen.get("not_after"),
        "first": seen.get("first"),
        "last": seen.get("last"),
        "address": seen.get("address"),
        "chip": chips[-1],
        "revoked": {"since": entry.since, "why": entry.why} if entry is not None and revoked else None,
    }
