"""Who may do what: rules.toml in the fleet home, the rules that are built in, and both as the core wants them.

The rule it keeps: the first rule that fits decides, and when none does the answer is no. A file that is wrong is
refused whole, with file, line and what to write instead; it is never half in force. The core applies the rules, so that
a publication costs no Python; this file only says what they are, and which of them has decided.

    otherwise = "deny"            # or "built-in": behind the rules of this file come those that are built in
    [groups]
    growers = ["user/maria", "operator/anna"]
    [[rule]]
    kind = "user"                 # who: kind, role, name (with a kind) and group; what is left out is anybody
    role = "viewer"
    allow = "subscribe"           # or deny; publish, subscribe or both
    topic = "/plant/+/state"      # or a list; `{id}` is the client's proved name, `{user}` the same for people only
    qos_max = 1                   # conditions: qos_max (of what is allowed), retain (of publications), share ($share)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from peanutd import _core, toml_file
from peanutd._core import MAY_PUBLISH, MAY_SHARE, MAY_SUBSCRIBE, RETAIN_ANY, RETAIN_NEVER, RETAIN_ONLY
from peanutd.access import NAME, TOKEN_NAME, VIN, Role, Slot
from peanutd.toml_file import ConfigError, kind_of

FILE_NAME: Final = "rules.toml"
MAX_FILE_SIZE: Final = 256 * 1024
"""Bytes of a rules.toml."""
MAX_FILTERS: Final = 1000
"""Topic filters of all rules of a file. A SUBSCRIBE is held against one after the other."""
MAX_MEMBERS: Final = 10_000
"""Members of all groups of a file."""

CoreRule = tuple[bool, int, int, str, int, tuple[str, ...] | None]
Member = tuple[str, str]
"""A kind of client and a name."""

KINDS: Final[Mapping[str, str]] = MappingProxyType(
    {slot.kind: slot.kind for slot in Slot} | {"greenhouse": "plant", "vehicle": "vin"}
)
"""Words for a kind of client, and the one that identities begin with."""
_SHAPES: Final = {"plant": NAME, "vin": VIN, "operator": NAME, "user": NAME, "token": TOKEN_NAME, "psk": TOKEN_NAME}
_READ: Final = MAY_SUBSCRIBE | MAY_SHARE
_ACTIONS: Final = {"publish": MAY_PUBLISH, "subscribe": _READ, "both": MAY_PUBLISH | _READ}
_USER: Final = "{user}"
_ID: Final = "{id}"


def parse_member(text: str) -> Member:
    """`user/maria`, `plant/peanut`, `vin/<VIN>`, `operator/anna`, `token/<name>`, `psk/<identity>`, `anonymous`; else
    ValueError.
    """
    word, _, name = text.partition("/")
    kind = KINDS.get(word, "")
    if text == "anonymous":
        return kind, text
    if kind not in _SHAPES:
        raise ValueError(f'"{text}" names nobody; write e.g. "user/maria", "operator/anna" or "plant/peanut"')
    if not _SHAPES[kind].fullmatch(name):
        raise ValueError(f'"{text}": "{name}" is no name of that kind')
    return kind, name


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it was written."""

    place: str
    """Where it stands, for people: `rules.toml:12`."""
    allow: bool
    actions: int
    topics: tuple[str, ...]
    slots: frozenset[Slot] = frozenset(Slot)
    """Whom it is for: kinds and roles."""
    members: frozenset[Member] | None = None
    """Of those, only these; None: all."""
    retain: int = RETAIN_ANY
    qos_max: int = 2

    def compiled(self, slot: Slot) -> Iterable[CoreRule]:
        """What it says about clients of a slot, in the words of the core."""
        if slot not in self.slots:
            return
        names = None
        if self.members is not None:
            names = tuple(sorted(name for kind, name in self.members if kind == slot.kind))
            if not names:
                return
        for topic in self.topics:
            levels = topic.split("/")
            if _USER in levels and not slot.person:
                continue  # a node that is called like a user is not that user
            text = "/".join(_ID if level == _USER else level for level in levels)
            yield self.allow, self.actions, self.retain, text, self.qos_max, names


