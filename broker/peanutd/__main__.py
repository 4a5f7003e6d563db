"""peanutd: the gateway of a Peanut fleet. This file wires the house and holds no logic of its own.

The rule it keeps: it starts whole or not at all, with a reason on stderr; SIGTERM and SIGINT end it in order within
five seconds; SIGHUP takes new settings and certificates, or, when they are bad, says why and keeps the old.
Exit status: 0 ended in order, 1 could not start (address in use), 2 settings or certificates are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import importlib.metadata
import json
import os
import secrets
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from peanutd import alert_rules, control, explain, fleet, native, operate, psk, rules, tls
from peanutd._core import LIMITS, MAY_PUBLISH, RETAIN_ANY, Broker
from peanutd.access import Role
from peanutd.alert_rules import Rulebook
from peanutd.caretaker import Caretaker, program
from peanutd.census import Limits
from peanutd.config import FILE_NAME, Address, Config, ConfigError, Listen, Listener, Mqtt, load
from peanutd.confined import confined
from peanutd.connection import now_ms
from peanutd.ear import Ear
from peanutd.keyring import Keyring
from peanutd.log import Background, Log
from peanutd.monitor import Monitor
from peanutd.mouth import Mouth
from peanutd.revoked import Revoked, RevokedError
from peanutd.rules import Book
from peanutd.server import SPARE_FILES, Server
from peanutd.sockets import ListenError, raise_file_limit
from peanutd.stamps import Stamps
from peanutd.store import Database, StoreError
from peanutd.users import Store
from peanutd.watch import Watch

if TYPE_CHECKING:
    from peanutd.api.serve import Api

OK: Final = 0
CANNOT_START: Final = 1
REFUSED: Final = 1
"""`explain`: the answer is no."""
BAD_SETTINGS: Final = 2
LOOK: Final = 1.0
"""Seconds between two looks at the files that a reload takes: a change is taken up within two of them."""

DESCRIPTION: Final = (
    "The gateway of a Peanut fleet: an MQTT broker that lets in the fleet's certificates and nobody else."
)
EPILOG: Final = """\
examples:
  peanutd                        serves the fleet home $PEANUT_HOME, or else ./fleet
  peanutd --home /srv/fleet      serves that one
  peanutd --check                looks at settings and certificates, says what is wrong, serves nothing
  peanutd rules                  prints who may do what; --built-in: the rules of a home without a rules.toml
  peanutd explain user/maria publish /plant/peanut/UpdateTemperature
                                 says whether she may, and which rule has decided
  peanutd status                 how the gateway that runs is doing; --json for programs
  peanutd bans                   who is banned; peanutd bans add|remove address 192.168.1.9
  peanutd reload                 does what SIGHUP does, and says what came of it

