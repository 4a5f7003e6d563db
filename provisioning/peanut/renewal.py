"""Renewal: who is due, the new key and certificate of a node on its way to it, and what is done when the node has it.

Rules: two thirds of a life are lived, and a little more by chance, so that a fleet that was enrolled in an hour is
not renewed in one. What is sent waits in devices/NAME/next until the node was seen with it, and only then takes the
bundle's place, so an interrupted run goes on where it stopped, and a node that gives up the new certificate is still
known by the old one. Pure but for the files; who asks the gateway is `conduct`.
"""

import base64
import hashlib
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509

from peanut import ca, control, device, ledger, names, revocation, store
from peanut.errors import PeanutError
from peanut.home import PUBLIC, SECRET, Home, write_file
from peanut.names import Kind

RENEW_AT = 2 / 3  # of a life
JITTER = 0.05  # of a life, at the most, behind that
NEXT = "next"  # in a device's directory: key.der and cert.der on their way to the node
POLL_S = 0.5

Parts = dict[str, Any]  # what a node gets: key, cert, ca; README, agreement 2


def due_at(certificate: x509.Certificate) -> datetime:
    """When it is to be renewed."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    chance = int.from_bytes(hashlib.sha256(certificate.serial_number.to_bytes(20)).digest()[:4]) / 2**32
    return start + (end - start) * (RENEW_AT + JITTER * chance)


def is_due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is to be renewed now."""
    return now >= due_at(certificate)


def identity(row: ledger.Device) -> str:
    """As the gateway names a node: `plant/peanut`."""
    return names.device_uri(row.name, Kind(row.kind)).removeprefix("peanut:")


def serial(certificate: x509.Certificate) -> str:
    """As gateway, node and ledger write it."""
    return f"{certificate.serial_number:x}"


# --- what is on its way -----------------------------------------------------------------------------------------------


def staged(home: Home, name: str) -> x509.Certificate | None:
    """The certificate that is on its way to a node; None if there is none that could be used."""
    folder = home.device(name) / NEXT
    try:
        found = store.certificate(folder / "cert.der")
        if ca.same_key(found, store.key(folder / "key.der")) and ca.issued_by(found, store.issuing(home).certificate):
            return found
    except PeanutError:
        pass
    return None


def stage(home: Home, row: ledger.Device, now: datetime) -> x509.Certificate:
    """A new key and certificate for a node; those of before, where they have not arrived yet and are good for long."""
    found = staged(home, row.name)
    if found is not None and not is_due(found, now):
        return found
    key, uri = ca.new_key(), names.device_uri(row.name, Kind(row.kind))
    made = ca.issue_client(key.public_key(), row.name, uri, store.issuing(home), now)
    folder = home.device(row.name) / NEXT
    with ledger.opened(home.ledger) as connection:  # before it goes anywhere: whoever is revoked is so with this one
        end = int(made.not_valid_after_utc.timestamp())
        ledger.put_issued(connection, ledger.Issued(serial(made), row.name, row.kind, end))
    write_file(folder / "key.der", ca.key_der(key), SECRET)
    write_file(folder / "cert.der", ca.certificate_der(made), PUBLIC)
    return made


def discard(home: Home, name: str) -> None:
    """What is on its way is given up."""
    shutil.rmtree(home.device(name) / NEXT, ignore_errors=True)


def promote(home: Home, name: str) -> x509.Certificate:
    """What was on its way is what counts: bundle and ledger have it. May be repeated after an interruption.

    It lets nobody in who is revoked: what was sent may be on the very board that was stolen.
    """
    folder, where = home.device(name) / NEXT, home.device(name)
    key, certificate = store.read(folder / "key.der"), store.read(folder / "cert.der")
    write_file(where / "key.der", key, SECRET)
    write_file(where / "cert.der", certificate, PUBLIC)
    device.record(home, name)
    made = store.certificate(where / "cert.der")
    discard(home, name)
    return made


def mend(home: Home, name: str) -> None:
    """Goes on with a `promote` that was interrupted between the key and the certificate."""
    found = staged(home, name)
    where = home.device(name)
    if found is not None and (where / "key.der").exists() and ca.same_key(found, store.key(where / "key.der")):
        promote(home, name)


# --- what a node gets -------------------------------------------------------------------------------------------------


def root_prints(roots: Iterable[x509.Certificate]) -> list[str]:
    """How a node tells which roots it trusts."""
    return [hashlib.sha256(ca.certificate_der(root)).hexdigest()[:16] for root in roots]


def parts(home: Home, name: str, roots: Sequence[x509.Certificate], *, with_key: bool, with_roots: bool) -> Parts:
    """The message for a node."""
    found: Parts = {}
    if with_key:
        folder = home.device(name) / NEXT
        found = {key: _base64(store.read(folder / f"{key}.der")) for key in ("key", "cert")}
    if with_roots:
        found["ca"] = [_base64(ca.certificate_der(root)) for root in roots]
    return found


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- the whole of it --------------------------------------------------------------------------------------------------


@dataclass
class Task:
    """A node that is to get something. done and failed: in words, empty until then."""

    row: ledger.Device
    with_key: bool
    with_roots: bool
    sent: bool = False
    done: str = ""
    failed: str = ""


