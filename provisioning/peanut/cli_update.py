"""`peanut update`: firmware over the air."""

import contextlib
import fcntl
import os
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from peanut import (
    application,
    board,
    bundle,
    ca,
    courier,
    device,
    ledger,
    release,
    rollout,
    running,
    session,
    settings,
    store,
    updatekey,
)
from peanut.cli import boards_option, json_option, pass_home, say, say_json, table, warn
from peanut.errors import Exit, PeanutError
from peanut.home import PUBLIC, SECRET, Home, write_file
from peanut.names import Kind, split_host_port
from peanut.rollout import BAD, Rollout, State, Step

ROLLOUT = "rollout.json"
WISH = "rollout.wish"  # what pause and withdraw leave for the push that runs
LOCK = ".push.lock"
WISH_S = 15.0  # for a push that runs to do as is wished
SHOWN_S = 2.0  # between two lines of progress, where there is no terminal
FILE_MAX = release.SIZE_MAX + release.OFFER_MAX + 16

gateway_option = click.option(
    "--gateway", metavar="HOST[:PORT]", help="Default: this machine, at the port in gateway.toml."
)
operator_option = click.option(
    "--operator", metavar="NAME", help="Whose certificate to use. Default: operator, or the only one."
)
wait_option = click.option(
    "--wait/--no-wait", default=True, help="End when only nodes that are away are left. Default: wait for them."
)


@click.group("update")
def update_group() -> None:
    """Bring nodes new firmware over the air.

    \b
    Examples:
      peanut update build --kind greenhouse
      peanut update push
      peanut update status
    """


@update_group.command("build")
@click.option("--kind", type=click.Choice([str(k) for k in Kind]), default="greenhouse", show_default=True)
@click.option("--board", "wanted", multiple=True, metavar="BOARD", help="For nodes on these boards, and no others.")
@click.option("--version", help="What people call it. Default: the firmware's own.")
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A MicroPython image (.app-bin) for boards with two slots, in place of the application.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Default: updates/KIND-NUMBER.update in the fleet home.")
@click.option(
    "--key",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The signing key, where it is not in the fleet home.",
)
@boards_option
@pass_home
def build_command(
    home: Home,
    kind: str,
    wanted: tuple[str, ...],
    version: str | None,
    image: Path | None,
    out: Path | None,
    key: Path | None,
    folder: Path | None,
) -> None:
    """Compile the firmware and sign it as an update.

    \b
    Examples:
      peanut update build
      peanut update build --kind greenhouse --board xiao-esp32c3 --version 0.2.0
      peanut update build --image ESP32_GENERIC-OTA.app-bin --board esp32-devkitc --version 1.29.0
    """
    home.require()
    signing = updatekey.load(home, key)
    if image is not None and not wanted:
        raise PeanutError("an image is for one sort of board", "Say which: --board BOARD")
    with home.lock(warn):
        seq = max([int(time.time()), *(number + 1 for number in _numbers(home))])
        if image is not None:
            files = release.pieces(store.read(image, release.SIZE_MAX))
            name = version or image.stem
        else:
            firmware = application.folder()
            files = application.released(kind, firmware, [_node(one, Kind(kind), folder) for one in wanted])
            name = version or application.version(firmware)
        made = release.pack(
            files,
            signing,
            seq=seq,
            version=name[: release.VERSION_MAX],
            kind=kind,
            boards=wanted,
            image=image is not None,
        )
        path = out or home.updates / f"{kind}-{seq}.update"
        write_file(path, made.file, PUBLIC)
    what = "image" if image is not None else f"{len(files)} files"
    whom = ", ".join(wanted) or f"every {kind}"
    say(f"{path}: number {seq}, version {name}, {what}, {len(made.stream)} bytes, for {whom}")


def _node(name: str, kind: Kind, folder: Path | None) -> bundle.Node:
    """The node.json of some node on a board, for the drivers that it names."""
    found = board.read(name, board.folder(folder))
    return bundle.new_node("node", kind, found, {}, simulate=found.model(kind) is not None)


