"""Users at a running gateway, over real sockets: SCRAM in AUTH packets, passwords in CONNECT, and what they may do.

The rule it keeps: the client's side is the reference codec and a SCRAM client that shares nothing with the gateway. The
statements are those of MQTT 5.0 §4.12 (and MQTT-3.1.2-30), by number. Each connection comes from an address of its own,
so that no test uses up another's failures.
"""

from __future__ import annotations

import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest

from peanutd import login
from tests.broker import house
from tests.broker.conftest import DEADLINE, Daemon, Dial, Fleet, Paho, Start, Wire, wait_for
from tests.broker.house import Packet
from tests.broker.scram_client import HASHES, Client, user, write_users
from tests.programs import program
from tests.reference import codec

PASSWORD = "correct horse"
METHOD = "SCRAM-SHA-256"

SETTINGS = """\
[listen]
mqtts = "127.0.0.1:0"
[[listener]]
address = "127.0.0.1:0"
transport = "tcp"
certificate = "none"
password = true
[[listener]]
address = "127.0.0.1:0"
transport = "tls"
certificate = "optional"
password = true
[mqtt]
connect_timeout = 5000
"""

USERS = {
    "maria": user(PASSWORD, argon=True),
    "joe": user("battery staple", "viewer"),
    "ada": user("lovelace, ada", "admin"),
}


class Ports:
    """Where the daemon listens: for certificates only, for users in plain, for both over TLS."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.plain = daemon.port("mqtt")
        certificates, both = (int(daemon.line("listening mqtts ", n).rpartition(":")[2]) for n in (1, 2))
        self.certificates, self.both = certificates, both


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def gateway(request: pytest.FixtureRequest, shared_fleet: Fleet, daemon_class: type[Daemon]) -> Iterator[Ports]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    shared_fleet.settings(SETTINGS)
    write_users(shared_fleet.home, **USERS)
    daemon = daemon_class(shared_fleet.home, loop=request.param)
    try:
        yield Ports(daemon)
    finally:
        daemon.stop()


class Talker:
    """A client that is nothing but a codec on a socket."""

    def __init__(self, wire: Wire, version: int = 5) -> None:
        self.sock = wire.sock
        self.version = version
        self._decoder = codec.Decoder(version)
        self._inbox: list[Packet] = []

    def send(self, *packets: Packet) -> None:
        self.sock.sendall(b"".join(codec.encode(packet, self.version) for packet in packets))

    def read(self) -> Packet | None:
        """The next packet, None at the end of the connection."""
        while not self._inbox:
            chunk = self.sock.recv(65536)
            if not chunk:
                return None
            self._inbox += self._decoder.feed(chunk)
        return self._inbox.pop(0)

    def expect(self, kind: str) -> Packet:
        packet = self.read()
        assert packet is not None, f"closed instead of {kind}"
        assert packet["type"] == kind, packet
        return packet

    def ended(self) -> bool:
        """Whether the gateway says no more and closes."""
        return self.read() is None

    # SCRAM

    def begin(self, client: Client, client_id: str = "c", **more: Any) -> bytes:
        """Sends CONNECT with the first message; returns the gateway's challenge."""
        self.send(
            house.connect(client_id, props=[*proof(client.method, client.first()), *more.pop("props", [])], **more)
        )
        return self.challenge(client.method)

    def challenge(self, method: str) -> bytes:
        packet = self.expect("AUTH")
        assert packet["reason"] == 0x18, "MQTT-4.12.0-2"
        assert named(packet, "authentication_method") == method, "MQTT-4.12.0-5"
        data = named(packet, "authentication_data")
        return data if isinstance(data, bytes) else b""

    def login(self, client: Client, client_id: str = "c", **more: Any) -> Packet:
        """The whole exchange; returns the CONNACK."""
        self.send(auth(client.method, client.final(self.begin(client, client_id, **more))))
        return self.expect("CONNACK")

    def password(self, name: str, password: str | None, client_id: str = "c", **more: Any) -> Packet:
        """CONNECT with name and password; returns the CONNACK."""
        raw = None if password is None else password.encode()
        self.send(house.connect(client_id, self.version, username=name, password=raw, **more))
        return self.expect("CONNACK")


