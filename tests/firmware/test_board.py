"""The node on a virtual board: a clock that begins in 2000, Wi-Fi with the wrong network first, a watchdog that bites.

What is true of a chip and not of a PC is proven here: RTC, pins, `network`, `machine.WDT`. The board's flash holds the
firmware as it is in this checkout, but for a trap that makes it hang and a watchdog that waits less.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from littlefs import LittleFS

from tools.fleet.node import BUNDLE, FIRMWARE, firmware_files
from tools.virtual_board import VirtualBoard
from tools.virtual_board.chips import CHIPS
from tools.virtual_board.image import make_image

from .conftest import node_json
from .datagrams import TimeServer
from .gateway import CONNECT, PUBLISH, SUBSCRIBE, Gateway, Peer, publish
from .pki import Pki

CHIP = "esp32"
FS, BLOCK = 0x200000, 4096
NETWORKS = {
    "format": 1,
    "country": "DE",
    "networks": [{"ssid": "barn", "password": "hunter22"}, {"ssid": "house", "password": "right"}],
}
TRAP = {
    "node/vitals.py": ("WATCHDOG_MS = 60000", "WATCHDOG_MS = 8000"),
    "node/sntp.py": ("\nWAIT_MS = 1000 ", "\nWAIT_MS = 60000 "),  # for an answer, on a busy machine
    "node/greenhouse.py": (
        "        cmd = command.parse(",
        '        if name == "hang":\n            __import__("time").sleep(3600)\n        cmd = command.parse(',
    ),
}


def flash(folder: Path, pki: Pki, port: int, time_port: int) -> None:
    """flash.bin of a board with this node on it."""
    body = node_json(port, gateway={"host": "127.0.0.1", "time_port": time_port}, report={"telemetry_s": 0.5})
    body["board"]["chip"] = CHIP
    body["board"]["outputs"] = {
        "heater": {"driver": "gpio", "pin": 25, "on": 1},
        "vent": {"driver": "gpio", "pin": 26, "on": 0, "safe": "off"},
    }
    pki.write_bundle(folder, "peanut")
    (folder / "node.json").write_text(json.dumps(body))
    system = LittleFS(block_size=BLOCK, block_count=FS // BLOCK, prog_size=32, read_size=32, lookahead_size=32)
    for name in firmware_files("greenhouse", ["greenhouse_model"]):
        text = (FIRMWARE / name).read_text()
        if name in TRAP:
            assert TRAP[name][0] in text
            text = text.replace(*TRAP[name])
        if "/" in name:
            system.makedirs(name.rsplit("/", 1)[0], exist_ok=True)
        with system.open(name, "wb") as file:
            file.write(text.encode())
    for name in BUNDLE:
        with system.open(name, "wb") as file:
            file.write((folder / name).read_bytes())
    with system.open("wifi.json", "wb") as file:
        file.write(json.dumps(NETWORKS).encode())
    image = make_image(CHIPS[CHIP])
    data = (b"\xff" * CHIPS[CHIP].bootloader + image).ljust(FS, b"\xff") + bytes(system.context.buffer)
    (folder / "flash.bin").write_bytes(data)


def online(gateway: Gateway, session: int = 0) -> tuple[Peer, dict[str, object]]:
    """The node's next session and its status."""
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack(session)
    peer.suback(peer.expect(SUBSCRIBE))
    return peer, peer.expect(PUBLISH, "/plant/peanut/status").json


def test_from_2000_to_online_and_back_from_a_hang(pki: Pki, gateway: Gateway, tmp_path: Path) -> None:
    """The clock is the gateway's before TLS; pins are safe; a loop that hangs is reset by the watchdog and tells it."""
    now = time.time()
    with TimeServer(now) as server:
        flash(tmp_path, pki, gateway.port, server.port)
        with VirtualBoard(CHIP, "--wifi", "house:right", folder=tmp_path) as board:
            peer, status = online(gateway)
            assert server.asked == 3
            assert abs(float(str(status["ts"])) - now) < 30
            assert board.wait_for()["pins"] == {"25": 0, "26": 1}
            health = peer.told("/plant/peanut/health").json
            assert (health["tq"], health["tls_heap"]) == ("ntp", [98000, 65536])
            peer.send(publish("/plant/peanut/cmd/hang", json.dumps({"id": "h"})))
            peer.expect_closed()
            peer, _ = online(gateway, session=1)
            event = peer.told("/plant/peanut/event").json
            assert (event["id"], event["text"].split(":")[0]) == ("reset", "watchdog")
            lines = peer.told("/plant/peanut/log").json["lines"]
            assert any("info wifi joined house" in line for line in lines), lines
            assert not any("hunter22" in line or "right" in line.split() for line in lines)
