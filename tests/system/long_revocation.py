"""How long a revocation takes: from the return of `peanut device revoke` to the closed socket, for 1 and for 500.

Run by `make test-long`; `-rP` shows the numbers. The clients are plain sockets in this process, the programs are real.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from datetime import UTC, datetime

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


def _closed_after(begun: float, wires: list[Wire]) -> list[float]:
    """Seconds from `begun` to the end of each socket, as poll(2) tells it; negative: before."""
    left, found = {wire.sock.fileno(): wire for wire in wires}, []
    poll = select.poll()
    for number in left:
        poll.register(number, select.POLLRDHUP | select.POLLHUP)
    while left:
        ready = poll.poll(30_000)
        assert ready, f"{len(left)} sockets are still open"
        for number, _ in ready:
            poll.unregister(number)
            del left[number]
            found.append(time.monotonic() - begun)
    return found


def test_revocation_of_one_and_of_all(house: House) -> None:
    home = Home(house.home)
    names = [f"n{number}" for number in range(CLIENTS)]
    wires = [_connect(house, home, name) for name in names]
    for what, some in (("1 of 500", slice(0, 1)), ("the other 499", slice(1, None))):
        begun = time.monotonic()
        house.peanut("device", "revoke", *names[some], check=True)
        returned = time.monotonic()
        closed = _closed_after(returned, wires[some])
        print(
            f"{what}: the command took {returned - begun:.2f} s; "
            f"the last socket was closed {max(closed) * 1000:.1f} ms after"
        )
        assert max(closed) < 1.0
