"""Wrong packets: every way in which a client's bytes can break the standard, in every state of a connection.

The rule it keeps: a case is data (the state, the bytes, the clause, what the standard says becomes of it), made from
tables of the standard and never from an answer of the core. Each case goes through a connection of its own, in pieces,
while two bystanders exchange messages between the pieces; they must see every one, and nothing may be left behind.

Where the standard forbids and leaves the answer open, a case allows every reason code that can be argued for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product

import pytest

from tests.broker.house import Client, House, Packet, Verdict, ack, connect, properties, publish
from tests.reference import codec

MALFORMED, PROTOCOL, TOPIC_NAME, ALIAS, TOO_LARGE = 0x81, 0x82, 0x90, 0x94, 0x95
FORBIDDEN = (MALFORMED, PROTOCOL)
"""A MUST NOT for which the standard names no reason code."""

LIVE = ("live", "waiting")
"""States in which a client has said who it is: let in, or not judged yet (5.0 §3.1.4 lets it go on meanwhile)."""

PROVING = ("proving", "again")
"""The same in 5.0 with enhanced authentication (§4.12): challenged before it is in, and while it is in (§4.12.1)."""

LIMITS = {"max_packet_size": 2000, "max_parked_bytes": 1500, "receive_maximum": 5}


# --- cases ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """`closed`: the reason codes with which the connection may end; empty: it goes on, and `answer` is all it hears.

    `silent`: not even a CONNACK may say why (MQTT-3.1.0-1, MQTT-3.14.0-1). `told`: a CONNACK must. `limits`: of the
    broker, where a case needs other ones.
    """

    name: str
    clause: str
    version: int
    data: bytes
    closed: tuple[int, ...] = ()
    answer: tuple[Packet, ...] = ()
    state: str = "live"
    silent: bool = False
    told: bool = False
    limits: tuple[tuple[str, int], ...] = ()


def number(value: int, size: int = 2) -> bytes:
    return value.to_bytes(size, "big")


def text(value: str | bytes) -> bytes:
    """A string or binary data with its length in front (5.0 §1.5.4, §1.5.6)."""
    raw = value.encode() if isinstance(value, str) else value
    return number(len(raw)) + raw


def varint(value: int) -> bytes:
    """5.0 §1.5.5."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def packet(first: int, body: bytes) -> bytes:
    return bytes([first]) + varint(len(body)) + body


def props(raw: bytes = b"") -> bytes:
    return varint(len(raw)) + raw


@dataclass(frozen=True)
class Part:
    """A field of a packet; `end`: the packet may end behind it; `free`: it may end anywhere inside; `short`: what it is
    when the packet ends in front of it."""

    what: str
    data: bytes
    end: bool = False
    free: bool = False
    short: int = MALFORMED


@dataclass(frozen=True)
class Shape:
    """A valid packet as its fields; `may_grow`: bytes behind its end are not trailing bytes but more of it."""

    kind: str
    version: int
    first: int
    parts: tuple[Part, ...] = field(default_factory=tuple)
    may_grow: bool = False

    def data(self, **other: bytes) -> bytes:
        """The packet, with other bytes in the fields named."""
        return packet(self.first, b"".join(other.get(part.what, part.data) for part in self.parts))


ALL_PROPS = {
    "PUBLISH": "01 01 02 0000003C 03 0001 74 08 0001 72 09 0001 FF 26 0001 6B 0001 76",
    "PUBACK": "1F 0002 6E6F 26 0001 6B 0001 76",
    "SUBSCRIBE": "26 0001 6B 0001 76",
    "DISCONNECT": "11 00000000 1F 0003 627965 26 0001 6B 0001 76",
    "AUTH": "15 0001 78 16 0001 79 1F 0002 6E6F 26 0001 6B 0001 76",
    "CONNECT": "11 0000003C 21 0005 27 00001000 22 0005 19 01 17 01 26 0001 6B 0001 76",
    "will": "18 00000005 01 01 02 0000003C 03 0001 74 08 0001 72 09 0001 FF 26 0001 6B 0001 76",
}


def _props(version: int, kind: str, **how: bool) -> tuple[Part, ...]:
    return (Part("props", props(bytes.fromhex(ALL_PROPS[kind])), **how),) if version == 5 else ()


def _connect(version: int) -> Shape:
    """Every field that a CONNECT may have."""
    name = "MQIsdp" if version == 3 else "MQTT"
    will_props = (Part("will props", props(bytes.fromhex(ALL_PROPS["will"]))),) if version == 5 else ()
    return Shape(
        "CONNECT",
        version,
        0x10,
        (
            Part("name", text(name)),
            Part("level", bytes([version])),
            Part("flags", b"\xf6"),
            Part("keep alive", number(60)),
            *_props(version, "CONNECT"),
            Part("client id", text("wrong")),
            *will_props,
            Part("will topic", text("gone/wrong")),
            Part("will payload", text("gone")),
            Part("user name", text("user")),
            Part("password", text("secret"), end=True),
        ),
    )


def _shapes(version: int) -> dict[str, Shape]:
    """A packet of each type that a client may send, with every field."""
    new = version == 5
    one = Part("id", number(9))
    acks = {
        kind: Shape(
            kind,
            version,
            first,
            (
                Part("id", number(9), end=True),
                *((Part("reason", b"\0", end=True), *_props(5, "PUBACK", end=True)) if new else ()),
            ),
        )
        for kind, first in (("PUBACK", 0x40), ("PUBREC", 0x50), ("PUBREL", 0x62), ("PUBCOMP", 0x70))
    }
    shapes = {
        "CONNECT": _connect(version),
        "PUBLISH": Shape(
            "PUBLISH",
            version,
            0x32,
            (
                Part("topic", text("a/b")),
                Part("id", number(9), end=not new),
                *_props(version, "PUBLISH", end=True),
                Part("payload", b"payload", end=True, free=True),
            ),
            may_grow=True,
        ),
        **acks,
        "SUBSCRIBE": Shape(
            "SUBSCRIBE",
            version,
            0x82,
            (
                one,
                *_props(version, "SUBSCRIBE"),
                Part("filter", text("a/b"), short=PROTOCOL),
                Part("options", b"\1", end=True),
                Part("filter 2", text("b/+")),
                Part("options 2", b"\2", end=True),
            ),
        ),
        "UNSUBSCRIBE": Shape(
            "UNSUBSCRIBE",
            version,
            0xA2,
            (
                one,
                *_props(version, "SUBSCRIBE"),
                Part("filter", text("a/b"), end=True, short=PROTOCOL),
                Part("filter 2", text("b/+"), end=True),
            ),
        ),
        "PINGREQ": Shape("PINGREQ", version, 0xC0),
        "DISCONNECT": Shape(
            "DISCONNECT",
            version,
            0xE0,
            (Part("reason", b"\4", end=True), *_props(5, "DISCONNECT", end=True)) if new else (),
        ),
    }
    if new:
        shapes["AUTH"] = Shape("AUTH", 5, 0xF0, (Part("reason", b"\x18"), *_props(5, "AUTH", end=True)))
    return shapes


SHAPES = {version: _shapes(version) for version in (4, 5)}
MAY_END_EMPTY = {"PINGREQ", "DISCONNECT", "AUTH"}


