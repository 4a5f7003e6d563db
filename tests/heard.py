"""What the whole suite has printed, and the secrets that must not be in it.

Rule: whatever a test runs is heard, without its doing: each program's output, through a pipe or into a file, and what
pytest has captured. Only who reads a terminal tells it himself (`transcript.hear`).
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SECRET_MIN = 8  # characters: Wi-Fi has no shorter password, and a shorter word stands in any text
LINE_MIN = 20  # characters of a key's line: a shorter rest of one stands in any text
FILES = {
    "root.pass": "text", "wifi.toml": "networks", "wifi.json": "networks", "users.json": "users", "key.der": "key",
}  # fmt: skip
_PRIVATE = b"PRIVATE KEY"
_POPEN: Any = subprocess.Popen  # not the one that this file has put in its place


class Transcript:
    """Lines, each of them once: the same words come a thousand times."""

    def __init__(self) -> None:
        self._lines: set[bytes] = set()
        self._files: dict[Path, None] = {}

    def hear(self, said: str | bytes | None) -> None:
        """Something that was printed."""
        if said:
            self._lines.update((said.encode(errors="replace") if isinstance(said, str) else said).splitlines())

    def hear_file(self, path: Path) -> None:
        """A file that somebody prints into; it is read at the end."""
        self._files[path] = None

    def text(self) -> bytes:
        """Everything that was printed."""
        for path in self._files:
            with contextlib.suppress(OSError):  # a test may have deleted its log
                self.hear(path.read_bytes())
        return b"\n".join(sorted(self._lines))

    def popen(self) -> type[subprocess.Popen[Any]]:
        """A `subprocess.Popen` that tells this transcript all that comes from its programs."""
        transcript = self

        class Heard(_POPEN):  # type: ignore[misc]
            def __init__(self, *arguments: Any, **options: Any) -> None:
                for stream in (options.get("stdout"), options.get("stderr")):
                    descriptor = stream if isinstance(stream, int) else stream.fileno() if stream is not None else -1
                    with contextlib.suppress(OSError):
                        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
                        if path.is_file():
                            transcript.hear_file(path)
                super().__init__(*arguments, **options)
                # communicate() reads two pipes by their descriptors, everything else through these
                self.stdout = _Ear(self.stdout, transcript) if self.stdout else None  # type: ignore[assignment]
                self.stderr = _Ear(self.stderr, transcript) if self.stderr else None  # type: ignore[assignment]

            def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
                try:
                    said = super().communicate(input, timeout)
                except subprocess.TimeoutExpired as error:
                    transcript.hear(error.stdout)
                    transcript.hear(error.stderr)
                    raise
                for one in said:
                    transcript.hear(one)
                return said

        return Heard


class _Ear:
    """A program's pipe; what is read from it is heard."""

    def __init__(self, pipe: Any, transcript: Transcript) -> None:
        self._pipe = pipe
        self._transcript = transcript

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pipe, name)

    def __enter__(self) -> _Ear:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()

    def __iter__(self) -> Iterator[Any]:
        for line in self._pipe:
            self._transcript.hear(line)
            yield line

    def _heard(self, said: Any) -> Any:
        self._transcript.hear(said)
        return said

    def read(self, *arguments: Any) -> Any:
        return self._heard(self._pipe.read(*arguments))

    def read1(self, *arguments: Any) -> Any:
        return self._heard(self._pipe.read1(*arguments))

    def readline(self, *arguments: Any) -> Any:
        return self._heard(self._pipe.readline(*arguments))

    def readlines(self, *arguments: Any) -> Any:
        return [self._heard(line) for line in self._pipe.readlines(*arguments)]


def secrets_below(folder: Path) -> dict[str, Path]:
    """Whatever of the secrets in a folder could be printed by mistake (text, hexadecimal, base64), and whose it is."""
    found: dict[str, Path] = {}
    for where, _, names in os.walk(folder):
        for name in names:
            what = FILES.get(name, "key" if name.endswith(".key") else "")
            path = Path(where, name)
            if what and not path.is_symlink():
                with contextlib.suppress(OSError, ValueError):  # a test that damages or takes away what it has
                    found |= dict.fromkeys(_secrets(what, path.read_bytes()), path)
    return found


def _secrets(what: str, data: bytes) -> Iterator[str]:
    words: list[str] = []
    if what == "key" and not (data.startswith(b"-----BEGIN") and _PRIVATE not in data):
        words = [data.hex(), base64.b64encode(data).decode()]
        words += [line for line in data.decode("latin-1").splitlines() if len(line) > LINE_MIN and "-----" not in line]
    elif what == "text":
        words = data.decode().split("\n")
    elif what == "networks":
        words = re.findall(r'"?password"? *[=:] *"([^"\\]+)"', data.decode())
    elif what == "users":
        words = re.findall(r'"([A-Za-z0-9+/]{40,}={0,2}|\$argon2[^"]+)"', json.dumps(json.loads(data)))
    yield from (word for word in words if len(word) >= SECRET_MIN)


def leaks(text: bytes, secrets: dict[str, Path]) -> list[str]:
    """What of `secrets` is in the text: whose it is, and not what it is; and any private key."""
    found = {f"a line of {path}" for word, path in secrets.items() if word.encode("latin-1", "replace") in text}
    return sorted(found) + (["a private key"] if _PRIVATE in text else [])


transcript = Transcript()