signals:
  SIGTERM, SIGINT                ends in order
  SIGHUP                         reads gateway.toml, rules.toml and the certificates again, which it also does by
                                 itself when they change
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The program; returns its exit status."""
    arguments = _arguments(argv)
    home = Path(arguments.home or os.environ.get("PEANUT_HOME") or "fleet")
    if arguments.command in operate.COMMANDS:
        return operate.run(home, arguments)
    try:
        settings = _settings(home)
        book = _rules(home, settings)
        if arguments.command == "rules":
            print(rules.built_in_text() if arguments.built_in else explain.listing(book), end="")
            return OK
        if arguments.command == "explain":
            return _explain(home, book, arguments)
        credentials = _credentials(home, settings)
        broker = _broker(settings)
        revoked = Revoked(home)
        rulebook = alert_rules.load(home)
    except (ConfigError, tls.TlsError, RevokedError) as error:
        print(f"peanutd: {error}", file=sys.stderr)
        return BAD_SETTINGS
    if arguments.check:
        return _check(home, settings, book, credentials, revoked, rulebook)
    try:
        name, make_loop = _loop()
    except ConfigError as error:
        print(f"peanutd: {error}", file=sys.stderr)
        return BAD_SETTINGS
    stream = Background()
    try:
        return _serve(
            home,
            settings,
            book,
            credentials,
            revoked,
            rulebook,
            broker,
            Log(settings.log_level, stream, form=settings.log_format),
            name,
            make_loop,
        )
    except (ListenError, StoreError) as error:
        stream.end()
        what = "cannot listen on " if isinstance(error, ListenError) else ""
        print(f"peanutd: {what}{error}", file=sys.stderr)
        return CANNOT_START
    finally:
        stream.end()


def _serve(
    home: Path,
    settings: Config,
    book: Book,
    credentials: tls.Credentials | None,
    revoked: Revoked,
    rulebook: Rulebook,
    broker: Broker,
    log: Log,
    name: str,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> int:
    """Serves until a signal ends it. `name` is the loop's. ListenError when an address cannot be had."""
    store = Store(home)
    log.info(
        "peanutd",
        f"version {_version()}",
        home=str(home),
        loop=name,
        python=sys.version.split()[0],
        tls=native.OPENSSL or ssl.OPENSSL_VERSION,
    )
    for warning in (
        *settings.warnings,
        *(credentials.warnings if credentials else ()),
        *_users(settings, store),
        *_keys(home, settings, credentials),
    ):
        log.warning("peanutd", warning)
    with asyncio.Runner(loop_factory=make_loop) as runner:
        loop = runner.get_loop()
        loop.set_exception_handler(
            lambda _, context: log.error("loop", str(context.get("message")), error=repr(context.get("exception")))
        )
        server = Server(
            broker,
            log,
            loop,
            credentials=credentials,
            users=store,
            version=_version(),
            book=book,
            watch=Watch(log, settings.bans, home, revoked=revoked),
        )
        files = raise_file_limit()
        _apply(server, settings, book, files)
        server.take_tokens(settings.jwt, home)
        server.confine(partial(confined, home))
        _keep(home, settings, server)
        _mark_offline(home, server, starting=True)
        ear = Ear(broker, server.run, loop, log, now_ms)
        ear.listen(lambda report: server.watch.seen.heard(report.root.removeprefix("/"), report.leaf, report.payload))
        ear.open()
        server.watch.tally.own = ear.own
        mouth = Mouth(broker, server.run, loop, now_ms)
        monitor = Monitor(home, settings, log, rulebook, mouth, partial(_expires, server), version=_version())
        ear.listen(monitor.recorder.hear)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.end)
        reload = _Reload(home, settings, server, files)
        loop.add_signal_handler(signal.SIGHUP, reload)
        loop.call_later(LOOK, reload.look, loop)
        api = _api(home, settings, server, ear, monitor, loop, make_loop)
        caretaker = Caretaker(home, log, loop, settings.access.renew_hours, program())
        caretaker.start()
        if settings.secure and caretaker.problem:
            log.info("renew", caretaker.problem)
        reload.caretaker = caretaker
        with _metrics(settings.listen.metrics, server, home), monitor, api as reload.api:
            serving = server.serve(settings.listeners, settings.listen.time, control.listener(home), reload.answer)
            runner.run(serving)
    return OK


@contextlib.contextmanager
def _metrics(address: Address | None, server: Server, home: Path) -> Iterator[None]:
    """Serves the metrics meanwhile, if they are wanted. ListenError when the address cannot be had."""
    if address is None:
        yield
        return
    from peanutd.metrics import Metrics  # a tenth of a second that whoever has none does not wait for
    from peanutd.ocsp import Responder

    try:
        metrics = Metrics(address, server.snapshot_from_afar, partial(_enrolled, home), home / tls.CRL, Responder(home))
    except OSError as error:
        raise ListenError(f"{address}: {error.strerror}; change metrics in [listen]") from None
    server.log.info("server", f"listening metrics {metrics.address}/metrics")
    try:
        yield
    finally:
        metrics.end()


