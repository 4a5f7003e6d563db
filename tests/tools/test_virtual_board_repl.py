"""The real mpremote on a virtual board: MicroPython on the file system in the flash, its REPLs, and its resets.

The boards boot from a flash that is prepared by the tests: image and file system, as esptool would have written them.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import serial
from littlefs import LittleFS

from tools.virtual_board import VirtualBoard
from tools.virtual_board.chips import CHIPS
from tools.virtual_board.image import make_image

from .board_programs import console, mpremote

MIB = 1024 * 1024
FS = 0x200000


def flash(folder: Path, chip: str = "esp32", **files: str) -> None:
    """A flash with MicroPython and these files; a name ends in `_py` for `.py`."""
    system = LittleFS(block_size=4096, block_count=2 * MIB // 4096, prog_size=32, read_size=32, lookahead_size=32)
    for name, text in files.items():
        with system.open(name.replace("_py", ".py"), "w") as file:
            file.write(text)
    image = make_image(CHIPS[chip])
    data = (b"\xff" * CHIPS[chip].bootloader + image).ljust(FS, b"\xff") + bytes(system.context.buffer)
    (folder / "flash.bin").write_bytes(data)


def dark(folder: Path) -> VirtualBoard:
    """An ESP32 without power, so that nothing of what it says at its start is missed."""
    return VirtualBoard("esp32", "--off", folder=folder)


def reads(port: serial.Serial, text: str) -> str:
    """What the console says up to and with `text`."""
    said = port.read_until(text.encode()).decode()
    assert said.endswith(text), said
    return said


def test_boot_and_main_run_and_the_repl_follows(tmp_path: Path) -> None:
    """The boot log, boot.py, main.py, the prompt; the names of main.py are there."""
    flash(tmp_path, boot_py="print('booting')", main_py="import sys\nx = 6 * 7\nprint('main', sys.path)\n")
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        said = reads(port, ">>> ")
        assert "rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n" in said
        assert "booting\r\nmain ['', '.frozen', '/lib']\r\n" in said
        port.write(b"x\r")
        assert "42" in reads(port, ">>> ")


def test_files_go_both_ways_and_stay(tmp_path: Path) -> None:
    """cp, ls, cat, rm of mpremote work on the files in the flash; they are there after the power was off."""
    flash(tmp_path, boot_py="")
    (tmp_path / "data").write_bytes(bytes(range(256)) * 40)
    with VirtualBoard(folder=tmp_path) as board:
        mpremote(board, "mkdir", ":lib", "+", "cp", tmp_path / "data", ":lib/data")
        mpremote(board, "exec", "with open('lib/mod.py', 'w') as f: f.write('y = 5')")
        board.tell("off")
        board.tell("on")
        board.wait_for(state="program", cause="power")
        assert "10240 data" in mpremote(board, "ls", ":lib")
        mpremote(board, "cp", ":lib/data", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == (tmp_path / "data").read_bytes()
        assert mpremote(board, "exec", "import mod; print(mod.y)").strip() == "5"
        mpremote(board, "rm", ":lib/data")
        assert "data" not in mpremote(board, "ls", ":lib")
        mpremote(board, "reset")
        board.wait_for(state="program", cause="restart")


def test_a_folder_of_the_pc_is_mounted(tmp_path: Path) -> None:
    """mpremote mount: the chip imports from the PC, binary files included."""
    flash(tmp_path, boot_py="")
    (tmp_path / "pc").mkdir()
    (tmp_path / "pc" / "here.py").write_text("z = 11\n")
    (tmp_path / "pc" / "bytes").write_bytes(b"\n\r\n\x18\x00" * 50)
    with VirtualBoard(folder=tmp_path) as board:
        said = mpremote(
            board, "mount", tmp_path / "pc", "exec", "import here; print(here.z, open('bytes', 'rb').read()[:5])"
        )
        assert said.splitlines()[-1] == r"11 b'\n\r\n\x18\x00'" or r"11 b'\n\r\n\x18\x00'" in said


def test_ctrl_c_interrupts_main_and_ctrl_d_starts_it_again(tmp_path: Path) -> None:
    """As on the chip: KeyboardInterrupt, the prompt, a soft reboot with SOFT_RESET as its cause."""
    flash(
        tmp_path,
        main_py="import machine, time\nprint('cause', machine.reset_cause())\nwhile True:\n    time.sleep(0.1)\n",
    )
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        reads(port, "cause 1\r\n")
        port.write(b"\r\x03")
        assert "KeyboardInterrupt" in reads(port, ">>> ")
        port.write(b"\x04")
        assert "MPY: soft reboot\r\n" in reads(port, "cause 5\r\n")


def test_ctrl_c_at_once_is_not_lost(tmp_path: Path) -> None:
    """Whoever interrupts a board while it still starts gets the prompt, and a whole file system."""
    flash(tmp_path, main_py="import time\nwhile True:\n    time.sleep(0.1)\n")
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        reads(port, "clock div:2\r\n")
        port.write(b"\x03")
        assert "KeyboardInterrupt" in reads(port, ">>> ")
        port.write(b"import os; os.listdir()\r")
        reads(port, "['main.py']")


def test_main_that_exits_is_started_again(tmp_path: Path) -> None:
    """sys.exit() in main.py is a soft reset on the chip."""
    flash(tmp_path, main_py="import sys\nprint('one turn')\nsys.exit(1)\n")
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        reads(port, "one turn\r\n")
        assert "MPY: soft reboot" in reads(port, "one turn\r\n")


def test_what_the_image_carries_is_there(tmp_path: Path) -> None:
    """--frozen: modules and packages of the image, though the file system has none of them."""
    flash(tmp_path, boot_py="")
    (tmp_path / "frozen" / "pack").mkdir(parents=True)
    (tmp_path / "frozen" / "pack" / "inner.py").write_text("word = 'from the image'\n")
    with VirtualBoard("esp32", "--frozen", str(tmp_path / "frozen"), folder=tmp_path) as board:
        said = mpremote(board, "exec", "import os, pack.inner as p; print(p.word, os.listdir('/'))")
    assert said.strip() == "from the image ['boot.py']"


def test_what_is_said_before_a_reset_is_heard(tmp_path: Path) -> None:
    """The last words of a program that resets the chip come out whole."""
    flash(tmp_path, main_py="import machine\nprint('x' * 5000 + 'end')\nmachine.reset()\n")
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        reads(port, "x" * 5000 + "end\r\n")


def test_a_fault_in_main_is_said_and_leads_to_the_repl(tmp_path: Path) -> None:
    """A traceback with the file's name and line."""
    flash(tmp_path, main_py="a = 1\nb = a / 0\n")
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        said = reads(port, ">>> ")
        assert 'File "main.py", line 2' in said
        assert "ZeroDivisionError" in said


