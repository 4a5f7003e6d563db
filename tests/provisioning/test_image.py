"""The MicroPython image: which one is taken, what is refused, and what is said where there is no network."""

import contextlib
import dataclasses
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from peanut import board as boards
from peanut import image
from peanut.board import Board
from peanut.errors import PeanutError
from peanut.home import Home

BOARDS = Path(__file__).parents[2] / "boards"
NAME = "ESP32_GENERIC-SPIRAM-20260406-v1.28.0.bin"


def fake(chip: int = 0, size: int = 2000, end: bytes = b"one") -> bytes:
    """What begins like an image: magic, and the chip's id in the header."""
    head = bytearray(24)
    head[0], head[12] = 0xE9, chip
    return bytes(head) + b"\xa5" * (size - 24 - len(end)) + end


def board(sha256: str = "") -> Board:
    """One that pins nothing, or `sha256`."""
    found = boards.read("esp32-devkitc-ve", BOARDS)
    assert found.image is not None
    return dataclasses.replace(found, image=dataclasses.replace(found.image, sha256=sha256))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PEANUT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PEANUT_IMAGES", "http://127.0.0.1:1/")  # nobody
    return tmp_path / "cache"


@contextlib.contextmanager
def server(files: dict[str, bytes], length: int | None = None) -> Iterator[str]:
    """A server of files; length: what it says they have, if not the truth."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = files.get(self.path.lstrip("/"))
            self.send_response(404 if data is None else 200)
            if data is not None:
                self.send_header("Content-Length", str(len(data) if length is None else length))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as one:
        thread = threading.Thread(target=one.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{one.server_address[1]}"
        finally:
            one.shutdown()
            thread.join()


def test_fetched_once_and_kept(home: Home, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    shares: list[float] = []
    with server({NAME: fake()}) as url:
        monkeypatch.setenv("PEANUT_IMAGES", url)
        found = image.get(board(), home, said.append, shares.append)
    assert (found.data, found.pinned) == (fake(), False)
    assert said == [f"fetching {url}/{NAME}"]
    assert shares[-1] == 1.0
    # the server has gone
    assert image.get(board(), home, said.append).data == fake()
    assert (cache / NAME).read_bytes() == fake()


def test_without_a_network(home: Home, cache: Path) -> None:
    with pytest.raises(PeanutError, match="is not in the cache, and cannot be fetched") as caught:
        image.get(board(), home, lambda _: None)
    assert f"{image.DOWNLOADS}{NAME}" in caught.value.fix
    assert "--image FILE" in caught.value.fix
    assert str(cache) in caught.value.fix


@pytest.mark.parametrize(
    ("data", "length", "complaint"),
    [
        (None, None, "the server says 404"),
        (fake(size=image.IMAGE_MAX + 1), None, "no image is as large"),
        (fake(), 5000, "the connection broke after 2000 of 5000 bytes"),
        (b"<!doctype html>" * 100, None, "is not an image for an ESP32"),
        (fake(chip=9), None, "is an image for another chip"),
        (fake(size=0x200000 - 0x1000 + 1), None, "would reach into the file system"),
    ],
)  # fmt: skip
def test_what_a_server_may_not_give(
    home: Home, cache: Path, monkeypatch: pytest.MonkeyPatch, data: bytes | None, length: int | None, complaint: str
) -> None:
    with server({} if data is None else {NAME: data}, length) as url:
        monkeypatch.setenv("PEANUT_IMAGES", url)
        with pytest.raises(PeanutError, match=complaint):
            image.get(board(), home, lambda _: None)
    assert not cache.exists()  # nothing that failed stays


def test_the_hash_of_the_board_file_counts(home: Home, tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.bin", tmp_path / "wrong.bin"
    right.write_bytes(fake())
    wrong.write_bytes(fake(end=b"two"))
    pinned = board(hashlib.sha256(fake()).hexdigest())
    assert image.get(pinned, home, lambda _: None, file=right).pinned
    with pytest.raises(PeanutError, match=r"wrong\.bin is not the image of esp32-devkitc-ve: its SHA-256 is") as caught:
        image.get(pinned, home, lambda _: None, file=wrong)
    assert "--sha256" in caught.value.fix
    # whoever does want it says its hash
    given = hashlib.sha256(wrong.read_bytes()).hexdigest()
    assert image.get(pinned, home, lambda _: None, file=wrong, sha256=given).data == wrong.read_bytes()


def test_where_the_board_file_has_none_the_first_one_counts(home: Home, tmp_path: Path) -> None:
    first, other = tmp_path / "first.bin", tmp_path / "other.bin"
    first.write_bytes(fake())
    other.write_bytes(fake(end=b"two"))
    found = image.get(board(), home, lambda _: None, file=first)
    assert not found.pinned
    image.pin(home, found, board())
    assert image.pins(home) == {NAME: found.sha256}
    assert image.get(board(), home, lambda _: None, file=first).pinned
    with pytest.raises(PeanutError, match=f"should be {found.sha256}"):
        image.get(board(), home, lambda _: None, file=other)
    new = image.get(board(), home, lambda _: None, file=other, sha256=hashlib.sha256(other.read_bytes()).hexdigest())
    image.pin(home, new, board())
    assert image.pins(home) == {NAME: new.sha256}


def test_a_cached_file_that_was_damaged_says_how_to_get_rid_of_it(home: Home, cache: Path) -> None:
    cache.mkdir()
    (cache / NAME).write_bytes(fake()[:-1])
    with pytest.raises(PeanutError) as caught:
        image.get(board("0" * 64), home, lambda _: None)
    assert f"rm {cache / NAME}" in caught.value.fix


def test_damaged_pins(home: Home) -> None:
    home.images_toml.write_text("= nonsense")
    with pytest.raises(PeanutError, match=r"images\.toml is not valid TOML"):
        image.pins(home)
