"""Alerts: what is wrong with whom, since when, who knows of it, and whether it is over.

The rule it keeps: an alert is raised once, acknowledged by a person, and cleared when what was wrong is over; all of it
is on the disk before anybody is told. After a restart what was open is open still. Whom to tell goes into the same
database in the same transaction (`notice`), and couriers.py takes it from there.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from peanutd import alert_rules, judges, webpush
from peanutd.alert_rules import Rulebook
from peanutd.judges import Judge, Node, Verdict
from peanutd.log import Log, clean
from peanutd.recorder import Said
from peanutd.sqlfile import opened, transaction
from peanutd.toml_file import ConfigError

FILE_NAME: Final = "alerts.db"
LOOK: Final = 5.0
"""Seconds between two looks at silence, certificates and alerts.toml."""
NODES: Final = 60.0
"""Seconds between two looks at the ledger."""
KEEP: Final = 400 * 86_400
"""Seconds that cleared alerts and old notices are kept."""
MAX_NOTE: Final = 500
"""Characters of a person's note."""
MAX_SUBSCRIPTIONS: Final = 20
"""Browsers of one user; one more, and the oldest goes."""

State = Literal["raised", "acknowledged", "cleared"]
STATES: Final = get_args(State)

_FIRST: Final = """
    CREATE TABLE IF NOT EXISTS alert (
        id INTEGER PRIMARY KEY AUTOINCREMENT, rule TEXT NOT NULL, device TEXT NOT NULL, about TEXT NOT NULL,
        severity TEXT NOT NULL, text TEXT NOT NULL, value REAL, raised REAL NOT NULL,
        ack_by TEXT, ack_ts REAL, ack_note TEXT, cleared REAL);
    CREATE UNIQUE INDEX IF NOT EXISTS one_open ON alert (rule, device, about) WHERE cleared IS NULL;
    CREATE INDEX IF NOT EXISTS alert_of_device ON alert (device, id);
    CREATE TABLE IF NOT EXISTS notice (
        id INTEGER PRIMARY KEY AUTOINCREMENT, alert INTEGER NOT NULL, happened TEXT NOT NULL, way TEXT NOT NULL,
        target TEXT NOT NULL, made REAL NOT NULL, due REAL NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL DEFAULT 'waiting', why TEXT, done REAL);
    CREATE INDEX IF NOT EXISTS notice_due ON notice (due) WHERE state = 'waiting';
    CREATE TABLE IF NOT EXISTS subscription (
        id TEXT PRIMARY KEY, user TEXT NOT NULL, endpoint TEXT NOT NULL UNIQUE, p256dh TEXT NOT NULL,
        auth TEXT NOT NULL, made REAL NOT NULL);
"""
# In the first, subscriptions had no sign-in.
_SECOND: Final = "ALTER TABLE subscription ADD COLUMN sign_in TEXT NOT NULL DEFAULT '';"
_COLUMNS: Final = "id, rule, device, severity, text, value, raised, ack_by, ack_ts, ack_note, cleared"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    by: str
    ts: float
    note: str


@dataclass(frozen=True, slots=True)
class Alert:
    """As the API's contract has it."""

    id: int
    rule: str
    device: str
    severity: str
    state: State
    text: str
    value: float | None
    raised: float
    acknowledged: Acknowledgement | None
    cleared: float | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def connect(path: Path) -> sqlite3.Connection:
    """The database; made when it is not there. OSError or sqlite3.Error when it cannot be used."""
    return opened(path, (_FIRST, _SECOND), "FULL")


