"""`peanut flash` with the real esptool on a virtual board: bare to online, again, and what is refused before that.

long_flash.py has what takes its time.
"""

import contextlib
import hashlib
import json
import os
import pty
import re
import signal
import socket
import stat
import sys
import time
import types
from pathlib import Path

import pytest
import serial

from peanut import board as boards_of
from peanut import ca, device, fsimage, install, loader, serialport, wifi
from peanut.errors import Exit, PeanutError
from peanut.home import Home
from peanut.names import Kind
from tools.virtual_board import VirtualBoard
from tools.virtual_board.chips import CHIPS
from tools.virtual_board.image import make_image

from .conftest import BOARDS, invoke, start
from .conftest import WIFI_PASSWORD as PASSWORD
from .terminal import in_a_terminal

FS = 0x200000
DEADLINE_S = 60.0


def contents(board: VirtualBoard, needed: str = "boot.py") -> dict[str, bytes]:
    """The files on the board, as soon as `needed` is among them: the node that writes it has to start first."""
    deadline = time.monotonic() + DEADLINE_S
    while needed not in (files := fsimage.unpack(board.flash.read_bytes()[FS:]) or {}):
        assert time.monotonic() < deadline, f"no {needed} on the board"
        time.sleep(0.1)
    return files


def words(board: VirtualBoard, boards: Path, *more: str) -> list[str]:
    image = board.folder / "micropython.bin"
    return ["flash", "leek", "--port", board.port, "--boards", str(boards), "--image", str(image), *more]


def test_refused_before_a_byte_is_written(fleet: Path, board: VirtualBoard, boards: Path, tmp_path: Path) -> None:
    other = tmp_path / "s3.bin"  # it fits the board that is named, so that the chip is what is wrong
    other.write_bytes(make_image(CHIPS["esp32s3"]))
    s3 = ["--image", str(other), "--sha256", hashlib.sha256(other.read_bytes()).hexdigest()]
    for more, complaint, fix in (
        (["--board", "esp32-s3-devkitc-1", *s3], "has an ESP32, and esp32-s3-devkitc-1 has an ESP32-S3",
         "right --board"),
        (["--flash-mb", "8"], "has 4 MB of flash, and esp32-devkitc has 8 MB", "--flash-mb 4"),
    ):  # fmt: skip
        result = invoke(fleet, *words(board, boards, "--no-wait", *more))
        assert result.exit_code == 2, result.output
        assert complaint in result.stderr
        assert fix in result.stderr
        assert "The board was not written" in result.stdout
    assert set(board.flash.read_bytes()) == {0xFF}
    node = json.loads((fleet / "devices/leek/node.json").read_text())
    assert node["board"]["name"] == "esp32-devkitc"
    assert not list(fleet.glob(".flash-*"))


@pytest.mark.parametrize(
    ("name", "more", "complaint", "fix"),
    [
        ("Bean", [], "'Bean' is not", ""),
        ("leek", ["--board", "esp32-devkit"], "there is no board 'esp32-devkit'", "esp32-devkitc"),
        ("leek", ["--image", "/no/image.bin"], "/no/image.bin is missing", ""),
        ("leek", ["--sha256", "abc"], "abc is not a SHA-256", "64 hexadecimal digits"),
        ("leek", ["--sha256", "0" * 64], "its SHA-256 is ", "Take the file that the board names"),
        ("leek", ["--kind", "vehicle"], "'leek' is not a VIN", ""),
        ("leek", ["--operator", "nobody"], "there is no operator 'nobody'", "Operators: "),
        ("leek", ["--no-wifi", "--ssid", "Shed"], "--ssid and --no-wifi contradict each other", ""),
    ],
)
def test_a_typo_does_not_stop_the_node_that_runs(
    fleet: Path, board: VirtualBoard, boards: Path, name: str, more: list[str], complaint: str, fix: str
) -> None:
    arguments = words(board, boards, *more)
    arguments[1] = name
    result = invoke(fleet, *arguments)
    assert result.exit_code == 2, result.output
    assert complaint in result.stderr
    assert fix in result.stderr
    assert result.stdout == ""  # the port was not opened: nobody was asked to press a button, and no chip has answered


