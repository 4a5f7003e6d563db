"""What the API's operations work with, put together once.

The rule it keeps: everything that lives as long as the API is here, by its own name, and made by `peanutd.api.serve` or
a test; operations keep nothing. All of it belongs to the API's loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from peanutd.access import Role
from peanutd.api.audit import Audit, Origin, Refusals
from peanutd.api.bridge import Bridge
from peanutd.api.certificates import Certificates
from peanutd.api.commands import Commands
from peanutd.api.database import Database
from peanutd.api.keys import Keys
from peanutd.api.live import Live
from peanutd.api.nodes import Nodes
from peanutd.api.passkeys import Passkeys
from peanutd.api.passwords import Passwords
from peanutd.api.people import Person
from peanutd.api.problem import Problem
from peanutd.api.proofs import Proofs
from peanutd.api.quota import Rate
from peanutd.api.rights import Rights
from peanutd.api.scopes import Scopes
from peanutd.api.sessions import Sessions
from peanutd.api.shares import Shares
from peanutd.log import Log
from peanutd.monitor import Monitor


@dataclass(slots=True)
class Services:
    """See the fields."""

    home: Path
    log: Log
    keys: Keys
    database: Database
    sessions: Sessions
    passwords: Passwords
    scopes: Scopes
    shares: Shares
    audit: Audit
    refusals: Refusals
    bridge: Bridge
    nodes: Nodes
    rights: Rights
    commands: Commands
    clock: Callable[[], float]
    """Unix seconds."""
    monotonic: Callable[[], float]
    live: Live
    passkeys: Passkeys
    certificates: Certificates
    recheck: Callable[[], None]
    """Has the broker put out whoever is no longer who he was; in its loop."""
    monitor: Monitor | None = None
    """History, alerts and groups; None: there are none."""
    version: str = ""
    rate: Rate = field(default_factory=Rate)
    proofs: Proofs = field(default_factory=Proofs)

    def person(self, authorization: str | None, origin: Origin) -> Person:
        """Who calls, by the Authorization header. Problem `unauthorized`."""
        scheme, _, token = (authorization or "").partition(" ")
        now = self.clock()
        access = self.keys.judge(token.strip(), now) if scheme.lower() == "bearer" else None
        if access is None:
            raise Problem("unauthorized", "sign in; the access token is missing, wrong or old")
        kind, _, name = access.who.partition("/")
        if kind == "share":
            share = self.shares.get(name, now)
            if share is None or self.passwords.user(share.by) is None:
                raise Problem("unauthorized", "the share is over")
            holder = replace(origin, who=access.who)
            return Person(kind, name, Role.VIEWER, access.session, holder, access.ends, share=share)
        family, user = self.sessions.get(access.session, now), self.passwords.user(name)
        if kind != "user" or family is None or user is None or family.proof != self.sessions.proof(user):
            raise Problem("unauthorized", "this sign-in is over; sign in again")
        origin = replace(origin, who=access.who)
        return Person(kind, name, user.role, family.id, origin, access.ends, self.scopes.of(name))

    def counts(self, person: Person) -> bool:
        """Whether somebody who has called is still who he was: what `person` looks at, without the token."""
        now = self.clock()
        if person.share is not None:
            share = self.shares.get(person.name, now)
            return share is not None and self.passwords.user(share.by) is not None
        family, user = self.sessions.get(person.session, now), self.passwords.user(person.name)
        return family is not None and user is not None and family.proof == self.sessions.proof(user)
