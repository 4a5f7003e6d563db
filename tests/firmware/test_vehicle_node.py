"""A whole vehicle under a gateway that does what the test tells it; and in a heap like the chip's."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peanut import application
from tools.fleet import Node, find_micropython
from tools.fleet.node import FIRMWARE

from .gateway import CONNECT, PUBLISH, SUBSCRIBE, Gateway, Peer, publish
from .pki import Pki
from .test_rescue import Broken
from .test_signed import KEY
from .test_signed import make as signed_as

from node import vehicle  # isort: skip

VIN = "1M8GDM9AXKP042788"
ROOT = f"vin/{VIN}"
VERBS = ("unlock", "lock", "start", "stop", "horn")
SENSORS = ("speed", "rpm", "door", "brake", "parked", "ambient", "locked", "latitude", "longitude", "battery", "codes")
VEHICLE_HEAP = "80wK"  # what firmware/README.md says; 72 was enough as well, with nothing to spare
GROWTH_LIMIT = 4096  # bytes, as in test_limits.py


def bundle(folder: Path, pki: Pki, port: int, **tables: Any) -> Path:
    """A device bundle of a car that is a model."""
    folder.mkdir()
    pki.write_bundle(folder, "peanut")  # the certificate's name is the gateway's business
    (folder / "sign.key").write_bytes(KEY)
    body = {
        "format": 1, "name": VIN, "kind": "vehicle", "root": ROOT, "gateway": {"host": "localhost", "port": port},
        "board": {
            "name": "sim", "chip": "unix",
            "outputs": {verb: {"driver": "vehicle_model", "safe": "off"} for verb in VERBS},
            "sensors": {name: {"driver": "vehicle_model"} for name in SENSORS},
        },
        "report": {"telemetry_s": 3600, "state_s": 3600},
        "link": {"base_s": 0.05, "cap_s": 0.2, "first_s": 0},
        "simulate": {"speed": 1, "parked_s": 80000}, **tables,
    }  # fmt: skip
    (folder / "node.json").write_text(json.dumps(body))
    return folder


@pytest.fixture
def node(pki: Pki, gateway: Gateway, tmp_path: Path) -> Iterator[Node]:
    made = Node(bundle(tmp_path / "bundle", pki, gateway.port), tmp_path / "flash")
    made.start()
    yield made
    made.kill()


def subscribed(peer: Peer) -> tuple[Any, list[str]]:
    """The session that was published before SUBSCRIBE, and what was subscribed to."""
    peer.connack(0)
    session = peer.read()
    assert session is not None
    assert (session.type, session.topic, session.retain, session.qos) == (PUBLISH, f"{ROOT}/session", True, 1)
    peer.puback(session)
    subscribe = peer.expect(SUBSCRIBE)
    at, filters = 2, []
    while at < len(subscribe.body):
        size = int.from_bytes(subscribe.body[at : at + 2])
        filters.append(subscribe.body[at + 2 : at + 2 + size].decode())
        at += 3 + size
    peer.suback(subscribe)
    peer.expect(PUBLISH, f"{ROOT}/state")
    return session.json, filters


def command(session: dict[str, Any], verb: str = "unlock", **fields: Any) -> bytes:
    wanted = {"epoch": session["epoch"], "ctr": session["ctr"] + 1, "exp": session["up"] + 25}
    return signed_as(verb, vin=VIN, **{**wanted, **fields})


def test_nothing_reaches_a_vehicle_before_its_session_does(node: Node, gateway: Gateway) -> None:
    """CONNECT asks for a clean session [MQTT-3.1.2-6]; the session is out before the first subscription; then a
    command that is delivered twice acts once, and both deliveries get the same answer with its receipt."""
    peer = gateway.accept()
    connect = peer.expect(CONNECT)
    assert connect.body[7] & 0x02, "no clean session was asked for"
    session, filters = subscribed(peer)
    assert (session["ctr"], len(session["epoch"])) == (0, 16)
    assert {f"{ROOT}/{verb}" for verb in VERBS} | {f"{ROOT}/cmd/+", f"{ROOT}/config/desired"} <= set(filters)
    payload = command(session)
    text = f"v1|{VIN}|a|done||{hashlib.sha256(payload).hexdigest()}"
    for ident, flags in ((7, 0), (7, 8)):
        peer.send(publish(f"{ROOT}/unlock", payload, ident=ident, flags=flags))
        acks = []
        while not acks or acks[-1]["stage"] != "done":
            acks.append(peer.expect(PUBLISH, f"{ROOT}/ack").json)
        assert (
            acks[-1]["sig"] == hmac.new(hmac.digest(KEY, b"vin-ack-v1", "sha256"), text.encode(), "sha256").hexdigest()
        )
        assert [ack["stage"] for ack in acks] == ([*["accepted"] * (flags == 0), "done"])
    assert node.log.count("accepted unlock") == 1


def test_the_session_is_told_to_who_asks_but_not_without_end(node: Node, gateway: Gateway) -> None:
    peer = gateway.accept()
    peer.expect(CONNECT)
    session, _ = subscribed(peer)
    begun = time.monotonic()
    peer.send(b"".join(publish(f"{ROOT}/cmd/session", b"", qos=0) for _ in range(200)))
    peer.send(publish(f"{ROOT}/cmd/reboot", b"{}"))
    answers, told = None, 0
    while answers is None:
        packet = peer.read()
        assert packet is not None
        if packet.type == PUBLISH and packet.qos:
            peer.puback(packet)
        told += packet.type == PUBLISH and packet.topic == f"{ROOT}/session"
        answers = packet.json if packet.type == PUBLISH and packet.topic == f"{ROOT}/ack" else None
    at_once, refill_ms = vehicle.ASKED
    assert told <= at_once + (time.monotonic() - begun) * 1000 // refill_ms  # none more, where all is read within one
    assert (answers["stage"], answers["cmd"]) == ("rejected", "reboot")
    assert answers["why"].startswith("unknown command")
    peer.send(publish(f"{ROOT}/unlock", command(session)))
    while (packet := peer.expect(PUBLISH)).topic != f"{ROOT}/ack" or packet.json["stage"] != "done":
        pass


@pytest.mark.parametrize("key", [None, b"short", bytes(33)])
def test_without_its_key_it_says_so_and_does_not_start(pki: Pki, tmp_path: Path, key: bytes | None) -> None:
    folder = bundle(tmp_path / "bundle", pki, 1)
    (folder / "sign.key").unlink()
    if key is not None:
        (folder / "sign.key").write_bytes(key)
    node = Node(folder, tmp_path / "flash")
    node.start()
    assert node._process is not None
    assert node._process.wait(60) == 2
    assert "error config sign.key: " in node.log


@pytest.mark.timeout(300)  # a few seconds of a quiet core
def test_no_growth_in_a_small_heap(pki: Pki, tmp_path: Path) -> None:
    """2,000 signed commands, obeyed and refused, and 20,000 turns of the control loop: the heap in use after all is
    what it was after half, and nothing was denied its memory."""
    node = Node(bundle(tmp_path / "bundle", pki, 1), tmp_path / "flash")
    node.install()
    for source in node.workdir.rglob("*.py"):
        source.unlink()
    script = {"memory_run.py": (Path(__file__).parent / "vehicle_memory_run.py").read_text()}
    body = json.loads((node.workdir / "node.json").read_text())
    for name, data in application.compiled(body, FIRMWARE, script).items():
        (node.workdir / name).write_bytes(data)
    done = subprocess.run(
        [find_micropython(), "-X", f"heapsize={VEHICLE_HEAP}", "-c", "import memory_run"],
        cwd=node.workdir, env={"MICROPYPATH": f"{node.workdir}:.frozen"}, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    print(result)
    assert result["faults"] == []
    assert result["turns"] >= 20_000
    half, whole = result["alloc"]
    assert whole - half < GROWTH_LIMIT, result
    assert result["stages"]["accepted"] == result["stages"]["done"] > 900
    assert result["stages"]["rejected"] > 900


def test_the_whole_app_of_a_vehicle(pki: Pki, tmp_path: Path) -> None:
    """Every check of vehicle_run.py."""
    node = Node(bundle(tmp_path / "bundle", pki, 1), tmp_path / "flash")
    node.install()
    script = Path(__file__).parent / "vehicle_run.py"
    done = subprocess.run(
        [find_micropython(), "-X", "heapsize=160wK", str(script)],
        cwd=node.workdir, env={"MICROPYPATH": f"{node.workdir}:.frozen"}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    ran = [line[3:] for line in done.stdout.splitlines() if line.startswith("ok ")]
    assert ran == sorted(re.findall(r"^async def (check_\w+)", script.read_text(), re.M))


def test_rescue_of_a_vehicle_obeys_nobody(pki: Pki, gateway: Gateway, tmp_path: Path) -> None:
    """An application that cannot start: rescue asks for a clean session, moves nothing, and says what is wrong."""
    node = Broken(bundle(tmp_path / "bundle", pki, gateway.port), tmp_path / "flash")
    node.start()
    try:
        peer = gateway.accept()
        connect = peer.expect(CONNECT)
        assert connect.body[7] & 0x02, "no clean session was asked for"
        peer.connack()
        for _ in ("commands", "offers", "chunks"):
            peer.suback(peer.expect(SUBSCRIBE), 1)
        assert "broken update" in peer.expect(PUBLISH, f"{ROOT}/status").json["rescue"]
        state = peer.expect(PUBLISH, f"{ROOT}/state").json
        assert state == {"mode": "rescue", "reason": "no control: outputs are off", "faults": ["rescue"]}
        peer.send(publish(f"{ROOT}/cmd/session", b"", ident=3))
        assert peer.expect(PUBLISH, f"{ROOT}/ack").json["stage"] == "rejected"
    finally:
        node.kill()