def test_without_a_terminal_a_board_that_is_not_named_is_not_looked_at(home: Home, board: VirtualBoard) -> None:
    result = invoke(home.path, "flash", "bean", "--port", board.port, "--no-wifi")
    assert result.exit_code == 2
    assert "which board is it?" in result.stderr
    assert result.stdout == ""


def test_bare_board_and_again(fleet: Path, board: VirtualBoard, boards: Path) -> None:
    result = invoke(fleet, *words(board, boards, "--simulate", "--no-wait"))
    assert result.exit_code == 0, result.output
    assert "written and verified: leek is on the board 24:0a:c4" in result.stdout
    assert result.stderr == ""  # nothing to warn of
    files = contents(board, "state.json")
    bundle = fleet / "devices/leek"
    for name in ("key.der", "cert.der", "ca.der", "node.json"):
        assert files[name] == (bundle / name).read_bytes()
    wifi = json.loads(files["wifi.json"])
    assert wifi == {"format": 1, "country": "DE", "networks": [{"ssid": "Glass House", "password": PASSWORD}]}
    assert {"boot.py", "main.py", "node/app.mpy", "drivers/greenhouse_model.mpy", "drivers/sht3x.mpy"} <= set(files)
    assert not [name for name in files if "scd4x" in name]  # this board has none
    assert [name for name in files if name.endswith(".py")] == ["boot.py", "main.py"]

    # Again: the application is replaced, and what the node keeps stays.
    result = invoke(fleet, *words(board, boards, "--no-wait"))
    assert result.exit_code == 0, result.output
    assert re.search(r"  keep   .*\bstate.json", result.stdout)
    assert contents(board)["key.der"] == files["key.der"]
    assert "state.json" in contents(board)
    assert not list((fleet / "devices/leek").glob(".before-*"))
    for path in fleet.rglob("*"):
        if path.is_file() and PASSWORD.encode() in path.read_bytes():
            assert path == fleet / "wifi.toml"
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_factory_keeps_nothing(fleet: Path, board: VirtualBoard, boards: Path) -> None:
    result = invoke(fleet, *words(board, boards, "--factory", "--no-wait", "--no-wifi"))
    assert result.exit_code == 0, result.output
    assert "keep" not in result.stdout
    assert "state.json" not in contents(board)
    assert "wifi.json" not in contents(board)
    # the whole flash was erased: nothing of the old one lies about
    assert PASSWORD.encode() not in board.flash.read_bytes()


def test_push_brings_what_is_missing(fleet: Path, board: VirtualBoard) -> None:
    contents(board, "state.json")  # the node runs; push has to stop it
    result = invoke(fleet, "push", "leek")
    assert result.exit_code == 0, result.output
    assert "  copy    wifi.json" in result.stdout
    assert re.search(r"^1 of \d+ files copied; leek starts again\.$", result.stdout, re.M)
    there = json.loads(contents(board, "wifi.json")["wifi.json"])
    assert there["networks"][0]["password"] == PASSWORD
    result = invoke(fleet, "push", "peanut")
    assert "peanut has not been written to a board from here" in result.stderr
    (fleet / "devices/peanut/flashed.toml").write_text(f'port = "{board.port}"\n')
    result = invoke(fleet, "push", "peanut")
    assert result.exit_code == 2
    assert f"the board on {board.port} is leek, and not peanut" in result.stderr


