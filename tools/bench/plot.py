"""The goals as a picture: a bar a row, as long as its share is of its goal; what ends left of the line has reached it.

The rule it keeps: it needs nothing but zlib. The letters are drawn here, five by seven dots each.
"""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

_FONT = (
    "a 00e1fhf|b gguhhhu|c 00egghe|d 11fhhhf|e 00ehvge|f 698s888|g 0fhhf1e|h gguhhhh|i 40c444e|j 20622ic|k ggikoki|"
    "l c44444e|m 00qllhh|n 00uhhhh|o 00ehhhe|p 00uhugg|q 00fhf11|r 00mpggg|s 00fge1u|t 88s8896|u 00hhhjd|v 00hhha4|"
    "w 00hhlla|x 00ha4ah|y 00hhf1e|z 00v248v|0 ehjlphe|1 4c4444e|2 eh1248v|3 v2421he|4 26aiv22|5 vgu11he|6 68guhhe|"
    "7 v124888|8 ehhehhe|9 ehhf12c|Q ehhhlid|S fgge11u|T v444444|L ggggggv|K hikokih|B uhhuhhu|C ehggghe|P uhhuggg|"
    "U hhhhhhe|. 00000cc|, 0000c48|- 000v000|/ 11248gg|: 0cc0cc0|( 2488842|) 8422248|= 00v0v00"
)
GLYPHS = dict(glyph.split(" ") for glyph in _FONT.split("|"))
"""A row of dots is a digit of base 32, from the top."""
UNKNOWN = "vhhhhhv"
DOT = 2  # pixels
LETTER = 6 * DOT
LINE = 12 * DOT
MARGIN = 16
FULL = 400  # pixels of a bar that is as long as its goal
MOST = 2.0  # goals that a bar is long at the most
WHITE, BLACK, GREY, GREEN, RED = range(5)
PALETTE = bytes((255, 255, 255, 0, 0, 0, 150, 150, 150, 60, 150, 80, 200, 70, 60))


@dataclass(frozen=True)
class Bar:
    """A row: `part` is what was measured, by its goal; 1 or less has reached it."""

    label: str
    part: float
    words: str


class _Canvas:
    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._rows = [bytearray(width) for _ in range(height)]

    def box(self, left: int, top: int, width: int, height: int, colour: int) -> None:
        for row in self._rows[top : top + height]:
            row[left : left + width] = bytes([colour]) * len(row[left : left + width])

    def text(self, left: int, top: int, words: str) -> None:
        for place, letter in enumerate(words):
            dots = GLYPHS.get(letter, UNKNOWN) if letter != " " else "0" * 7
            for y, digit in enumerate(dots):
                for x in range(5):
                    if int(digit, 32) >> (4 - x) & 1:
                        self.box(left + place * LETTER + x * DOT, top + y * DOT, DOT, DOT, BLACK)

    def png(self) -> bytes:
        def chunk(kind: bytes, data: bytes) -> bytes:
            return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 3, 0, 0, 0)  # a byte a pixel, by the palette
        pixels = zlib.compress(b"".join(b"\0" + row for row in self._rows))
        return (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", head)
            + chunk(b"PLTE", PALETTE)
            + chunk(b"IDAT", pixels)
            + chunk(b"IEND", b"")
        )


def draw(title: str, bars: list[Bar]) -> bytes:
    """The picture, as PNG."""
    begin = MARGIN + LETTER * (max((len(bar.label) for bar in bars), default=0) + 1)
    end = begin + round(FULL * MOST) + LETTER * (max((len(bar.words) for bar in bars), default=0) + 1)
    canvas = _Canvas(max(end, MARGIN + LETTER * len(title)) + MARGIN, 2 * MARGIN + LINE * (len(bars) + 2))
    canvas.text(MARGIN, MARGIN, title)
    top = MARGIN + 2 * LINE
    for number, bar in enumerate(bars):
        y, length = top + number * LINE, round(FULL * min(bar.part, MOST))
        canvas.text(MARGIN, y, bar.label)
        canvas.box(begin, y, length, 7 * DOT, GREEN if bar.part <= 1 else RED)
        canvas.text(begin + length + LETTER, y, bar.words)
    canvas.box(begin + FULL, top - LINE // 2, DOT, LINE * len(bars) + LINE // 2, GREY)
    return canvas.png()


def write(path: Path, title: str, bars: list[Bar]) -> None:
    """Draws it to a file."""
    path.write_bytes(draw(title, bars))
