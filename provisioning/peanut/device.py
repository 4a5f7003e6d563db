"""Devices: enrolling one, completing one, copying its bundle out.

Rule: devices/<name>/ is the truth (key.der cert.der ca.der node.json), the ledger its index; `plan` brings both to what
was asked for, from whatever state an interrupted run left. A node's gateway is the fleet's, and follows it, unless it
was asked for with --set: device.toml beside the bundle remembers that, and does not go to the node.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509

from peanut import board as boards
from peanut import bundle, ca, credentials, ledger, modes, names, settings, signing, store, updatekey
from peanut.errors import PeanutError
from peanut.fields import Value
from peanut.home import PUBLIC, SECRET, Home, make_private_dir, write_file
from peanut.names import Kind
from peanut.plan import State, Step, there

DEFAULT_BOARD = "sim"  # no pin of anybody's hardware is at stake

DEVICE_TOML = "device.toml"
LISTED_MAX = 20  # devices that an error lists


@dataclass(frozen=True)
class Request:
    """What was asked for. board: None if not said; simulate: None if not said.

    refit: the device is about to be written to a board: take the board's tables as they are today, of another board if
    another one is named.
    """

    name: str
    kind: Kind
    board: str | None = None
    simulate: bool | None = None
    settings: bundle.Settings = ()
    refit: bool = False


@dataclass(frozen=True)
class Info:
    """What is known of an enrolled device.

    gateway_set: the keys of it that --set gave. problem: in words, empty if it is ready to be used; outdated: the same,
    empty if it looks for the fleet's gateway where that is.
    """

    row: ledger.Device
    root: str
    fingerprint: str
    days_left: int
    gateway: str
    gateway_set: tuple[str, ...]
    simulated: bool
    problem: str
    outdated: str


def plan(home: Home, request: Request, folder: Path, now: datetime) -> list[Step]:
    """The steps that make, complete or change a device. folder: of the boards."""
    name, kind = names.check_device(request.name, request.kind), request.kind
    where, uri = home.device(name), names.device_uri(name, kind)
    key, crt = where / "key.der", where / "cert.der"
    row = ledger.device(home.ledger, name)
    if row is not None and row.kind != kind:
        raise PeanutError(f"{name} is enrolled as a {row.kind}", f"Say --kind {row.kind}, or take another name.")
    explicit = explicit_gateway(home, name)
    node_step, node = _node(home, request, folder, row, explicit)

    def issue() -> None:
        made = ca.issue_client(store.key(key).public_key(), name, uri, store.issuing(home), now)
        write_file(crt, ca.certificate_der(made), PUBLIC)

    certificate_step = credentials.client_step(home, crt, key, uri, now, issue)
    return [
        *modes.plan(home, where, ["key.der", signing.KEY_FILE]),
        credentials.key_step(home, key, "its key"),
        *_signing_step(home, kind, where / signing.KEY_FILE),
        certificate_step,
        credentials.root_step(home, where / "ca.der"),
        *updatekey.device_step(home, name),
        *_device_toml(home, request, node, explicit),  # before node.json: what was asked for shall outlive a kill
        node_step,
        _row(home, name, row, node, certificate_step.state is not State.THERE, now),
    ]


def _signing_step(home: Home, kind: Kind, path: Path) -> list[Step]:
    """What a vehicle's commands are signed with. Never replaced: the vehicle knows the same."""
    if kind is not Kind.VEHICLE:
        return []
    what, note = home.relative(path), "what its commands are signed with"
    if path.exists():
        signing.read_key(path)
        return [there(what, note)]
    return [Step(State.MAKE, what, note, lambda: write_file(path, signing.new_key(), SECRET))]


def bundle_files(kind: Kind) -> Mapping[str, int]:
    """The files of a device bundle and their modes; the keys come first. A fleet of before has no update.pub."""
    secret = ("key.der", signing.KEY_FILE) if kind is Kind.VEHICLE else ("key.der",)
    names = dict.fromkeys((*secret, *bundle.FILES, updatekey.PUB))
    return {name: SECRET if name in secret else PUBLIC for name in names}


def wanted(home: Home, request: Request, folder: Path) -> bundle.Node:
    """node.json as `plan` would leave it."""
    row = ledger.device(home.ledger, names.check_device(request.name, request.kind))
    return _node(home, request, folder, row, explicit_gateway(home, request.name))[1]