def proof(method: str, data: bytes | None) -> list[list[Any]]:
    return [["authentication_method", method], *([["authentication_data", data]] if data is not None else [])]


def auth(method: str, data: bytes | None, reason: int = 0x18) -> Packet:
    return {"type": "AUTH", "reason": reason, "properties": proof(method, data)}


def named(packet: Packet, name: str) -> Any:
    return next((value for key, value in packet["properties"] if key == name), None)


@pytest.fixture
def talk(dial: Dial, gateway: Ports) -> Any:
    def connect(version: int = 5, port: int = 0, **options: Any) -> Talker:
        return Talker(dial(port or gateway.plain, version=version, **options), version)

    return connect


# --- §4.12: enhanced authentication -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", sorted(HASHES))
def test_scram(talk: Any, method: str) -> None:
    """MQTT-4.12.0-2, MQTT-4.12.0-5: AUTH 0x18 with the method, then CONNACK with method and the gateway's own proof."""
    client, talker = Client("maria", PASSWORD, method), talk()
    connack = talker.login(client)
    assert connack["reason"] == 0
    assert named(connack, "authentication_method") == method
    assert client.check(named(connack, "authentication_data"))
    talker.send(house.PINGREQ)
    talker.expect("PINGRESP")


def test_scram_over_tls(talk: Any, gateway: Ports, shared_fleet: Fleet) -> None:
    client = Client("maria", PASSWORD)
    talker = talk(port=gateway.both, context=shared_fleet.context(None))
    assert client.check(named(talker.login(client), "authentication_data"))


def test_scram_asks_for_a_first_message_that_is_missing(talk: Any) -> None:
    """RFC 4422 §5.1: a mechanism that the client begins, and a CONNECT without data."""
    client, talker = Client("maria", PASSWORD), talk()
    talker.send(house.connect(props=proof(METHOD, None)))
    assert talker.challenge(METHOD) == b""
    talker.send(auth(METHOD, client.first()))
    talker.send(auth(METHOD, client.final(talker.challenge(METHOD))))
    assert talker.expect("CONNACK")["reason"] == 0


@pytest.mark.parametrize("method", ["SCRAM-SHA-1", "PLAIN", "", "scram-sha-256"])
def test_a_method_that_is_not_supported(talk: Any, method: str) -> None:
    """MQTT-4.12.0-1."""
    talker = talk()
    talker.send(house.connect(props=proof(method, b"x")))
    assert talker.expect("CONNACK")["reason"] == 0x8C
    assert talker.ended()


def test_no_method_where_only_certificates_count(talk: Any, gateway: Ports, shared_fleet: Fleet) -> None:
    """MQTT-4.12.0-1: who has shown a certificate has no second identity, on either listener."""
    operator = shared_fleet.context(shared_fleet.issue("peanut:operator/maria"))
    for port in (gateway.certificates, gateway.both):
        talker = talk(port=port, context=operator)
        talker.send(house.connect(props=proof(METHOD, Client("maria", PASSWORD).first())))
        assert talker.expect("CONNACK")["reason"] == 0x8C
        assert talker.ended()


@pytest.mark.parametrize("reason", [0x00, 0x19])
def test_the_client_goes_on_with_0x18(talk: Any, reason: int) -> None:
    """MQTT-4.12.0-3: with anything else the exchange is over, and MQTT-4.12.0-4 how."""
    client, talker = Client("maria", PASSWORD), talk()
    final = client.final(talker.begin(client))
    talker.send(auth(METHOD, final, reason))
    assert talker.expect("CONNACK")["reason"] >= 0x80
    assert talker.ended()


@pytest.mark.parametrize(("name", "password"), [("maria", "wrong"), ("nobody", PASSWORD), ("joe", PASSWORD)])
def test_a_wrong_proof(talk: Any, name: str, password: str) -> None:
    """MQTT-4.12.0-4: rejected with a reason of 0x80 or above, and closed. An unknown user fares the same."""
    client, talker = Client(name, password), talk()
    connack = talker.login(client)
    assert connack["reason"] == 0x86
    assert named(connack, "reason_string") == f"{METHOD}: wrong user name or password"
    assert talker.ended()


