"""Devices with keys in place of certificates: psk.toml, who they are, and what becomes of them when their keys go.

The clients are OpenSSL's own `s_client`, as a tunnel for packets written by hand, and mosquitto_pub. That a wrong key
and a wrong name fail alike, and that nothing counts before it is proved: tests/broker/native/test_psk.c.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from peanutd import _core, native, psk
from peanutd.__main__ import main
from peanutd.access import Accept, Identity, IdentityError, Kind, Refuse, Slot, by_key, decide, parse_uri
from peanutd.config import Address, Listener, Policy
from peanutd.log import Log
from peanutd.psk import IDENTITY_MAX, KEY_MAX, KEY_MIN, KEYS_MAX, identify, load, parse
from peanutd.rules import built_in
from peanutd.server import Server
from peanutd.sockets import ListenError
from peanutd.toml_file import ConfigError
from tests.broker.conftest import DEADLINE, Wire, wait_for_control
from tests.broker.native_loop import needs_loop
from tests.broker.test_access import Connect
from tests.broker.test_revoked import entry, write
from tests.programs import program

SHED, TANK, OTHER = "5e" * 32, "a7" * 16, "c3" * 32
KEYS = f'shed = "{SHED}"\n"tank:1" = {{ key = "{TANK}", as = "plant/tank" }}\n'
LISTEN = """
[listen]
mqtts = "127.0.0.1:0"
time = ""
driver = "native"
handshake_timeout = 600
[[listener]]
address = "127.0.0.1:0"
psk = true
"""
RULES = 'otherwise = "built-in"\n[[rule]]\nkind = "psk"\nallow = "both"\ntopic = "psk/{id}/#"\n'

V13, V12 = ("-tls1_3",), ("-tls1_2", "-cipher", "PSK")


def keep(home: Path, text: str, mode: int = 0o600) -> None:
    """Writes psk.toml, whole."""
    temporary = home / ".psk.tmp"
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(home / psk.FILE_NAME)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_line_is_a_device_or_a_node_if_it_says_so(tmp_path: Path) -> None:
    assert load(tmp_path) == {}, "without a file there are none"
    keep(tmp_path, KEYS)
    keys = load(tmp_path)
    assert {name: str(one.identity) for name, one in keys.items()} == {"shed": "psk/shed", "tank:1": "plant/tank"}
    assert keys["shed"].key == bytes.fromhex(SHED)
    assert SHED[:8] not in repr(keys)
    assert "\\x5e" not in repr(keys)
    assert "^^" not in repr(keys)
    assert identify(keys, b"shed") == by_key(keys["shed"])
    for nobody in (b"", b"SHED", b"shed\0", b"\xff", b"tank", b"plant/tank"):
        with pytest.raises(IdentityError):
            identify(keys, nobody)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    keep(tmp_path, KEYS, mode)
    with pytest.raises(ConfigError, match=r"psk\.toml: not private: .*; run `chmod 600"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f'"" = "{OTHER}"', "is not an identity"),
        (f'"a/b" = "{OTHER}"', "is not an identity"),
        (f'"+" = "{OTHER}"', "is not an identity"),
        (f'"ä" = "{OTHER}"', "is not an identity"),
        (f'"a\\u0000" = "{OTHER}"', "is not an identity"),
        (f'"{"x" * (IDENTITY_MAX + 1)}" = "{OTHER}"', f"at most {IDENTITY_MAX} characters"),
        ("x = 1", "needs its key in quotes"),
        ("x = {}", "has no key"),
        (f'x = "{OTHER}z"', "cannot be read"),
        (f'x = "{OTHER}0"', "cannot be read"),
        (f'x = "{OTHER[2:]} "', "cannot be read"),
        (f'x = "{"0f" * (KEY_MIN - 1)}"', f"a key of {KEY_MIN - 1} bytes; it must be {KEY_MIN} to {KEY_MAX}"),
        (f'x = "{"0f" * (KEY_MAX + 1)}"', f"a key of {KEY_MAX + 1} bytes"),
        (f'x = "{SHED.upper()}"', 'has the key of "shed"'),
        (f'x = {{ key = "{OTHER}", role = "admin" }}', "unknown role"),
        (f'x = {{ key = "{OTHER}", as = "operator/anna" }}', 'as = "plant/NAME" or "vin/VIN"'),
        (f'x = {{ key = "{OTHER}", as = "psk/shed" }}', "names a node"),
        (f'x = {{ key = "{OTHER}", as = "plant/A" }}', 'is to be "plant/A"'),
        (f'x = {{ key = "{OTHER}", as = 1 }}', "is to be the number 1"),
        (f'shed = "{OTHER}"', "overwrite"),
        # Keys where something else should stand.
        (f'"{OTHER}" = "tank"', '"…" has a key that cannot be read'),
        (f'x = {{ key = "{TANK}", as = "{OTHER}" }}', 'is to be "…"'),
        (f'x = {{ key = "{TANK}", as = {"12" * KEY_MIN} }}', "is to be the number …"),
        (f"x = {{ {OTHER} = 1 }}", "has an unknown …"),
        (f"x = {{ {OTHER} = 1, {OTHER} = 2 }}", "…"),
        (f'"{OTHER}" = "{SHED}"', '"…" has the key of "shed"'),
    ],
)
def test_a_mistake_is_named_with_its_line_and_without_a_key(line: str, words: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(f'shed = "{SHED}"\n{line}\n', "psk.toml")
    assert str(error.value).startswith("psk.toml:2")
    assert words in str(error.value)
    assert not [key for key in (SHED, OTHER, TANK, "0f" * 15, "12" * KEY_MIN) if key[:12] in str(error.value).lower()]


def test_the_limits_of_the_file() -> None:
    most = "".join(f'd{n} = "{n:032x}"\n' for n in range(KEYS_MAX))
    assert len(parse(most, "psk.toml")) == KEYS_MAX
    with pytest.raises(ConfigError, match=f"{KEYS_MAX + 1} keys; at most {KEYS_MAX}"):
        parse(f'{most}more = "{OTHER}"\n', "psk.toml")
    assert parse(f'{"x" * IDENTITY_MAX} = "{"01" * KEY_MAX}"\ny = "{"01" * KEY_MIN}"', "psk.toml")


@needs_loop
@pytest.mark.parametrize(
    ("identity", "key", "good"),
    [
        (IDENTITY_MAX, KEY_MAX, True),
        (1, KEY_MIN, True),
        (IDENTITY_MAX + 1, KEY_MAX, False),
        (1, KEY_MIN - 1, False),
        (1, KEY_MAX + 1, False),
    ],
)
def test_the_native_loop_has_the_same_limits(identity: int, key: int, good: bool) -> None:
    with contextlib.nullcontext() if good else pytest.raises(ValueError, match="keys of devices"):
        context([(b"x" * identity, b"k" * key)])


@needs_loop
@pytest.mark.parametrize("keys", [[(b"x",)], [(b"x", "y")], [1], 1])
def test_what_is_no_list_of_keys(keys: Any) -> None:
    with pytest.raises(TypeError):
        context(keys)


def context(keys: list[tuple[bytes, bytes]]) -> _core.Tls:
    return _core.Tls(
        chain=b"",
        key=b"",
        authorities=b"",
        certificate=_core.TLS_NONE,
        ciphers="ECDHE-PSK-CHACHA20-POLY1305",
        groups="P-256",
        tickets=0,
        psk=keys,
    )


# --- who that is ------------------------------------------------------------------------------------------------------


def test_a_device_is_itself_and_nobody_else() -> None:
    device, policy = Identity(Kind.PSK, "peanut"), Policy("none", psk=True)
    verdict = decide(Connect("peanut"), device, policy, proof="key")
    assert verdict == Accept("psk/peanut/peanut", "peanut", Slot.PSK, owner="psk/peanut")
    wrong = decide(Connect("peanut", username="root"), device, policy, proof="key")
    assert isinstance(wrong, Refuse)
    assert 'user name "root" is not the key\'s name "peanut"' in wrong.text
    nobody = decide(Connect("peanut"), None, policy)
    assert isinstance(nobody, Refuse)
    with pytest.raises(IdentityError):
        parse_uri("peanut:psk/peanut")  # no certificate can have the name of a device


def test_what_no_rule_allows_a_device_may_not() -> None:
    broker = _core.Broker(seed=bytes(8))
    book = built_in()
    book.install(broker)
    for topic in ("psk/shed/x", "/plant/shed/telemetry", "/plant/shed/cmd/x", "fleet/time", "#", "$SYS/#"):
        for action in (_core.MAY_SUBSCRIBE, _core.MAY_SHARE, _core.MAY_PUBLISH):
            if action != _core.MAY_PUBLISH or "#" not in topic:
                assert not book.explain(broker, Slot.PSK, "shed", action, topic)[0]


# --- at the gateway ---------------------------------------------------------------------------------------------------

Dial = Callable[..., Wire]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """`openssl s_client` with a key, as a tunnel."""
    running: list[tuple[subprocess.Popen[bytes], socket.socket]] = []

    def call(port: int, identity: str, key: str, how: tuple[str, ...] = V13) -> Wire:
        near, far = socket.socketpair()
        command = [program("openssl"), "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", *how]
        command += ["-psk_identity", identity, "-psk", key]
        with far:
            client = subprocess.Popen(command, stdin=far, stdout=far, stderr=subprocess.DEVNULL)
        running.append((client, near))
        return Wire(near)

    yield call
    for client, near in running:
        near.close()
        client.kill()
        client.wait(DEADLINE)


def refused(wire: Wire, client_id: str = "shed") -> bool:
    """Whether a client comes to nothing: no CONNACK, not even one that refuses it."""
    try:
        wire.connect(client_id)
    except (EOFError, OSError):
        return True
    return False


def ports(daemon: Any) -> tuple[int, int]:
    """For certificates, and for keys."""
    lines = [daemon.line(r"listening mqtts .*:[0-9]+", count) for count in (1, 2)]
    return int(lines[0].rpartition(":")[2]), int(lines[1].rpartition(":")[2])


def prepare(fleet: Any) -> Path:
    """Its home, with devices."""
    keep(fleet.home, KEYS)
    fleet.settings(LISTEN)
    (fleet.home / "rules.toml").write_text(RULES)
    return Path(fleet.home)


@pytest.fixture(scope="module")
def daemon(shared_fleet: Any, daemon_class: Any) -> Iterator[Any]:
    """A gateway for those who do it no harm."""
    daemon = daemon_class(prepare(shared_fleet))
    yield daemon
    daemon.stop()


@needs_loop
def test_who_comes_in_by_a_key(daemon: Any, dial: Dial, shared_fleet: Any) -> None:
    certificates, keys = ports(daemon)
    for count, how in enumerate((V13, V12), 1):
        device = dial(keys, "shed", SHED, how)
        assert device.connect("any")[1] == 0
        assert device.subscribe("psk/shed/x", "psk/tank/x", "/plant/tank/cmd/x") == b"\x01\x87\x87"
        daemon.line(f"connected who=psk/shed/any .*tls=TLSv1.{4 - count}")
        node = dial(keys, "tank:1", TANK, how)
        assert node.connect("tank")[1] == 0
        assert node.subscribe("/plant/tank/cmd/x", "psk/tank/x") == b"\x01\x87"
        daemon.line("connected who=plant/tank ", count)
        assert dial(keys, "tank:1", TANK, how).connect("shed")[1] == 0x85, "a node has one name"
        assert refused(dial(keys, "shed", OTHER, how)), "a wrong key"
        assert refused(dial(keys, "shed", TANK, how)), "the key of another"
        assert refused(dial(keys, "tank", TANK, how)), "nobody's identity"
        assert refused(dial(keys, "plant/tank", TANK, how)), "who it is, is not its identity"
        assert refused(dial(keys, "x" * 200, SHED, how))
        assert refused(dial(certificates, "shed", SHED, how)), "where certificates count, keys do not"
    daemon.line("handshake failed .*the device's key is not the one in psk.toml, or nobody there has its identity")
    leaf = shared_fleet.context(shared_fleet.issue("peanut:plant/peanut"))
    for version, good in ((certificates, True), (keys, False)):
        with (
            socket.create_connection(("127.0.0.1", version), DEADLINE) as tcp,
            contextlib.nullcontext() if good else pytest.raises(OSError, match="handshake failure"),
            leaf.wrap_socket(tcp, server_hostname="localhost") as sock,
        ):
            assert Wire(sock).connect("peanut")[1] == 0


@needs_loop
def test_mosquitto_comes_in_by_a_key(daemon: Any) -> None:
    port = ports(daemon)[1]
    command = [program("mosquitto_pub", "mosquitto-clients"), "-h", "127.0.0.1", "-p", str(port), "-q", "1"]
    command += ["-t", "psk/shed/x", "-m", "hello", "--psk-identity", "shed", "--psk"]
    done = subprocess.run([*command, SHED], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run([*command, OTHER], capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert done.returncode != 0


class Held:
    """A wire that holds back what a client of TLS 1.3 answers the gateway, until it is let go."""

    def __init__(self, port: int) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.listening.settimeout(DEADLINE)
        self.port = self.listening.getsockname()[1]
        self.gateway = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.client = self.listening  # until there is one

    def begin(self) -> None:
        """Carries the first words both ways, until the client has answered the gateway's."""
        self.client, _ = self.listening.accept()
        self.client.settimeout(DEADLINE)
        answered = False
        while True:
            ready, _, _ = select.select([self.client, self.gateway], [], [], DEADLINE)
            assert ready, "nothing comes"
            if self.gateway in ready:
                answered = True
                self.client.sendall(self.gateway.recv(4096))
            elif answered:
                return
            else:
                self.gateway.sendall(self.client.recv(4096))

    def let_go(self) -> bool:
        """Hands the answer over; whether the gateway says anything to it but goodbye."""
        self.gateway.sendall(self.client.recv(4096))
        try:
            return self.gateway.recv(4096) != b""
        except ConnectionError:
            return False

    def close(self) -> None:
        for sock in (self.listening, self.client, self.gateway):
            sock.close()