def tasks(
    home: Home, rows: Iterable[ledger.Device], seen: Mapping[str, Any], now: datetime, *, force: bool
) -> list[Task]:
    """The nodes that are due, or of which something is on its way, or whose trust store is not the fleet's.

    seen: the gateway's records by identity. force: all of `rows` are due.
    """
    entries, wanted = revocation.read(home), root_prints(store.roots(home))
    found = []
    for row in rows:
        uri = names.device_uri(row.name, Kind(row.kind))
        if revocation.is_revoked(entries, uri, row.serial):
            continue
        told = (seen.get(identity(row)) or {}).get("reported") or {}
        certificate = store.certificate(home.device(row.name) / "cert.der")
        current = store.issuing(home).certificate
        with_key = force or is_due(certificate, now) or not ca.issued_by(certificate, current)
        with_key = with_key or staged(home, row.name) is not None
        with_roots = bool(told.get("ca")) and set(told["ca"]) != set(wanted)
        if with_key or with_roots:
            found.append(Task(row, with_key, with_roots))
    return found


def conduct(
    home: Home,
    chosen: Sequence[ledger.Device] | None,
    lock: Callable[[], AbstractContextManager[None]],
    now: datetime,
    *,
    force: bool,
    wait_s: float,
) -> list[Task] | None:
    """Renew nodes by way of the gateway; None if no gateway runs. Waits until each was seen with what it got.

    chosen: None: all. lock: holds the home; it is not held while nodes are waited for.
    """
    answer = control.ask(home, {"command": "seen"})
    if answer is None:
        return None
    with lock():
        rows = ledger.devices(home.ledger) if chosen is None else list(chosen)
        for row in rows:
            mend(home, row.name)
        found = tasks(home, rows, answer["seen"], now, force=force)
        for task in found:
            _look(home, task, answer)
            if not task.done and not task.failed:
                _send(home, task, answer, now)
    end = time.monotonic() + wait_s
    while waiting := [task for task in found if task.sent and not task.done and not task.failed]:
        if time.monotonic() > end:
            break
        time.sleep(POLL_S)
        answer = control.ask(home, {"command": "seen"}) or answer
        with lock():
            for task in waiting:
                _look(home, task, answer)
    return found


def _send(home: Home, task: Task, answer: Mapping[str, Any], now: datetime) -> None:
    who = identity(task.row)
    told = (answer["seen"].get(who) or {}).get("reported")
    if who not in answer["online"]:
        return
    if told is None:
        task.failed = "its firmware knows of no renewal: flash it"
        return
    if task.with_key:
        stage(home, task.row, now)
    message = parts(
        home, task.row.name, store.roots(home), with_key=task.with_key, with_roots=task.with_roots
    )  # the key goes over the node's own session, and is kept nowhere on its way
    reply = control.ask(home, {"command": "certificate", "identity": who, "certificate": message})
    task.sent = reply is not None and reply.get("sent") is True


def _look(home: Home, task: Task, answer: Mapping[str, Any]) -> None:
    """Whether the node has what it was to get."""
    who = identity(task.row)
    told = (answer["seen"].get(who) or {}).get("reported") or {}
    coming = staged(home, task.row.name) if task.with_key else None
    if task.with_key and coming is None:
        return
    here = answer["online"].get(who)
    if coming is not None and any(error.startswith(serial(coming)) for error in told.get("errors", ())):
        task.failed = next(error for error in told["errors"] if error.startswith(serial(coming)))
        discard(home, task.row.name)
        return
    proved = here is not None and (coming is None or here == serial(coming)) and told.get("trial") is False
    proved = proved and (coming is None or told.get("serial") == serial(coming))
    if task.with_roots or told.get("ca"):
        proved = proved and set(told.get("ca", ())) == set(root_prints(store.roots(home)))
    if proved and (task.sent or coming is not None):
        if coming is not None:
            made = promote(home, task.row.name)
            task.done = f"has certificate {serial(made)[:12]}, {ca.until(made.not_valid_after_utc)}"
        else:
            task.done = "trusts the fleet's roots"
        if task.with_roots:
            write_file(home.device(task.row.name) / "ca.der", ca.certificate_der(store.root_certificate(home)), PUBLIC)


def renew_here(home: Home, row: ledger.Device, now: datetime) -> x509.Certificate:
    """A new key and certificate in the bundle at once, for a board that is about to be flashed with them."""
    discard(home, row.name)
    stage(home, row, now)
    made = promote(home, row.name)
    revocation.issued(home, ca.san_uris(made)[0], serial(made))  # this key has been on no board yet
    return made


def due_rows(home: Home, now: datetime) -> list[ledger.Device]:
    """Nodes whose certificates are due, by their dates."""
    rows = ledger.devices(home.ledger)
    return [row for row in rows if is_due(store.certificate(home.device(row.name) / "cert.der"), now)]


def gateway_is_due(home: Home, now: datetime) -> bool:
    """Whether the gateway's own certificate is to be renewed, or was issued by a CA that issues no more."""
    return certificate_is_due(home, store.certificate(home.gateway / "gateway.crt"), now)


def certificate_is_due(home: Home, certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is old, or was issued by a CA that issues no more."""
    return is_due(certificate, now) or not ca.issued_by(certificate, store.issuing(home).certificate)
