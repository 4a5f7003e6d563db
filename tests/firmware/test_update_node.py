"""A whole node and updates that it must not run: each is refused, or given up, with its reason, and the node goes on.

Rule: the gateway is scripted, the updates are signed as the fleet's are; what is wrong with them is wrong on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from peanut import release
from tools.fleet import Node
from tools.fleet.node import FIRMWARE, firmware_files

from .conftest import MakeNode
from .gateway import CONNECT, PUBLISH, SUBSCRIBE, Gateway, Peer, publish
from .pki import Pki
from .test_vehicle_node import ROOT as CAR
from .test_vehicle_node import bundle, command

ROOT = "/plant/peanut"
SEQ = 1 << 31


class Gate:
    """The gateway's side of a node's updates."""

    def __init__(self, gateway: Gateway, root: str = ROOT) -> None:
        self._gateway = gateway
        self.root = root
        self.session: dict[str, Any] = {}  # of a vehicle: what its commands are signed for
        self._ids: Iterator[int] = iter(range(1, 60000))
        self.peer = self.arrive()

    def arrive(self, session: int = 0) -> Peer:
        """The node's next session."""
        peer = self._gateway.accept()
        peer.expect(CONNECT)
        peer.connack(session)
        if self.root == CAR:
            self.session = peer.expect(PUBLISH, f"{CAR}/session").json
        peer.suback(peer.expect(SUBSCRIBE))
        self.peer = peer
        return peer

    def status(self, *stages: str) -> dict[str, object]:
        """The next word of the node on updates; at one of these stages, if any are named."""
        while True:
            found = self.peer.expect(PUBLISH, f"{self.root}/ota/status")
            body: dict[str, object] = found.json
            assert found.retain == (body["stage"] != "receiving")
            if not stages or body["stage"] in stages:
                return body

    def send(self, name: str, payload: bytes) -> None:
        self.peer.send(publish(f"{self.root}/ota/{name}", payload, ident=next(self._ids)))

    def offer(self, one: release.Release) -> dict[str, object]:
        """Offer it: what the node says."""
        self.send("desired", one.offer)
        return self.status()

    def serve(self, one: release.Release, first: dict[str, object]) -> dict[str, object]:
        """Answer the node's questions, until it asks no more: its last word."""
        body = first
        while body["stage"] == "receiving":
            at = int(str(body["at"]))
            for place in range(at, min(at + 4096, len(one.stream)), release.CHUNK):
                self.send("chunk", one.chunk(place))
            body = self.status()
        return body


@pytest.fixture(scope="module")
def key() -> release.SigningKey:
    return release.new_key()


def made(key: release.SigningKey, files: dict[str, bytes] | None = None, **more: object) -> release.Release:
    fields = {"seq": SEQ, "version": "1", "kind": "greenhouse"} | more
    return release.pack(files or {"node/start.mpy": b"no such code" * 300}, key, **fields)  # type: ignore[arg-type]


def test_attacks_are_told_with_their_reason_and_none_runs(
    gateway: Gateway, make_node: MakeNode, key: release.SigningKey
) -> None:
    """Unsigned, for others, old: refused before a byte is fetched. Truncated: asked for
    until it is taken back."""
    node = make_node(gateway.port)
    (node.bundle / "update.pub").write_bytes(release.public(key))
    node.start()
    gate = Gate(gateway)
    assert gate.status()["stage"] == "running"
    good = made(key)
    text, code = good.offer.split(b"\n")
    refused = {
        "signature: ": [
            made(release.new_key()),
            release.Release(good.manifest, text + b" \n" + code, good.stream),
        ],
        "kind: ": [made(key, kind="vehicle")],
        "board: ": [made(key, boards=["esp32-devkitc"])],
        "mpy: ": [made(key, mpy=7)],
        "seq: ": [made(key, seq=5)],  # older than the firmware itself
    }
    for why, updates in refused.items():
        for one in updates:
            said = gate.offer(one)
            assert said["stage"] == "refused", said
            assert str(said["why"]).startswith(why), said
    assert not (node.workdir / "a").exists()

    said = gate.offer(good)
    end = good.manifest.size - 500
    while said["at"] != end:  # truncated: its end never comes, and is asked for again
        at = int(str(said["at"]))
        for place in range(at, min(at + 4096, end), release.CHUNK):
            gate.send("chunk", good.chunk(place)[: 8 + end - place])
        said = gate.status()
        assert said["stage"] == "receiving"
    gate.send("desired", b"")  # and is taken back
    said = gate.status("failed")
    assert (said["offer"], said["why"]) == (SEQ, "withdrawn")
    assert not (node.workdir / "slot.json").exists()


