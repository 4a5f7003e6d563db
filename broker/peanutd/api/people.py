"""Who is calling, and what they may do.

The rule it keeps: a token says who, and everything else is looked up now: the role in users.json, the scope and the
share in the database, what is allowed in the rules that MQTT keeps to. So nothing that was taken away lives on in a
token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from peanutd.access import Role
from peanutd.api.audit import Origin

RANK: Final[Mapping[Role, int]] = {Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


@dataclass(frozen=True, slots=True)
class Share:
    """Somebody may give some commands to a vehicle (or a greenhouse) for a while. Times are Unix seconds."""

    id: int
    device: str
    commands: tuple[str, ...]
    starts: float
    ends: float
    note: str
    by: str
    """The user who shares, without `user/`. What he may not do, the holder may not either."""
    created: float
    revoked: float | None

    def open(self, now: float) -> bool:
        """Whether it counts."""
        return self.revoked is None and self.starts <= now < self.ends

    def public(self) -> dict[str, Any]:
        """As the contract shows it."""
        return {
            "id": self.id,
            "device": self.device,
            "commands": list(self.commands),
            "from": self.starts,
            "until": self.ends,
            "note": self.note,
            "by": self.by,
            "created": self.created,
            "revoked": self.revoked,
        }


@dataclass(frozen=True, slots=True)
class Person:
    """Who has signed in. A share's holder is a viewer of one device, with a few commands."""

    kind: str
    """`user` or `share`."""
    name: str
    role: Role
    session: str
    origin: Origin
    ends: float
    """Of the access token, Unix seconds."""
    scope: frozenset[str] | None = None
    """Names of groups; None: no limit."""
    share: Share | None = None

    @property
    def who(self) -> str:
        return f"{self.kind}/{self.name}"

    def at_least(self, role: Role) -> bool:
        return RANK[self.role] >= RANK[role]