def _node(
    home: Home, request: Request, folder: Path, row: ledger.Device | None, explicit: Mapping[str, Value]
) -> tuple[Step, bundle.Node]:
    path = home.device(request.name) / "node.json"
    what = home.relative(path)
    gateway = {**fleet_gateway(home), **explicit}
    if path.exists():
        old = read_node(path)
        if old.get("kind") != request.kind:
            raise PeanutError(f"{path} is for a {old.get('kind')}", "Move it away and run this again.")
        board_name = str(_table(old, "board").get("name"))
        if request.board is not None and request.board != board_name and not request.refit:
            raise PeanutError(
                f"{request.name} is on the board {board_name!r}", f"To change it, move {path} away and run this again."
            )
        new = json.loads(json.dumps(old)) | {"gateway": gateway}
        if request.refit:
            new = _refitted(new, boards.read(request.board or board_name, folder), request)
        elif request.simulate and "simulate" not in old:
            model = boards.read(board_name, folder).model(request.kind)
            if model is None:
                raise PeanutError(
                    f"there is no model of a {request.kind} on the board {board_name!r}", "Leave out --simulate."
                )
            new["simulate"] = dict(model)
        new = bundle.apply(new, request.settings)
    else:
        old = None
        board = boards.read(request.board or (row.board if row else DEFAULT_BOARD), folder)
        new = bundle.new_node(request.name, request.kind, board, gateway, simulate=request.simulate is True)
        new = bundle.apply(new, request.settings)
    host = new["gateway"]["host"]
    if host not in [*settings.hosts(home), *ca.LOOPBACK]:
        raise PeanutError(
            f"the gateway has no certificate for {host}: nodes would refuse it", f"First: peanut init --host {host}"
        )
    note = f"board {new['board']['name']}, gateway {host}:{new['gateway']['port']}"
    if old is None:
        return Step(State.MAKE, what, note, lambda: write_file(path, bundle.render(new), PUBLIC)), new
    changes = bundle.differences(old, new)
    if changes:
        note = f"{', '.join(changes)}; give the node its new bundle"
        return Step(State.CHANGE, what, note, lambda: write_file(path, bundle.render(new), PUBLIC)), new
    return there(what, note), new


def _refitted(old: bundle.Node, board: boards.Board, request: Request) -> bundle.Node:
    """node.json for the board as it is today. What was set for the device stays, but for what another board decides."""
    same = old["board"].get("name") == board.name
    simulate = request.simulate if request.simulate is not None else same and "simulate" in old and not board.simulated
    fresh = bundle.new_node(request.name, request.kind, board, old["gateway"], simulate=simulate)
    kept = ("control", "vehicle", "report", "link", "simulate") if same else ("control", "vehicle")
    return fresh | {key: old[key] for key in kept if key in old and (key in fresh or key == "vehicle")}


def fleet_gateway(home: Home) -> dict[str, Value]:
    """The gateway that nodes use unless told otherwise: the first host of fleet.toml, the port of gateway.toml."""
    known = settings.hosts(home)
    if not known:
        raise PeanutError(f"{home.fleet_toml} is missing", "Run `peanut init`: it makes it anew.")
    return {"host": known[0], "port": settings.mqtts_address(home)[1]}


def explicit_gateway(home: Home, name: str) -> dict[str, Value]:
    """What device.toml says of the gateway: the keys that were given with --set. Empty if there is no such file."""
    path = home.device(name) / DEVICE_TOML
    return settings.device_gateway(path) if path.exists() else {}


def _device_toml(home: Home, request: Request, node: bundle.Node, explicit: Mapping[str, Value]) -> list[Step]:
    path = home.device(request.name) / DEVICE_TOML
    given = {key: node["gateway"][key] for section, key, _ in request.settings if section == "gateway"}
    wanted = {**explicit, **given}
    if not wanted:
        return []
    what, note = home.relative(path), f"set for this device: {_pairs(wanted)}"
    if wanted == explicit:
        return [there(what, note)]
    state = State.CHANGE if path.exists() else State.MAKE
    return [Step(state, what, note, lambda: write_file(path, settings.device_toml(wanted), PUBLIC))]


def _pairs(values: Mapping[str, Value]) -> str:
    return ", ".join(f"gateway.{key}={value}" for key, value in sorted(values.items()))


