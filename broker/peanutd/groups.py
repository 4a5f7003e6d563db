"""Groups of nodes, and where each group is to be: "all to 15 °C" is one act, and the gateway brings every member there.

The rule it keeps: a member is where it should be when it has said so itself. Who is away is brought there when he
returns, once; what a person does at a node afterwards is not fought, but shown. What is wanted, and who has got there,
is on the disk. The last act counts where a node is in several groups.

    at        it has said that it holds what is wanted
    pending   it is online, and has been asked or will be
    offline   it is away; it is asked when it comes
    refused   it has said no, and why; or it holds something else by now
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from peanutd import recipes
from peanutd.judges import Node
from peanutd.log import Log, clean
from peanutd.recipes import Recipe
from peanutd.recorder import Said
from peanutd.sqlfile import opened, transaction

FILE_NAME: Final = "groups.db"
ALL: Final = "all"
"""The group that nobody has made and everybody is in."""
NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
MAX_GROUPS: Final = 500
MAX_MEMBERS: Final = 10_000
"""Of one group."""
MAX_RECIPES: Final = 200
MAX_TITLE: Final = 80
AT_ONCE: Final = 25
"""Members that are asked in one turn of the recorder: a hundred a second."""
LIFETIME: Final = 60
"""Seconds that a command is good for, and its answer is waited for."""
PAUSE: Final = 30.0
"""Seconds until a node that has not answered is asked again; twice that the next time, and so on."""
LONGEST: Final = 1800.0
"""Seconds between two questions at the most."""
BUSY: Final = 10.0
"""Seconds until a node that was busy is asked again."""
SETTLE: Final = 5.0
"""Seconds after which what a node reports is held against what it has said yes to."""
CLOSE: Final = 0.05
"""°C that are the same."""
LOOK: Final = 60.0
"""Seconds between two looks at the ledger and at the seasons."""
TELL: Final = 1.0
"""Seconds between two words about the progress of a group."""
MAX_DOCUMENT: Final = 2048
"""Bytes of a node's configuration (README, agreement 2)."""

MemberState = Literal["at", "pending", "offline", "refused"]

_FIRST: Final = """
    CREATE TABLE IF NOT EXISTS team (name TEXT PRIMARY KEY, title TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS member (
        team TEXT NOT NULL REFERENCES team ON DELETE CASCADE, device TEXT NOT NULL, PRIMARY KEY (team, device)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS desired (
        team TEXT PRIMARY KEY, setpoint REAL, recipe TEXT, by TEXT NOT NULL, ts REAL NOT NULL, schedule TEXT);
    CREATE TABLE IF NOT EXISTS outcome (
        team TEXT NOT NULL REFERENCES desired ON DELETE CASCADE, device TEXT NOT NULL, good INTEGER NOT NULL,
        why TEXT, ts REAL NOT NULL, PRIMARY KEY (team, device)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS recipe (name TEXT PRIMARY KEY, said TEXT NOT NULL);
"""


# In the first, what was wanted had no `offset_h`.
_SECOND: Final = "ALTER TABLE desired ADD COLUMN offset_h REAL NOT NULL DEFAULT 0;"


class GroupError(ValueError):
    """Why it cannot be done, in words."""


class Mouth(Protocol):
    """How nodes are spoken to (mouth.py)."""

    def say(self, topic: str, payload: bytes, lifetime: float) -> None: ...

    def amend(self, topic: str, change: Callable[[bytes | None], bytes | None]) -> None: ...


@dataclass(frozen=True, slots=True)
class Desired:
    """What is wanted of a group; a set point or a recipe."""

    setpoint: float | None
    recipe: str | None
    by: str
    ts: float
    schedule: str | None = None
    """What the recipe comes to now."""
    offset_h: float = 0.0
    """Hours that its times of the day are ahead of UTC now; a node knows no summer time by itself."""

    def as_json(self) -> dict[str, Any]:
        what = {"setpoint": self.setpoint} if self.recipe is None else {"recipe": self.recipe}
        return {**what, "by": self.by, "ts": self.ts}


@dataclass(frozen=True, slots=True)
class Member:
    device: str
    state: MemberState
    why: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a group is; as the API's contract has it."""

    group: str
    desired: Desired
    devices: tuple[Member, ...]

    def as_json(self, names: frozenset[str] | None = None) -> dict[str, Any]:
        """names: only these members, for somebody who may see no others."""
        devices = [member for member in self.devices if names is None or member.device in names]
        counts = Counter(member.state for member in devices)
        return {
            "group": self.group,
            "desired": self.desired.as_json(),
            "members": len(devices),
            **{state: counts[state] for state in ("at", "pending", "offline", "refused")},
            "devices": [{"device": one.device, "state": one.state, "why": one.why} for one in devices],
        }