MEMORY = """
import machine
r = machine.RTC()
print("was", machine.reset_cause(), r.memory(), r.datetime()[0])
r.memory(b"kept\\x00\\xff")
r.datetime((2026, 11, 21, 5, 12, 30, 0, 0))
"""


def test_memory_and_clock_of_the_rtc_survive_resets_but_not_the_power(tmp_path: Path) -> None:
    """machine.reset() keeps them, with HARD_RESET as its cause; EN and power lose them."""
    flash(tmp_path, main_py=MEMORY)
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        reads(port, "was 1 b'' 2000\r\n")
        reads(port, ">>> ")
        port.write(b"machine.reset()\r")
        assert "SW_CPU_RESET" in reads(port, "was 2 b'kept\\x00\\xff' 2026\r\n")
        board.tell("reset")
        assert "POWERON_RESET" in reads(port, "was 1 b'' 2000\r\n")


def test_the_watchdog_bites(tmp_path: Path) -> None:
    """A program that hangs is killed and started again, and knows why; one that feeds it is not."""
    source = "import machine, time\nprint('cause', machine.reset_cause())\nw = machine.WDT(timeout=2000)\n"
    # It feeds for longer than the watchdog waits, then hangs: the pauses are the program's, on the board.
    source += "for i in range(12):\n    time.sleep(0.2)\n    w.feed()\nprint('fed')\nwhile True:\n    time.sleep(1)\n"
    flash(tmp_path, main_py=source)
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        reads(port, "cause 1\r\n")
        reads(port, "fed\r\n")
        assert "Task watchdog got triggered" in reads(port, "cause 3\r\n")


def test_pins_and_voltages_are_the_boards(tmp_path: Path) -> None:
    """Levels that the program sets are seen outside, levels and voltages from outside inside; a reset lets go."""
    source = "from machine import ADC, Pin\np = Pin(25, Pin.OUT, value=1)\nprint('set')\n"
    flash(tmp_path, main_py=source)
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        reads(port, "set\r\n")
        reads(port, ">>> ")
        assert board.wait_for()["pins"] == {"25": 1}
        board.tell("uv", "34", "1200000")
        board.tell("level", "0", "0")
        port.write(b"print(ADC(Pin(34)).read_uv(), Pin(0, Pin.IN)(), p())\r")
        reads(port, "\r\n1200000 0 1\r\n>>> ")
        port.write(b"import machine; I = machine.I2C(0, sda=Pin(21), scl=Pin(22)); I.scan(), I.readfrom(68, 2)\r")
        assert "ENODEV" in reads(port, "ENODEV")


