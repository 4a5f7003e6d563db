"""gateway.toml: the settings of the gateway, read once, checked whole, frozen.

The rule it keeps: the defaults are the safe ones, and a bad file is never half in force. Every mistake is named with
file, line and key and with what to write instead; all of them at once. Nothing here opens a socket or a certificate.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, get_args

from peanutd import toml_file
from peanutd.log import DEFAULT_FORMAT, DEFAULT_LEVEL, FORMATS, LEVELS
from peanutd.toml_file import MAX_DEPTH as MAX_DEPTH
from peanutd.toml_file import ConfigError as ConfigError
from peanutd.toml_file import kind_of

FILE_NAME: Final = "gateway.toml"
MAX_FILE_SIZE: Final = 64 * 1024
"""Bytes of a gateway.toml; a larger file is not one."""

SYS_INTERVAL: Final = 10
"""Seconds between two reports on $SYS; 0: none."""


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
class UnixPath:
    """Where to listen: a Unix socket."""

    path: str

    @property
    def loopback(self) -> bool:
        """Only this machine can reach it."""
        return True

    def __str__(self) -> str:
        return f"{UNIX_PREFIX}{self.path}"


UNIX_PREFIX: Final = "unix:"
UNIX_PATH_MAX: Final = 107
"""Bytes of the path of a Unix socket (`sun_path` of unix(7), without the zero at its end)."""

Certificate = Literal["required", "optional", "none"]
Transport = Literal["tcp", "tls", "ws", "wss"]
Driver = Literal["native", "asyncio"]
DRIVER: Final[Driver] = "asyncio" if os.environ.get("PEANUTD_DRIVER") == "asyncio" else "native"
"""What is taken where gateway.toml says nothing; the tests say it by PEANUTD_DRIVER."""
TICKETS_MAX: Final = 86400
"""Seconds: what a ticket key has sealed can be read by who gets it, and it is kept for twice that."""
THREADS_MAX: Final = 64
"""Threads for handshakes, at most (PN_HELPERS_MAX in native/helpers.h)."""
CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
"""Those that we may use."""
THREADS: Final = min(THREADS_MAX, CORES - 1)
"""What is taken where gateway.toml says nothing: every core has one, but for the loop's."""
LOOPS_MAX: Final = 16
"""Native loops, at most (PN_LOOPS_MAX in native/loop.h)."""
LOOPS_USUAL: Final = 4
"""Those that there are where gateway.toml says nothing, at most: the core is one, and they take turns at it."""


