"""HTTPS as it is on the wire: certificates, headers, limits, MQTT over WebSocket beside it, and the end."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from peanutd import tls
from peanutd.api import app, door
from tests.broker.conftest import DEADLINE, Daemon, Fleet, Start, wait_for
from tests.broker.scram_client import user, write_users
from tools.ports import free_port

PASSWORD = "correct horse"
USERS = {
    "maria": user(PASSWORD, argon=True),
    "tom": user(PASSWORD, argon=True),
    "ada": user(PASSWORD, "admin", argon=True),
}


class House:
    """A gateway with HTTPS."""

    def __init__(self, fleet: Fleet, start: Callable[[Path], Daemon], more: str = "") -> None:
        self.fleet = fleet
        self.port = free_port()
        fleet.settings(f'[listen]\nmqtts = "127.0.0.1:0"\nhttps = "127.0.0.1:{self.port}"\n{more}')
        write_users(fleet.home, **USERS)
        self.daemon: Daemon = start(fleet.home)
        self.daemon.line("listening https")
        self.daemon.line("listening mqtts")

    @contextlib.contextmanager
    def connection(self) -> Iterator[http.client.HTTPSConnection]:
        made = http.client.HTTPSConnection("localhost", self.port, timeout=60, context=self.fleet.context(None))
        yield made
        made.close()

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
        with self.connection() as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()

    def raw(self) -> ssl.SSLSocket:
        """A TLS connection that has said nothing."""
        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        return self.fleet.context(None).wrap_socket(plain, server_hostname="localhost")


@pytest.fixture(scope="module")
def house(shared_fleet: Fleet) -> Iterator[House]:
    """One for all tests that leave it as it was."""
    daemons: list[Daemon] = []

    def start(home: Path) -> Daemon:
        daemons.append(Daemon(home))
        return daemons[0]

    yield House(shared_fleet, start)
    for daemon in daemons:
        daemon.process.terminate()
        assert daemon.process.wait(60) == 0


def test_every_answer_has_the_headers(house: House) -> None:
    for path in ("/", "/api/v1/health", "/api/v1/me", "/api/nothing", "/assets/none.js", "/ca.crt"):
        answer, _ = house.get(path)
        for name, value in app.HEADERS.items():
            assert answer.headers[name] == value, path
        assert ("no-store" in answer.headers.get("Cache-Control", "")) == path.startswith("/api")
        assert "server" not in answer.headers
    assert "'unsafe" not in app.CSP
    assert house.get("/ca.crt")[1] == house.fleet.root.pem


def test_it_speaks_modern_tls_only_and_says_nothing_in_plain(house: House) -> None:
    context = house.fleet.context(None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", house.port), 30) as plain, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(plain, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", house.port), 30) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert b"HTTP" not in plain.recv(1000)
    assert house.get("/api/v1/health")[0].status == 200


@pytest.mark.parametrize(
    "request_",
    [
        b"nonsense\r\n\r\n",
        b"GET /api/v1/health HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_request_is_answered_and_closed(house: House, request_: bytes) -> None:
    with house.raw() as peer:
        heard = b""
        with contextlib.suppress(OSError):
            peer.sendall(request_)
            while chunk := peer.recv(4096):
                heard += chunk
    long = len(request_) > 32 * 1024  # the rest of it is not read, and the answer may be lost with that
    assert b" 400 " in heard.split(b"\r\n")[0] or (long and not heard)
    assert house.get("/api/v1/health")[0].status == 200


def test_a_certificate_of_ones_own_another_one_while_it_runs_and_the_end(fleet: Fleet, start: Start) -> None:
    other = fleet.issue_gateway()
    (fleet.home / "web.crt").write_bytes(other.pem + fleet.issuing.pem)
    (fleet.home / "web.key").write_bytes(other.key_pem())
    house = House(fleet, start, '[https]\ncertificate = "web.crt"\nkey = "web.key"\n')

    def shown() -> bytes | None:
        with house.raw() as peer:
            return peer.getpeercert(True)

    assert shown() == other.der
    (fleet.home / "web.crt").write_bytes(b"nonsense")
    house.daemon.line(r"not reloaded.*web\.crt")
    assert shown() == other.der
    newer = fleet.issue_gateway()
    (fleet.home / "web.key").write_bytes(newer.key_pem())
    (fleet.home / "web.crt").write_bytes(newer.pem + fleet.issuing.pem)
    wait_for(lambda: shown() == newer.der, "the new certificate")
    _ends_in_spite_of_a_stream(house)


def _ends_in_spite_of_a_stream(house: House) -> None:
    """An open stream of events does not hold up the end."""
    body = json.dumps({"user": "maria", "password": PASSWORD})
    with house.connection() as connection, house.connection() as other:
        connection.request("POST", "/api/v1/session", body, {"Content-Type": "application/json"})
        token = json.loads(connection.getresponse().read())["access_token"]
        other.request("GET", "/api/v1/events", headers={"Authorization": f"Bearer {token}"})
        stream = other.getresponse()
        assert stream.read1() == b": here\n\n"
        house.daemon.process.terminate()
        assert house.daemon.process.wait(60) == 0
    assert not [line for line in house.daemon.lines if " error api" in line]


def test_without_its_address_it_does_not_start(fleet: Fleet, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        fleet.settings(f'[listen]\nmqtts = "127.0.0.1:0"\nhttps = "127.0.0.1:{taken.getsockname()[1]}"\n')
        daemon: Daemon = start(fleet.home)
        assert daemon.process.wait(60) == 1
        daemon.line("in use")


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(tls.TlsError, match=r"web\.crt: not there; mend certificate and key in \[https\]"):
        tls.web(tmp_path / "web.crt", tmp_path / "web.key")


def test_one_address_has_so_many_connections(house: House) -> None:
    held: list[socket.socket] = []
    try:
        for _ in range(door.PER_ADDRESS):
            held.append(socket.create_connection(("127.0.0.1", house.port), 30))
        extra = socket.create_connection(("127.0.0.1", house.port), 30)
        held.append(extra)
        readable, _, _ = select.select([extra], [], [], DEADLINE)
        assert readable
        with contextlib.suppress(ConnectionError):
            assert extra.recv(1) == b""
    finally:
        for sock in held:
            sock.close()
    wait_for(lambda: _answers(house), "an answer once they have gone")


def _answers(house: House) -> bool:
    try:
        return house.get("/api/v1/health")[0].status == 200
    except OSError:
        return False


# --- MQTT over WebSocket --------------------------------------------------------------------------------------------


def mqtt(house: House, password: str, heard: list[Any], name: str = "maria") -> tuple[Client, threading.Event]:
    """A browser's client, near enough: paho over WebSocket."""
    client, known = Client(CallbackAPIVersion.VERSION2, transport="websockets"), threading.Event()
    client.tls_set_context(house.fleet.context(None))
    client.ws_set_options(path="/mqtt")
    client.username_pw_set(name, password)

    def connected(_client: Client, _data: object, _flags: object, reason: Any, _props: object) -> None:
        heard.append(reason.value)
        known.set()

    client.on_connect = connected
    client.on_message = lambda _client, _data, message: heard.append((message.topic, message.payload))
    client.connect("localhost", house.port)
    client.loop_start()
    return client, known


