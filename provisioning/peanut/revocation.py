"""Who is let in no more although the certificate is good: revoked.json in the fleet home.

Rule: this file alone writes it, whole; the gateway reads it (within half a second, or at once when it is told). It
stands apart from the ledger, so that a ledger that is lost or damaged restores nobody. What is revoked is an identity,
with all that was ever issued to it; what is issued to it afterwards, with another key, is listed as good.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from peanut import control, store
from peanut.errors import PeanutError
from peanut.home import SECRET, Home, write_file
from peanut.plan import State, Step, there

FORMAT = 1
SIZE_MAX = 8 * 1024 * 1024  # bytes; the gateway reads no more either
WHY_MAX = 200  # characters of a reason


@dataclass(frozen=True)
class Entry:
    """One identity. since: Unix seconds. good: serial numbers that were issued afterwards, hexadecimal, lower case."""

    since: int
    why: str
    good: tuple[str, ...] = ()


Entries = Mapping[str, Entry]  # by URI: peanut:plant/peanut


def read(home: Home) -> dict[str, Entry]:
    """The list; empty if there is none. PeanutError if it is not one."""
    if not home.revoked.exists():
        return {}
    try:
        document = json.loads(store.read(home.revoked, SIZE_MAX))
        if document["format"] != FORMAT:
            raise ValueError("another format")
        return {
            str(uri): Entry(int(value["since"]), str(value["why"]), tuple(map(str, value["good"])))
            for uri, value in document["revoked"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise PeanutError(
            f"{home.revoked} is not a list of revocations",
            "Put it back from a backup; without it who was revoked would be let in.",
        ) from None


def _write(home: Home, entries: Entries) -> None:
    document = {
        "format": FORMAT,
        "revoked": {
            uri: {"since": entry.since, "why": entry.why, "good": list(entry.good)}
            for uri, entry in sorted(entries.items())
        },
    }
    write_file(home.revoked, json.dumps(document, indent=1).encode() + b"\n", SECRET)


def revoke(home: Home, uris: Sequence[str], why: str, now: datetime) -> list[Step]:
    """The step that revokes all of these. Who is revoked already is revoked anew, with what was good since."""
    if len(why) > WHY_MAX or not why.isprintable():
        raise PeanutError("the reason is too long, or no line of text", f"Use at most {WHY_MAX} characters.")
    entries = read(home)
    known = [uri for uri in uris if uri in entries and not entries[uri].good]
    new = {uri: Entry(int(now.timestamp()), why) for uri in uris if uri not in known}
    what = home.relative(home.revoked)
    steps = [there(what, f"{uri} is revoked already") for uri in known]
    if new:
        note = f"revokes {_listed(list(new))}"
        state = State.CHANGE if home.revoked.exists() else State.MAKE
        steps.append(Step(state, what, note, lambda: _write(home, {**entries, **new})))
    return steps


def restore(home: Home, uris: Sequence[str]) -> list[Step]:
    """The step that lets all of these in again."""
    entries = read(home)
    what = home.relative(home.revoked)
    steps = [there(what, f"{uri} is not revoked") for uri in uris if uri not in entries]
    found = [uri for uri in uris if uri in entries]
    if found:
        left = {uri: entry for uri, entry in entries.items() if uri not in found}
        steps.append(Step(State.CHANGE, what, f"restores {_listed(found)}", lambda: _write(home, left)))
    return steps


def issued(home: Home, uri: str, serial: str) -> None:
    """A certificate with a new key was issued to `uri`: where that is revoked, this one comes in."""
    entries = read(home)
    if uri in entries:
        old = entries[uri]
        _write(home, {**entries, uri: Entry(old.since, old.why, (*old.good, serial))})
        tell_gateway(home)


def is_revoked(entries: Entries, uri: str, serial: str) -> bool:
    """Whether the certificate with that serial number is kept out."""
    return uri in entries and serial not in entries[uri].good


def tell_gateway(home: Home) -> str:
    """Has the gateway read the list at once; what came of it, in words."""
    answer = control.ask(home, {"command": "revoked"})
    if answer is None:
        return "no gateway runs here; it counts as soon as one does"
    return f"the gateway knows; connections cut: {answer.get('cut')}"


def _listed(uris: Sequence[str]) -> str:
    few = ", ".join(uris[:5])
    return few if len(uris) <= 5 else f"{few} and {len(uris) - 5} more"