def test_what_does_not_start_is_given_up_and_told(
    gateway: Gateway, make_node: MakeNode, key: release.SigningKey
) -> None:
    """Half of another: damaged. Signed, whole, and no code: the trial's first start ends it, and offered again it is
    not tried again."""
    node = make_node(gateway.port)
    (node.bundle / "update.pub").write_bytes(release.public(key))
    node.start()
    gate = Gate(gateway)
    gate.status("running")
    bad, other = made(key), made(key, {"node/start.mpy": b"another code" * 300}, seq=SEQ + 1)
    mixed = other.stream[: bad.manifest.index] + bad.stream[bad.manifest.index :]
    said = gate.serve(release.Release(other.manifest, other.offer, mixed), gate.offer(other))
    assert (said["stage"], said["why"]) == ("failed", "damaged: node/start.mpy"), said
    said = gate.serve(bad, gate.offer(bad))
    assert said["stage"] in ("ready", "restarting"), said
    gate.arrive()
    said = gate.status("returned")
    assert (said["offer"], said["slot"]) == (SEQ, "factory")
    assert "main: " in str(said["why"])
    said = gate.offer(bad)
    assert (said["stage"], said["offer"]) == ("returned", SEQ)
    assert json.loads((node.workdir / "slot.json").read_text())["run"][0] == ""


def car_release(key: release.SigningKey, seq: int, *spoil: str) -> release.Release:
    """The application of a simulated vehicle, as it is or with one text of one file replaced; not compiled, for that
    takes time, and the unix port reads either."""
    names = [name for name in firmware_files("vehicle", ["vehicle_model"]) if name not in ("boot.py", "main.py")]
    files = {name: (FIRMWARE / name).read_bytes() for name in names}
    if spoil:
        name, old, new = spoil
        assert files[name].count(old.encode()) == 1
        files[name] = files[name].replace(old.encode(), new.encode())
    return made(key, files, kind="vehicle", seq=seq, version=str(seq))


@pytest.mark.timeout(300)
def test_a_car_is_updated_when_it_is_parked_and_keeps_only_what_obeys_its_driver(
    pki: Pki, gateway: Gateway, tmp_path: Path, key: release.SigningKey
) -> None:
    """On its way it has the update whole, and waits. Parked, it tries it: one that takes forgeries for its driver's
    commands is given up, connected as it is; one that works is kept, and obeys."""

    def prepare(number: int, health_s: int, **drive: int) -> Node:
        link = {"base_s": 0.05, "cap_s": 0.2, "first_s": 0, "health_s": health_s}
        folder = bundle(tmp_path / f"bundle{number}", pki, gateway.port, simulate={"speed": 1, **drive}, link=link)
        (folder / "update.pub").write_bytes(release.public(key))
        return Node(folder, tmp_path / "flash")

    bad = car_release(key, SEQ, "node/signed.py", "if not equal(", "if equal(")
    good = car_release(key, SEQ + 1)
    node = prepare(1, 1, parked_s=0, drive_s=86400)
    try:
        node.start()
        gate = Gate(gateway, CAR)
        gate.status("running")
        assert gate.serve(bad, gate.offer(bad))["stage"] == "ready"
        for _ in range(3):
            assert gate.offer(bad)["stage"] == "ready"
        node.kill()

        node = prepare(2, 1, parked_s=80000)
        node.start()
        gate.arrive()
        gate.status("running")
        gate.send("desired", bad.offer)
        assert gate.status("restarting", "receiving")["stage"] == "restarting"  # it is there: nothing comes again
        gate.arrive()
        assert gate.status("trial")["offer"] == SEQ
        gate.arrive()
        said = gate.status("returned")
        assert (said["offer"], said["slot"], said["why"]) == (SEQ, "factory", "control: gate")
        node.kill()

        node = prepare(3, 10, parked_s=80000)
        node.start()
        gate.arrive()
        gate.status("returned")
        assert gate.serve(good, gate.offer(good))["stage"] in ("ready", "restarting")
        gate.arrive()
        gate.status("trial")
        said = gate.status("running")
        assert (said["seq"], said["slot"]) == (SEQ + 1, "a")
        # Signed for when the trial, which takes health_s, is over: the session was told before it began.
        gate.peer.send(publish(f"{CAR}/unlock", command(gate.session, exp=gate.session["up"] + 10 + 25)))
        while (ack := gate.peer.expect(PUBLISH, f"{CAR}/ack").json)["stage"] != "done":
            assert ack["stage"] == "accepted", ack
    finally:
        node.kill()
