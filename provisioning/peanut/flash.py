"""What is written to a board, and what is kept of what is there: from the bundle of a device to the bytes of its flash.

Rule: the fleet home is the truth about a device, and the board about what the node keeps itself (its state, the
configuration it was sent, readings that nobody has fetched): flashing replaces the application and leaves those.
Nothing is written before chip, flash, image and certificates are known to fit.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomlkit
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from peanut import application, bundle, ca, device, fsimage, ledger, names, signing, store, wifi
from peanut import board as boards
from peanut.board import Board
from peanut.chips import CHIPS
from peanut.errors import PeanutError
from peanut.fsimage import Files
from peanut.home import PUBLIC, SECRET, Home, write_file
from peanut.image import Image
from peanut.loader import MB, Chip, Loader, Part, Progress
from peanut.names import Kind
from peanut.wifi import Wifi

IDENTITY = ("key.der", "cert.der", "ca.der")
FLASHED = "flashed.toml"
_FLASHED_TITLE = (
    "# Written by `peanut flash`, for `peanut console`, `push` and `logs`: which board this device is on.\n"
)


@dataclass(frozen=True)
class Contents:
    """The file system that a board gets. kept: what stays of the node's own; notes: what an operator should know."""

    files: Files
    kept: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_chip(chip: Chip, board: Board, flash_mb: int = 0) -> None:
    """Refuse a board that is not the one the board file describes. flash_mb: --flash-mb, in place of the file's."""
    wanted = CHIPS[board.chip].name
    # `ESP32` is the first chip; the others are called ESP32-S3, ESP32-C3 and so on
    if chip.name != wanted:
        raise PeanutError(
            f"the board on the port has an {chip.name}, and {board.name} has an {wanted}",
            "Is it the right port, and the right --board? Boards: peanut board list",
        )
    size = flash_mb or board.flash_mb
    if chip.flash == 0:
        raise PeanutError("the board does not say how large its flash is", "Run the same command again.")
    if chip.flash != size * MB:
        found = f"{chip.flash // MB} MB" if chip.flash >= MB else f"{chip.flash // 1024} KB"
        raise PeanutError(
            f"the board on the port has {found} of flash, and {board.name} has {size} MB",
            f"Is it the right --board? If it is this board with another flash: --flash-mb {chip.flash // MB or 1}",
        )


def check_bundle(home: Home, found: ledger.Device, now: datetime) -> bundle.Node:
    """node.json of a device; PeanutError unless its certificate, key, CA, usage and dates are all good."""
    fix = f"Run `peanut device add {found.name} --kind {found.kind}`: it completes and renews."
    try:
        certificate, node = device.check(home, found)
    except PeanutError as error:
        raise PeanutError(error.message, fix) from None
    where = home.device(found.name) / "cert.der"
    if not _is_for_clients(certificate):
        raise PeanutError(f"{where} is not a client's certificate", fix)
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        raise PeanutError(
            f"{where} is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}, and today is {now:%Y-%m-%d}",
            f"Is this machine's clock right? {fix}",
        )
    return node


def _is_for_clients(certificate: x509.Certificate) -> bool:
    with contextlib.suppress(x509.ExtensionNotFound):
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        return ExtendedKeyUsageOID.CLIENT_AUTH in usage
    return False


def fresh(home: Home, node: bundle.Node, networks: Wifi, firmware: Path) -> Files:
    """The files of a node that is new: application, bundle and, where there are any, Wi-Fi networks.

    Files of the bundle that are not there yet (on a dry run) are left out.
    """
    files = application.compiled(node, firmware)
    where = home.device(str(node["name"]))
    files |= {name: store.read(where / name) for name in bundle_files(node) if (where / name).exists()}
    files["node.json"] = bundle.render(node)
    if networks.networks:
        files[wifi.FILE] = wifi.render(networks)
    return files