_RENEWAL: Final = "renewal of certificates (always in force)"
_NODES: Final = {
    "plant": frozenset((Slot.PLANT, Slot.PLANT_EXPIRED)),
    "vin": frozenset((Slot.VIN, Slot.VIN_EXPIRED)),
}
RENEWAL: Final[tuple[Rule, ...]] = (
    Rule(_RENEWAL, True, MAY_SUBSCRIBE, ("$cert/plant/{id}",), _NODES["plant"]),
    Rule(_RENEWAL, True, MAY_SUBSCRIBE, ("$cert/vin/{id}",), _NODES["vin"]),
    Rule(_RENEWAL, True, MAY_PUBLISH, ("/plant/{id}/cert/reported",), _NODES["plant"]),
    Rule(_RENEWAL, True, MAY_PUBLISH, ("vin/{id}/cert/reported",), _NODES["vin"]),
    Rule(_RENEWAL, True, MAY_PUBLISH, ("/plant/{id}/status",), frozenset((Slot.PLANT_EXPIRED,))),  # it has a will
    Rule(_RENEWAL, True, MAY_PUBLISH, ("vin/{id}/status",), frozenset((Slot.VIN_EXPIRED,))),
    Rule(_RENEWAL, False, MAY_PUBLISH | _READ, ("$cert/#",)),
)
"""Before all others, and whatever a file says: a node alone reads what comes with its new key, and the gateway alone
writes it. `$`, because no `#` and no `+` of anybody reaches such a topic. A node whose certificate has expired may do
this and nothing else."""


@dataclass(frozen=True, slots=True)
class Book:
    """All rules in their order."""

    rules: tuple[Rule, ...]
    source: str
    """Where they are from, in words."""
    sets: Mapping[Slot, tuple[tuple[CoreRule, Rule], ...]] = field(init=False, repr=False, compare=False)
    """What the core gets for each slot, and where each item is from."""

    def __post_init__(self) -> None:
        sets = {
            slot: tuple(
                (item, rule)
                for rule in (RENEWAL if slot.expired else (*RENEWAL, *self.rules))
                for item in rule.compiled(slot)
            )
            for slot in Slot
        }
        object.__setattr__(self, "sets", MappingProxyType(sets))

    def install(self, broker: _core.Broker) -> None:
        """Tells the core. Sessions that there are already are judged anew."""
        for slot, items in self.sets.items():
            broker.set_rules(slot.value, [item for item, _ in items])

    def explain(
        self,
        broker: _core.Broker,
        slot: Slot,
        name: str,
        action: int,
        topic: str,
        *,
        retain: bool = False,
        qos: int = 0,
    ) -> tuple[bool, Rule | None, int]:
        """Whether it is allowed, the rule that decides (None: none did), and the QoS that a subscription is granted.

        `broker` is one that these rules are installed in. A filter may be as in the packet, with `$share/group/`.
        """
        if action != MAY_PUBLISH and topic.startswith("$share/"):
            action, topic = MAY_SHARE, topic.split("/", 2)[-1]
        allowed, number, granted = broker.explain(slot.value, name, action, topic, retain, qos)
        return allowed, self.sets[slot][number][1] if number >= 0 else None, granted

    def why(self, broker: _core.Broker, slot: Slot, name: str, text: str) -> str:
        """Why the core has denied something, in words; `text` is as in EVENT_DENIED."""
        what, _, topic = text.partition(" ")
        retain = what == "publish" and topic.startswith("retained ")
        action = MAY_SUBSCRIBE if what == "subscribe" else MAY_PUBLISH
        topic = topic.removeprefix("retained ") if retain else topic
        allowed, rule, _ = self.explain(broker, slot, name, action, topic, retain=retain)
        if allowed and rule is not None:  # at QoS 0
            return f"its QoS is too high for {rule.place}"
        if rule is not None:
            return f"refused by {rule.place}"
        if retain and self.explain(broker, slot, name, action, topic)[0]:
            return "must not be retained"
        return "no rule allows it"


def denials(subscribe: Sequence[str], publish: Sequence[str]) -> tuple[Rule, ...]:
    """What is refused to everybody, whatever the other rules say: deny_subscribe and deny_publish of gateway.toml."""
    return tuple(
        Rule(f"deny_{word} in [mqtt]", False, actions, tuple(topics))
        for word, actions, topics in (("subscribe", _READ, subscribe), ("publish", MAY_PUBLISH, publish))
        if topics
    )


def load(home: Path, denied: Sequence[Rule] = ()) -> Book:
    """The rules of a fleet home, behind `denied`: its rules.toml, or what is built in when it has none.

    ConfigError when the file is wrong.
    """
    path = home / FILE_NAME
    text = toml_file.read(path, MAX_FILE_SIZE)
    book = built_in() if text is None else parse(text, str(path), FILE_NAME)
    return Book((*denied, *book.rules), book.source)


def built_in() -> Book:
    """The rules that are built in."""
    return parse(built_in_text(), "the built-in rules", "built-in rules")


def built_in_text() -> str:
    """They are a rule file, too."""
    return (Path(__file__).parent / "built-in.toml").read_text()