class Alerts:
    """A part of the recorder: everything is in its thread."""

    def __init__(
        self,
        home: Path,
        log: Log,
        nodes: Callable[[], Sequence[Node]],
        rulebook: Rulebook,
        now: float,
        *,
        told: Callable[[Alert], None] = lambda alert: None,
    ) -> None:
        """nodes: the fleet, from the ledger. told: hears of each change, for the live stream; it must be
        quick. sqlite3.Error when the database cannot be used.
        """
        self._home = home
        self._log = log
        self._nodes_of = nodes
        self._nodes: dict[str, Node] | None = None
        self._told = told
        self._db = connect(home / FILE_NAME)
        self._open = {
            (rule, device, about): number
            for number, rule, device, about in self._db.execute(
                "SELECT id, rule, device, about FROM alert WHERE cleared IS NULL"
            )
        }
        self._stamp = self._stamp_now()
        self._look_at = now
        self._nodes_at = now
        self.rulebook = rulebook
        self._judges: tuple[Judge, ...] = tuple(judges.judge(rule, now) for rule in rulebook.rules)

    # --- what is wrong ---

    def hear(self, said: Said, now: float) -> None:
        """Has every judge hear a report."""
        device = said.report.root.rpartition("/")[2]
        for judge in self._judges:
            if judge.rule.concerns(device):
                for verdict in judge.hear(device, said, now):
                    self._judged(judge, verdict, now)

    def tick(self, now: float) -> None:
        if now < self._look_at:
            return
        self._look_at = now + LOOK
        if (stamp := self._stamp_now()) != self._stamp:
            self._stamp = stamp
            self._reload(now)
        if now >= self._nodes_at:
            self._nodes_at = now + NODES
            self._nodes = {node.name: node for node in self._nodes_of()}
            self._sweep(now)
        if self._nodes is not None:
            for judge in self._judges:
                concerned = {name: node for name, node in self._nodes.items() if judge.rule.concerns(name)}
                for verdict in judge.tick(concerned, now):
                    self._judged(judge, verdict, now)

    def shift(self, by: float) -> None:
        self._look_at += by
        self._nodes_at += by
        for judge in self._judges:
            judge.shift(by)

    def _judged(self, judge: Judge, verdict: Verdict, now: float) -> None:
        key = (judge.rule.id, verdict.device, verdict.about)
        number = self._open.get(key)
        if verdict.bad == (number is not None):
            return
        if number is not None:
            self._clear(key, number, now)
            return
        severity, text = judge.rule.severity, clean(verdict.text)
        with transaction(self._db):
            cursor = self._db.execute(
                "INSERT INTO alert (rule, device, about, severity, text, value, raised) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (judge.rule.id, verdict.device, verdict.about, severity, text, verdict.value, now),
            )
            number = cursor.lastrowid
            assert number is not None
            self._notify(number, "raised", judge.rule.id, severity, now)
        self._open[key] = number
        self._log.warning("alerts", "raised", id=number, rule=judge.rule.id, device=verdict.device, why=text)
        self._tell(number)

    def _clear(self, key: tuple[str, str, str], number: int, now: float) -> None:
        with transaction(self._db):
            self._db.execute("UPDATE alert SET cleared = ? WHERE id = ?", (now, number))
            ((severity,),) = self._db.execute("SELECT severity FROM alert WHERE id = ?", (number,)).fetchall()
            self._notify(number, "cleared", key[0], severity, now)
        del self._open[key]
        self._log.info("alerts", "cleared", id=number, rule=key[0], device=key[1])
        self._tell(number)

    def _notify(self, number: int, happened: str, rule: str, severity: str, now: float) -> None:
        """Puts down whom to tell."""
        targets: list[tuple[str, str]] = []
        for way in self.rulebook.ways_for(rule, severity):
            if way.kind == "push":
                targets += [(way.name, id_) for (id_,) in self._db.execute("SELECT id FROM subscription")]
            else:
                targets.append((way.name, ""))
        self._db.executemany(
            "INSERT INTO notice (alert, happened, way, target, made, due) VALUES (?, ?, ?, ?, ?, ?)",
            [(number, happened, name, target, now, now) for name, target in targets],
        )

    def _reload(self, now: float) -> None:
        """alerts.toml has changed."""
        try:
            rulebook = alert_rules.load(self._home)
        except ConfigError as error:
            for line in str(error).splitlines():
                self._log.error("alerts", f"not taken, the old rules stay: {line}")
            return
        old = {judge.rule: judge for judge in self._judges}
        self._judges = tuple(old.get(rule) or judges.judge(rule, now) for rule in rulebook.rules)
        self.rulebook = rulebook
        self._log.info("alerts", "rules taken", rules=len(rulebook.rules), source=rulebook.source)

    def _sweep(self, now: float) -> None:
        """Clears what is of nobody, or of no rule, any more; forgets what is old."""
        rules = {judge.rule.id: judge.rule for judge in self._judges}
        nodes = self._nodes or {}
        unknown = not any(node.root for node in nodes.values())  # the ledger cannot be read, most likely
        for key, number in list(self._open.items()):
            rule, device, _ = key
            gone = device not in nodes and not unknown
            if gone or rule not in rules or not rules[rule].concerns(device):
                self._clear(key, number, now)
        with transaction(self._db):
            self._db.execute("DELETE FROM alert WHERE cleared < ?", (now - KEEP,))
            self._db.execute("DELETE FROM notice WHERE state <> 'waiting' AND made < ?", (now - KEEP,))

    # --- what people do: by Recorder.ask ---

    def alerts(
        self, *, state: State | None = None, devices: Sequence[str] | None = None, before: int | None = None, limit: int
    ) -> list[Alert]:
        """The newest first. devices: only of these. before: only those with a smaller id."""
        where, values = ["id < ?"], [before if before is not None else 2**62]
        if state is not None:
            where.append(
                {
                    "raised": "cleared IS NULL AND ack_ts IS NULL",
                    "acknowledged": "cleared IS NULL AND ack_ts IS NOT NULL",
                    "cleared": "cleared IS NOT NULL",
                }[state]
            )
        more: list[Any] = []
        if devices is not None:
            where.append("device IN (SELECT value FROM json_each(?))")
            more.append(json.dumps(list(devices)))
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM alert WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?",
            (*values, *more, limit),
        )
        return [_alert(row) for row in rows]

    def alert(self, number: int) -> Alert | None:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM alert WHERE id = ?", (number,)).fetchall()
        return _alert(rows[0]) if rows else None

    def acknowledge(self, number: int, by: str, note: str, now: float) -> Alert | None:
        """A person knows of it; the first one counts. None when there is no such alert."""
        with transaction(self._db):
            self._db.execute(
                "UPDATE alert SET ack_by = ?, ack_ts = ?, ack_note = ? WHERE id = ? AND ack_ts IS NULL",
                (by, now, note[:MAX_NOTE], number),
            )
        found = self.alert(number)
        if found is not None:
            self._log.info("alerts", "acknowledged", id=number, by=by)
            self._told(found)
        return found

    def subscribe(self, user: str, sign_in: str, endpoint: str, p256dh: str, auth: str, now: float) -> str:
        """A browser that is to be told by Web Push; its id. The same endpoint again is the same browser."""
        number = secrets.token_urlsafe(12)
        with transaction(self._db):
            self._db.execute("DELETE FROM subscription WHERE endpoint = ?", (endpoint,))
            self._db.execute(
                "INSERT INTO subscription VALUES (?, ?, ?, ?, ?, ?, ?)",
                (number, user, endpoint, p256dh, auth, now, sign_in),
            )
            self._db.execute(
                "DELETE FROM subscription WHERE user = ?1 AND id NOT IN "
                "(SELECT id FROM subscription WHERE user = ?1 ORDER BY made DESC, rowid DESC LIMIT ?2)",
                (user, MAX_SUBSCRIPTIONS),
            )
        return number

    def unsubscribe(self, user: str, number: str) -> bool:
        """Whether there was such a browser of his."""
        with transaction(self._db):
            return bool(self._db.execute("DELETE FROM subscription WHERE id = ? AND user = ?", (number, user)).rowcount)

    def forget(self, sign_ins: Sequence[str]) -> None:
        """The browsers of these sign-ins are told no more."""
        with transaction(self._db):
            self._db.executemany("DELETE FROM subscription WHERE sign_in = ?", [(one,) for one in sign_ins])

    def push_key(self) -> str:
        """The public key that push services know the gateway by, as browsers want it. OSError when there is none."""
        return webpush.text_of(webpush.public(webpush.key(self._home)))

    def close(self) -> None:
        self._db.close()

    # --- within ---

    def _tell(self, number: int) -> None:
        found = self.alert(number)
        if found is not None:
            self._told(found)

    def _stamp_now(self) -> tuple[int, int] | None:
        try:
            found = (self._home / alert_rules.FILE_NAME).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


def _alert(row: Sequence[Any]) -> Alert:
    number, rule, device, severity, text, value, raised, by, at, note, cleared = row
    state: State = "cleared" if cleared is not None else "acknowledged" if at is not None else "raised"
    known = Acknowledgement(by, at, note) if at is not None else None
    return Alert(number, rule, device, severity, state, text, value, raised, known, cleared)


def about(rulebook: Rulebook) -> list[Mapping[str, Any]]:
    """The rules for people: what differs from the usual."""
    usual = alert_rules.Rule("", "")
    return [
        {key: value for key, value in asdict(rule).items() if value != getattr(usual, key) or key == "severity"}
        for rule in rulebook.rules
    ]
