"""`peanut send`: one command to one node, and what becomes of it.

Rules: subscribe to the answer before asking; never retained; the identity of gateway and operator is checked on both
sides (TLS 1.2 at least, host name checked); a text that came over the network is made printable before it is shown.
MQTT 5 is spoken for its reason codes. Commands to a vehicle are signed for its present session, and only answers with
its receipt are believed.
"""

import json
import re
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from peanut import ca, names, operators, signing, store
from peanut.errors import Exit, PeanutError
from peanut.home import Home
from peanut.names import Kind, printable

LIFETIME_S = 60  # how long a command stays valid: `exp`, and the message expiry of MQTT 5
TIMEOUT_S = 30.0  # default of --timeout
CONNECT_S = 10.0  # for TCP, for the handshake, and for CONNACK and SUBACK
KEEPALIVE_S = 15
STATUS_S = 1.0  # a retained status arrives with the SUBACK; this long after it, there is none
POLL_S = 0.1  # the longest wait between two looks at the clock
ANSWER_MAX = 16 * 1024  # bytes; larger packets the gateway does not send us (MQTT 5, 3.1.2.11.4)
PAYLOAD_MAX = 4096  # bytes, agreement 2
UPDATE = "UpdateTemperature"
SESSION = "cmd/session"  # below a vehicle's root: it answers with its session, at once
_VERB = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,6}(\.[0-9]{1,6})?")  # float() would take 1_5 and digits of other scripts too
_SUCCESS_MAX = 0x7F  # reason codes from 0x80 on are failures (MQTT 5, 2.4)
_NO_SUBSCRIBERS = 0x10  # reason code of PUBACK (MQTT 5, 3.4.2.1)


class Stage(StrEnum):
    """What is reported on the way."""

    OFFLINE = "offline"  # what the gateway knows of the node; not the end
    SENT = "sent"  # the gateway has it
    ACCEPTED = "accepted"
    DONE = "done"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Command:
    """A command, ready to be sent. root: of the node; topic: below it; body: the payload but for id and exp.

    key: a vehicle's device key, and `argument` what the command takes: then the whole payload is made when it is sent.
    """

    node: str
    root: str
    topic: str
    verb: str
    body: dict[str, Any]
    text: str
    key: bytes | None = None
    argument: str = ""

    @property
    def lifetime(self) -> int:
        """Seconds after which it is void."""
        return LIFETIME_S if self.key is None else signing.LIFETIME_S


@dataclass(frozen=True)
class Progress:
    """One thing that happened. elapsed: seconds since it was sent; detail: for people; state: as the node tells it."""

    stage: Stage
    elapsed: float
    detail: str = ""
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Credentials:
    """PEM files of an operator."""

    ca: Path
    certificate: Path
    key: Path


def compose(name: str, kind: Kind, verb: str, values: Sequence[str], key: bytes | None = None) -> Command:
    """A command from the words of the command line; PeanutError if they make none. key: a vehicle's device key."""
    if kind is Kind.VEHICLE:
        return _compose_signed(name, verb, values, key)
    if not _VERB.fullmatch(verb):
        raise PeanutError(f"{printable(verb)!r} is not a command", f"For example: {UPDATE}, heater, vent, identify.")
    root = names.topic_root(name, kind)
    text = " ".join([verb, *values])
    if verb == UPDATE:
        return Command(name, root, f"{root}/{UPDATE}", verb, {"temperature": _temperature(values)}, text)
    if verb.lower() == UPDATE.lower():
        raise PeanutError(f"there is no command {verb!r}", f"Did you mean {UPDATE}?")
    return Command(name, root, f"{root}/cmd/{verb}", verb, {"args": _arguments(values)}, text)


