"""`peanut send` against a real mosquitto with mutual TLS, small nodes, and a scripted gateway for the rest."""

import json
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from peanut import ca, init, ledger, operators, plan, send, session, store
from peanut.errors import Exit, PeanutError
from peanut.home import Home
from peanut.names import Kind
from tools.ports import free_port

from .conftest import Run, invoke, start
from .gateway import Answer, Mosquitto, Node, Scripted, Vehicle, obey, running

from node.signed import Gate  # isort: skip


@pytest.fixture
def gateway(home: Home, mosquitto: Mosquitto) -> Mosquitto:
    home.gateway_toml.write_text(f'[listen]\nmqtts = "0.0.0.0:{mosquitto.port}"\n')
    return mosquitto


@contextmanager
def node(
    home: Home, gateway: Mosquitto, answer: Answer, status: str = "online", name: str = "peanut"
) -> Iterator[Node]:
    one = Node(home.path, name, gateway.port, home.path.parent, answer, status)
    try:
        yield one
    finally:
        one.stop()


def test_done(home: Home, run: Run, gateway: Mosquitto) -> None:
    with node(home, gateway, obey) as peanut:
        result = run("send", "peanut", "UpdateTemperature", "15")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    stages = [line.split()[0] for line in result.stdout.splitlines()]
    assert stages == ["sent", "accepted", "done"]
    assert "setpoint 15, temperature 18.25, heater off" in result.stdout
    ((topic, command, retained),) = peanut.received
    assert topic == "/plant/peanut/UpdateTemperature"
    assert command["temperature"] == 15
    assert set(command) == {"temperature", "id", "exp"}
    assert not retained
    assert abs(command["exp"] - ca.utc_now().timestamp() - 60) < 10


def test_what_is_sent_expires_with_the_command_and_is_mqtt_5(home: Home, run: Run, gateway: Mosquitto) -> None:
    with node(home, gateway, obey):
        run("send", "peanut", "UpdateTemperature", "15")
    log = gateway.log.read_text()
    # mosquitto writes the protocol's version and the clean start of each client: p5, c1
    assert "p5, c1, k15, u'operator'" in log


def test_a_process_of_its_own_without_a_terminal(home: Home, gateway: Mosquitto) -> None:
    with node(home, gateway, obey):
        process = start(home.path, "send", "peanut", "UpdateTemperature", "15.5")
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out
    assert "done" in out


