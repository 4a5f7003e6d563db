"""Updates: the shared checks on both interpreters, on updates made and signed by `peanut`'s own code."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from peanut import release

from . import update_checks
from .conftest import on_the_unix_port

from node import offer  # isort: skip

PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")
SIZE = release.BITS // 8


def raw_power(key: release.SigningKey, block: bytes) -> bytes:
    """The signature whose block is this one, whatever it says."""
    numbers = key.private_numbers()
    n = numbers.public_numbers.n
    return pow(int.from_bytes(block) % n, numbers.d, n).to_bytes(SIZE)


def forgeries(key: release.SigningKey, text: bytes) -> bytes:
    """Signatures over `text`: the honest one, then blocks that only a careless reader takes for one."""
    digest = hashlib.sha256(text).digest()

    def block(pad: int, info: bytes, rest: bytes = b"", head: bytes = b"\x00\x01") -> bytes:
        made = head + b"\xff" * pad + b"\x00" + info + rest
        return made + b"\x01" * (SIZE - len(made))

    full = SIZE - 3 - 51
    blocks = [
        block(full, PREFIX + digest),
        block(8, PREFIX + digest),  # garbage behind
        block(0, PREFIX + digest),
        block(full, PREFIX + digest, head=b"\x00\x02"),
        block(full, PREFIX + digest, head=b"\x00\x00"),
        block(SIZE - 3 - 32, digest),  # no algorithm
        block(SIZE - 3 - 49, bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + digest),  # no parameters
        block(full, PREFIX + hashlib.sha256(b"other").digest()),
    ]
    signed = [raw_power(key, one) for one in blocks]
    n = key.public_key().public_numbers().n
    return b"".join([*signed, bytes(SIZE), (1).to_bytes(SIZE), n.to_bytes(SIZE), b"\xff" * SIZE])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """update.pub and made/, as update_checks.py wants them."""
    key, stranger = release.new_key(), release.new_key()
    folder = tmp_path_factory.mktemp("updates")
    (folder / "made").mkdir()
    (folder / "update.pub").write_bytes(release.public(key))
    noise = random.Random(5)

    def files(seed: int) -> dict[str, bytes]:
        noise.seed(seed)
        sizes = {"node/__init__.mpy": 300, "node/big.mpy": 9000, "choice.mpy": 1024, "node/start.mpy": 8500}
        return {name: noise.randbytes(size) for name, size in sizes.items()}

    def put(name: str, content: dict[str, bytes] | None = None, key: release.SigningKey = key, **more: object) -> None:
        fields = {"seq": 10, "version": "1.0", "kind": "greenhouse"} | more
        one = release.pack(content or files(1), key, **fields)  # type: ignore[arg-type]
        (folder / "made" / f"{name}.update").write_bytes(one.file)

    put("good")
    put("newer", files(2), seq=11)
    put("stranger", key=stranger)
    put("vehicle", kind="vehicle")
    put("board", boards=["esp32-devkitc", "xiao-esp32c3"])
    put("mpy", mpy=5)
    put("absolute", {"node/a.mpy": b"a", "/main.py": b"b"})
    put("upwards", {"node/a.mpy": b"a", "node/../../main.py": b"b"})
    put("image", release.pieces(noise.randbytes(50000)), image=True)
    one = release.pack(files(1), key, seq=10, version="1.0", kind="greenhouse")
    odd = release.Manifest(**{**vars(one.manifest), "format": 2})
    (folder / "made" / "format.update").write_bytes(release.signed(odd, key, one.stream).file)
    (folder / "made" / "forgeries").write_bytes(forgeries(key, b"text"))
    return folder


@pytest.mark.parametrize(("name", "check"), update_checks.checks())
def test_on_cpython(name: str, check: Callable[[], None], made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check."""
    monkeypatch.chdir(made)
    monkeypatch.setattr(offer, "MPY", release.MPY)
    update_checks.clear()
    check()


def test_the_same_checks_on_the_unix_port(made: Path) -> None:
    """Every check passes on MicroPython, whose heap has room for what the checks hold beside."""
    assert on_the_unix_port(update_checks.__file__, "1M", made) == [name for name, _ in update_checks.checks()]
