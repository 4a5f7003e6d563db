"""A fleet home on a full disk, on one that is read-only, and without permission: plain words, the fix, no traceback.

Rule: a small tmpfs in a mount namespace of its own plays the disk; where the kernel does not let us make one (some
containers), the tests are skipped.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from peanut.home import Home
from tests.programs import program

from .conftest import tree

PEANUT = f'"{sys.executable}" -m peanut --home "$DISK/fleet"'
FILL = 'dd if=/dev/zero of="$DISK/fill" bs=4k 2>"$DISK/../dd" || true\n'  # ends when there is no more room


def on_a_disk(tmp_path: Path, size: str, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a shell script with a file system of `size` at $DISK, which goes with the script's end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    as_root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = [program("unshare", "util-linux"), "--mount", *as_root]
    mount = f'mount -t tmpfs -o size={size} tmpfs "$DISK"'
    environment = {**os.environ, "DISK": str(disk)}

    def run(text: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*unshare, "sh", "-c", text],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=environment,
        )  # fmt: skip

    if run(mount).returncode != 0:
        pytest.skip("this kernel or container lets nobody mount a file system in a namespace")
    done = run(f"set -u\n{mount} || exit 99\n{script}")
    assert done.returncode != 99, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_init_on_a_full_disk_says_how_far_it_got(tmp_path: Path) -> None:
    done = on_a_disk(
        tmp_path,
        "16k",
        f'{PEANUT} init --generate-passphrase; echo "status $?"; find "$DISK" -name "*.*" -printf "found %P\\n"\n'
        f'mount -o remount,size=1m "$DISK"; {PEANUT} init; echo "status $?"; {PEANUT} init',
    )
    assert "no space left on the device that holds " in done.stderr
    assert "Make room there" in done.stderr
    before, after, last = done.stdout.split("status ")
    assert after.startswith("2\n")
    said = {line.split()[1] for line in before.splitlines() if line.startswith("  make ")}
    found = {line.removeprefix("found fleet/") for line in after.splitlines() if line.startswith("found ")}
    assert "ca/root.pass" in said
    assert said == found - {".lock"}  # no line for what was not written, and no temporary file
    assert last.startswith("0\n")
    assert "already there" in last


def test_a_full_disk_or_a_read_only_one_can_still_be_read(tmp_path: Path, home: Home) -> None:
    shutil.copytree(home.path, tmp_path / "copy")
    add = f"{PEANUT} device add bean --kind greenhouse"
    done = on_a_disk(
        tmp_path,
        "1m",
        f'cp -r "$DISK/../copy" "$DISK/fleet"\n{FILL}{PEANUT} device list; echo "status $?"; {add}; echo "status $?"\n'
        f'echo ---; echo --- >&2; rm "$DISK/fill"; mount -o remount,ro "$DISK"\n'
        f'{PEANUT} device list; echo "status $?"; {add}; echo "status $?"',
    )
    full, read_only = done.stdout.split("---\n")
    for part in (full, read_only):
        assert part.count("peanut  ") == 1
        assert part.count("tomato  ") == 1
        assert [line for line in part.splitlines() if line.startswith("status")] == ["status 0", "status 2"]
        assert "make " not in part
    full, read_only = done.stderr.split("---\n")
    assert "no space left on the device that holds " in full
    assert "mounted read-only" in read_only
    assert "Move it away" not in done.stderr


def test_a_ledger_that_nothing_can_be_written_to(tmp_path: Path, home: Home) -> None:
    """40 KiB are left: enough for SQLite's index of 32 KiB while it reads, and after four small files not any more."""
    shutil.copytree(home.path, tmp_path / "copy")
    done = on_a_disk(
        tmp_path,
        "1m",
        'for n in 0 1 2 3 4 5 6 7 8 9; do dd if=/dev/zero of="$DISK/reserve$n" bs=4k count=1 2>/dev/null; done\n'
        f'cp -r "$DISK/../copy" "$DISK/fleet"\n{FILL}rm "$DISK"/reserve*\n'
        f'{PEANUT} device add bean --kind greenhouse; echo "status $?"',
    )
    assert "status 2" in done.stdout
    assert "devices/bean/node.json" in done.stdout
    assert "make    ledger.db" not in done.stdout
    assert f"the ledger {tmp_path / 'disk/fleet/ledger.db'} cannot be read or written" in done.stderr
    assert "df" in done.stderr
    assert "Move it away" not in done.stderr


def test_no_room_for_the_output(home: Home) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "peanut", "--home", str(home.path), "device", "list"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert "no space left on the device that holds the output" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_permission(home: Home) -> None:
    before = tree(home.path)
    # root may write everywhere; without these capabilities it is a user like all others
    caps = "-dac_override,-dac_read_search"
    drop = [program("setpriv", "util-linux"), "--bounding-set", caps, "--inh-caps", caps] if os.geteuid() == 0 else []

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        command = [*drop, sys.executable, "-m", "peanut", "--home", str(home.path), *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)

    home.path.chmod(0o500)
    try:
        done = run("device", "list")
        assert (done.returncode, done.stderr) == (0, "")
        assert "tomato" in done.stdout
        done = run("init", "--host", "new.local")
        assert done.returncode == 2
        assert f"no permission for {home.fleet_toml}" in done.stderr
        assert "Run as its owner" in done.stderr
        home.ledger.chmod(0)
        done = run("device", "list")
        assert done.returncode == 2
        assert "cannot be opened" in done.stderr
        assert "Move it away" not in done.stderr
    finally:
        home.path.chmod(0o700)
        home.ledger.chmod(0o600)
    assert tree(home.path) == before
