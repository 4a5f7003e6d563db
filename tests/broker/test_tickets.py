"""Sessions that are resumed by a ticket are no way around a judgement.

That there are none unless asked for, that keys rotate, and that a ticket is good for its own context only:
tests/broker/native/test_tls.c.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.broker.conftest import Wire, wait_for
from tests.broker.native_loop import needs_loop
from tests.broker.test_revoked import entry, write
from tests.programs import program

DEADLINE = 60.0

pytestmark = needs_loop

Call = Callable[[int, ssl.SSLContext, ssl.SSLSession | None], tuple[Wire, ssl.SSLSocket]]


@pytest.fixture
def call(request: pytest.FixtureRequest) -> Call:
    """A client that may have a session to offer."""

    def made(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple[Wire, ssl.SSLSocket]:
        tcp = socket.create_connection(("127.0.0.1", port), DEADLINE)
        sock = context.wrap_socket(tcp, server_hostname="localhost", session=session)
        request.addfinalizer(sock.close)
        return Wire(sock), sock

    return made


def serve(fleet: Any, start: Any, seconds: int) -> Any:
    fleet.settings(f'[listen]\nmqtts = "127.0.0.1:0"\ntime = ""\ndriver = "native"\nsession_tickets = {seconds}\n')
    return start(fleet.home)


def test_who_is_resumed_is_known_and_judged(fleet: Any, start: Any, call: Call) -> None:
    daemon = serve(fleet, start, 600)
    context = fleet.context(fleet.issue("peanut:plant/bean"))
    kept = []
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context.maximum_version = version
        wire, sock = call(daemon.port(), context, None)
        assert wire.connect("bean")[1] == 0
        session = sock.session
        assert session is not None
        assert session.has_ticket
        assert session.ticket_lifetime_hint == 600
        wire, sock = call(daemon.port(), context, session)
        assert sock.session_reused
        assert wire.connect("bean")[1] == 0
        kept.append((version, session))
    daemon.line("connected who=plant/bean", 4)
    write(fleet.home, bean=entry())
    daemon.line("1 identities are revoked")
    for count, (version, session) in enumerate(kept, 1):
        context.maximum_version = version
        with pytest.raises((OSError, EOFError)):
            call(daemon.port(), context, session)[0].connect("bean")
        daemon.line("handshake failed .*certificate of greenhouse bean revoked", count)


def test_openssl_resumes(fleet: Any, start: Any, tmp_path: Path) -> None:
    daemon = serve(fleet, start, 600)
    certificate, key, _ = fleet.save(fleet.issue("peanut:plant/bean"))
    kept = tmp_path / "session"
    command = [
        program("openssl"),
        "s_client",
        "-connect",
        f"127.0.0.1:{daemon.port()}",
        "-cert",
        certificate,
        "-key",
        key,
    ]
    command += ["-CAfile", str(fleet.home / "ca" / "root.crt")]
    first = [*command, "-sess_out", str(kept)]
    with subprocess.Popen(first, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        wait_for(lambda: kept.is_file() and b"END SSL" in kept.read_bytes(), "no session was kept", DEADLINE)
        client.communicate(timeout=DEADLINE)
    again = [*command, "-sess_in", str(kept)]
    done = subprocess.run(again, input="", capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert "Reused, TLSv1.3" in done.stdout, done.stdout + done.stderr
