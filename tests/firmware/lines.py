"""What hangs on a vehicle's serial lines: an ELM327 in a car, and a GPS receiver on a drive. Bytes in, bytes out.

Rule: fakes of the devices, not of our drivers. The adapter answers as its data sheet shows (echo until ATE0, a prompt
after each answer, `?` for what it does not know, SEARCHING... before its first word with the car); the answers of the
car are SAE J1979's. drive.nmea is written as a receiver writes it, once a second for a minute and a half: standing,
a bend, a light, a tunnel, a sentence that lost its end and one whose checksum is wrong. It was composed, on no road.
"""

from __future__ import annotations

import re
from pathlib import Path

DRIVE = Path(__file__).with_name("drive.nmea")
_KNOT = 1.852  # km/h


class Elm:
    """An ELM327 and the car behind it. Set what the car says; `asked` is all it was asked."""

    def __init__(self) -> None:
        self.speed = 0  # km/h
        self.rpm = 0.0
        self.fuel = 50  # per cent
        self.ambient = 20  # deg C
        self.volts = 12.6
        self.codes: list[str] = []  # as bytes of mode 03, "0133"
        self.asleep = False  # the car's computers do not answer
        self.asked: list[str] = []
        self._echo = True
        self._searched = False
        self._line = b""

    def feed(self, data: bytes) -> bytes:
        """What it sends back."""
        out = b""
        for byte in data:
            char = bytes([byte])
            out += char if self._echo else b""
            if char == b"\r":
                command, self._line = self._line.decode().replace(" ", "").upper(), b""
                self.asked.append(command)
                out += b"\r".join([*(line.encode() for line in self._answer(command)), b"", b">"])
            else:
                self._line += char
        return out

    def _answer(self, command: str) -> list[str]:
        if command.startswith("AT"):
            return self._configure(command)
        if self.asleep:
            return ["UNABLE TO CONNECT"]
        search = [] if self._searched else ["SEARCHING..."]
        self._searched = True
        told = {
            "010C": f"410C{round(self.rpm * 4):04X}",
            "010D": f"410D{self.speed:02X}",
            "012F": f"412F{round(self.fuel * 255 / 100):02X}",
            "0146": f"4146{self.ambient + 40:02X}",
            "03": "43" + f"{len(self.codes):02X}" + "".join(self.codes),
        }
        return [*search, told.get(command, "NO DATA")]

    def _configure(self, command: str) -> list[str]:
        if command == "ATZ":
            self._echo, self._searched = True, False
            return ["", "ELM327 v1.5"]
        if command == "ATRV":
            return [f"{self.volts:.1f}V"]
        if command == "ATE0":
            self._echo = False
        return ["OK"] if re.fullmatch(r"AT(E0|L0|S0|H0|SP0)", command) else ["?"]


def seconds() -> list[bytes]:
    """The drive, a second an entry."""
    track = DRIVE.read_bytes()
    begins = [found.start() for found in re.finditer(rb"\$GPRMC,\d{6}\.\d\d,[AV].*\*(?!00)", track)]
    return [track[begin:end] for begin, end in zip(begins, [*begins[1:], len(track)], strict=True)]


def fix(second: bytes) -> tuple[float, float, float] | None:
    """Latitude, longitude, km/h that a second says, None in the tunnel; read in another way than the driver's."""
    found = re.search(rb"\$GPRMC,[\d.]+,A,(\d\d)([\d.]+),N,(\d{3})([\d.]+),E,([\d.]+),", second)
    if found is None:
        return None
    numbers = [float(part) for part in found.groups()]
    return numbers[0] + numbers[1] / 60, numbers[2] + numbers[3] / 60, numbers[4] * _KNOT
