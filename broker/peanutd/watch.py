"""The watch: what is noticed about peers. Lines about them for the log, counts for the metrics, and bans.

The rule it keeps: it notices, and says who is banned; whoever asks acts on it. Peers can neither fill the log nor have
others blamed: see log.py and bans.py. Who has shown a valid certificate, or that it has a key, is never shut out for
its address.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from peanutd import access, bans
from peanutd.bans import Ban, Bans
from peanutd.config import BanRules, Listener
from peanutd.connection import Connection
from peanutd.control import ControlError
from peanutd.door import Budget
from peanutd.log import Flood, Log
from peanutd.revoked import Revoked
from peanutd.seen import Seen
from peanutd.tally import Tally
from peanutd.throttle import network

BANNED: Final = 0x8A
BLAMED: Final = frozenset((0x81, 0x82, 0x84, 0x85, 0x86, 0x87, 0x8C, 0x90, 0x95, 0x9F))
"""Reasons for which a CONNECT is refused, or a connection ended, that are the client's own doing: malformed packet,
protocol error, version, client id, password, authorisation, method, topic name, size, and guessing on regardless."""
SUSPECTS_PER_SECOND: Final = 5
"""Handshakes a second that a banned address prefix gets, to show a certificate; `handshake_rate` bounds them all."""
CERTIFICATE_FACTOR: Final = 10
"""An operator's certificate may have many clients: so many times more comings than one of them."""


def _bearer(credential: access.Credential) -> tuple[str, str]:
    """What answers for who has shown it: the kind and key of its ban."""
    psk = credential.psk
    return ("certificate", credential.serial) if psk is None else ("psk", psk.name)