# --- what the cases go through ----------------------------------------------------------------------------------------


class Street:
    """A house whose bystanders talk while others misbehave, and a list of what was not as it should be."""

    def __init__(self, **limits: int) -> None:
        self.house = House(**{**LIMITS, **limits})
        self.speaker = self.house.join("speaker", 5)
        self.listener = self.house.join("listener", 4)
        self.qos = min(1, limits.get("max_qos", 1))
        assert self.listener.subscribe("bystanders", qos=1) == [self.qos]
        self.said = 0
        self.wrong: list[str] = []

    def exchange(self) -> None:
        """One bystander says something; the other must hear it, and nothing else."""
        self.said += 1
        word = b"%d" % self.said
        self.speaker.send(publish("bystanders", word, self.qos))
        assert self.speaker.read() == [ack("PUBACK", 1)] * self.qos
        heard = self.listener.only()
        assert (heard["topic"], heard["payload"], heard["qos"]) == ("bystanders", word, self.qos)
        if self.qos:
            self.listener.send(ack("PUBACK", heard["id"]))
        assert self.listener.read() == []

    def enter(self, case: Case) -> Client:
        """A connection in the state of the case."""
        client = self.house.open(Verdict(wait=case.state in ("waiting", *PROVING)))
        if case.state == "new":
            client.version = case.version
            client._decoder = codec.Decoder(case.version)
            return client
        if case.state in PROVING:
            client.connect("wrong", 5, props=properties(authentication_method="M"))
            if case.state == "again":
                client.verdict = Verdict()
                self.house.judge(client)
                client.send({"type": "AUTH", "reason": 0x19, "properties": properties(authentication_method="M")})
            self.house.handle(client.link.challenge(b"?", now=self.house.now))
            assert [packet["type"] for packet in client.read()][-1] == "AUTH"
            return client
        client.connect("wrong", case.version)
        if case.state == "live":
            assert client.connack is not None
            assert client.connack["reason"] == 0
        return client

    def run(self, case: Case) -> None:
        client = self.enter(case)
        middle = len(case.name) * 7 % (len(case.data) + 1)
        client.feed(case.data[:middle])
        self.exchange()
        client.feed(case.data[middle:])
        if case.state == "waiting":
            assert client.link.pending == 0, "an answer before the verdict"
            assert client.closed is None
            client.verdict = Verdict()
            self.house.judge(client)
            client.read_connack()
            assert client.connack is not None
        if problem := self.judge(case, client):
            self.wrong.append(f"{case.state} v{case.version} {case.name} ({case.clause}): {problem}")
        client.lose()
        self.exchange()

    def judge(self, case: Case, client: Client) -> str:
        """What is not as the case says, or nothing."""
        if case.state == "proving":  # MQTT-3.1.2-30: nothing is right here but an AUTH, or a DISCONNECT
            case = replace(case, closed=(*case.closed, PROTOCOL), answer=(), told=False)
        if not case.closed:
            if client.closed is not None:
                return f"closed with {client.closed:#04x}"
            heard = client.read()
            if any(packet["type"] == "DISCONNECT" for packet in heard):
                return "a DISCONNECT, yet open"
            plain = [{**packet, "properties": []} if "properties" in packet else packet for packet in heard]
            if plain != list(case.answer):
                return f"answered with {plain}, not with {list(case.answer)}"
            client.send({"type": "PINGREQ"})
            return "" if client.read() == [{"type": "PINGRESP"}] else "does not go on"
        if client.closed is None:
            return f"not closed; it heard {client.read()}"
        if client.closed not in case.closed:
            return f"closed with {client.closed:#04x}, not with one of {[hex(code) for code in case.closed]}"
        try:
            heard = client.read()
        except codec.MqttError as error:
            return f"an answer that is no packet: {error}"
        told = [(packet["type"], packet.get("reason")) for packet in heard]
        if case.state in ("new", "proving"):
            words = [[("CONNACK", code)] for code in ([client.closed] if case.version == 5 else range(1, 6))]
            allowed = [[]] if case.silent else [*words] if case.told else [[], *words]
        elif case.version == 5:
            allowed = [[("DISCONNECT", client.closed)]]
        else:
            allowed = [[]]
        if told[len(case.answer) :] not in allowed:
            return f"heard {told}"
        if heard[: len(case.answer)] != list(case.answer):
            return f"answered with {heard}, not first with {list(case.answer)}"
        client.feed(b"\xc0\0\x30\5\0\1a")
        return "" if client.take() == b"" else "goes on behind its end"

    def over(self) -> None:
        """All went home, and nothing of them stayed."""
        assert self.wrong == [], f"{len(self.wrong)} cases:\n" + "\n".join(self.wrong[:40])
        stats = self.house.broker.stats()
        assert (stats["links"], stats["sessions"], stats["subscriptions"], stats["retained"]) == (2, 2, 1, 0)
        assert stats["dropped_queue_full"] == stats["dropped_slow_reader"] == 0


def walk(cases: Iterator[Case]) -> int:
    """Lets every case pass, those with the same limits in one street; the count."""
    streets: dict[tuple[tuple[str, int], ...], Street] = {}
    count = 0
    for case in cases:
        if case.limits not in streets:
            streets[case.limits] = Street(**dict(case.limits))
        streets[case.limits].run(case)
        count += 1
    for street in streets.values():
        street.over()
    return count


def everywhere(case: Case) -> Iterator[Case]:
    """The same in each state of a client that has said who it is."""
    for state in LIVE if case.version < 5 else LIVE + PROVING:
        if state == "proving" and case.data[0] >> 4 == 14 and case.closed != (MALFORMED,):
            continue  # a DISCONNECT is right there, and what it says is not looked at
        yield replace(case, state=state)


# --- the fixed header -------------------------------------------------------------------------------------------------

FLAGS_CLAUSE = {
    "PUBREL": "MQTT-3.6.1-1",
    "SUBSCRIBE": "MQTT-3.8.1-1",
    "UNSUBSCRIBE": "MQTT-3.10.1-1",
    "DISCONNECT": "MQTT-3.14.1-1",
    "AUTH": "MQTT-3.15.1-1",
}


def wrong_flags(version: int) -> Iterator[Case]:
    """MQTT-2.1.3-1; 3.1.1 MQTT-2.2.2-1, MQTT-2.2.2-2: each type with each of the flags that it does not have."""
    general = "MQTT-2.1.3-1" if version == 5 else "3.1.1 MQTT-2.2.2-2"
    for kind, shape in SHAPES[version].items():
        if kind == "PUBLISH":
            continue
        clause = FLAGS_CLAUSE.get(kind, general)
        for flags in set(range(16)) - {shape.first & 15}:
            data = bytes([shape.first & 0xF0 | flags]) + shape.data()[1:]
            case = Case(f"{kind} with flags {flags:04b}", clause, version, data, (MALFORMED,))
            if kind == "CONNECT":
                yield replace(case, state="new")
            yield from everywhere(case)
    body = SHAPES[version]["PUBLISH"].data()[1:]
    for retain, dup in product((0, 1), (0, 8)):
        for clause, flags in (("MQTT-3.3.1-4", 6 | dup | retain), ("MQTT-3.3.1-2", 8 | retain)):
            yield from everywhere(
                Case(f"PUBLISH with flags {flags:04b}", clause, version, bytes([0x30 | flags]) + body, FORBIDDEN)
            )


