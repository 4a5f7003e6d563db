"""aiomqtt: an asyncio face on paho-mqtt, with tasks where that has callbacks. It hides what CONNACK says."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys
from typing import Any

import paho_properties
from aiomqtt import Client, Message, MqttError, ProtocolVersion, Will
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.subscribeoptions import SubscribeOptions
from wire import Request, tell


class Program:
    """One client at a time, and the task that reads its messages."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.reader: asyncio.Task[None] | None = None
        self.five = False

    async def connect(self, request: Request) -> None:
        self.five = request.number("version") == 5
        clean = bool(request.number("clean"))
        context = ssl.create_default_context(cafile=request.text("ca"))
        if "cert" in request:
            context.load_cert_chain(request.text("cert"), request.text("key"))
        will = None
        if "will_topic" in request:
            will = Will(
                request.text("will_topic"),
                request.binary("will_payload"),
                request.number("will_qos"),
                bool(request.number("will_retain")),
                paho_properties.of_will(request) if self.five else None,
            )
        more: dict[str, Any] = {"clean_session": clean}
        if self.five:
            properties = paho_properties.build(PacketTypes.CONNECT, request, paho_properties.CONNECT)
            more = {"clean_start": clean, "properties": properties}
        more.setdefault("clean_start", MQTT_CLEAN_START_FIRST_ONLY)
        client = Client(
            request.text("host"),
            request.number("port"),
            identifier=request.text("id"),
            protocol=ProtocolVersion.V5 if self.five else ProtocolVersion.V311,
            keepalive=request.number("keepalive", 60),
            tls_context=context,
            will=will,
            transport="websockets" if request.text("transport") == "wss" else "tcp",
            websocket_path=request.text("path") if "path" in request else None,
            timeout=request.number("patience", 10),
            **more,
        )
        try:
            await client.__aenter__()
        except MqttError as error:
            code = getattr(error, "rc", None)
            tell("refused", reason=getattr(code, "value", None), why=str(error))
            return
        self.client = client
        tell("connected")
        self.reader = asyncio.create_task(self.read(client))

    async def read(self, client: Client) -> None:
        try:
            async for message in client.messages:
                self.told(message)
        except MqttError as error:
            code = getattr(error.__cause__, "rc", None)
            tell("closed", reason=getattr(code, "value", None), why=f"{error} {error.__cause__}")

    def told(self, message: Message) -> None:
        tell(
            "message",
            topic=message.topic.value,
            payload=message.payload,
            qos=message.qos,
            retain=message.retain,
            **paho_properties.fields(message.properties),
        )

    async def publish(self, request: Request) -> None:
        assert self.client
        await self.client.publish(
            request.text("topic"),
            request.binary("payload"),
            request.number("qos"),
            bool(request.number("retain")),
            paho_properties.of_publish(request) if self.five else None,
        )
        tell("published")

    async def subscribe(self, request: Request) -> None:
        assert self.client
        answer: Any
        if self.five:
            options = SubscribeOptions(
                request.number("qos"),
                bool(request.number("no_local")),
                bool(request.number("as_published")),
                request.number("handling"),
            )
            more = paho_properties.build(PacketTypes.SUBSCRIBE, request, ("subid",))
            answer = await self.client.subscribe(request.text("filter"), options=options, properties=more)
        else:
            answer = await self.client.subscribe(request.text("filter"), request.number("qos"))
        tell("subscribed", reason=[getattr(reason, "value", reason) for reason in answer])

    async def unsubscribe(self, request: Request) -> None:
        assert self.client
        await self.client.unsubscribe(request.text("filter"))
        tell("unsubscribed")

    async def disconnect(self, _request: Request) -> None:
        if self.reader:
            self.reader.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.reader
        if self.client:
            with contextlib.suppress(MqttError):
                await self.client.__aexit__(None, None, None)
        self.client = self.reader = None
        tell("disconnected")


async def main() -> None:
    program = Program()
    while line := await asyncio.to_thread(sys.stdin.readline):
        request = Request(line)
        try:
            await getattr(program, request.word)(request)
        except MqttError as error:
            tell("failed", why=str(error))


asyncio.run(main())
