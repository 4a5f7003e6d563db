"""The MicroPython image of a board: from the cache, from a file, or from MicroPython's download page; always checked.

Rule: what is written to a chip has the hash that the board file says. Where the board file has none, the first image
that was used counts: its hash is kept in images.toml in the fleet home, and other bytes under that name are refused.
"""

import contextlib
import hashlib
import os
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from peanut import board as boards
from peanut import store
from peanut.board import Board
from peanut.chips import CHIPS
from peanut.errors import PeanutError
from peanut.home import PUBLIC, Home, write_file
from peanut.names import printable

DOWNLOADS = "https://micropython.org/resources/firmware/"
IMAGE_MAX = 4 * 1024 * 1024  # bytes; the images of today have 1.7 MB
DOWNLOAD_S = 30.0  # for each answer of the server
_BLOCK = 64 * 1024
_MAGIC = 0xE9  # first byte of an image for an ESP32 and its kin
_CHIP_AT = 12  # two bytes, little endian, in the header
_HEADER = 24
_CHIP_IDS = {"esp32": 0, "esp32s3": 9, "esp32c3": 5}
_TITLE = """\
# The MicroPython images that this fleet's boards got and that no board file pins: file = "SHA-256". `peanut flash`
# writes no other bytes under these names; `peanut flash --sha256 HASH` changes one.
"""


@dataclass(frozen=True)
class Image:
    """An image that has been checked. pinned: whether its hash was known beforehand."""

    file: str
    data: bytes
    sha256: str
    pinned: bool


def cache() -> Path:
    """Where downloaded images are kept: $PEANUT_CACHE, else the user's cache."""
    named = os.environ.get("PEANUT_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(named) if named else Path(base) / "peanut"


def get(
    board: Board,
    home: Home,
    say: Callable[[str], None],
    progress: Callable[[float], None] = lambda _: None,
    file: Path | None = None,
    sha256: str = "",
) -> Image:
    """The image of a board, checked. file: --image; sha256: --sha256, which counts in place of any other.

    PeanutError if there is none to be had, or if it is not the one it should be.
    """
    assert board.image is not None
    known = sha256 or board.image.sha256 or pins(home).get(board.image.file, "")
    if file is not None:
        data = store.read(file, IMAGE_MAX)
        return _checked(board, data, known, str(file))
    path = cache() / board.image.file
    if path.exists():
        try:
            return _checked(board, store.read(path, IMAGE_MAX), known, str(path))
        except PeanutError as error:
            raise PeanutError(error.message, f"{error.fix} To fetch it anew: rm {path}") from None
    url = os.environ.get("PEANUT_IMAGES", DOWNLOADS).rstrip("/") + "/" + board.image.file
    say(f"fetching {url}")
    found = _checked(board, _download(url, board.image.file, progress), known, url)
    write_file(path, found.data, PUBLIC)
    return found


def check_given(file: Path | None, sha256: str) -> None:
    """Refuse an --image that cannot be read and a --sha256 that is none, whatever the board. sha256: lower case."""
    if sha256 and not boards.SHA256.fullmatch(sha256):
        raise PeanutError(
            f"{printable(sha256, 80)} is not a SHA-256", "It has 64 hexadecimal digits: `sha256sum FILE` prints it."
        )
    if file is not None:
        store.read(file, IMAGE_MAX)


def available(board: Board) -> int:
    """The size of the image in the cache; 0 if it is not there."""
    assert board.image is not None
    with contextlib.suppress(OSError):
        return (cache() / board.image.file).stat().st_size
    return 0


def _checked(board: Board, data: bytes, known: str, where: str) -> Image:
    assert board.image is not None
    found = hashlib.sha256(data).hexdigest()
    if known and found != known:
        raise PeanutError(
            f"{where} is not the image of {board.name}: its SHA-256 is {found}, and should be {known}",
            "Take the file that the board names. If you do want another one: --image FILE --sha256 ITS_HASH.",
        )
    chip = CHIPS[board.chip].name
    if len(data) < _HEADER or data[0] != _MAGIC:
        raise PeanutError(f"{where} is not an image for an {chip}", "Take the file that the board names.")
    if int.from_bytes(data[_CHIP_AT : _CHIP_AT + 2], "little") != _CHIP_IDS[board.chip]:
        raise PeanutError(f"{where} is an image for another chip than an {chip}", "Take the file that the board names.")
    if board.image.offset + len(data) > board.fs_offset:
        raise PeanutError(
            f"{where} has {len(data)} bytes: it would reach into the file system at {board.fs_offset:#x}",
            "Take the file that the board names.",
        )
    return Image(board.image.file, data, found, bool(known))


def _download(url: str, name: str, progress: Callable[[float], None]) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_S) as answer:
            total = int(answer.headers.get("Content-Length") or 0)
            if total > IMAGE_MAX:
                raise PeanutError(f"{url} has {total} bytes: no image is as large", "Is that the right server?")
            data = b""
            while block := answer.read(_BLOCK):
                data += block
                if len(data) > IMAGE_MAX:
                    raise PeanutError(f"{url} has more than {IMAGE_MAX} bytes", "Is that the right server?")
                progress(len(data) / total if total else 0.0)
    except (OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            why = f"the server says {error.code} {error.reason}"
        else:
            why = str(getattr(error, "reason", "") or error)
        raise PeanutError(
            f"the image {name} is not in the cache, and cannot be fetched: {why}",
            f"Fetch {DOWNLOADS}{name} on a machine with a network, then give it with --image FILE, or put it into "
            f"{cache()}. A mirror: PEANUT_IMAGES=URL.",
        ) from None
    if total and len(data) != total:
        raise PeanutError(f"{url}: the connection broke after {len(data)} of {total} bytes", "Run the command again.")
    return data


def pins(home: Home) -> dict[str, str]:
    """What images.toml says; empty if there is none."""
    path = home.images_toml
    if not path.exists():
        return {}
    try:
        found = tomllib.loads(store.read(path).decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise PeanutError(f"{path} is not valid TOML: {error}", "Mend that line and try again.") from None
    return {name: str(value) for name, value in found.items()}


def pin(home: Home, image: Image, board: Board) -> None:
    """Keep the hash of an image that the board file does not pin. The home's lock is held."""
    assert board.image is not None
    if board.image.sha256 or pins(home).get(image.file) == image.sha256:
        return
    path = home.images_toml
    document = tomlkit.parse(store.read(path).decode()) if path.exists() else tomlkit.parse(_TITLE)
    document[image.file] = image.sha256
    write_file(path, tomlkit.dumps(document).encode(), PUBLIC)