def reserved_types(version: int) -> Iterator[Case]:
    """5.0 §2.1.2, table 2-1; 3.1.1 §2.2.1: type 0, and before 5.0 type 15."""
    for kind in (0,) if version == 5 else (0, 15):
        for flags, body in product(range(16), (b"", b"\0", b"\0\1a")):
            data = packet(kind << 4 | flags, body)
            case = Case(f"type {kind} flags {flags}", "§2.1.2", version, data, FORBIDDEN)
            yield from everywhere(case)
            yield replace(case, state="new", silent=True)


def remaining_lengths(version: int) -> Iterator[Case]:
    """MQTT-1.5.5-1, 5.0 §2.1.4: four bytes at the most, and in 5.0 the fewest that do."""
    for shape in SHAPES[version].values():
        whole = shape.data()
        size = len(whole) - 2
        assert size < 128, "a length of one byte"
        for length in ("80808080", "FFFFFFFF", "80808080 01", "FFFFFFFF 7F"):
            yield from everywhere(
                Case(
                    f"{shape.kind} with length {length}",
                    "5.0 §1.5.5",
                    version,
                    whole[:1] + bytes.fromhex(length),
                    (MALFORMED,),
                )
            )
        if version == 5 and shape.kind != "CONNECT":
            for padding in (b"\0", b"\x80\0", b"\x80\x80\0"):
                data = whole[:1] + bytes([size | 0x80]) + padding + whole[2:]
                yield from everywhere(
                    Case(f"{shape.kind} with length + {padding!r}", "MQTT-1.5.5-1", 5, data, (MALFORMED,))
                )


def oversize(version: int) -> Iterator[Case]:
    """MQTT-3.2.2-15: larger than we announced; told from the header alone, before the bytes are there."""
    for shape in SHAPES[version].values():
        for size in (LIMITS["max_packet_size"] - 2, 16383, 16384, 2097151, 2097152, 268435455):
            for there in (b"", b"\0", b"x" * 400):
                case = Case(
                    f"{shape.kind} of {size}, {len(there)} there",
                    "MQTT-3.2.2-15",
                    version,
                    bytes([shape.first]) + varint(size) + there,
                    (TOO_LARGE,),
                )
                yield from everywhere(case)
                if shape.kind == "CONNECT":
                    yield replace(case, state="new")


# --- which packet, when -----------------------------------------------------------------------------------------------

FROM_SERVERS = {
    4: {"CONNACK": ["20020000", "20020005"], "SUBACK": ["9003000100"], "UNSUBACK": ["B0020001"], "PINGRESP": ["D000"]},
    5: {
        "CONNACK": ["2003000000", "2003008700"],
        "SUBACK": ["900400010000", "900400010080"],
        "UNSUBACK": ["B00400010000", "B00400010011"],
        "PINGRESP": ["D000"],
    },
}


def from_servers(version: int) -> Iterator[Case]:
    """5.0 §2.1.2, table 2-1 (direction of flow); 3.1.1 MQTT-4.8.0-1."""
    for kind, packets in FROM_SERVERS[version].items():
        for data in packets:
            case = Case(f"{kind} {data}", "§2.1.2", version, bytes.fromhex(data), (PROTOCOL,))
            yield from everywhere(case)
            yield replace(case, state="new", silent=True)


def not_first(version: int) -> Iterator[Case]:
    """MQTT-3.1.0-1: anything but CONNECT; a DISCONNECT before a CONNACK is out of the question (MQTT-3.14.0-1)."""
    for kind, shape in SHAPES[version].items():
        if kind == "CONNECT":
            continue
        for data in {shape.data(), bytes([shape.first, 0]), shape.data()[:1]}:
            yield Case(f"{kind} {data.hex()}", "MQTT-3.1.0-1", version, data, FORBIDDEN, state="new", silent=True)


def connect_again(version: int) -> Iterator[Case]:
    """MQTT-3.1.0-2: whatever the second one says."""
    for other in (3, 4, 5):
        for client_id, clean, user in product(("wrong", "speaker", ""), (False, True), (None, "user")):
            data = codec.encode(connect(client_id, other, clean=clean, username=user), other)
            yield from everywhere(Case(f"CONNECT v{other} {client_id!r}", "MQTT-3.1.0-2", version, data, (PROTOCOL,)))
    yield from everywhere(Case("CONNECT, all fields", "MQTT-3.1.0-2", version, _connect(version).data(), (PROTOCOL,)))


# --- fields: cut, too many, not UTF-8 ---------------------------------------------------------------------------------


def cut(version: int) -> Iterator[Case]:
    """5.0 §1.2, §4.13.1; 3.1.1 MQTT-4.8.0-1: a packet that ends inside each of its fields, at each of its bytes."""
    for kind, shape in SHAPES[version].items():
        body = b"".join(part.data for part in shape.parts)
        begin = 0
        may_end = kind in MAY_END_EMPTY
        for part in shape.parts:
            for at in range(len(part.data)):
                if (may_end and at == 0) or part.free:
                    continue
                code = part.short if at == 0 else MALFORMED
                case = Case(
                    f"{kind} ends {at} bytes into {part.what}",
                    "5.0 §4.13.1",
                    version,
                    packet(shape.first, body[: begin + at]),
                    FORBIDDEN if version == 4 or kind == "AUTH" else (code,),
                )
                if kind == "CONNECT":
                    yield replace(case, state="new")
                else:
                    yield from everywhere(case)
            begin += len(part.data)
            may_end = part.end


def too_many(version: int) -> Iterator[Case]:
    """5.0 §4.13.1; 3.1.1 MQTT-4.8.0-1: bytes behind the last field."""
    for kind, shape in SHAPES[version].items():
        if shape.may_grow:
            continue
        body = b"".join(part.data for part in shape.parts)
        for extra in (b"\0", b"x", b"\xff" * 3, b"\0\1"):
            case = Case(
                f"{kind} and {extra.hex()}",
                "5.0 §4.13.1",
                version,
                packet(shape.first, body + extra),
                FORBIDDEN if version == 4 or kind == "AUTH" else (MALFORMED,),
            )
            if kind == "CONNECT":
                yield replace(case, state="new")
            else:
                yield from everywhere(case)


NOT_UTF8 = {
    "a lone continuation": "80",
    "two lone continuations": "BFBF",
    "a lead without its byte": "C3",
    "a lead of three with one": "E282",
    "a lead of four with two": "F09F98",
    "overlong /": "C0AF",
    "overlong U+0000": "C080",
    "overlong of three": "E080AF",
    "overlong of four": "F08080AF",
    "surrogate D800": "EDA080",
    "surrogate DFFF": "EDBFBF",
    "a pair of surrogates": "EDA0BDEDB880",
    "beyond U+10FFFF": "F4908080",
    "a lead of five": "F888808080",
    "a lead of six": "FC8480808080",
    "FE": "FE",
    "FF": "FF",
    "U+0000": "00",
    "U+0000 inside": "610062",
    "bad behind good": "616263C3",
}
STRINGS = {
    "CONNECT": ("client id", "will topic", "user name"),
    "PUBLISH": ("topic",),
    "SUBSCRIBE": ("filter", "filter 2"),
    "UNSUBSCRIBE": ("filter", "filter 2"),
}