def test_a_dry_run_touches_nothing(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEANUT_CACHE", str(tmp_path / "cache"))
    before = {path: path.stat().st_mtime_ns for path in home.path.rglob("*")}
    result = invoke(home.path, "flash", "bean", "--board", "xiao-esp32c3", "--dry-run", "--no-wifi")
    assert result.exit_code == 0, result.output
    assert "  fetch  ESP32_GENERIC_C3-20260406-v1.28.0.bin, for 0x000000" in result.stdout
    assert "  write  0x200000  " in result.stdout
    assert "make    devices/bean/key.der" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in home.path.rglob("*")} == before
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("more", "complaint", "fix"),
    [
        (["--port", "/dev/ttyUSB99"], "there is no port /dev/ttyUSB99", "plugged in"),
        (["--port", "/etc/hostname"], "/etc/hostname is not a serial port", "plugged in"),
        (["--port", "ftp://x:1"], "ftp://x:1 is not a port", "socket://HOST:PORT"),
        (["--port", "socket://127.0.0.1:1"], "nothing listens at socket://127.0.0.1:1", "Is that its address"),
    ],
)  # fmt: skip
def test_ports_that_are_none(home: Home, more: list[str], complaint: str, fix: str) -> None:
    result = invoke(home.path, "flash", "bean", "--board", "esp32-devkitc", "--no-wifi", *more)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert fix in result.stderr
    assert not (home.path / "devices/bean").exists()


def test_without_a_terminal_nothing_is_asked(home: Home) -> None:
    result = invoke(home.path, "flash", "--board", "esp32-devkitc", "--no-wifi", "--dry-run")
    assert result.exit_code == 2
    assert "the device has no name" in result.stderr
    result = invoke(home.path, "flash", "bean", "--no-wifi", "--dry-run")
    assert result.exit_code == 2
    assert "which board is it?" in result.stderr


def test_a_port_in_use(fleet: Path, board: VirtualBoard, boards: Path) -> None:
    with serial.Serial(board.port, exclusive=True):
        result = invoke(fleet, *words(board, boards, "--no-wait", "--no-wifi"))
    assert result.exit_code == 2
    assert f"{board.port} is in use" in result.stderr
    assert "Close that" in result.stderr


def test_one_peanut_at_a_port(fleet: Path, board: VirtualBoard, boards: Path) -> None:
    with serialport.locked(os.path.realpath(board.port)):  # by another name: it is the device that counts
        (lock,) = Path(os.environ["XDG_RUNTIME_DIR"]).glob("peanut-port-*.lock")
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600
        result = invoke(fleet, *words(board, boards, "--no-wait"))
        assert result.exit_code == 2
        assert f"another peanut is writing to {board.port}" in result.stderr
        assert "Wait until it has ended" in result.stderr
        assert result.stdout == ""
        with serialport.locked("socket://127.0.0.1:1"):  # another port is free
            pass
    with serialport.locked(board.port):
        pass


def test_waiting_without_a_gateway_says_so_and_how_to_start_it(home: Home, tmp_path: Path) -> None:
    with socket.socket() as nobody:  # bound, and it does not listen
        nobody.bind(("127.0.0.1", 0))
        where = f"127.0.0.1:{nobody.getsockname()[1]}"
        home.gateway_toml.write_text(f'[listen]\nmqtts = "{where}"\n')
        master, slave = pty.openpty()
        port = os.ttyname(slave)
        read = boards_of.read("esp32-devkitc", BOARDS)
        order = install.Order("peanut", Kind.GREENHOUSE, read, port, wifi.Wifi(), BOARDS, patience=0.001)
        said: list[str] = []
        voice = install.Voice(said.append, said.append, contextlib.nullcontext)  # type: ignore[arg-type]
        board = loader.Loader(port, tmp_path, said.append)
        try:
            with pytest.raises(PeanutError, match="peanut was not online within 0 s") as late:
                install.follow(home, order, board, device.row(home, "peanut"), b"", voice, ca.utc_now())
        finally:
            os.close(slave)
            os.close(master)
    sentence = f"The gateway cannot be reached at {where}. Start it there: peanutd, in a terminal of its own."
    assert said[-2:] == ["waiting for peanut to come online, for up to 0 s", sentence]
    assert late.value.fix.startswith(sentence)
    assert late.value.status is Exit.OFFLINE