@pytest.mark.parametrize("data", [b"", b"n,,n=maria", b"\xff\xfe", b"p=tls-exporter,,n=maria,r=abc", b"x" * 10_000])
def test_a_message_that_is_none(talk: Any, data: bytes) -> None:
    """MQTT-4.12.0-4."""
    talker = talk()
    talker.send(house.connect(props=proof(METHOD, data)))
    if not data:  # asked for, and not given again
        assert talker.challenge(METHOD) == b""
        talker.send(auth(METHOD, b""))
    assert talker.expect("CONNACK")["reason"] == 0x87
    assert talker.ended()


@pytest.mark.parametrize("method", ["SCRAM-SHA-512", None])
def test_the_method_stays_the_same(talk: Any, method: str | None) -> None:
    """MQTT-4.12.0-5, of the client's AUTH."""
    client, talker = Client("maria", PASSWORD), talk()
    final = client.final(talker.begin(client))
    talker.send(auth(method, final) if method else {"type": "AUTH", "reason": 0x18, "properties": []})
    assert talker.expect("CONNACK")["reason"] >= 0x80
    assert talker.ended()


def test_no_auth_to_those_who_named_no_method(talk: Any) -> None:
    """MQTT-4.12.0-6: neither an AUTH nor a method in CONNACK."""
    talker = talk()
    connack = talker.password("maria", PASSWORD)  # which fails if an AUTH comes first
    assert connack["reason"] == 0
    assert named(connack, "authentication_method") is None
    assert named(connack, "authentication_data") is None


@pytest.mark.parametrize("reason", [0x18, 0x19])
def test_no_auth_from_those_who_named_no_method(talk: Any, reason: int) -> None:
    """MQTT-4.12.0-7: a protocol error."""
    talker = talk()
    assert talker.password("maria", PASSWORD)["reason"] == 0
    talker.send(auth(METHOD, Client("maria", PASSWORD).first(), reason))
    assert talker.expect("DISCONNECT")["reason"] == 0x82
    assert talker.ended()


@pytest.mark.parametrize(
    "packet",
    [
        house.PINGREQ,
        house.subscribe(house.topic_filter("#")),
        house.publish("/plant/peanut/UpdateTemperature", b"temperature:40"),
        house.connect(),
    ],
    ids=lambda packet: packet["type"],
)
def test_nothing_but_auth_and_disconnect_before_connack(talk: Any, packet: Packet) -> None:
    """MQTT-3.1.2-30: the packet is not obeyed, and the connection is closed."""
    watcher = talk()
    assert watcher.password("ada", "lovelace, ada", "watcher")["reason"] == 0
    watcher.send(house.subscribe(house.topic_filter("#")))
    watcher.expect("SUBACK")
    client, talker = Client("maria", PASSWORD), talk()
    talker.begin(client)
    talker.send(packet)
    connack = talker.expect("CONNACK")
    assert connack["reason"] >= 0x80
    assert talker.ended()
    watcher.send(house.PINGREQ)
    watcher.expect("PINGRESP")  # and no PUBLISH before it


def test_a_client_may_break_off(talk: Any) -> None:
    """§4.12: with a DISCONNECT, before the CONNACK."""
    client, talker = Client("maria", PASSWORD), talk()
    talker.begin(client)
    talker.send(house.disconnect())
    assert talker.ended()


def test_who_leaves_a_challenge_unanswered_is_cut(fleet: Fleet, start: Start, dial: Dial) -> None:
    """The time for a CONNECT goes on while a client is challenged."""
    fleet.settings(SETTINGS.replace("connect_timeout = 5000", "connect_timeout = 1000"))
    write_users(fleet.home, **USERS)
    talker = Talker(dial(start(fleet.home).port("mqtt")))
    talker.begin(Client("maria", PASSWORD))
    while talker.read() is not None:  # a CONNACK that says why, or nothing
        pass


# --- §4.12.1: re-authentication ---------------------------------------------------------------------------------------


def again(talker: Talker, client: Client) -> Packet | None:
    """A re-authentication; the packet that ends it."""
    talker.send(auth(client.method, client.first(), 0x19))
    talker.send(auth(client.method, client.final(talker.challenge(client.method))))
    return talker.read()


