"""How long a revocation takes: from the return of `peanut device revoke` to the closed socket, with 1 node
connected and with 500, on either driver.

`.venv/bin/python -m pytest -q -rP tests/system/long_revocation.py` shows the numbers; `make test-long` runs it. The
clients are plain sockets in this process, and a thread of their own sees them close; the programs are real.
"""

from __future__ import annotations

import select
import socket
import ssl
import threading
import time
from datetime import UTC, datetime

import pytest

from peanut import ca, ledger, store
from peanut.home import Home
from tests.broker.conftest import Wire
from tests.system.conftest import House

CLIENTS = 500


def _connect(house: House, home: Home, name: str) -> Wire:
    """A node of that name, in the ledger and connected."""
    key = ca.new_key()
    made = ca.issue_client(key.public_key(), name, f"peanut:plant/{name}", store.issuing(home), datetime.now(UTC))
    file = home.path / "client.pem"
    file.write_bytes(ca.key_pem(key) + ca.certificate_pem(made))
    context = ssl.create_default_context(cafile=str(house.operator[0]))
    context.load_cert_chain(file)
    with ledger.opened(home.ledger) as connection:
        start, end = int(made.not_valid_before_utc.timestamp()), int(made.not_valid_after_utc.timestamp())
        row = ledger.Device(name, "greenhouse", "sim", f"{made.serial_number:x}", start, end, start)
        ledger.put(connection, row)
    wire = Wire(
        context.wrap_socket(socket.create_connection(("127.0.0.1", house.port), 30), server_hostname="localhost")
    )
    assert wire.connect(name)[1] == 0
    return wire


class Closing(threading.Thread):
    """Notes when each of these sockets is closed by the gateway, as poll(2) tells it."""

    def __init__(self, wires: list[Wire]) -> None:
        super().__init__(daemon=True)
        self._left = {wire.sock.fileno() for wire in wires}
        self.times: list[float] = []

    def run(self) -> None:
        poll = select.poll()
        for number in self._left:
            poll.register(number, select.POLLRDHUP | select.POLLHUP)
        while self._left and (ready := poll.poll(60_000)):
            now = time.monotonic()
            for number, _ in ready:
                poll.unregister(number)
                self._left.remove(number)
                self.times.append(now)


def _revoke(house: House, names: list[str], wires: list[Wire], connected: int) -> None:
    closing = Closing(wires)
    closing.start()
    begun = time.monotonic()
    house.peanut("device", "revoke", *names, check=True)
    returned = time.monotonic()
    closing.join(60)
    assert len(closing.times) == len(wires), f"{len(wires) - len(closing.times)} sockets are still open"
    after = (max(closing.times) - returned) * 1000
    when = f"{after:.1f} ms after" if after > 0 else f"{-after:.1f} ms before"
    print(
        f"{len(names)} of {connected} connected: the last socket was closed {when} the command's return; "
        f"the command took {(returned - begun) * 1000:.0f} ms"
    )
    assert after < 1000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("driver", ["native", "asyncio"])
def test_revocation_of_one_and_of_all(house: House, driver: str) -> None:
    home = Home(house.home)
    settings = home.path / "gateway.toml"
    settings.write_text(settings.read_text() + f'driver = "{driver}"\n')
    house.stop()
    house.start()
    first = _connect(house, home, "first")
    _revoke(house, ["first"], [first], 1)
    names = [f"n{number}" for number in range(CLIENTS)]
    wires = [_connect(house, home, name) for name in names]
    _revoke(house, names[:1], wires[:1], CLIENTS)
    _revoke(house, names[1:], wires[1:], CLIENTS - 1)