def _compose_signed(vin: str, verb: str, values: Sequence[str], key: bytes | None) -> Command:
    if key is None:
        raise PeanutError(
            f"{vin} is a vehicle: it obeys signed commands only, and its key is not here",
            f"Run this where the fleet home is; `peanut device add {vin} --kind vehicle` completes it.",
        )
    if verb not in signing.VERBS:
        raise PeanutError(
            f"{printable(verb)!r} is not a command of a vehicle", f"Commands: {', '.join(signing.VERBS)}."
        )
    root = names.topic_root(vin, Kind.VEHICLE)
    text = " ".join([verb, *values])
    return Command(vin, root, f"{root}/{verb}", verb, {}, text, key, signing.argument(list(values)))


def _temperature(values: Sequence[str]) -> int | float:
    if len(values) != 1 or not _NUMBER.fullmatch(values[0]):
        raise PeanutError(f"{UPDATE} needs one number", f"For example: peanut send peanut {UPDATE} 15")
    number = float(values[0])
    return int(number) if number.is_integer() else number


def _arguments(values: Sequence[str]) -> dict[str, Any]:
    if len(values) == 1 and values[0].lstrip().startswith("{"):
        try:
            found = json.loads(values[0])
        except ValueError as error:
            raise PeanutError(f"{printable(values[0])} is not JSON: {error}", "Mend it.") from None
        assert isinstance(found, dict)
        return found
    arguments: dict[str, Any] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise PeanutError(
                f"{printable(text)!r} is not KEY=VALUE", "For example: peanut send peanut heater mode=off"
            )
        if key in arguments:
            raise PeanutError(f"{key!r} is given twice", "Give it once.")
        try:
            arguments[key] = json.loads(value)
        except ValueError:
            arguments[key] = value
    return arguments


def credentials(home: Home, name: str | None, now: datetime) -> Credentials:
    """The files of an operator (None: of the only one, or of the one called `operator`), checked before they are used.

    A certificate that the gateway would refuse is told apart here, where the reason is known.
    """
    home.require()
    known = operators.existing(home)
    name = name or (known[0] if len(known) == 1 else "operator")
    if name not in known:
        listed = f"Operators: {', '.join(known)}." if known else "There are none yet."
        raise PeanutError(f"there is no operator {printable(name)!r}", f"{listed} Make one: peanut operator add NAME")
    folder, fix = home.operator(name), f"Run `peanut operator add {name}`: it completes and renews."
    files = Credentials(folder / operators.ROOT, folder / operators.CERTIFICATE, folder / operators.KEY)
    try:
        certificate, key = store.certificate(files.certificate), store.key(files.key)
        store.certificate(files.ca)
        why = _why_refused(certificate, key, store.certificate(home.ca / "issuing.crt"), now)
    except PeanutError as error:
        raise PeanutError(error.message, fix, Exit.CERTIFICATE) from None
    if why:
        raise PeanutError(f"the certificate of the operator {name} {why}", fix, Exit.CERTIFICATE)
    return files


def _why_refused(certificate: x509.Certificate, key: ca.Key, issuing: x509.Certificate, now: datetime) -> str:
    if certificate.not_valid_after_utc <= now:
        return f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if certificate.not_valid_before_utc > now:
        start = certificate.not_valid_before_utc
        return f"is valid from {start:%Y-%m-%d %H:%M} UTC on, and this machine's clock says {now:%Y-%m-%d %H:%M} UTC"
    if not ca.same_key(certificate, key):
        return "is for another key"
    if not ca.issued_by(certificate, issuing):
        return "was not issued by this fleet's CA"
    if not any(ExtendedKeyUsageOID.CLIENT_AUTH in u.value for u in _usages(certificate)):
        return "is not one for a client"
    return ""


def _usages(certificate: x509.Certificate) -> Iterator[x509.Extension[x509.ExtendedKeyUsage]]:
    try:
        yield certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return