@contextlib.contextmanager
def _api(
    home: Path,
    settings: Config,
    server: Server,
    ear: Ear,
    monitor: Monitor,
    loop: asyncio.AbstractEventLoop,
    make_loop: Callable[[], asyncio.AbstractEventLoop],
) -> Iterator[Api | None]:
    """Serves the API meanwhile, if it is wanted. ListenError when the address cannot be had, ApiError for the rest."""
    if settings.listen.https is None:
        yield None
        return
    from peanutd.api.serve import Api, ApiError  # half a second that whoever has none does not wait for

    try:
        address, https = settings.listen.https, settings.https
        api = Api(home, address, https, server, ear, loop, make_loop, server.log, _version(), monitor)
    except tls.TlsError as error:
        raise ListenError(f"https: {error}") from None
    except ApiError as error:
        raise StoreError(str(error)) from None
    api.start()
    try:
        yield api
    finally:
        api.end()


def _enrolled(home: Path) -> dict[str, float]:
    """When the certificates of the nodes in the ledger end (Unix seconds), by identity; none without a ledger."""
    try:
        ends = fleet.expiries(home)
        return {f"{device.kind.value}/{device.name}": ends[device.name] for device in fleet.devices(home)}
    except (fleet.LedgerError, KeyError):
        return {}


def _expires(server: Server) -> datetime | None:
    """When the gateway's own certificate ends."""
    credentials = server.credentials
    return None if credentials is None else credentials.certificate.not_valid_after_utc