@needs_loop
def test_keys_are_taken_up_and_who_has_another_is_out(
    dial: Dial, fleet: Any, start: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    home = prepare(fleet)
    daemon = start(home)
    port = ports(daemon)[1]
    wait_for_control(home)
    device, node = dial(port, "shed", SHED), dial(port, "tank:1", TANK, V12)
    assert device.connect("shed")[1] == 0
    assert node.connect("tank")[1] == 0

    def reload() -> int:
        return main(("--home", str(home), "reload"))

    # What is wrong is refused, and changes nothing.
    keep(home, KEYS.replace(SHED, OTHER), 0o644)
    assert reload() == 1
    assert "psk.toml: not private" in capsys.readouterr().err
    keep(home, 'shed = "secret"\n')
    assert reload() == 1
    device.ping()
    assert not refused(dial(port, "shed", SHED), "another")
    # Another key: who is in by the one of before is out, and nobody else; so is who was about to come in.
    held = Held(port)
    with contextlib.closing(held):
        late = dial(held.port, "shed", SHED)
        held.begin()
        keep(home, KEYS.replace(SHED, OTHER))
        assert reload() == 0
        daemon.line("cut who=psk/shed/shed .*its key counts no more: shed is gone")
        with pytest.raises((EOFError, OSError)):
            device.ping()
        assert not held.let_go()
        daemon.line("handshake failed .*its key counts no more")
        assert late.sock.fileno() >= 0
    node.ping()
    assert refused(dial(port, "shed", SHED))
    device = dial(port, "shed", OTHER)
    assert device.connect("shed")[1] == 0
    # The node is revoked, and its key is worth nothing.
    write(home, tank=entry())
    assert main(("--home", str(home), "reload")) == 0
    daemon.line("cut who=plant/tank .*key of greenhouse tank revoked")
    with pytest.raises((EOFError, OSError)):
        node.ping()
    assert refused(dial(port, "tank:1", TANK), "tank")
    # A ban is for the key, on whatever address.
    assert main(("--home", str(home), "bans", "add", "psk", "shed")) == 0
    assert "psk shed is banned" in capsys.readouterr().out
    with pytest.raises((EOFError, OSError)):
        device.ping()
    assert dial(port, "shed", OTHER).connect("shed")[1] == 0x8A
    # Without a file nobody comes in.
    os.unlink(home / psk.FILE_NAME)
    assert reload() == 0
    daemon.line(r"psk\.toml: there are no keys, so no device comes in by psk")
    assert refused(dial(port, "shed", OTHER))
    secrets = [key for key in (SHED, TANK, OTHER) if any(key in line for line in daemon.lines)]
    assert not secrets


def test_without_the_native_loop_there_is_no_such_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's ssl would let everybody finish the handshake there."""
    monkeypatch.setattr(native, "AVAILABLE", False)

    async def scenario() -> None:
        server = Server(_core.Broker(seed=bytes(8)), Log(stream=StringIO()), asyncio.get_running_loop())
        with pytest.raises(ListenError, match="psk needs the native loop: sudo apt-get install libssl-dev"):
            await server.start([Listener(Address("127.0.0.1", 0), "tls", Policy("none", psk=True), driver="native")])
        await server.stop()

    asyncio.run(asyncio.wait_for(scenario(), DEADLINE))


@needs_loop
def test_check_says_who_comes_in(fleet: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.settings(LISTEN)
    assert main(("--home", str(fleet.home), "--check")) == 0
    out = capsys.readouterr().out
    assert "lets in devices with keys (psk.toml)" in out
    assert "there are no keys" in out
    keep(fleet.home, KEYS)
    assert main(("--home", str(fleet.home), "--check")) == 0
    assert "keys      2" in capsys.readouterr().out
