"""A full disk and a damaged database, with the real program: what cannot be kept is refused, the rest is served, it
recovers; and it always starts.

The disk is made full by the kernel: with RLIMIT_FSIZE no file of the process may grow beyond a size, and what a write
beyond it meets is an error like any other of a disk.
"""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from pathlib import Path

from tests.broker.durability.gateway import DEADLINE, Gateway, wait_for
from tests.broker.house import Packet, ack, connect, properties, publish, subscribe, topic_filter
from tests.reference import codec

QUOTA = 0x97


class Wire:
    """A client that says one thing at a time."""

    def __init__(self, port: int, name: str, version: int = 5, *, clean: bool = False) -> None:
        self.version = version
        self.sock = socket.create_connection(("127.0.0.1", port), DEADLINE)
        self.sock.settimeout(DEADLINE)
        self.decoder = codec.Decoder(version)
        self.packets: list[Packet] = []
        props = properties(session_expiry_interval=3600) if version == 5 and not clean else []
        self.send(connect(name, version, clean=clean, props=props))
        self.connack = self.read()

    def send(self, packet: Packet) -> None:
        self.sock.sendall(codec.encode(packet, self.version))

    def read(self) -> Packet:
        """The next packet. EOFError at the end."""
        while not self.packets:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.packets += self.decoder.feed(data)
        return self.packets.pop(0)

    def ask(self, packet: Packet) -> Packet:
        self.send(packet)
        return self.read()

    def end(self) -> None:
        self.sock.close()


def fill(gateway: Gateway, size: int) -> None:
    """From now on no file of the gateway may be longer than `size` bytes; -1: as long as it likes."""
    assert gateway.process is not None
    _, hard = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (size, hard))


def size_of(gateway: Gateway) -> int:
    return max(path.stat().st_size for path in gateway.home.glob("store.db*"))


def status(gateway: Gateway) -> str:
    """What `peanutd status` says."""
    command = [sys.executable, "-m", "peanutd", "--home", str(gateway.home), "status"]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=True).stdout


def test_a_disk_that_is_full_for_a_while(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "home")
    gateway.start()
    gateway.ready()
    kept = Wire(gateway.port, "kept")
    assert kept.ask(subscribe(topic_filter("kept", 1)))["reasons"] == [1]
    kept.end()
    other = Wire(gateway.port, "other", clean=True)
    assert other.ask(subscribe(topic_filter("free", 1)))["reasons"] == [1]
    publisher = Wire(gateway.port, "publisher", clean=True)
    assert publisher.ask(publish("kept", b"1", 1)) == ack("PUBACK", 1)

    fill(gateway, size_of(gateway) + 4096)
    acknowledged = [b"1"]
    for number in range(2, 200):
        payload = b"%d " % number + bytes(2000)
        answer = publisher.ask(publish("kept", payload, 1, number))
        if answer["type"] == "DISCONNECT":  # it waited for the disk when that began to fail
            break
        assert answer["reason"] == 0
        acknowledged.append(payload)
    assert answer == {"type": "DISCONNECT", "reason": QUOTA, "properties": []}
    wait_for(lambda: "cannot be written" in gateway.log, "a line in the log")
    assert "cannot be written" in status(gateway)

    publisher = Wire(gateway.port, "publisher", clean=True)
    assert publisher.ask(publish("kept", b"refused", 1)) == ack("PUBACK", 1, QUOTA)
    assert publisher.ask(publish("kept", b"refused", 2)) == ack("PUBREC", 1, QUOTA)
    assert publisher.ask(publish("free", b"served", 1)) == ack("PUBACK", 1)
    assert other.read()["payload"] == b"served"
    assert Wire(gateway.port, "new").connack["reason"] == QUOTA
    assert Wire(gateway.port, "new", 4).connack["reason"] == 3
    assert Wire(gateway.port, "fleeting", clean=True).connack["reason"] == 0
    before = Wire(gateway.port, "before", 4, clean=True)
    before.send(publish("kept", b"refused", 1))
    assert before.sock.recv(1) == b"", "no acknowledgement, and the end"

    fill(gateway, -1)
    wait_for(lambda: "can be written again" in gateway.log, "recovery")
    assert publisher.ask(publish("kept", b"last", 1)) == ack("PUBACK", 1)
    acknowledged.append(b"last")
    assert gateway.log.count("cannot be written") == 1
    assert "cannot be written" not in status(gateway)
    gateway.kill()

    gateway.start()
    gateway.ready()
    kept = Wire(gateway.port, "kept")
    assert kept.connack["session_present"]
    heard = []
    while not heard or heard[-1] != b"last":
        heard.append(kept.read()["payload"])
        kept.send(ack("PUBACK", len(heard)))
    assert [payload for payload in heard if payload in acknowledged] == acknowledged
    assert b"refused" not in heard
    assert gateway.end() == 0


def test_a_damaged_database_costs_what_cannot_be_read(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "home")
    gateway.start()
    gateway.ready()
    wire = Wire(gateway.port, "k")
    assert wire.ask(subscribe(topic_filter("t", 1)))["reasons"] == [1]
    wire.end()
    wire = Wire(gateway.port, "p", clean=True)
    for number in range(1, 200):
        assert wire.ask(publish("t", b"%d " % number + bytes(500), 1, number)) == ack("PUBACK", number)
    wire.end()
    assert gateway.end() == 0

    path = gateway.home / "store.db"
    healthy = path.read_bytes()
    middle = len(healthy) // 4096 // 2 * 4096
    path.write_bytes(healthy[:middle] + b"\xa5" * 4096 + healthy[middle + 4096 :])
    damaged = path.read_bytes()
    gateway.start()
    gateway.ready()
    assert "is damaged" in gateway.log
    (aside,) = gateway.home.glob("store.db.damaged-*[0-9Z]")
    assert aside.read_bytes() == damaged
    wire = Wire(gateway.port, "k")
    assert wire.connack["session_present"]
    assert wire.read()["topic"] == "t"
    wire.end()
    assert gateway.end() == 0

    path.write_bytes(b"nothing of a database" * 1000)
    gateway.start()
    gateway.ready()
    assert not Wire(gateway.port, "k").connack["session_present"]
    assert gateway.end() == 0
    assert len(list(gateway.home.glob("store.db.damaged-*[0-9Z]"))) == 2


def test_what_sync_off_and_batch_promise(tmp_path: Path) -> None:
    """off: nothing, and no file. batch: an orderly end loses nothing."""
    gateway = Gateway(tmp_path / "off", '[store]\nsync = "off"\n')
    gateway.start()
    gateway.ready()
    assert Wire(gateway.port, "p", clean=True).ask(publish("t", b"x", 1, retain=True))["type"] == "PUBACK"
    assert gateway.end() == 0
    assert not list(gateway.home.glob("store*"))

    gateway = Gateway(tmp_path / "batch", '[store]\nsync = "batch"\npath = "other.db"\n')
    gateway.start()
    gateway.ready()
    wire = Wire(gateway.port, "p", clean=True)
    for number in range(1, 100):
        assert wire.ask(publish(f"t/{number}", b"x", 1, number, retain=True))["type"] == "PUBACK"
    assert gateway.end() == 0
    gateway.start()
    gateway.ready()
    wire = Wire(gateway.port, "s", clean=True)
    wire.send(subscribe(topic_filter("t/+", 0)))
    assert wire.read()["type"] == "SUBACK"
    assert len({wire.read()["topic"] for _ in range(99)}) == 99
    assert gateway.end() == 0
    assert (gateway.home / "other.db").exists()