@pytest.mark.parametrize("method", sorted(HASHES))
def test_reauthentication(talk: Any, method: str) -> None:
    """MQTT-4.12.1-1: at any time, as often as one likes; it ends with AUTH 0x00 and the gateway's proof."""
    talker = talk()
    assert talker.login(Client("maria", PASSWORD, method), f"again-{method}")["reason"] == 0
    for _ in range(3):
        client = Client("maria", PASSWORD, method)
        packet = again(talker, client)
        assert packet is not None
        assert (packet["type"], packet["reason"]) == ("AUTH", 0)
        assert named(packet, "authentication_method") == method
        assert client.check(named(packet, "authentication_data"))


def test_other_packets_flow_while_a_client_authenticates_again(talk: Any) -> None:
    """§4.12.1: the connection goes on under what was proved before."""
    talker, client = talk(), Client("maria", PASSWORD)
    assert talker.login(Client("maria", PASSWORD), "flow")["reason"] == 0
    talker.send(auth(METHOD, client.first(), 0x19))
    challenge = talker.challenge(METHOD)
    talker.send(house.PINGREQ, house.subscribe(house.topic_filter("/plant/+/state")))
    talker.expect("PINGRESP")
    assert talker.expect("SUBACK")["reasons"] == [0]
    talker.send(auth(METHOD, client.final(challenge)))
    assert talker.expect("AUTH")["reason"] == 0


def test_reauthentication_with_another_method(talk: Any) -> None:
    """MQTT-4.12.1-1: the method is the one of the CONNECT."""
    talker = talk()
    assert talker.login(Client("maria", PASSWORD), "other-method")["reason"] == 0
    talker.send(auth("SCRAM-SHA-512", Client("maria", PASSWORD, "SCRAM-SHA-512").first(), 0x19))
    assert talker.expect("DISCONNECT")["reason"] == 0x82
    assert talker.ended()


@pytest.mark.parametrize(
    ("name", "password"), [("maria", "wrong"), ("nobody", "wrong"), ("ada", "lovelace, ada")], ids=str
)
def test_reauthentication_that_fails(talk: Any, name: str, password: str) -> None:
    """MQTT-4.12.1-2: DISCONNECT with a reason, and closed. Another user will not do, with whatever password."""
    talker = talk()
    assert talker.login(Client("maria", PASSWORD), f"fails-{name}")["reason"] == 0
    packet = again(talker, Client(name, password))
    assert packet is not None
    assert (packet["type"], packet["reason"]) == ("DISCONNECT", 0x87)
    assert talker.ended()


def test_reauthentication_with_nonsense(talk: Any) -> None:
    """MQTT-4.12.1-2."""
    talker = talk()
    assert talker.login(Client("maria", PASSWORD), "nonsense")["reason"] == 0
    talker.send(auth(METHOD, b"nonsense", 0x19))
    assert talker.expect("DISCONNECT")["reason"] == 0x87
    assert talker.ended()


def test_a_second_0x19_before_the_first_is_over(talk: Any) -> None:
    """§4.12.1 knows one exchange at a time: a protocol error."""
    talker = talk()
    assert talker.login(Client("maria", PASSWORD), "twice")["reason"] == 0
    first = auth(METHOD, Client("maria", PASSWORD).first(), 0x19)
    talker.send(first)
    talker.challenge(METHOD)
    talker.send(first)
    assert talker.expect("DISCONNECT")["reason"] == 0x82
    assert talker.ended()


# --- passwords in CONNECT ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_a_password(talk: Any, version: int) -> None:
    talker = talk(version)
    assert talker.password("maria", PASSWORD)["reason"] == 0


@pytest.mark.parametrize(("name", "password"), [("maria", "wrong"), ("nobody", PASSWORD), ("maria", ""), ("", "")])
@pytest.mark.parametrize(("version", "reason"), [(4, 4), (5, 0x86)])
def test_a_wrong_password(talk: Any, version: int, reason: int, name: str, password: str) -> None:
    """3.1.1 has return code 4, 5.0 reason 0x86."""
    talker = talk(version)
    assert talker.password(name, password)["reason"] == reason
    assert talker.ended()