def bundle_files(node: Mapping[str, Any]) -> Mapping[str, int]:
    """The files of this node's bundle and their modes."""
    return device.bundle_files(Kind(node["kind"]))


def merge(new: Files, found: Files | None, name: str, home: Home, now: datetime) -> Contents:
    """What a board gets that has `found` on it already (None: nothing of use)."""
    if found is None:
        return Contents(new)
    before = _name_of(found)
    if before != name:
        note = (
            f"this board was {names.printable(before, 40)!r} until now" if before else "this board was no node of ours"
        )
        return Contents(new, (), (f"{note}: nothing of it is kept",))
    kept = {path: data for path, data in found.items() if path not in new and not application.owns(path)}
    for path in IDENTITY:  # of the board's own, only as a whole
        kept.pop(path, None)
    notes: list[str] = []
    if _lives_longer(found, new, home, Kind(names.kind_of(name)), name, now):
        kept |= {path: found[path] for path in IDENTITY}
        notes.append("the board has a newer certificate than the fleet home: it keeps it")
    if wifi.FILE in kept:
        notes.append("the board keeps the Wi-Fi networks that it has")
    changes = _changes(found.get("node.json", b""), new.get("node.json", b""))
    if changes:
        notes.append(f"node.json changes: {', '.join(changes)}")
    return Contents({**new, **kept}, tuple(sorted(kept)), tuple(notes))


def _name_of(files: Mapping[str, bytes]) -> str:
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(files.get("node.json", b""))
        if isinstance(body, dict):
            return str(body.get("name", ""))
    return ""


def _changes(before: bytes, after: bytes) -> list[str]:
    with contextlib.suppress(ValueError, RecursionError):
        old, new = json.loads(before), json.loads(after)
        if isinstance(old, dict) and isinstance(new, dict):
            return bundle.differences(old, new)
    return []


def _lives_longer(found: Files, new: Files, home: Home, kind: Kind, name: str, now: datetime) -> bool:
    """Whether the board's own certificate is good, and better than ours: renewed since, and not by us."""
    if not all(path in found for path in IDENTITY) or found["cert.der"] == new.get("cert.der"):
        return False
    with contextlib.suppress(ValueError, TypeError):
        certificate = x509.load_der_x509_certificate(found["cert.der"])
        ours = x509.load_der_x509_certificate(new["cert.der"]) if "cert.der" in new else None
        key: Any = serialization.load_der_private_key(found["key.der"], None)
        return (
            ca.same_key(certificate, key)
            and any(ca.issued_by(certificate, issuer) for issuer in store.certificates(home.ca / "issuing.crt"))
            and ca.san_uris(certificate) == [names.device_uri(name, kind)]
            and found["ca.der"] == new.get("ca.der")
            and _is_for_clients(certificate)
            and certificate.not_valid_before_utc <= now
            and (ours is None or certificate.not_valid_after_utc > ours.not_valid_after_utc)
        )
    return False


def parts(board: Board, image: Image, files: Files, flash_mb: int = 0) -> list[Part]:
    """What is written where."""
    assert board.image is not None
    size = board.fs_bytes(flash_mb)
    runs = fsimage.build(files, size)
    return [
        Part(f"MicroPython {board.image.version}, {image.file}", board.image.offset, image.data),
        *(Part("file system", board.fs_offset + at, data) for at, data in runs.items()),
    ]


def listing(pieces: list[Part], files: Files, fs_size: int) -> list[str]:
    """The pieces as lines: offset, size, what."""
    lines = [f"  write  {p.offset:#08x}  {len(p.data):>8} bytes  {p.what}" for p in pieces]
    secret = sum(1 for path in files if path in ("key.der", signing.KEY_FILE, wifi.FILE))
    lines.append(
        f"         the file system has {fs_size} bytes and gets {len(files)} files with "
        f"{sum(map(len, files.values()))} bytes, {secret} of them secret"
    )
    return lines


