"""The node's way to the gateway: whom it refuses, what it says, and how it comes back."""

from __future__ import annotations

import json
import resource
import ssl
import time

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tools.fleet import Node

from .conftest import MakeNode
from .datagrams import NameServer
from .gateway import CONNECT, Gateway, closed_port
from .pki import Pki

IMPOSTORS = {
    "wrong CA": "was not issued by this fleet's CA",
    "wrong name": "is not for the name localhost",
    "expired": "has expired",
    "not yet valid": "is not valid yet",
}


class Careless(Node):
    """A node whose verification somebody has switched off: shows that the tests here would notice."""

    def install(self) -> None:
        super().install()
        link = self.workdir / "node" / "keys.py"
        text = link.read_text()
        assert "tls.CERT_REQUIRED" in text
        link.write_text(text.replace("tls.CERT_REQUIRED", "tls.CERT_NONE"))


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_impostor_gets_no_packet(pki: Pki, make_node: MakeNode, impostor: str) -> None:
    """The node ends the handshake itself, sends no CONNECT, says why, and tries again."""
    with Gateway(pki, impostor) as gateway:
        node = make_node(gateway.port, link={"refused_cap_s": 0.1})
        node.start()
        for _ in range(2):
            with pytest.raises(ssl.SSLError, match="ALERT"):
                gateway.accept()
        node.wait_for_log("certificate error: the gateway's certificate " + IMPOSTORS[impostor])


@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_a_careless_node_would_have_talked(pki: Pki, make_node: MakeNode, impostor: str) -> None:
    """The same impostors against a node without verification get its CONNECT: so the test above can fail."""
    with Gateway(pki, impostor) as gateway:
        make_node(gateway.port, node=Careless).start()
        assert gateway.accept().expect(CONNECT).first == 0x10


def test_the_gateway_refuses_the_node(pki: Pki, make_node: MakeNode) -> None:
    """A gateway that trusts another CA: the node says that its own certificate is the trouble."""
    trust = pki.nodes["foreign"].issuer
    assert trust is not None
    with Gateway(pki, trust=trust.cert.public_bytes(Encoding.PEM).decode()) as gateway:
        node = make_node(gateway.port)
        node.start()
        with pytest.raises(ssl.SSLError):
            gateway.accept()
        log = node.wait_for_log("again in")
        assert "this node's certificate" in log


def test_nobody_listens(make_node: MakeNode) -> None:
    """Connection refused, in words, again and again within the bounds of the back-off."""
    node = make_node(closed_port(), link={"base_s": 0.05, "cap_s": 0.1})
    node.start()
    node.wait_for_log("refused: nothing listens on localhost")
    begun = time.monotonic()
    while node.log.count("refused: nothing listens") < 10:
        assert time.monotonic() - begun < 60
        time.sleep(0.02)
    delays = [float(line.rsplit("again in ", 1)[1].split()[0]) for line in node.log.splitlines() if "again in" in line]
    assert all(delay <= 0.1 for delay in delays)


def test_unknown_name(make_node: MakeNode) -> None:
    """A name that DNS does not know is called that."""
    node = make_node(1, gateway={"host": "no-such-gateway.invalid"})
    node.start()
    node.wait_for_log("the name no-such-gateway.invalid cannot be found (DNS")


def test_silent_handshake_has_a_deadline_and_control_goes_on(gateway: Gateway, make_node: MakeNode) -> None:
    """TCP accepted, then silence: given up after connect_s, while the control loop regulates."""
    node = make_node(gateway.port, link={"connect_s": 1}, simulate={"speed": 600, "start": 10.0})
    begun = time.monotonic()
    node.start()
    with gateway.accept_tcp():
        node.wait_for_log(f"no answer from localhost:{gateway.port} within 1 s")
        assert time.monotonic() - begun > 1
    assert "heating: " in node.log
    gateway.accept().welcome()


def test_no_socket_free_and_control_goes_on(gateway: Gateway, make_node: MakeNode) -> None:
    """socket() fails for many tries: the heater is switched on and off all the while; with sockets the node is back."""
    node = make_node(gateway.port, gateway={"host": "127.0.0.1"}, simulate={"speed": 600})
    node.start()
    peer = gateway.accept()
    peer.welcome()
    assert node.pid is not None
    soft, hard = resource.prlimit(node.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (3, hard))  # stdin, stdout and stderr
    mark = len(node.log)
    peer.close()
    node.wait_for_log("this node has no socket or memory free to connect", after=mark)
    node.wait_for_log("heating: ", after=mark)
    mark = node.log.index("heating: ", mark)
    node.wait_for_log("holding: ", after=mark)
    deadline = time.monotonic() + 60
    while node.log.count("this node has no socket") < 10:
        assert node.running
        assert time.monotonic() < deadline
        time.sleep(0.02)
    resource.prlimit(node.pid, resource.RLIMIT_NOFILE, (soft, hard))
    gateway.accept().welcome(session=1)