def tls(files: Credentials) -> ssl.SSLContext:
    """Both sides prove who they are; TLS 1.2 at least; the gateway's name is checked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # CERT_REQUIRED and check_hostname
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(files.ca)
    context.load_cert_chain(files.certificate, files.key)
    return context


class Exchange:
    """One command and its answer. `run` is called once; progress is told as it happens."""

    def __init__(
        self, command: Command, gateway: tuple[str, int], context: ssl.SSLContext, tell: Callable[[Progress], None]
    ) -> None:
        self._command = command
        self._gateway = gateway
        self._where = f"{gateway[0]}:{gateway[1]}"
        self._tell = tell
        self._id = secrets.token_hex(8)
        self._failure: PeanutError | None = None
        self._end: Stage | None = None
        self._connected = self._subscribed = self._sent = self._accepted = False
        self._presence = ""  # what the last status said: online, offline, sleeping
        self._unheard = False
        self._told_offline = False
        self._start = time.monotonic()
        self._mid = -1
        self._payload = b""
        self._session: signing.Session | None = None  # of a vehicle, as it stands now
        self._complaint = ""
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"peanut-send-{secrets.token_hex(4)}",
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
        )
        client.connect_timeout = CONNECT_S
        client.tls_set_context(context)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_log = self._on_log
        self._client = client

    def run(self, timeout: float) -> Stage:
        """Stage.DONE or Stage.REJECTED, the node's last word; PeanutError with the exit status if there is none.

        timeout: seconds for the node's answer, counted from when the gateway lets us ask.
        """
        self._connect()
        try:
            self._until(lambda: self._subscribed, CONNECT_S, "did not answer")
            if self._command.key is not None:
                self._ask_session(timeout)
            self._publish()
            self._start = time.monotonic()
            self._until(lambda: self._end is not None, timeout, "")
            assert self._end is not None
            return self._end
        finally:
            self._client.disconnect()
            self._client.loop(POLL_S)  # lets the DISCONNECT out

    def _ask_session(self, timeout: float) -> None:
        """A retained session may be a minute old, and its clock with it: the vehicle is asked for a fresh one."""
        self._start = time.monotonic()
        self._client.publish(f"{self._command.root}/{SESSION}", b"", qos=0)
        self._until(lambda: self._session is not None, timeout, "")

    def _connect(self) -> None:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.MaximumPacketSize = ANSWER_MAX
        host, port = self._gateway
        try:
            self._client.connect(host, port, keepalive=KEEPALIVE_S, clean_start=True, properties=properties)
        except ssl.SSLCertVerificationError as error:
            raise self._not_trusted(error) from None
        except ssl.SSLError as error:
            if any(word in (error.reason or "") for word in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED")):
                raise self._turned_away(error.reason) from None  # how TLS 1.2 tells it
            raise PeanutError(
                f"no TLS with {self._where}: {printable(error.reason or error)}",
                "Is that the gateway's TLS port? See [listen] in gateway.toml, or give --gateway HOST:PORT.",
                Exit.CERTIFICATE,
            ) from None
        except socket.gaierror:
            raise PeanutError(
                f"there is no host called {printable(host)}",
                "Name the gateway with --gateway HOST:PORT.",
                Exit.UNREACHABLE,
            ) from None
        except TimeoutError:
            raise self._unreachable(f"no answer from {self._where} within {CONNECT_S:.0f} s") from None
        except OSError as error:
            raise self._unreachable(f"no connection to {self._where}: {error.strerror or error}") from None

    def _unreachable(self, message: str) -> PeanutError:
        return PeanutError(
            f"gateway unreachable: {message}",
            "Is peanutd running there? Name another gateway with --gateway HOST:PORT.",
            Exit.UNREACHABLE,
        )

    def _not_trusted(self, error: ssl.SSLCertVerificationError) -> PeanutError:
        host = self._gateway[0]
        reason = error.verify_message or str(error)
        if "mismatch" in reason.lower():  # host name or IP address
            message = f"the gateway's certificate is not for {host}"
            fix = f"Issue it for that name as well (peanut init --host {host}), or connect under one that it has."
        elif error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
            message, fix = (
                "the gateway's certificate has expired",
                "On the gateway: run `peanut init`, then reload peanutd.",
            )
        elif error.verify_code == 9:  # X509_V_ERR_CERT_NOT_YET_VALID
            message, fix = "the gateway's certificate is not valid yet", "Set this machine's clock."
        else:
            message = f"{self._where} is not this fleet's gateway: {printable(reason)}"
            fix = "Is this the right fleet home (--home) and the right gateway (--gateway)?"
        return PeanutError(message, fix, Exit.CERTIFICATE)

    def _until(self, finished: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not finished():
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._unreachable(f"{self._where} {what}") if what else self._no_answer(seconds)
            code = self._client.loop(min(POLL_S, left))
            if self._failure is not None:
                raise self._failure
            if finished():
                return
            if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
                raise self._lost(code)
            self._watch_presence()

    def _lost(self, code: MQTTErrorCode) -> PeanutError:
        if code == MQTTErrorCode.MQTT_ERR_PROTOCOL:
            return self._unreachable(f"{self._where} does not speak MQTT 5")
        if not self._connected:
            # In TLS 1.3 a server reads our certificate after the handshake is over for us; its alert comes now.
            return self._turned_away(self._complaint)
        return self._unreachable(f"{self._where} closed the connection")

    def _turned_away(self, why: str) -> PeanutError:
        detail = f" ({printable(why)})" if why else ""
        return PeanutError(
            f"the gateway {self._where} closed the connection when it saw our certificate{detail}",
            "Its log says why. Is this the fleet home (--home) of that gateway (--gateway)?",
            Exit.CERTIFICATE,
        )

    def _no_answer(self, seconds: float) -> PeanutError:
        node = self._command.node
        if self._accepted:
            return PeanutError(
                f"{node} accepted, and was not done within {seconds:g} s",
                "It may still be; give it a longer --timeout.",
                Exit.TIMEOUT,
            )
        if self._presence not in ("online", ""):
            return PeanutError(
                f"{node} is {self._presence} and did not answer within {seconds:g} s",
                f"The command is void after {self._command.lifetime} s. Look at the node's power and network.",
                Exit.OFFLINE,
            )
        if not self._presence:
            return PeanutError(
                f"{node} has never been seen by this gateway and did not answer within {seconds:g} s",
                "Start the node. Is it configured for this gateway (peanut device show)?",
                Exit.OFFLINE,
            )
        return PeanutError(
            f"{node} is online, and did not answer within {seconds:g} s",
            "Try again with a longer --timeout.",
            Exit.TIMEOUT,
        )

    def _watch_presence(self) -> None:
        if self._told_offline or not self._sent or self._accepted:
            return
        detail = ""
        if self._presence and self._presence != "online":
            detail = f"{self._command.node} is {self._presence}; waiting for it"
        elif not self._presence and (self._unheard or time.monotonic() - self._start > STATUS_S):
            detail = f"{self._command.node} has never been seen by this gateway; waiting for it"
        elif self._unheard:
            detail = f"{self._command.node} is not listening; waiting for it"
        if detail:
            self._told_offline = True
            self._report(Stage.OFFLINE, detail)

    def _report(self, stage: Stage, detail: str = "", state: dict[str, Any] | None = None) -> None:
        self._tell(Progress(stage, time.monotonic() - self._start, detail, state or {}))

    def _publish(self) -> None:
        payload = self._payload = json.dumps(self._document(), ensure_ascii=False).encode()
        if len(payload) > PAYLOAD_MAX:
            raise PeanutError(f"the command is {len(payload)} bytes long", f"At most {PAYLOAD_MAX} fit.")
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.MessageExpiryInterval = self._command.lifetime
        self._mid = self._client.publish(self._command.topic, payload, qos=1, retain=False, properties=properties).mid

    def _document(self) -> dict[str, Any]:
        command = self._command
        if command.key is None or self._session is None:
            return {**command.body, "id": self._id, "exp": int(time.time()) + LIFETIME_S}
        return signing.signed(command.key, command.node, command.verb, self._id, command.argument, self._session)

    # What follows is called by paho, from within its loop().

    def _on_connect(
        self, client: mqtt.Client, _userdata: Any, _flags: mqtt.ConnectFlags, reason: ReasonCode, _properties: Any
    ) -> None:
        self._connected = True
        if reason.is_failure:
            self._failure = PeanutError(
                f"the gateway refused the connection: {reason}", "Its log says why.", Exit.REFUSED
            )
            return
        options = SubscribeOptions(qos=1)
        topics = ("ack", "status") if self._command.key is None else ("ack", "status", "session")
        client.subscribe([(f"{self._command.root}/{name}", options) for name in topics])

    def _on_subscribe(
        self, _client: mqtt.Client, _userdata: Any, _mid: int, reasons: list[ReasonCode], _properties: Any
    ) -> None:
        refused = next((r for r in reasons if r.value > _SUCCESS_MAX), None)
        if refused is not None:
            self._failure = PeanutError(
                f"the gateway does not let this operator read the answers of {self._command.node}: {refused}",
                "Use an operator who may: --operator NAME.",
                Exit.REFUSED,
            )
        self._subscribed = True

    def _on_publish(self, _client: mqtt.Client, _userdata: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        if mid != self._mid:
            return
        if reason.value > _SUCCESS_MAX:
            self._failure = PeanutError(
                f"the gateway does not let this operator command {self._command.node}: {reason}",
                "Use an operator who may: --operator NAME.",
                Exit.REFUSED,
            )
            return
        self._mark_sent()
        self._unheard = reason.value == _NO_SUBSCRIBERS

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _userdata: Any,
        flags: mqtt.DisconnectFlags,
        reason: ReasonCode,
        _properties: Any,
    ) -> None:
        if flags.is_disconnect_packet_from_server and self._failure is None:
            self._failure = PeanutError(f"the gateway ended the session: {reason}", "Its log says why.", Exit.REFUSED)

    def _mark_sent(self) -> None:
        if not self._sent:
            self._sent = True
            self._report(Stage.SENT, f"{self._command.text} to {self._command.topic}")

    def _on_message(self, _client: mqtt.Client, _userdata: Any, message: mqtt.MQTTMessage) -> None:
        try:
            content = json.loads(message.payload)
        except (ValueError, RecursionError):
            return
        if not isinstance(content, dict):
            return
        if message.topic.endswith("/status"):
            state = content.get("state")
            self._presence = printable(state, 20) if isinstance(state, str) else ""
        elif message.retain:
            return
        elif message.topic.endswith("/session"):
            self._session = signing.session(content)
        elif content.get("id") == self._id:
            self._on_answer(content)

    def _on_answer(self, content: dict[str, Any]) -> None:
        stage, state = content.get("stage"), content.get("state")
        state = state if isinstance(state, dict) else {}
        key = self._command.key
        if key is not None and not signing.genuine(key, self._command.node, self._payload, content):
            return  # not the vehicle's word: anybody could have said it
        if stage in ("accepted", "done", "rejected"):
            self._mark_sent()  # the node was quicker than the gateway's PUBACK
        if stage == "accepted":
            self._accepted = True
            self._report(Stage.ACCEPTED)
        elif stage == "done":
            self._end = Stage.DONE
            self._report(Stage.DONE, describe(state), state)
        elif stage == "rejected":
            self._end = Stage.REJECTED
            self._report(Stage.REJECTED, printable(content.get("why") or "no reason given"), state)

    def _on_log(self, _client: mqtt.Client, _userdata: Any, level: int, text: str) -> None:
        # The only place where paho says why a socket died.
        if level == mqtt.MQTT_LOG_ERR and "socket" in text:
            self._complaint = text.partition(": ")[2]


_FIRST = ("setpoint", "temperature", "heater", "vent", "mode", "reason")


def _place(key: str) -> int:
    # MicroPython's dictionaries have no order of their own
    return _FIRST.index(key) if key in _FIRST else len(_FIRST)


def describe(state: dict[str, Any]) -> str:
    """A node's state in one line: `setpoint 15.0, heater off`."""
    words = {True: "on", False: "off"}
    return printable(
        ", ".join(
            f"{key} {words[value] if isinstance(value, bool) else value}"
            for key, value in sorted(state.items(), key=lambda item: _place(item[0]))
            if isinstance(value, bool | int | float | str)
        )
    )