def _numbers(home: Home) -> Iterator[int]:
    for path in home.updates.glob("*-*.update"):
        number = path.stem.rpartition("-")[2]
        if number.isdigit():
            yield int(number)


@update_group.command("push")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--to", "to", multiple=True, metavar="NAME", help="Only these nodes. Default: every node that it is for.")
@click.option(
    "--stages",
    default=rollout.STAGES,
    show_default=True,
    metavar="LIST",
    help="Nodes that have it at the end of each stage.",
)
@click.option(
    "--stop-above",
    default=rollout.STOP_ABOVE,
    show_default=True,
    metavar="PERCENT",
    help="Share of nodes that do not keep it, above which it stops.",
)
@wait_option
@gateway_option
@operator_option
@pass_home
def push_command(
    home: Home,
    file: Path | None,
    to: tuple[str, ...],
    stages: str,
    stop_above: str,
    wait: bool,
    gateway: str | None,
    operator: str | None,
) -> None:
    """Roll an update out, stage by stage. FILE: what `build` wrote; default: the latest.

    A stage begins when the nodes of the one before have kept it: connected, without new faults, for five minutes. The
    same command again goes on where it was interrupted.

    \b
    Examples:
      peanut update push
      peanut update push --to peanut
      peanut update push fleet/updates/greenhouse-1795287600.update --stages 1,10%,100% --stop-above 1%

    \b
    Exit status:
      0  done, paused or withdrawn     1  stopped: too many nodes did not keep it
    """
    home.require()
    path = (file or _latest(home)).absolute()
    found = release.read(store.read(path, FILE_MAX), str(path), updatekey.modulus(home))
    plan, above = rollout.stages(stages), rollout.percentage(stop_above)
    with _alone(home):
        old = _read(home)
        if old is not None and old.seq == found.manifest.seq and old.state in (State.RUNNING, State.PAUSED) and not to:
            old.stages, old.stop_above, old.state = plan, above, State.RUNNING
            going = old
        else:
            if old is not None and old.state == State.RUNNING and old.seq != found.manifest.seq:
                raise PeanutError(
                    f"the update {old.seq} is still on its way",
                    "First: peanut update withdraw (or push that one to its end).",
                )
            m = found.manifest
            targets = _targets(home, found, to)
            going = rollout.begin(str(path), m.seq, m.version, m.kind, m.image, targets, plan, above)
        _carry(home, going, found, gateway, operator, wait)


def _latest(home: Home) -> Path:
    numbers = {
        int(p.stem.rpartition("-")[2]): p
        for p in home.updates.glob("*-*.update")
        if p.stem.rpartition("-")[2].isdigit()
    }
    if not numbers:
        raise PeanutError("no update has been built here", "First: peanut update build")
    return numbers[max(numbers)]


def _targets(home: Home, found: release.Release, to: tuple[str, ...]) -> list[str]:
    m = found.manifest
    rows = [r for r in ledger.devices(home.ledger) if r.kind == m.kind and (not m.boards or r.board in m.boards)]
    fitting = [row.name for row in rows]
    for name in to:
        if name not in fitting:
            row = device.row(home, name)
            raise PeanutError(
                f"this update is not for {name}, a {row.kind} on the board {row.board}", "Build one that is."
            )
    return [name for name in fitting if not to or name in to]


def _way(home: Home, gateway: str | None, operator: str | None) -> tuple[tuple[str, int], ssl.SSLContext]:
    """Where the gateway is, and how it is spoken to."""
    files = session.credentials(home, operator, ca.utc_now())
    address = split_host_port(gateway, settings.MQTTS_PORT) if gateway else settings.connect_address(home)
    return address, session.tls(files)


