"""alerts.toml: what is worth telling a person, and how he is told. Data only; `judges.py` holds the fleet to it.

The rule it keeps: every mistake is named with file, line and key, all of them at once, and a bad file is never half in
force. Without a file there are rules that every fleet wants. Secrets are in files of their own, never in this one.

    [[rule]]
    id = "too-cold"
    what = "threshold"            # threshold, rate, silence, heater, certificate, event
    reading = "temperature"
    below = 5                     # or above
    hysteresis = 1                # over when it is that much better
    for_s = 300                   # raised when it has been so for that long
    devices = ["peanut", "north-*"]
    severity = "critical"
    tell = ["mail"]

    [[tell]]
    name = "mail"
    mail_to = ["grower@example.org"]
    …
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from peanutd import toml_file
from peanutd.readings import NAME as READING
from peanutd.toml_file import ConfigError, kind_of

FILE_NAME: Final = "alerts.toml"
MAX_FILE_SIZE: Final = 256 * 1024
"""Bytes of an alerts.toml."""
MAX_RULES: Final = 200
MAX_SECONDS: Final = 7 * 86_400
"""Seconds of the longest delay or window."""
ID: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
SEVERITIES: Final = ("warning", "critical")
SECURITIES: Final = ("tls", "starttls", "none")
SERVICES: Final = (
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "web.push.apple.com",
    "*.notify.windows.com",
    "*.push.apple.com",
)
"""Where browsers have their push services: a browser's word for it alone would let the gateway call anybody."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; which numbers it has depends on `what`."""

    id: str
    what: str
    severity: str = "warning"
    devices: tuple[str, ...] = ("*",)
    """Names of nodes, with * and ?."""
    tell: tuple[str, ...] | None = None
    """Names of ways; None: all that there are."""
    reading: str = "temperature"
    below: float | None = None
    above: float | None = None
    hysteresis: float = 0.5
    for_s: float = 0
    """threshold: how long it must be so. silence: how long nothing is heard."""
    fall: float | None = None
    rise: float | None = None
    """rate: by how much within `within_s`. heater: by how much it must get warmer."""
    within_s: float = 900
    days: float = 21
    """certificate: days that are left."""
    event: str = "*"
    """event: its id, with * and ?."""

    def concerns(self, device: str) -> bool:
        """Whether it is for the node of that name."""
        return any(fnmatchcase(device, pattern) for pattern in self.devices)


@dataclass(frozen=True, slots=True)
class Way:
    """A way to tell people: by web hook, by mail or by Web Push."""

    name: str
    severities: tuple[str, ...] = SEVERITIES
    webhook: str = ""
    token_file: str = ""
    """A file with the Bearer token of the web hook; in the fleet home unless its path is whole."""
    mail_to: tuple[str, ...] = ()
    mail_from: str = ""
    smtp: str = ""
    """`mail.example.org:465`."""
    security: str = "tls"
    user: str = ""
    password_file: str = ""
    push: bool = False

    @property
    def kind(self) -> str:
        return "webhook" if self.webhook else "mail" if self.mail_to else "push"


@dataclass(frozen=True, slots=True)
class Rulebook:
    """Everything that alerts.toml says."""

    rules: tuple[Rule, ...]
    ways: tuple[Way, ...]
    services: tuple[str, ...] = SERVICES
    """Hosts of push services, with *."""
    contact: str = "mailto:peanut@localhost"
    """Whom a push service may write to about this gateway (RFC 8292)."""
    source: str = "built in"

    def ways_for(self, rule: str, severity: str) -> tuple[Way, ...]:
        """How people are told about an alert."""
        named = next((found.tell for found in self.rules if found.id == rule), None)
        return tuple(way for way in self.ways if severity in way.severities and (named is None or way.name in named))


BUILT_IN: Final = Rulebook(
    rules=(
        Rule("silent", "silence", "critical", for_s=600),
        Rule("certificate", "certificate", days=21),
        Rule("node", "event", "critical"),
    ),
    ways=(Way("push", push=True),),
)
"""What counts without an alerts.toml: a node that is silent, a certificate that ends, and what nodes say themselves."""


def load(home: Path) -> Rulebook:
    """The rules in `home`; those that are built in when there is no alerts.toml. ConfigError names every mistake."""
    path = home / FILE_NAME
    text = toml_file.read(path, MAX_FILE_SIZE)
    return BUILT_IN if text is None else parse(text, str(path))


def parse(text: str, path: str) -> Rulebook:
    """The rules in `text`; `path` is for messages."""
    document, lines = toml_file.parse(text, path)
    return _Reader(path, document, lines).rulebook()


