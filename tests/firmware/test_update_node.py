"""A whole node and updates that it must not run: each is refused, or given up, with its reason, and the node goes on.

Rule: the gateway is scripted, the updates are signed as the fleet's are; what is wrong with them is wrong on purpose.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from peanut import release

from .conftest import MakeNode
from .gateway import CONNECT, PUBLISH, SUBSCRIBE, Gateway, Peer, publish

ROOT = "/plant/peanut"
STATUS = f"{ROOT}/ota/status"
SEQ = 1 << 31


class Gate:
    """The gateway's side of a node's updates."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._ids: Iterator[int] = iter(range(1, 60000))
        self.peer = self.arrive()

    def arrive(self, session: int = 0) -> Peer:
        """The node's next session."""
        peer = self._gateway.accept()
        peer.expect(CONNECT)
        peer.connack(session)
        peer.suback(peer.expect(SUBSCRIBE))
        self.peer = peer
        return peer

    def status(self, *stages: str) -> dict[str, object]:
        """The next word of the node on updates; at one of these stages, if any are named."""
        while True:
            found = self.peer.expect(PUBLISH, STATUS)
            body: dict[str, object] = found.json
            assert found.retain == (body["stage"] != "receiving")
            if not stages or body["stage"] in stages:
                return body

    def send(self, name: str, payload: bytes) -> None:
        self.peer.send(publish(f"{ROOT}/ota/{name}", payload, ident=next(self._ids)))

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
    while said["at"] != good.manifest.size - 500:  # truncated: its end never comes
        place = int(str(said["at"]))
        gate.send("chunk", good.chunk(place)[: 8 + good.manifest.size - 500 - place])
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
