"""The board: power, the two buttons, the chip between its loader and its program, and a hand that presses the buttons.

Rule: what survives what is decided here and nowhere else. The flash survives everything, the RTC's memory and clock
every reset but the loss of power (and EN), a process nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import image
from .chips import Chip
from .flash import Flash
from .interpreter import Interpreter
from .line import Line
from .loader import SYNC_START, Loader
from .registers import Registers

BAUD = 115200  # of the console and, to begin with, of the loader
SPEED_TOLERANCE = 0.03
GIVE_UP_S = 1.0  # between two tries of a ROM that finds nothing to boot
EN_RISE_S = 0.15  # the capacitor at EN: so long the wires may need for their next step
COME_BACK = 10  # times as long the hand waits for a tool that has left its stub
WATCHDOG_S = 0.2  # from the setting of the RTC's watchdog by esptool to its bite
MAX_RTC_MEMORY = 2048
FIFO = 128  # bytes that the UART keeps for an interpreter that has not started yet
_JOINED, _NO_AP, _WRONG_PASSWORD = 1010, 201, 202  # network.STAT_…
_CAUSES = {"power": 1, "restart": 2, "watchdog": 3, "sleep": 4, "soft": 5, "rtc": 3, "download": 2}  # machine.…_RESET


@dataclass(frozen=True)
class Settings:
    """What can be chosen about a board.

    hand    seconds after which somebody presses EN when the PC has let go of the loader; presses BOOT and EN too when
            a loader is called for. None: nobody is there, and only the control line presses buttons
    slow    seconds that the interpreter needs to start
    rate    bytes that the line carries to the loader in a second; None: as many as come
    throttle  how many times slower than this PC it is then
    frozen  modules that its image carries
    air     networks by name with their passwords ("" for an open one); None: every network is there, and joined
    """

    mac: bytes = bytes.fromhex("240ac4b0a7d0")
    hand: float | None = 1.0
    slow: float = 0.0
    rate: float | None = None
    throttle: float = 1.0
    frozen: Path | None = None
    air: dict[str, str] | None = None


@dataclass
class _Rtc:
    """What the RTC's supply keeps."""

    memory: bytes = b""
    clock: float = field(default_factory=time.time)  # Unix time at which the chip's clock was 0


