"""How an MQTT session begins: CONNECT, and after CONNACK what was in flight, the subscriptions, the birth.

Rule: in memory only while a session begins (see node.forget); mqtt.py has what is there for its whole life. Numbers in
brackets are statements of the standard, as there.
"""

from node import clock, log
from node.mqtt import packet, string


def hello(client):
    """The CONNECT packet of a node.mqtt.Client."""
    flags = 0x04 | 0x08 | 0x20 | (0x02 if client.clean else 0)  # will, will QoS 1, will retained, clean session
    return packet(
        0x10,
        b"\x00\x04MQTT\x04",
        bytes((flags,)),
        client.keepalive_s.to_bytes(2, "big"),
        string(client.client_id),
        string(client.will[0]),
        string(client.will[1]),
    )


async def begin(client, epoch):
    """From CONNACK to the end of the birth. False if the session ended meanwhile, or is for a new certificate only.
    Raises OSError."""
    while client._session is None:
        if not await client._change(epoch):
            return False
    for slot in client._flight:
        if client._session:
            slot[1][0] |= 0x08  # DUP: the same session has seen it, perhaps [MQTT-3.3.1-1]
        else:
            slot[1][0] &= 0xF7  # a new session: a new message
        slot[2] = clock.now()
        await client._send(slot[1])
    if client.before is not None:
        await client.before()
    ident = client._id()
    parts = [ident.to_bytes(2, "big")]
    for topic in client.subscriptions:
        parts.append(string(topic))
        parts.append(b"\x01")
    client._suback = (ident, clock.now())
    await client._send(packet(0x82, *parts))
    while client._suback is not None:
        if not await client._change(epoch):
            return False
    if client.limited:
        log.warn("mqtt", "let in only to have the certificate renewed")
        return False
    await client._on_session()
    return True
