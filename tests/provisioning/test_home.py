"""The fleet home: atomic writes, modes, the lock, where it is."""

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from peanut import home as homes
from peanut.errors import PeanutError
from peanut.home import Home


def test_home_is_option_then_environment_then_fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert homes.resolve(Path("/a"), "/b").path == Path("/a")
    assert homes.resolve(None, "/b").path == Path("/b")
    assert homes.resolve(None, "").path == homes.resolve(None, None).path == tmp_path / "fleet"


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        homes.write_file(tmp_path / "a/b/secret", b"x", homes.SECRET)
        homes.write_file(tmp_path / "a/b/public", b"x", homes.PUBLIC)
    finally:
        os.umask(before)
    assert homes.mode_of(tmp_path / "a/b/secret") == 0o600
    assert homes.mode_of(tmp_path / "a/b/public") == 0o644
    assert homes.mode_of(tmp_path / "a") == homes.mode_of(tmp_path / "a/b") == 0o700


def test_a_secret_is_never_readable_by_others_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = os.open

    def spy(path: object, flags: int, mode: int = 0o777, **kw: object) -> int:
        fd = real(path, flags, mode, **kw)  # type: ignore[arg-type]
        if flags & os.O_CREAT:
            seen.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return fd

    monkeypatch.setattr(os, "open", spy)
    before = os.umask(0)
    try:
        homes.write_file(tmp_path / "key", b"x", homes.SECRET)
    finally:
        os.umask(before)
    assert seen == [0o600]


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes.write_file(tmp_path / "f", b"old", homes.PUBLIC)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        homes.write_file(tmp_path / "f", b"new", homes.PUBLIC)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"old")]


def test_writing_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"precious")
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    homes.write_file(tmp_path / "key", b"x", homes.SECRET)
    assert (tmp_path / "elsewhere").read_bytes() == b"precious"
    assert not (tmp_path / "key").is_symlink()


def test_the_lock_sweeps_what_a_killed_writer_left(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.ca.mkdir()
    (home.ca / ".root.key.deadbeef.tmp").write_bytes(b"half")
    (home.ca / "root.key").write_bytes(b"whole")
    with home.lock():
        assert [p.name for p in home.ca.iterdir()] == ["root.key"]


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    home, inside, told = Home(tmp_path), threading.Event(), threading.Event()

    def second() -> None:
        with home.lock(lambda _: told.set()):
            inside.set()

    thread = threading.Thread(target=second)
    with home.lock():
        thread.start()
        assert told.wait(60)
        assert not inside.is_set()
    assert inside.wait(60)
    thread.join()


def test_who_waits_too_long_is_told_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(homes, "LOCK_WAIT_S", 0.01)
    with Home(tmp_path).lock(), pytest.raises(PeanutError, match="another `peanut`"), Home(tmp_path).lock():
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    code = "import os, sys, pathlib, peanut.home as h\nwith h.Home(pathlib.Path(sys.argv[1])).lock(): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)]).returncode == 9
    with Home(tmp_path).lock(lambda _: pytest.fail("still locked")):
        pass