def not_utf8(version: int) -> Iterator[Case]:
    """MQTT-1.5.4-1, MQTT-1.5.4-2; 3.1.1 MQTT-1.5.3-1, MQTT-1.5.3-2: in every string there is, properties included."""
    for how, raw in NOT_UTF8.items():
        clause = "MQTT-1.5.4-2" if "0000" in how and "over" not in how else "MQTT-1.5.4-1"
        bad = text(bytes.fromhex(raw))
        for kind, names in STRINGS.items():
            for name in names:
                case = Case(
                    f"{kind}: {how} in {name}", clause, version, SHAPES[version][kind].data(**{name: bad}), (MALFORMED,)
                )
                if kind == "CONNECT":
                    yield replace(case, state="new")
                else:
                    yield from everywhere(case)
        if version == 4:
            continue
        for prop, (what, form, places) in codec.PROPERTIES.items():
            values = {"string": [bad], "pair": [bad + text("v"), text("k") + bad]}.get(form, [])
            for place, value in product(sorted(places & PLACES.keys()), values):
                yield from place_case(f"{how} in {what}", clause, place, bytes([prop]) + value, (MALFORMED,))


# --- properties -------------------------------------------------------------------------------------------------------


def _place(kind: str) -> Callable[[bytes], bytes]:
    where = "will props" if kind == "will" else "props"
    shape = SHAPES[5]["CONNECT" if kind == "will" else kind]
    return lambda raw: shape.data(**{where: props(raw)})


PLACES: dict[str, Callable[[bytes], bytes]] = {
    kind: _place(kind)
    for kind in (
        "CONNECT",
        "will",
        "PUBLISH",
        "PUBACK",
        "PUBREC",
        "PUBREL",
        "PUBCOMP",
        "SUBSCRIBE",
        "UNSUBSCRIBE",
        "DISCONNECT",
        "AUTH",
    )
}
"""The packet with these bytes as its properties."""

METHOD = bytes.fromhex("15 0001 78")

VALUES = {
    "byte": b"\1",
    "two": b"\0\1",
    "four": b"\0\0\0\1",
    "varint": b"\1",
    "binary": b"\0\1x",
    "string": b"\0\1x",
    "pair": b"\0\1k\0\1v",
}


def place_case(
    name: str, clause: str, place: str, raw: bytes, codes: tuple[int, ...], method: bool = True
) -> Iterator[Case]:
    """Properties `raw` in a packet; AUTH gets the method that it must have."""
    first = METHOD if place == "AUTH" and method and not raw.startswith(b"\x15") else b""
    codes = tuple({*codes, PROTOCOL}) if place == "AUTH" else codes  # no exchange was begun: 5.0 §4.12
    case = Case(f"{place}: {name}", clause, 5, PLACES[place](first + raw), codes)
    if place in ("CONNECT", "will"):
        yield replace(case, state="new")
    else:
        yield from everywhere(case)


def misplaced() -> Iterator[Case]:
    """5.0 §2.2.2.2: each property in each packet that does not have it."""
    for place in PLACES:
        for prop, (what, form, places) in codec.PROPERTIES.items():
            if place not in places:
                for more in (b"", bytes.fromhex("26 0001 6B 0001 76")):
                    if not more or what != "user_property":
                        raw = more + bytes([prop]) + VALUES[form]
                        yield from place_case(f"{what} does not belong", "5.0 §2.2.2.2", place, raw, (MALFORMED,))


def unknown() -> Iterator[Case]:
    """5.0 §2.2.2.2, table 2-4: identifiers that there are not, of one byte and of more."""
    beyond = [128, 129, 255, 256, 300, 16383, 16384, 2097151, 2097152, 268435455]
    for place in PLACES:
        for prop in [*(set(range(128)) - codec.PROPERTIES.keys()), *beyond]:
            raw = varint(prop) + b"\0\1x"
            yield from place_case(f"property {prop:#x}", "5.0 §2.2.2.2", place, raw, (MALFORMED,))
        for prop, (what, form, places) in codec.PROPERTIES.items():
            if place in places:
                raw = bytes([prop | 0x80, 0]) + VALUES[form]
                yield from place_case(f"{what} by two bytes", "MQTT-1.5.5-1", place, raw, (MALFORMED,))


def twice() -> Iterator[Case]:
    """5.0 §2.2.2.2 and each property's section: more than once, side by side and apart, alike and not."""
    for place in PLACES:
        for prop, (what, form, places) in codec.PROPERTIES.items():
            if place not in places or what == "user_property":
                continue
            one = bytes([prop]) + VALUES[form]
            other = bytes([prop]) + VALUES[form][:-1] + bytes([VALUES[form][-1] ^ 1])
            for raw in (one + one, one + other, one + bytes.fromhex("26 0001 6B 0001 76") + one):
                codes: tuple[int, ...] = (PROTOCOL,)
                if what in ("topic_alias", "subscription_identifier") and place == "PUBLISH":
                    codes = (PROTOCOL, ALIAS)
                yield from place_case(f"{what} twice", "5.0 §2.2.2.2", place, raw, codes)


OUT_OF_RANGE = {
    # 5.0 §3.1.2.11.3, §3.1.2.11.4, §3.1.2.11.6, §3.1.2.11.7, §3.3.2.3.2, §3.3.2.3.4, §3.8.2.1.2
    "receive_maximum": (b"\0\0",),
    "maximum_packet_size": (b"\0\0\0\0",),
    "request_response_information": tuple(bytes([n]) for n in range(2, 256)),
    "request_problem_information": tuple(bytes([n]) for n in range(2, 256)),
    "payload_format_indicator": tuple(bytes([n]) for n in range(2, 256)),
    "topic_alias": (b"\0\0",),
    "subscription_identifier": (b"\0", b"\x80\0", b"\x80\x80\x80\x80\1"),
}


def out_of_range() -> Iterator[Case]:
    """Values that a property must not have, by its section in 5.0 §3."""
    for what, values in OUT_OF_RANGE.items():
        prop = codec.PROPERTY_NUMBER[what]
        for place in sorted(codec.PROPERTIES[prop][2] & PLACES.keys()):
            for value in values:
                codes: tuple[int, ...] = (ALIAS, PROTOCOL) if what == "topic_alias" else (PROTOCOL,)
                if what == "payload_format_indicator" or len(value) > 1:
                    codes = (*codes, MALFORMED)
                yield from place_case(f"{what} of {value.hex()}", "5.0 §3", place, bytes([prop]) + value, codes)


