"""`peanut flash`: one board, with questions where there is a terminal, or many.

Rule: what can be judged without the board is judged before its port is opened: a typo stops no node that runs.
"""

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from peanut import board as boards
from peanut import ca, carton, flash, install, labels, ledger, names, serialport, wifi
from peanut import image as images
from peanut.board import Board
from peanut.chips import CHIPS
from peanut.cli import boards_option, pass_home, say, warn
from peanut.errors import PeanutError
from peanut.home import PUBLIC, Home, write_file
from peanut.install import Order, Voice
from peanut.loader import Chip, Loader, Progress
from peanut.names import Kind
from peanut.wifi import Wifi

DEFAULT_NAME = "peanut"
DEFAULT_BOARDS = {"ESP32": "esp32-devkitc", "ESP32-S3": "esp32-s3-devkitc-1", "ESP32-C3": "xiao-esp32c3"}
PATIENCE_MAX = 100.0
_QUARTERS = 4  # without a terminal a step shows its progress so often


@click.command("flash")
@click.argument("words", nargs=-1, metavar="[NAME | --all PORT...]")
@click.option("--port", metavar="PORT", help="Device file, pty, socket://HOST:PORT or rfc2217://HOST:PORT.")
@click.option("--board", "board_name", metavar="BOARD", help="What it is: peanut board list.")
@click.option("--kind", type=click.Choice([k.value for k in Kind]), help="Of a new device. Default: by its name.")
@click.option(
    "--simulate/--no-simulate", default=None, help="Run the physical model in place of the board's pins, or not."
)
@click.option("--factory", is_flag=True, help="Keep nothing of what is on the board; the whole flash is erased.")
@click.option("--only-new", is_flag=True, help="Refuse a board that is another device already; --all always does.")
@click.option(
    "--image", type=click.Path(path_type=Path), metavar="FILE", help="The MicroPython image, in place of the cache."
)
@click.option(
    "--sha256", metavar="HASH", default="", help="The hash that the image must have, in place of the board's."
)
@click.option("--flash-mb", type=click.IntRange(1, boards.FLASH_MB_MAX), help="This one has another flash.")
@click.option("--ssid", metavar="SSID", help="Wi-Fi network, added to those of the fleet; asks for its password.")
@click.option("--no-wifi", is_flag=True, help="The node needs no Wi-Fi.")
@click.option(
    "--manual-reset", is_flag=True, help="The port's lines do not reset the board: somebody presses its buttons."
)
@click.option(
    "--patience",
    type=click.FloatRange(0.1, PATIENCE_MAX),
    default=1.0,
    show_default=True,
    help="Multiplies every limit: 60 s to connect, 120 s of silence while writing, 120 s to come online.",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for the node to come online.")
@click.option(
    "--operator", metavar="NAME", help="Whose certificate asks the gateway. Default: operator, or the only one."
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be written and where; touch neither board nor fleet home."
)
@click.option("--all", "many", is_flag=True, help="Many boards at once, one a PORT; needs --names.")
@click.option("--names", "list_file", type=click.Path(path_type=Path), metavar="FILE", help="CSV: name, board, kind.")
@click.option(
    "--labels", "labels_file", type=click.Path(path_type=Path), metavar="FILE", help="With --all: where the labels go."
)
@boards_option
@pass_home
def flash_command(
    home: Home,
    words: tuple[str, ...],
    port: str | None,
    board_name: str | None,
    kind: str | None,
    simulate: bool | None,
    factory: bool,
    only_new: bool,
    image: Path | None,
    sha256: str,
    flash_mb: int | None,
    ssid: str | None,
    no_wifi: bool,
    manual_reset: bool,
    patience: float,
    no_wait: bool,
    operator: str | None,
    dry_run: bool,
    many: bool,
    list_file: Path | None,
    labels_file: Path | None,
    folder: Path | None,
) -> None:
    """Take a board from bare to online: MicroPython, firmware, certificates.

    Finds the board, and asks for what it cannot know; what is given is not asked for. Run again it replaces the
    application, and keeps the certificate, the configuration and what the node stores, unless --factory is given.

    \b
    Examples:
      peanut flash
      peanut flash peanut --port /dev/ttyUSB0 --board esp32-devkitc
      peanut flash peanut --port /dev/ttyUSB0 --board esp32-devkitc --simulate
      peanut flash peanut --port /dev/ttyUSB0 --board esp32-devkitc --dry-run
      peanut flash --all /dev/ttyUSB0 /dev/ttyUSB1 --names carton.csv --board esp32-devkitc

    \b
    Exit status:
      0  online                        4  a certificate is not good
      2  not written, or wrongly       6  written, and not online in time
      3  written; the gateway is unreachable
    """
    home.require()
    where = boards.folder(folder)
    now = ca.utc_now()
    sha256 = sha256.lower()
    if ssid and no_wifi:
        raise click.UsageError("--ssid and --no-wifi contradict each other")
    images.check_given(image, sha256)
    if many:
        if port:
            raise click.UsageError("--all takes its ports as words: --all PORT...")
        _carton(home, words, list_file, labels_file, patience, dry_run)
        return
    if len(words) > 1 or list_file or labels_file:
        raise click.UsageError("one NAME; for many boards: --all PORT... --names FILE")
    name = words[0] if words else None
    asked = not (name and port and (board_name or _own_board(home, name, where)))
    port = port or ("PORT" if dry_run else _find_port())
    device_name = name or _ask_name(home)
    row = ledger.device(home.ledger, device_name)
    device_kind = Kind(kind) if kind else Kind(row.kind) if row else names.kind_of(device_name)
    names.check_device(device_name, device_kind)
    known = flash.board_of(home, row, board_name or "", where)
    if known is None and (dry_run or not _terminal()):
        known = _ask_board(None, where)

    def order(board: Board) -> Order:
        networks = Wifi() if no_wifi else wifi.read(home) if dry_run else _networks(home, ssid)
        return Order(
            name=device_name,
            kind=device_kind,
            board=board,
            port=port,
            networks=networks,
            boards=where,
            simulate=simulate,
            factory=factory,
            only_new=only_new,
            image=image,
            sha256=sha256,
            flash_mb=flash_mb or 0,
            manual=manual_reset,
            patience=patience,
            wait=not no_wait,
            operator=operator,
        )

    voice = Voice(say, warn, bar)
    if dry_run:
        assert known is not None
        install.dry_run(home, order(known), voice, now)
        return
    serialport.check(port)
    wanted = order(known) if known is not None else None
    if wanted is not None:
        install.judge(home, wanted, now)
    with serialport.locked(port), flash.workplace(home.path) as work:
        board = Loader(port, work, say, manual=manual_reset, patience=patience)
        chip = board.identify()
        say(f"{port}: {chip.type}, {chip.flash // (1024 * 1024)} MB of flash, {chip.mac}")
        try:
            wanted = wanted or order(_ask_board(chip, where))
            if asked:
                say("next time:")
                say("  " + _command(home, wanted))
            install.run(home, wanted, board, chip, voice, now)
        except BaseException as error:
            if not board.wrote:
                board.release()
            elif not board.written and not isinstance(error, Exception):  # Ctrl-C, or told to end
                warn(f"{wanted.name if wanted else port} is half written, and does not run like that.")
                warn("  Run the same command again: it goes on.")
            raise


def _carton(
    home: Home,
    ports: Sequence[str],
    list_file: Path | None,
    labels_file: Path | None,
    patience: float,
    dry_run: bool,
) -> None:
    """One round after the other, until no name is left or nobody puts new boards on the ports."""
    if list_file is None:
        raise PeanutError("the boards have no names", "Give a list: --names FILE, CSV with a column `name`.")
    items = carton.read(list_file)
    ports = ports or [found.port for found in serialport.listed() if found.likely]
    ports = [serialport.check(port) for port in dict.fromkeys(ports)]
    if not ports:
        raise PeanutError("there is no board on the USB ports", "Plug some in, or give their ports.")
    # who forgets to change the boards shall not lose the ones that are done
    options = ["--only-new", *_given("only_new", "many", "list_file", "labels_file")]
    failed: dict[str, int] = {}
    if dry_run:
        todo = carton.left(home, items)
        for at in range(0, len(todo), len(ports)):
            failed |= {n: s for n, s in carton.round_of(home, todo[at:], ports, options, say, patience).items() if s}
        say(f"{len(items) - len(todo)} of {len(items)} done. Dry run: no label was drawn either.")
        if failed:
            raise PeanutError(f"these cannot be written like that: {', '.join(failed)}", "Above it says why.")
        return
    while todo := carton.left(home, items):
        say(f"{len(items) - len(todo)} of {len(items)} done; now {', '.join(i.name for i in todo[: len(ports)])}")
        ended = carton.round_of(home, todo, ports, options, say, patience)
        failed = {name: status for name, status in ended.items() if status}
        rest = len(todo) - len(ended) + len(failed)
        if failed or not rest or not _terminal():
            break
        click.confirm(f"{rest} left. Are the next boards on the ports?", default=True, abort=True, err=True)
    done = [i.name for i in items if flash.is_done(home, i.name)]
    path = labels_file or home.path / "labels.html"
    rows = [row for row in ledger.devices(home.ledger) if row.name in done]
    write_file(path, labels.sheet([labels.label(home, row) for row in rows]), PUBLIC)
    say(f"{len(done)} of {len(items)} done. Labels to print: {path}")
    if len(done) < len(items):
        why = f"not done: {', '.join(failed)}" if failed else f"{len(items) - len(done)} of {len(items)} are left"
        raise PeanutError(why, "Put the next boards on the ports and run the same command again: it goes on.")


def _given(*without: str) -> list[str]:
    """The options that this command was given, but for its words, its port and some."""
    context = click.get_current_context()
    found: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in ("words", "port", *without) or source is not click.core.ParameterSource.COMMANDLINE:
            continue
        value = context.params[name]
        if isinstance(value, bool):
            found.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            found += [parameter.opts[0], f"{value:g}" if isinstance(value, float) else str(value)]
    return found


def _own_board(home: Home, name: str, where: Path) -> bool:
    row = ledger.device(home.ledger, name) if names.is_name(name) or names.kind_of(name) is Kind.VEHICLE else None
    return row is not None and flash.board_of(home, row, "", where) is not None


def _find_port() -> str:
    found = serialport.listed()
    likely = [f for f in found if f.likely] or found
    if not found:
        raise PeanutError(
            "there is no board on the USB ports",
            "Plug one in, with a cable that carries data, or give its port: --port /dev/ttyUSB0",
        )
    if len(likely) == 1:
        say(f"found {likely[0].port} ({likely[0].description})")
        return likely[0].port
    for one in found:
        say(f"  {one.port:<16} {one.description}")
    if not _terminal():
        raise PeanutError("there is more than one board", "Say which: --port PORT")
    return str(click.prompt("Which port", default=likely[0].port, err=True))


def _terminal() -> bool:
    return sys.stdin.isatty()


def _ask_name(home: Home) -> str:
    taken = {row.name for row in ledger.devices(home.ledger)}
    free = next(n for n in (DEFAULT_NAME, *(f"{DEFAULT_NAME}-{i}" for i in range(2, 10_000))) if n not in taken)
    if not _terminal():
        raise PeanutError("the device has no name", f"Give one: peanut flash {free} --port PORT --board BOARD")
    return str(click.prompt("Name of the device (a vehicle's is its VIN)", default=free, err=True))


def _ask_board(chip: Chip | None, where: Path) -> Board:
    found = [boards.read(name, where) for name in boards.available(where)]
    fits = [b for b in found if not b.simulated and (chip is None or CHIPS[b.chip].name == chip.name)]
    listed = ", ".join(b.name for b in fits)
    if not fits and chip is not None:
        raise PeanutError(f"no board file is for an {chip.name}", "Make one: boards/README.md, and --boards DIR.")
    if not _terminal():
        raise PeanutError("which board is it?", f"Say so with --board; those with this chip: {listed}.")
    for one in fits:
        say(f"  {one.name:<20} {one.title}")
    default = DEFAULT_BOARDS.get(chip.name if chip else "", fits[0].name)
    default = default if default in [b.name for b in fits] else fits[0].name
    return boards.read(str(click.prompt("Which board", default=default, err=True)), where)


def _networks(home: Home, ssid: str | None) -> Wifi:
    known = wifi.read(home)
    if ssid is None and not known.networks and _terminal():
        ssid = str(click.prompt("Wi-Fi network (empty for none)", default="", show_default=False, err=True)) or None
    if ssid is not None and ssid not in [n.ssid for n in known.networks]:
        known = add_network(home, ssid, None)
    if not known.networks:
        warn("Warning: no Wi-Fi network is known; a node without a cable will not come online. peanut wifi add SSID")
    for network in known.networks:
        if network.open:
            warn(f"Warning: {network.ssid} is open: everybody near it can be in the same network as the nodes.")
    return known


def add_network(home: Home, ssid: str, password: str | None, country: str | None = None) -> Wifi:
    """Ask for a password where none was given, and keep the network in the fleet home."""
    if password is None:
        if not _terminal():
            raise PeanutError(
                f"the password of {ssid} is not known, and there is no terminal to ask for it",
                f"First: peanut wifi add {shlex.quote(ssid)} --password-file FILE (or --open)",
            )
        password = str(
            click.prompt(
                f"Password of {ssid} (empty for an open network)",
                default="", hide_input=True, show_default=False, err=True,
            )
        )  # fmt: skip
    network = wifi.network(ssid, password)
    with home.lock(warn):
        known = wifi.with_network(wifi.read(home), network)
        known = Wifi(wifi.country(country) if country else known.country, known.networks)
        wifi.write(home, known)
    return known


def _command(home: Home, order: Order) -> str:
    """The whole command for next time, in both spellings; what was asked for and is kept needs no option then."""
    rest = _given("board_name", "ssid", "simulate", "image", "sha256", "factory")
    rest += ["--no-simulate"] if order.simulate is False else []
    rest += ["--no-wifi"] if not order.networks.networks and "--no-wifi" not in rest else []
    words = ["flash", order.name, "--port", order.port, "--board", order.board.name]
    made = [f"NAME={order.name}", f"PORT={order.port}", f"BOARD={order.board.name}"]
    for option, variable, value in (
        ("--simulate", "SIMULATE", order.simulate),
        ("--factory", "FACTORY", order.factory),
        ("--image", "IMAGE", order.image),
        ("--sha256", "SHA256", order.sha256),
    ):
        if value is True:
            words, made = [*words, option], [*made, f"{variable}=1"]
        elif value:
            words, made = [*words, option, str(value)], [*made, f"{variable}={value}"]
    made += [f"FLASH={shlex.join(rest)}"] if rest else []
    where = click.get_current_context().find_root().get_parameter_source("home")
    elsewhere = [str(home.path)] if where is click.core.ParameterSource.COMMANDLINE else []
    words = ["peanut", *(["--home", *elsewhere] if elsewhere else []), *words, *rest]
    made = [*(f"PEANUT_HOME={path}" for path in elsewhere), "make", "flash", *made]
    return f"{shlex.join(words)}\n  {shlex.join(made)}"


@contextlib.contextmanager
def bar(what: str) -> Iterator[Progress]:
    """The progress of one step: a bar on a terminal, a line now and then else."""
    if not sys.stdout.isatty():
        yield _quarters(what)
        return
    from rich.progress import Progress as Drawn  # slow to import, and of use on a terminal only

    with Drawn(transient=True) as drawn:
        task = drawn.add_task(what, total=1.0, visible=False)
        yield lambda share: drawn.update(task, completed=share, visible=True)


def _quarters(what: str) -> Callable[[float], None]:
    told = 0

    def progress(share: float) -> None:
        nonlocal told
        if int(share * _QUARTERS) > told:
            told = int(share * _QUARTERS)
            say(f"{what}: {100 * told // _QUARTERS} %")

    return progress