@pytest.mark.parametrize(("version", "reason"), [(4, 5), (5, 0x87)])
def test_no_password(talk: Any, version: int, reason: int) -> None:
    if version == 5:
        assert talk(version).password("maria", None)["reason"] == reason
    talker = talk(version)
    talker.send(house.connect("c", version))
    assert talker.expect("CONNACK")["reason"] == reason
    assert talker.ended()


def test_what_comes_behind_a_connect_waits_with_it(talk: Any) -> None:
    """§3.1.4: a client need not wait for the CONNACK. Nothing is obeyed before the password is right."""
    talker = talk()
    hello = house.connect("eager", username="maria", password=PASSWORD.encode())
    talker.send(hello, house.subscribe(house.topic_filter("eager/#")), house.PINGREQ)
    assert talker.expect("CONNACK")["reason"] == 0
    assert talker.expect("SUBACK")["reasons"] == [0]
    talker.expect("PINGRESP")
    wrong = talk()
    wrong.send(house.connect("eager2", username="maria", password=b"wrong"), house.publish("fleet/time"))
    assert wrong.expect("CONNACK")["reason"] == 0x86
    assert wrong.ended()


@pytest.mark.parametrize("version", [4, 5])
def test_paho_with_a_password_over_tls(gateway: Ports, shared_fleet: Fleet, version: int) -> None:
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2, client_id=f"paho{version}", protocol=mqtt.MQTTProtocolVersion(version)
    )
    client.tls_set_context(shared_fleet.context(None))
    client.username_pw_set("maria", PASSWORD)
    paho = Paho(client)
    client.connect("localhost", gateway.both)
    client.loop_start()
    try:
        assert not paho.expect("connect").is_failure
        client.subscribe("/plant/+/state", 1)
        assert not paho.expect("subscribe")[0].is_failure
    finally:
        paho.stop()