def test_what_nvs_holds_is_gone_with_the_flash(tmp_path: Path) -> None:
    """Named values survive the power, and are in the flash: in the partition that the table gives them."""
    flash(tmp_path, boot_py="")
    with VirtualBoard(folder=tmp_path) as board:
        mpremote(board, "exec", "import esp32; n = esp32.NVS('peanut'); n.set_i32('set', -7); n.commit()")
        board.tell("off")
        board.tell("on")
        assert mpremote(board, "exec", "import esp32; print(esp32.NVS('peanut').get_i32('set'))").strip() == "-7"
        with board.flash.open("r+b") as file:
            file.seek(0x9000)
            file.write(b"\xff" * 0x6000)
        assert "ESP_ERR_NVS_NOT_FOUND" in mpremote(
            board, "exec", "import esp32; print(esp32.NVS('peanut').get_i32('set'))", status=1
        )


JOIN = """
import network, time
w = network.WLAN(network.WLAN.IF_STA)
w.active(True)
for name, key in (("house", "right"), ("house", "wrong"), ("elsewhere", "")):
    w.connect(name, key)
    while w.status() == network.STAT_CONNECTING:
        time.sleep(0.01)
    print(name, w.isconnected(), w.status())
    w.disconnect()
"""


def test_the_air_holds_the_networks_that_it_is_said_to(tmp_path: Path) -> None:
    """Right password, wrong password, no such network, by the numbers of the ESP32."""
    flash(tmp_path, boot_py="")
    (tmp_path / "join.py").write_text(JOIN)
    with VirtualBoard("esp32", "--wifi", "house:right", folder=tmp_path) as board:
        said = mpremote(board, "run", tmp_path / "join.py")
    assert said.splitlines() == ["house True 1010", "house False 202", "elsewhere False 201"]


def test_an_erased_file_system_is_made_and_a_damaged_one_is_not(tmp_path: Path) -> None:
    """What the ESP32 port does at its start."""
    image = make_image(CHIPS["esp32"])
    (tmp_path / "flash.bin").write_bytes((b"\xff" * 0x1000 + image).ljust(4 * MIB, b"\xff"))
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        assert "Performing initial setup\r\n" in reads(port, ">>> ")
    with (tmp_path / "flash.bin").open("r+b") as file:
        file.seek(FS)
        file.write(b"\x00" * 0x2000)
    with dark(tmp_path) as board, console(board) as port:
        board.tell("on")
        reads(port, "The filesystem appears to be corrupted.")


def test_it_sees_nothing_of_this_pc(tmp_path: Path) -> None:
    """The root is the flash: no file of the PC can be opened by its path. The port says that it is an ESP32."""
    flash(tmp_path, boot_py="")
    with VirtualBoard(folder=tmp_path) as board:
        assert "ENOENT" in mpremote(board, "exec", "open('/etc/hostname')", status=1)
        said = mpremote(board, "exec", "import os, sys; from sys import path; print(sys.platform, path, os.listdir())")
        assert said.strip() == "esp32 ['', '.frozen', '/lib'] ['boot.py']"


def test_a_slow_board_is_slow(tmp_path: Path) -> None:
    """--slow: from the reset to the first line of Python it takes so long."""
    flash(tmp_path, main_py="print('here')")
    with VirtualBoard("esp32", "--slow", "1", "--off", folder=tmp_path) as board, console(board) as port:
        begun = time.monotonic()
        board.tell("on")
        reads(port, "here\r\n")
        assert time.monotonic() - begun >= 0.9


def test_a_wrong_speed_reads_as_noise(tmp_path: Path) -> None:
    """The console is at 115200; who listens at another speed gets garbage."""
    flash(tmp_path, main_py="print('here')")
    with VirtualBoard(folder=tmp_path) as board, serial.Serial(board.port, 9600, timeout=60) as port:
        board.wait_for(boots=1)
        noise = port.read(1)
        assert noise
        port.timeout = 0.5
        noise += port.read(300)
        assert b"here" not in noise


@pytest.mark.parametrize("line", [("--tcp", "0"), ("--rfc2217", "0")], ids=["socket", "rfc2217"])
def test_mpremote_over_tcp(line: tuple[str, ...], tmp_path: Path) -> None:
    """The other two kinds of line."""
    flash(tmp_path, "esp32c3", boot_py="")
    with VirtualBoard("esp32c3", *line, folder=tmp_path) as board:
        assert mpremote(board, "exec", "print(b'\\xff' * 3)").strip() == r"b'\xff\xff\xff'"
