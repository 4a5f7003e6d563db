"""Fields of the line protocol to and from paho-mqtt's property objects, which aiomqtt uses too."""

from __future__ import annotations

from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from wire import Request

NUMBERS = {
    "expiry": "MessageExpiryInterval",
    "format": "PayloadFormatIndicator",
    "alias": "TopicAlias",
    "subid": "SubscriptionIdentifier",
    "session_expiry": "SessionExpiryInterval",
    "receive_maximum": "ReceiveMaximum",
    "alias_maximum": "TopicAliasMaximum",
    "will_delay": "WillDelayInterval",
}
TEXTS = {"content_type": "ContentType", "response": "ResponseTopic", "assigned": "AssignedClientIdentifier"}
BLOBS = {"correlation": "CorrelationData"}

MESSAGE = ("expiry", "format", "alias", "content_type", "response", "correlation")
CONNECT = ("session_expiry", "receive_maximum", "alias_maximum")


def build(kind: int, request: Request, keys: tuple[str, ...], users: bool = False) -> Properties:
    """The properties that `request` has fields for, out of `keys`."""
    found = Properties(kind)
    for key in keys:
        if key not in request:
            continue
        if key in NUMBERS:
            setattr(found, NUMBERS[key], request.number(key))
        elif key in TEXTS:
            setattr(found, TEXTS[key], request.text(key))
        else:
            setattr(found, BLOBS[key], request.binary(key))
    if users and request.users:
        found.UserProperty = request.users
    return found


def of_publish(request: Request) -> Properties:
    return build(PacketTypes.PUBLISH, request, MESSAGE, users=True)


def of_will(request: Request) -> Properties:
    found = build(PacketTypes.WILLMESSAGE, request, ("will_delay",))
    if request.users:
        found.UserProperty = request.users
    return found


def fields(properties: Properties | None) -> dict[str, Any]:
    """What `properties` says, as fields of a line."""
    if properties is None:
        return {}
    found = {key: getattr(properties, name, None) for key, name in {**NUMBERS, **TEXTS, **BLOBS}.items()}
    found["user"] = list(getattr(properties, "UserProperty", []))
    return found
