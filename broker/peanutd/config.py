"""gateway.toml: the settings of the gateway, read once, checked whole, frozen.

The rule it keeps: the defaults are the safe ones, and a bad file is never half in force. Every mistake is named with
file, line and key and with what to write instead; all of them at once. Nothing here opens a socket or a certificate.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from peanutd.log import DEFAULT_LEVEL, LEVELS

FILE_NAME: Final = "gateway.toml"
MAX_FILE_SIZE: Final = 1 << 20
"""Bytes of a gateway.toml; a larger file is not one."""


class ConfigError(Exception):
    """What is wrong with the settings, a line for each mistake, ready to be shown."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. `host` is an IP address, or empty for every address of this machine; port 0 takes a free one."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return bool(self.host) and ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listen:
    """[listen]: None is off."""

    mqtts: Address | None = Address("0.0.0.0", 8883)
    mqtt: Address | None = None
    insecure: bool = False
    max_connections: int = 20_000
    """Connections in all, those in their handshake included; more are closed as they come."""
    handshake_timeout: int = 10
    """Seconds from TCP connection to finished TLS handshake."""


@dataclass(frozen=True, slots=True)
class Access:
    """[access]."""

    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that gateway.toml says. `limits` has the keys of [mqtt] that are set; the core knows the defaults.

    It also knows the ranges: `limit_places` has the beginning of a message for each of them, for what it objects to.
    """

    listen: Listen = Listen()
    access: Access = Access()
    limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    limit_places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    log_level: str = DEFAULT_LEVEL
    warnings: tuple[str, ...] = ()


def load(home: Path, limit_names: Mapping[str, int]) -> Config:
    """The settings in `home`; the defaults when there is no gateway.toml.

    `limit_names` are the limits that [mqtt] may set. ConfigError when the file cannot be read or is wrong.
    """
    path = home / FILE_NAME
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        return Config()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > MAX_FILE_SIZE:
        raise ConfigError(f"{path}: larger than {MAX_FILE_SIZE} bytes; this is not a settings file")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: not UTF-8; save the file as UTF-8") from None
    return parse(text, str(path), limit_names)


def parse(text: str, path: str, limit_names: Mapping[str, int]) -> Config:
    """The settings in `text`. `path` is for the messages only. ConfigError names every mistake."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_error(str(error), path, text)) from None
    return _Reader(path, document, lines_of_keys(text)).config(limit_names)


def parse_address(text: str) -> Address:
    """`192.168.1.2:8883`, `[::1]:8883`, `localhost:8883` (127.0.0.1), `:8883` (every address).

    ValueError says what is wrong and what to write.
    """
    match = re.fullmatch(r"(\[(?P<v6>[^]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]+)", text)
    if match is None:
        if text.count(":") > 1 and "[" not in text:
            raise ValueError(f'"{text}": write an IPv6 address in brackets, e.g. "[::1]:8883"')
        raise ValueError(f'"{text}": write an address and a port, e.g. "0.0.0.0:8883", or "" for off')
    port = int(match["port"])
    if port > 65535:
        raise ValueError(f'"{text}": the port is {match["port"]}; it must be 0 to 65535')
    if match["v6"] is not None:
        try:
            return Address(str(ipaddress.IPv6Address(match["v6"])), port)
        except ValueError:
            raise ValueError(f'"{text}": "{match["v6"]}" is not an IPv6 address') from None
    host = match["host"]
    if host == "":
        return Address("", port)
    if host == "localhost":
        return Address("127.0.0.1", port)
    try:
        return Address(str(ipaddress.IPv4Address(host)), port)
    except ValueError:
        raise ValueError(
            f'"{text}": "{host}" is not an IP address; write one that this machine has, e.g. "0.0.0.0:{port}" for all'
        ) from None


# --- reading the document ---------------------------------------------------------------------------------------------

_Lines = Mapping[tuple[str, ...], int]

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "listen": ("mqtts", "https", "mqtt", "metrics", "insecure", "max_connections", "handshake_timeout"),
    "access": ("anonymous",),
    "log": ("level",),
}
_LATER: Final = ("https", "metrics")
_MAX_NUMBER: Final = 0xFFFFFFFF


