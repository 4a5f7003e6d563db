"""The real esptool takes a virtual board for a board: it finds the chip, and the flash behaves as NOR flash does."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import serial

from tools.virtual_board import VirtualBoard

from .board_programs import BIN, console, esptool, run

MIB = 1024 * 1024
SEEN_AS = {"esp32": "ESP32-D0WD-V3", "esp32s3": "ESP32-S3 (QFN56)", "esp32c3": "ESP32-C3 (QFN32)"}


@pytest.fixture
def board(tmp_path: Path) -> Iterator[VirtualBoard]:
    """An ESP32 with 4 MB that nobody resets behind the test's back."""
    with VirtualBoard("esp32", "--no-hand", folder=tmp_path) as board:
        board.tell("bootloader")
        yield board


def noise(length: int, seed: int = 1) -> bytes:
    """Bytes that do not compress, the same ones each time."""
    return b"".join(hashlib.sha256(b"%d %d" % (seed, n)).digest() for n in range(-(-length // 32)))[:length]


@pytest.mark.parametrize("chip", SEEN_AS)
def test_chip_and_flash_are_recognised(chip: str, tmp_path: Path) -> None:
    """What esptool finds out by itself: chip, MAC, size of the flash, with the loader in ROM and with its stub."""
    with VirtualBoard(chip, "--flash-mb", "8", "--mac", "a0:b1:c2:d3:e4:f5", folder=tmp_path) as board:
        by_stub = esptool(board, "flash-id")
        assert f"{SEEN_AS[chip]} (revision" in by_stub
        assert "a0:b1:c2:d3:e4:f5" in by_stub
        assert "Stub flasher running." in by_stub
        assert "Crystal frequency:  40MHz" in by_stub
        assert "Detected flash size: 8MB" in by_stub
        assert "Detected flash size: 8MB" in esptool(board, "--no-stub", "flash-id")


def test_another_chip_is_refused(board: VirtualBoard) -> None:
    """Whoever says which chip it is and errs is told so."""
    assert "This chip is ESP32, not ESP32-S3" in esptool(board, "--chip", "esp32s3", "chip-id", status=2)


@pytest.mark.parametrize("how", [("--compress",), ("--no-compress",)])
@pytest.mark.parametrize("loader", [(), ("--no-stub",)], ids=["stub", "rom"])
def test_written_verified_and_read_back(
    how: tuple[str, ...], loader: tuple[str, ...], board: VirtualBoard, tmp_path: Path
) -> None:
    """The bytes of a file are in the flash, at their place, by either loader and way, and esptool agrees."""
    data = (noise(5000) + b"\x00" * 3000 + b"\xc0\xdb" * 500)[:8996]
    (tmp_path / "data").write_bytes(data)
    said = esptool(board, *loader, "--baud", "460800", "write-flash", *how, 0x3000, tmp_path / "data")
    assert "Hash of data verified." in said
    flash = board.flash.read_bytes()
    assert flash[0x3000 : 0x3000 + len(data)] == data
    assert set(flash[:0x3000]) == set(flash[0x6000:]) == {0xFF}
    board.tell("bootloader")  # the loader in ROM looks for the PC's speed once
    esptool(board, *loader, "verify-flash", 0x3000, tmp_path / "data")
    esptool(board, *loader, "read-flash", 0x3000, 128, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data[:128]


def test_read_back_of_more_than_the_window(board: VirtualBoard, tmp_path: Path) -> None:
    """A read-out longer than what may be under way unacknowledged."""
    data = noise(MIB)
    with board.flash.open("r+b") as flash:
        flash.seek(0x100000)
        flash.write(data)
    esptool(board, "read-flash", 0x100000, MIB, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


def test_erasing(board: VirtualBoard, tmp_path: Path) -> None:
    """A region is erased and no more; then everything."""
    with board.flash.open("r+b") as flash:
        flash.write(b"\x00" * 0x4000)
    esptool(board, "erase-region", 0x1000, 0x2000)
    flash_now = board.flash.read_bytes()
    assert flash_now[:0x4000] == b"\x00" * 0x1000 + b"\xff" * 0x2000 + b"\x00" * 0x1000
    esptool(board, "erase-flash")
    assert board.flash.read_bytes() == b"\xff" * 4 * MIB


def test_a_sector_that_cannot_be_written_is_found_by_the_verification(tmp_path: Path) -> None:
    """A broken sector keeps its bits: esptool's MD5 says so, with status 2."""
    with VirtualBoard("esp32c3", "--bad-sector", "0x11000", folder=tmp_path) as board:
        (tmp_path / "data").write_bytes(noise(0x3000))
        assert "MD5 of file does not match" in esptool(board, "write-flash", 0x10000, tmp_path / "data", status=2)
        assert board.flash.read_bytes()[0x11000:0x12000] == b"\xff" * 0x1000


def test_write_protection_is_found_and_taken_off(tmp_path: Path) -> None:
    """A flash whose status register protects it takes nothing, until somebody writes the register."""
    with VirtualBoard("esp32", "--write-protected", folder=tmp_path) as board:
        (tmp_path / "data").write_bytes(noise(100))
        assert "written flash region is empty" in esptool(board, "write-flash", 0, tmp_path / "data", status=2)
        assert "status: 0x001c" in esptool(board, "read-flash-status", "--bytes", "1")
        esptool(board, "write-flash-status", "--bytes", "1", "0")
        esptool(board, "write-flash", 0, tmp_path / "data")


def test_what_does_not_fit_is_refused(board: VirtualBoard, tmp_path: Path) -> None:
    """A file beyond the end of the flash."""
    (tmp_path / "data").write_bytes(noise(8192))
    assert "will not fit" in esptool(board, "write-flash", 4 * MIB - 4096, tmp_path / "data", status=2)


def test_cable_pulled_while_writing(board: VirtualBoard, tmp_path: Path) -> None:
    """esptool fails, the flash is half written, and the next try makes it whole."""
    (tmp_path / "data").write_bytes(noise(MIB))
    (tmp_path / "esptool.cfg").write_text("[esptool]\nconnect_attempts = 1\n")  # waits for the cable a second each
    command = [BIN / "esptool", "--port", board.port, "--before", "no-reset", "--after", "no-reset"]
    with subprocess.Popen(
        [*command, "write-flash", "0x10000", tmp_path / "data"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "ESPTOOL_CFGFILE": str(tmp_path / "esptool.cfg")},
    ) as writing:
        end = time.monotonic() + 60
        while board.flash.read_bytes()[0x20000:0x20010] == b"\xff" * 16:
            assert time.monotonic() < end
            time.sleep(0.005)
        board.tell("unplug")
        assert writing.stdout is not None
        writing.stdout.read()
    assert writing.returncode != 0
    assert not os.path.lexists(board.port)
    assert set(board.flash.read_bytes()[0x10000 + MIB - 4096 :]) == {0xFF}
    board.tell("plug")
    board.tell("bootloader")
    assert "Hash of data verified." in esptool(board, "write-flash", 0x10000, tmp_path / "data")


@pytest.mark.parametrize("chip", ["esp32", "esp32s3"])
def test_nothing_to_boot_is_said_as_the_rom_says_it(chip: str, tmp_path: Path) -> None:
    """A bare chip says what a bare chip says, again and again; a damaged image does not boot either."""
    with (
        VirtualBoard(chip, "--no-hand", folder=tmp_path) as board,
        serial.Serial(board.port, 115200, timeout=60) as port,
    ):
        assert "invalid header: 0xffffffff" in port.read_until(b"0xffffffff\r\n").decode()
        assert "RTCWDT" in port.read_until(b"RTCWDT").decode()  # it tries again
        image = bytearray(board.image().read_bytes())
        image[0x11000] ^= 1  # in the app
        with board.flash.open("r+b") as flash:
            flash.seek(board.chip.bootloader)
            flash.write(image)
        board.tell("reset")
        assert "Checksum failed" in port.read_until(b"failed").decode()
        assert board.tell("status")["state"] == "nothing"


def test_image_of_another_chip_does_not_boot(tmp_path: Path) -> None:
    """The C3 refuses what was built for the S3."""
    with VirtualBoard("esp32s3", folder=tmp_path) as other:
        image = other.image().read_bytes()
    (tmp_path / "flash.bin").write_bytes(image.ljust(4 * MIB, b"\xff"))
    with VirtualBoard("esp32c3", folder=tmp_path) as board, console(board) as port:
        assert "mismatch chip ID, expected 5" in port.read_until(b"expected 5").decode()


def test_the_hand_presses_the_buttons(tmp_path: Path) -> None:
    """With nobody at the side channel a tool gets its loader, and what it wrote boots when it has gone."""
    with VirtualBoard("esp32c3", "--hand", "0.1", folder=tmp_path) as board:
        esptool(board, "write-flash", 0, board.image())
        board.wait_for(state="program")
        esptool(board, "chip-id")
        board.wait_for(state="program", boots=2)


def test_the_hand_knows_when_a_tool_is_done(tmp_path: Path) -> None:
    """Even if the port is never closed: somebody listens to it all the while."""
    with VirtualBoard("esp32", "--hand", "0.1", folder=tmp_path) as board:
        listener = os.open(board.port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
        try:
            esptool(board, "--no-stub", "chip-id")
            assert board.wait_for(state="loader")
            esptool(board, "chip-id")
            board.wait_for(state="nothing", cause="power")
        finally:
            os.close(listener)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in pyserial
def test_the_wires_of_rfc2217_reset_it(tmp_path: Path) -> None:
    """DTR and RTS do over TCP what they do on a cable: into the loader and out of it."""
    with VirtualBoard("esp32", "--rfc2217", "0", "--no-hand", folder=tmp_path) as board:
        port = serial.serial_for_url(f"{board.port}?timeout=60", do_not_open=True, baudrate=115200, timeout=60)
        port.dtr = port.rts = False
        port.open()
        try:
            port.rts = True
            board.wait_for(state="held")
            port.dtr = True
            port.rts = False
            port.dtr = False
            assert b"waiting for download" in port.read_until(b"waiting for download")
            port.rts = True
            port.rts = False
            assert b"invalid header" in port.read_until(b"invalid header")
        finally:
            port.close()


def test_esptool_resets_a_chip_without_wires_by_its_watchdog(tmp_path: Path) -> None:
    """--after watchdog-reset: what was written runs, though nobody has pressed a button."""
    with VirtualBoard("esp32s3", "--tcp", "0", "--no-hand", folder=tmp_path) as board:
        board.tell("bootloader")
        done = run(
            "esptool", "--port", board.port, "--after", "watchdog-reset", "write-flash", 0, board.image()
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        board.wait_for(state="program", cause="rtc")


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """The parent is killed: the board takes its port and its side channel away, and goes."""
    start = "from subprocess import run; import sys; run([sys.executable, *sys.argv[1:]])"
    words = [BIN / "python", "-c", start, "-m", "tools.virtual_board", "--link", tmp_path / "port"]
    parent = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline().decode().strip() == str(tmp_path / "port")
    assert stat.S_IMODE((tmp_path / "port.ctl").stat().st_mode) == 0o600
    parent.kill()
    parent.stdout.read()  # ends when the last one that has it does
    parent.wait()
    assert not os.path.lexists(tmp_path / "port")
    assert not os.path.lexists(tmp_path / "port.ctl")
    parent.stdout.close()


def test_a_port_that_another_board_has_is_not_taken(tmp_path: Path) -> None:
    """The second is refused and the first goes on; what one has left that is gone is replaced."""
    with VirtualBoard(folder=tmp_path) as board:
        terminal = os.readlink(board.port)
        second = run("python", "-m", "tools.virtual_board", "--link", board.port, "--control", tmp_path / "control")
        assert (second.returncode, second.stdout) == (1, "")
        assert f"another virtual board has {board.port}: end it" in second.stderr
        assert os.readlink(board.port) == terminal
        assert board.tell("status")["state"]
    (tmp_path / "port").symlink_to("/dev/pts/999999999")
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "control"))
    with VirtualBoard(folder=tmp_path) as board:
        assert os.readlink(board.port) != "/dev/pts/999999999"
        board.tell("status")


def test_where_no_port_can_be_made(tmp_path: Path) -> None:
    """One sentence with advice; what is there is not replaced."""
    (tmp_path / "file").write_text("mine")
    (tmp_path / "usb").symlink_to("/dev/ttyUSB0")
    for link, complaint in (
        (tmp_path / "none" / "board", f"there is no folder {tmp_path / 'none'}"),
        (tmp_path / "file", "no virtual board has made it"),
        (tmp_path / "usb", "no virtual board has made it"),
    ):
        done = run("python", "-m", "tools.virtual_board", "--link", link)
        assert done.returncode == 1
        assert complaint in done.stderr
        assert "take another name" in done.stderr
        assert done.stderr.count("\n") == 1
    assert (tmp_path / "file").read_text() == "mine"
    assert os.readlink(tmp_path / "usb") == "/dev/ttyUSB0"


def test_it_is_told_to_end_more_than_once(tmp_path: Path) -> None:
    """As make and a terminal do it together: it tidies up all the same, and says nothing."""
    words = [BIN / "python", "-m", "tools.virtual_board", "--link", tmp_path / "port"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as board:
        assert board.stdout is not None
        assert board.stderr is not None
        board.stdout.readline()
        board.stdout.readline()
        for _ in range(100):  # more would fill the pipe that wakes the loop
            board.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                board.wait(0.001)  # or they would come as one
                break
        assert board.stderr.read() == b""
        assert board.wait() == 0
    assert not os.path.lexists(tmp_path / "port")
    assert not os.path.lexists(tmp_path / "port.ctl")


def test_a_foreign_flash_file_is_not_taken(tmp_path: Path) -> None:
    """A file of another size is not cut or stretched."""
    (tmp_path / "flash.bin").write_bytes(b"something else")
    done = run("python", "-m", "tools.virtual_board", "--flash", tmp_path / "flash.bin")
    assert done.returncode == 1
    assert "holds 14 bytes" in done.stderr
    assert (tmp_path / "flash.bin").read_bytes() == b"something else"