def test_json(home: Home, run: Run, gateway: Mosquitto) -> None:
    with node(home, gateway, obey):
        result = run("send", "peanut", "UpdateTemperature", "-2.5", "--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["stage"] for line in lines] == ["sent", "accepted", "done"]
    assert lines[-1]["state"] == {"setpoint": -2.5, "temperature": 18.25, "heater": False}


def test_other_commands_go_below_cmd(home: Home, run: Run, gateway: Mosquitto) -> None:
    with node(home, gateway, obey) as peanut:
        assert run("send", "peanut", "heater", "mode=off", "for_s=60").exit_code == 0
        assert run("send", "peanut", "vent", '{"mode": "open"}').exit_code == 0
        assert run("send", "peanut", "identify").exit_code == 0
    assert [(topic, c["args"]) for topic, c, _ in peanut.received] == [
        ("/plant/peanut/cmd/heater", {"mode": "off", "for_s": 60}),
        ("/plant/peanut/cmd/vent", {"mode": "open"}),
        ("/plant/peanut/cmd/identify", {}),
    ]
    assert all(set(c) == {"id", "args", "exp"} for _, c, _ in peanut.received)


def test_rejected(home: Home, run: Run, gateway: Mosquitto) -> None:
    # A hostile node's reason tries to clear the screen.
    with node(home, gateway, lambda _: [{"stage": "rejected", "why": "range 2..40\x1b[2J"}]):
        result = run("send", "peanut", "UpdateTemperature", "99")
    assert result.exit_code == Exit.REJECTED
    assert "rejected" in result.stdout
    assert "range 2..40" in result.stdout
    assert "\x1b" not in result.output


def test_only_the_answer_to_this_command_counts(home: Home, run: Run, gateway: Mosquitto) -> None:
    noise: list[Any] = [
        b"", b"\xff\xfe", b"[]", b"3", b'{"stage": "done"}', b"[" * 3000,
        {"stage": "done", "id": "another"}, {"stage": 3}, {"stage": None}, {"nothing": 1},
        {"stage": "accepted", "state": [1]},
    ]  # fmt: skip
    with node(home, gateway, lambda c: [*noise, {"stage": "done", "state": 7}]):
        result = run("send", "peanut", "UpdateTemperature", "15")
    assert result.exit_code == 0
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["sent", "accepted", "done"]


def test_silent_but_online(home: Home, run: Run, gateway: Mosquitto) -> None:
    with node(home, gateway, lambda _: []):
        result = run("send", "peanut", "UpdateTemperature", "15", "--timeout", "0.3")
    assert result.exit_code == Exit.TIMEOUT
    assert "peanut is online, and did not answer within 0.3 s" in result.stderr


def test_accepted_and_never_done(home: Home, run: Run, gateway: Mosquitto) -> None:
    with node(home, gateway, lambda _: [{"stage": "accepted"}]):
        result = run("send", "peanut", "UpdateTemperature", "15", "--timeout", "0.3")
    assert result.exit_code == Exit.TIMEOUT
    assert "accepted, and was not done" in result.stderr


def test_offline_is_told_at_once(home: Home, run: Run, gateway: Mosquitto) -> None:
    with node(home, gateway, lambda _: [], status="offline"):
        result = run("send", "peanut", "UpdateTemperature", "15", "--timeout", "0.5")
    assert result.exit_code == Exit.OFFLINE
    assert "offline   peanut is offline; waiting for it" in result.stdout
    assert "did not answer within 0.5 s" in result.stderr


def test_offline_and_yet_it_answers(home: Home, run: Run, gateway: Mosquitto) -> None:
    with node(home, gateway, obey, status="sleeping"):
        assert run("send", "peanut", "UpdateTemperature", "15").exit_code == 0


def test_never_seen(home: Home, run: Run, gateway: Mosquitto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send, "STATUS_S", 0.1)
    result = run("send", "tomato", "UpdateTemperature", "15", "--timeout", "0.5")
    assert result.exit_code == Exit.OFFLINE
    assert "tomato has never been seen by this gateway; waiting" in result.stdout


# The gateway


def test_nobody_listens(home: Home, run: Run) -> None:
    result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", f"127.0.0.1:{free_port()}")
    assert result.exit_code == Exit.UNREACHABLE
    assert "gateway unreachable" in result.stderr
    assert "peanutd running" in result.stderr


def test_somebody_listens_and_says_nothing(home: Home, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", f"127.0.0.1:{mute.getsockname()[1]}")
    assert result.exit_code == Exit.UNREACHABLE


def test_a_name_that_is_none(home: Home, run: Run) -> None:
    result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", "gateway.invalid")  # RFC 2606
    assert result.exit_code == Exit.UNREACHABLE


def test_a_gateway_of_another_fleet(home: Home, run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    invoke(other, "init")
    (tmp_path / "broker").mkdir()
    with running(Mosquitto(other, tmp_path / "broker", trusts=home.path)) as broker:
        result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", broker.address)
    assert result.exit_code == Exit.CERTIFICATE
    assert "is not this fleet's gateway" in result.stderr


def test_a_gateway_under_a_name_it_has_no_certificate_for(
    home: Home, run: Run, gateway: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.create_connection
    monkeypatch.setattr("socket.create_connection", lambda address, *a, **k: real(("127.0.0.1", address[1]), *a, **k))
    for host in ("barn.local", "192.168.9.9"):
        result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", f"{host}:{gateway.port}")
        assert result.exit_code == Exit.CERTIFICATE
        assert f"peanut init --host {host}" in result.stderr


def test_no_tls_there(home: Home, run: Run) -> None:
    import threading

    def serve() -> None:
        peer, _ = plain.accept()
        with peer:
            peer.recv(4096)
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as plain:
        thread = threading.Thread(target=serve)
        thread.start()
        result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", f"127.0.0.1:{plain.getsockname()[1]}")
        thread.join(5)
    assert result.exit_code == Exit.CERTIFICATE
    assert "TLS port" in result.stderr


def test_a_gateway_that_does_not_trust_us(home: Home, run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    invoke(other, "init")
    (tmp_path / "broker").mkdir()
    with running(Mosquitto(home.path, tmp_path / "broker", trusts=other)) as broker:
        result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", broker.address)
    assert result.exit_code == Exit.CERTIFICATE, result.output
    assert "--home" in result.stderr


def test_a_gateway_that_does_not_trust_us_in_tls_1_2(home: Home, run: Run, tmp_path: Path) -> None:
    invoke(tmp_path / "other", "init")
    scripted = Scripted(home.path, trusts=tmp_path / "other/ca/root.crt")
    try:
        result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", scripted.address)
    finally:
        scripted.stop()
    assert result.exit_code == Exit.CERTIFICATE
    assert "closed the connection when it saw our certificate" in result.stderr
    assert "--home" in result.stderr


def test_publish_refused(home: Home, run: Run, tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    with running(Mosquitto(home.path, tmp_path / "broker", acl="user operator\ntopic read #\n")) as broker:
        result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", broker.address)
    assert result.exit_code == Exit.REFUSED
    assert "does not let this operator command peanut: Not authorized" in result.stderr
    assert result.stdout == ""


# Packets of MQTT 5, with the chapter of each
CONNACK = bytes.fromhex("20 03 00 00 00")  # 3.2: no session, success, no properties
CONNACK_BANNED = bytes.fromhex("20 03 00 8A 00")  # 3.2.2.2
SUBACK = bytes.fromhex("90 05 0001 00 01 01")  # 3.9: packet 1, no properties, QoS 1 twice
SUBACK_REFUSED = bytes.fromhex("90 05 0001 00 01 87")  # 3.9.3: not authorized
PUBACK_QUOTA = bytes.fromhex("40 03 0002 97")  # 3.4.2.1: quota exceeded
DISCONNECT = bytes.fromhex("E0 02 8B 00")  # 3.14.2.1: server shutting down


@pytest.mark.parametrize(
    ("replies", "status", "words"),
    [
        ((CONNACK_BANNED,), Exit.REFUSED, "Banned"),
        ((CONNACK, SUBACK_REFUSED), Exit.REFUSED, "does not let this operator read the answers"),
        ((CONNACK, SUBACK, PUBACK_QUOTA), Exit.REFUSED, "Quota exceeded"),
        ((CONNACK, DISCONNECT), Exit.REFUSED, "Server shutting down"),
        ((CONNACK,), Exit.UNREACHABLE, "closed the connection"),
        ((CONNACK, SUBACK), Exit.UNREACHABLE, "closed the connection"),
        ((b"\x00\x00garbage",), Exit.UNREACHABLE, "does not speak MQTT 5"),
        ((b"\xff" * 4000,), Exit.UNREACHABLE, "does not speak MQTT 5"),
        ((CONNACK, b"\xff" * 4000), Exit.UNREACHABLE, "does not speak MQTT 5"),
    ],
)
def test_a_gateway_that_refuses_or_goes(
    home: Home, run: Run, replies: tuple[bytes, ...], status: Exit, words: str
) -> None:
    scripted = Scripted(home.path, *replies)
    try:
        result = run("send", "peanut", "UpdateTemperature", "15", "--gateway", scripted.address, "--timeout", "2")
    finally:
        scripted.stop()
    assert result.exit_code == status, result.output
    assert words in result.stderr


# Our side


def test_no_operator(home: Home, run: Run) -> None:
    for words in (("--operator", "maria"), ("--operator", "../x")):
        result = run("send", "peanut", "UpdateTemperature", "15", *words)
        assert result.exit_code == Exit.USAGE
        assert "peanut operator add NAME" in result.stderr


def test_another_operator(home: Home, run: Run, gateway: Mosquitto) -> None:
    run("operator", "add", "maria")
    with node(home, gateway, obey):
        assert run("send", "peanut", "UpdateTemperature", "15", "--operator", "maria").exit_code == 0
    assert "u'maria'" in gateway.log.read_text()


def test_the_only_operator_need_not_be_named(tmp_path: Path) -> None:
    home = Home(tmp_path)
    invoke(tmp_path, "init", "--operator", "maria")
    assert session.credentials(home, None, ca.utc_now()).key == home.operator("maria") / "operator.key"


def test_an_expired_certificate(tmp_path: Path) -> None:
    home, now = Home(tmp_path / "f"), ca.utc_now()
    founded = now - timedelta(days=400)
    steps = init.plan(home, ["localhost"], None, init.generate_passphrase(), founded)
    plan.carry_out(steps, lambda _: None, dry_run=False)
    invoke(home.path, "device", "add", "peanut", "--kind", "greenhouse")
    result = invoke(home.path, "send", "peanut", "UpdateTemperature", "15")
    assert result.exit_code == Exit.CERTIFICATE
    assert "expired on" in result.stderr
    assert "peanut operator add operator" in result.stderr
    assert invoke(home.path, "operator", "add", "operator").exit_code == 0  # the fix that it names works
    session.credentials(home, None, now)


def test_certificates_that_are_not_good(home: Home) -> None:
    now, folder = ca.utc_now(), home.operator("operator")
    with pytest.raises(PeanutError, match="clock says"):
        session.credentials(home, None, now - timedelta(days=30))
    issuing, key = store.issuing(home), store.key(folder / "operator.key")
    good = (folder / "operator.crt").read_bytes()
    wrong = ca.issue_gateway(key.public_key(), ["x"], issuing, now)
    (folder / "operator.crt").write_bytes(ca.certificate_pem(wrong))
    with pytest.raises(PeanutError, match="not one for a client"):
        session.credentials(home, None, now)
    (folder / "operator.crt").write_bytes(good)
    (folder / "operator.key").write_bytes(ca.key_pem(ca.new_key()))
    with pytest.raises(PeanutError, match="another key"):
        session.credentials(home, None, now)
    (folder / "operator.key").unlink()
    with pytest.raises(PeanutError, match="is missing") as caught:
        session.credentials(home, None, now)
    assert caught.value.status == Exit.CERTIFICATE


def test_tls_settings(home: Home) -> None:
    context = session.tls(session.credentials(home, None, ca.utc_now()))
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "words",
    [
        ("tomatto", "UpdateTemperature", "15"),
        ("peanut", "UpdateTemperature"),
        ("peanut", "UpdateTemperature", "warm"),
        ("peanut", "UpdateTemperature", "nan"),
        ("peanut", "UpdateTemperature", "inf"),
        ("peanut", "UpdateTemperature", "15", "16"),
        ("peanut", "updatetemperature", "15"),
        ("peanut", "a/b"),
        ("peanut", "#"),
        ("peanut", "heater", "off"),
        ("peanut", "heater", "=off"),
        ("peanut", "heater", "a=1", "a=2"),
        ("peanut", "heater", "{"),
        ("peanut", "heater", "--colour"),
        ("peanut", "UpdateTemperature", "15", "--timeout", "0"),
        ("peanut", "UpdateTemperature", "15", "--gateway", "a:b:c"),
        ("1M8GDM9AXKP042788", "open"),
        ("1M8GDM9AXKP042788", "start", "a|b"),
        ("peanut", "heater", "text=" + "x" * 4096),
    ],
)
def test_wrong_words_send_nothing(run: Run, gateway: Mosquitto, words: tuple[str, ...]) -> None:
    before = gateway.log.read_text().count("PUBLISH")
    result = run("send", *words)
    assert result.exit_code == Exit.USAGE, result.output
    assert result.stdout == ""
    assert gateway.log.read_text().count("PUBLISH") == before


def test_a_node_that_is_revoked_is_not_waited_for(run: Run) -> None:
    """Nobody listens at the port: a status other than 3 shows that no connection was tried."""
    command = ("send", "peanut", "UpdateTemperature", "15", "--gateway", f"127.0.0.1:{free_port()}")
    assert run("device", "revoke", "peanut", "--why", "stolen").exit_code == 0
    result = run(*command)
    assert result.exit_code == Exit.OFFLINE
    assert re.search(r"peanut was revoked at 20\d\d-\d\d-\d\d \d\d:\d\d UTC \(stolen\)", result.stderr), result.stderr
    assert "peanut device restore peanut" in result.stderr
    assert run("device", "restore", "peanut").exit_code == 0
    assert run(*command).exit_code == Exit.UNREACHABLE


def test_a_node_that_is_not_enrolled(home: Home, run: Run) -> None:
    """Nobody listens at the port: a status other than 3 shows that no connection was tried."""
    where = ("--gateway", f"127.0.0.1:{free_port()}")
    assert run("send", "peanut", "UpdateTemperature", "15", *where).exit_code == Exit.UNREACHABLE
    for others in ("1M8GDM9AXKP042788, peanut, tomato", None):
        if others is None:
            with ledger.opened(home.ledger) as connection:
                connection.execute("DELETE FROM device")
        result = run("send", "tomatto", "UpdateTemperature", "15", *where)
        assert result.exit_code == Exit.USAGE
        assert (f"Devices: {others}." if others else "There are none yet.") in result.stderr
        assert "peanut device add NAME" in result.stderr


def test_the_exit_statuses_are_those_of_the_readme(run: Run) -> None:
    text = (Path(__file__).parents[2] / "provisioning/README.md").read_text()
    told = {int(number) for number in re.findall(r"^\| (\d) \| ", text, re.MULTILINE)}
    shown = {int(number) for number in re.findall(r"(?:^ +| {3,})(\d)  \S", run("send", "--help").stdout, re.MULTILINE)}
    assert told == shown == set(map(int, Exit))


VIN = "1M8GDM9AXKP042788"


@contextmanager
def vehicle(home: Home, gateway: Mosquitto, *answers: tuple[str, str | None]) -> Iterator[Vehicle]:
    one = Vehicle(home.path, VIN, gateway.port, home.path.parent, *answers)
    try:
        yield one
    finally:
        one.stop()


def test_a_vehicle_obeys_what_is_signed(home: Home, run: Run, gateway: Mosquitto) -> None:
    """Twice: the second is signed for the counter that the first has used."""
    with vehicle(home, gateway, ("accepted", None), ("done", None)) as car:
        for _ in range(2):
            result = run("send", VIN, "unlock")
            assert (result.exit_code, result.stderr) == (0, ""), result.output
            assert [line.split()[0] for line in result.stdout.splitlines()] == ["sent", "accepted", "done"]
    topics = [topic for topic, _, _ in car.received]
    assert topics == [f"vin/{VIN}/unlock"] * 2
    assert [command["ctr"] for _, command, _ in car.received] == [1, 2]
    assert {command["exp"] for _, command, _ in car.received} == {110}, "by the vehicle's clock"


def test_a_vehicle_that_refuses_says_why(home: Home, run: Run, gateway: Mosquitto) -> None:
    with vehicle(home, gateway, ("rejected", "unsafe: moving at 3 km/h")):
        result = run("send", VIN, "stop")
    assert result.exit_code == Exit.REJECTED
    assert "unsafe: moving at 3 km/h" in result.stdout


def test_an_answer_without_a_receipt_is_no_answer(home: Home, run: Run, gateway: Mosquitto) -> None:
    """Anybody who may publish could say `done`; only the vehicle can sign it."""
    with vehicle(home, gateway, ("accepted", None), ("done", None)) as car:
        car.forge = True
        result = run("send", VIN, "unlock", "--timeout", "1")
    assert len(car.received) == 1
    assert result.exit_code == Exit.TIMEOUT
    assert "done" not in result.stdout


def test_a_session_that_the_vehicle_has_not_said_is_not_signed_for(home: Home, run: Run, gateway: Mosquitto) -> None:
    """Whoever answers first with a clock of tomorrow would get a command that opens tomorrow, and with the last of all
    counters one after which no other is ever obeyed."""
    with vehicle(home, gateway, ("accepted", None), ("done", None)) as car:
        car.lies = [{"up": 90_000}, {"ctr": 2**53 - 3}, {"epoch": "00"}, {"sig": "0" * 64}, {"sig": "ü"}, {"sig": None}]
        result = run("send", VIN, "unlock")
    assert result.exit_code == 0, result.output
    assert [(command["ctr"], command["exp"]) for _, command, _ in car.received] == [(1, 110)]


def test_a_session_that_is_retained_is_not_signed_for(home: Home, run: Run, gateway: Mosquitto) -> None:
    """It may be old, even if the vehicle has said it: one that does not answer is asked for nothing."""
    gate = Gate((home.device(VIN) / "sign.key").read_bytes(), VIN, "00ff", 1, lambda number: None)
    topic = f"vin/{VIN}/session"
    with node(home, gateway, obey) as anybody:
        anybody._client.publish(topic, json.dumps(gate.session(1)), 1, retain=True).wait_for_publish(30)
        result = run("send", VIN, "unlock", "--timeout", "1")
        anybody._client.publish(topic, "", 1, retain=True).wait_for_publish(30)
    assert result.exit_code == Exit.OFFLINE
    assert "sent" not in result.stdout


def test_without_its_key_a_vehicle_is_told_nothing(home: Home, run: Run) -> None:
    (home.device(VIN) / "sign.key").unlink()
    result = run("send", VIN, "unlock")
    assert result.exit_code == Exit.USAGE
    assert "signed commands only" in result.stderr
    assert f"peanut device add {VIN} --kind vehicle" in result.stderr


def test_slips_are_met_with_the_right_spelling(run: Run) -> None:
    for slip in ("updatetemperature", "UpdateTemprature", "update-temperature"):
        assert "Did you mean UpdateTemperature?" in run("send", "peanut", slip, "15").stderr
    assert "A number alone is for UpdateTemperature." in run("send", "peanut", "heater", "15").stderr
    assert "Devices: " in run("send", "tomatto", "UpdateTemperature", "15").stderr


def test_composing() -> None:
    command = send.compose("peanut", Kind.GREENHOUSE, "UpdateTemperature", ["15.0"])
    assert command.body == {"temperature": 15}
    assert isinstance(command.body["temperature"], int)
    command = send.compose("peanut", Kind.GREENHOUSE, "vent", ["a=true", "b=1.5", "c=open", 'd="1"', "e="])
    assert command.body == {"args": {"a": True, "b": 1.5, "c": "open", "d": "1", "e": ""}}


def test_a_state_is_told_in_the_same_order_each_time() -> None:
    state = {"vent": True, "x\x1b": 1, "heater": False, "faults": [], "setpoint": 15.0}
    assert send.describe(state) == "setpoint 15.0, heater off, vent on, x\N{REPLACEMENT CHARACTER} 1"


# Where it connects


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ("127.0.0.1", 8883)),
        ('[listen]\nmqtts = "0.0.0.0:9"', ("127.0.0.1", 9)),
        ('[listen]\nmqtts = "[::]:9"', ("127.0.0.1", 9)),
        ('[listen]\nmqtts = "192.168.1.20:9"', ("192.168.1.20", 9)),
        ('[listen]\nmqtts = "127.0.0.1:9"', ("127.0.0.1", 9)),
        (
            '[listen]\nmqtts = ""\n[[listener]]\naddress = "0.0.0.0:8084"\ntransport = "wss"\n'
            '[[listener]]\naddress = "unix:/x"\n[[listener]]\naddress = "0.0.0.0:1"\ncertificate = "none"\n'
            '[[listener]]\naddress = "0.0.0.0:2"\nproxy_protocol = true\n[[listener]]\naddress = "127.0.0.1:9"',
            ("127.0.0.1", 9),
        ),
        (None, ("gateway.local", 8883)),
    ],
)
def test_where_it_connects(home: Home, text: str | None, found: tuple[str, int]) -> None:
    from peanut import settings

    if text is None:
        home.gateway_toml.unlink()
    else:
        home.gateway_toml.write_text(text)
    assert settings.connect_address(home) == found


def test_an_operators_machine_needs_no_ledger(home: Home, run: Run, gateway: Mosquitto, tmp_path: Path) -> None:
    for path in home.path.glob("ledger.db*"):
        path.unlink()
    with node(home, gateway, obey):
        assert run("send", "peanut", "UpdateTemperature", "15").exit_code == 0
    assert run("send", "No", "UpdateTemperature", "15").exit_code == Exit.USAGE
    assert operators.existing(home) == ["operator"]
