"""`peanut update build` and the file it makes; the key; what is refused, and in which words."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from peanut import application, prose, release, updatekey
from peanut.errors import PeanutError
from peanut.home import Home
from tools.ports import free_port

from .conftest import Run

FILES = {"node/a.mpy": b"a" * 3000, "choice.mpy": b"b"}


@pytest.fixture(scope="module")
def key() -> release.SigningKey:
    return release.new_key()


def one(key: release.SigningKey) -> release.Release:
    return release.pack(FILES, key, seq=7, version="0.2", kind="greenhouse", boards=["sim"])


def test_a_file_is_read_back_as_it_was_made(key: release.SigningKey) -> None:
    made = one(key)
    found = release.read(made.file, "x", release.public(key))
    assert found == made
    assert found.files == FILES
    assert len(made.offer) < release.OFFER_MAX
    assert b"".join(made.chunk(at)[8:] for at in range(0, len(made.stream), release.CHUNK)) == made.stream


def test_whatever_is_changed_in_a_file_is_noticed(key: release.SigningKey) -> None:
    """Each 37th byte flipped, and each 53rd end cut off."""
    data = one(key).file
    for at in range(0, len(data), 37):
        spoilt = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(PeanutError):
            release.read(spoilt, "x", release.public(key))
    for end in range(0, len(data), 53):
        with pytest.raises(PeanutError):
            release.read(data[:end], "x", release.public(key))
    with pytest.raises(PeanutError, match="not signed with this fleet's key"):
        release.read(data, "x", release.public(release.new_key()))


def test_what_nodes_would_not_take_is_not_made(key: release.SigningKey) -> None:
    with pytest.raises(PeanutError, match="bytes"):
        release.pack({"x": bytes(release.SIZE_MAX)}, key, seq=1, version="1", kind="greenhouse")
    with pytest.raises(PeanutError, match="manifest"):
        release.pack(FILES, key, seq=1, version="1", kind="greenhouse", boards=["b" * 30] * 60)


def test_a_build_is_what_peanut_flash_would_write(home: Home, run: Run) -> None:
    """Every file of the application, compiled, but those that are never updated; signed with the key."""
    done = run("update", "build", "--board", "sim", "--version", "mine")
    assert done.exit_code == 0, done.stderr
    [path] = home.updates.glob("greenhouse-*.update")
    found = release.read(path.read_bytes(), str(path), updatekey.modulus(home))
    assert (found.manifest.kind, found.manifest.boards, found.manifest.version) == ("greenhouse", ("sim",), "mine")
    node = {"kind": "greenhouse", "board": {"outputs": {"heater": {"driver": "greenhouse_model"}}}}
    names = {Path(name).with_suffix(".mpy").as_posix() for name in application.sources(node, application.folder())}
    assert set(found.files) == names - {"boot.mpy", "main.mpy"} | {prose.PLACE}
    assert all(data[:2] == b"M\x06" for name, data in found.files.items() if name != prose.PLACE)
    assert all(application.owns(f"{slot}/{name}") for slot in "ab" for name in found.files)
    assert application.owns("slot.json")
    assert not application.owns("state.json")


def test_an_image_is_for_one_sort_of_board(home: Home, run: Run, tmp_path: Path) -> None:
    image = tmp_path / "new.app-bin"
    image.write_bytes(bytes(range(256)) * 200)
    done = run("update", "build", "--image", str(image))
    assert (done.exit_code, "--board" in done.stderr) == (2, True)
    assert run("update", "build", "--image", str(image), "--board", "sim", "--out", str(tmp_path / "u")).exit_code == 0
    found = release.read((tmp_path / "u").read_bytes(), "u", updatekey.modulus(home))
    assert found.manifest.image
    assert b"".join(found.files.values()) == image.read_bytes()


def test_the_key_may_live_elsewhere_and_is_never_replaced(home: Home, run: Run, tmp_path: Path) -> None:
    kept = tmp_path / "kept.key"
    shutil.move(home.updates / updatekey.KEY, kept)
    image = tmp_path / "i"
    image.write_bytes(b"image")
    words = ("update", "build", "--image", str(image), "--board", "sim")
    done = run(*words)
    assert done.exit_code == 2
    assert "--key FILE" in done.stderr
    assert run("init").exit_code == 0
    assert not (home.updates / updatekey.KEY).exists()
    stranger = tmp_path / "stranger.key"
    stranger.write_bytes(release.key_pem(release.new_key()))
    done = run(*words, "--key", str(stranger))
    assert "is not the key that this fleet's nodes know" in done.stderr
    assert run(*words, "--key", str(kept)).exit_code == 0
    (home.updates / updatekey.PUB).unlink()
    done = run("init")
    assert done.exit_code == 2
    assert "nodes know that key" in done.stderr


def test_nothing_to_push_resume_or_withdraw(home: Home, run: Run, tmp_path: Path) -> None:
    for words, said in (
        (("push",), "no update has been built"),
        (("resume",), "nothing has been rolled out"),
        (("pause",), "nothing has been rolled out"),
        (("withdraw",), "nothing has been rolled out"),
    ):
        done = run("update", *words)
        assert done.exit_code == 2
        assert said in done.stderr
    away = run("update", "status", "--gateway", f"127.0.0.1:{free_port()}")
    assert (away.exit_code, "gateway unreachable" in away.stderr) == (3, True)
    key = release.load_key((home.updates / updatekey.KEY).read_bytes(), "key")
    other = tmp_path / "other.update"
    other.write_bytes(release.pack(FILES, key, seq=7, version="1", kind="vehicle", boards=["nowhere"]).file)
    assert "there is no node for this update" in run("update", "push", str(other)).stderr
    other.write_bytes(one(key).file)
    assert "no stage" in run("update", "push", str(other), "--stages", "0").stderr
    done = run("update", "push", str(other), "--gateway", f"127.0.0.1:{free_port()}")
    assert (done.exit_code, "gateway unreachable" in done.stderr) == (3, True)
    other.write_bytes(release.pack(FILES, key, seq=7, version="1", kind="greenhouse", boards=["esp32-devkitc"]).file)
    assert "is not for peanut" in run("update", "push", str(other), "--to", "peanut").stderr
