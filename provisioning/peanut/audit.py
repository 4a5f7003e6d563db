"""The audit: what is wrong with a fleet, or soon will be, found by comparing what was enrolled with what was seen.

Rule: it looks and writes nothing; each finding says whom it is about, what is the matter and what to do. An `error` is
something that somebody must act on; a `warning` may have an innocent reason.
"""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from peanut import ca, crl, device, flash, ledger, names, operators, renewal, revocation, sightings, store
from peanut.errors import PeanutError
from peanut.home import SECRET, Home, mode_of
from peanut.names import Kind
from peanut.sightings import Sighting

LATE = timedelta(days=14)  # so long after a certificate was due something is in the way of its renewal
CA_SOON = timedelta(days=400)  # certificates of a year that it issues now would live shorter
NETWORKS_MAX = 2  # a node that moves about more than that is not screwed to a greenhouse
EVERYTHING = ("#", "/#", "+/#", "/plant/#", "/+/#", "vin/#")
SECRETS = (
    *(
        "ca/*.key",
        "ca/root.pass",
        "gateway/*.key",
        "updates/signing.key",
        "users.json",
        "psk.toml",
        "wifi.toml",
        "revoked.json",
    ),
    *("history.db", "alerts.db", "groups.db", "push.key", "api.db", "api.key"),
    *("store.db", "seen.json", "operators/*/operator.key", "devices/*/key.der", "devices/*/sign.key"),
    "devices/*/next/key.der",
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    level: str  # error or warning
    who: str
    what: str
    fix: str


def audit(home: Home, now: datetime) -> list[Finding]:
    """Everything that is found, errors first."""
    seen = sightings.read(home)
    rows = ledger.devices(home.ledger)
    found = [
        *_authorities(home, now),
        *_devices(home, rows, seen, now),
        *_shared(home, rows, seen),
        *_modes(home),
        *_rules(home),
    ]
    return sorted(found, key=lambda finding: (finding.level != "error", finding.who))


def _authorities(home: Home, now: datetime) -> Iterator[Finding]:
    for name in ("root.crt", "issuing.crt"):
        for certificate in store.certificates(home.ca / name):
            if certificate.not_valid_after_utc - now < CA_SOON:
                until = ca.validity(certificate, now)
                yield Finding("warning", ca.common_name(certificate), until, "Replace it: peanut ca rotate")
    if problem := crl.problem(home, now):
        yield Finding("warning", "ca/issuing.crl", f"{problem}; others go by it, the gateway does not", "peanut ca crl")
    gateway = store.certificate(home.gateway / "gateway.crt")
    if now > renewal.due_at(gateway) + LATE / 2:
        yield Finding("error", "the gateway", f"its certificate is {ca.validity(gateway, now)}", "peanut renew")
    for name in ("root.key", "root.pass"):
        if (home.ca / name).exists():
            fix = "Move it to a safe place; the daily work does not need it."
            yield Finding("warning", f"ca/{name}", "is still on this machine", fix)


def _devices(
    home: Home, rows: Sequence[ledger.Device], seen: Mapping[str, Sighting], now: datetime
) -> Iterator[Finding]:
    entries = revocation.read(home)
    for row in rows:
        try:
            certificate, _ = device.check(home, row)
        except PeanutError as error:
            yield Finding("error", row.name, error.message, f"peanut device add {row.name} --kind {row.kind}")
            continue
        uri, there = names.device_uri(row.name, Kind(row.kind)), seen.get(renewal.identity(row), Sighting())
        if revocation.is_revoked(entries, uri, row.serial):
            continue
        end = certificate.not_valid_after_utc
        if end < now:
            fix = "Switch it on while renew_grace_days last; else: peanut device renew NAME --here, and flash it."
            yield Finding("error", row.name, f"its certificate expired on {end:%Y-%m-%d}", fix)
        elif now > renewal.due_at(certificate) + LATE:
            yield Finding("warning", row.name, f"is {ca.validity(certificate, now)}, and not renewed", "peanut renew")
        yield from _drift(home, row, there)


def _drift(home: Home, row: ledger.Device, there: Sighting) -> Iterator[Finding]:
    """A device that is not what it was."""
    flashed = str(flash.recorded(home, row.name).get("mac", "")).replace(":", "").lower()
    chips = [chip.lower() for chip in there.chips]
    look = "Is it a board that you have replaced? If not, its key is in other hands: peanut device revoke NAME."
    if len(set(chips)) > 1:
        yield Finding("error", row.name, f"has come with another chip: {' -> '.join(chips)}", look)
    elif chips and flashed and chips[-1] != flashed:
        yield Finding("error", row.name, f"was flashed to {flashed}, and comes with the chip {chips[-1]}", look)
    coming = renewal.staged(home, row.name)
    known = {row.serial} | ({renewal.serial(coming)} if coming is not None else set())
    if there.serial and there.serial not in known:
        fix = "It was renewed or flashed from another home; or somebody else can issue certificates."
        yield Finding("warning", row.name, f"comes with {there.serial[:12]}, which is not in the ledger", fix)
    if len(there.networks) > NETWORKS_MAX and row.kind == Kind.GREENHOUSE:
        what = f"has come from {len(there.networks)} networks: {', '.join(there.networks)}"
        yield Finding("warning", row.name, what, "Does that board move about?")
    for error in there.errors:
        yield Finding("warning", row.name, f"gave up a new certificate: {error}", "peanut renew tries it with another.")


def _shared(home: Home, rows: Sequence[ledger.Device], seen: Mapping[str, Sighting]) -> Iterator[Finding]:
    """What only one may have, and several do; keys that are weak."""
    keys: dict[str, set[str]] = {}
    chips: dict[str, set[str]] = {}
    for who, path in _certificates(home, rows):
        try:
            public = store.certificate(path).public_key()
        except PeanutError:
            continue
        if not isinstance(public, ec.EllipticCurvePublicKey) or public.curve.name != "secp256r1":
            yield Finding("error", who, f"its key is not on P-256 ({path.name})", "peanut device renew NAME")
        keys.setdefault(_print(public), set()).add(who)
    for who, sighting in seen.items():
        name = who.partition("/")[2]
        for key in sighting.keys[-1:]:
            keys.setdefault(key, set()).add(name if not who.startswith("operator/") else who)
        if sighting.chip:
            chips.setdefault(sighting.chip, set()).add(name)
    for key, owners in keys.items():
        if len(owners) > 1:
            fix = "Give each a key of its own: peanut device renew NAME"
            yield Finding("error", ", ".join(sorted(owners)), f"share one key ({key[:16]})", fix)
    for chip, owners in chips.items():
        if len(owners) > 1:
            fix = "One board under two names: revoke the one that it is not."
            yield Finding("error", ", ".join(sorted(owners)), f"have come with the same chip ({chip})", fix)


def _certificates(home: Home, rows: Sequence[ledger.Device]) -> Iterator[tuple[str, Path]]:
    for row in rows:
        yield row.name, home.device(row.name) / "cert.der"
    for name in operators.existing(home):
        yield f"operator/{name}", home.operator(name) / operators.CERTIFICATE


def _print(public: Any) -> str:
    """As the gateway writes it: SHA-256 of the SubjectPublicKeyInfo."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def _modes(home: Home) -> Iterator[Finding]:
    for pattern in SECRETS:
        for path in sorted(home.path.glob(pattern)):
            if mode_of(path) & ~SECRET:
                what = f"mode {mode_of(path):04o}: others can read a secret"
                yield Finding("error", home.relative(path), what, f"chmod 600 {path}")


def _rules(home: Home) -> Iterator[Finding]:
    """Rules that allow more than somebody can have meant. What is wrong with the file itself the gateway says."""
    try:
        rules = tomllib.loads((home.path / "rules.toml").read_text()).get("rule", [])
    except (OSError, ValueError):
        rules = []
    for number, rule in enumerate(rules if isinstance(rules, list) else [], 1):
        if not isinstance(rule, dict) or "allow" not in rule:
            continue
        topics = rule.get("topic", [])
        wide = [topic for topic in ([topics] if isinstance(topics, str) else topics) if topic in EVERYTHING]
        who = f"rules.toml, rule {number}"
        if not any(key in rule for key in ("kind", "role", "name", "group")) and not _own(topics):
            yield Finding("warning", who, "allows it to everybody, nodes among them", "Say for whom: kind, role, name.")
        if wide and rule["allow"] in ("publish", "both"):
            what = f"lets them publish {', '.join(wide)}: every command, and every node's reports"
            yield Finding("warning", who, what, "Name the topics that are meant.")
        if wide and rule.get("kind") in ("plant", "greenhouse", "vin", "vehicle", "psk"):
            yield Finding("warning", who, f"lets a node read {', '.join(wide)}", "A stolen node would know it all.")
    try:
        settings = tomllib.loads(home.gateway_toml.read_text())
    except (OSError, ValueError):
        return
    access = settings.get("access")
    if isinstance(access, dict) and access.get("anonymous") is True:
        yield Finding("warning", "gateway.toml", "anonymous = true: whoever is on this machine may do everything", "")


def _own(topics: object) -> bool:
    """Whether every topic is the client's own."""
    found = [topics] if isinstance(topics, str) else topics if isinstance(topics, list) else []
    return bool(found) and all("{id}" in str(topic) or "{user}" in str(topic) for topic in found)


def when(seconds: int) -> str:
    """A time of a sighting, for people."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}" if seconds else "never"


def spki(certificate: x509.Certificate) -> str:
    """Which key a certificate is for: SHA-256 of its SubjectPublicKeyInfo."""
    return _print(certificate.public_key())
