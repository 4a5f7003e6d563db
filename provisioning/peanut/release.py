"""An update as a file: a signed manifest, an index, and the files; made, signed, read back.

Rule: one line of JSON (the manifest), one line of base64 (its signature: RSA 3072, PKCS #1 v1.5, SHA-256), then the
stream that nodes are sent piece by piece: a line `sha256 size path` for each file, and the files in that order. The
manifest vouches for the index and the index for the files, so one signature is enough. Pure functions.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from peanut.errors import PeanutError

FORMAT = 1
BITS = 3072
EXPONENT = 65537
MPY = 6  # version of .mpy files that our mpy-cross writes
CHUNK = 1024  # bytes of the stream in a chunk
OFFER_MAX = 2048  # bytes, as the node has it
INDEX_MAX = 16384
SIZE_MAX = 4 << 20
PIECE = 16384  # bytes of an image in one part: what comes again after a reset
VERSION_MAX = 40  # characters

SigningKey = rsa.RSAPrivateKey


@dataclass(frozen=True)
class Manifest:
    """What is signed. seq: grows with each build, and a node takes none that is not above its own; boards: of these
    only, or of all where there are none; mpy: version of .mpy files; size, index: bytes of the stream and of its
    index; image: it is a MicroPython image, not an application."""

    format: int
    seq: int
    version: str
    kind: str
    boards: tuple[str, ...]
    mpy: int
    size: int
    index: int
    sha256: str
    image: bool


@dataclass(frozen=True)
class Release:
    """An update, ready to be offered. offer: manifest and signature, as nodes are sent them; stream: what follows."""

    manifest: Manifest
    offer: bytes
    stream: bytes

    @property
    def id(self) -> bytes:
        """What its chunks begin with."""
        return hashlib.sha256(self.offer).digest()[:4]

    def chunk(self, at: int) -> bytes:
        """The chunk at a place of the stream, as it is sent."""
        return self.id + at.to_bytes(4, "big") + self.stream[at : at + CHUNK]

    @property
    def file(self) -> bytes:
        """The bytes of the file."""
        return self.offer + b"\n" + self.stream

    @property
    def files(self) -> dict[str, bytes]:
        """What is in it, by path."""
        return _unpack(self.manifest, self.stream)


def new_key() -> SigningKey:
    """A key to sign updates with."""
    return rsa.generate_private_key(EXPONENT, BITS)


def key_pem(key: SigningKey, passphrase: bytes | None = None) -> bytes:
    """A signing key as it is kept."""
    how = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def load_key(data: bytes, where: str, passphrase: bytes | None = None) -> SigningKey:
    """A signing key as it is kept; PeanutError unless it is one."""
    try:
        found = serialization.load_pem_private_key(data, passphrase)
    except (ValueError, TypeError):
        if b"ENCRYPTED" in data:
            raise PeanutError(f"the passphrase does not open {where}", "Try again with the right one.") from None
        raise PeanutError(f"{where} is not a private key", "Put it back from a backup.") from None
    if not isinstance(found, rsa.RSAPrivateKey) or found.key_size != BITS:
        raise PeanutError(f"{where} is not an RSA key of {BITS} bits", "Put back the one that `peanut` made.")
    return found


def public(key: SigningKey) -> bytes:
    """update.pub of the device bundle: the modulus, and nothing else."""
    return key.public_key().public_numbers().n.to_bytes(BITS // 8, "big")


def pack(
    files: Mapping[str, bytes],
    key: SigningKey,
    *,
    seq: int,
    version: str,
    kind: str,
    boards: Sequence[str] = (),
    mpy: int = MPY,
    image: bool = False,
) -> Release:
    """An update of these files; the order of an image's is theirs, for their paths are places in it."""
    lines = [f"{hashlib.sha256(data).hexdigest()} {len(data)} {path}\n" for path, data in files.items()]
    index = "".join(lines).encode()
    stream = index + b"".join(files.values())
    if len(index) > INDEX_MAX or len(stream) > SIZE_MAX:
        raise PeanutError(f"the update is {len(stream)} bytes, in {len(files)} files", f"At most {SIZE_MAX} fit.")
    sha = hashlib.sha256(index).hexdigest()
    manifest = Manifest(FORMAT, seq, version, kind, tuple(boards), mpy, len(stream), len(index), sha, image)
    return signed(manifest, key, stream)


def signed(manifest: Manifest, key: SigningKey, stream: bytes) -> Release:
    """The release of a manifest and its stream."""
    text = json.dumps(asdict(manifest), separators=(",", ":")).encode()
    offer = text + b"\n" + base64.b64encode(key.sign(text, padding.PKCS1v15(), hashes.SHA256()))
    if len(offer) > OFFER_MAX:
        raise PeanutError(f"the manifest is {len(text)} bytes long", "Name fewer boards, or take a shorter version.")
    return Release(manifest, offer, stream)


def pieces(image: bytes) -> dict[str, bytes]:
    """A MicroPython image as the files of an update."""
    return {str(at): image[at : at + PIECE] for at in range(0, len(image), PIECE)}


def read(data: bytes, where: str, modulus: bytes | None = None) -> Release:
    """The update in a file, checked as a node would: signature (with update.pub), index, every file."""
    text, _, rest = data.partition(b"\n")
    code, _, stream = rest.partition(b"\n")
    try:
        if modulus is not None:
            numbers = rsa.RSAPublicNumbers(EXPONENT, int.from_bytes(modulus, "big"))
            numbers.public_key().verify(base64.b64decode(code), text, padding.PKCS1v15(), hashes.SHA256())
        body = json.loads(text)
        manifest = Manifest(**{**body, "boards": tuple(body["boards"])})
        if manifest.format != FORMAT:
            raise PeanutError(f"{where} is of a newer format", "Use the `peanut` that made it.")
        _unpack(manifest, stream)
    except InvalidSignature:
        raise PeanutError(
            f"{where} was not signed with this fleet's key", "Build it here: peanut update build."
        ) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise PeanutError(f"{where} is not an update, or is damaged ({error})", "Build it anew.") from None
    return Release(manifest, text + b"\n" + code, stream)


def _unpack(manifest: Manifest, stream: bytes) -> dict[str, bytes]:
    index = stream[: manifest.index]
    if len(stream) != manifest.size or hashlib.sha256(index).hexdigest() != manifest.sha256:
        raise ValueError("size or index")
    files, at = {}, manifest.index
    for line in index.decode().splitlines():
        sha, size, path = line.split(" ", 2)
        files[path] = stream[at : at + int(size)]
        at += int(size)
        if hashlib.sha256(files[path]).hexdigest() != sha:
            raise ValueError(path)
    if at != manifest.size:
        raise ValueError("size")
    return files