_Key = tuple[str, ...]
_NUMBER: Final = (int, float)
_OF_WHAT: Final[Mapping[str, tuple[str, ...]]] = {
    "threshold": ("reading", "below", "above", "hysteresis", "for_s"),
    "rate": ("reading", "fall", "rise", "within_s"),
    "silence": ("for_s",),
    "heater": ("rise", "within_s"),
    "certificate": ("days",),
    "event": ("event",),
}
_OF_ALL: Final = ("id", "what", "severity", "devices", "tell")
_OF_KIND: Final[Mapping[str, tuple[str, ...]]] = {
    "webhook": ("webhook", "token_file"),
    "mail_to": ("mail_to", "mail_from", "smtp", "security", "user", "password_file"),
    "push": ("push",),
}
_NEEDED: Final[Mapping[str, Sequence[tuple[str, ...]]]] = {
    "threshold": (("below", "above"),),
    "rate": (("fall", "rise"),),
    "silence": (("for_s",),),
    "heater": (("rise",),),
}
"""Of each group, exactly one must be there."""
_BOUNDS: Final = {
    "hysteresis": (0, 1e6),
    "for_s": (0, MAX_SECONDS),
    "within_s": (10, MAX_SECONDS),
    "days": (0, 3650),
    "fall": (1e-6, 1e6),
    "rise": (1e-6, 1e6),
}