def _carry(
    home: Home, plan: Rollout, found: release.Release, gateway: str | None, operator: str | None, wait: bool
) -> None:
    address, context = _way(home, gateway, operator)
    wish = home.updates / WISH
    wish.unlink(missing_ok=True)
    _keep(home, plan)

    def read() -> State | None:
        with contextlib.suppress(OSError, ValueError):
            return State(wish.read_text().strip())
        return None

    say(f"update {plan.seq}, version {plan.version}, to {len(plan.nodes)} nodes: {', '.join(plan.stages)}")
    show = Progress()
    one = courier.Courier(plan, found, address, context, courier.Wishes(read, lambda p: _keep(home, p)), show.show)
    try:
        one.run(wait)
    finally:
        wish.unlink(missing_ok=True)
    show.end(plan)
    if plan.state == State.STOPPED:
        raise PeanutError(
            f"stopped: {plan.why}", "Nodes that kept it have it. Build a better one and push that.", Exit.REJECTED
        )
    if plan.state == State.RUNNING:
        away = [n for n, node in plan.nodes.items() if node.step not in (Step.GOOD, *BAD)]
        say(f"{len(away)} nodes are away; they get it with `peanut update resume`")
    elif plan.state != State.DONE:
        say(
            f"{plan.state}; nodes that kept it have it"
            + (", `peanut update resume` goes on" if plan.state == State.PAUSED else "")
        )


class Progress:
    """Lines that say how it stands, one in place where there is a terminal."""

    def __init__(self) -> None:
        self._said = ""
        self._at = 0.0

    def show(self, plan: Rollout) -> None:
        """How it stands now."""
        text = line(plan)
        if text == self._said:
            return
        if sys.stdout.isatty():
            click.echo(f"\r\x1b[K{text}", nl=False)
        elif time.monotonic() - self._at < SHOWN_S:
            return
        else:
            say(text)
        self._said, self._at = text, time.monotonic()

    def end(self, plan: Rollout) -> None:
        """How it ended."""
        if sys.stdout.isatty():
            click.echo("\r\x1b[K", nl=False)
        say(line(plan))
        for name, node in plan.nodes.items():
            if node.step in BAD:
                say(f"  {name}: {node.step}: {node.why}")


def line(plan: Rollout) -> str:
    """How it stands, in a line."""
    counts = ", ".join(f"{plan.count(step)} {step}" for step in Step if plan.count(step))
    return f"stage {plan.stage + 1} of {len(plan.stages)} ({plan.target(plan.stage)} nodes): {counts}"


@update_group.command("resume")
@wait_option
@gateway_option
@operator_option
@pass_home
def resume_command(home: Home, wait: bool, gateway: str | None, operator: str | None) -> None:
    """Go on with a roll-out that was paused or interrupted."""
    home.require()
    with _alone(home):
        plan = _need(home)
        if plan.state not in (State.RUNNING, State.PAUSED):
            raise PeanutError(
                f"the roll-out of {plan.seq} is {plan.state}", "Nothing to go on with: peanut update push"
            )
        found = release.read(store.read(Path(plan.file), FILE_MAX), plan.file, updatekey.modulus(home))
        plan.state = State.RUNNING
        _carry(home, plan, found, gateway, operator, wait)


@update_group.command("pause")
@pass_home
def pause_command(home: Home) -> None:
    """Offer the update to no more nodes. Those that have it whole still try it."""
    _wish(home, State.PAUSED, None, None)


@update_group.command("withdraw")
@gateway_option
@operator_option
@pass_home
def withdraw_command(home: Home, gateway: str | None, operator: str | None) -> None:
    """Take an update back: nodes that receive it drop it, nodes that try it return. Those that kept it keep it."""
    _wish(home, State.WITHDRAWN, gateway, operator)


def _wish(home: Home, state: State, gateway: str | None, operator: str | None) -> None:
    home.require()
    plan = _need(home)
    if plan.state not in (State.RUNNING, State.PAUSED):
        raise PeanutError(f"the roll-out of {plan.seq} is {plan.state}", "There is nothing to stop.")
    write_file(home.updates / WISH, f"{state}\n".encode(), SECRET)
    end = time.monotonic() + WISH_S
    while time.monotonic() < end:  # a push that runs does it
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(_alone(home))
            except PeanutError:
                time.sleep(0.1)
                continue
            (home.updates / WISH).unlink(missing_ok=True)
            _settle(home, state, gateway, operator)
            return
    raise PeanutError("the push that runs does not answer", "End it with Ctrl-C, and run this again.")


