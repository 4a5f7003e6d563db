"""Rotation: another issuing CA, another root, and no node that is offline for it.

Rules: what is new is trusted before it is used, and what is old until nobody needs it any more; each step is a command
of its own, looks whether the fleet is ready for it, and may be repeated after an interruption. In ca/issuing.crt and in
ca/root.crt the first certificate is the one in use; those behind it are trusted as well. The certificate counts that
fits the key beside it, so there is no moment at which the two do not belong together.

    issuing CA:  rotate           new key and certificate, the gateway's with it; nodes follow by `peanut renew`
                 finish           when nothing of the old one is left, it is trusted no more
    root:        rotate --root    the new root is made, and goes to every node and operator beside the old one
                 rotate --root    when all have it: it signs a new issuing CA, and is the one in use
                 finish           as above, for both
"""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509

from peanut import ca, init, ledger, operators, renewal, revocation, sightings, store
from peanut.errors import PeanutError
from peanut.home import PUBLIC, SECRET, Home, write_file
from peanut.names import Kind, device_uri
from peanut.plan import State, Step, there

NEXT_KEY = "root-next.key"  # of the root that is trusted already and not yet in use
LISTED = 20  # names in an error


def issuing(home: Home, passphrase: bytes, now: datetime) -> list[Step]:
    """The steps that put a new issuing CA, signed by the root in use, in place of the present one."""
    return _new_issuing(home, _root(home, passphrase), now)


def _root(home: Home, passphrase: bytes) -> ca.Authority:
    key = store.key(home.ca / "root.key", passphrase)
    found = next((root for root in store.roots(home) if ca.same_key(root, key)), None)
    if found is None:
        raise PeanutError(f"{home.ca / 'root.key'} does not belong to root.crt beside it", "Put both back.")
    return ca.Authority(found, key)


def _new_issuing(home: Home, root: ca.Authority, now: datetime) -> list[Step]:
    crt, key = home.ca / "issuing.crt", home.ca / "issuing.key"
    fresh = ca.new_key()
    made = ca.issue_issuing(fresh.public_key(), root, now)

    def keep() -> None:  # by its content: after a kill it may be the new one's
        old = store.key(key)
        write_file(store.retired_key(home, old.public_key()), ca.key_pem(old), SECRET)

    def trust() -> None:
        write_file(crt, ca.certificate_pem(made, *store.certificates(crt)), PUBLIC)

    def gateway() -> None:
        for step in init.renew_gateway(home, now):
            if step.act is not None:
                step.act()

    note = f"{ca.common_name(made)}, {ca.until(made.not_valid_after_utc)}; those of before stay trusted"
    kept = [Step(State.CHANGE, home.relative(key), "kept until `peanut ca finish`: it signs revocations", keep)]
    return [
        *(kept if key.exists() else []),
        Step(State.CHANGE, home.relative(crt), note, trust),
        Step(State.CHANGE, home.relative(key), "its key", lambda: write_file(key, ca.key_pem(fresh), SECRET)),
        Step(State.CHANGE, "gateway/gateway.crt", "issued by it; the gateway takes it up by itself", gateway),
    ]


def root_begin(home: Home, passphrase: bytes, now: datetime) -> list[Step]:
    """The steps that make a new root and have it trusted beside the present one; used it is not yet."""
    crt, key = home.ca / "root.crt", home.ca / NEXT_KEY
    fresh = ca.new_key()
    made = ca.issue_root(fresh, now)

    def trust() -> None:
        write_file(crt, ca.certificate_pem(*store.certificates(crt), made), PUBLIC)
        for name in operators.existing(home):
            write_file(home.operator(name) / operators.ROOT, store.read(crt), PUBLIC)

    note = f"{ca.common_name(made)}, {ca.until(made.not_valid_after_utc)}; trusted beside the present one"
    return [
        Step(State.MAKE, home.relative(key), "its key", lambda: write_file(key, ca.key_pem(fresh, passphrase), SECRET)),
        Step(State.CHANGE, home.relative(crt), note, trust),
    ]


def root_is_begun(home: Home) -> bool:
    """Whether there is a root that is trusted and not yet in use."""
    return (home.ca / NEXT_KEY).exists()