@dataclass
class _Reader:
    """Takes the document apart and collects what is wrong with it."""

    path: str
    document: Mapping[str, Any]
    lines: Mapping[_Key, int]
    mistakes: list[tuple[int, str]] = field(default_factory=list)

    def rulebook(self) -> Rulebook:
        self._check_keys((), self.document, ("rule", "tell", "push_services", "contact"))
        ways = tuple(filter(None, (self._way(at, table) for at, table in self._tables("tell"))))
        names = [way.name for way in ways]
        rules = tuple(filter(None, (self._rule(at, table, names) for at, table in self._tables("rule"))))
        for what, found in (("rule", [rule.id for rule in rules]), ("tell", names)):
            for twice in sorted({name for name in found if found.count(name) > 1}):
                self._mistake((what,), f'"{twice}" is there twice')
        if len(rules) > MAX_RULES:
            self._mistake(("rule",), f"more than {MAX_RULES} rules")
        services = self._texts(("push_services",), self.document.get("push_services", list(SERVICES)))
        contact = self.document.get("contact", BUILT_IN.contact)
        if not isinstance(contact, str) or not contact.startswith(("mailto:", "https:")):
            self._mistake(("contact",), 'must be e.g. "mailto:grower@example.org"')
        if self.mistakes:
            raise ConfigError("\n".join(text for _, text in sorted(self.mistakes)))
        return Rulebook(rules, ways, services, contact, self.path)

    def _rule(self, at: _Key, table: Mapping[str, Any], ways: Sequence[str]) -> Rule | None:
        before = len(self.mistakes)
        what = table.get("what")
        if not isinstance(what, str) or what not in _OF_WHAT:
            self._mistake((*at, "what"), f"must be one of {', '.join(_OF_WHAT)}")
            return None
        self._check_keys(at, table, (*_OF_ALL, *_OF_WHAT[what]))
        for group in _NEEDED.get(what, ()):
            if sum(key in table for key in group) != 1:
                self._mistake(at, f"a rule of this kind needs {'one of ' * (len(group) > 1)}{' and '.join(group)}")
        values: dict[str, Any] = {
            key: self._number((*at, key), table[key]) for key in _OF_WHAT[what] if key in _NUMBERS & set(table)
        }
        if not isinstance(table.get("id"), str) or not ID.fullmatch(table["id"]):
            self._mistake((*at, "id"), 'must be a name of small letters, digits and -, e.g. "too-cold"')
        if table.get("severity", "warning") not in list(SEVERITIES):
            self._mistake((*at, "severity"), f"must be one of {', '.join(SEVERITIES)}")
        if "devices" in table:
            values["devices"] = self._texts((*at, "devices"), table["devices"])
        if "tell" in table:
            values["tell"] = self._texts((*at, "tell"), table["tell"])
            for name in values["tell"]:
                if name not in ways:
                    self._mistake((*at, "tell"), f'there is no [[tell]] with the name "{name}"')
        for key, shape in (("reading", READING), ("event", re.compile(r"[!-~]{1,64}"))):
            if key in table and key in _OF_WHAT[what]:
                if isinstance(table[key], str) and shape.fullmatch(table[key]):
                    values[key] = table[key]
                else:
                    self._mistake((*at, key), f"must be the name of a {key}; it is {kind_of(table[key])}")
        if len(self.mistakes) > before:
            return None
        return Rule(table["id"], what, table.get("severity", "warning"), **values)

    def _way(self, at: _Key, table: Mapping[str, Any]) -> Way | None:
        before = len(self.mistakes)
        kinds = [kind for kind in _OF_KIND if kind in table]
        if len(kinds) != 1:
            self._mistake(at, "needs one of webhook, mail_to and push")
            return None
        self._check_keys(at, table, ("name", "severities", *_OF_KIND[kinds[0]]))
        values: dict[str, Any] = {}
        for key in ("name", "webhook", "token_file", "mail_from", "smtp", "security", "user", "password_file"):
            if key in table:
                values[key] = table[key]
                if not isinstance(table[key], str) or not table[key].isprintable():
                    self._mistake((*at, key), f"must be a string; it is {kind_of(table[key])}")
                    return None
        for key in ("mail_to", "severities"):
            if key in table:
                values[key] = self._texts((*at, key), table[key])
        if not ID.fullmatch(values.get("name", "")):
            self._mistake((*at, "name"), 'must be a name of small letters, digits and -, e.g. "mail"')
        if not set(values.get("severities", ())) <= set(SEVERITIES):
            self._mistake((*at, "severities"), f"must be some of {', '.join(SEVERITIES)}")
        if "webhook" in values and not _is_url(values["webhook"]):
            self._mistake((*at, "webhook"), "must be a URL that begins with https:// or http://")
        if kinds == ["mail_to"]:
            self._mail(at, values)
        if table.get("push", True) is not True:
            self._mistake((*at, "push"), "must be true, or leave the whole [[tell]] out")
        return Way(**values, push=kinds == ["push"]) if len(self.mistakes) == before else None

    def _mail(self, at: _Key, values: Mapping[str, Any]) -> None:
        for key in ("mail_from", "smtp"):
            if not values.get(key):
                self._mistake((*at, key), "is missing")
        for address in (*values["mail_to"], values.get("mail_from", "a@b")):
            if not re.fullmatch(r"[^@\s,;<>]+@[^@\s,;<>]+", address):
                self._mistake((*at, "mail_to"), f'"{address}" is no address')
        security = values.get("security", "tls")
        if security not in SECURITIES:
            self._mistake((*at, "security"), f"must be one of {', '.join(SECURITIES)}")
        host, _, port = values.get("smtp", "h:1").rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            self._mistake((*at, "smtp"), 'must be a host and a port, e.g. "mail.example.org:465"')
        if security == "none" and host not in ("localhost", "127.0.0.1", "[::1]"):
            self._mistake((*at, "security"), '"none" is for this machine; write "tls" or "starttls"')
        if bool(values.get("user")) != bool(values.get("password_file")):
            self._mistake((*at, "user"), "user and password_file go together")

    # --- single values ---

    def _tables(self, name: str) -> Iterable[tuple[_Key, Mapping[str, Any]]]:
        tables = self.document.get(name, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._mistake((name,), f"must be tables: write [[{name}]] on a line of its own, with two brackets")
            return []
        return [((name, str(number)), table) for number, table in enumerate(tables, 1)]

    def _number(self, key: _Key, value: object) -> float:
        low, high = _BOUNDS.get(key[-1], (-1e9, 1e9))
        if isinstance(value, bool) or not isinstance(value, _NUMBER):
            self._mistake(key, f"must be a number; it is {kind_of(value)}")
        elif not low <= value <= high:
            self._mistake(key, f"is {value}; it must be {low:g} to {high:g}")
        else:
            return float(value)
        return 0.0

    def _texts(self, key: _Key, value: object) -> tuple[str, ...]:
        if isinstance(value, list) and value and all(isinstance(entry, str) and entry for entry in value):
            return tuple(value)
        self._mistake(key, 'must be a list of strings, e.g. ["…"]')
        return ()

    def _check_keys(self, at: _Key, table: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
                self._mistake((*at, key), f"unknown key; {hint}")

    def _mistake(self, key: _Key, text: str) -> None:
        place = key
        while place and place not in self.lines:
            place = place[:-1]
        line = self.lines.get(place, 1)
        name = f"[[{key[0]}]]{''.join(f' {part}' for part in key[1:])}" if len(key) > 1 else "".join(key)
        self.mistakes.append((line, f"{self.path}:{line}: {name}: {text}"))


_NUMBERS: Final = {"below", "above", *_BOUNDS}


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