@pytest.mark.parametrize(("password", "status"), [(PASSWORD, 0), ("wrong", 4)])
def test_mosquitto_pub_with_a_password_over_tls(
    gateway: Ports, shared_fleet: Fleet, password: str, status: int
) -> None:
    """3.1.1; it ends with the return code of the CONNACK."""
    root = shared_fleet.directory / "root.pem"
    root.write_bytes(shared_fleet.root.pem)
    command = [
        program("mosquitto_pub", "mosquitto-clients"),
        *("--cafile", str(root), "-h", "localhost", "-p", str(gateway.both), "-u", "maria"),
        *("-P", password, "-q", "1", "-t", "/plant/peanut/UpdateTemperature", "-m", "temperature:15"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == status, done.stderr


# --- who may do what --------------------------------------------------------------------------------------------------

COMMAND = "/plant/peanut/UpdateTemperature"


@pytest.mark.parametrize(
    ("name", "password", "may"), [("maria", PASSWORD, 0), ("ada", "lovelace, ada", 0), ("joe", "battery staple", 0x87)]
)
def test_roles(talk: Any, name: str, password: str, may: int) -> None:
    """A viewer reads everything and publishes nothing; operator and admin command as an operator's certificate does."""
    talker = talk()
    assert talker.password(name, password, f"role-{name}")["reason"] == 0
    talker.send(house.subscribe(house.topic_filter("#")))
    assert talker.expect("SUBACK")["reasons"] == [0]
    talker.send(house.publish(COMMAND, b"temperature:15", 1))
    if not may:
        assert talker.expect("PUBLISH")["topic"] == COMMAND
    assert talker.expect("PUBACK")["reason"] == may
    talker.send(house.publish("/plant/peanut/state", b"{}", 1, 2))
    assert talker.expect("PUBACK")["reason"] == 0x87, "only the node writes its reports"
    talker.send(house.subscribe(house.topic_filter("$SYS/#")))
    assert talker.expect("SUBACK")["reasons"] == [may], "the gateway's own affairs are the operators'"


def test_a_viewer_leaves_no_will(talk: Any) -> None:
    talker = talk()
    connack = talker.password("joe", "battery staple", "will", will=house.will(COMMAND))
    assert connack["reason"] == 0x87
    assert talker.ended()


def test_a_user_who_is_removed_leaves_no_will(fleet: Fleet, start: Start, dial: Dial) -> None:
    """Of those who are away as well; another user's is published."""
    fleet.settings(SETTINGS)
    write_users(fleet.home, **USERS)
    daemon = start(fleet.home)
    watcher = Talker(dial(daemon.port("mqtt")))
    assert watcher.password("ada", "lovelace, ada", "watcher")["reason"] == 0
    watcher.send(house.subscribe(house.topic_filter("#")))
    watcher.expect("SUBACK")
    for name, password in (("maria", PASSWORD), ("ada", "lovelace, ada")):
        will = house.will("fleet/time", name.encode(), will_delay_interval=2)
        talker = Talker(dial(daemon.port("mqtt")))
        assert talker.password(name, password, "w", will=will, props=[["session_expiry_interval", 60]])["reason"] == 0
        talker.sock.close()
        daemon.line(f"disconnected who=user/{name}/w ")
    write_users(fleet.home, joe=USERS["joe"], ada=USERS["ada"])
    daemon.signal(signal.SIGHUP)
    daemon.line("info  peanutd: reloaded")
    assert watcher.expect("PUBLISH")["payload"] == b"ada"


def test_user_and_operator_of_one_name_are_two(talk: Any, gateway: Ports, shared_fleet: Fleet) -> None:
    """Neither takes over the session of the other, and one user none of another's."""
    operator = talk(port=gateway.both, context=shared_fleet.context(shared_fleet.issue("peanut:operator/maria")))
    operator.send(house.connect("same"))
    assert operator.expect("CONNACK")["reason"] == 0
    first, other, second = talk(), talk(), talk()
    assert first.password("maria", PASSWORD, "same")["reason"] == 0
    assert other.password("ada", "lovelace, ada", "same")["reason"] == 0
    assert second.login(Client("maria", PASSWORD), "same")["reason"] == 0
    assert first.expect("DISCONNECT")["reason"] == 0x8E, "the same user has taken over"
    for talker in (operator, other, second):
        talker.send(house.PINGREQ)
        talker.expect("PINGRESP")


def test_a_client_id_is_assigned(talk: Any) -> None:
    connack = talk().login(Client("maria", PASSWORD), "")
    assert named(connack, "assigned_client_identifier").startswith("auto-")


def test_a_user_name_beside_scram_must_be_the_same(talk: Any) -> None:
    assert talk().login(Client("maria", PASSWORD), "named", username="maria")["reason"] == 0
    assert talk().login(Client("maria", PASSWORD), "named", username="ada")["reason"] == 0x86


def test_a_certificate_is_enough_where_it_is_optional(talk: Any, gateway: Ports, shared_fleet: Fleet) -> None:
    node = shared_fleet.context(shared_fleet.issue("peanut:plant/peanut"))
    talker = talk(port=gateway.both, context=node)
    talker.send(house.connect("peanut"))
    assert talker.expect("CONNACK")["reason"] == 0
    # A node does not become a user by knowing a password.
    talker = talk(port=gateway.both, context=node)
    assert talker.password("maria", PASSWORD, "peanut")["reason"] == 0x86
    assert talker.ended()
    # And a user needs a right password where certificates count as well.
    talker = talk(port=gateway.both, context=shared_fleet.context(None))
    assert talker.password("maria", "wrong")["reason"] == 0x86


def test_a_certificate_that_is_not_good_is_not_mended_by_a_password(
    talk: Any, gateway: Ports, shared_fleet: Fleet
) -> None:
    from datetime import UTC, datetime, timedelta

    old = datetime.now(UTC) - timedelta(days=1)
    leaf = shared_fleet.issue("peanut:operator/maria", start=old - timedelta(days=9), end=old)
    talker = talk(port=gateway.both, context=shared_fleet.context(leaf))
    assert talker.password("maria", PASSWORD)["reason"] == 0x87
    assert talker.ended()


# --- what it costs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["password", "login"])
def test_who_fails_too_often_waits(dial: Dial, gateway: Ports, way: str) -> None:
    """5 failures of a user from an address; after that not even the right password, but from elsewhere it is."""
    source = f"127.9.{len(way)}.1"

    def attempt(password: str, source: str | None = source) -> int:
        talker = Talker(dial(gateway.plain, source=source))
        if way == "password":
            return int(talker.password("maria", password)["reason"])
        client = Client("maria", password)
        talker.send(house.connect(props=proof(METHOD, client.first())))
        packet = talker.read()
        assert packet is not None
        if packet["type"] == "AUTH":
            talker.send(auth(METHOD, client.final(named(packet, "authentication_data"))))
            packet = talker.expect("CONNACK")
        return int(packet["reason"])

    assert [attempt("wrong") for _ in range(6)] == [0x86] * 5 + [0x9F]
    assert attempt(PASSWORD) == 0x9F
    assert attempt(PASSWORD, None) == 0
    line = gateway.daemon.line(f"refused .*{source}.*for a while")
    assert "user=maria" in line


def test_no_password_is_logged(gateway: Ports, talk: Any) -> None:
    talker = talk()
    assert talker.password("maria", "a-wrong-secret-of-mine", "spill")["reason"] == 0x86
    talker = talk()
    assert talker.password("maria", PASSWORD, "spilled")["reason"] == 0
    gateway.daemon.line("connected who=user/maria/spilled")
    text = "\n".join(gateway.daemon.lines)
    assert "a-wrong-secret-of-mine" not in text
    assert PASSWORD not in text


@pytest.fixture
def slow(fleet: Fleet) -> Fleet:
    """A fleet whose one user has so many iterations that checking a password takes a while."""
    fleet.settings(SETTINGS.replace("connect_timeout = 5000", "connect_timeout = 30000"))
    write_users(fleet.home, maria=user(PASSWORD), slow=user(PASSWORD, iterations=400_000))
    return fleet


def test_the_loop_does_not_wait_for_passwords(slow: Fleet, start: Start, dial: Dial) -> None:
    """While passwords are checked, others are served: the PINGRESP comes before the last of the CONNACKs."""
    port = start(slow.home).port("mqtt")
    quick = Talker(dial(port))
    assert quick.password("maria", PASSWORD)["reason"] == 0
    waiting = [Talker(dial(port)) for _ in range(6)]
    for number, talker in enumerate(waiting):
        talker.send(house.connect(f"slow{number}", username="slow", password=PASSWORD.encode()))
    quick.send(house.PINGREQ)
    quick.expect("PINGRESP")
    ready, _, _ = select.select([talker.sock for talker in waiting], [], [], 0)
    assert len(ready) < len(waiting)
    for talker in waiting:
        assert talker.expect("CONNACK")["reason"] == 0


def test_it_stops_while_passwords_are_checked(slow: Fleet, start: Start, dial: Dial) -> None:
    daemon = start(slow.home)
    port = daemon.port("mqtt")
    waiting = [Talker(dial(port)) for _ in range(3)]
    for number, talker in enumerate(waiting):
        talker.send(house.connect(f"slow{number}", username="slow", password=PASSWORD.encode()))
    assert Talker(dial(port)).password("maria", None)["reason"] == 0x87  # so the others have arrived
    daemon.signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert not [line for line in daemon.lines if "Traceback" in line or " error " in line]


def test_clients_that_leave_while_their_passwords_are_checked(slow: Fleet, start: Start, dial: Dial) -> None:
    """They take up neither a worker nor a place in the queue."""
    daemon = start(slow.home)
    port = daemon.port("mqtt")
    for number in range(login.WORKERS + login.WAITING + 1):
        talker = Talker(dial(port))
        talker.send(house.connect(f"slow{number}", username="slow", password=PASSWORD.encode()))
        talker.sock.shutdown(socket.SHUT_RDWR)
        talker.sock.close()

    def let_in() -> bool:
        """0x89, busy, is right for as long as the gateway has not seen that they are gone."""
        reason = Talker(dial(port)).password("maria", PASSWORD)["reason"]
        assert reason in (0, 0x89)
        return bool(reason == 0)

    wait_for(let_in, "a place for somebody who stays")
    assert not [line for line in daemon.lines if "Traceback" in line or "who=user/slow" in line]


# --- users who come and go --------------------------------------------------------------------------------------------


def test_users_come_and_go_while_the_gateway_serves(fleet: Fleet, start: Start, dial: Dial) -> None:
    """A new user needs no reload; who is removed or changed is put out (here at SIGHUP), the others stay."""
    fleet.settings(SETTINGS)
    daemon = start(fleet.home)
    assert "there are no users yet" in daemon.line("users.json")
    port = daemon.port("mqtt")
    assert Talker(dial(port)).password("maria", PASSWORD)["reason"] == 0x86

    write_users(fleet.home, **USERS)
    maria, joe, ada = (Talker(dial(port)) for _ in range(3))
    assert maria.login(Client("maria", PASSWORD), "m")["reason"] == 0
    assert joe.password("joe", "battery staple", "j")["reason"] == 0
    assert ada.password("ada", "lovelace, ada", "a")["reason"] == 0

    gone = Talker(dial(port))
    assert gone.password("joe", "battery staple", "gone")["reason"] == 0
    gone.send(house.disconnect())
    daemon.line("disconnected who=user/joe/gone")
    gone.sock.close()

    write_users(fleet.home, maria=USERS["maria"], ada=user("another password", "admin"))
    daemon.signal(signal.SIGHUP)
    for talker in (joe, ada):
        assert talker.expect("DISCONNECT")["reason"] == 0x87
        assert talker.ended()
    daemon.line("logged out who=user/joe/j")
    daemon.line("reloaded")
    assert not [line for line in daemon.lines if "logged out who=user/joe/gone" in line], "it is still remembered"
    maria.send(house.PINGREQ)
    maria.expect("PINGRESP")

    write_users(fleet.home, maria=user("a newer one"))
    renewed = again(maria, Client("maria", "a newer one"))
    assert renewed is not None
    assert (renewed["type"], renewed["reason"]) == ("AUTH", 0)
    daemon.signal(signal.SIGHUP)
    daemon.line("reloaded", 2)
    maria.send(house.PINGREQ)
    maria.expect("PINGRESP")

    write_users(fleet.home, maria=user("a newer one", "viewer"))
    packet = again(maria, Client("maria", "a newer one"))
    assert packet is not None
    assert (packet["type"], packet["reason"]) == ("DISCONNECT", 0x87), "the old role would go on"

    (fleet.home / "users.json").write_text("{")
    assert Talker(dial(port)).password("maria", "a newer one")["reason"] == 0
    assert "users of before stay" in daemon.line("users.json: not JSON")


def test_check_tells_about_users(fleet: Fleet, start: Start) -> None:
    fleet.settings(SETTINGS)
    write_users(fleet.home, **USERS)
    daemon = start(fleet.home, "--check")
    assert daemon.wait() == 0
    assert "users     3" in daemon.lines
    (fleet.home / "users.json").unlink()
    daemon = start(fleet.home, "--check")
    assert daemon.wait() == 0
    assert any(line.startswith("warning") and "peanut user add" in line for line in daemon.lines)


def test_a_password_and_the_network_need_tls(fleet: Fleet, start: Start) -> None:
    """Even with insecure = true: a password is not to be read on the way."""
    fleet.settings(
        SETTINGS.replace('"127.0.0.1:0"\ntransport = "tcp"', '"0.0.0.0:0"\ninsecure = true\ntransport = "tcp"')
    )
    daemon = start(fleet.home, "--check")
    assert daemon.wait() == 2
    assert any("gateway.toml:8" in line and "passwords in the clear" in line for line in daemon.lines)


def test_users_made_by_peanut(fleet: Fleet, start: Start, dial: Dial, tmp_path: Path) -> None:
    """The command line and the gateway share a file format and no code."""
    pytest.importorskip("peanut")
    import sys

    secret = tmp_path / "secret"
    secret.write_text("p\u00e4ssword \u2168\n")
    (fleet.home / "fleet.toml").write_text('hosts = ["localhost"]\n')
    command = [sys.executable, "-m", "peanut", "--home", str(fleet.home), "user", "add", "eve"]
    subprocess.run([*command, "--password-file", str(secret)], check=True, capture_output=True, timeout=60)
    fleet.settings(SETTINGS)
    port = start(fleet.home).port("mqtt")
    assert Talker(dial(port)).password("eve", "p\u00e4ssword IX")["reason"] == 0
    for method in HASHES:
        client = Client("eve", "p\u00e4ssword IX", method)
        assert client.check(named(Talker(dial(port)).login(client), "authentication_data"))
