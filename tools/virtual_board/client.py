"""A virtual board started from Python, for tests and tools.

Rule: the board is a process of its own, as it is for everybody else; it ends with the `with` block, or with its parent.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from .chips import CHIPS
from .control import tell
from .image import make_image

DEADLINE = 60.0
ROOT = Path(__file__).resolve().parents[2]


class VirtualBoard:
    """A board with these options of the command line, e.g. `VirtualBoard("esp32s3", "--flash-mb", "8")`.

    folder   where its flash (flash.bin), its port (a link, "port") and its side channel are; a temporary one if None
    """

    def __init__(self, chip: str = "esp32", *options: str, folder: Path | None = None) -> None:
        self.chip = CHIPS[chip]
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="virtual-board-")
        self.folder = folder or Path(self._temporary.name)  # type: ignore[union-attr]
        self.flash = self.folder / "flash.bin"
        # An ESP32 has 4 MB here, whatever board; what is said later counts.
        self.options = ("--flash-mb", "4", *options)
        self.port = ""

    def __enter__(self) -> VirtualBoard:
        command = [sys.executable, "-m", "tools.virtual_board", "--chip", self.chip.name, "--flash", str(self.flash)]
        command += ["--control", str(self.folder / "control"), *self.options]
        if not {"--tcp", "--rfc2217"} & set(self.options):
            command += ["--link", str(self.folder / "port")]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = self._process.stdout.readline().strip()
        if not self.port:
            raise OSError(f"the virtual board did not start: status {self._process.wait()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        if self._temporary:
            self._temporary.cleanup()

    def tell(self, *words: str) -> dict[str, Any]:
        """Presses a button and the like (see control.py); the board's report."""
        return tell(self.folder / "control", *words)

    def wait_for(self, **expected: object) -> dict[str, Any]:
        """The report, as soon as it says so. TimeoutError if it does not within DEADLINE."""
        end = time.monotonic() + DEADLINE
        while not expected.items() <= (report := self.tell("status")).items():
            if time.monotonic() > end:
                raise TimeoutError(f"the board does not come to {expected}: {report}")
            time.sleep(0.02)
        return report

    def image(self) -> Path:
        """A file with an image that boots, to be written at `chip.bootloader`."""
        path = self.folder / "micropython.bin"
        path.write_bytes(make_image(self.chip))
        return path