def root_switch(home: Home, passphrase: bytes, now: datetime, *, force: bool) -> list[Step]:
    """The steps that put the new root in use, with a new issuing CA. PeanutError while nodes do not trust it."""
    key, crt = store.key(home.ca / NEXT_KEY, passphrase), home.ca / "root.crt"
    new = next((root for root in store.roots(home) if ca.same_key(root, key)), None)
    if new is None:
        raise PeanutError(f"{home.ca / NEXT_KEY} belongs to no root in root.crt", "Move it away and begin again.")
    missing = without(home, renewal.root_prints([new])[0])
    if missing and not force:
        raise PeanutError(
            f"{len(missing)} nodes do not trust the new root yet: {', '.join(missing[:LISTED])}",
            "Run `peanut renew` until all have it. --force leaves these behind: they are to be flashed.",
        )
    others = [root for root in store.roots(home) if root != new]

    def use() -> None:
        write_file(crt, ca.certificate_pem(new, *others), PUBLIC)

    def take_key() -> None:
        write_file(home.ca / "root.key", store.read(home.ca / NEXT_KEY), SECRET)
        (home.ca / NEXT_KEY).unlink()

    return [
        Step(State.CHANGE, home.relative(crt), f"{ca.common_name(new)} is the one in use", use),
        *_new_issuing(home, ca.Authority(new, key), now),
        Step(State.CHANGE, "ca/root.key", "its key, in place of the old root's", take_key),
    ]


def without(home: Home, root: str) -> list[str]:
    """Nodes that are not known to trust a root, by its print. Who is revoked, or was never there, is not asked."""
    entries, seen = revocation.read(home), sightings.read(home)
    missing = []
    for row in ledger.devices(home.ledger):
        there_is = seen.get(renewal.identity(row))
        if there_is is None or revocation.is_revoked(entries, device_uri(row.name, Kind(row.kind)), row.serial):
            continue  # it is flashed with what is in force then
        if root not in there_is.roots:
            missing.append(row.name)
    return missing


def finish(home: Home, *, force: bool) -> list[Step]:
    """The steps that end the trust in what is not in use any more. PeanutError while somebody still needs it."""
    issuers, roots = store.certificates(home.ca / "issuing.crt"), store.roots(home)
    if root_is_begun(home):
        raise PeanutError("a new root is trusted, and not yet in use", "Go on with `peanut ca rotate --root`.")
    left = [*home.ca.glob("issuing-*"), *home.gateway.glob("ocsp-*")]
    if len(issuers) == 1 and len(roots) == 1 and not left:
        return [there("ca/issuing.crt", "nothing old is trusted")]
    old = dependants(home, issuers[0])
    if old and not force:
        raise PeanutError(
            f"{len(old)} certificates are still the old CA's: {', '.join(old[:LISTED])}",
            "Run `peanut renew` until all are renewed. --force leaves these behind.",
        )

    def write(name: str, first: x509.Certificate) -> None:
        write_file(home.ca / name, ca.certificate_pem(first), PUBLIC)

    steps = []
    if len(issuers) > 1:
        note = f"only {ca.common_name(issuers[0])} is trusted from now on"
        steps.append(Step(State.CHANGE, "ca/issuing.crt", note, lambda: write("issuing.crt", issuers[0])))
    if len(roots) > 1:
        note = f"only {ca.common_name(roots[0])} is trusted from now on; nodes follow as `peanut renew` reaches them"
        steps.append(Step(State.CHANGE, "ca/root.crt", note, lambda: write("root.crt", roots[0])))
        steps += _operators_trust(home, roots[:1])
    for path in left:
        steps.append(Step(State.CHANGE, home.relative(path), "of what was trusted: gone", path.unlink))
    return steps


def _operators_trust(home: Home, roots: Sequence[x509.Certificate]) -> list[Step]:
    paths = [home.operator(name) / operators.ROOT for name in operators.existing(home)]
    return [
        Step(
            State.CHANGE,
            home.relative(path),
            "the root in use",
            lambda path=path: write_file(path, ca.certificate_pem(*roots), PUBLIC),  # type: ignore[misc]
        )
        for path in paths
    ]


def dependants(home: Home, issuer: x509.Certificate) -> list[str]:
    """Who still has a certificate that another CA has issued: nodes that are not revoked, operators, the gateway."""
    entries = revocation.read(home)
    found = [
        row.name
        for row in ledger.devices(home.ledger)
        if not revocation.is_revoked(entries, device_uri(row.name, Kind(row.kind)), row.serial)
        and not ca.issued_by(store.certificate(home.device(row.name) / "cert.der"), issuer)
    ]
    for name in operators.existing(home):
        path = home.operator(name) / operators.CERTIFICATE
        if path.exists() and not ca.issued_by(store.certificate(path), issuer):
            found.append(f"operator {name}")
    if not ca.issued_by(store.certificate(home.gateway / "gateway.crt"), issuer):
        found.append("the gateway")
    return found
