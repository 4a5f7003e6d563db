"""What the tests of the gateway share: a fleet with certificates, a running daemon, and clients.

The rule it keeps: certificates are made here with `cryptography`, as the README's first agreement says, and not by
provisioning/; daemons and sockets end with the test that started them; waiting is polling with a deadline.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import os
import queue
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from peanutd import control

DEADLINE = 60.0
"""Seconds after which something that ought to happen has failed to."""

DAY = timedelta(days=1)


def wait_for(what: Callable[[], Any], why: str, deadline: float = DEADLINE) -> Any:
    """Polls until `what()` is true; returns it."""
    end = time.monotonic() + deadline
    while True:
        if found := what():
            return found
        assert time.monotonic() < end, f"{why}: not within {deadline} s"
        time.sleep(0.01)


def wait_for_control(home: Path) -> None:
    """Until the gateway listens at its control socket, which is the last thing it opens. The file is there before."""

    def listens() -> bool:
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError), socket.socket(socket.AF_UNIX) as sock:
            sock.connect(control.path(home))
            return True
        return False

    wait_for(listens, "the control socket")


def cpu_of(process: int) -> float:
    """Seconds that a process has computed: however busy the machine is, it is not charged for that."""
    return time.clock_gettime(~process << 3 | 2)  # how Linux names that clock: clock_getcpuclockid(3)


# --- certificates -----------------------------------------------------------------------------------------------------


class Signer:
    """A CA: certificate and key."""

    def __init__(
        self,
        name: str,
        issuer: Signer | None = None,
        start: datetime | None = None,
        days: int = 3650,
        key: ec.EllipticCurvePrivateKey | None = None,
    ) -> None:
        self.key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        start = start or datetime.now(UTC) - DAY
        self.certificate = (
            _builder(subject, issuer, self.key, start, start + days * DAY)
            .add_extension(x509.BasicConstraints(True, 0 if issuer else 1), critical=True)
            .add_extension(_usage(ca=True), critical=True)
            .sign(issuer.key if issuer else self.key, hashes.SHA256())
        )

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Leaf:
    """A certificate with its key; `chain` is sent along after it."""

    def __init__(
        self,
        issuer: Signer | None,
        name: str,
        sans: list[x509.GeneralName],
        usages: list[x509.ObjectIdentifier] | None,
        start: datetime,
        end: datetime,
    ) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(subject, issuer, self.key, start, end)
        builder = builder.add_extension(x509.BasicConstraints(False, None), critical=True)
        builder = builder.add_extension(_usage(ca=False), critical=True)
        if sans:
            builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=False)
        if usages is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        self.certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, password: bytes | None = None) -> bytes:
        lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
        return self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock)


def _builder(
    subject: x509.Name, issuer: Signer | None, key: ec.EllipticCurvePrivateKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    """What CAs and leaves have in common; without an issuer the certificate is its own."""
    above = issuer.key if issuer else key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), critical=False)
    )


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)


class Fleet:
    """A root, an issuing CA, a gateway certificate, and a home directory that has them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.home = directory / "home"
        self.root = Signer("root")
        self.issuing = Signer("issuing", self.root)
        self.gateway = self.issue_gateway()
        for name in ("ca", "gateway"):
            (self.home / name).mkdir(parents=True)
        self.write()

    def issue_gateway(self, start: datetime | None = None, end: datetime | None = None) -> Leaf:
        now = datetime.now(UTC)
        sans: list[x509.GeneralName] = [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH]
        return Leaf(self.issuing, "localhost", sans, usages, start or now - DAY, end or now + 90 * DAY)

    def write(self) -> None:
        """Puts CAs and gateway certificate into the home."""
        (self.home / "ca" / "root.crt").write_bytes(self.root.pem)
        (self.home / "ca" / "issuing.crt").write_bytes(self.issuing.pem)
        (self.home / "gateway" / "gateway.crt").write_bytes(self.gateway.pem + self.issuing.pem)
        key = self.home / "gateway" / "gateway.key"
        key.touch(mode=0o600)
        key.write_bytes(self.gateway.key_pem())

    def settings(self, text: str) -> None:
        (self.home / "gateway.toml").write_text(text)

    def issue(
        self,
        *uris: str,
        issuer: Signer | None = None,
        self_signed: bool = False,
        usages: list[x509.ObjectIdentifier] | None = None,
        no_usage: bool = False,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Leaf:
        """A client certificate; valid from yesterday to a year from now unless told otherwise."""
        now = datetime.now(UTC)
        return Leaf(
            None if self_signed else issuer or self.issuing,
            uris[0].rpartition("/")[2] if uris else "nobody",
            [x509.UniformResourceIdentifier(uri) for uri in uris],
            None if no_usage else usages or [ExtendedKeyUsageOID.CLIENT_AUTH],
            start or now - DAY,
            end or now + 365 * DAY,
        )

    def save(self, leaf: Leaf, *extra: bytes) -> tuple[str, str, str]:
        """Files of certificate (with `extra` certificates behind it), key and root, as clients want them."""
        stem = self.directory / f"client-{leaf.certificate.serial_number:x}"
        paths = stem.with_suffix(".crt"), stem.with_suffix(".key"), self.directory / "root.crt"
        for path, data in zip(paths, (leaf.pem + b"".join(extra), leaf.key_pem(), self.root.pem), strict=True):
            path.write_bytes(data)
        return str(paths[0]), str(paths[1]), str(paths[2])

    def context(self, leaf: Leaf | None, *extra: bytes) -> ssl.SSLContext:
        """A client's TLS context, which checks the gateway, with certificate `leaf` or none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=self.root.pem.decode())
        if leaf is not None:
            context.load_cert_chain(*self.save(leaf, *extra)[:2])
        return context


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


@pytest.fixture(scope="module")
def shared_fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    return Fleet(tmp_path_factory.mktemp("fleet"))


@pytest.fixture(scope="session")
def signer() -> type[Signer]:
    """The class of CAs, for those that are not this fleet's."""
    return Signer


# --- the daemon -------------------------------------------------------------------------------------------------------


class Daemon:
    """A peanutd process; its log is read as it comes.

    A test for each of the loops is one for each of the drivers too: asyncio moves its bytes itself, and beside uvloop
    the native loop does. Without a loop it is asyncio with the native loop. PEANUTD_DRIVER has the last word.
    """

    def __init__(self, home: Path, *arguments: str, loop: str | None = None) -> None:
        driver = os.environ.get("PEANUTD_DRIVER", "asyncio" if loop == "asyncio" else "native")
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "peanutd", "--home", str(home), *arguments],
            env={**os.environ, "PEANUTD_LOOP": loop or "asyncio", "PEANUTD_DRIVER": driver},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    def line(self, pattern: str, count: int = 1) -> str:
        """The `count`-th line of the log in which `pattern` is found; waits for it."""

        def find() -> str | None:
            found = [line for line in list(self.lines) if re.search(pattern, line)]
            return found[count - 1] if len(found) >= count else None

        try:
            return str(wait_for(find, f"a line with {pattern!r}", 2 * DEADLINE))
        except AssertionError as error:
            raise AssertionError(f"{error}; the log:\n" + "\n".join(self.lines)) from None

    def port(self, scheme: str = "mqtts") -> int:
        line = self.line(rf"listening {scheme} .*:[0-9]+")
        return int(line.rpartition(":")[2].partition("/")[0])

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit status; the log is complete then."""
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self._reader.join(DEADLINE)
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Daemon]


@pytest.fixture(scope="session")
def daemon_class() -> type[Daemon]:
    """For fixtures that live longer than a test; they stop it themselves."""
    return Daemon


@contextlib.contextmanager
def unharmed(home: Path, loop: str) -> Iterator[Daemon]:
    """One gateway for tests that do not harm each other; it must be well, and without a complaint, at the end."""
    daemon = Daemon(home, loop=loop)
    try:
        daemon.line(f"version .* loop={loop}")
        yield daemon
        assert daemon.process.poll() is None, "\n".join(daemon.lines)
    finally:
        daemon.stop()
    assert daemon.process.returncode == 0
    assert not [line for line in daemon.lines if " error " in line or "Traceback" in line or "loop:" in line]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts daemons that end with the test."""
    running: list[Daemon] = []

    def run(home: Path, *arguments: str, loop: str = "asyncio") -> Daemon:
        running.append(Daemon(home, *arguments, loop=loop))
        return running[-1]

    yield run
    for daemon in running:
        daemon.stop()