def _keep(home: Path, settings: Config, server: Server) -> None:
    """Takes up what was there before, and keeps from now on. StoreError when the database cannot be used."""
    path, log = home / settings.store.path, server.log
    if settings.store.sync != "off":
        database = Database(path, lambda text: log.error("store", text))
        server.keep(database, waits=settings.store.sync == "always")
    elif path.exists():
        log.warning("store", 'not read and not written, because sync is "off" in [store]', file=path)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "peanutd", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--home", metavar="DIR", help="the fleet home that `peanut init` has made")
    parser.add_argument(
        "--check", action="store_true", help="check settings and certificates, then exit: 0 good, 2 not"
    )
    parser.add_argument("--version", action="version", version=_versions())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    listing = commands.add_parser("rules", help="print the rules in force, in their order")
    listing.add_argument("--built-in", action="store_true", help="print those that are built in, as a rules.toml")
    asking = commands.add_parser("explain", help="say which rule decides what somebody may do: 0 allowed, 1 refused")
    asking.add_argument(
        "identity", metavar="IDENTITY", help="plant/peanut, vin/VIN, operator/anna, user/maria, token/NAME, psk/NAME"
    )
    asking.add_argument("action", choices=("publish", "subscribe"))
    asking.add_argument("topic", metavar="TOPIC", help="a topic, or for subscribe a filter, $share/GROUP/ included")
    asking.add_argument("--qos", type=int, choices=(0, 1, 2), default=0)
    asking.add_argument("--retain", action="store_true", help="the publication is to be retained")
    asking.add_argument(
        "--role", choices=[role.value for role in Role], help="of a token, or of a user who is not there yet"
    )
    for command in (listing, asking, *operate.add_commands(commands)):  # before the command or behind it
        command.add_argument("--home", metavar="DIR", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _explain(home: Path, book: Book, arguments: argparse.Namespace) -> int:
    """`explain`: which rule decides."""
    users = Store(home)
    for line in users.refresh():
        print(f"peanutd: {line}", file=sys.stderr)
    try:
        question = explain.Question(
            arguments.identity,
            arguments.action,
            arguments.topic,
            qos=arguments.qos,
            retain=arguments.retain,
            role=Role(arguments.role) if arguments.role else None,
        )
        answer = explain.answer(book, users.users, question)
    except ValueError as error:
        print(f"peanutd: {error}", file=sys.stderr)
        return BAD_SETTINGS
    print(answer.text)
    return OK if answer.allowed else REFUSED


def _versions() -> str:
    """Of peanutd, and of the libraries that do its TLS."""
    ours = f"native loop: {native.OPENSSL}" if native.OPENSSL else "no native loop"
    return f"peanutd {_version()} ({ours}; Python's ssl: {ssl.OPENSSL_VERSION})"


def _version() -> str:
    try:
        return importlib.metadata.version("peanutd")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _settings(home: Path) -> Config:
    if not home.is_dir():
        raise ConfigError(
            f"{home}: no fleet home there; make one with `peanut --home {home} init`, or name it: --home DIR"
        )
    return load(home, LIMITS)


def _credentials(home: Path, settings: Config) -> tls.Credentials | None:
    """The certificates, if any listener needs them, and the keys of devices. TlsError or ConfigError when they cannot
    be used.
    """
    if not settings.secure:
        return None
    grace = timedelta(days=settings.access.renew_grace_days)
    keys = psk.load(home) if _by_key(settings) else psk.NO_KEYS
    return tls.load(home, datetime.now(UTC), grace, settings.listen.session_tickets, keys)


def _by_key(settings: Config) -> bool:
    """Whether devices come in by their keys anywhere."""
    return any(listener.policy.psk for listener in settings.listeners)


def _broker(settings: Config) -> Broker:
    """The core with the limits of [mqtt]; ConfigError for each limit and each filter that it does not take."""
    seed = secrets.token_bytes(16)
    mistakes: list[str] = []
    for name, value in settings.limits.items():
        try:
            Broker(seed=seed, **{name: value})
        except (ValueError, OverflowError) as error:
            mistakes.append(f"{settings.places[name]}: {error}")
    for name in ("deny_subscribe", "deny_publish"):
        for item in getattr(settings.mqtt, name):
            try:
                Broker(seed=seed).set_rules(0, [(False, MAY_PUBLISH, RETAIN_ANY, item)])
            except ValueError:
                mistakes.append(f'{settings.places[name]}: "{item}" is not a topic filter; write e.g. "secret/#"')
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return Broker(seed=seed, **settings.limits)


def _loop() -> tuple[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop where it is installed, else asyncio; PEANUTD_LOOP forces one of them."""
    wanted = os.environ.get("PEANUTD_LOOP", "")
    if wanted not in ("", "asyncio", "uvloop"):
        raise ConfigError(f'PEANUTD_LOOP is "{wanted}"; it must be asyncio or uvloop')
    if wanted != "asyncio":
        try:
            uvloop: Any = importlib.import_module("uvloop")
        except ImportError:
            if wanted:
                raise ConfigError("PEANUTD_LOOP is uvloop, but uvloop is not installed") from None
        else:
            return "uvloop", uvloop.new_event_loop
    return "asyncio", asyncio.new_event_loop


def _rules(home: Path, settings: Config) -> Book:
    """The rules in force; ConfigError when rules.toml is wrong."""
    return rules.load(home, rules.denials(settings.mqtt.deny_subscribe, settings.mqtt.deny_publish))


def _check(
    home: Path,
    settings: Config,
    book: Book,
    credentials: tls.Credentials | None,
    revoked: Revoked,
    rulebook: Rulebook,
) -> int:
    """--check: what would be served, and what is not as it should be. Rules are proved by setting them."""
    book.install(_broker(settings))
    store = Store(home)
    warnings = [
        *settings.warnings,
        *(credentials.warnings if credentials else ()),
        *_users(settings, store),
        *_keys(home, settings, credentials),
    ]
    warnings += _tokens(home, settings)
    print(f"home      {home}")
    for listener in settings.listeners:
        print(f"listen    {listener}, lets in {_who(listener)}")
    if settings.listen.https is not None:
        print(f"listen    https {settings.listen.https}, lets in users")
    if credentials is not None:
        print(f"gateway   certificate until {credentials.certificate.not_valid_after_utc:%Y-%m-%d}")
        for authority in credentials.authorities:
            subject = authority.subject.rfc4514_string()
            print(f"CA        {subject} until {authority.not_valid_after_utc:%Y-%m-%d}")
    where = "" if settings.store.sync == "off" else f"{home / settings.store.path}, "
    print(f"store     {where}sync {settings.store.sync}")
    print(f"rules     {book.source}: {len(book.rules)}")
    print(f"alerts    {rulebook.source}: {len(rulebook.rules)}")
    print(f"users     {len(store.users.by_name)}")
    print(f"revoked   {len(revoked.entries)}")
    if credentials is not None and _by_key(settings):
        print(f"keys      {len(credentials.keys)}")
    if settings.jwt is not None:
        print(f"tokens    of {settings.jwt.issuer}, keys from {settings.jwt.keys}")
    try:
        print(f"nodes     {len(fleet.devices(home))}")
    except fleet.LedgerError as error:
        warnings.append(str(error))
    for warning in warnings:
        print(f"warning   {warning}")
    dead = credentials is not None and any(
        datetime.now(UTC) > certificate.not_valid_after_utc
        for certificate in (credentials.certificate, *credentials.authorities)
    )
    if dead:
        print("peanutd: a certificate has expired: nobody can connect", file=sys.stderr)
    return BAD_SETTINGS if dead else OK


def _tokens(home: Path, settings: Config) -> list[str]:
    """What is not as it should be with a file of keys for tokens. A URL is not asked here."""
    found: list[tuple[str, str]] = []
    if settings.jwt is not None and not settings.jwt.remote:
        Keyring(settings.jwt, home, lambda *_: None, time.monotonic, lambda *line: found.append(line)).refresh()
    return [text for level, text in found if level != "info"]


def _users(settings: Config, store: Store) -> tuple[str, ...]:
    """Reads the users; what is not as it should be."""
    warnings = store.refresh()
    wanted = any(listener.policy.password for listener in settings.listeners)
    if wanted and not warnings and not store.users.by_name:
        return (f"{store.path}: there are no users yet; `peanut user add NAME` makes one",)
    return warnings


def _keys(home: Path, settings: Config, credentials: tls.Credentials | None) -> tuple[str, ...]:
    """What is not as it should be with the keys of devices."""
    if not _by_key(settings) or (credentials is not None and credentials.keys):
        return ()
    return (f"{home / psk.FILE_NAME}: there are no keys, so no device comes in by psk; broker/README.md says how",)


def _who(listener: Listener) -> str:
    """Who may come in, in words."""
    policy = listener.policy
    if policy.anonymous:
        return "anybody"
    if policy.psk:
        return f"devices with keys ({psk.FILE_NAME})"
    found = [] if policy.certificate == "none" else ["certificates of this fleet"]
    return " and ".join(found + ["users"] * policy.password + ["tokens"] * policy.jwt) or "nobody"


def _apply(server: Server, settings: Config, book: Book, files: int) -> None:
    """The settings that can change while the gateway serves."""
    listen, mqtt = settings.listen, settings.mqtt
    server.log.set_level(settings.log_level)
    server.log.set_format(settings.log_format)
    server.watch.bans.rules = settings.bans
    server.watch.tally.max_memory = {**LIMITS, **settings.limits}["max_memory"]
    server.waits.handshaking.seconds = listen.handshake_timeout
    server.waits.stalled.seconds = listen.stall_timeout
    server.handshakes.budget.rate = listen.handshake_rate
    server.handshakes.accepts.rate = listen.accept_rate
    server.handshakes.threads = listen.handshake_threads
    server.handshakes.loops = listen.loops
    server.max_packet_size = {**LIMITS, **settings.limits}["max_packet_size"]
    server.broker.set_limits(**settings.limits)
    server.mqtt = mqtt
    if server.book != book:
        server.set_rules(book)
    server.census.limits = Limits(
        connections=min(mqtt.max_connections, max(1, files - SPARE_FILES)),
        handshakes=listen.max_handshakes,
        per_address=mqtt.max_connections_per_address,
        per_identity=mqtt.max_connections_per_identity,
    )
    if server.census.limits.connections < mqtt.max_connections:
        asked = mqtt.max_connections != Mqtt().max_connections
        server.log.write(
            "warning" if asked else "debug",
            "peanutd",
            "fewer connections than max_connections in [mqtt]: the system's limit of open files is lower",
            connections=server.census.limits.connections,
            files=files,
        )


class _Reload:
    """What SIGHUP does, `peanutd reload`, and a change of the files by itself."""

    def __init__(self, home: Path, settings: Config, server: Server, files: int) -> None:
        self._home = home
        self._settings = settings
        self._server = server
        self._files = files
        self.api: Api | None = None
        self.caretaker: Caretaker | None = None
        own = (settings.https.certificate, settings.https.key) if settings.https.certificate else ()
        keys = (psk.FILE_NAME,) if _by_key(settings) else ()
        watched = (FILE_NAME, rules.FILE_NAME, *(tls.FILES if settings.secure else ()), *keys, *own)
        self._stamps = Stamps([home / name for name in watched])

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Reloads when the files have changed, now and every LOOK seconds."""
        loop.call_later(LOOK, self.look, loop)
        if self._stamps.changed():
            self()

    def answer(self, question: control.Question) -> control.Answer:
        """What the control socket is asked: `reload`, or what the server knows."""
        if question.get("command") != "reload":
            return self._server.answer(question)
        if problems := self():
            raise control.ControlError("\n".join(("not reloaded; what was in force stays:", *problems)))
        return {"done": f"reloaded; rules: {self._server.book.source}"}

    def __call__(self) -> list[str]:
        """New settings, rules and certificates, all or none of them; what is wrong with them."""
        server, log, old = self._server, self._server.log, self._settings
        self._stamps.take()  # before they are read: what changes meanwhile is read again
        try:
            new = _settings(self._home)
            _broker(new)  # would they do?
            book = _rules(self._home, new)
            credentials = _credentials(self._home, replace(new, listeners=old.listeners))
            if self.api is not None:
                self.api.reload(new.https)
            if self.caretaker is not None:
                self.caretaker.hours = new.access.renew_hours
        except (ConfigError, tls.TlsError) as error:
            for line in str(error).splitlines():
                log.error("peanutd", f"not reloaded, the old settings, rules and certificates stay: {line}")
            return str(error).splitlines()
        # Listeners stay, and with them [access], which says who may come in where.
        self._settings = replace(
            new,
            listen=_changeable(old, new),
            listeners=old.listeners,
            store=old.store,
            history=old.history,
            home_assistant=old.home_assistant,
        )
        server.credentials = credentials
        server.cut_revoked()  # whose keys have gone
        _apply(server, self._settings, book, self._files)
        if new.jwt != old.jwt:
            server.take_tokens(new.jwt, self._home)
        server.recheck()
        log.info("peanutd", "reloaded", rules=book.source)
        warnings = credentials.warnings if credentials else ()
        for warning in (*new.warnings, *warnings, *_keys(self._home, old, credentials)):
            log.warning("peanutd", warning)
        fixed = ("listeners", "store", "history", "home_assistant")
        if any(getattr(new, name) != getattr(old, name) for name in fixed):
            what = "addresses, listeners, anonymous, [store], [history] or [home_assistant] have changed"
            log.warning("peanutd", f"{what}: these need a restart")
        for name in ("handshake_threads", "loops"):
            if getattr(new.listen, name) != getattr(old.listen, name):
                log.warning("peanutd", f"{name} in [listen] has changed: this needs a restart")
        _mark_offline(self._home, server)
        return []


def _changeable(old: Config, new: Config) -> Listen:
    """[listen] with the new limits and the old addresses."""
    stay = old.listen
    return replace(
        new.listen,
        mqtts=stay.mqtts,
        mqtt=stay.mqtt,
        time=stay.time,
        metrics=stay.metrics,
        https=stay.https,
        insecure=stay.insecure,
        handshake_threads=stay.handshake_threads,
        loops=stay.loops,
    )


def _mark_offline(home: Path, server: Server, *, starting: bool = False) -> None:
    """Says of each node of which nothing is known that it is offline: what is retained is honest until it returns.
    At the start nobody is connected, whatever was retained before the gateway went down.
    """
    try:
        devices = fleet.devices(home)
    except fleet.LedgerError as error:
        server.log.warning("peanutd", f"nodes that are away will not be shown as offline: {error}")
        return
    status = json.dumps({"state": "offline", "why": "gateway restarted", "ts": int(time.time())}, separators=(",", ":"))
    for device in devices:
        topic = f"{device.root}/status"
        known = server.broker.retained(topic)
        if known is None or (starting and not _is_away(known)):
            server.publish(topic, status.encode())


def _is_away(status: bytes) -> bool:
    """Whether a retained status says that the node is not connected."""
    try:
        state = json.loads(status)["state"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return state in ("offline", "sleeping")


if __name__ == "__main__":
    sys.exit(main())
