"""`peanut backup` and `peanut restore`: everything comes back, nothing is read without the passphrase."""

from __future__ import annotations

import io
import sqlite3
import tarfile
from pathlib import Path

import pytest

from peanut import backup, device, ledger
from peanut.errors import PeanutError
from peanut.home import Home

from .conftest import Run, invoke, tree

SECRET = "a passphrase of its own"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """scrypt with little work: what it costs is looked at once."""
    assert (backup.COST_N, backup.COST_R, backup.COST_P) == (131072, 8, 1)
    monkeypatch.setattr(backup, "COST_N", 16)


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text(SECRET + "\n")
    return str(path)


def test_a_fleet_comes_back_on_a_bare_machine(home: Home, run: Run, tmp_path: Path, secret: str) -> None:
    (home.path / "seen.json").write_text('{"format":1,"seen":{}}')
    (home.path / "control.sock").touch()
    (home.path / "store.db").write_bytes(b"queues")
    (home.path / "rules.toml").write_text('otherwise = "built-in"\n')
    run("device", "revoke", "tomato")
    file = tmp_path / "fleet.peanut"
    done = run("backup", str(file), "--passphrase-file", secret)
    assert done.exit_code == 0, done.output
    assert file.stat().st_mode & 0o777 == 0o600
    for hidden in (home.ca / "issuing.key", home.device("peanut") / "key.der", home.ledger):
        assert hidden.read_bytes()[:60] not in file.read_bytes()
    assert "is there already" in run("backup", str(file), "--passphrase-file", secret).output
    bare = tmp_path / "elsewhere" / "fleet"
    done = invoke(bare, "restore", str(file), "--passphrase-file", secret)
    assert done.exit_code == 0, done.output
    assert f"peanutd --home {bare}" in done.output
    before, after = tree(home.path), tree(bare)
    gone = {"control.sock", "store.db", ".lock", "ledger.db", "ledger.db-wal", "ledger.db-shm"}
    assert {k: v for k, v in before.items() if k not in gone} == {k: v for k, v in after.items() if k not in gone}
    assert not {"control.sock", "store.db"} & set(after)
    assert ledger.devices(bare / "ledger.db") == ledger.devices(home.ledger)
    assert (bare / "ledger.db").stat().st_mode & 0o777 == 0o600
    assert bare.stat().st_mode & 0o777 == 0o700
    for row in ledger.devices(bare / "ledger.db"):
        device.check(Home(bare), row)
    assert invoke(bare, "device", "add", "new", "--kind", "greenhouse").exit_code == 0
    assert "revoked" in invoke(bare, "device", "list").output


def test_a_ledger_that_is_written_meanwhile_is_whole(home: Home) -> None:
    with sqlite3.connect(home.ledger) as writer:
        writer.execute("UPDATE device SET board = 'other'")
        found = {name: data for name, _, data in backup.opened(backup.create(home, b"x"), b"x")}
    writer.close()
    copy = home.path / "copy.db"
    copy.write_bytes(found["ledger.db"])
    with sqlite3.connect(copy) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert {row[0] for row in reader.execute("SELECT board FROM device")} == {"sim"}
    reader.close()


def test_every_damage_is_noticed(home: Home, tmp_path: Path) -> None:
    data = backup.create(home, b"right")
    flipped = [_flipped(data, at) for at in (3, 20, 40, 90, -1)]
    for wrong in (b"", b"nothing", data[:40], data[:-1], data + b"x", *flipped):
        with pytest.raises(PeanutError):
            list(backup.opened(wrong, b"right"))
    with pytest.raises(PeanutError, match="does not open it"):
        list(backup.opened(data, b"wrong"))
    assert len(list(backup.opened(data, b"right"))) == len(backup.files(home))


def _flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b"])
def test_no_name_leads_out_of_the_home(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    salt, nonce = bytes(backup.SALT), bytes(backup.NONCE)
    header = backup.MAGIC + salt + nonce
    data = header + backup.AESGCM(backup._key(b"k", salt)).encrypt(nonce, plain.getvalue(), header)
    with pytest.raises(PeanutError, match="does not belong into a backup"):
        backup.restore(Home(tmp_path / "fleet"), data, b"k")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_over(home: Home, run: Run, tmp_path: Path, secret: str) -> None:
    file = tmp_path / "b"
    assert run("backup", str(file), "--passphrase-file", secret).exit_code == 0
    before = tree(home.path)
    done = run("restore", str(file), "--passphrase-file", secret)
    assert done.exit_code == 2
    assert "is not empty" in done.output
    assert tree(home.path) == before
    assert "is not empty" in run("restore", str(file)).output, "before anybody types a passphrase"


def test_a_short_passphrase_is_refused(home: Home, run: Run, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_text("short\n")
    assert run("backup", str(tmp_path / "b"), "--passphrase-file", str(short)).exit_code == 2
    assert "no terminal to ask at" in run("backup", str(tmp_path / "b")).output
    assert not (tmp_path / "b").exists()


def test_a_restore_that_fails_leaves_nothing(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = backup.create(home, b"k")

    def fail(*_: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(backup, "write_file", fail)
    with pytest.raises(OSError, match="no space"):
        backup.restore(Home(tmp_path / "bare" / "fleet"), data, b"k")
    assert list((tmp_path / "bare").iterdir()) == []
