"""The keys of a token's issuer: a JWK Set in a file or behind a URL, read, kept and read again.

The rule it keeps: there are no keys until some have been read, and what was read last stays while there is nothing
better. A file is read when it has changed. A URL is fetched by whoever `run` gives the work to (a thread, never the
loop): every `refresh` seconds, after a failure every RETRY, and sooner when a token names a key that is unknown. What a
fetch may take has limits: FETCH_TIME, MAX_SIZE, and it is led to no other place.
"""

from __future__ import annotations

import ssl
import stat
import time
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from peanutd import tokens
from peanutd.config import Jwt
from peanutd.tokens import Key, KeysError

MAX_SIZE: Final = 256 * 1024
"""Bytes of a JWK Set."""
FETCH_TIME: Final = 10.0
"""Seconds for all of a fetch, but for the name's lookup and one read, which have SOCKET_TIME each."""
SOCKET_TIME: Final = 5.0
RETRY: Final = 30.0
"""Seconds between two fetches at least."""

Fetched = bytes | str
"""What was read, or why nothing was, in words."""
Run = Callable[[Callable[[], Fetched], Callable[[Fetched], None]], None]
"""Does the work somewhere else; calls the second, later and in the loop, with what came of it."""


class Keyring:
    """The keys for `settings`. `clock` tells seconds of a monotonic clock; `tell` takes level and text for the log."""

    def __init__(
        self, settings: Jwt, home: Path, run: Run, clock: Callable[[], float], tell: Callable[[str, str], None]
    ) -> None:
        """Reads nothing yet: `refresh` does."""
        self.settings = settings
        self.keys: tuple[Key, ...] = ()
        """Those that were read last; none before that."""
        self._home = home
        self._run = run
        self._clock = clock
        self._tell = tell
        self._stamp: object = None
        self._due = 0.0  # when a fetch is to begin
        self._tried = -RETRY
        self._under_way = False
        self._problem = ""

    def refresh(self) -> None:
        """Reads the file if it has changed, or has the URL fetched if that is due. To be called now and then."""
        if not self.settings.remote:
            self._look()
        elif not self._under_way and self._clock() >= self._due:
            self._under_way = True
            self._tried = self._clock()
            ca = str(self._home / self.settings.ca) if self.settings.ca else None
            self._run(partial(fetch, self.settings.keys, ca), self._fetched)

    def missed(self) -> None:
        """A token names a key that is not there: new ones may be."""
        if self.settings.remote:
            self._due = min(self._due, self._tried + RETRY)
        self.refresh()

    def has(self, name: str) -> bool:
        """Whether there is (still) the key with that `print`."""
        return any(key.print == name for key in self.keys)

    def _look(self) -> None:
        path = self._home / self.settings.keys
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            with path.open("rb") as file:
                self._take(file.read(MAX_SIZE + 1))
            if any(key.secret for key in self.keys) and status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                self._tell("warning", f"{path}: a secret, and readable by others; run `chmod 600 {path}`")
        except OSError as error:
            self._take(f"cannot be read: {error.strerror}")

    def _fetched(self, result: Fetched) -> None:
        self._under_way = False
        self._take(result)
        wait = RETRY if self._problem else max(RETRY, self.settings.refresh)
        self._due = self._clock() + wait

    def _take(self, result: Fetched) -> None:
        problem = result if isinstance(result, str) else ""
        if isinstance(result, bytes):
            try:
                if len(result) > MAX_SIZE:
                    raise KeysError(f"larger than {MAX_SIZE} bytes")
                found = tokens.parse_keys(result, self.settings.algorithms)
            except KeysError as error:
                problem = str(error)
            else:
                if {key.print for key in found} != {key.print for key in self.keys}:
                    self._tell("info", f"{self.settings.keys}: {len(found)} keys for tokens")
                self.keys = found
        if problem and problem != self._problem:
            kept = "the keys of before stay" if self.keys else "every token is refused"
            self._tell("error", f"{self.settings.keys}: {problem}; {kept}")
        self._problem = problem


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection could lead from TLS to none, or to anywhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def fetch(url: str, ca: str | None) -> Fetched:
    """What is at the URL. It blocks, within the limits above. `ca`: a file with the server's CA; None: the usual."""
    end = time.monotonic() + FETCH_TIME
    try:
        context = ssl.create_default_context(cafile=ca)
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirect)
        wanted = urllib.request.Request(url, headers={"Accept": "application/jwk-set+json, application/json"})
        with opener.open(wanted, timeout=SOCKET_TIME) as answer:
            if answer.status != 200:
                return f"HTTP status {answer.status}"
            data = b""
            while part := answer.read1(16 * 1024):
                data += part
                if len(data) > MAX_SIZE:
                    return f"larger than {MAX_SIZE} bytes"
                if time.monotonic() > end:
                    return f"not there within {FETCH_TIME:g} s"
            return data
    except Exception as error:  # of sockets, TLS, HTTP and files; all of them mean that there is nothing
        return f"cannot be had: {error}"