@dataclass(frozen=True, slots=True)
class Group:
    name: str
    title: str
    members: tuple[str, ...]
    desired: Desired | None


@dataclass(slots=True)
class _Attempt:
    """A member that has been asked."""

    group: str
    id: str
    sent: float
    gen: int | None = None
    """Of the configuration that was sent; None until it was, and for a set point."""


@dataclass(slots=True)
class _Known:
    """What a node has said of itself."""

    presence: str = "unknown"
    setpoint: float | None = None
    setpoint_at: float = 0.0
    """When that was heard."""
    gen: int = 0
    """Of the configuration that is in force."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    good: bool
    why: str | None
    ts: float


class Groups:
    """A part of the recorder: everything is in its thread, but `members` and `of`, which any thread may ask."""

    def __init__(
        self,
        home: Path,
        log: Log,
        nodes: Callable[[], Sequence[Node]],
        mouth: Mouth,
        now: float,
        *,
        told: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """nodes: the fleet, from the ledger. told: hears of progress, for the live stream.
        sqlite3.Error when the database cannot be used.
        """
        self._log = log
        self._nodes_of = nodes
        self._mouth = mouth
        self._told = told
        self._db = opened(home / FILE_NAME, (_FIRST, _SECOND), "NORMAL", "PRAGMA foreign_keys = ON")
        self._titles: dict[str, str] = dict(self._db.execute("SELECT name, title FROM team"))
        self._members: dict[str, frozenset[str]] = {name: frozenset() for name in self._titles}
        for name in self._members:
            rows = self._db.execute("SELECT device FROM member WHERE team = ?", (name,))
            self._members[name] = frozenset(device for (device,) in rows)
        self._recipes: dict[str, Recipe] = {
            name: recipes.parse(name, json.loads(said)) for name, said in self._db.execute("SELECT * FROM recipe")
        }
        self._desired: dict[str, Desired] = {
            name: Desired(*row) for name, *row in self._db.execute("SELECT * FROM desired")
        }
        self._outcomes: dict[tuple[str, str], _Outcome] = {
            (team, device): _Outcome(bool(good), why, ts)
            for team, device, good, why, ts in self._db.execute("SELECT * FROM outcome")
        }
        self._nodes: dict[str, Node] = {}
        self._all: frozenset[str] = frozenset()
        self._known: dict[str, _Known] = {}
        self._attempts: dict[str, _Attempt] = {}
        self._tries: Counter[str] = Counter()
        self._due: dict[str, float] = {}
        self._count = int(now * 1000)
        self._look_at = now
        self._changed: set[str] = set()
        self._tell_at = now
        self._busy = True
        """There may be somebody to ask."""

    # --- for any thread ---

    def members(self, group: str) -> frozenset[str]:
        """Names of the nodes in a group; none where there is no such group."""
        return self._all if group == ALL else self._members.get(group, frozenset())

    def of(self, device: str) -> frozenset[str]:
        """The groups of a node, without the one that everybody is in."""
        return frozenset(name for name, members in self._members.copy().items() if device in members)

    # --- what nodes say ---

    def hear(self, said: Said, now: float) -> None:
        report, body = said.report, said.body
        device = report.root.rpartition("/")[2]
        known = self._known.setdefault(device, _Known())
        match report.leaf:
            case "status" if isinstance(body.get("state"), str):
                before, known.presence = known.presence, body["state"]
                if known.presence != before:
                    self._due.pop(device, None)  # whoever comes is asked at once
                    self._tries.pop(device, None)
                    self._touch(device)
            case "state" if isinstance(body.get("setpoint"), int | float):
                if known.setpoint != body["setpoint"]:
                    self._touch(device)
                known.setpoint, known.setpoint_at = body["setpoint"], now
            case "ack" if not report.retained:
                self._acknowledged(device, body, now)
            case "config/reported":
                self._configured(device, body, now, report.retained)

    def tick(self, now: float) -> None:
        if now >= self._look_at:
            self._look_at = now + LOOK
            self._refresh()
            self._turn_of_seasons(now)
        for device, attempt in list(self._attempts.items()):
            if now - attempt.sent > LIFETIME:
                self._again(device, now, min(LONGEST, PAUSE * 2.0 ** (self._tries[device] - 1)))
        if self._busy:
            self._ask(now)
        if self._changed and now >= self._tell_at:
            self._tell_at = now + TELL
            changed, self._changed = self._changed, set()
            for group in changed:
                if (progress := self.progress(group, now)) is not None:
                    self._told(progress)

    def shift(self, by: float) -> None:
        self._look_at += by
        self._tell_at += by
        for attempt in self._attempts.values():
            attempt.sent += by
        for known in self._known.values():
            known.setpoint_at += by
        self._due = {device: due + by for device, due in self._due.items()}
        self._outcomes = {key: replace(outcome, ts=outcome.ts + by) for key, outcome in self._outcomes.items()}
        with transaction(self._db):
            self._db.execute("UPDATE outcome SET ts = ts + ?", (by,))

    def _refresh(self) -> None:
        found = {node.name: node for node in self._nodes_of() if node.root}
        if found.keys() != self._nodes.keys():
            self._busy = True
            self._all = frozenset(found)
        self._nodes = found

    def _turn_of_seasons(self, now: float) -> None:
        """A recipe's curve is another one today, or summer time has begun or ended."""
        for group, desired in list(self._desired.items()):
            recipe = self._recipes.get(desired.recipe or "")
            if recipe is None:
                continue
            schedule, offset = _today(recipe, now)
            if (schedule, offset) != (desired.schedule, desired.offset_h):
                self._log.info(
                    *("groups", "another season"), group=group, recipe=recipe.name, schedule=schedule, offset_h=offset
                )
                self._want(group, replace(desired, schedule=schedule, offset_h=offset))

    def _ask(self, now: float) -> None:
        """Asks some of those who are to be asked."""
        count = 0
        self._busy = False
        for group, desired in list(self._desired.items()):
            for device in self.members(group):
                node = self._nodes.get(device)
                if node is None or (group, device) in self._outcomes or self._effective(device) != group:
                    continue
                if node.root.startswith("vin/"):
                    self._outcome(group, device, False, "a vehicle has no set point", now)
                elif self._known.get(device, _Known()).presence == "online" and device not in self._attempts:
                    self._busy = True
                    if self._due.get(device, 0) <= now and count < AT_ONCE:
                        count += 1
                        self._send(node, group, desired, now)
                else:
                    self._busy |= device in self._attempts

    def _send(self, node: Node, group: str, desired: Desired, now: float) -> None:
        self._count += 1
        attempt = _Attempt(group, f"g-{self._count:x}", now)
        self._attempts[node.name] = attempt
        self._tries[node.name] += 1
        if desired.setpoint is not None:
            said = {"temperature": desired.setpoint, "id": attempt.id, "exp": int(now) + LIFETIME}
            payload = json.dumps(said, separators=(",", ":")).encode()
            self._mouth.say(f"{node.root}/UpdateTemperature", payload, LIFETIME)
        else:
            gen = self._known[node.name].gen
            self._mouth.amend(f"{node.root}/config/desired", lambda old: _amended(attempt, desired, old, gen))
        self._changed.add(group)

    def _acknowledged(self, device: str, body: Mapping[str, Any], now: float) -> None:
        attempt = self._attempts.get(device)
        if attempt is None or body.get("id") != attempt.id:
            return
        if body.get("stage") == "done":
            del self._attempts[device]
            self._outcome(attempt.group, device, True, None, now)
        elif body.get("stage") == "rejected":
            why = clean(str(body.get("why") or "without a reason"), 200)
            if why.startswith(("busy", "expired")):
                self._again(device, now, BUSY)
            else:
                del self._attempts[device]
                self._outcome(attempt.group, device, False, why, now)

    def _configured(self, device: str, body: Mapping[str, Any], now: float, retained: bool) -> None:
        """What a node has made of the last configuration."""
        if isinstance(body.get("gen"), int):
            self._known[device].gen = body["gen"]
        attempt = self._attempts.get(device)
        if attempt is None or attempt.gen is None or retained:
            return
        errors, gen, ts = body.get("errors"), body.get("gen"), body.get("ts")
        if isinstance(ts, int | float) and 0 < ts < attempt.sent - SETTLE:
            return  # of an older document
        if errors:
            del self._attempts[device]
            why = clean("; ".join(map(str, errors)) if isinstance(errors, list) else str(errors), 200)
            if why.startswith("busy"):
                self._again(device, now, BUSY)
            else:
                self._outcome(attempt.group, device, False, why, now)
        elif isinstance(gen, int) and gen >= attempt.gen:
            del self._attempts[device]
            self._outcome(attempt.group, device, True, None, now)

    def _again(self, device: str, now: float, pause: float) -> None:
        """It is asked once more, later."""
        self._attempts.pop(device, None)
        self._due[device] = now + pause
        self._busy = True

    def _outcome(self, group: str, device: str, good: bool, why: str | None, now: float) -> None:
        self._outcomes[group, device] = _Outcome(good, why, now)
        self._tries.pop(device, None)
        self._due.pop(device, None)
        self._changed.add(group)
        with transaction(self._db):
            row = (group, device, good, why, now)
            self._db.execute("INSERT OR REPLACE INTO outcome VALUES (?, ?, ?, ?, ?)", row)

    def _effective(self, device: str) -> str | None:
        """The group whose act counts for a node: the last one."""
        found = [(desired.ts, name) for name, desired in self._desired.items() if device in self.members(name)]
        return max(found)[1] if found else None

    def _touch(self, device: str) -> None:
        groups = [group for group in self._desired if device in self.members(group)]
        self._changed.update(groups)
        self._busy |= bool(groups)

    # --- what people do: by Recorder.ask ---

    def groups(self) -> list[Group]:
        """All that somebody has made, by name, and before them the one that everybody is in."""
        return [group for name in (ALL, *sorted(self._titles)) if (group := self.group(name)) is not None]

    def group(self, name: str) -> Group | None:
        if name == ALL:
            return Group(ALL, "", tuple(sorted(self._nodes)), self._desired.get(ALL))
        if name not in self._titles:
            return None
        return Group(name, self._titles[name], tuple(sorted(self._members[name])), self._desired.get(name))

    def put(self, name: str, title: str, members: Sequence[str]) -> bool:
        """Makes or changes a group; whether it is new. GroupError says why not."""
        if not NAME.fullmatch(name) or name == ALL:
            raise GroupError('a name is 1 to 32 small letters, digits and -, and not "all"')
        if len(title) > MAX_TITLE or not title.isprintable():
            raise GroupError(f"a title is a printable text of {MAX_TITLE} characters at the most")
        if len(members) > MAX_MEMBERS:
            raise GroupError(f"a group has {MAX_MEMBERS} members at the most")
        self._refresh()
        if unknown := sorted(set(members) - self._nodes.keys()):
            raise GroupError(f"there is no device {unknown[0]}")
        new = name not in self._titles
        if new and len(self._titles) >= MAX_GROUPS:
            raise GroupError(f"there are {MAX_GROUPS} groups at the most")
        with transaction(self._db):
            self._db.execute(
                "INSERT INTO team VALUES (?, ?) ON CONFLICT DO UPDATE SET title = excluded.title", (name, title)
            )
            self._db.execute("DELETE FROM member WHERE team = ?", (name,))
            self._db.executemany("INSERT INTO member VALUES (?, ?)", [(name, device) for device in set(members)])
        self._titles[name], self._members[name] = title, frozenset(members)
        self._busy = True
        self._changed.add(name)
        return new

    def remove(self, name: str) -> bool:
        """Whether there was such a group. What was wanted of it is not wanted any more."""
        if name not in self._titles:
            return False
        self.unwant(name)
        with transaction(self._db):
            self._db.execute("DELETE FROM team WHERE name = ?", (name,))
        del self._titles[name]
        del self._members[name]
        return True

    def want(
        self, name: str, by: str, now: float, *, setpoint: float | None = None, recipe: str | None = None
    ) -> Progress:
        """One act: the group is to be there. GroupError says why not."""
        if name != ALL and name not in self._titles:
            raise GroupError(f"there is no group {name}")
        if (setpoint is None) == (recipe is None):
            raise GroupError("either a set point or a recipe")
        if setpoint is not None and not recipes.COLDEST <= setpoint <= recipes.HOTTEST:
            raise GroupError(f"a set point is {recipes.COLDEST:g} to {recipes.HOTTEST:g}")
        schedule, offset = None, 0.0
        if recipe is not None:
            if recipe not in self._recipes:
                raise GroupError(f"there is no recipe {recipe}")
            schedule, offset = _today(self._recipes[recipe], now)
        self._refresh()
        # The last act counts, also if the clock was ahead at the one before.
        last = max((desired.ts for desired in self._desired.values()), default=0.0)
        self._want(name, Desired(setpoint, recipe, by, max(now, last + 0.001), schedule, offset))
        self._log.info("groups", "wanted", group=name, by=by, setpoint=setpoint, recipe=recipe)
        found = self.progress(name, now)
        assert found is not None
        return found

    def _want(self, name: str, desired: Desired) -> None:
        with transaction(self._db):
            self._db.execute("DELETE FROM desired WHERE team = ?", (name,))
            self._db.execute(
                "INSERT INTO desired VALUES (?, ?, ?, ?, ?, ?, ?)",
                (name, *(getattr(desired, one) for one in Desired.__slots__)),
            )
        self._forget(name)
        self._desired[name] = desired
        for device in self.members(name):  # what was asked before counts no more
            self._attempts.pop(device, None)
            self._due.pop(device, None)
            self._tries.pop(device, None)
        self._busy = True
        self._changed.add(name)

    def unwant(self, name: str) -> bool:
        """Nobody is brought anywhere any more; whether somebody was."""
        if name not in self._desired:
            return False
        with transaction(self._db):
            self._db.execute("DELETE FROM desired WHERE team = ?", (name,))
        self._forget(name)
        del self._desired[name]
        return True

    def _forget(self, name: str) -> None:
        self._outcomes = {key: outcome for key, outcome in self._outcomes.items() if key[0] != name}
        self._attempts = {device: one for device, one in self._attempts.items() if one.group != name}

    def progress(self, name: str, now: float) -> Progress | None:
        """Where a group is; None when nothing is wanted of it."""
        desired = self._desired.get(name)
        if desired is None:
            return None
        devices = sorted(self.members(name))
        return Progress(name, desired, tuple(self._member(name, desired, device, now) for device in devices))

    def _member(self, group: str, desired: Desired, device: str, now: float) -> Member:
        known = self._known.get(device, _Known())
        outcome = self._outcomes.get((group, device))
        effective = self._effective(device)
        if effective != group:
            return Member(device, "refused", f"group {effective} wants something else of it, and said so later")
        if outcome is None:
            if known.presence == "online":
                return Member(device, "pending", "asked" if device in self._attempts else None)
            return Member(device, "offline")
        if not outcome.good:
            return Member(device, "refused", outcome.why)
        if (
            desired.setpoint is not None
            and known.setpoint is not None
            and known.setpoint_at > outcome.ts + SETTLE
            and abs(known.setpoint - desired.setpoint) > CLOSE
        ):
            return Member(device, "refused", f"changed since: its set point is {known.setpoint:g}")
        return Member(device, "at")

    def recipes(self) -> list[Recipe]:
        """By name."""
        return [self._recipes[name] for name in sorted(self._recipes)]

    def recipe(self, name: str) -> Recipe | None:
        return self._recipes.get(name)

    def put_recipe(self, name: str, said: Mapping[str, Any]) -> bool:
        """Makes or changes a recipe; whether it is new. Groups that hold it get what it comes to now. RecipeError."""
        if not NAME.fullmatch(name):
            raise recipes.RecipeError("a name is 1 to 32 small letters, digits and -")
        found = recipes.parse(name, said)
        new = name not in self._recipes
        if new and len(self._recipes) >= MAX_RECIPES:
            raise recipes.RecipeError(f"there are {MAX_RECIPES} recipes at the most")
        with transaction(self._db):
            self._db.execute("INSERT OR REPLACE INTO recipe VALUES (?, ?)", (name, json.dumps(found.as_json())))
        self._recipes[name] = found
        self._look_at = 0.0
        return new

    def remove_recipe(self, name: str) -> bool:
        """Whether there was such a recipe. GroupError when a group holds it."""
        users = [group for group, desired in self._desired.items() if desired.recipe == name]
        if users:
            raise GroupError(f"group {users[0]} holds it")
        with transaction(self._db):
            return bool(
                self._recipes.pop(name, None)
                and self._db.execute("DELETE FROM recipe WHERE name = ?", (name,)).rowcount
            )

    def close(self) -> None:
        self._db.close()


def _amended(attempt: _Attempt, desired: Desired, old: bytes | None, gen: int) -> bytes | None:
    """The configuration of a node with a recipe's schedule; in the loop. What is there beside it stays. gen: of what is
    in force; a node takes only what has a greater one.
    """
    try:
        document = json.loads(old or b"{}")
    except ValueError:
        document = {}
    if not isinstance(document, dict):
        document = {}
    before = document.get("gen")
    control = document.get("control")
    kept = control if isinstance(control, dict) else {}
    document["control"] = {**kept, "schedule": desired.schedule or "", "utc_offset_h": desired.offset_h}
    document["gen"] = max(before if isinstance(before, int) else 0, gen) + 1
    made = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    if len(made) > MAX_DOCUMENT:
        return None  # it is not answered, and tried again: somebody has to make room in it
    attempt.gen = document["gen"]
    return made


def _today(recipe: Recipe, now: float) -> tuple[str, float]:
    """What a recipe comes to today, and the hours ahead of UTC; by the gateway's own calendar and time zone."""
    here = datetime.fromtimestamp(now).astimezone()
    ahead = here.utcoffset() or timedelta()
    return recipe.on(here.date()).schedule, ahead / timedelta(hours=1)