def parse(text: str, path: str, name: str) -> Book:
    """The rules in `text`. `path` is for messages about the file, `name` for those about its rules."""
    document, lines = toml_file.parse(text, path)
    return _Reader(path, name, document, lines).book()


# --- reading the file -------------------------------------------------------------------------------------------------

_Key = tuple[str, ...]
_KEYS: Final = ("kind", "role", "name", "group", "allow", "deny", "topic", "qos_max", "retain", "share")
_OTHERWISE: Final = ("deny", "built-in")


class _Reader:
    """Takes the document apart and collects what is wrong with it."""

    def __init__(self, path: str, name: str, document: Mapping[str, Any], lines: Mapping[_Key, int]) -> None:
        self._path = path
        self._name = name
        self._document = document
        self._lines = lines
        self._mistakes: list[tuple[int, str]] = []
        self._scratch = _core.Broker(seed=bytes(8))  # which knows what a filter is

    def book(self) -> Book:
        self._check_keys((), self._document, ("otherwise", "groups", "rule"))
        otherwise = self._word(("otherwise",), self._document.get("otherwise", "deny"), _OTHERWISE)
        groups = self._groups()
        tables = self._document.get("rule", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._mistake(("rule",), "must be tables: write [[rule]] on a line of its own, with two brackets")
            tables = []
        rules = [self._rule(("rule", str(number)), table, groups) for number, table in enumerate(tables, 1)]
        if sum(len(rule.topics) for rule in rules) > MAX_FILTERS:
            self._mistakes.append((0, f"{self._path}: more than {MAX_FILTERS} topic filters in all"))
        if self._mistakes:
            raise ConfigError("\n".join(text for _, text in sorted(self._mistakes)))
        if otherwise == "built-in":
            return Book((*rules, *built_in().rules), f"{self._path}, then the built-in rules")
        return Book(tuple(rules), self._path)

    def _groups(self) -> dict[str, frozenset[Member]]:
        table = self._document.get("groups", {})
        if not isinstance(table, dict):
            self._mistake(("groups",), "must be a table: write [groups] on a line of its own")
            return {}
        groups = {name: self._members(("groups", name), members) for name, members in table.items()}
        if sum(map(len, groups.values())) > MAX_MEMBERS:
            self._mistake(("groups",), f"more than {MAX_MEMBERS} members in all")
        return groups

    def _members(self, key: _Key, value: object) -> frozenset[Member]:
        found: set[Member] = set()
        for text in self._texts(key, value):
            try:
                found.add(parse_member(text))
            except ValueError as error:
                self._mistake(key, str(error))
        return frozenset(found)

    def _rule(self, at: _Key, table: Mapping[str, Any], groups: Mapping[str, frozenset[Member]]) -> Rule:
        self._check_keys(at, table, _KEYS)
        verdicts = [word for word in ("allow", "deny") if word in table]
        if len(verdicts) != 1:
            self._mistake(at, 'needs one of allow and deny: write e.g. allow = "subscribe"')
            verdicts = ["deny"]
        allow = verdicts == ["allow"]
        actions = _ACTIONS[self._word((*at, *verdicts), table.get(verdicts[0], "both"), tuple(_ACTIONS))]
        slots = self._slots(at, table)
        return Rule(
            place=f"{self._name}:{self._line(at)}",
            allow=allow,
            actions=self._share(at, table, actions),
            topics=self._topics(at, table),
            slots=slots,
            members=self._who(at, table, groups),
            retain=self._retain(at, table, actions),
            qos_max=self._qos_max(at, table, allow),
        )

    def _slots(self, at: _Key, table: Mapping[str, Any]) -> frozenset[Slot]:
        kinds = {KINDS[word] for word in self._words(at, "kind", table, tuple(KINDS))}
        roles = {Role(word) for word in self._words(at, "role", table, tuple(role.value for role in Role))}
        slots = frozenset(
            slot
            for slot in Slot
            if ("kind" not in table or slot.kind in kinds) and ("role" not in table or slot.role in roles)
        )
        if kinds and roles and not slots:
            self._mistake((*at, "role"), "nobody of that kind has that role")
        return slots

    def _who(
        self, at: _Key, table: Mapping[str, Any], groups: Mapping[str, frozenset[Member]]
    ) -> frozenset[Member] | None:
        members: frozenset[Member] | None = None
        if "name" in table:
            kind = table.get("kind")
            if not isinstance(kind, str) or kind not in KINDS or KINDS[kind] == "anonymous":
                self._mistake(
                    (*at, "name"),
                    'needs one kind beside it, e.g. kind = "user": a node and a user may have the same name',
                )
            else:
                names = self._texts((*at, "name"), table["name"])
                members = self._members((*at, "name"), [f"{KINDS[kind]}/{name}" for name in names])
        if "group" in table:
            wanted = self._words(at, "group", table, tuple(groups))
            some = frozenset().union(*(groups[name] for name in wanted))
            members = some if members is None else members & some
        return members

    def _topics(self, at: _Key, table: Mapping[str, Any]) -> tuple[str, ...]:
        key = (*at, "topic")
        topics = self._texts(key, table.get("topic", []))
        if table.get("topic", []) == []:
            self._mistake(key, 'is missing: write e.g. topic = "/plant/+/state"')
        for topic in topics:
            if topic.startswith("$share/"):
                self._mistake(
                    key, f'"{topic}": write the filter behind the group; share = true is for shared subscriptions'
                )
            for level in topic.split("/"):
                if level.startswith("{") and level.endswith("}") and level not in (_ID, _USER):
                    self._mistake(key, f'"{topic}": {level} is no placeholder; there are {_ID} and {_USER}')
            try:
                self._scratch.set_rules(0, [(False, 0, 0, topic.replace(_USER, _ID))])
            except ValueError:
                self._mistake(
                    key, f'"{topic}" is not a topic filter; wildcards and placeholders fill a level: "/plant/{{id}}/#"'
                )
        return tuple(topics)

    def _retain(self, at: _Key, table: Mapping[str, Any], actions: int) -> int:
        key = (*at, "retain")
        if "retain" not in table:
            return RETAIN_ANY
        if not actions & MAY_PUBLISH:
            self._mistake(key, "has no meaning for subscriptions; leave it out")
        return RETAIN_ONLY if self._boolean(key, table["retain"]) else RETAIN_NEVER

    def _share(self, at: _Key, table: Mapping[str, Any], actions: int) -> int:
        key = (*at, "share")
        if "share" not in table:
            return actions
        if not actions & _READ:
            self._mistake(key, "has no meaning for publications; leave it out")
        return actions & ~(MAY_SUBSCRIBE if self._boolean(key, table["share"]) else MAY_SHARE)

    def _qos_max(self, at: _Key, table: Mapping[str, Any], allow: bool) -> int:
        key, value = (*at, "qos_max"), table.get("qos_max", 2)
        if "qos_max" in table and not allow:
            self._mistake(key, "has no meaning where nothing is allowed; leave it out")
        if type(value) is not int or not 0 <= value <= 2:
            self._mistake(key, f"must be 0, 1 or 2; it is {kind_of(value)}")
            return 2
        return value

    # --- single values ---

    def _check_keys(self, where: _Key, found: Iterable[str], known: Sequence[str]) -> None:
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                self._mistake(
                    (*where, key),
                    f'unknown; did you mean "{near[0]}"?' if near else f"unknown; known here: {', '.join(known)}",
                )

    def _texts(self, key: _Key, value: object) -> tuple[str, ...]:
        """A string, or a list of strings."""
        found = [value] if isinstance(value, str) else value
        if isinstance(found, list) and all(isinstance(entry, str) for entry in found):
            return tuple(found)
        self._mistake(key, f"must be a string, or a list of strings; it is {kind_of(value)}")
        return ()

    def _words(self, at: _Key, name: str, table: Mapping[str, Any], known: Sequence[str]) -> tuple[str, ...]:
        """The same of known words; none when the key is not there."""
        key = (*at, name)
        if name not in table:
            return ()
        found = self._texts(key, table[name])
        if not found:
            self._mistake(key, "is empty: it would be for nobody")
        return tuple(word for word in found if self._word(key, word, known) == word)

    def _word(self, key: _Key, value: object, known: Sequence[str]) -> str:
        if isinstance(value, str) and value in known:
            return value
        shown = f'"{value}"' if isinstance(value, str) else kind_of(value)
        self._mistake(key, f"must be one of {', '.join(known) or 'the groups in [groups]'}; it is {shown}")
        return known[0] if known else ""

    def _boolean(self, key: _Key, value: object) -> bool:
        if not isinstance(value, bool):
            self._mistake(key, f"must be true or false, without quotes; it is {kind_of(value)}")
        return value is True

    def _line(self, key: _Key) -> int:
        """The line of the key, or of the nearest table around it that the file has."""
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, 1)

    def _mistake(self, key: _Key, text: str) -> None:
        name = " ".join(("[[rule]]", *key[1:]) if key[:1] == ("rule",) else key)
        line = self._line(key)
        self._mistakes.append((line, f"{self._path}:{line}: {name}: {text}"))
