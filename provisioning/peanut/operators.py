"""Operator accounts: a client certificate that may command every node and read everything.

Rule: operators/<name>/ holds operator.crt, operator.key and ca.crt (PEM): what any MQTT client takes as it is.
"""

from datetime import datetime

from peanut import ca, credentials, ledger, modes, names, store
from peanut.home import PUBLIC, Home, write_file
from peanut.plan import State, Step

KEY, CERTIFICATE, ROOT = "operator.key", "operator.crt", "ca.crt"


def existing(home: Home) -> list[str]:
    """Names of the operators of this home, half-made ones among them."""
    if not home.operators.is_dir():
        return []
    found = (p.name for p in home.operators.iterdir() if p.is_dir())
    return sorted(name for name in found if names.is_name(name))


def renew(home: Home, name: str, now: datetime) -> list[Step]:
    """The step that gives an operator a new certificate for the same key."""
    return plan(home, name, now, due=True)


def plan(home: Home, name: str, now: datetime, *, due: bool = False) -> list[Step]:
    """The steps that make this operator, complete a half-made one or renew an expiring one."""
    names.check_name(name, "operator's name")
    folder = home.operator(name)
    steps = modes.plan(home, folder, [KEY])
    steps.append(credentials.key_step(home, folder / KEY, "its key"))

    def issue() -> None:
        public = store.key(folder / KEY).public_key()
        made = ca.issue_client(public, name, names.operator_uri(name), store.issuing(home), now)
        if home.ledger.exists():  # else `peanut init` is to make it anew, from the devices' bundles
            with ledger.opened(home.ledger) as connection:  # before it is anywhere: who is revoked is so with this one
                end = int(made.not_valid_after_utc.timestamp())
                ledger.put_issued(connection, ledger.Issued(f"{made.serial_number:x}", name, ledger.OPERATOR, end))
        write_file(folder / CERTIFICATE, ca.certificate_pem(made), PUBLIC)

    uri = names.operator_uri(name)
    if due:
        what = home.relative(folder / CERTIFICATE)
        note = f"new certificate for {uri}, whose old one is due; give it to whoever uses it elsewhere"
        return [Step(State.CHANGE, what, note, issue)]
    steps.append(credentials.client_step(home, folder / CERTIFICATE, folder / KEY, uri, now, issue))
    steps.append(credentials.root_step(home, folder / ROOT))
    return steps
