"""What the node does after its own faults: resets explained, crashes counted, and the rescue app, which leans on
umqtt.simple as stock images carry it. The gateway is the scripted one; RTC memory is the fleet tool's.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import ssl
import zlib
from pathlib import Path

import pytest

from tests.interop.programs import umqtt_path
from tools.fleet import Node

from .conftest import MakeNode
from .gateway import CONNECT, PUBLISH, SUBSCRIBE, Gateway, Peer, closed_port, publish
from .pki import Credential, Pki
from .test_link import IMPOSTORS
from .test_renewal import parts, serial, shown, successor

from node.desired import Desired  # isort: skip

RESCUE = "/plant/peanut/cmd/"


class Broken(Node):
    """A node whose control loop fails, after as many turns as the file `turns` says, and which carries umqtt.simple."""

    def install(self) -> None:
        super().install()
        target = self.workdir / "umqtt"
        if not target.exists():
            path = Path(umqtt_path()["MICROPYPATH"].split(":")[0])
            shutil.copytree(path / "umqtt", target)
        control = self.workdir / "node" / "vitals.py"
        control.write_text(control.read_text() + "\n\nraise RuntimeError('broken update')\n")


class SoonDead(Broken):
    """Rescue that gives its hour up after three seconds, and tries to connect in each."""

    def install(self) -> None:
        super().install()
        rescue = self.workdir / "rescue.py"
        text = rescue.read_text()
        assert "AGAIN_S = 3600" in text
        rescue.write_text(text.replace("AGAIN_S = 3600", "AGAIN_S = 3").replace("% CONNECT_S == 2", "% 1 == 0"))


def rescued(gateway: Gateway) -> Peer:
    """The rescue app's connection, greeted."""
    peer = gateway.accept()
    hello = peer.expect(CONNECT)
    assert b"peanut" in hello.body
    peer.connack()
    for _ in ("commands", "offers", "chunks"):  # umqtt.simple takes one at a time
        peer.suback(peer.expect(SUBSCRIBE), 1)
    return peer


def _slot(work: Path, name: str, credential: Credential, gen: int, trial: object) -> None:
    """A certificate that the gateway has sent, as node/keys.py keeps it."""
    work.mkdir(exist_ok=True)
    body = {**json.loads(parts(credential)), "ca": [], "gen": gen, "hash": str(gen), "trial": trial}
    body["ca"] = [base64.b64encode((work.parent / "bundle0" / "ca.der").read_bytes()).decode()]
    data = json.dumps(body).encode()
    (work / name).write_bytes(b"%08x" % zlib.crc32(data) + data)


def test_six_crashes_lead_to_rescue_which_holds_the_plants_and_says_why(
    pki: Pki, gateway: Gateway, make_node: MakeNode
) -> None:
    """An application that cannot start resets five times; then rescue is online, controls, refuses, and restarts."""
    node = make_node(gateway.port, node=Broken, simulate={"speed": 600, "start": 10.0})
    renewed = successor(pki)
    _slot(node.workdir, "cert.a", renewed, 1, 0)
    _slot(node.workdir, "cert.b", successor(pki), 2, "no session in 3 starts")
    node.start()
    peer = rescued(gateway)
    assert shown(peer) == serial(renewed), "the last certificate that was proved"
    assert node.log.count("broken update") >= 6
    status = peer.expect(PUBLISH, "/plant/peanut/status")
    assert status.retain
    assert status.json["state"] == "online"
    assert "crash: RuntimeError: broken update" in status.json["rescue"]
    state = peer.expect(PUBLISH, "/plant/peanut/state").json
    assert state["mode"] == "rescue"
    assert state["setpoint"] == 18
    lines = peer.expect(PUBLISH, "/plant/peanut/log").json["lines"]
    assert any("broken update" in line for line in lines)
    peer.send(publish(RESCUE + "vent", json.dumps({"id": "v", "args": {"mode": "open"}}), ident=3))
    ack = peer.expect(PUBLISH, "/plant/peanut/ack").json
    assert (ack["id"], ack["stage"]) == ("v", "rejected")
    assert ack["why"].startswith("busy: this node is in rescue")
    node.wait_for_log("heating: " if "heating: " in node.log else "rescue: online")
    # Somebody has mended it: the order to restart brings the application back, and the count is over.
    (node.workdir / "node" / "vitals.py").write_text(
        (node.workdir / "node" / "vitals.py").read_text().replace("\n\nraise RuntimeError('broken update')\n", "\n")
    )
    mark = len(node.log)
    peer.send(publish(RESCUE + "restart", json.dumps({"id": "r"}), ident=4))
    assert peer.expect(PUBLISH, "/plant/peanut/ack").json["stage"] == "done"
    peer.expect_closed()
    gateway.accept().welcome()
    node.wait_for_log("online at", after=mark)


def test_rescue_finds_a_gateway_that_has_moved(gateway: Gateway, make_node: MakeNode) -> None:
    """Where config/desired has put the gateway elsewhere, rescue looks for it there and not where node.json says."""
    node = make_node(closed_port(), node=Broken)
    node.install()
    moved = {"gen": 1, "hash": "", "trial": 0, "set": {"gateway": {"port": gateway.port}}}
    Desired((str(node.workdir / "config.a"), str(node.workdir / "config.b")))._write(0, moved)
    node.start()
    peer = rescued(gateway)
    assert peer.expect(PUBLISH, "/plant/peanut/status").json["rescue"]