def outdated(home: Home, name: str, fleet: Mapping[str, Value]) -> str:
    """How a node's gateway differs from the present one, in words; empty if it does not.

    fleet: fleet_gateway(home). Raises PeanutError if node.json or device.toml cannot be read.
    """
    node = read_node(home.device(name) / "node.json")
    wanted = {**fleet, **explicit_gateway(home, name)}
    there_is = {key: node["gateway"].get(key) for key in wanted}
    changes = bundle.differences({"gateway": there_is}, {"gateway": wanted})
    if changes:
        return f"node.json is out of date ({', '.join(changes)})"
    host = wanted["host"]
    if host != fleet["host"] and host not in [*settings.hosts(home), *ca.LOOPBACK]:
        return f"the gateway has no certificate for {host}, which {DEVICE_TOML} names"
    return ""


def _row(home: Home, name: str, row: ledger.Device | None, node: bundle.Node, reissued: bool, now: datetime) -> Step:
    created = row.created if row else int(now.timestamp())

    def record() -> None:
        made = store.certificate(home.device(name) / "cert.der")
        with ledger.opened(home.ledger) as connection:
            ledger.put(connection, _row_of(name, node, made, created))

    what = home.relative(home.ledger)
    if row is None:
        return Step(State.MAKE, what, f"row of {name}", record)
    if reissued or row != _row_of(name, node, store.certificate(home.device(name) / "cert.der"), created):
        return Step(State.CHANGE, what, f"row of {name}", record)
    return there(what, f"row of {name}")


def record(home: Home, name: str) -> None:
    """The ledger's row of a device, as its bundle is now."""
    node, made = read_node(home.device(name) / "node.json"), store.certificate(home.device(name) / "cert.der")
    known = ledger.device(home.ledger, name)
    created = known.created if known else int(made.not_valid_before_utc.timestamp())
    with ledger.opened(home.ledger) as connection:
        ledger.put(connection, _row_of(name, node, made, created))


def _row_of(name: str, node: bundle.Node, certificate: x509.Certificate, created: int) -> ledger.Device:
    return ledger.Device(
        name=name,
        kind=str(node["kind"]),
        board=str(_table(node, "board")["name"]),
        serial=f"{certificate.serial_number:x}",
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        created=created,
    )


def rows_from_bundles(home: Home) -> list[ledger.Device]:
    """The rows of a ledger that was lost, as the device bundles tell them. Incomplete bundles are left out."""
    rows = []
    for path in sorted(home.devices.glob("*/cert.der")):
        name = path.parent.name
        if (path.parent / "node.json").exists():
            certificate, node = store.certificate(path), read_node(path.parent / "node.json")
            # when it was first enrolled is forgotten; its certificate is the best witness
            created = int((certificate.not_valid_before_utc + ca.BACKDATE).timestamp())
            rows.append(_row_of(name, node, certificate, created))
    return rows


def read_node(path: Path) -> bundle.Node:
    """node.json as it is on disk; PeanutError if it is not one."""
    try:
        node = json.loads(store.read(path))
    except ValueError:
        node = None
    if (
        not isinstance(node, dict)
        or not isinstance(node.get("board"), dict)
        or not isinstance(node.get("gateway"), dict)
    ):
        raise PeanutError(f"{path} is not a node's configuration", "Move it away and run `peanut device add` again.")
    return node


def _table(node: bundle.Node, key: str) -> dict[str, Any]:
    found = node.get(key)
    return found if isinstance(found, dict) else {}


def row(home: Home, name: str) -> ledger.Device:
    """The ledger's row of an enrolled device; PeanutError if there is none: it lists those there are, and the fix."""
    home.require()
    rows = ledger.devices(home.ledger)
    for found in rows:
        if found.name == name:
            return found
    listed = ", ".join(d.name for d in rows[:LISTED_MAX]) + (", …" if len(rows) > LISTED_MAX else "")
    raise PeanutError(
        f"there is no device {names.printable(name)!r}",
        f"{f'Devices: {listed}.' if rows else 'There are none yet.'} Enrol one: peanut device add NAME --kind KIND",
    )


def info(home: Home, found: ledger.Device, now: datetime) -> Info:
    """Everything about one device that is no secret."""
    where = home.device(found.name)
    fingerprint, gateway, simulated, problem = "", "", False, ""
    given: tuple[str, ...] = ()
    left = (datetime.fromtimestamp(found.not_after, now.tzinfo) - now).days
    try:
        certificate, node = check(home, found)
        fingerprint, left = ca.fingerprint(certificate), ca.days_left(certificate, now)
        gateway = f"{node['gateway'].get('host')}:{node['gateway'].get('port')}"
        simulated = "simulate" in node
        if certificate.not_valid_after_utc <= now:
            problem = f"expired on {certificate.not_valid_after_utc:%Y-%m-%d}"
    except PeanutError as error:
        problem = error.message.replace(f"{where}/", "")
    try:
        given = tuple(explicit_gateway(home, found.name))
        old = outdated(home, found.name, fleet_gateway(home)) if gateway else ""
    except PeanutError as error:
        old = error.message
    root = names.topic_root(found.name, Kind(found.kind))
    return Info(found, root, fingerprint, left, gateway, given, simulated, problem, old)