class Watch:
    """One for the whole gateway. `wall` tells Unix seconds."""

    def __init__(
        self,
        log: Log,
        rules: BanRules | None = None,
        home: Path | None = None,
        wall: Callable[[], float] = time.time,
        revoked: Revoked | None = None,
    ) -> None:
        """`home`: where the bans are kept; without it they are forgotten with the process. `revoked`: who is."""
        self.log = log
        self.flood = Flood(log)
        self.tally = Tally()
        self.revoked = revoked or Revoked()
        self.revoked.tell = lambda level, text: log.write(level, "revoked", text)
        self._home = home
        self._wall = wall
        found, problem = bans.load(home, wall()) if home is not None else ([], None)
        self.bans = Bans(rules or BanRules(), found)
        self.seen = Seen(home, wall)
        self._suspects: dict[str, Budget] = {}  # by banned prefix
        if self.seen.problem is not None:
            log.warning("seen", self.seen.problem)
        if problem is not None:
            log.warning("bans", problem)

    # --- lines ---

    def note(self, connection: Connection, happened: str, level: str, /, **fields: object) -> None:
        """A line about a client; a client that causes many of a kind has them counted."""
        who = connection.who
        now = time.monotonic()
        owner = connection.accepted.client if connection.accepted is not None else who
        group = (f"{happened}, all clients", owner or network(connection.peer_host))
        if self.flood.admits(group, now):
            kind = (happened, who or connection.peer_host)
            self.flood.write(kind, now, level, "server", happened, who=who, address=connection.peer, **fields)

    def report(self, connection: Connection, what: str, why: str, kind: str = "") -> None:
        """A line about a connection that has not come as far as a CONNECT. kind: the word of tally.py for it."""
        at = (what, connection.peer_host)
        self.flood.write(at, time.monotonic(), "warning", "server", what, address=connection.peer, why=why)
        if what in ("handshake failed", "no connection"):
            self.tally.handshakes_failed[kind] += 1
            if kind != "revoked":  # it is kept out as it is, and may be restored any moment
                self._blame(connection, "failed handshakes")
        elif kind:
            self.tally.turned_away[kind] += 1

    # --- what clients do ---

    def gone(self, connection: Connection) -> None:
        """A connection is gone."""
        if connection.accepted is None and connection.counted is not None:
            self.knocked(connection)

    def knocked(self, connection: Connection) -> None:
        """A connection that has come to nothing."""
        self._blame(connection, "connections without a CONNECT")

    def refused(self, connection: Connection, user: str | None, reason: int) -> None:
        """A CONNECT has been refused."""
        self.tally.refused[reason] += 1
        if reason in BLAMED:
            self._blame(connection, "refused CONNECTs")
            if user is not None and connection.credential is None and not connection.listener.policy.anonymous:
                self._count("user", user, self.bans.rules.user_failures, "failed logins")
        connection.blamed = True  # or it is nobody's fault

    def came(self, connection: Connection, verdict: access.Accept) -> None:
        """A client is let in."""
        if connection.credential is not None and connection.credential.psk is None:
            self.seen.came(connection.credential, connection.peer_host)
        if connection.listener.policy.anonymous:
            return  # a listener for trials: whoever is there may do everything
        most = self.bans.rules.connects
        self._count("client", verdict.session, most, "connects")
        if connection.credential is not None:
            self._count(*_bearer(connection.credential), CERTIFICATE_FACTOR * most, "connects")

    def left(self, connection: Connection, reason: int) -> None:
        """A client that was in is no longer."""
        self.tally.disconnected[reason] += 1
        if connection.credential is not None and connection.credential.psk is None:
            self.seen.left(connection.credential)
        if reason in BLAMED:
            self._blame(connection, "protocol errors")

    # --- who is banned ---

    def shuts(self, host: str, listener: Listener) -> Ban | None:
        """The ban that keeps a connection out before it has said a word. Where a certificate or a key would do it may
        show one, as long as not too many want to: then it is a suspect, and has to. To be asked once a connection.
        """
        ban = self.bans.find("address", self.bans.prefix(host), self._wall()) if len(self.bans) else None
        policy = listener.policy
        if ban is None or not listener.secure or (policy.certificate == "none" and not policy.psk):
            return ban
        budget = self._suspects.setdefault(ban.key, Budget(SUSPECTS_PER_SECOND, time.monotonic()))
        if not budget.has(time.monotonic()):
            return ban
        budget.spend()
        return None

    def suspects(self, connection: Connection) -> bool:
        """Whether a connection that has not been shut out is a suspect."""
        prefix = self.bans.prefix(connection.peer_host) if len(self.bans) else None
        return self.bans.find("address", prefix, self._wall()) is not None

    def bars(self, connection: Connection, user: str | None, session: str | None) -> str | None:
        """Why a client may not come in although it would, or None."""
        if not len(self.bans):
            return None
        now, find = self._wall(), self.bans.find
        credential = connection.credential
        if credential is not None:
            ban = find(*_bearer(credential), now)
        else:
            ban = find("user", user, now)
            if ban is None and connection.suspect:
                ban = find("address", self.bans.prefix(connection.peer_host), now)
        ban = ban or find("client", session, now)
        return None if ban is None else f"{ban} is banned for {ban.until - now:.0f} s more: {ban.reason}"

    def ban(self, kind: str, key: str, why: str, seconds: int) -> Ban:
        """The operator bans somebody. ControlError when that makes no sense."""
        if kind not in bans.KINDS or not key or seconds < 1:
            raise ControlError(f"write one of {', '.join(bans.KINDS)}, who it is, and for how many seconds")
        ban = self.bans.add(kind, self._spelled(kind, key), why, seconds, self._wall())
        self.log.info("bans", "banned by the operator", ban=str(ban), why=why, seconds=seconds)
        return ban

    def unban(self, kind: str, key: str) -> bool:
        """The operator ends a ban; False when there was none."""
        found = self.bans.remove(kind, self._spelled(kind, key))
        self._suspects.clear()  # those that go on get a new one
        if found:
            self.log.info("bans", "ended by the operator", ban=f"{kind} {key}")
        return found

    def concerns(self, ban: Ban, connection: Connection) -> bool:
        """Whether the ban would keep this connection out, came it now."""
        credential, accepted = connection.credential, connection.accepted
        if ban.kind in ("certificate", "psk"):
            return credential is not None and _bearer(credential) == (ban.kind, ban.key)
        if ban.kind == "client":
            return accepted is not None and accepted.session == ban.key
        if ban.kind == "user":
            who = ban.key if ban.key.startswith("token/") else f"user/{ban.key}"
            return credential is None and accepted is not None and accepted.session.startswith(f"{who}/")
        return credential is None and self.bans.prefix(connection.peer_host) == ban.key

    def _spelled(self, kind: str, key: str) -> str:
        """A key as it stands in the list: an address as its prefix."""
        if kind != "address":
            return key.lower() if kind == "certificate" else key
        try:
            address = ipaddress.ip_interface(key)
        except ValueError:
            raise ControlError(f"{key} is not an address") from None
        prefix = self.bans.prefix(str(address.ip))
        if prefix is None:
            raise ControlError(f"{key} is never banned (never in [bans])")
        return prefix

    def sweep(self) -> list[Ban] | None:
        """To be called about once a second. The bans, when they are to be saved."""
        self.flood.sweep(time.monotonic())
        for ban in self.bans.sweep(self._wall()):
            self._suspects.pop(ban.key, None)
            self.log.info("bans", "over", ban=str(ban))
        if len(self._suspects) > bans.BANS_MAX:
            self._suspects.clear()
        if not self.bans.changed or self._home is None:
            return None
        self.bans.changed = False
        return list(self.bans)

    def save(self, found: list[Ban]) -> None:
        """Writes the bans; may be called from a thread."""
        if self._home is None:
            return
        try:
            bans.save(self._home, found)
        except OSError as error:
            self.log.warning("bans", f"cannot be saved, and will be forgotten at the gateway's end: {error}")

    def save_seen(self, contents: bytes) -> None:
        """Writes who has been seen; may be called from a thread."""
        if (problem := self.seen.save(contents)) is not None:
            self.log.warning("seen", problem)

    # --- inside ---

    def _blame(self, connection: Connection, what: str) -> None:
        """Holds something against whoever is known to have done it: once for each connection."""
        if connection.blamed or connection.listener.policy.anonymous:
            return
        connection.blamed = True
        credential, accepted = connection.credential, connection.accepted
        if credential is not None:
            self._count(*_bearer(credential), self.bans.rules.failures, what)
        elif accepted is not None:
            self._count("client", accepted.session, self.bans.rules.failures, what)
        else:
            self._count("address", self.bans.prefix(connection.peer_host), self.bans.rules.failures, what)

    def _count(self, kind: str, key: str | None, limit: int, what: str) -> None:
        ban = self.bans.offence(kind, key, limit, what, self._wall())
        if ban is not None:
            self.tally.bans[kind] += 1
            self.log.warning("bans", "banned", ban=str(ban), why=ban.reason, seconds=ban.until - ban.since)