def test_rescue_lets_the_application_try_again(make_node: MakeNode) -> None:
    """Rescue is no prison: after its hour the application gets one try; if that fails, rescue is back at once."""
    node = make_node(1, node=SoonDead)
    node.start()
    mark = node.wait_for_log("rescue: crash").index("rescue: crash") + 1
    between, _ = node.wait_for_log("rescue: crash", after=mark).split("rescue: crash", 1)
    assert between.count("Traceback") == 1, between


@pytest.mark.parametrize("impostor", ["wrong CA", "expired"])
def test_rescue_verifies_the_gateway_as_the_application_does(pki: object, make_node: MakeNode, impostor: str) -> None:
    """umqtt.simple, old or new, gets no context that does not verify."""
    assert impostor in IMPOSTORS
    with Gateway(pki, impostor) as gateway:  # type: ignore[arg-type]
        node = make_node(gateway.port, node=SoonDead)
        node.start()
        with pytest.raises(ssl.SSLError, match="ALERT"):
            gateway.accept()
        node.wait_for_log("rescue: link: ValueError: ")


def test_a_file_that_is_missing_leads_to_rescue_at_once(gateway: Gateway, make_node: MakeNode) -> None:
    """node/start.py itself is damaged: main.py goes to rescue without counting."""
    node = make_node(gateway.port, node=Broken)
    node.install()

    class Headless(Broken):
        def install(self) -> None:
            super().install()
            (self.workdir / "node" / "start.py").write_text("this is no Python")

    node.__class__ = Headless
    node.start()
    peer = rescued(gateway)
    assert "SyntaxError" in peer.expect(PUBLISH, "/plant/peanut/status").json["rescue"]


def test_rescue_without_control_keeps_the_outputs_safe_and_still_talks(gateway: Gateway, make_node: MakeNode) -> None:
    class Helpless(Broken):
        def install(self) -> None:
            super().install()
            (self.workdir / "node" / "control.py").write_text("raise ValueError('broken too')\n")

    node = make_node(gateway.port, node=Helpless)
    node.start()
    peer = rescued(gateway)
    assert peer.expect(PUBLISH, "/plant/peanut/state").json["reason"] == "no control: outputs are off"


def test_a_watchdog_reset_is_told_with_its_last_lines(gateway: Gateway, make_node: MakeNode) -> None:
    """RTC memory outlives it: an event says what happened, the log's last lines come after it; ids are known again."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.welcome()
    order = publish("/plant/peanut/UpdateTemperature", json.dumps({"temperature": 21, "id": "once"}))
    peer.send(order)
    for stage in ("accepted", "done"):
        assert peer.expect(PUBLISH, "/plant/peanut/ack").json["stage"] == stage
    node.bite()
    node.start("watchdog")
    peer = gateway.accept()
    peer.welcome(session=1)
    said = {name: peer.told(f"/plant/peanut/{name}").json for name in ("event", "log")}
    assert said["event"]["id"] == "reset"
    assert said["event"]["text"].startswith("watchdog: ")
    assert any("accepted UpdateTemperature" in line for line in said["log"]["lines"])
    mark = len(node.log)
    peer.send(order)
    assert peer.expect(PUBLISH, "/plant/peanut/ack").json["stage"] == "done"  # answered, not done again
    assert "accepted UpdateTemperature" not in node.log[mark:]
    # A power cut takes RTC memory along: nothing is told of it.
    node.kill()
    node.start()
    peer = gateway.accept()
    peer.welcome(session=1)
    node.wait_for_log("online at")
    assert "reset" not in node.log.rsplit("online at", 1)[1]


def test_a_control_loop_that_fails_resets_the_node(gateway: Gateway, make_node: MakeNode) -> None:
    """The one failure that is not survived: outputs off, a reset, and the reason reaches the gateway."""

    class Once(Node):
        def install(self) -> None:
            super().install()
            control = self.workdir / "node" / "control.py"
            mark = "    def step(self, now, readings"
            text = control.read_text()
            assert mark in text
            if not (self.workdir / "rtc.mem").exists():
                control.write_text(
                    text.replace(
                        mark,
                        "    def step(self, *_):\n        raise RuntimeError('no')\n\n"
                        + mark.replace("step", "_step_"),
                        1,
                    )
                )

    node = make_node(gateway.port, node=Once)
    node.start()
    node.wait_for_log("the node ends: RuntimeError: no")
    (node.workdir / "node" / "control.py").write_text(
        (Path(__file__).parents[2] / "firmware" / "node" / "control.py").read_text()
    )
    peer = None
    while peer is None:
        with contextlib.suppress(ssl.SSLError, ConnectionError):  # of the life that ended, which had begun to connect
            peer = gateway.accept()
    peer.welcome()
    assert peer.told("/plant/peanut/event").json["text"] == "crash: RuntimeError: no"


def test_rescue_does_not_wait_for_a_gateway_that_hangs(make_node: MakeNode) -> None:
    """One that accepts and says nothing: the try ends by itself, and the plants have their turns again."""

    class Hasty(SoonDead):
        def install(self) -> None:
            super().install()
            rescue = self.workdir / "rescue.py"
            text = rescue.read_text().replace("AGAIN_S = 3\n", "AGAIN_S = 3600\n")
            assert "ANSWER_S = 20" in text
            rescue.write_text(text.replace("ANSWER_S = 20", "ANSWER_S = 1"))

    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = make_node(silent.getsockname()[1], node=Hasty)
        node.start()
        log = node.wait_for_log("rescue: link: OSError", timeout=60)
        mark = len(log)
        node.wait_for_log("rescue: link: OSError", after=mark, timeout=60)