class SlowName(Node):
    """A node whose DNS server is dead: the system's resolver blocks for STALL_S, then fails."""

    STALL_S = 6

    def install(self) -> None:
        super().install()
        (self.workdir / "socket.py").write_text(
            "import sys, time\n"
            "path, sys.path[:] = sys.path[:], []\n"
            "from socket import *\n"
            "sys.path[:] = path\n"
            "def getaddrinfo(*_):\n"
            "    print('resolver: asked')\n"
            f"    time.sleep({self.STALL_S})\n"
            "    print('resolver: gives up')\n"
            "    raise OSError(-3)\n"
        )


def test_control_catches_up_after_a_resolver_that_blocks(make_node: MakeNode) -> None:
    """A stall counts as time: the heater's rest, begun with the first stall and as long, is over when it is over."""
    model = {"driver": "greenhouse_model"}
    outputs = {"heater": {**model, "min_on_s": 0, "min_off_s": SlowName.STALL_S}, "vent": model}
    node = make_node(
        1,
        node=SlowName,
        gateway={"host": "gateway.local"},
        board={"outputs": outputs},
        simulate={"speed": 1, "start": 10.0},
    )
    node.start()
    node.wait_for_log("resolver: asked")
    assert "heating: " not in node.log
    node.wait_for_log("resolver: gives up")
    begun = time.monotonic()
    until_then, _ = node.wait_for_log("heating: ").split("heating: ", 1)
    assert time.monotonic() - begun < SlowName.STALL_S / 2
    # Control had its turn before the next name was asked for, at most cap_s (0.2 s) after the stall.
    assert until_then.count("resolver: asked") == 1
    node.wait_for_log("the name gateway.local cannot be found (DNS")


class Joined(SlowName):
    """A node that a Wi-Fi has given a DNS server, on the port `dns` of this PC; the system's resolver blocks for every
    name, and knows none."""

    dns = 0

    def install(self) -> None:
        super().install()
        (self.workdir / "network.py").write_text(NETWORK)
        networks = {"format": 1, "networks": [{"ssid": "house", "password": "right"}]}
        (self.workdir / "wifi.json").write_text(json.dumps(networks))
        with (self.workdir / "socket.py").open("a") as file:
            file.write(
                "blocking, numbers = getaddrinfo, __import__('usocket').getaddrinfo\n"
                "def getaddrinfo(host, *more):\n"
                "    return (numbers if host == '127.0.0.1' else blocking)(host, *more)\n"
            )
        path, usual = self.workdir / "node" / "dns.py", "\nPORT = 53\n"
        assert usual in path.read_text()
        path.write_text(path.read_text().replace(usual, f"\nPORT = {self.dns}\n"))


NETWORK = """
STA_IF = 0
hostname = country = lambda said: None
class WLAN:
    PM_NONE = 0
    def __init__(self, *_, **__):
        pass
    active = config = connect = disconnect = __init__
    def isconnected(self):
        return True
    def ifconfig(self):
        return "127.0.0.1", "255.0.0.0", "127.0.0.1", "127.0.0.1"
    def status(self, what=None):
        return -50 if what else 1010
"""


def test_a_dead_dns_server_stops_nothing(gateway: Gateway, make_node: MakeNode) -> None:
    """The node asks it by itself, and control goes on; once it has answered, the node finds its gateway without it."""
    with NameServer() as names:
        quick = {"base_s": 0.05, "cap_s": 0.1, "first_s": 0}
        node = make_node(gateway.port, node=type("Here", (Joined,), {"dns": names.port}), link=quick)
        node.start()
        node.wait_for_log("the name localhost cannot be found (no answer from DNS, asked at 127.0.0.1)")
        assert names.asked >= 2
        names.silent = False
        peer = gateway.accept()
        peer.expect(CONNECT)
        names.silent = True
        peer.close()
        peer = gateway.accept()
        peer.expect(CONNECT)
        log = node.wait_for_log("warn link localhost: going by the address of before")
        assert "resolver: asked" not in log, "nothing has stopped the program"


def test_a_damaged_bundle_is_named(gateway: Gateway, make_node: MakeNode) -> None:
    """A key that is none: an error line that says what to do, exit status 2, no endless restart."""
    node = make_node(gateway.port)
    (node.bundle / "key.der").write_bytes(b"not a key")
    node.start()
    assert node._process is not None
    assert node._process.wait(60) == 2
    assert "put the device bundle on this node" in node.log


def test_a_wrong_configuration_is_told_whole(gateway: Gateway, make_node: MakeNode) -> None:
    """Every fault in one go, each with its key."""
    node = make_node(gateway.port, control={"max": 99, "colour": "red"}, report={"telemetry_s": "often"})
    node.start()
    assert node._process is not None
    assert node._process.wait(60) == 2
    for fault in ("control.max: 99", "control.colour: unknown key", "report.telemetry_s: must be a number"):
        assert f"error config node.json: {fault}" in node.log
