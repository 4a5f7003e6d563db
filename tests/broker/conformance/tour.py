"""A tour of everything a broker says: one scripted life that draws every packet from it that a server can send.

The rule it keeps: what comes back is cut into packets by the fixed header alone, so that the bytes themselves can be
judged, and decoded by the reference codec, which refuses what a server must not send.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.broker.house import (
    MAY,
    PINGREQ,
    Client,
    House,
    Packet,
    Verdict,
    ack,
    properties,
    publish,
    subscribe,
    topic_filter,
    unsubscribe,
)
from tests.reference import codec

RULES = [(False, MAY, 0, "secret/#"), (True, MAY, 0, "#")]


@dataclass(frozen=True)
class Said:
    """A packet from the broker; `about` says what it was said to."""

    about: str
    raw: bytes
    packet: Packet

    @property
    def flags(self) -> int:
        return self.raw[0] & 15

    @property
    def length(self) -> bytes:
        """The remaining length as it stands on the wire."""
        end = 1
        while self.raw[end] & 0x80:
            end += 1
        return self.raw[1 : end + 1]

    @property
    def body(self) -> bytes:
        return self.raw[1 + len(self.length) :]


def heard(client: Client, about: str = "") -> list[Said]:
    """What the client was sent since the last time, byte for byte."""
    stream, out = client.take(), []
    while stream:
        found = codec.decode(stream, client.version)
        assert found is not None, f"half a packet: {stream.hex(' ')}"
        packet, size = found
        out.append(Said(about, stream[:size], packet))
        stream = stream[size:]
    return out


def tour(version: int, *wishes: list[object]) -> list[Said]:
    """`wishes` are properties of the CONNECTs (5.0)."""
    house = House(receive_maximum=4)
    house.broker.set_rules(1, RULES)
    said: list[Said] = []

    def enter(client_id: str, **more: object) -> Client:
        props = [["session_expiry_interval", 60], *wishes] if version == 5 else []
        client = house.open(Verdict(slot=1))
        client.version = version
        client.send(
            {
                "type": "CONNECT",
                "version": version,
                "clean_start": False,
                "keep_alive": 10,
                "client_id": client_id,
                "properties": props,
                "will": None,
                "username": None,
                "password": None,
                **more,
            }
        )
        said.extend(heard(client, f"CONNECT of {client_id}"))
        return client

    def ask(client: Client, *packets: Packet) -> list[Packet]:
        client.send(*packets)
        got = heard(client, packets[0]["type"] if packets else "nothing")
        said.extend(got)
        return [one.packet for one in got]

    client = enter("tourist")
    ask(client, PINGREQ)
    ask(client, subscribe(topic_filter("t/#", 2), topic_filter("bad/#/x", 1), topic_filter("secret/x"), number=300))
    ask(client, subscribe(topic_filter("t/+", 1), topic_filter("t/one", 0), number=301))
    ask(client, unsubscribe("t/+", "never", number=302))
    for qos in (0, 1, 2):
        for topic in ("t/one", "nobody", "secret/x"):
            answers = ask(client, publish(topic, b"x" * 200, qos, 1000 + qos, retain=topic == "t/one"))
            ask(client, ack("PUBREL", 1000 + qos))
            for packet in answers:
                if packet["type"] == "PUBLISH" and packet["qos"]:
                    ask(client, ack("PUBACK" if packet["qos"] == 1 else "PUBREC", packet["id"]))
                    if packet["qos"] == 2:
                        ask(client, ack("PUBCOMP", packet["id"]))
    ask(client, ack("PUBREC", 77), ack("PUBREL", 78))
    props = properties(message_expiry_interval=5, content_type="t", user_property=["k", "v"])
    ask(client, publish("t/two", b"", 1, 9, props=props if version == 5 else []))
    again = enter("tourist")
    said.extend(heard(client, "a takeover"))
    ask(again)
    ask(again, *(ack("PUBACK", number) for number in range(1, 9)))
    ask(again, *(publish("nobody", qos=2, number=number) for number in range(1, 6)))
    enter("refused", will={"topic": "secret/will", "payload": b"", "qos": 0, "retain": False, "properties": []})
    for wrong in (b"\0\0", b"\x10\0", b"\xd0\0", b"\x36\0"):
        client = enter("wrong")
        client.feed(wrong)
        said.extend(heard(client, wrong.hex()))
    client = enter("silent")
    house.wait(16)
    said.extend(heard(client, "silence"))
    client = enter("told")
    house.handle(client.link.close(0x8B, house.now))
    said.extend(heard(client, "shutdown"))
    return said
