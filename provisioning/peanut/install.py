"""The whole of `peanut flash` for one board: from the port to the node's birth on the gateway, step by step.

Rule: what can be refused is refused before the first byte is written; after it, running the same command again goes on.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from peanut import application, device, flash, fsimage, ledger, loader, plan, serialport, session, settings, watch
from peanut import image as images
from peanut.board import Board
from peanut.errors import Exit, PeanutError
from peanut.home import Home
from peanut.loader import Chip, Loader, Progress
from peanut.names import Kind, topic_root
from peanut.watch import Birth, Console
from peanut.wifi import Wifi

STATUS_S = 1.0  # a retained status arrives with the SUBACK; this long after it, there is none


@dataclass(frozen=True)
class Order:
    """What was asked for. networks: none for a wired board; flash_mb: 0 unless --flash-mb was given."""

    name: str
    kind: Kind
    board: Board
    port: str
    networks: Wifi
    boards: Path
    simulate: bool | None = None
    factory: bool = False
    only_new: bool = False
    image: Path | None = None
    sha256: str = ""
    flash_mb: int = 0
    manual: bool = False
    patience: float = 1.0
    wait: bool = True
    operator: str | None = None


@dataclass(frozen=True)
class Voice:
    """How a run talks. bar: a context that shows the progress of one step."""

    say: Callable[[str], None]
    warn: Callable[[str], None]
    bar: Callable[[str], AbstractContextManager[Progress]]


def dry_run(home: Home, order: Order, voice: Voice, now: datetime) -> None:
    """Say what would be done, and touch neither the board nor the fleet home."""
    steps = device.plan(home, _request(order), order.boards, now)
    for line in plan.render(steps):
        voice.say(line)
    node = device.wanted(home, _request(order), order.boards)
    files = flash.fresh(home, node, order.networks, application.folder())
    assert order.board.image is not None
    if order.image is not None or images.available(order.board):
        image = images.get(order.board, home, voice.say, file=order.image, sha256=order.sha256)
        pieces = flash.parts(order.board, image, files, order.flash_mb)
    else:
        pieces = [
            loader.Part("file system", order.board.fs_offset + at, data)
            for at, data in fsimage.build(files, order.board.fs_bytes(order.flash_mb)).items()
        ]
        voice.say(f"  fetch  {order.board.image.file}, for {order.board.image.offset:#08x}")
    for line in flash.listing(pieces, files, order.board.fs_bytes(order.flash_mb)):
        voice.say(line)
    voice.say("Dry run: nothing was written, and the board was not touched.")


def judge(home: Home, order: Order, now: datetime) -> None:
    """Refuse what cannot become a node, as far as that can be told without the board, whose node may be at work."""
    steps = device.plan(home, _request(order), order.boards, now)
    if all(step.state is plan.State.THERE for step in steps):
        flash.check_bundle(home, device.row(home, order.name), now)
    device.wanted(home, _request(order), order.boards)
    if order.image is not None or images.available(order.board):
        images.get(order.board, home, lambda _: None, file=order.image, sha256=order.sha256)
    if order.wait and order.operator is not None:
        session.credentials(home, order.operator, now)


def _request(order: Order) -> device.Request:
    return device.Request(order.name, order.kind, order.board.name, order.simulate, refit=True)


def run(home: Home, order: Order, board: Loader, chip: Chip, voice: Voice, now: datetime) -> None:
    """Write and start a board that has been identified. PeanutError if the node does not come online."""
    found, before, image = _write(home, order, board, chip, voice, now)
    if order.wait:
        follow(home, order, board, found, before, voice, now)
    elif board.by_hand:
        voice.say("Press and release RESET (EN) to start it.")
    else:
        board.release()
    with home.lock(voice.warn):
        flash.record(home, order.name, order.port, chip, image, now, done=True)


def _write(
    home: Home, order: Order, board: Loader, chip: Chip, voice: Voice, now: datetime
) -> tuple[ledger.Device, bytes, images.Image]:
    """Up to the last byte. The device, what the gateway said of it before, and what it runs on."""
    flash.check_chip(chip, order.board, order.flash_mb)
    other = flash.device_on(home, chip.mac)
    if order.only_new and other not in ("", order.name):
        raise PeanutError(
            f"the board {chip.mac} on {order.port} is {other} already", "Put a new one there, and run this again."
        )
    with home.lock(voice.warn):
        steps = [s for s in device.plan(home, _request(order), order.boards, now) if s.state is not plan.State.THERE]
        if steps:
            plan.carry_out(steps, voice.say, dry_run=False)
    found = device.row(home, order.name)
    node = flash.check_bundle(home, found, now)
    with voice.bar("image") as progress:
        image = images.get(order.board, home, voice.say, progress, order.image, order.sha256)
    new = flash.fresh(home, node, order.networks, application.folder())
    before = _status_before(home, order, found, voice, now)

    board.baud = order.board.baud
    where = home.device(order.name)
    there, copy = (None, b"") if order.factory else _there(board, order, where, chip, voice)
    contents = flash.merge(new, there, order.name, home, now)
    for note in contents.notes:
        voice.say(f"  note   {note}")
    if contents.kept:
        voice.say(f"  keep   {', '.join(contents.kept)}")
    pieces = flash.parts(order.board, image, contents.files, order.flash_mb)
    for line in flash.listing(pieces, contents.files, order.board.fs_bytes(order.flash_mb)):
        voice.say(line)
    with home.lock(voice.warn):
        images.pin(home, image, order.board)
        flash.record(home, order.name, order.port, chip, image, now, done=False)
    stranger = there is not None and not contents.kept and bool(contents.notes)
    with flash.safe(where, chip.mac, copy), voice.bar("writing") as progress:
        # what another node left in the flash is nobody's business any more
        board.write(pieces, erase_all=order.factory or stranger, progress=progress)
    voice.say(f"written and verified: {order.name} is on the board {chip.mac}")
    return found, before, image


def _there(board: Loader, order: Order, where: Path, chip: Chip, voice: Voice) -> tuple[fsimage.Files | None, bytes]:
    rescued = flash.interrupted(where, chip.mac)
    if rescued is not None:
        voice.say("  note   an earlier write broke off: what the node kept comes from the copy made then")
        return rescued, b""
    with voice.bar("reading") as progress:
        return flash.read_back(board, order.board, order.flash_mb, progress)


def _session(home: Home, order: Order, found: ledger.Device, birth: Birth, now: datetime) -> session.Session:
    files = session.credentials(home, order.operator, now)
    address = settings.connect_address(home)
    topic = f"{topic_root(found.name, Kind(found.kind))}/status"
    return session.Session(address, session.tls(files), [topic], order.name, birth.hear)


def _status_before(home: Home, order: Order, found: ledger.Device, voice: Voice, now: datetime) -> bytes:
    """What the gateway says of the node now, so that its next birth is told from this one."""
    birth = Birth()
    if not order.wait:
        return b""
    deadline = time.monotonic() + STATUS_S
    try:
        with connected(_session(home, order, found, birth, now)) as gateway:
            gateway.until(
                lambda: bool(birth.latest) or time.monotonic() > deadline,
                2 * STATUS_S,
                lambda: PeanutError("the gateway does not answer"),
            )
    except PeanutError as error:
        voice.warn(f"Warning: {error.message}. The board is written all the same.")
    return birth.latest


@contextlib.contextmanager
def connected(one: session.Session) -> Iterator[session.Session]:
    """A session for as long as the block lasts."""
    one.connect()
    try:
        yield one
    finally:
        one.close()


def follow(
    home: Home, order: Order, board: Loader, found: ledger.Device, before: bytes, voice: Voice, now: datetime
) -> None:
    """Start the node, and say that it is online; PeanutError that says where it hangs. before: its last status."""
    birth, console = Birth(before), Console()
    limit = watch.ONLINE_S * order.patience
    missing: PeanutError | None = None
    with contextlib.ExitStack() as stack:
        gateway: session.Session | None = None
        try:
            gateway = stack.enter_context(connected(_session(home, order, found, birth, now)))
        except PeanutError as error:
            missing = error
        stack.enter_context(watch.listening(order.port, console.hear, reset=not board.by_hand))
        if board.by_hand:
            voice.say("If it does not start by itself: press and release RESET (EN), without BOOT.")
        voice.say(f"waiting for {order.name} to come online, for up to {limit:.0f} s")
        if missing is not None:
            voice.warn(_without_gateway(home, missing))
        try:
            took = watch.wait(gateway, birth, console, order.name, limit)
        except PeanutError as error:
            if missing is None:
                raise
            raise PeanutError(
                error.message, f"{_without_gateway(home, missing)}\n  {error.fix}", error.status
            ) from None
    if missing is not None:
        raise PeanutError(
            f"{order.name} is written, and says that it is online; {missing.message}", missing.fix, missing.status
        )
    voice.say(f"{order.name} is online, {took:.0f} s after its start")


def _without_gateway(home: Home, missing: PeanutError) -> str:
    """That nobody but the node can tell, why, and what to do: a waiting operator can start the gateway meanwhile."""
    if missing.status is not Exit.UNREACHABLE:
        return f"The gateway cannot be asked: {missing.message}."
    host, port = settings.connect_address(home)
    return f"The gateway cannot be reached at {host}:{port}. Start it there: peanutd, in a terminal of its own."


def port_of(home: Home, text: str) -> str:
    """NAME or PORT: the port that a device was written through, or the port itself."""
    if "/" in text:
        return serialport.check(text)
    port = flash.recorded_port(home, text)
    if not port:
        raise PeanutError(
            f"{text} has not been written to a board from here", "Give the port instead, like /dev/ttyUSB0."
        )
    return serialport.check(port)