class _Reader:
    """Takes the document apart and collects what is wrong with it."""

    def __init__(self, path: str, document: Mapping[str, object], lines: _Lines) -> None:
        self._path = path
        self._document = document
        self._lines = lines
        self._mistakes: list[tuple[int, str]] = []
        self._warnings: list[str] = []

    def config(self, limit_names: Mapping[str, int]) -> Config:
        known = {**_KEYS, "mqtt": tuple(limit_names)}
        self._check_keys((), tuple(self._document), tuple(known))
        tables: dict[str, Mapping[str, object]] = {}
        for name, keys in known.items():
            value = self._document.get(name, {})
            if isinstance(value, dict):
                self._check_keys((name,), tuple(value), keys)
                tables[name] = {key: entry for key, entry in value.items() if key in keys}
            else:
                self._mistake((name,), f"must be a table: write [{name}] on a line of its own")
                tables[name] = {}
        listen = self._listen(tables["listen"])
        access = Access(anonymous=self._boolean(("access", "anonymous"), tables["access"], False))
        self._judge(listen, access)
        config = Config(
            listen=listen,
            access=access,
            limits=MappingProxyType({key: self._number(("mqtt", key), tables["mqtt"], 0, 0) for key in tables["mqtt"]}),
            limit_places=MappingProxyType({key: self._place(("mqtt", key)) for key in tables["mqtt"]}),
            log_level=self._level(tables["log"]),
            warnings=tuple(self._warnings),
        )
        if self._mistakes:
            raise ConfigError("\n".join(text for _, text in sorted(self._mistakes)))
        return config

    def _listen(self, table: Mapping[str, object]) -> Listen:
        usual = Listen()
        for key in _LATER:
            if self._address(("listen", key), table, None) is not None:
                self._warnings.append(f"{self._place(('listen', key))}: not in this release yet; nothing listens there")
        return Listen(
            mqtts=self._address(("listen", "mqtts"), table, usual.mqtts),
            mqtt=self._address(("listen", "mqtt"), table, usual.mqtt),
            insecure=self._boolean(("listen", "insecure"), table, usual.insecure),
            max_connections=self._number(("listen", "max_connections"), table, usual.max_connections),
            handshake_timeout=self._number(("listen", "handshake_timeout"), table, usual.handshake_timeout),
        )

    def _judge(self, listen: Listen, access: Access) -> None:
        """What each setting allows alone, but not together with another."""
        plain = listen.mqtt
        if plain is not None and not plain.loopback and not listen.insecure:
            self._mistake(
                ("listen", "mqtt"),
                f'"{plain}" would serve MQTT without encryption to other machines; '
                f'write "127.0.0.1:{plain.port}", or set insecure = true in [listen] if you mean it',
            )
        if access.anonymous and (plain is None or not plain.loopback):
            self._mistake(
                ("access", "anonymous"),
                "true lets everybody do everything, so it needs a plaintext listener that only this machine can reach; "
                'set mqtt = "127.0.0.1:1883" in [listen], or anonymous = false',
            )
        if plain is not None and not access.anonymous:
            self._warnings.append(
                f"{self._place(('listen', 'mqtt'))}: clients have no certificate there, and [access] anonymous is "
                "false, so every one of them is refused"
            )
        if plain is None and listen.mqtts is None and not self._mistakes:
            self._mistake(("listen", "mqtts"), 'nothing to listen on; set mqtts = "0.0.0.0:8883"')

    def _check_keys(self, where: tuple[str, ...], found: tuple[str, ...], known: tuple[str, ...]) -> None:
        for key in found:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
                self._mistake((*where, key), f"unknown {'key' if where else 'table'}; {hint}")

    def _address(self, key: tuple[str, str], table: Mapping[str, object], usual: Address | None) -> Address | None:
        value = table.get(key[1])
        if value is None:
            return usual
        if not isinstance(value, str):
            self._mistake(key, f'must be a string, e.g. "0.0.0.0:8883", or "" for off; it is {_kind(value)}')
        elif value:
            try:
                return parse_address(value)
            except ValueError as error:
                self._mistake(key, str(error))
        return None

    def _boolean(self, key: tuple[str, str], table: Mapping[str, object], usual: bool) -> bool:
        value = table.get(key[1], usual)
        if isinstance(value, bool):
            return value
        self._mistake(key, f"must be true or false, without quotes; it is {_kind(value)}")
        return usual

    def _number(self, key: tuple[str, str], table: Mapping[str, object], usual: int, least: int = 1) -> int:
        value = table.get(key[1], usual)
        if isinstance(value, bool) or not isinstance(value, int):
            self._mistake(key, f"must be a whole number; it is {_kind(value)}")
        elif not least <= value <= _MAX_NUMBER:
            self._mistake(key, f"is {value}; it must be {least} to {_MAX_NUMBER}")
        else:
            return value
        return usual

    def _level(self, table: Mapping[str, object]) -> str:
        value = table.get("level", DEFAULT_LEVEL)
        if isinstance(value, str) and value in LEVELS:
            return value
        shown = f'"{value}"' if isinstance(value, str) else _kind(value)
        self._mistake(("log", "level"), f"must be one of {', '.join(LEVELS)}; it is {shown}")
        return DEFAULT_LEVEL

    def _line(self, key: tuple[str, ...]) -> int:
        """The line of the key, or of the nearest table around it that the file has."""
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, 1)

    def _place(self, key: tuple[str, ...]) -> str:
        name = f"[{key[0]}]" + "".join(f" {part}" for part in key[1:])
        return f"{self._path}:{self._line(key)}: {name}"

    def _mistake(self, key: tuple[str, ...], text: str) -> None:
        self._mistakes.append((self._line(key), f"{self._place(key)}: {text}"))


