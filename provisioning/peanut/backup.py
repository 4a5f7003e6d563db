"""The backup: everything of a fleet home that cannot be made again, in one encrypted file, and back.

Rules: the file is read by nobody without the passphrase (scrypt, then AES-256-GCM over all of it, the header included),
and restored whole or not at all: into a home that is empty, by way of a directory beside it and a rename. What is lost
without harm (queues, locks, sockets, copies of firmware) is left out. No name in it may lead out of the home.

    PEANUT-BACKUP-1\n   salt, 16 bytes   nonce, 12 bytes   ciphertext of a tar file, gzip-compressed, with its tag
"""

import contextlib
import gzip
import io
import os
import secrets
import shutil
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from peanut.errors import PeanutError
from peanut.home import PRIVATE_DIR, SECRET, Home, make_private_dir, write_file

MAGIC = b"PEANUT-BACKUP-1\n"
SALT, NONCE = 16, 12  # bytes
COST_N, COST_R, COST_P = 2**17, 8, 1  # 128 MiB and about half a second for each guess
SIZE_MAX = 4 * 1024**3  # bytes of a file that is read
MEMBERS_MAX = 1_000_000

LEFT_OUT = ("store.db", "control.sock", ".lock", "bans.json", "history.db")
"""Of the top directory: what a new start makes anew, what is of one machine, and what may be larger than memory."""


def create(home: Home, passphrase: bytes) -> bytes:
    """The file's bytes. PeanutError if something cannot be read."""
    plain = io.BytesIO()
    with gzip.GzipFile(fileobj=plain, mode="wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path in files(home):
            name = home.relative(path)
            member = tarfile.TarInfo(name)
            data = _database(path) if _is_database(path) else path.read_bytes()
            member.size, member.mode, member.mtime = len(data), path.stat().st_mode & 0o777, int(path.stat().st_mtime)
            tar.addfile(member, io.BytesIO(data))
    salt, nonce = secrets.token_bytes(SALT), secrets.token_bytes(NONCE)
    header = MAGIC + salt + nonce
    return header + AESGCM(_key(passphrase, salt)).encrypt(nonce, plain.getvalue(), header)


def files(home: Home) -> list[Path]:
    """What goes into it, by name."""
    found = []
    for path in sorted(home.path.rglob("*")):
        relative = path.relative_to(home.path)
        if path.is_symlink() or not path.is_file():
            continue
        if relative.name.startswith(".") or relative.name.endswith((".tmp", "-wal", "-shm")):
            continue
        if len(relative.parts) == 1 and relative.name in LEFT_OUT:
            continue
        found.append(path)
    return found


def _is_database(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\0"


def _database(path: Path) -> bytes:
    """A database as of one moment, whoever writes to it meanwhile."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(":memory:")) as copy,
        ):
            source.backup(copy)
            return copy.serialize()
    except sqlite3.Error as error:
        raise PeanutError(f"{path} cannot be read: {error}", "Mend it, or move it away, then try again.") from None


def _key(passphrase: bytes, salt: bytes) -> bytes:
    return Scrypt(salt=salt, length=32, n=COST_N, r=COST_R, p=COST_P).derive(passphrase)


def opened(data: bytes, passphrase: bytes) -> Iterator[tuple[str, int, bytes]]:
    """(name, mode, contents) of each file. PeanutError if it is no backup, damaged, or the passphrase is another."""
    start = len(MAGIC) + SALT + NONCE
    if not data.startswith(MAGIC) or len(data) < start:
        raise PeanutError("this is no backup of a fleet", "Is it the right file?")
    header, salt, nonce = data[:start], data[len(MAGIC) : len(MAGIC) + SALT], data[start - NONCE : start]
    try:
        plain = AESGCM(_key(passphrase, salt)).decrypt(nonce, data[start:], header)
    except InvalidTag:
        raise PeanutError("the passphrase does not open it, or the file is damaged", "Try again.") from None
    try:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(plain))) as tar:
            for number, member in enumerate(tar):
                pure = PurePosixPath(member.name)
                if not member.isfile() or pure.is_absolute() or ".." in pure.parts or number > MEMBERS_MAX:
                    raise PeanutError(f"{member.name!r} does not belong into a backup", "It was not made by `peanut`.")
                contents = tar.extractfile(member)
                assert contents is not None
                yield member.name, member.mode & 0o777, contents.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise PeanutError(f"the backup cannot be unpacked: {error}", "Take another one.") from None


def check_empty(home: Home) -> None:
    """PeanutError unless there is nothing in the home, or no home."""
    if home.path.exists() and (not home.path.is_dir() or any(p.name != ".lock" for p in home.path.iterdir())):
        raise PeanutError(f"{home.path} is not empty", "Restore into another --home, or move this one away.")


def restore(home: Home, data: bytes, passphrase: bytes) -> int:
    """Put everything back into a home that is empty, or not there; how many files. PeanutError with nothing changed."""
    check_empty(home)
    found = list(opened(data, passphrase))
    make_private_dir(home.path.parent)
    beside = home.path.parent / f".{home.path.name}.{secrets.token_hex(4)}.restore"
    beside.mkdir(mode=PRIVATE_DIR)
    try:
        for name, mode, contents in found:
            write_file(beside / name, contents, mode)
        if home.path.exists():
            (home.path / ".lock").unlink(missing_ok=True)
            home.path.rmdir()
        os.rename(beside, home.path)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return len(found)


def read(path: Path) -> bytes:
    """A backup's bytes; PeanutError if it is too large."""
    if path.stat().st_size > SIZE_MAX:
        raise PeanutError(f"{path} is larger than {SIZE_MAX} bytes", "Is it the right file?")
    return path.read_bytes()


def write(path: Path, data: bytes) -> None:
    """Write it, whole, mode 0600."""
    write_file(path.absolute(), data, SECRET)
