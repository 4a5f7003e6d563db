"""The key that updates are signed with, and its public half, which nodes have.

Rule: made once, never replaced: nodes take what this key signed and nothing else. It is needed where updates are built,
and nowhere else; update.pub is what goes into device bundles.
"""

from pathlib import Path

from peanut import modes, release, store
from peanut.errors import PeanutError
from peanut.home import PUBLIC, SECRET, Home, write_file
from peanut.plan import State, Step, there

KEY = "signing.key"
PUB = "update.pub"


def plan(home: Home) -> list[Step]:
    """The steps of `peanut init` that make the key and write its public half."""
    key, pub = home.updates / KEY, home.updates / PUB
    steps = modes.plan(home, home.updates, [KEY])
    if key.exists():
        steps.append(there(home.relative(key), "key that updates are signed with"))
    elif pub.exists():
        steps.append(there(home.relative(key), "kept elsewhere; needed to build updates"))
    elif known := sorted(home.devices.glob(f"*/{PUB}")):
        raise PeanutError(
            f"{key} and {pub} are missing, and {home.relative(known[0])} says that nodes know that key",
            f"Put both back from a backup. If the key is lost: copy that file to {pub}, and bring firmware over USB.",
        )
    else:

        def make() -> None:
            write_file(key, release.key_pem(release.new_key()), SECRET)

        steps.append(Step(State.MAKE, home.relative(key), "key that updates are signed with", make))
    if pub.exists():
        modulus(home)
        return [*steps, there(home.relative(pub), "its public half, for nodes")]

    def publish() -> None:
        write_file(pub, release.public(release.load_key(store.read(key), str(key))), PUBLIC)

    return [*steps, Step(State.MAKE, home.relative(pub), "its public half, for nodes", publish)]


def modulus(home: Home) -> bytes:
    """update.pub; PeanutError if it is missing or no such thing."""
    path = home.updates / PUB
    data = store.read(path) if path.exists() else b""
    if len(data) != release.BITS // 8 or data[0] < 0x80 or not data[-1] & 1:
        raise PeanutError(f"{path} is {'damaged' if data else 'missing'}", "Run `peanut init`: it makes it anew.")
    return data


def load(home: Home, path: Path | None, passphrase: bytes | None = None) -> release.SigningKey:
    """The signing key, of the fleet home or of a file elsewhere; PeanutError unless nodes know it."""
    where = path or home.updates / KEY
    if path is None and not where.exists():
        raise PeanutError(
            f"{where} is not here", "Say where it is kept: --key FILE. (`peanut init` makes a new fleet's.)"
        )
    key = release.load_key(store.read(where), str(where), passphrase)
    if release.public(key) != modulus(home):
        raise PeanutError(
            f"{where} is not the key that this fleet's nodes know", f"Theirs belongs to {home.updates / PUB}."
        )
    return key


def device_step(home: Home, name: str) -> list[Step]:
    """update.pub in a device's bundle, where the fleet has a signing key."""
    source, path = home.updates / PUB, home.device(name) / PUB
    if not source.exists():
        return []
    what, note, data = home.relative(path), "whose updates it takes", modulus(home)
    if path.exists() and store.read(path) == data:
        return [there(what, note)]
    state = State.CHANGE if path.exists() else State.MAKE
    return [Step(state, what, note, lambda: write_file(path, data, PUBLIC))]