def framing() -> Iterator[Case]:
    """MQTT-2.2.2-1, MQTT-1.5.5-1: the property length and the ends of properties."""
    for place, build in PLACES.items():
        shape = SHAPES[5]["CONNECT" if place == "will" else place]
        where = "will props" if place == "will" else "props"
        for prop, (what, form, places) in codec.PROPERTIES.items():
            if place not in places:
                continue
            for size in range(len(VALUES[form])):
                raw = bytes([prop]) + VALUES[form][:size]
                yield from place_case(f"{what} cut at {size}", "5.0 §2.2.2", place, raw, (MALFORMED,))
        for length in (b"\x80", b"\xff\xff\xff\xff", b"\x80\0", b"\x80\x80\x80\0", b"\x80\x80\x80\x80\1", b"\x7f"):
            data = shape.data(**{where: length})
            if length == b"\x80" and place not in ("PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "DISCONNECT", "AUTH"):
                continue  # the next field's bytes would go on with it
            codes = FORBIDDEN if place == "AUTH" else (MALFORMED,)
            case = Case(f"{place}: property length {length.hex()}", "MQTT-2.2.2-1", 5, data, codes)
            if place in ("CONNECT", "will"):
                yield replace(case, state="new")
            else:
                yield from everywhere(case)
        assert build(b"") != b""


def by_section() -> Iterator[Case]:
    """Properties that are wrong for what the connection is or has said before."""
    data = bytes.fromhex("16 0001 79")
    yield from place_case("data without method", "5.0 §3.1.2.11.10", "CONNECT", data, (PROTOCOL,))
    yield from place_case("no method", "5.0 §3.15.2.2.2", "AUTH", data, FORBIDDEN, method=False)
    for seconds in (1, 60, 0xFFFFFFFF):
        raw = b"\x11" + number(seconds, 4)
        yield from place_case("an expiry where there was none", "5.0 §3.14.2.2.2", "DISCONNECT", raw, (PROTOCOL,))
    for value in (b"\1", b"\x7f", b"\xff\xff\xff\x7f"):
        yield from place_case("from a client", "MQTT-3.3.4-6", "PUBLISH", b"\x0b" + value, (PROTOCOL,))
    for topic in ("+", "#", "a/+", "a/#", "+/b", "a+"):
        raw = b"\x08" + text(topic)
        codes = (*FORBIDDEN, TOPIC_NAME)
        for place in ("PUBLISH", "will"):
            yield from place_case(f"response topic {topic}", "MQTT-3.3.2-14", place, raw, codes)


# --- CONNECT ----------------------------------------------------------------------------------------------------------


def connect_flags(version: int) -> Iterator[Case]:
    """MQTT-3.1.2-3, MQTT-3.1.2-11 to MQTT-3.1.2-13; 3.1.1 MQTT-3.1.2-22: each of the 256, with its payload."""
    for flags in range(256):
        will, qos, retain = flags & 4, flags >> 3 & 3, flags & 0x20
        user, password = flags & 0x80, flags & 0x40
        wrong = flags & 1 or (not will and (qos or retain)) or qos == 3
        if not (wrong or (version < 5 and password and not user)):
            continue
        shape = _connect(version)
        leave: dict[str, bytes] = {}
        if not will:
            leave |= {"will props": b"", "will topic": b"", "will payload": b""}
        if not user:
            leave["user name"] = b""
        if not password:
            leave["password"] = b""
        data = shape.data(flags=bytes([flags]), **leave)
        yield Case(f"connect flags {flags:08b}", "MQTT-3.1.2-3", version, data, FORBIDDEN, state="new")


def flags_without_payload(version: int) -> Iterator[Case]:
    """MQTT-3.1.2-9, MQTT-3.1.2-16 to MQTT-3.1.2-19; 3.1.1 MQTT-3.1.2-18 to -21: a flag without its field, and without
    its flag a field."""
    every = _connect(version)
    fields = {
        0x80: {"user name": b""},
        0x40: {"password": b""},
        0x04: {"will props": b"", "will topic": b"", "will payload": b""},
    }
    for bits in (0x80, 0x40, 0x04, 0xC0, 0x44, 0x84, 0xC4):
        left = {name: value for bit, names in fields.items() if bits & bit for name, value in names.items()}
        yield Case(
            f"flags {bits:#x} without fields", "MQTT-3.1.2-9", version, every.data(**left), FORBIDDEN, state="new"
        )
        flags = 0xF6 & ~bits & (0xFF if not bits & 4 else 0xC7)
        if version < 5 and flags & 0xC0 == 0x40:
            continue
        yield Case(
            f"fields without flags {bits:#x}",
            "MQTT-3.1.2-16",
            version,
            every.data(flags=bytes([flags])),
            (*FORBIDDEN, TOPIC_NAME),
            state="new",
        )


def protocol_names(version: int) -> Iterator[Case]:
    """MQTT-3.1.2-1; 3.1.1 MQTT-3.1.2-1: not our protocol; closed, with or without a word."""
    for name in (
        "mqtt",
        "MQTt",
        "MQT",
        "MQTT5",
        "",
        "HTTP",
        "MQIsdP",
        "MQISDP",
        "\uff2d\uff31\uff34\uff34",
        "x" * 300,
        "MQTT\u00e9",
    ):
        for level in (3, 4) if version == 4 else (5,):
            data = _connect(level).data(name=text(name))
            yield Case(f"protocol {name[:9]!r} {level}", "MQTT-3.1.2-1", 4, data, (0x84, *FORBIDDEN), state="new")


def protocol_levels(version: int) -> Iterator[Case]:
    """3.1.1 MQTT-3.1.2-2, MQTT-3.1.2-2: levels that there are not, in every form that a CONNECT may have; the answer
    has the form that older clients read."""
    for name, levels in (("MQTT", (4, 5)), ("MQIsdp", (3,))):
        for level in set(range(256)) - set(levels):
            data = _connect(version).data(name=text(name), level=bytes([level]))
            yield Case(f"{name} {level}, like {version}", "MQTT-3.1.2-2", 4, data, (0x84,), state="new", told=True)


def will_topics(version: int) -> Iterator[Case]:
    """MQTT-4.7.3-1, MQTT-4.7.0-1: the will's topic is a topic name."""
    for topic in ("", "+", "#", "a/+", "a/#", "+/a", "a#", "#/a"):
        data = _connect(version).data(**{"will topic": text(topic)})
        yield Case(f"will topic {topic!r}", "MQTT-4.7.0-1", version, data, (TOPIC_NAME, *FORBIDDEN), state="new")


# --- PUBLISH ----------------------------------------------------------------------------------------------------------


def topic_names(version: int) -> Iterator[Case]:
    """MQTT-3.3.2-2, MQTT-4.7.0-1, MQTT-4.7.3-1; 3.1.1 MQTT-3.3.2-2, MQTT-4.7.1-1: wildcards, or nothing."""
    for topic, flags in product(
        ("+", "#", "a/+", "a/#", "+/a", "#/a", "a+", "a#b", "/+", "/#", "a/+/b", "$SYS/#", "$share/g/+"), range(6)
    ):
        body = text(topic) + (number(9) if flags & 6 else b"") + (b"\0" if version == 5 else b"") + b"x"
        data = packet(0x30 | flags, body)
        yield from everywhere(
            Case(f"topic {topic} flags {flags}", "MQTT-3.3.2-2", version, data, (TOPIC_NAME, *FORBIDDEN))
        )
    for flags in range(6):
        body = text("") + (number(9) if flags & 6 else b"") + (b"\0" if version == 5 else b"") + b"x"
        codes = (PROTOCOL,) if version == 5 else (TOPIC_NAME, *FORBIDDEN)
        data = packet(0x30 | flags, body)
        yield from everywhere(Case(f"no topic, flags {flags}", "MQTT-4.7.3-1", version, data, codes))


def identifiers_of_zero(version: int) -> Iterator[Case]:
    """MQTT-2.2.1-3; 3.1.1 MQTT-2.3.1-1."""
    for kind in ("PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP"):
        for first in (0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D) if kind == "PUBLISH" else (None,):
            data = SHAPES[version][kind].data(id=number(0))
            data = bytes([first]) + data[1:] if first else data
            yield from everywhere(Case(f"{kind} with identifier 0", "MQTT-2.2.1-3", version, data, FORBIDDEN))


# --- SUBSCRIBE and UNSUBSCRIBE ----------------------------------------------------------------------------------------


def options(version: int) -> Iterator[Case]:
    """MQTT-3.8.3-5, 5.0 §3.8.3.1; 3.1.1 MQTT-3-8.3-4: each byte that is none, behind the first filter and a later."""
    for byte in range(256):
        reserved = byte & (0xC0 if version == 5 else 0xFC)
        qos_3, handling_3 = byte & 3 == 3, version == 5 and byte >> 4 & 3 == 3
        if not (reserved or qos_3 or handling_3):
            continue
        codes: tuple[int, ...] = FORBIDDEN
        if version == 5 and reserved and not (qos_3 or handling_3):
            codes = (MALFORMED,)
        if version == 5 and not reserved:
            codes = (PROTOCOL,) if handling_3 and not qos_3 else FORBIDDEN
        for where in ("options", "options 2"):
            data = SHAPES[version]["SUBSCRIBE"].data(**{where: bytes([byte])})
            yield from everywhere(Case(f"{where} {byte:08b}", "MQTT-3.8.3-5", version, data, codes))


BAD_FILTERS = ("a+", "+a", "a/b+", "+b/a", "#/a", "a#", "#a", "a/#/b", "a/b#", "++", "##", "a/+b/c", "#/#", "/#/", "+#")


def filters(version: int) -> Iterator[Case]:
    """MQTT-4.7.1-1, MQTT-4.7.1-2; 3.1.1 MQTT-4.7.1-2, MQTT-4.7.1-3: refused alone, or (UNSUBSCRIBE) there is no such
    subscription; an empty one (MQTT-4.7.3-1) ends the connection or is refused."""
    bare = {"props": b"\0"} if version == 5 else {}
    for bad in BAD_FILTERS:
        shape = SHAPES[version]["SUBSCRIBE"].parts
        for at, where in enumerate(("filter", "filter 2")):
            data = SHAPES[version]["SUBSCRIBE"].data(**bare, **{where: text(bad)})
            reasons = [1, 2]
            reasons[at] = 0x8F if version == 5 else 0x80
            answer: Packet = {"type": "SUBACK", "id": 9, "properties": [], "reasons": reasons}
            yield from everywhere(Case(f"{where} {bad}", "MQTT-4.7.1-1", version, data, answer=(answer,)))
        assert len(shape) >= 5
        data = SHAPES[version]["UNSUBSCRIBE"].data(**bare, filter=text(bad))
        answer = {"type": "UNSUBACK", "id": 9, "properties": [], "reasons": [0x11, 0x11] if version == 5 else []}
        if version == 4:  # before 5.0 nothing can be said but that it was read
            yield from everywhere(Case(f"UNSUBSCRIBE {bad}", "3.1.1 MQTT-3.10.4-5", 4, data, answer=(answer,)))
    for kind, where in product(("SUBSCRIBE", "UNSUBSCRIBE"), ("filter", "filter 2")):
        data = SHAPES[version][kind].data(**{where: text("")})
        codes = (*FORBIDDEN, 0x8F)
        yield from everywhere(Case(f"{kind} with an empty {where}", "MQTT-4.7.3-1", version, data, codes))


def shares(version: int) -> Iterator[Case]:
    """MQTT-4.8.2-1, MQTT-4.8.2-2: refused alone; MQTT-3.8.3-4: with no local the connection ends."""
    bare = {"props": b"\0"} if version == 5 else {}
    subscribe = SHAPES[version]["SUBSCRIBE"]
    for bad in ("$share/", "$share//", "$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/#/a", "$share/g+/a"):
        for at, where in enumerate(("filter", "filter 2")):
            reasons = [1, 2]
            reasons[at] = 0x8F if version == 5 else 0x80
            answer: Packet = {"type": "SUBACK", "id": 9, "properties": [], "reasons": reasons}
            data = subscribe.data(**bare, **{where: text(bad)})
            yield from everywhere(Case(f"{where} {bad}", "MQTT-4.8.2-2", version, data, answer=(answer,)))
    if version == 5:
        for name, option in product(("$share/g/a", "$share/g/#", "$share/g/+/b", "$share//a"), (4, 5, 6, 0x0C, 0x14)):
            data = subscribe.data(**{"filter 2": text(name), "options 2": bytes([option])})
            codes = (PROTOCOL,) if "//" not in name else (PROTOCOL, 0x8F)
            yield from everywhere(Case(f"no local, {name} {option}", "MQTT-3.8.3-4", 5, data, codes))


# --- what CONNACK said is not to be had -------------------------------------------------------------------------------


def not_available(version: int) -> Iterator[Case]:
    """MQTT-3.2.2-9 to MQTT-3.2.2-14, 5.0 §3.2.2.3.11, §3.2.2.3.13: QoS, RETAIN, wildcards and shares that are switched
    off, in PUBLISH, SUBSCRIBE and as a will."""
    none = b"\0" if version == 5 else b""
    for most, flags in product((0, 1), (0x32, 0x33, 0x3A, 0x34, 0x35, 0x3C)):
        if flags >> 1 & 3 > most:
            data = packet(flags, text("a") + number(9) + none + b"x")
            case = Case(f"PUBLISH {flags:#x}", "MQTT-3.2.2-11", version, data, (0x9B,), limits=(("max_qos", most),))
            yield from everywhere(case)
    for flags in (0x31, 0x33, 0x35, 0x3B, 0x3D):
        for payload in (b"x", b""):
            data = packet(flags, text("a") + (number(9) if flags & 6 else b"") + none + payload)
            off = (("retain_available", 0),)
            yield from everywhere(Case(f"PUBLISH {flags:#x}", "MQTT-3.2.2-14", version, data, (0x9A,), limits=off))
    for switch, names, code in (
        ("wildcard_subscriptions", ("#", "+", "a/+", "a/#", "+/a"), 0xA2),
        ("shared_subscriptions", ("$share/g/a", "$share/g/b/c"), 0x9E),
    ):
        for name in names:
            body = number(9) + none + text(name) + b"\1" + text("a") + b"\0"
            answer = {"type": "SUBACK", "id": 9, "properties": [], "reasons": [code if version == 5 else 0x80, 0]}
            yield from everywhere(
                Case(
                    f"{name} without {switch}",
                    "5.0 §3.2.2.3",
                    version,
                    packet(0x82, body),
                    answer=(answer,),
                    limits=((switch, 0),),
                )
            )


def unlike_its_format() -> Iterator[Case]:
    """5.0 §3.3.2.3.2: a payload that calls itself UTF-8 and is not, where that is checked: 0x99."""
    on = (("payload_format_check", 1),)
    for how, raw in NOT_UTF8.items():
        if "0000" in how:
            continue  # U+0000 is fit for a payload
        for flags in (0x30, 0x32, 0x34):
            said = props(b"\1\1")
            data = packet(flags, text("a") + (number(9) if flags & 6 else b"") + said + bytes.fromhex(raw))
            case = Case(f"{how} in a payload", "5.0 §3.3.2.3.2", 5, data, limits=on)
            if flags == 0x30:
                yield from everywhere(replace(case, closed=(0x99,)))
            else:
                kind = "PUBACK" if flags == 0x32 else "PUBREC"
                yield from everywhere(replace(case, answer=(ack(kind, 9, 0x99),)))


# --- AUTH -------------------------------------------------------------------------------------------------------------


def auths() -> Iterator[Case]:
    """5.0 §4.12, MQTT-4.12.0-3, MQTT-4.12.0-5, MQTT-4.12.0-7, MQTT-4.12.1-1: reasons and methods that do not fit."""
    for reason, method in product((0x00, 0x18, 0x19), ("m", "MM", "", "M\u0000"[:1] + "x")):
        raw = b"\x15" + text(method) + b"\x16" + text("data")
        data = packet(0xF0, bytes([reason]) + props(raw))
        yield from everywhere(Case(f"AUTH {reason:#x} {method!r}", "MQTT-4.12.0-5", 5, data, (PROTOCOL, 0x8C)))
    for reason in (0x00, 0x19):
        data = packet(0xF0, bytes([reason]) + props(b"\x15" + text("M")))
        for state in LIVE + PROVING:
            yield Case(f"AUTH {reason:#x} in an exchange", "MQTT-4.12.0-3", 5, data, (PROTOCOL,), state=state)
    data = packet(0xF0, b"\x18" + props(b"\x15" + text("M")))
    yield from (Case("AUTH without a beginning", "MQTT-4.12.0-7", 5, data, (PROTOCOL,), state=state) for state in LIVE)


# --- acknowledgements -------------------------------------------------------------------------------------------------


def reasons() -> Iterator[Case]:
    """MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1, MQTT-3.14.2-1, MQTT-3.15.2-1: not their codes."""
    clause = {
        "PUBACK": "MQTT-3.4.2-1",
        "PUBREC": "MQTT-3.5.2-1",
        "PUBREL": "MQTT-3.6.2-1",
        "PUBCOMP": "MQTT-3.7.2-1",
        "DISCONNECT": "MQTT-3.14.2-1",
        "AUTH": "MQTT-3.15.2-1",
    }
    for kind, number_ in clause.items():
        for reason in set(range(256)) - set(codec.REASONS[kind]):
            data = SHAPES[5][kind].data(reason=bytes([reason]))
            yield from everywhere(Case(f"{kind} with {reason:#04x}", number_, 5, data, FORBIDDEN))


IDS = (1, 2, 9, 255, 256, 32767, 32768, 65534, 65535)


def unknown_identifiers(version: int) -> Iterator[Case]:
    """5.0 §3.6.2.1, §3.7.2.1, MQTT-4.3.3-11: PUBREL and PUBREC of nothing are answered; PUBACK and PUBCOMP of nothing
    are no news."""
    missing = 0x92 if version == 5 else 0
    for name in IDS:
        for kind, answer in (("PUBREL", ack("PUBCOMP", name, missing)), ("PUBREC", ack("PUBREL", name, missing))):
            data = codec.encode(ack(kind, name), version)
            yield from everywhere(Case(f"{kind} {name}", "MQTT-4.3.3-11", version, data, answer=(answer,)))
            yield from everywhere(
                Case(f"{kind} {name} twice", "MQTT-4.3.3-11", version, data * 2, answer=(answer, answer))
            )
        for kind in ("PUBACK", "PUBCOMP"):
            data = codec.encode(ack(kind, name), version)
            yield from everywhere(Case(f"{kind} {name}", "5.0 §3.4", version, data * 2))
        if version == 5:
            for reason in codec.REASONS["PUBREC"]:
                if reason >= 0x80:
                    for kind in ("PUBACK", "PUBREC"):
                        data = codec.encode(ack(kind, name, reason), 5)
                        yield from everywhere(Case(f"{kind} {name} {reason:#x}", "MQTT-4.4.0-2", 5, data))
            for kind in ("PUBREL", "PUBCOMP"):
                answers = (ack("PUBCOMP", name, missing),) if kind == "PUBREL" else ()
                data = codec.encode(ack(kind, name, 0x92), 5)
                yield from everywhere(Case(f"{kind} {name} 0x92", "5.0 §3.6.2.1", 5, data, answer=answers))


def qos_2_in(version: int) -> Iterator[Case]:
    """MQTT-4.3.3-8 to MQTT-4.3.3-12: the exchange in a wrong order, its steps twice, its identifier used for others."""
    received = 0x10 if version == 5 else 0
    for name in IDS:
        two = codec.encode(publish("a", qos=2, number=name), version)
        again = codec.encode(publish("a", qos=2, number=name, dup=True), version)
        one = codec.encode(publish("a", qos=1, number=name), version)
        release = codec.encode(ack("PUBREL", name), version)
        pubrec, pubcomp = ack("PUBREC", name, received), ack("PUBCOMP", name)
        puback = ack("PUBACK", name, received)
        repeated = ack("PUBREC", name)
        missing = ack("PUBCOMP", name, 0x92 if version == 5 else 0)
        for what, data, answer in (
            ("PUBLISH again", two + again, (pubrec, repeated)),
            ("PUBLISH again without DUP", two + two, (pubrec, repeated)),
            ("PUBLISH thrice", two + again + again + release, (pubrec, repeated, repeated, pubcomp)),
            ("PUBREL twice", two + release + release, (pubrec, pubcomp, missing)),
            ("PUBREL first", release + two + release, (missing, pubrec, pubcomp)),
            ("begun with DUP", again + release, (pubrec, pubcomp)),
            ("QoS 1 under its identifier", two + one + release, (pubrec, puback, pubcomp)),
            ("QoS 1 with DUP", codec.encode(publish("a", qos=1, number=name, dup=True), version), (puback,)),
        ):
            case = Case(f"{what}, {name}", "MQTT-4.3.3-10", version, data, answer=answer)
            yield from everywhere(case)


def too_many_at_once(version: int) -> Iterator[Case]:
    """MQTT-3.3.4-7, 5.0 §3.3.4: one more than Receive Maximum, 0x93; before 5.0 the limit is ours."""
    room = LIMITS["receive_maximum"]
    for step in (1, 7, 1000):
        many = [codec.encode(publish("a", qos=2, number=n * step), version) for n in range(1, room + 2)]
        received = tuple(ack("PUBREC", n * step, 0x10 if version == 5 else 0) for n in range(1, room + 1))
        yield from everywhere(
            Case(f"{room + 1} at once, {step}", "MQTT-3.3.4-7", version, b"".join(many), (0x93,), answer=received)
        )


GROUPS: dict[str, Callable[[], Iterator[Case]] | Callable[[int], Iterator[Case]]] = {
    made.__name__: made
    for made in (
        wrong_flags,
        reserved_types,
        remaining_lengths,
        oversize,
        from_servers,
        not_first,
        connect_again,
        cut,
        too_many,
        not_utf8,
        misplaced,
        unknown,
        twice,
        out_of_range,
        framing,
        by_section,
        connect_flags,
        flags_without_payload,
        protocol_names,
        protocol_levels,
        will_topics,
        topic_names,
        identifiers_of_zero,
        options,
        filters,
        shares,
        not_available,
        unlike_its_format,
        auths,
        reasons,
        unknown_identifiers,
        qos_2_in,
        too_many_at_once,
    )
}
BOTH = {name for name, made in GROUPS.items() if "version" in made.__annotations__}


def cases(name: str, version: int) -> Iterator[Case]:
    made: Callable[..., Iterator[Case]] = GROUPS[name]
    return made(version) if name in BOTH else made()


@pytest.mark.parametrize(
    ("name", "version"),
    [(name, version) for name in GROUPS for version in ((4, 5) if name in BOTH else (5,))],
    ids=lambda value: f"v{value}" if isinstance(value, int) else value,
)
def test_wrong_packets_end_as_the_standard_says(name: str, version: int) -> None:
    """MQTT-4.13.1-1, MQTT-4.13.2-1; 3.1.1 MQTT-4.8.0-1; each case has its clause. Bystanders notice nothing."""
    assert walk(cases(name, version)) > 0


def test_there_are_several_thousand_cases() -> None:
    """Over every packet type, property and state."""
    every = [case for name in GROUPS for version in ((4, 5) if name in BOTH else (5,)) for case in cases(name, version)]
    assert len(every) > 20_000
    assert {case.state for case in every} == {"new", *LIVE, *PROVING}
    assert {case.data[0] >> 4 for case in every if case.data} == set(range(16))
    assert all(case.clause for case in every)


# --- exchanges that the broker has begun ------------------------------------------------------------------------------


def test_the_steps_of_a_delivery_in_every_order() -> None:
    """MQTT-4.3.3-4 to MQTT-4.3.3-6, 5.0 §4.13.1: all orders of three acknowledgements, right and wrong, for a
    message at each QoS: the connection goes on, PUBREL comes only for a PUBREC, and only its own last step ends it.
    """
    street = Street()
    kinds = ("PUBACK", "PUBREC", "PUBCOMP", "PUBREL")
    for version, qos in product((4, 5), (1, 2)):
        for steps in product(kinds, repeat=3):
            client = street.house.keeper("k", version)
            client.subscribe("work", qos=qos)
            street.house.publish("work", b"x", qos=qos)
            name = client.only()["id"]
            state = "sent"
            for step in steps:
                client.send(ack(step, name))
                answers = [(packet["type"], packet["id"]) for packet in client.read()]
                expected = {"PUBREL": [("PUBCOMP", name)], "PUBREC": [("PUBREL", name)]}.get(step, [])
                if step == "PUBREC" and state == "sent" and qos == 1:
                    expected = []  # an exchange at QoS 1 knows no PUBREC; whether to answer is open
                    answers = [answer for answer in answers if answer != ("PUBREL", name)]
                assert answers == expected, (version, qos, steps, step)
                if qos == 1 and step == "PUBACK":
                    state = "done"
                elif qos == 2 and step == "PUBREC" and state == "sent":
                    state = "released"
                elif qos == 2 and step == "PUBCOMP" and state == "released":
                    state = "done"
            street.exchange()
            assert client.closed is None
            client.lose()
            client = street.house.keeper("k", version)
            left = [packet["type"] for packet in client.read()]
            assert left == {"sent": ["PUBLISH"], "released": ["PUBREL"], "done": []}[state], (version, qos, steps)
            street.house.keeper("k", version, clean=True).lose()
            client.lose()
            street.house.join("k", version).lose()
    street.over()


def test_a_wrong_packet_in_the_middle_of_everything_ends_all_of_it() -> None:
    """MQTT-4.13.1-1 with exchanges under way in both directions: the session keeps them for the next one."""
    street = Street()
    for version in (4, 5):
        for data in (b"\0\0", b"\xf1\0", b"\x36\7\0\1a\0\1\0x", b"\x82\2\0\1", b"\x10\0", b"\x40\0", b"\xd0\0"):
            client = street.house.keeper("k", version)
            client.subscribe("work", qos=2)
            street.house.publish("work", b"1", qos=1)
            street.house.publish("work", b"2", qos=2)
            names = [packet["id"] for packet in client.read()]
            client.send(publish("other", qos=2, number=7))
            client.read()
            client.feed(data)
            assert client.closed is not None
            street.exchange()
            client.lose()
            client = street.house.keeper("k", version)
            back = client.read()
            assert [(packet["id"], packet["dup"]) for packet in back] == [(name, True) for name in names]
            client.send(ack("PUBREL", 7))
            assert client.only() == ack("PUBCOMP", 7), "the release of what came before the error"
            client.lose()
            street.house.join("k", version).lose()
    street.over()


def test_a_wrong_packet_while_asked_to_come_in_and_then_refused() -> None:
    """MQTT-3.1.4-6: whatever is behind the CONNECT, right or wrong, is not looked at once the client is refused."""
    street = Street()
    for version, data in product((4, 5), (b"\0\0", b"\xc0\0", b"\x10\0", b"\x30\4\0\1ab", b"\xe0\0", b"\xff" * 50)):
        client = street.house.open(Verdict(wait=True))
        client.connect("wrong", version)
        client.feed(data)
        street.exchange()
        street.house.handle(client.link.refuse(0x87, now=street.house.now))
        client.read_connack()
        assert client.connack is not None
        assert client.connack["reason"] == (0x87 if version == 5 else 5)
        assert client.read() == []
        assert client.closed == 0x87
        client.lose()
    street.over()


def test_an_alias_belongs_to_its_connection_and_its_range() -> None:
    """MQTT-3.3.2-7, MQTT-3.3.2-9, MQTT-3.3.2-12, 5.0 §3.3.2.3.4: beyond the announced maximum, never set,
    set on the connection before."""
    street = Street()
    probe = street.house.join("probe")
    assert probe.connack is not None
    most = dict(probe.connack["properties"]).get("topic_alias_maximum", 0)
    probe.lose()
    for alias in {0, most + 1, most + 2, 65535} - set(range(1, most + 1)):
        for topic in ("a", ""):
            client = street.house.join("wrong")
            client.send(publish(topic, props=properties(topic_alias=alias)))
            assert client.closed in (ALIAS, PROTOCOL), (alias, topic)
            street.exchange()
            client.lose()
    for alias in range(1, most + 1):
        client = street.house.join("wrong")
        client.send(publish("", qos=1, props=properties(topic_alias=alias)))
        assert client.closed in (PROTOCOL, ALIAS), "an alias that nothing was set to"
        client.lose()
        client = street.house.join("wrong")
        client.send(publish("a", qos=1, props=properties(topic_alias=alias)))
        assert client.only()["type"] == "PUBACK"
        client.lose()
        client = street.house.join("wrong")
        client.send(publish("", qos=1, props=properties(topic_alias=alias)))
        assert client.closed in (PROTOCOL, ALIAS), "an alias of the connection before"
        street.exchange()
        client.lose()
    street.over()