def _kind(value: object) -> str:
    """What a TOML value is, in words."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"the number {value}"
    if isinstance(value, str):
        return f'the string "{value}"'
    return "a list" if isinstance(value, list) else "a table" if isinstance(value, dict) else "a date or time"


def _syntax_error(message: str, path: str, text: str) -> str:
    match = re.fullmatch(r"(?P<what>.*) \(at (line (?P<line>\d+), column (?P<column>\d+)|end of document)\)", message)
    if match is None:
        return f"{path}: {message}"
    if match["line"] is None:
        return f"{path}:{len(text.splitlines()) or 1}: {match['what']}, and there the file ends"
    return f"{path}:{match['line']}:{match['column']}: {match['what']}"


# --- on which line a key stands ---------------------------------------------------------------------------------------


def lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """The line (from 1) of every table and key of a TOML document that tomllib has accepted (which does not tell)."""
    lines: dict[tuple[str, ...], int] = {}
    for key, line in _Scanner(text).walk():
        for depth in range(1, len(key) + 1):  # `a.b = 1` makes a table a as well
            lines.setdefault(key[:depth], line)
    return lines


def _unescaped(text: str) -> str:
    """What stands between the quotes of a basic string."""
    try:
        return str(tomllib.loads(f'k = "{text}"')["k"])
    except tomllib.TOMLDecodeError:
        return text


class _Scanner:
    """Walks over valid TOML and stops at keys. On anything else its answers are meaningless, but it always ends."""

    _SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
    _BLANK = re.compile(r"[ \t]*")
    _KEY_PART = re.compile(r"\"((?:[^\"\\\n]|\\.)*)\"|'([^'\n]*)'|([A-Za-z0-9_-]+)")
    _STRING = re.compile(
        r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}' r"|'''(?:[^']|'(?!''))*'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
        re.DOTALL,
    )
    _BARE = re.compile(r"[^,\]}#\n]*")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def walk(self) -> Iterator[tuple[tuple[str, ...], int]]:
        table: tuple[str, ...] = ()
        self._skip(self._SPACE)
        while self._at < len(self._text):
            before = self._at
            if self._peek() == "[":
                line = self._line()
                self._at += 2 if self._text.startswith("[[", self._at) else 1
                table = self._key()
                yield table, line
                self._skip(re.compile(r"[ \t]*\]{0,2}"))
            else:
                yield from self._pair(table)
            self._skip(self._SPACE)
            if self._at == before:
                return

    def _pair(self, table: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
        line = self._line()
        key = (*table, *self._key())
        yield key, line
        self._skip(re.compile(r"[ \t]*=[ \t]*"))
        yield from self._value(key)

    def _value(self, key: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
        opening = self._peek()
        if opening in ("[", "{"):
            self._at += 1
            closing = "]" if opening == "[" else "}"
            self._skip(self._SPACE)
            while self._peek() not in (closing, ""):
                before = self._at
                yield from self._pair(key) if opening == "{" else self._value(key)
                self._skip(self._SPACE)
                if self._peek() == ",":
                    self._at += 1
                    self._skip(self._SPACE)
                if self._at == before:
                    return
            self._at += 1
        elif opening in ("'", '"'):
            self._skip(self._STRING)
        else:
            self._skip(self._BARE)

    def _key(self) -> tuple[str, ...]:
        parts: list[str] = []
        while True:
            self._skip(self._BLANK)
            match = self._KEY_PART.match(self._text, self._at)
            if match is None:
                return tuple(parts)
            self._at = match.end()
            if match[1] is not None:
                parts.append(_unescaped(match[1]))
            else:
                parts.append(match[2] if match[2] is not None else match[3])
            self._skip(self._BLANK)
            if self._peek() != ".":
                return tuple(parts)
            self._at += 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
