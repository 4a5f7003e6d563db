"""The three files that every client of the gateway has: its key, its certificate, the root's certificate.

Rule: the same steps for operators (PEM) and devices (DER); the file's name says which. A key is never replaced.
"""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from peanut import ca, store
from peanut.home import PUBLIC, SECRET, Home, write_file
from peanut.plan import State, Step, there


def key_step(home: Home, path: Path, note: str) -> Step:
    """Make a leaf's unencrypted key, unless there is one."""
    what = home.relative(path)
    if path.exists():
        store.key(path)  # a broken one is found before anything is written
        return there(what, note)
    encode = ca.key_der if path.suffix == ".der" else ca.key_pem
    return Step(State.MAKE, what, note, lambda: write_file(path, encode(ca.new_key()), SECRET))


def client_step(home: Home, path: Path, key: Path, uri: str, now: datetime, issue: Callable[[], None]) -> Step:
    """Issue a client certificate, unless a good one for this key is there."""
    what = home.relative(path)
    issuing = home.ca / "issuing.crt"
    if not path.exists():
        end = ca.not_after(ca.CLIENT, store.certificate(issuing) if issuing.exists() else None, now)
        return Step(State.MAKE, what, f"certificate for {uri}, {ca.until(end)}", issue)
    found = store.certificate(path)
    if ca.san_uris(found) != [uri]:
        why = "names somebody else"
    elif not key.exists():
        why = "is for a key that is gone"
    elif not issuing.exists():
        why = "was issued by a CA that is gone"
    else:
        why = ca.why_reissue(found, store.key(key), store.certificate(issuing), now)
    if why:
        return Step(State.CHANGE, what, f"new certificate: the present one {why}", issue)
    return there(what, f"certificate for {uri}, {ca.validity(found, now)}")


def root_step(home: Home, path: Path) -> Step:
    """Copy the root's certificate, in the form of the file's name, unless it is there."""
    what, note = home.relative(path), "the root, to check the gateway with"

    def wanted() -> bytes:
        # A client that reads PEM trusts every root that the fleet does; what a node beside this one trusts is renewed.
        if path.suffix == ".der":
            return ca.certificate_der(store.root_certificate(home))
        return ca.certificate_pem(*store.roots(home))

    def copy() -> None:
        write_file(path, wanted(), PUBLIC)

    if not path.exists():
        return Step(State.MAKE, what, note, copy)
    if not (home.ca / "root.crt").exists():
        return Step(State.CHANGE, what, "the root is new", copy)
    if store.read(path) != wanted():
        return Step(State.CHANGE, what, "is not this fleet's root", copy)
    return there(what, note)