# --- clients ----------------------------------------------------------------------------------------------------------


def text(value: str | bytes) -> bytes:
    """A string with its length in front (MQTT 5.0 §1.5.4)."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(raw)) + raw


def packet(first: int, body: bytes) -> bytes:
    """A packet of fewer than 16,384 bytes with its fixed header (MQTT 5.0 §2.1)."""
    size = len(body)
    length = bytes([size]) if size < 128 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([first]) + length + body


class Wire:
    """A raw client on a socket: packets written by hand, so that nothing of ours stands on both sides."""

    def __init__(self, sock: socket.socket, version: int = 5) -> None:
        self.sock = sock
        self.version = version
        name = sock.getsockname()
        self.source = str(name[0]) if name else ""  # a Unix socket has none
        self._held = b""
        self._kept: list[tuple[int, bytes]] = []
        sock.settimeout(DEADLINE)

    def connect(
        self,
        client_id: str,
        *,
        clean: bool = True,
        username: str | None = None,
        method: str | None = None,
        will: tuple[str, bytes] | None = None,
        keep_alive: int = 0,
    ) -> bytes:
        """Sends CONNECT; returns the body of the CONNACK: flags, reason, and for 5.0 the properties."""
        flags = (2 if clean else 0) | (0x80 if username is not None else 0) | (4 if will else 0)
        body = text("MQTT") + bytes([self.version, flags]) + struct.pack(">H", keep_alive)
        if self.version == 5:
            properties = b"\x15" + text(method) if method is not None else b""
            body += bytes([len(properties)]) + properties
        body += text(client_id)
        if will:
            body += (b"\x00" if self.version == 5 else b"") + text(will[0]) + text(will[1])
        if username is not None:
            body += text(username)
        self.send(0x10, body)
        first, answer = self.receive()
        assert first == 0x20, f"CONNACK expected, not {first:#x}"
        return answer

    def subscribe(self, *filters: str) -> bytes:
        """The reason codes of the SUBACK."""
        body = b"\x00\x01" + (b"\x00" if self.version == 5 else b"")
        self.send(0x82, body + b"".join(text(item) + b"\x01" for item in filters))
        answer = self.await_type(9)
        return answer[-len(filters) :]

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """QoS 1; returns the reason code of the PUBACK."""
        body = text(topic) + b"\x00\x02" + (b"\x00" if self.version == 5 else b"") + payload
        self.send(0x32 | (1 if retain else 0), body)
        answer = self.await_type(4)
        return answer[2] if len(answer) > 2 else 0

    def message(self) -> tuple[str, bytes, bool]:
        """The next PUBLISH: topic, payload, retain. For packets of QoS 0 and 1 without properties."""
        first, body = self.await_packet(3)
        size = struct.unpack(">H", body[:2])[0]
        topic, rest = body[2 : 2 + size].decode(), body[2 + size :]
        if first & 0x06:
            self.send(0x40, rest[:2])
            rest = rest[2:]
        if self.version == 5:
            rest = rest[1 + rest[0] :]
        return topic, rest, bool(first & 1)

    def disconnect(self) -> None:
        self.send(0xE0, b"")

    def ping(self) -> None:
        self.send(0xC0, b"")
        self.await_type(13)

    def await_type(self, kind: int) -> bytes:
        return self.await_packet(kind)[1]

    def await_packet(self, kind: int) -> tuple[int, bytes]:
        """The next packet of type `kind`. What comes before it is kept for later, the end of the connection is not."""
        for number, (first, body) in enumerate(self._kept):
            if first >> 4 == kind:
                del self._kept[number]
                return first, body
        while True:
            first, body = self.receive()
            if first >> 4 == kind:
                return first, body
            self._kept.append((first, body))

    def send(self, first: int, body: bytes) -> None:
        self.sock.sendall(packet(first, body))

    def receive(self) -> tuple[int, bytes]:
        """The next packet: first byte, body. EOFError when the gateway has closed."""
        first = self._take(1)[0]
        length = shift = 0
        while True:
            digit = self._take(1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if not digit & 0x80:
                return first, self._take(length)

    def closed(self) -> bool:
        """Reads to the end of the connection; False when it does not come in time."""
        try:
            while self._held or self.sock.recv(65536):
                self._held = b""
        except TimeoutError:
            return False
        except OSError:
            pass
        return True

    def close(self) -> None:
        self.sock.close()

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise EOFError("closed by the gateway")
            self._held += chunk
        taken, self._held = self._held[:size], self._held[size:]
        return taken


Dial = Callable[..., Wire]
_numbers = itertools.count(1)


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Opens raw clients that are closed with the test: plain without a context, else TLS.

    Each comes from an address of its own (127.x.y.z) unless it is told which, so that no test uses up the log lines
    that the gateway grants another.
    """
    opened: list[Wire] = []

    def connect(port: int, context: ssl.SSLContext | None = None, version: int = 5, source: str | None = None) -> Wire:
        source = source or str(ipaddress.ip_address("127.1.0.0") + next(_numbers))
        sock = socket.create_connection(("127.0.0.1", port), DEADLINE, (source, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is not None:
            try:
                sock = context.wrap_socket(sock, server_hostname="localhost")
            except BaseException:
                sock.close()
                raise
        opened.append(Wire(sock, version))
        return opened[-1]

    yield connect
    for wire in opened:
        wire.close()


class Paho:
    """paho-mqtt with its callbacks turned into queues."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        client.on_connect = lambda c, u, flags, reason, properties: self.events.put(("connect", reason))
        client.on_subscribe = lambda c, u, mid, reasons, properties: self.events.put(("subscribe", reasons))
        client.on_publish = lambda c, u, mid, reason, properties: self.events.put(("publish", reason))
        client.on_message = lambda c, u, message: self.events.put(("message", message))
        client.on_disconnect = lambda c, u, flags, reason, properties: self.events.put(("disconnect", reason))

    def expect(self, kind: str) -> Any:
        """The next event of this kind; others are passed over."""
        end = time.monotonic() + DEADLINE
        while True:
            try:
                found, value = self.events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {kind} within {DEADLINE} s") from None
            if found == kind:
                return value

    def stop(self) -> None:
        with contextlib.suppress(Exception):
            self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def paho(request: pytest.FixtureRequest) -> Iterator[Callable[..., Paho]]:
    """Connects paho clients over mutual TLS; they end with the test."""
    import paho.mqtt.client as mqtt

    running: list[Paho] = []

    def connect(fleet: Fleet, port: int, leaf: Leaf, client_id: str, version: int = 5) -> Paho:
        client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=mqtt.MQTTProtocolVersion(version)
        )
        client.tls_set_context(fleet.context(leaf))
        running.append(Paho(client))
        client.connect("localhost", port)
        client.loop_start()
        return running[-1]

    yield connect
    for client in running:
        client.stop()