def loops_for(cores: int) -> int:
    """One for two cores, for handshakes and Python have work to do as well."""
    return min(LOOPS_USUAL, max(1, cores // 2))


LOOPS: Final = int(os.environ.get("PEANUTD_LOOPS") or loops_for(CORES))
"""What is taken where gateway.toml says nothing; the tests say it by PEANUTD_LOOPS."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

LOOPBACK: Final[tuple[Network, ...]] = (ipaddress.IPv4Network("127.0.0.0/8"), ipaddress.IPv6Network("::1/128"))


@dataclass(frozen=True, slots=True)
class Policy:
    """What a client has to show on a listener. One of them must fit; what does not fit is refused."""

    certificate: Certificate = "required"
    """A client certificate of this fleet: asked for and needed, asked for, not asked for (the only one without TLS)."""
    password: bool = False
    """A user's name and password, or SCRAM, will do."""
    jwt: bool = False
    """A token will do (see [jwt])."""
    anonymous: bool = False
    """Nothing is needed, and everything is allowed."""
    psk: bool = False
    """Devices come in by a key that they share with the gateway (psk.toml), and nobody by anything else."""


@dataclass(frozen=True, slots=True)
class Listener:
    """One address, what is spoken there, and who may come in."""

    address: Address | UnixPath
    transport: Transport = "tls"
    policy: Policy = Policy()
    proxy_from: tuple[Network, ...] | None = None
    """Not None: a PROXY protocol header comes first, and only from these networks (or through a Unix socket)."""
    origins: tuple[str, ...] = ()
    """Origins of web pages that may use a WebSocket, "*" for all; empty: pages of the host that is connected to."""
    path: str = "/mqtt"
    """Of the WebSocket."""
    mode: int = 0o660
    """Permissions of the Unix socket."""
    driver: Driver = DRIVER
    """What moves the bytes, where there is a choice (native.py)."""
    where: str = "gateway.toml"
    """Where it is configured, for messages."""

    @property
    def secure(self) -> bool:
        """Whether it speaks TLS."""
        return self.transport in ("tls", "wss")

    @property
    def websocket(self) -> bool:
        return self.transport in ("ws", "wss")

    @property
    def scheme(self) -> str:
        return {"tcp": "mqtt", "tls": "mqtts"}.get(self.transport, self.transport)

    def __str__(self) -> str:
        return f"{self.scheme} {self.address}{self.path if self.websocket else ''}"


@dataclass(frozen=True, slots=True)
class Listen:
    """[listen]: None is off."""

    mqtts: Address | None = Address("0.0.0.0", 8883)
    mqtt: Address | None = None
    time: Address | None = Address("0.0.0.0", 8883)
    """SNTP, over UDP: nodes need a clock before TLS can judge a certificate. Where `mqtts` is, if nothing is said."""
    insecure: bool = False
    max_handshakes: int = 8192
    """Connections that have not come in yet; one more, and the oldest of them is cut: silence keeps nobody out.
    Room for ten thousand nodes that come back within ten seconds, less those whose handshakes have been by then."""
    handshake_timeout: int = 30
    """Seconds from TCP connection to the end of all handshakes (PROXY header, TLS, WebSocket)."""
    handshake_rate: int = 200
    """TLS handshakes that begin in a second; more wait, an address after the other; 0: no limit."""
    accept_rate: int = 1000
    """TCP connections that are accepted in a second; more wait in the kernel's queue; 0: no limit."""
    handshake_threads: int = THREADS
    """Threads that take the steps of TLS handshakes for the native driver; 0: its loop takes them itself."""
    loops: int = LOOPS
    """Native loops, each with a thread and its share of the connections."""
    session_tickets: int = 0
    """Seconds that a TLS session can be resumed for by its ticket (native driver); 0: there are no tickets."""
    stall_timeout: int = 60
    """Seconds that a client may leave unread what has been sent to it, before it is cut; 0: for ever."""
    metrics: Address | None = None
    """Where Prometheus finds the metrics, as plain HTTP; None is nowhere."""
    https: Address | None = Address("0.0.0.0", 8443)
    """The app and its API; off where `mqtts` is set and `https` is not: who names addresses names all of them."""
    driver: Driver = DRIVER
    """What moves the bytes of TCP and TLS: a loop in C where it was built, or Python's."""


@dataclass(frozen=True, slots=True)
class Https:
    """[https]: the certificate of the app and its API, files from the fleet home; empty: the gateway's own."""

    certificate: str = ""
    key: str = ""
    local: Address | None = None
    """The same without TLS, for a browser on this PC, which trusts http://localhost as it is. Loopback only."""


@dataclass(frozen=True, slots=True)
class BanRules:
    """[bans]: what is too much in `window` seconds, 0 is never, and what becomes of who does it."""

    window: int = 60
    duration: int = 300
    """Seconds that a ban lasts."""
    connects: int = 60
    """Times that a client, or a certificate, may come in: one more is flapping."""
    failures: int = 100
    """Handshakes, connections without a CONNECT and refused CONNECTs of an address prefix; refused CONNECTs and
    protocol errors of a client or certificate."""
    user_failures: int = 100
    """Failed logins as one user, wherever they come from."""
    v4_prefix: int = 32
    v6_prefix: int = 64
    """Bits of an address that make one prefix."""
    never: tuple[Network, ...] = LOOPBACK
    """Addresses that are never banned: this machine's, and that of a proxy."""


GRACE_DAYS_MAX: Final = 366
RENEW_HOURS_MAX: Final = 24 * 7


@dataclass(frozen=True, slots=True)
class Access:
    """[access]."""

    anonymous: bool = False
    renew_grace_days: int = 30
    """Days that a node's certificate that has expired still lets it in, to be renewed and for nothing else; 0: none."""
    renew_hours: int = 6
    """Hours between two runs of `peanut renew`, where the issuing CA's key is in the fleet home; 0: never."""


ALGORITHMS: Final = ("ES256", "EdDSA", "RS256", "HS256", "HS384", "HS512")
"""Of tokens. The last three work with a secret, with which whoever checks can sign as well: they must be asked for."""


ROLES: Final = ("viewer", "operator", "admin")


@dataclass(frozen=True, slots=True)
class Jwt:
    """[jwt]: whose tokens count, and what they say."""

    keys: str
    """A JWK Set: a file (in the fleet home, unless its path is whole), or a URL."""
    issuer: str
    audience: str
    algorithms: tuple[str, ...] = ALGORITHMS[:3]
    ca: str = ""
    """A file with the CA that the URL's server has its certificate from; empty: one that this machine trusts."""
    refresh: int = 300
    """Seconds between two fetches of the URL."""
    leeway: int = 30
    """Seconds that the issuer's clock may be ahead. The end of a token is its end."""
    name_claim: str = "sub"
    role_claim: str = ""
    """The claim with the role; empty: all have `role`."""
    role: str = "viewer"

    @property
    def remote(self) -> bool:
        """Whether `keys` is a URL."""
        return "://" in self.keys


@dataclass(frozen=True, slots=True)
class Mqtt:
    """[mqtt] but for the limits of the core."""

    sys_interval: int = SYS_INTERVAL
    """Seconds between two reports on $SYS; 0: none."""
    mqtt31: bool = False
    """Whether clients of MQTT 3.1 (protocol name MQIsdp) may come in."""
    server_reference: str = ""
    """Where clients of MQTT 5.0 are sent when the gateway stops in order (5.0 §4.11); empty: nowhere."""
    deny_subscribe: tuple[str, ...] = ()
    """Topic filters: nobody may subscribe to anything that overlaps one of them."""
    deny_publish: tuple[str, ...] = ()
    """Topic filters: nobody may publish to what they cover."""
    response_information: str = ""
    """What a client of MQTT 5.0 is given that asks for Response Information (5.0 §3.2.2.3.14); `{id}` is its name."""
    max_connections: int = 20_000
    """Connections in all, those in their handshake included; more are closed as they come."""
    max_connections_per_address: int = 2000
    """Connections of one IPv4 address, /64 network of IPv6, or user of this machine (Unix socket); 0: no limit."""
    max_connections_per_identity: int = 64
    """Clients of one operator that are connected at once; 0: no limit. A node has one connection by nature."""


Sync = Literal["always", "batch", "off"]


@dataclass(frozen=True, slots=True)
class Storage:
    """[store]: what survives a restart of the gateway."""

    sync: Sync = "always"
    """When somebody is told that something is kept: when it is on the disk; at once, and a crash takes half a second
    of it away; at once, and nothing survives."""
    path: str = "store.db"
    """The database, from the fleet home."""


@dataclass(frozen=True, slots=True)
class History:
    """[history]: what was measured, and for how long it is kept. 0 days are for ever."""

    keep: bool = True
    path: str = "history.db"
    """The database, from the fleet home."""
    raw_days: int = 14
    """Every reading."""
    five_minutes_days: int = 366
    """Count, mean, least and greatest of five minutes; and what has happened."""
    hours_days: int = 0
    """The same of an hour."""
    batch_seconds: int = 5
    """From batch to batch: what a crash takes away."""
    max_waiting: int = 20_000
    """Reports that wait to be written; one more is dropped, and counted."""


@dataclass(frozen=True, slots=True)
class HomeAssistant:
    """[home_assistant]: whether Home Assistant finds the nodes by itself."""

    enabled: bool = False
    prefix: str = "homeassistant"
    """Where it looks: its own discovery prefix."""
    code_file: str = ""
    """A file whose first line is the code that unlocks a vehicle; in the fleet home. Without one it can only lock."""


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that gateway.toml says. `limits` has the keys of [mqtt] that are set; the core knows the defaults.

    It also knows the ranges, and what a topic filter is: `places` has the beginning of a message for each key that is
    set in [mqtt], for what it objects to.
    """

    listen: Listen = Listen()
    access: Access = Access()
    listeners: tuple[Listener, ...] = (Listener(Address("0.0.0.0", 8883), where=f"mqtts in [listen] of {FILE_NAME}"),)
    """All of them: those of [listen] first, then each [[listener]]."""
    mqtt: Mqtt = Mqtt()
    store: Storage = Storage()
    history: History = History()
    home_assistant: HomeAssistant = HomeAssistant()
    limits: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    places: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    https: Https = Https()
    jwt: Jwt | None = None
    bans: BanRules = BanRules()
    log_level: str = DEFAULT_LEVEL
    log_format: str = DEFAULT_FORMAT
    warnings: tuple[str, ...] = ()

    @property
    def secure(self) -> bool:
        """Whether certificates are needed to serve it."""
        return self.listen.https is not None or any(listener.secure for listener in self.listeners)


def load(home: Path, limit_names: Mapping[str, int]) -> Config:
    """The settings in `home`; the defaults when there is no gateway.toml.

    `limit_names` are the limits that [mqtt] may set. ConfigError when the file cannot be read or is wrong.
    """
    path = home / FILE_NAME
    text = toml_file.read(path, MAX_FILE_SIZE)
    return Config() if text is None else parse(text, str(path), limit_names)


def parse(text: str, path: str, limit_names: Mapping[str, int]) -> Config:
    """The settings in `text`. `path` is for the messages only. ConfigError names every mistake."""
    document, lines = toml_file.parse(text, path)
    return _Reader(path, document, lines).config(limit_names)


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

_Key = tuple[str, ...]
_Lines = Mapping[_Key, int]
_Table = Mapping[str, object]

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "listen": (
        "mqtts",
        "https",
        "mqtt",
        "time",
        "metrics",
        "insecure",
        "max_handshakes",
        "handshake_timeout",
        "handshake_rate",
        "accept_rate",
        "handshake_threads",
        "loops",
        "session_tickets",
        "stall_timeout",
        "driver",
    ),
    "access": ("anonymous", "renew_grace_days", "renew_hours"),
    "https": ("certificate", "key", "local"),
    "jwt": (
        "keys",
        "ca",
        "refresh",
        "algorithms",
        "issuer",
        "audience",
        "leeway",
        "name_claim",
        "role_claim",
        "role",
    ),
    "bans": tuple(entry.name for entry in fields(BanRules)),
    "store": ("sync", "path"),
    "history": tuple(entry.name for entry in fields(History)),
    "home_assistant": tuple(entry.name for entry in fields(HomeAssistant)),
    "log": ("level", "format"),
}
_LIMIT_WORDS: Final[Mapping[str, tuple[str, ...]]] = {"rate_action": ("throttle", "disconnect")}
"""Limits of the core that are written as words; the core counts them from 0."""
_MQTT: Final = tuple(entry.name for entry in fields(Mqtt))
"""Keys of [mqtt] that are not limits of the core."""
_REFERENCE: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_KEYS_URL: Final = re.compile(r"(https://[^/\s@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?)/[!-~]*")
_REFERENCES_MAX: Final = 256
"""Characters of a Server Reference."""
INFORMATION_MAX: Final = 256
"""Characters of response_information."""
_SWITCHES: Final = ("retain_available", "wildcard_subscriptions", "shared_subscriptions", "payload_format_check")
"""Limits of the core that are 0 or 1; who writes false or true means them."""
_LISTENER: Final = "listener"
_LISTENER_KEYS: Final = (
    "address",
    "transport",
    "certificate",
    "password",
    "jwt",
    "anonymous",
    "psk",
    "insecure",
    "proxy_protocol",
    "proxy_from",
    "origins",
    "path",
    "mode",
)
_MAX_NUMBER: Final = 0xFFFFFFFF


def _simple(listen: Listen, access: Access) -> Iterator[Listener]:
    """What [listen] says, as listeners."""
    if listen.mqtts is not None:
        yield Listener(listen.mqtts, driver=listen.driver, where=f"mqtts in [listen] of {FILE_NAME}")
    if listen.mqtt is not None:
        policy = Policy("none", anonymous=access.anonymous)
        where = f"mqtt in [listen] of {FILE_NAME}"
        yield Listener(listen.mqtt, "tcp", policy, driver=listen.driver, where=where)


class _Reader:
    """Takes the document apart and collects what is wrong with it."""

    def __init__(self, path: str, document: _Table, lines: _Lines) -> None:
        self._path = path
        self._document = document
        self._lines = lines
        self._mistakes: list[tuple[int, str]] = []
        self._warnings: list[str] = []
        self._known: Mapping[str, tuple[str, ...]] = {}

    def config(self, limit_names: Mapping[str, int]) -> Config:
        known = self._known = {**_KEYS, "mqtt": (*_MQTT, *limit_names)}
        self._check_keys((), tuple(self._document), (*known, _LISTENER))
        tables: dict[str, _Table] = {}
        for name, keys in known.items():
            value = self._document.get(name, {})
            if isinstance(value, dict):
                self._check_keys((name,), tuple(value), keys)
                tables[name] = {key: entry for key, entry in value.items() if key in keys}
            else:
                self._mistake((name,), f"must be a table: write [{name}] on a line of its own")
                tables[name] = {}
        listen = self._listen(tables["listen"])
        access = Access(
            anonymous=self._boolean(("access", "anonymous"), tables["access"], False),
            renew_grace_days=self._number(
                ("access", "renew_grace_days"), tables["access"], Access().renew_grace_days, 0
            ),
            renew_hours=self._number(("access", "renew_hours"), tables["access"], Access().renew_hours, 0),
        )
        more = [replace(listener, driver=listen.driver) for listener in self._listeners()]
        for listener in more:
            if listener.policy.psk and listener.driver != "native":
                self._mistake(
                    ("listen", "driver"),
                    f'"{listener.driver}" cannot do psk, which {listener.where} has, for Python\'s ssl cannot; '
                    'set driver = "native", or leave out psk',
                )
        self._judge(listen, access, bool(more) or _LISTENER in self._document)
        limits = [key for key in tables["mqtt"] if key not in _MQTT]
        config = Config(
            listen=listen,
            access=access,
            listeners=(*_simple(listen, access), *more),
            mqtt=self._mqtt(tables["mqtt"]),
            store=self._store(tables["store"]),
            history=self._history(tables["history"]),
            home_assistant=self._home_assistant(tables["home_assistant"]),
            limits=MappingProxyType({key: self._limit(("mqtt", key), tables["mqtt"]) for key in limits}),
            places=MappingProxyType({key: self._place(("mqtt", key)) for key in tables["mqtt"]}),
            https=self._https(tables["https"]),
            jwt=self._jwt(tables["jwt"]) if "jwt" in self._document else None,
            bans=self._bans(tables["bans"]),
            log_level=self._word(("log", "level"), tables["log"], DEFAULT_LEVEL, LEVELS),
            log_format=self._word(("log", "format"), tables["log"], DEFAULT_FORMAT, FORMATS),
            warnings=tuple(self._warnings),
        )
        if self._mistakes:
            raise ConfigError("\n".join(text for _, text in sorted(self._mistakes)))
        return config

    def _listen(self, table: _Table) -> Listen:
        usual = Listen()

        def number(key: str, usual: int, least: int = 1, most: int = _MAX_NUMBER) -> int:
            return self._number(("listen", key), table, usual, least, most)

        mqtts = self._address(("listen", "mqtts"), table, usual.mqtts)
        return Listen(
            mqtts=mqtts,
            time=self._address(("listen", "time"), table, mqtts),
            mqtt=self._address(("listen", "mqtt"), table, usual.mqtt),
            insecure=self._boolean(("listen", "insecure"), table, usual.insecure),
            max_handshakes=number("max_handshakes", usual.max_handshakes),
            handshake_timeout=number("handshake_timeout", usual.handshake_timeout),
            handshake_rate=number("handshake_rate", usual.handshake_rate, 0),
            accept_rate=number("accept_rate", usual.accept_rate, 0),
            handshake_threads=number("handshake_threads", usual.handshake_threads, 0, THREADS_MAX),
            loops=number("loops", usual.loops, 1, LOOPS_MAX),
            session_tickets=number("session_tickets", usual.session_tickets, 0, TICKETS_MAX),
            stall_timeout=number("stall_timeout", usual.stall_timeout, 0),
            metrics=self._address(("listen", "metrics"), table, usual.metrics),
            https=self._address(("listen", "https"), table, None if "mqtts" in table else usual.https),
            driver=self._driver(table),
        )

    def _https(self, table: _Table) -> Https:
        found: dict[str, str] = {}
        for key in ("certificate", "key"):
            value = table.get(key, "")
            if isinstance(value, str) and "\0" not in value:
                found[key] = value
            else:
                self._mistake(("https", key), f"must be the name of a file; it is {kind_of(value)}")
        if len(found) == 2 and bool(found["certificate"]) != bool(found["key"]):
            key = "key" if found["certificate"] else "certificate"
            self._mistake(("https", key), "is missing: certificate and key belong together")
        local = self._address(("https", "local"), table, None)
        if local is not None and not local.loopback:
            self._mistake(
                ("https", "local"), f"{local} is plain HTTP; only this machine may use it, e.g. 127.0.0.1:8442"
            )
        return Https(**found, local=local)

    def _bans(self, table: _Table) -> BanRules:
        usual = BanRules()
        rules = BanRules(
            **{
                key: self._number(("bans", key), table, getattr(usual, key), least)
                for key, least in (
                    ("window", 1),
                    ("duration", 1),
                    ("connects", 0),
                    ("failures", 0),
                    ("user_failures", 0),
                    ("v4_prefix", 1),
                    ("v6_prefix", 1),
                )
            },
            never=self._networks(("bans", "never"), table, usual.never),
        )
        for key, bits in (("v4_prefix", 32), ("v6_prefix", 128)):
            if getattr(rules, key) > bits:
                self._mistake(("bans", key), f"is {getattr(rules, key)}; it must be 1 to {bits}")
        return rules

    def _mqtt(self, table: _Table) -> Mqtt:
        usual = Mqtt()

        def number(key: str, usual: int, least: int = 0) -> int:
            return self._number(("mqtt", key), table, usual, least)

        return Mqtt(
            sys_interval=number("sys_interval", usual.sys_interval),
            mqtt31=self._boolean(("mqtt", "mqtt31"), table, False),
            server_reference=self._reference(("mqtt", "server_reference"), table),
            deny_subscribe=self._texts(("mqtt", "deny_subscribe"), table),
            deny_publish=self._texts(("mqtt", "deny_publish"), table),
            response_information=self._information(("mqtt", "response_information"), table),
            max_connections=number("max_connections", usual.max_connections, 1),
            max_connections_per_address=number("max_connections_per_address", usual.max_connections_per_address),
            max_connections_per_identity=number("max_connections_per_identity", usual.max_connections_per_identity),
        )

    def _store(self, table: _Table) -> Storage:
        usual = Storage()
        sync = self._word(("store", "sync"), table, usual.sync, get_args(Sync))
        path = self._file(("store", "path"), table, usual.path)
        return Storage(sync=next(word for word in get_args(Sync) if word == sync), path=path)

    def _history(self, table: _Table) -> History:
        usual = History()
        numbers = {
            key: self._number(("history", key), table, getattr(usual, key), least)
            for key, least in (
                ("raw_days", 0),
                ("five_minutes_days", 0),
                ("hours_days", 0),
                ("batch_seconds", 1),
                ("max_waiting", 1),
            )
        }
        raw, five = numbers["raw_days"], numbers["five_minutes_days"]
        if five and (raw > five or not raw):
            self._mistake(("history", "raw_days"), "must not be more than five_minutes_days")
        keep = self._boolean(("history", "keep"), table, usual.keep)
        return History(keep=keep, path=self._file(("history", "path"), table, usual.path), **numbers)

    def _home_assistant(self, table: _Table) -> HomeAssistant:
        usual = HomeAssistant()
        prefix = table.get("prefix", usual.prefix)
        if not isinstance(prefix, str) or not re.fullmatch(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*", prefix):
            self._mistake(("home_assistant", "prefix"), 'must be the beginning of a topic, e.g. "homeassistant"')
            prefix = usual.prefix
        return HomeAssistant(
            enabled=self._boolean(("home_assistant", "enabled"), table, usual.enabled),
            prefix=prefix,
            code_file=self._file(("home_assistant", "code_file"), table, "ha.code") if "code_file" in table else "",
        )

    def _file(self, key: _Key, table: _Table, usual: str) -> str:
        path = table.get(key[-1], usual)
        if isinstance(path, str) and path and "\0" not in path and not path.endswith("/"):
            return path
        self._mistake(key, f'must be the name of a file, e.g. "{usual}"; it is in the fleet home')
        return usual

    def _information(self, key: _Key, table: _Table) -> str:
        """The beginning of topic names, so what may not stand in one may not stand here."""
        value = table.get(key[-1], "")
        if isinstance(value, str) and len(value) <= INFORMATION_MAX and not re.search(r"[\x00-\x1f\x7f-\x9f+#]", value):
            return value
        self._mistake(
            key, f'must be the beginning of a topic, e.g. "answers/{{id}}", at most {INFORMATION_MAX} characters'
        )
        return ""

    def _jwt(self, table: _Table) -> Jwt:
        usual = Jwt("", "", "")

        def text(key: str, usual: str | None = None) -> str:
            value = table.get(key, usual)
            if isinstance(value, str) and (value or usual == ""):
                return value
            self._mistake(("jwt", key), f"must be a string; it is {kind_of(value)}" if key in table else "is missing")
            return ""

        algorithms = self._texts(("jwt", "algorithms"), table) if "algorithms" in table else usual.algorithms
        for algorithm in algorithms or ("",):
            if algorithm not in ALGORITHMS:
                self._mistake(("jwt", "algorithms"), f'"{algorithm}"; write some of {", ".join(ALGORITHMS)}')
        found = Jwt(
            keys=text("keys"),
            issuer=text("issuer"),
            audience=text("audience"),
            algorithms=algorithms,
            ca=text("ca", ""),
            refresh=self._number(("jwt", "refresh"), table, usual.refresh, 10),
            leeway=self._number(("jwt", "leeway"), table, usual.leeway, 0),
            name_claim=text("name_claim", usual.name_claim),
            role_claim=text("role_claim", ""),
            role=self._word(("jwt", "role"), table, usual.role, ROLES),
        )
        if found.remote and not _KEYS_URL.fullmatch(found.keys):
            self._mistake(
                ("jwt", "keys"),
                "must be a file or begin with https:// (http:// is for this machine: http://127.0.0.1/…)",
            )
        if found.remote and any(algorithm.startswith("HS") for algorithm in found.algorithms):
            self._mistake(("jwt", "algorithms"), "HS… work with a secret, which no URL gives away; name a file in keys")
        return found

    def _reference(self, key: _Key, table: _Table) -> str:
        """One or more servers, as MQTT 5.0 §4.11 writes them: with spaces between."""
        value = table.get(key[-1], "")
        if isinstance(value, str) and len(value) <= _REFERENCES_MAX:
            servers = value.split(" ") if value else []
            if all(_REFERENCE.fullmatch(server) for server in servers):
                return value
        self._mistake(key, 'must be a server, e.g. "gateway-2.local:8883", or several with a space between')
        return ""

    def _judge(self, listen: Listen, access: Access, others: bool) -> None:
        """What each setting allows alone, but not together with another."""
        plain = listen.mqtt
        if plain is not None and not plain.loopback and not listen.insecure:
            self._mistake(
                ("listen", "mqtt"),
                f'"{plain}" would serve MQTT without encryption to other machines; '
                f'write "127.0.0.1:{plain.port}", or set insecure = true in [listen] if you mean it',
            )
        metrics = listen.metrics
        if metrics is not None and not metrics.loopback and not listen.insecure:
            self._mistake(
                ("listen", "metrics"),
                f'"{metrics}" would show the metrics to other machines, without encryption or a password; '
                f'write "127.0.0.1:{metrics.port}", or set insecure = true in [listen] if you mean it',
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
        if access.renew_grace_days > GRACE_DAYS_MAX:
            self._mistake(("access", "renew_grace_days"), f"is {access.renew_grace_days}; at most {GRACE_DAYS_MAX}")
        if access.renew_hours > RENEW_HOURS_MAX:
            self._mistake(("access", "renew_hours"), f"is {access.renew_hours}; at most {RENEW_HOURS_MAX}")
        if plain is None and listen.mqtts is None and not others and not self._mistakes:
            self._mistake(("listen", "mqtts"), 'nothing to listen on; set mqtts = "0.0.0.0:8883"')

    # --- [[listener]] ---

    def _listeners(self) -> list[Listener]:
        tables = self._document.get(_LISTENER, [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            self._mistake((_LISTENER,), "must be tables: write [[listener]] on a line of its own, with two brackets")
            return []
        found = [self._listener((_LISTENER, str(number)), table) for number, table in enumerate(tables, 1)]
        return [listener for listener in found if listener is not None]

    def _listener(self, at: _Key, table: _Table) -> Listener | None:
        """The listener of one table, or None when there is something wrong with it."""
        mistakes = len(self._mistakes)
        self._check_keys(at, tuple(table), _LISTENER_KEYS)
        address = self._place_to_listen((*at, "address"), table)
        transport = self._transport((*at, "transport"), table, address)
        secure = transport in ("tls", "wss")
        psk = self._boolean((*at, "psk"), table, False)
        certificate = self._certificate((*at, "certificate"), table, secure, psk)
        policy = Policy(
            certificate=certificate,
            password=self._boolean((*at, "password"), table, False),
            jwt=self._boolean((*at, "jwt"), table, False),
            anonymous=self._boolean((*at, "anonymous"), table, False),
            psk=psk,
        )
        listener = Listener(
            address=address or Address("127.0.0.1", 0),
            transport=transport,
            policy=policy,
            proxy_from=self._proxy(at, table),
            origins=self._origins((*at, "origins"), table),
            path=self._path_of((*at, "path"), table),
            mode=self._mode((*at, "mode"), table),
            where=f"[[{_LISTENER}]] {at[1]} of {FILE_NAME}",
        )
        insecure = self._boolean((*at, "insecure"), table, False)
        if len(self._mistakes) == mistakes:
            self._judge_listener(at, table, listener, insecure)
        return listener if len(self._mistakes) == mistakes else None

    def _judge_listener(self, at: _Key, table: _Table, listener: Listener, insecure: bool) -> None:
        """What each key allows alone, but not together with another."""
        address, policy = listener.address, listener.policy
        if not listener.secure and not address.loopback and not insecure:
            secure = "wss" if listener.websocket else "tls"
            self._mistake(
                (*at, "address"),
                f'"{address}" would serve MQTT without encryption to other machines; write transport = "{secure}" or '
                "an address of this machine, or set insecure = true there if you mean it",
            )
        elif policy.password and not listener.secure and not address.loopback:
            self._mistake((*at, "password"), 'true would send passwords in the clear; set transport = "tls"')
        elif policy.jwt and not listener.secure and not address.loopback:
            self._mistake((*at, "jwt"), 'true would send tokens in the clear; set transport = "tls"')
        if policy.jwt and "jwt" not in self._document:
            self._mistake((*at, "jwt"), "true, but nothing says whose tokens count; write a table [jwt]")
        if policy.anonymous and not address.loopback:
            self._mistake(
                (*at, "anonymous"),
                "true lets everybody do everything, so it needs an address that only this machine can reach, "
                'e.g. "127.0.0.1:1883"; without it, set anonymous = false',
            )
        if policy.anonymous and listener.proxy_from is not None:
            self._mistake(
                (*at, "anonymous"),
                "true lets everybody do everything, and behind a proxy that is the whole network; "
                "set anonymous = false, or proxy_protocol = false",
            )
        if policy.anonymous and policy.certificate == "required":
            self._mistake((*at, "anonymous"), 'true, but a certificate is required; set certificate = "optional"')
        if policy.psk:
            self._judge_psk(at, listener)
        elif policy.certificate == "none" and not (policy.password or policy.jwt or policy.anonymous):
            self._mistake(
                (*at, "certificate"),
                "nobody could come in: there is no certificate, no password, no jwt and no anonymous; set one of them",
            )
        for key, wanted, unless in (
            ("origins", listener.websocket, 'transport = "ws" or "wss"'),
            ("path", listener.websocket, 'transport = "ws" or "wss"'),
            ("mode", isinstance(address, UnixPath), 'address = "unix:/path"'),
            ("proxy_from", listener.proxy_from is not None, "proxy_protocol = true"),
        ):
            if key in table and not wanted:
                self._mistake((*at, key), f"has no meaning without {unless}; leave it out")

    def _judge_psk(self, at: _Key, listener: Listener) -> None:
        """Keys of devices stand alone: no certificate is shown there, and the native loop alone has them."""
        policy, unix = listener.policy, isinstance(listener.address, UnixPath)
        for key, wrong, instead in (
            ("transport", listener.transport != "tls" and not unix, 'set transport = "tls"'),
            ("address", unix, "write an address and a port"),
            ("proxy_protocol", listener.proxy_from is not None, "leave it out"),
            ("certificate", policy.certificate != "none", "leave it out, and have a listener for each"),
            ("password", policy.password, "leave it out, and have a listener for each"),
            ("jwt", policy.jwt, "leave it out, and have a listener for each"),
            ("anonymous", policy.anonymous, "leave it out"),
        ):
            if wrong:
                self._mistake((*at, key), f"does not go with psk = true, by which devices come in by TLS; {instead}")

    def _place_to_listen(self, key: _Key, table: _Table) -> Address | UnixPath | None:
        value = table.get("address")
        usage = 'e.g. "0.0.0.0:8884" or "unix:/run/peanut.sock"'
        if not isinstance(value, str) or not value:
            wrong = (
                "missing" if value is None else "empty" if value == "" else f"must be a string; it is {kind_of(value)}"
            )
            self._mistake(key, f"{wrong}; write where to listen, {usage}")
            return None
        if not value.startswith(UNIX_PREFIX):
            return self._address(key, table, None)
        path = value.removeprefix(UNIX_PREFIX)
        if not path.startswith("/") or "\0" in path:
            self._mistake(key, f'"{value}": write the whole path of the socket, e.g. "unix:/run/peanut.sock"')
        elif (size := len(path.encode())) > UNIX_PATH_MAX:
            self._mistake(key, f"a path of {size} bytes; the system allows {UNIX_PATH_MAX} for a socket")
        else:
            return UnixPath(path)
        return None

    def _transport(self, key: _Key, table: _Table, address: Address | UnixPath | None) -> Transport:
        unix = isinstance(address, UnixPath)
        words = (*get_args(Transport), "unix")
        value = self._word(key, table, "unix" if unix else "tls", words)
        if value == "unix":
            if address is not None and not unix:
                self._mistake(key, '"unix" needs a path; set address = "unix:/run/peanut.sock"')
            return "tcp"
        return next(word for word in get_args(Transport) if word == value)

    def _certificate(self, key: _Key, table: _Table, secure: bool, psk: bool) -> Certificate:
        value = self._word(key, table, "required" if secure and not psk else "none", get_args(Certificate))
        if value != "none" and not secure:
            self._mistake(key, f'"{value}" needs TLS; set transport = "tls" or "wss", or leave it out')
        return next(word for word in get_args(Certificate) if word == value)

    def _proxy(self, at: _Key, table: _Table) -> tuple[Network, ...] | None:
        on = self._boolean((*at, "proxy_protocol"), table, False)
        networks = self._networks((*at, "proxy_from"), table, LOOPBACK)
        return networks if on else None

    def _networks(self, key: _Key, table: _Table, usual: tuple[Network, ...]) -> tuple[Network, ...]:
        networks: list[Network] = []
        for text in self._texts(key, table):
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError as error:
                self._mistake(key, f'{error}; write networks, e.g. ["192.168.1.5/32"]')
        return tuple(networks) if key[-1] in table else usual

    def _origins(self, key: _Key, table: _Table) -> tuple[str, ...]:
        origins = self._texts(key, table)
        for origin in origins:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/\s]+", origin):
                self._mistake(key, f'"{origin}" is not an origin; write e.g. "https://app.example.org", or "*" for all')
        return origins

    def _path_of(self, key: _Key, table: _Table) -> str:
        value = table.get("path", "/mqtt")
        if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value) or "?" in value or "#" in value:
            self._mistake(key, 'must be a path of printable ASCII that begins with "/", e.g. "/mqtt"')
            return "/mqtt"
        return value

    def _mode(self, key: _Key, table: _Table) -> int:
        value = table.get("mode", "0660")
        if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
            self._mistake(key, 'must be permissions in octal, as a string, e.g. "0660"')
            return 0o660
        return int(value, 8)

    def _driver(self, table: _Table) -> Driver:
        word = self._word(("listen", "driver"), table, DRIVER, get_args(Driver))
        return "native" if word == "native" else "asyncio"

    def _word(self, key: _Key, table: _Table, usual: str, words: Sequence[str]) -> str:
        value = table.get(key[-1], usual)
        if isinstance(value, str) and value in words:
            return value
        shown = f'"{value}"' if isinstance(value, str) else kind_of(value)
        self._mistake(key, f"must be one of {', '.join(words)}; it is {shown}")
        return usual

    def _texts(self, key: _Key, table: _Table) -> tuple[str, ...]:
        value = table.get(key[-1], [])
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return tuple(value)
        self._mistake(key, 'must be a list of strings, e.g. ["…"]')
        return ()

    # --- single values ---

    def _check_keys(self, where: _Key, found: Sequence[str], known: Sequence[str]) -> None:
        for key in found:
            if key not in known:
                if where and (elsewhere := [table for table, keys in self._known.items() if key in keys]):
                    self._mistake((*where, key), f"belongs in [{elsewhere[0]}]")
                    continue
                near = difflib.get_close_matches(key, known, 1)
                hint = f'did you mean "{near[0]}"?' if near else f"known here: {', '.join(known)}"
                self._mistake((*where, key), f"unknown {'key' if where else 'table'}; {hint}")

    def _address(self, key: _Key, table: Mapping[str, object], usual: Address | None) -> Address | None:
        value = table.get(key[-1])
        if value is None:
            return usual
        if not isinstance(value, str):
            self._mistake(key, f'must be a string, e.g. "0.0.0.0:8883", or "" for off; it is {kind_of(value)}')
        elif value:
            try:
                return parse_address(value)
            except ValueError as error:
                self._mistake(key, str(error))
        return None

    def _boolean(self, key: _Key, table: Mapping[str, object], usual: bool) -> bool:
        value = table.get(key[-1], usual)
        if isinstance(value, bool):
            return value
        self._mistake(key, f"must be true or false, without quotes; it is {kind_of(value)}")
        return usual

    def _limit(self, key: _Key, table: _Table) -> int:
        value, words = table.get(key[-1]), _LIMIT_WORDS.get(key[-1])
        if words is not None:
            return words.index(self._word(key, table, words[0], words))
        if key[-1] in _SWITCHES and isinstance(value, bool):
            return int(value)
        return self._number(key, table, 0, 0)

    def _number(
        self, key: _Key, table: Mapping[str, object], usual: int, least: int = 1, most: int = _MAX_NUMBER
    ) -> int:
        value = table.get(key[-1], usual)
        if isinstance(value, bool) or not isinstance(value, int):
            self._mistake(key, f"must be a whole number; it is {kind_of(value)}")
        elif not least <= value <= most:
            self._mistake(key, f"is {value}; it must be {least} to {most}")
        else:
            return value
        return usual

    def _line(self, key: _Key) -> int:
        """The line of the key, or of the nearest table around it that the file has."""
        while key and key not in self._lines:
            key = key[:-1]
        return self._lines.get(key, 1)

    def _place(self, key: _Key) -> str:
        name = f"[[{key[0]}]]" if key[0] == _LISTENER else f"[{key[0]}]"
        name += "".join(f" {part}" for part in key[1:])
        return f"{self._path}:{self._line(key)}: {name}"

    def _mistake(self, key: _Key, text: str) -> None:
        self._mistakes.append((self._line(key), f"{self._place(key)}: {text}"))
