"""An ELM327 on a serial line: what the car's own computers say, asked one question after the other (SAE J1979).

Rule: pure; bytes come in by `feed`, the next question goes out by `poll`, and nothing waits. A question without an
answer is given up after ANSWER_MS; an answer that is not to the question asked, or not whole, is none.
"""

from node import ticks

ANSWER_MS = 2000  # the first answer after power-up takes so long: the adapter searches the protocol
ROUND_MS = 1000  # from one round of questions to the next
CODES_EVERY = 30  # rounds between two looks at the fault codes
MAX_ANSWER = 512  # bytes
MAX_CODES = 8
SILENT_MS = 6000  # without a byte: it is not there
SETUP = ("ATZ", "ATE0", "ATL0", "ATS0", "ATH0", "ATSP0")  # reset; no echo, line feeds, spaces, headers; any protocol

# Mode 01: PID: (name, bytes, function of the bytes)
PIDS = {
    0x0C: ("rpm", 2, lambda d: (d[0] * 256 + d[1]) / 4),
    0x0D: ("speed", 1, lambda d: d[0]),  # km/h
    0x2F: ("fuel", 1, lambda d: d[0] * 100 / 255),  # per cent
    0x46: ("ambient", 1, lambda d: d[0] - 40),  # deg C
}


class Elm327:
    """Read `values`: {name: (value, ticks)}, and `codes`: the fault codes of mode 03, None before the first answer."""

    def __init__(self):
        self.values = {}
        self.codes = None
        self.errors = 0  # questions without a usable answer
        self._plan = list(SETUP)
        self._asked = None
        self._then = 0
        self._round = None
        self._rounds = 0
        self._rx = bytearray()

    def poll(self, now):
        """The bytes to send at `now` (ticks), b"" while an answer is awaited or there is nothing to ask."""
        if self._asked is not None:
            if 0 <= ticks.diff(now, self._then) < ANSWER_MS:
                return b""
            self.errors += 1
            self._asked = None
        if not self._plan:
            if self._round is not None and 0 <= ticks.diff(now, self._round) < ROUND_MS:
                return b""
            self._round = now
            self._plan = ["01%02X" % pid for pid in sorted(PIDS)] + ["ATRV"]
            if self._rounds % CODES_EVERY == 0:
                self._plan.append("03")
            self._rounds += 1
        self._asked = self._plan.pop(0)
        self._then = now
        self._rx = bytearray()
        return self._asked.encode() + b"\r"

    def feed(self, data, now):
        """Bytes as they come from the line; `>` ends an answer."""
        for b in data:
            if b == 0x3E:  # >
                if self._asked is not None:
                    self._answer(now)
                self._asked = None
                self._rx = bytearray()
            elif b and len(self._rx) < MAX_ANSWER:  # a zero is noise, says the data sheet
                self._rx.append(b)

    def _answer(self, now):
        asked = self._asked
        if asked in SETUP:
            return
        try:
            text = bytes(self._rx).decode().upper()
            lines = [line.strip().replace(" ", "") for line in text.replace("\n", "\r").split("\r")]
            lines = [line for line in lines if line and line != asked and not line.startswith("SEARCHING")]
            if not self._take(asked, lines, now):
                self.errors += 1
        except (ValueError, UnicodeError):
            self.errors += 1

    def _take(self, asked, lines, now):
        if asked == "ATRV":
            volts = float(lines[0].rstrip("V")) if lines else 0
            if not 3 < volts < 60:
                return False
            self.values["battery"] = (volts, now)
            return True
        if asked == "03":
            return self._take_codes(lines)
        pid = int(asked[2:], 16)
        name, size, value = PIDS[pid]
        for line in lines:
            if line.startswith("41%02X" % pid) and len(line) == 4 + 2 * size:
                self.values[name] = (value([int(line[i : i + 2], 16) for i in range(4, 4 + 2 * size, 2)]), now)
                return True
        return False

    def _take_codes(self, lines):
        """Mode 03: `43` and codes of two bytes each; on CAN with their count before them (SAE J1979, 6.3)."""
        codes = []
        told = False
        for line in lines:
            if line == "NODATA":
                told = True
            if not line.startswith("43"):
                continue
            told = True
            data = line[2:]
            if len(data) % 4 == 2:
                data = data[2:]
            for i in range(0, len(data), 4):
                code = int(data[i : i + 4], 16)
                if code and len(codes) < MAX_CODES:
                    codes.append("PCBU"[code >> 14] + "%d%03X" % (code >> 12 & 3, code & 0xFFF))
        if told:
            self.codes = codes
        return told


class Chip:
    """The adapter as node/sensing.py asks for it; `codes` beside."""

    QUANTITIES = ("rpm", "speed", "fuel", "ambient", "battery", "codes")
    EVERY_MS = 100

    def __init__(self, line):
        self._line = line
        self._elm = Elm327()
        self._heard = None  # ticks of the last answer
        self._given = {}

    @property
    def codes(self):
        return self._elm.codes

    def start(self, fresh, now):
        if fresh:  # it was away, and may be another one, or begun anew
            self._elm = Elm327()
            self._given = {}
            self._heard = now
        return 0

    def read(self, now):
        """Each value once; "missing" for all when nothing has come for SILENT_MS."""
        elm = self._elm
        data = self._line.read()
        if data:
            self._heard = now
            elm.feed(data, now)
        elif not 0 <= ticks.diff(now, self._heard) <= SILENT_MS:
            raise OSError(110)  # ETIMEDOUT
        question = elm.poll(now)
        if question:
            self._line.write(question)
        if not elm.values and elm.codes is None:
            return None
        out = []
        for name in self.QUANTITIES[:-1]:
            value, then = elm.values.get(name, (None, None))
            out.append(None if then == self._given.get(name) else value)
            self._given[name] = then
        out.append(None if elm.codes is None else len(elm.codes))
        return out


def open(spec, hw):
    return Chip(hw.bus(spec["bus"]))