class Board:
    """A board on a line. All of it runs in one event loop."""

    def __init__(self, chip: Chip, flash: Flash, line: Line, settings: Settings) -> None:
        self.chip, self.flash, self.line, self.settings = chip, flash, line, settings
        self.levels: dict[int, int] = {}
        self.microvolts: dict[int, int] = {}
        self.state = "off"  # off, held (EN), loader, nothing (to boot), program
        self.boots = 0
        self._cause = "power"
        self._rtc = _Rtc()
        self._loader: Loader | None = None
        self._registers = Registers(chip, settings.mac, flash)
        self._interpreter: Interpreter | None = None
        self._fifo = b""
        self._baud = BAUD
        self._autobaud = False
        self._boot_pressed = False
        self._wires = (False, False)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._watchdog_s = 0.0
        self._line_free = 0.0  # loop time at which the line has carried what was sent

    # Power and buttons

    async def plug(self, power: bool = True) -> None:
        """The cable is plugged in: the port is there, and power if the cable carries it."""
        await self.line.connect(self)
        if power:
            self.power_on()

    def unplug(self) -> None:
        """The cable is pulled: port and power are gone, in the middle of whatever goes on."""
        self.power_off()
        self.line.disconnect()

    def power_on(self) -> None:
        """Power comes."""
        self._rtc = _Rtc()
        self.reset("power")

    def power_off(self) -> None:
        """Power goes."""
        self._stop()
        self.state = "off"

    def press_en(self, boot: bool = False) -> None:
        """EN is pressed and let go, with BOOT held down meanwhile or not."""
        if self.state != "off":
            self._rtc = _Rtc()
            self._boot_pressed = boot
            self.reset("power")
            self._boot_pressed = False

    def reset(self, cause: str, download: bool = False) -> None:
        """The chip starts again. download: into the loader; else as the BOOT button says."""
        self._stop()
        self._fifo = b""
        self._cause = cause
        self._baud = self._registers.baud = BAUD
        chip = self.chip
        mode = chip.download if download or self._boot_pressed else chip.boot
        self._say(f"{chip.rom}rst:{chip.resets.get(cause, chip.resets['restart'])},boot:{mode}\r\n")
        if mode == chip.download:
            self._registers = Registers(chip, self.settings.mac, self.flash)
            self._loader = Loader(chip, self.flash, self._registers)
            self._autobaud = True
            self.state = "loader"
            self._say("waiting for download\r\n")
            if download and self.settings.hand is not None:
                # A tool that leaves its stub for the ROM is done. That it closes the port then may be missed, if
                # somebody else opens it at once.
                self._after("hand", self.settings.hand, self.press_en)
        else:
            self._boot()

    def _stop(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._loader = None
        if self._interpreter is not None:
            self._interpreter.kill()
            self._interpreter = None
        self.levels.clear()

    def _after(self, name: str, seconds: float, what: Any, *arguments: Any) -> None:
        """One timer of each name."""
        if name in self._timers:
            self._timers[name].cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, what, *arguments)

    # Running

    def _boot(self) -> None:
        try:
            app = image.boot(self.flash.read(0, self.flash.size), self.chip)
        except image.BadImage as error:
            self.state = "nothing"
            repeated = 8 if str(error).startswith("invalid header") else 1
            self._say(f"{error}\r\n" * repeated)
            self._after("boot", GIVE_UP_S, self.reset, "rtc")
            return
        self._say("configsip: 0, SPIWP:0xee\r\nmode:DIO, clock div:2\r\n")
        self.state = "program"
        self.boots += 1
        if app.project != "micropython":
            self._say(f"virtual board: {app.project} {app.version} is not MicroPython, and nothing else runs here\r\n")
            return
        self._fs = app.fs
        self._after("start", self.settings.slow, self._interpret, False)

    def _interpret(self, raw: bool) -> None:
        self._interpreter = Interpreter(
            self.flash.path,
            self._fs,
            self.flash.size - self._fs,
            self.chip.heap_kib,
            raw,
            self.settings.frozen,
            self.settings.throttle,
            self._said,
            self._soft_reset,
            self._asked,
        )
        waiting, self._fifo = self._fifo, b""
        self._interpreter.write(waiting)

    def _soft_reset(self) -> None:
        """The interpreter has ended: it starts again, in the mode of the REPL that it was in."""
        assert self._interpreter is not None
        raw = self._interpreter.raw
        self._interpreter.kill()
        self._interpreter = None
        self._say("MPY: soft reboot\r\n")
        self._cause = "soft"
        self._after("start", self.settings.slow, self._interpret, raw)

    def _bite(self) -> None:
        self._say(
            "E (1) task_wdt: Task watchdog got triggered. The following tasks/users did not reset "
            "the watchdog in time:\r\n"
            "E (1) task_wdt:  - mp_task (CPU 0/1)\r\nE (1) task_wdt: Aborting.\r\n\r\nRebooting...\r\n"
        )
        self.reset("watchdog")

    # What the modules of the hardware ask

    def _asked(self, words: list[str]) -> Any:
        """A line from the interpreter; the answer if it is a question."""
        answer = getattr(self, "_on_" + words[0].replace("!", "_store"), None)
        if answer is None:
            print(f"virtual board: the chip's modules asked {words}", file=sys.stderr)
            return None
        return answer(*words[1:])

    def _on_hello(self) -> dict[str, Any]:
        return {
            "cause": _CAUSES[self._cause],
            "mac": list(self.settings.mac),
            "flash": self.flash.size,
            "clock": self._rtc.clock,
        }

    def _on_pin(self, number: str, level: str) -> None:
        self.levels[int(number)] = int(level)

    def _on_mode(self, number: str, mode: str) -> None:
        self.levels.setdefault(int(number), 0)

    def _on_level(self, number: str) -> int:
        return self.levels.get(int(number), 1)  # pulled up, nothing wired

    def _on_uv(self, number: str) -> int:
        return self.microvolts.get(int(number), 142_000)  # what an ESP32 reads from an open pin or from ground

    def _on_clock(self, zero: str) -> None:
        self._rtc.clock = float(zero)

    def _on_memory(self) -> str:
        return self._rtc.memory.hex()

    def _on_remember(self, data: str) -> None:
        self._rtc.memory = b"" if data == "-" else bytes.fromhex(data)[:MAX_RTC_MEMORY]

    def _on_watchdog(self, milliseconds: str) -> None:
        self._watchdog_s = int(milliseconds) / 1000
        self._on_feed()

    def _on_feed(self) -> None:
        if self._watchdog_s:
            self._after("watchdog", self._watchdog_s, self._bite)

    def _on_reset(self) -> None:
        asyncio.get_running_loop().call_soon(self.reset, "restart")

    def _on_bootloader(self) -> None:
        asyncio.get_running_loop().call_soon(self.reset, "restart", True)

    def _on_soft(self) -> None:
        asyncio.get_running_loop().call_soon(self._soft_reset)

    def _on_sleep(self, milliseconds: str) -> None:
        asyncio.get_running_loop().call_soon(self._sleep, int(milliseconds) / 1000)

    def _sleep(self, seconds: float) -> None:
        self._stop()
        self.state = "asleep"
        if seconds:
            self._after("boot", seconds, self.reset, "sleep")

    def _on_join(self, ssid: str, key: str) -> int:
        if self.settings.air is None:
            return _JOINED
        name, password = ("" if word == "-" else bytes.fromhex(word).decode() for word in (ssid, key))
        if name not in self.settings.air:
            return _NO_AP
        return _JOINED if self.settings.air[name] in ("", password) else _WRONG_PASSWORD

    def _on_scan(self) -> list[tuple[str, int]]:
        return [(name, 3 if password else 0) for name, password in (self.settings.air or {}).items()]

    def _stored(self) -> dict[str, Any]:
        """The non-volatile storage, in its partition: a length, and JSON. Not the real format, but the real place."""
        offset, size = image.NVS
        length = int.from_bytes(self.flash.read(offset, 4), "little")
        with contextlib.suppress(ValueError):
            if length < size:
                found: dict[str, Any] = json.loads(self.flash.read(offset + 4, length))
                return found
        return {}

    def _on_nvs(self, space: str) -> dict[str, Any]:
        found: dict[str, Any] = self._stored().get(space, {})
        return found

    def _on_nvs_store(self, space: str, values: str) -> None:
        stored = self._stored()
        stored[space] = json.loads(bytes.fromhex(values))
        data = json.dumps(stored).encode()
        offset, size = image.NVS
        if len(data) + 4 <= size:
            self.flash.erase(offset, size)
            self.flash.program(offset, len(data).to_bytes(4, "little") + data)

    # The line

    def _say(self, text: str) -> None:
        self._said(text.encode())

    def _said(self, data: bytes) -> None:
        speed = self.line.speed()
        wrong = speed is not None and abs(speed - self._baud) > self._baud * SPEED_TOLERANCE
        self.line.send(bytes(byte & 0x55 | 0x80 for byte in data) if wrong else data)

    def opened(self) -> None:
        """Somebody has opened the port."""

    def closed(self) -> None:
        """Nobody has the port open any more: the hand is free for the button."""
        if self.state == "loader" and self.settings.hand is not None:
            # A tool that leaves its stub running means to come back.
            patience = COME_BACK if self._loader is not None and self._loader.stub else 1
            self._after("hand", self.settings.hand * patience, self.press_en)

    def received(self, data: bytes) -> None:
        """Bytes from the PC."""
        if self.state != "loader" and self.settings.hand is not None and SYNC_START in data:
            if self.state not in ("off", "held"):
                self.press_en(boot=True)
            return  # it comes again
        speed = self.line.speed()
        if self._loader is not None:
            if self._autobaud and speed is not None:
                self._baud = self._registers.baud = speed
            if "hand" in self._timers:
                self._timers.pop("hand").cancel()
            if speed is not None and abs(speed - self._baud) > self._baud * SPEED_TOLERANCE:
                return
            self._answer(self._loader.feed(data), len(data))
            if self._registers.baud != self._baud:
                self._baud, self._autobaud = self._registers.baud, False
            self._autobaud = self._autobaud and not self._loader.stub
            if self._registers.watchdog_fired:
                self._after("rtc", WATCHDOG_S, self.reset, "rtc")
            elif self._loader.wants is not None:
                answered = max(0.0, self._line_free - asyncio.get_running_loop().time())
                self._after("restart", answered, self.reset, "restart", self._loader.wants == "download")
        elif self._interpreter is not None:
            self._interpreter.write(data)
        elif self.state == "program":
            self._fifo = (self._fifo + data)[:FIFO]

    def _answer(self, answer: bytes, length: int) -> None:
        """Sends an answer, when a request of this length has come through a line that takes its time."""
        if self.settings.rate is None or not answer:
            self._said(answer)
            return
        loop = asyncio.get_running_loop()
        self._line_free = max(self._line_free, loop.time()) + length / self.settings.rate
        loop.call_at(self._line_free, self._said, answer)

    def wires(self, dtr: bool, rts: bool) -> None:
        """The usual circuit: RTS alone pulls EN down, DTR alone pulls BOOT down."""
        before, self._wires = self._wires, (dtr, rts)
        if self.state == "off" or before == self._wires:
            return
        if rts and not dtr:
            self._stop()
            self.state = "held"
        elif self.state == "held":
            # EN rises slowly, so what counts is how BOOT is a moment after.
            if dtr and not rts:
                self._after("rise", 0, self._risen)
            else:
                self._after("rise", EN_RISE_S if dtr else 0, self._risen)

    def _risen(self) -> None:
        dtr, rts = self._wires
        self.press_en(boot=dtr and not rts)

    def report(self) -> dict[str, Any]:
        """What a control line says about the board."""
        return {
            "state": self.state,
            "boots": self.boots,
            "cause": self._cause,
            "pins": {str(number): level for number, level in sorted(self.levels.items())},
            "baud": self._baud,
        }
