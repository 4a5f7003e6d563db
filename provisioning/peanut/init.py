"""`peanut init`: the fleet home, from nothing or from wherever an interrupted run left it.

Rules: what is there is kept, what is missing is made, in an order in which a kill between any two files leaves
something that the next run completes. The root's key is never replaced, and neither is the issuing CA's.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from peanut import ca, device, ledger, modes, operators, settings, store, updatekey
from peanut.errors import PeanutError
from peanut.home import PUBLIC, SECRET, Home, write_file
from peanut.plan import State, Step, there

PASSPHRASE_MIN = 12  # characters; PBES2 slows a guesser down, and a short one gives in all the same
PASSPHRASE_TRIES = 3  # at the terminal
PASSPHRASE_MAX = 1000  # bytes; OpenSSL reads at most 1023
GENERATED_BYTES = 24  # 192 random bits
DEFAULT_OPERATOR = "operator"


@dataclass(frozen=True)
class Passphrase:
    """The passphrase of the root's key. generated: nobody knows it by heart, so root.pass must hold it."""

    value: bytes = field(repr=False)
    generated: bool


def check_passphrase(value: bytes) -> Passphrase:
    """A passphrase that somebody chose; PeanutError if it is too short or too long."""
    text = value.decode(errors="surrogateescape")
    if len(text) < PASSPHRASE_MIN:
        raise PeanutError(
            f"the passphrase has fewer than {PASSPHRASE_MIN} characters",
            "Take a longer one, or none at all: then a strong one is generated.",
        )
    if len(value) > PASSPHRASE_MAX:
        raise PeanutError(f"the passphrase is longer than {PASSPHRASE_MAX} bytes", "Take a shorter one.")
    return Passphrase(value, generated=False)


def generate_passphrase() -> Passphrase:
    """A strong passphrase for ca/root.pass."""
    return Passphrase(secrets.token_urlsafe(GENERATED_BYTES).encode(), generated=True)


def passphrase_step(home: Home, passphrase: Passphrase) -> Step:
    """Keeps a generated passphrase: before the key, for a key without it would be lost."""
    note, line = home.ca / "root.pass", passphrase.value + b"\n"
    return Step(State.MAKE, home.relative(note), "generated passphrase", lambda: write_file(note, line, SECRET))


def passphrase_file(path: Path) -> bytes:
    """The first line of a file, without its end."""
    lines = store.read(path).splitlines()
    if not lines or not lines[0]:
        raise PeanutError(f"the passphrase file {path} is empty", "Write the passphrase into its first line.")
    return lines[0]


def needs_passphrase(home: Home) -> bool:
    """Whether the root's key is to be made or opened: only while one of the two CA certificates is missing."""
    root, issuing = ((home.ca / name).exists() for name in ("root.crt", "issuing.crt"))
    # The other two cases are past help: `plan` says so, and nobody should be asked for a passphrase before.
    return not issuing and (not root or (home.ca / "root.key").exists())


def left_passphrase(home: Home) -> Passphrase | None:
    """What root.pass beside the root's key says, if it is there."""
    path = home.ca / "root.pass"
    return Passphrase(passphrase_file(path), generated=True) if path.exists() else None


def plan(
    home: Home, wanted: Sequence[str], operator: str | None, passphrase: Passphrase | None, now: datetime
) -> list[Step]:
    """The steps of init.

    wanted: hosts given on the command line (checked). passphrase: None if needs_passphrase says no, or on a dry run
    that would ask for it.
    Raises PeanutError, with nothing written, if the home holds something that init must neither use nor replace.
    """
    steps = modes.plan(home, home.ca, ["root.pass", *sorted(path.name for path in home.ca.glob("*.key"))])
    steps += modes.plan(home, home.gateway, sorted(path.name for path in home.gateway.glob("*.key")))
    steps += _root(home, passphrase, now)
    steps += _issuing(home, passphrase, now)
    hosts, step = _fleet(home, wanted)
    steps.append(step)
    steps += _gateway(home, hosts, now)
    steps += _ledger(home)
    for name in [operator] if operator else operators.existing(home) or [DEFAULT_OPERATOR]:
        steps += operators.plan(home, name, now)
    steps += updatekey.plan(home)
    steps.append(_gateway_toml(home))
    return steps