def read_back(
    loader: Loader, board: Board, flash_mb: int = 0, progress: Progress = lambda _: None
) -> tuple[Files | None, bytes]:
    """The files that are on the board, and the image of them; None and nothing if there is no file system of a node."""
    if not fsimage.is_one(loader.read(board.fs_offset, fsimage.PEEK)):
        return None, b""
    image = loader.read(board.fs_offset, board.fs_bytes(flash_mb), progress)
    found = fsimage.unpack(image)
    return found, image if found is not None and _name_of(found) else b""


def interrupted(where: Path, mac: str) -> Files | None:
    """What was on a board whose last write did not come to its end; None if it did."""
    copy = _copy(where, mac)
    return fsimage.unpack(store.read(copy, boards.FLASH_MB_MAX * MB)) if copy.exists() else None


@contextlib.contextmanager
def safe(where: Path, mac: str, before: bytes) -> Iterator[None]:
    """Keeps a copy of what was on the board while it is written, and if that fails, for the next try."""
    copy = _copy(where, mac)
    if before:
        write_file(copy, before, SECRET)
    yield
    copy.unlink(missing_ok=True)


def _copy(where: Path, mac: str) -> Path:
    return where / f".before-{mac.replace(':', '')}.bin"


@contextlib.contextmanager
def workplace(where: Path) -> Iterator[Path]:
    """A private directory for what passes to and from esptool; what a killed run left is swept."""
    for old in where.glob(".flash-*"):
        if not Path("/proc", old.suffix[1:]).exists():
            _remove(old)
    path = where / f".flash-work.{os.getpid()}"
    try:
        yield path
    finally:
        _remove(path)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        for path in folder.iterdir():
            path.unlink(missing_ok=True)
        folder.rmdir()


def record(home: Home, name: str, port: str, chip: Chip, image: Image, now: datetime, *, done: bool) -> None:
    """Remember which board a device is on. done: it is written, and online if somebody waited for that."""
    document = tomlkit.parse(_FLASHED_TITLE)
    facts: dict[str, str | int] = {"port": port, "mac": chip.mac, "chip": chip.name, "image": image.file}
    facts |= {"when": int(now.timestamp()), "done": done}
    for key, value in facts.items():
        document[key] = value
    before = device_on(home, chip.mac)
    if before not in ("", name):
        (home.device(before) / FLASHED).unlink()  # that device has no board any more
    write_file(home.device(name) / FLASHED, tomlkit.dumps(document).encode(), PUBLIC)


def recorded_port(home: Home, name: str) -> str:
    """The port that a device was last written through; empty if it never was."""
    return str(recorded(home, name).get("port", ""))


def device_on(home: Home, mac: str) -> str:
    """The device that this board is, as far as this fleet home knows; empty if it is none."""
    for path in sorted(home.devices.glob(f"*/{FLASHED}")):
        facts = recorded(home, path.parent.name)
        if facts.get("mac") == mac and facts.get("done") is True:
            return path.parent.name
    return ""


def is_done(home: Home, name: str) -> bool:
    """Whether a device has been written to a board, to the end."""
    return recorded(home, name).get("done") is True


def recorded(home: Home, name: str) -> dict[str, Any]:
    """What is remembered of the board that a device was written to; empty if it never was."""
    path = home.device(name) / FLASHED
    if (not names.is_name(name) and names.kind_of(name) is not Kind.VEHICLE) or not path.exists():
        return {}
    try:
        return dict(tomlkit.parse(store.read(path).decode()).unwrap())
    except (ValueError, UnicodeDecodeError):
        return {}


def board_of(home: Home, found: ledger.Device | None, named: str, folder: Path) -> Board | None:
    """The board that a device is to be written to: the one that was named, else its own; None if that has no chip."""
    name = named or (found.board if found else "")
    board = boards.read(name, folder) if name else None
    if board is not None and board.simulated:
        if named:
            raise PeanutError(f"{name} is no board that can be written to", "It is a process: make demo runs it.")
        return None
    return board
