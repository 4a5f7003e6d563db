"""gmqtt: a client of its own for asyncio, MQTT 5.0 first. It hides the reason codes of PUBACK and PUBCOMP."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from typing import Any

from gmqtt import Client, Message
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.mqtt.handler import MQTTConnectError
from gmqtt.storage import PersistentStorage
from wire import Request, tell

PATIENCE = 50.0  # seconds that an answer may take

NAMES = {
    "expiry": "message_expiry_interval",
    "format": "payload_format_id",
    "alias": "topic_alias",
    "content_type": "content_type",
    "response": "response_topic",
    "correlation": "correlation_data",
    "subid": "subscription_identifier",
    "session_expiry": "session_expiry_interval",
    "receive_maximum": "receive_maximum",
    "alias_maximum": "topic_alias_maximum",
    "assigned": "assigned_client_identifier",
    "will_delay": "will_delay_interval",
}
TEXTS = ("content_type", "response")


def build(request: Request, *keys: str) -> dict[str, Any]:
    """The keyword arguments that stand for properties."""
    found: dict[str, Any] = {}
    for key in keys:
        if key in request:
            value: Any = request.binary(key) if key == "correlation" else request.text(key)
            found[NAMES[key]] = value if key in (*TEXTS, "correlation") else int(value)
    return found


def fields(properties: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {key: properties[name] for key, name in NAMES.items() if name in properties}
    found["user"] = [tuple(pair) for pair in properties.get("user_property", [])]
    return found


class Program:
    """One client at a time."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.storage = PersistentStorage()
        self.present: int | None = None
        self.properties: dict[str, Any] = {}

    async def connect(self, request: Request) -> None:
        five = request.number("version") == 5
        context = ssl.create_default_context(cafile=request.text("ca"))
        if "cert" in request:
            context.load_cert_chain(request.text("cert"), request.text("key"))
        will = None
        if "will_topic" in request:
            more = {**build(request, "will_delay"), **({"user_property": request.users} if request.users else {})}
            will = Message(
                request.text("will_topic"),
                request.binary("will_payload"),
                request.number("will_qos"),
                bool(request.number("will_retain")),
                **more,
            )
        self.storage = PersistentStorage()
        client = Client(
            request.text("id"),
            clean_session=bool(request.number("clean")),
            will_message=will,
            persistent_storage=self.storage,
            **build(request, "session_expiry", "receive_maximum", "alias_maximum"),
        )
        # With 0 retries it still tries once, so: much later.
        client.set_config({"reconnect_retries": 0, "reconnect_delay": 3600})
        client.on_connect = self.on_connect
        client.on_message = self.on_message
        lost = asyncio.get_running_loop().create_future()
        client.on_disconnect = lambda _client, packet, exc=None: lost.done() or lost.set_result(packet)
        client.on_subscribe = lambda _client, _mid, reasons, _more: tell("subscribed", reason=list(reasons))
        client.on_unsubscribe = lambda *_: tell("unsubscribed")
        connecting = client.connect(
            request.text("host"),
            request.number("port"),
            ssl=context,
            keepalive=request.number("keepalive", 60),
            version=MQTTv50 if five else MQTTv311,
        )
        # connect() waits for a CONNACK even when the connection is gone.
        task = asyncio.ensure_future(connecting)
        await asyncio.wait({task, lost}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            tell("refused", why="closed" if lost.done() else "timeout")
            return
        try:
            task.result()
        except MQTTConnectError as error:
            tell("refused", reason=error._code, why=str(error))
            return
        except OSError as error:
            tell("refused", why=f"{type(error).__name__}: {error}")
            return
        self.client = client
        lost.add_done_callback(lambda _: tell("closed"))
        tell("connected", present=self.present, **fields(self.properties))

    def on_connect(self, _client: Client, flags: int, _reason: int, properties: dict[str, Any]) -> None:
        # gmqtt hands over CONNECT's own properties in the same dictionary; those of the server are lists.
        self.present = flags & 1
        self.properties = {name: value for name, value in properties.items() if isinstance(value, list)}

    def on_message(self, _client: Client, topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> int:
        tell(
            "message",
            topic=topic,
            payload=payload,
            qos=qos,
            retain=properties["retain"],
            dup=properties["dup"],
            **fields(properties),
        )
        return 0

    async def publish(self, request: Request) -> None:
        assert self.client
        more = build(request, "expiry", "format", "alias", "content_type", "response", "correlation")
        if request.users:
            more["user_property"] = request.users
        self.client.publish(
            request.text("topic"),
            request.binary("payload"),
            request.number("qos"),
            bool(request.number("retain")),
            **more,
        )
        try:
            await asyncio.wait_for(self.storage.wait_empty(), PATIENCE)
        except TimeoutError:
            tell("failed", why="not acknowledged")
            return
        tell("published")

    async def subscribe(self, request: Request) -> None:
        assert self.client
        self.client.subscribe(
            request.text("filter"),
            request.number("qos"),
            no_local=bool(request.number("no_local")),
            retain_as_published=bool(request.number("as_published")),
            retain_handling_options=request.number("handling"),
            **build(request, "subid"),
        )

    async def unsubscribe(self, request: Request) -> None:
        assert self.client
        self.client.unsubscribe(request.text("filter"))

    async def disconnect(self, _request: Request) -> None:
        if self.client:
            self.client.on_disconnect = lambda *_, **__: None
            with contextlib.suppress(OSError):
                await self.client.disconnect()
        self.client = None
        tell("disconnected")


async def main() -> None:
    program = Program()
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = Request(line)
        await getattr(program, request.word)(request)


asyncio.run(main())