def _root(home: Home, passphrase: Passphrase | None, now: datetime) -> list[Step]:
    key, crt, note = home.ca / "root.key", home.ca / "root.crt", home.ca / "root.pass"
    steps = []
    if note.exists():
        steps.append(there(home.relative(note), "opens root.key; move it away from this machine"))
    if crt.exists():
        found = store.certificate(crt)
        if key.exists():
            steps.append(there(home.relative(key), "key of the root, encrypted"))
        elif not (home.ca / "issuing.crt").exists():
            raise PeanutError(
                f"{key} is missing, and ca/issuing.crt is to be signed with it",
                "Put root.key back from where it is kept, then run this again.",
            )
        else:
            steps.append(there(home.relative(key), "kept elsewhere; not needed here"))
        return [*steps, there(home.relative(crt), f"certificate of {ca.common_name(found)}, {ca.validity(found, now)}")]
    if (home.ca / "issuing.crt").exists():
        raise PeanutError(
            f"{crt} is missing, and ca/issuing.crt was signed by it",
            "Put root.crt back from a backup, then run this again.",
        )
    if key.exists():
        if passphrase is not None:
            store.key(key, passphrase.value)  # a wrong passphrase is found before anything is written
        steps.append(there(home.relative(key), "key of the root, encrypted"))
    else:
        if passphrase is not None and passphrase.generated and not note.exists():
            # before the key: a key without its passphrase would be lost
            steps.append(passphrase_step(home, passphrase))

        def make_key() -> None:
            assert passphrase is not None
            write_file(key, ca.key_pem(ca.new_key(), passphrase.value), SECRET)

        text = "key of the root, encrypted with a passphrase"
        if passphrase is None:
            text += " that you will be asked for; if you give none, ca/root.pass with a generated one comes first"
        steps.append(Step(State.MAKE, home.relative(key), text, make_key))

    def make_certificate() -> None:
        assert passphrase is not None
        made = ca.issue_root(store.key(key, passphrase.value), now)
        write_file(crt, ca.certificate_pem(made), PUBLIC)

    end = ca.until(ca.not_after(ca.ROOT, None, now))
    steps.append(Step(State.MAKE, home.relative(crt), f"certificate of the root, {end}", make_certificate))
    return steps


def _issuing(home: Home, passphrase: Passphrase | None, now: datetime) -> list[Step]:
    key, crt, root_key, root_crt = (home.ca / n for n in ("issuing.key", "issuing.crt", "root.key", "root.crt"))
    if crt.exists():
        if not key.exists():
            raise PeanutError(
                f"{key} is missing",
                "Put it back from a backup. If it is lost: move issuing.crt away, run this again, enrol every node.",
            )
        secret, listed = store.key(key), store.certificates(crt)
        found = next((one for one in listed if ca.same_key(one, secret)), None)
        if found is None:
            raise PeanutError(f"{key} does not belong to issuing.crt beside it", "Put both back from one backup.")
        if not any(ca.issued_by(found, root) for root in store.roots(home)):
            raise PeanutError(f"{crt} was not signed by root.crt beside it", "Put both back from one backup.")
        return [
            there(home.relative(key), "key of the issuing CA"),
            there(home.relative(crt), f"certificate of {ca.common_name(found)}, {ca.validity(found, now)}"),
        ]
    steps = []
    if key.exists():
        store.key(key)
        steps.append(there(home.relative(key), "key of the issuing CA"))
    else:
        steps.append(
            Step(
                State.MAKE,
                home.relative(key),
                "key of the issuing CA",
                lambda: write_file(key, ca.key_pem(ca.new_key()), SECRET),
            )
        )
    if (
        root_crt.exists()
        and passphrase is not None
        and not ca.same_key(store.certificate(root_crt), store.key(root_key, passphrase.value))
    ):
        raise PeanutError(f"{root_key} does not belong to root.crt beside it", "Put both back from one backup.")

    def make_certificate() -> None:
        assert passphrase is not None
        root = ca.Authority(store.certificate(root_crt), store.key(root_key, passphrase.value))
        made = ca.issue_issuing(store.key(key).public_key(), root, now)
        write_file(crt, ca.certificate_pem(made), PUBLIC)

    root = store.certificate(root_crt) if root_crt.exists() else None
    end = ca.until(ca.not_after(ca.ISSUING, root, now))
    note = f"certificate of the issuing CA, {end}, signed by the root"
    steps.append(Step(State.MAKE, home.relative(crt), note, make_certificate))
    return steps