def test_nobody_presses_the_button(
    fleet: Path, boards: Path, board: VirtualBoard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader, "CONNECT_S", 10.0)
    with VirtualBoard("esp32", "--no-hand") as other:
        more = ["--image", str(board.folder / "micropython.bin"), "--no-wifi", "--patience", "0.1"]
        result = invoke(fleet, "flash", "leek", "--port", other.port, "--boards", str(boards), *more)
    assert result.exit_code == 2
    assert "Waiting for up to 1 s" in result.stdout
    assert f"no answer from {other.port}" in result.stderr
    assert "Hold BOOT" in result.stderr


def test_it_asks_for_what_it_cannot_know(home: Home) -> None:
    command = [str(Path(sys.executable).parent / "peanut"), "flash", "--dry-run"]
    answers = [("Name of the device (a vehicle's is its VIN) [peanut-2]: ", ""), ("Which board [", "xiao-esp32c3")]
    status, shown = in_a_terminal(command, answers, home.path)
    assert status == 0, shown
    assert "devices/peanut-2/key.der" in shown
    assert "board xiao-esp32c3, gateway gateway.local:8883" in shown
    assert not (home.path / "devices/peanut-2").exists()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_whoever_ends_it_leaves_no_key_lying_about(fleet: Path, boards: Path, how: signal.Signals) -> None:
    break_off(fleet, boards, how)


def break_off(fleet: Path, boards: Path, how: signal.Signals) -> None:
    """Ends a run that writes: it says how far it got, and leaves nothing."""
    with VirtualBoard("esp32", "--line-kb", "12") as slow:
        slow.image()
        with start(fleet, *words(slow, boards, "--simulate", "--no-wait", "--no-wifi")) as process:
            deadline = time.monotonic() + DEADLINE_S
            while set(slow.flash.read_bytes()[0x1000:0x2000]) == {0xFF}:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            assert list(fleet.glob(".flash-*/*.bin"))
            process.send_signal(how)
            assert process.wait(DEADLINE_S) == 128 + how
            assert process.stderr is not None
            told = process.stderr.read()
            assert "leek is half written" in told
            assert "Run the same command again: it goes on." in told
        assert not list(fleet.glob(".flash-*"))
        assert serialport.holders(slow.port) == []  # esptool ended, too


def test_a_wifi_password_is_asked_for_and_not_shown(home: Home) -> None:
    command = [str(Path(sys.executable).parent / "peanut"), "wifi", "add", "Glass House"]
    status, shown = in_a_terminal(command, [("Password of Glass House", PASSWORD)], home.path)
    assert status == 0, shown
    assert PASSWORD not in shown
    assert wifi.read(home).networks == (wifi.Network("Glass House", PASSWORD),)


def plugged(monkeypatch: pytest.MonkeyPatch, *ports: tuple[str, str, int | None]) -> None:
    """What the operating system says of the USB ports: device, description, maker."""
    found = [types.SimpleNamespace(device=d, description=t, vid=v) for d, t, v in ports]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: found)


def test_the_board_on_the_usb_ports_is_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["flash", "bean", "--board", "esp32-devkitc", "--no-wifi"]
    plugged(monkeypatch, ("/dev/ttyS0", "", None))
    result = invoke(home.path, *command)
    assert (result.exit_code, "no board on the USB ports" in result.stderr) == (2, True)
    plugged(monkeypatch, ("/dev/ttyUSB8", "Modem", 0x1234), ("/dev/ttyUSB9", "CP2102N \x1b[2J", 0x10C4))
    result = invoke(home.path, *command)
    assert "found /dev/ttyUSB9 (CP2102N" in result.stdout  # the other one is a modem
    assert "\x1b" not in result.stdout
    assert "there is no port /dev/ttyUSB9" in result.stderr
    plugged(monkeypatch, ("/dev/ttyUSB8", "CH340", 0x1A86), ("/dev/ttyUSB9", "CP2102N", 0x10C4))
    result = invoke(home.path, *command)
    assert "/dev/ttyUSB8" in result.stdout
    assert "CP2102N" in result.stdout
    assert "more than one board" in result.stderr
    assert "USB ports there are: /dev/ttyUSB8, /dev/ttyUSB9" in invoke(home.path, *command, "--port", "/dev/no").stderr
