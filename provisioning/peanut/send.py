"""`peanut send`: one command to one node, and what becomes of it.

Rules: subscribe to the answer before asking; never retained; a text that came over the network is made printable before
it is shown. Commands to a vehicle are signed for its present session, and only answers with its receipt are believed.
"""

import difflib
import json
import re
import secrets
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import paho.mqtt.client as mqtt

from peanut import names, session, signing
from peanut.errors import Exit, PeanutError
from peanut.names import Kind, printable

LIFETIME_S = 60  # how long a command stays valid: `exp`, and the message expiry of MQTT 5
TIMEOUT_S = 30.0  # default of --timeout
STATUS_S = 1.0  # a retained status arrives with the SUBACK; this long after it, there is none
PAYLOAD_MAX = 4096  # bytes, agreement 2
UPDATE = "UpdateTemperature"
SESSION = "cmd/session"  # below a vehicle's root: it answers with its session, at once
ALIKE = 0.8  # of a word that is meant for another, by difflib
_VERB = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,31}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,6}(\.[0-9]{1,6})?")  # float() would take 1_5 and digits of other scripts too
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
    if difflib.get_close_matches(verb.lower(), [UPDATE.lower()], cutoff=ALIKE):
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
                f"{printable(text)!r} is not KEY=VALUE",
                f"For example: peanut send peanut heater mode=off. A number alone is for {UPDATE}.",
            )
        if key in arguments:
            raise PeanutError(f"{key!r} is given twice", "Give it once.")
        try:
            arguments[key] = json.loads(value)
        except ValueError:
            arguments[key] = value
    return arguments


class Exchange:
    """One command and its answer. `run` is called once; progress is told as it happens."""

    def __init__(
        self, command: Command, gateway: tuple[str, int], context: ssl.SSLContext, tell: Callable[[Progress], None]
    ) -> None:
        self._command = command
        self._tell = tell
        self._id = secrets.token_hex(8)
        self._end: Stage | None = None
        self._sent = self._accepted = False
        self._presence = ""  # what the last status said: online, offline, sleeping
        self._unheard = False
        self._told_offline = False
        self._start = time.monotonic()
        self._mid = -1
        self._payload = b""
        self._session: signing.Session | None = None  # of a vehicle, as it stands now
        topics = ("ack", "status") if command.key is None else ("ack", "status", "session")
        filters = [f"{command.root}/{name}" for name in topics]
        self._gateway = session.Session(gateway, context, filters, command.node, self._on_message, self._on_publish)

    def run(self, timeout: float) -> Stage:
        """Stage.DONE or Stage.REJECTED, the node's last word; PeanutError with the exit status if there is none.

        timeout: seconds for the node's answer, counted from when the gateway lets us ask.
        """
        self._gateway.connect()
        try:
            if self._command.key is not None:
                self._ask_session(timeout)
            self._publish()
            self._start = time.monotonic()
            self._until(lambda: self._end is not None, timeout)
            assert self._end is not None
            return self._end
        finally:
            self._gateway.close()

    def _until(self, finished: Callable[[], bool], timeout: float) -> None:
        self._gateway.until(finished, timeout, lambda: self._no_answer(timeout), self._watch_presence)

    def _ask_session(self, timeout: float) -> None:
        """A retained session may be a minute old, and its clock with it: the vehicle is asked for a fresh one."""
        self._start = time.monotonic()
        self._gateway.publish(f"{self._command.root}/{SESSION}", b"", qos=0)
        self._until(lambda: self._session is not None, timeout)

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
        self._mid = self._gateway.publish(self._command.topic, payload, lifetime_s=self._command.lifetime)

    def _document(self) -> dict[str, Any]:
        command = self._command
        if command.key is None or self._session is None:
            return {**command.body, "id": self._id, "exp": int(time.time()) + LIFETIME_S}
        return signing.signed(command.key, command.node, command.verb, self._id, command.argument, self._session)

    # What follows is called by the gateway's session, from within `until`.

    def _on_publish(self, mid: int, code: int, reason: str) -> None:
        if mid != self._mid:
            return
        if code > session.SUCCESS_MAX:
            self._gateway.failure = PeanutError(
                f"the gateway does not let this operator command {self._command.node}: {reason}",
                "Use an operator who may: --operator NAME.",
                Exit.REFUSED,
            )
            return
        self._mark_sent()
        self._unheard = code == _NO_SUBSCRIBERS

    def _mark_sent(self) -> None:
        if not self._sent:
            self._sent = True
            self._report(Stage.SENT, f"{self._command.text} to {self._command.topic}")

    def _on_message(self, message: mqtt.MQTTMessage) -> None:
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
            if self._command.key is not None and self._session is None:
                self._session = signing.session(self._command.key, self._command.node, content)
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
