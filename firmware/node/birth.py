"""How an MQTT session begins: CONNECT, and after CONNACK what was in flight, the subscriptions, the birth.

Rule: in memory only while a session begins (see node.forget); mqtt.py has what is there for its whole life. Numbers in
brackets are statements of the standard, as there.
"""

from node import clock, log, mqtt
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


def on_connack(client, body):
    """Raises mqtt.Closed where the gateway does not let this node in."""
    if client._session is not None:
        raise mqtt.Closed("protocol error: second CONNACK")
    if len(body) != 2 or body[0] > 1:
        raise mqtt.Closed("malformed: CONNACK")
    if body[1]:
        from node import words

        raise mqtt.Closed(*words.refused(body[1]))
    if body[0] and client.clean:
        raise mqtt.Closed("protocol error: session present after clean session")  # [MQTT-3.2.2-1]
    client._session = body[0]
    client.up = client.welcome = True
    client._moved.set()


def on_suback(client, body):
    """Raises mqtt.Closed where it does not let it subscribe."""
    if client._suback is None or len(body) != 2 + len(client.subscriptions):
        raise mqtt.Closed("malformed: SUBACK")
    if body[0] << 8 | body[1] != client._suback[0]:
        raise mqtt.Closed("protocol error: SUBACK for another packet id")
    refused = []
    for i in range(2, len(body)):
        if body[i] == 0x80:
            refused.append(client.subscriptions[i - 2])
        elif body[i] > 1:
            raise mqtt.Closed("malformed: SUBACK")  # more than was asked for, or reserved [MQTT-3.9.3-2]
    # Of what begins with `$` other gateways know nothing. That it is all that is granted is the gateway's way to
    # say that the certificate is to be renewed before anything else.
    known = [topic for topic in client.subscriptions if topic[0] != "$"]
    client.limited = refused == known and known != client.subscriptions
    if not client.limited and refused and refused[-1][0] != "$":
        raise mqtt.Closed("not allowed to subscribe to %s" % refused[-1], mqtt.REFUSED)
    client._suback = None
    client._moved.set()