def test_mqtt_over_websocket_is_on_the_same_port(house: House) -> None:
    heard: list[Any] = []
    client, known = mqtt(house, PASSWORD, heard)
    try:
        assert known.wait(60)
        assert heard == [0]
        client.subscribe("/plant/+/cmd/big", 1)
        payload = b"x" * 500_000  # more than any buffer on the way
        wait_for(lambda: client.publish("/plant/peanut/cmd/big", payload, 1).rc == 0, "sent")
        wait_for(lambda: ("/plant/peanut/cmd/big", payload) in heard, "heard")
        line = house.daemon.line("connected who=user/maria")
        assert "address=127.0.0.1:" in line
    finally:
        client.disconnect()
        client.loop_stop()
    house.daemon.line("disconnected who=user/maria")


def test_mqtt_over_websocket_needs_the_password_and_the_own_page(house: House) -> None:
    heard: list[Any] = []
    client, known = mqtt(house, "wrong", heard)
    try:
        assert known.wait(60)
        assert heard[0] != 0
    finally:
        client.disconnect()
        client.loop_stop()
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers |= {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==", "Sec-WebSocket-Protocol": "mqtt"}
    assert house.get("/mqtt", **headers, Origin="https://evil.example")[0].status == 403
    assert house.get("/mqtt", **headers, Origin=f"https://localhost:{house.port}")[0].status == 101


def test_files_of_the_app_are_kept_or_asked_about(tmp_path: Path) -> None:
    """What Vite names by its content is immutable; the page, the worker and every path of the app's own are not."""
    from starlette.requests import Request

    from peanutd.api.static import IMMUTABLE, Static

    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "assets" / "a-1.js").write_text("let a")
    (tmp_path / "assets" / "a-1.js.br").write_bytes(b"packed")
    static = Static(tmp_path)

    def get(path: str, **headers: str) -> Any:
        sent = [(key.lower().replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
        return static.serve(Request({"type": "http", "method": "GET", "path_params": {"path": path}, "headers": sent}))

    page = get("")
    assert (page.body, page.headers["cache-control"]) == (b"<!doctype html>", "no-cache")
    assert get("devices/peanut").body == page.body
    assert get("", If_None_Match=page.headers["etag"]).status_code == 304
    script = get("assets/a-1.js")
    assert (script.headers["cache-control"], script.media_type) == (IMMUTABLE, "text/javascript")
    packed = get("assets/a-1.js", Accept_Encoding="gzip, br;q=1")
    assert (packed.body, packed.headers["content-encoding"]) == (b"packed", "br")
    assert get("assets/old.js").status_code == 404
    assert get("../users.json").body == page.body


def ask(house: House, method: str, path: str, token: str = "", **body: Any) -> Any:
    with house.connection() as connection:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        connection.request(method, f"/api/v1{path}", json.dumps(body), headers)
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status < 300, text
        return json.loads(text)


def test_who_is_held_to_groups_does_not_go_round_them_by_mqtt(house: House) -> None:
    """A scope counts over HTTPS; the rules of MQTT would let an operator command everything."""
    heard: list[Any] = []
    client, known = mqtt(house, PASSWORD, heard, "tom")
    out = threading.Event()
    client.on_disconnect = lambda *_: out.set()
    ada = ask(house, "POST", "/session", user="ada", password=PASSWORD)["access_token"]
    try:
        assert known.wait(60)
        assert heard == [0]
        ask(house, "PUT", "/users/tom", ada, scope=["north"])
        assert out.wait(60)
        assert "has a scope" in house.daemon.line("logged out who=user/tom")
    finally:
        client.loop_stop()
    again: list[Any] = []
    client, known = mqtt(house, PASSWORD, again, "tom")
    try:
        assert known.wait(60)
        assert again[0] != 0
    finally:
        client.loop_stop()
    ask(house, "PUT", "/users/tom", ada, scope=None)
    freed: list[Any] = []
    client, known = mqtt(house, PASSWORD, freed, "tom")
    try:
        assert known.wait(60)
        assert freed[0] == 0
    finally:
        client.disconnect()
        client.loop_stop()