def check(home: Home, found: ledger.Device) -> tuple[x509.Certificate, bundle.Node]:
    """The certificate and node.json of a device; PeanutError if the parts of its bundle do not fit each other."""
    # This is found here, and not by a node on a pole.
    where = home.device(found.name)
    certificate, node = store.certificate(where / "cert.der"), read_node(where / "node.json")
    if not ca.same_key(certificate, store.key(where / "key.der")):
        raise PeanutError(f"{where / 'cert.der'} is for another key")
    if not any(ca.issued_by(certificate, issuer) for issuer in store.certificates(home.ca / "issuing.crt")):
        raise PeanutError(f"{where / 'cert.der'} was not issued by this fleet's CA")
    if ca.san_uris(certificate) != [names.device_uri(found.name, Kind(found.kind))]:
        raise PeanutError(f"{where / 'cert.der'} names somebody else")
    if store.read(where / "ca.der") not in map(ca.certificate_der, store.roots(home)):
        raise PeanutError(f"{where / 'ca.der'} is not this fleet's root")
    if found.kind == Kind.VEHICLE:
        signing.read_key(where / signing.KEY_FILE)
    return certificate, node


def copy_bundle(home: Home, name: str, out: Path, say: Callable[[str], None], *, force: bool, dry_run: bool) -> None:
    """Copy the files of a bundle to `out`, keys 0600; an earlier copy of the same device's bundle is replaced.

    Raises PeanutError, with nothing written, if the bundle is not whole, or if `out` holds anything else and `force`
    is not set.
    """
    found = row(home, name)
    source = home.device(name)
    try:
        check(home, found)
    except PeanutError as error:
        raise PeanutError(
            error.message, f"Run `peanut device add {name} --kind {found.kind}`: it completes the bundle."
        ) from None
    if out.resolve() == source.resolve():
        raise PeanutError(f"{out} is where the bundle is already", "Name another directory.")
    if out.exists() and not out.is_dir():
        raise PeanutError(f"{out} is not a directory", "Name another one.")
    if out.is_dir() and not force and not _holds_only(out, home, found):
        raise PeanutError(
            f"{out} is not empty, and holds something else than a bundle of {name}",
            "Name another directory, or replace the bundle's files in it with --force.",
        )
    files = {
        n: mode for n, mode in bundle_files(Kind(found.kind)).items() if n != updatekey.PUB or (source / n).exists()
    }
    for file in files:
        say(f"  copy  {out / file}")
    if dry_run:
        say("Dry run: nothing was written.")
        return
    make_private_dir(out)
    for file, mode in files.items():
        write_file(out / file, store.read(source / file), mode)


def _holds_only(out: Path, home: Home, found: ledger.Device) -> bool:
    """Whether `out` is empty or holds files of this device's bundle and nothing else; an interrupted copy counts."""
    there_are = {path.name for path in out.iterdir()}
    if not there_are or not there_are <= set(bundle_files(Kind(found.kind))):
        return not there_are
    source, uri = home.device(found.name), names.device_uri(found.name, Kind(found.kind))
    try:
        if "ca.der" in there_are and store.read(out / "ca.der") != store.read(source / "ca.der"):
            return False  # of another fleet
        said = []
        if "node.json" in there_are:
            said.append(read_node(out / "node.json").get("name") == found.name)
        if "cert.der" in there_are:
            said.append(ca.san_uris(store.certificate(out / "cert.der")) == [uri])
        # The key comes first, and by itself says nothing of whose it is but that it is the same.
        return all(said) if said else all(store.read(out / key) == store.read(source / key) for key in there_are)
    except PeanutError:
        return False


def warnings(request: Request, folder: Path) -> Sequence[str]:
    """What the operator should know and `plan` does not mind."""
    found = []
    if request.kind is Kind.VEHICLE:
        digit = names.vin_check_digit(request.name)
        if request.name[8] != digit:
            found.append(
                f"the check digit of {request.name} is {request.name[8]}, and would be {digit} in North America: "
                "look again for a slip of the pen"
            )
    if request.board is not None:
        found += [f"board {request.board}: {w}" for w in boards.read(request.board, folder).warnings]
    return found