def _settle(home: Home, state: State, gateway: str | None, operator: str | None) -> None:
    """No push runs, any more or at all: do here what it has not done."""
    plan = _need(home)
    if plan.state in (State.RUNNING, State.PAUSED) and plan.state != state:
        plan.state = state
        if state is State.WITHDRAWN:
            found = release.read(store.read(Path(plan.file), FILE_MAX), plan.file, updatekey.modulus(home))
            _carry(home, plan, found, gateway, operator, False)
        _keep(home, plan)
    say(f"the update {plan.seq} is {plan.state}")


@update_group.command("status")
@json_option
@gateway_option
@operator_option
@pass_home
def status_command(home: Home, as_json: bool, gateway: str | None, operator: str | None) -> None:
    """How the last roll-out stands, and what each node runs, as the nodes say it now.

    Without the gateway it says what the fleet home knows, which is the roll-out.
    """
    home.require()
    plan = _read(home)
    found, error = _running(home, gateway, operator)
    if error is not None and (plan is None or gateway or operator):
        raise error
    if as_json:
        runs = None if found is None else {name: asdict(one) for name, one in found.items()}
        say_json((_facts(plan) if plan else {}) | {"running": runs})
        return
    if plan is None:
        say("nothing has been rolled out yet")
    else:
        say(f"update {plan.seq}, version {plan.version}: {plan.state}{': ' + plan.why if plan.why else ''}")
        say(line(plan))
    if error is not None:
        warn(f"what the nodes run is not known: {error.message}")
    rows = []
    for name in sorted({*(found or ()), *(plan.nodes if plan else ())}):
        one = (found or {}).get(name, running.Running())
        node = plan.nodes.get(name) if plan else None
        step = f"{node.step}{': ' + node.why if node.why else ''}" if node else ""
        number = "" if one.seq is None else str(one.seq) if one.seq else "flashed"
        rows.append((name, one.presence, one.version or "", number, one.slot or "", step, one.update))
    if rows:
        table(("node", "is", "runs", "number", "slot", "roll-out", "last update"), rows)


def _running(
    home: Home, gateway: str | None, operator: str | None
) -> tuple[dict[str, running.Running] | None, PeanutError | None]:
    """What the nodes say that they run; or why nobody can say."""
    try:
        address, context = _way(home, gateway, operator)
        return running.ask(address, context, [(row.name, Kind(row.kind)) for row in ledger.devices(home.ledger)]), None
    except PeanutError as error:
        return None, error


def _facts(plan: Rollout) -> dict[str, object]:
    """The roll-out, for programs."""
    return {
        "seq": plan.seq,
        "version": plan.version,
        "state": plan.state,
        "why": plan.why,
        "stage": plan.stage + 1,
        "stages": plan.stages,
        "nodes": {name: {"step": node.step, "why": node.why} for name, node in plan.nodes.items()},
    }


@contextlib.contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One push at a time; PeanutError if there is another."""
    fd = os.open(home.updates / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, SECRET)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PeanutError("another push is running", "See peanut update status; or end that one.") from None
        yield
    finally:
        os.close(fd)


def _read(home: Home) -> Rollout | None:
    path = home.updates / ROLLOUT
    return rollout.parse(store.read(path, FILE_MAX), str(path)) if path.exists() else None


def _need(home: Home) -> Rollout:
    found = _read(home)
    if found is None:
        raise PeanutError("nothing has been rolled out yet", "First: peanut update build, peanut update push")
    return found


def _keep(home: Home, plan: Rollout) -> None:
    write_file(home.updates / ROLLOUT, plan.render(), SECRET)
