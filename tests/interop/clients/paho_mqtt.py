"""paho-mqtt (Eclipse, Python) with its own network thread."""

from __future__ import annotations

import threading
from typing import Any

import paho_properties
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY, Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from wire import Request, requests, tell

PATIENCE = 50.0  # seconds that an answer may take


class Program:
    """One client at a time."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.acknowledged: dict[int, int] = {}
        self.wanted = threading.Condition()
        self.answered = threading.Event()

    def forget(self) -> None:
        """Ends the client there was, which has nothing to say any more."""
        if self.client:
            self.client.on_connect = self.client.on_disconnect = None
            self.client.disconnect()
            self.client.loop_stop()
        self.client = None

    def connect(self, request: Request) -> None:
        self.forget()
        five = request.number("version") == 5
        web = request.text("transport") == "wss"
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=request.text("id"),
            clean_session=None if five else bool(request.number("clean")),
            protocol=request.number("version"),
            transport="websockets" if web else "tcp",
            reconnect_on_failure=False,
        )
        client.tls_set(request.text("ca"), request.text("cert") or None, request.text("key") or None)
        if web:
            client.ws_set_options(path=request.text("path"))
        if "will_topic" in request:
            client.will_set(
                request.text("will_topic"),
                request.binary("will_payload"),
                request.number("will_qos"),
                bool(request.number("will_retain")),
                paho_properties.of_will(request) if five else None,
            )
        client.on_connect = self.on_connect
        client.on_disconnect = self.on_disconnect
        client.on_message = self.on_message
        client.on_publish = self.on_publish
        client.on_subscribe = self.on_subscribe
        client.on_unsubscribe = lambda *_: tell("unsubscribed")
        self.client, self.answered = client, threading.Event()
        try:
            client.connect(
                request.text("host"),
                request.number("port"),
                request.number("keepalive", 60),
                clean_start=bool(request.number("clean")) if five else MQTT_CLEAN_START_FIRST_ONLY,
                properties=paho_properties.build(PacketTypes.CONNECT, request, paho_properties.CONNECT)
                if five
                else None,
            )
        except OSError as error:
            tell("refused", why=f"{type(error).__name__}: {error}")
            return
        client.loop_start()

    def on_connect(
        self, _client: Client, _data: object, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self.answered.set()
        if reason.is_failure:
            tell("refused", reason=reason.value, why=str(reason))
        else:
            tell("connected", present=bool(flags.session_present), **paho_properties.fields(properties))

    def on_disconnect(self, _client: Client, _data: object, _flags: Any, reason: ReasonCode, _more: object) -> None:
        if not self.answered.is_set():
            self.answered.set()
            tell("refused", why=str(reason))
        else:
            tell("closed", reason=reason.value)

    def on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        tell(
            "message",
            topic=message.topic,
            payload=message.payload,
            qos=message.qos,
            retain=message.retain,
            dup=message.dup,
            **paho_properties.fields(message.properties),
        )

    def on_subscribe(self, _client: Client, _data: object, _mid: int, reasons: list[ReasonCode], _more: object) -> None:
        tell("subscribed", reason=[reason.value for reason in reasons])

    def on_publish(self, _client: Client, _data: object, mid: int, reason: ReasonCode, _more: object) -> None:
        with self.wanted:
            self.acknowledged[mid] = reason.value
            self.wanted.notify_all()

    def publish(self, request: Request) -> None:
        assert self.client
        five = self.client.protocol == 5
        qos = request.number("qos")
        info: MQTTMessageInfo = self.client.publish(
            request.text("topic"),
            request.binary("payload"),
            qos,
            bool(request.number("retain")),
            paho_properties.of_publish(request) if five else None,
        )
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            tell("failed", why=str(info.rc))
            return
        with self.wanted:
            done = self.wanted.wait_for(lambda: info.mid in self.acknowledged, PATIENCE)
            reason = self.acknowledged.pop(info.mid, None)
        tell("published" if done else "failed", reason=reason if five else None)

    def subscribe(self, request: Request) -> None:
        assert self.client
        if self.client.protocol == 5:
            options = SubscribeOptions(
                request.number("qos"),
                bool(request.number("no_local")),
                bool(request.number("as_published")),
                request.number("handling"),
            )
            more = paho_properties.build(PacketTypes.SUBSCRIBE, request, ("subid",))
            self.client.subscribe(request.text("filter"), options=options, properties=more)
        else:
            self.client.subscribe(request.text("filter"), request.number("qos"))

    def unsubscribe(self, request: Request) -> None:
        assert self.client
        self.client.unsubscribe(request.text("filter"))

    def disconnect(self, _request: Request) -> None:
        self.forget()
        tell("disconnected")


program = Program()
for request in requests():
    getattr(program, request.word)(request)