def _fleet(home: Home, wanted: Sequence[str]) -> tuple[list[str], Step]:
    what = home.relative(home.fleet_toml)
    known = settings.hosts(home)
    if not known and (home.gateway / "gateway.crt").exists():
        # fleet.toml was lost; the gateway's certificate remembers
        found = store.certificate(home.gateway / "gateway.crt")
        listed = [h for h in ca.san_hosts(found) if h not in ca.LOOPBACK]
        first = ca.common_name(found)
        known = list(dict.fromkeys([*([first] if first in ca.san_hosts(found) else []), *listed]))
    hosts = list(dict.fromkeys([*known, *wanted])) or settings.default_hosts()
    state = State.MAKE if not home.fleet_toml.exists() else State.CHANGE
    if state is State.CHANGE and hosts == known:
        return hosts, there(what, f"hosts {', '.join(hosts)}")
    note = f"hosts {', '.join(hosts)}; nodes use the first"
    if state is State.CHANGE:
        note = f"adds {', '.join(h for h in hosts if h not in known)}"
    return hosts, Step(state, what, note, lambda: write_file(home.fleet_toml, settings.fleet_toml(home, hosts), PUBLIC))


def renew_gateway(home: Home, now: datetime) -> list[Step]:
    """The steps that give the gateway a new certificate for its key; a gateway that runs takes it up by itself."""
    return _gateway(home, settings.hosts(home), now, due="has lived two thirds of its life")


def _gateway(home: Home, hosts: Sequence[str], now: datetime, due: str = "") -> list[Step]:
    key, crt, issuing = home.gateway / "gateway.key", home.gateway / "gateway.crt", home.ca / "issuing.crt"
    if key.exists():
        store.key(key)
        steps = [there(home.relative(key), "key of the gateway")]
    else:
        steps = [
            Step(
                State.MAKE,
                home.relative(key),
                "key of the gateway",
                lambda: write_file(key, ca.key_pem(ca.new_key()), SECRET),
            )
        ]

    def issue() -> None:
        authority = store.issuing(home)
        made = ca.issue_gateway(store.key(key).public_key(), hosts, authority, now)
        write_file(crt, ca.certificate_pem(made, authority.certificate), PUBLIC)

    what = home.relative(crt)
    if not crt.exists():
        end = ca.until(ca.not_after(ca.GATEWAY, store.certificate(issuing) if issuing.exists() else None, now))
        note = f"certificate of the gateway, {end}, and of the issuing CA"
        return [*steps, Step(State.MAKE, what, note, issue)]
    found = store.certificate(crt)
    missing = [h for h in dict.fromkeys([*hosts, *ca.LOOPBACK]) if h not in ca.san_hosts(found)]
    if not key.exists():
        why = "its key is gone"
    elif not issuing.exists():
        why = "the issuing CA is new"
    elif missing:
        why = f"adds {', '.join(missing)}"
    else:
        why = ca.why_reissue(found, store.key(key), store.certificate(issuing), now)
        why = why or due
        why = why and f"the present one {why}"
    if why:
        return [*steps, Step(State.CHANGE, what, f"new certificate: {why}; the gateway takes it up by itself", issue)]
    return [*steps, there(what, f"certificate of the gateway, {ca.validity(found, now)}")]


def _gateway_toml(home: Home) -> Step:
    what, note = home.relative(home.gateway_toml), "settings of peanutd"
    if home.gateway_toml.exists():
        return there(what, note)
    text = settings.GATEWAY_TOML.encode()
    return Step(
        State.MAKE, what, f"{note}, every default in a comment", lambda: write_file(home.gateway_toml, text, PUBLIC)
    )


def _ledger(home: Home) -> list[Step]:
    what = home.relative(home.ledger)
    known = {row.name for row in ledger.devices(home.ledger)}
    rows = [row for row in device.rows_from_bundles(home) if row.name not in known]
    if home.ledger.exists() and not rows:
        return [there(what, f"ledger, devices: {len(known)}")]

    def make() -> None:
        with ledger.opened(home.ledger) as connection:
            for row in rows:
                ledger.put(connection, row)

    if not home.ledger.exists():
        return [Step(State.MAKE, what, f"ledger, devices: {len(rows)}", make)]
    return [Step(State.CHANGE, what, f"adds the rows of {', '.join(row.name for row in rows)}", make)]
