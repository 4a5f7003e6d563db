"""A node gets a new certificate over its session: it tries it, keeps it or returns to the old one, and says which."""

from __future__ import annotations

import base64
import json
import re
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from . import keys_checks
from .conftest import MakeNode, on_the_unix_port
from .datagrams import TimeServer
from .gateway import CONNECT, PUBLISH, SUBSCRIBE, Gateway, Packet, Peer, publish
from .pki import Credential, Pki, issue
from .test_net import Patient, Unset

TOPIC = "$cert/plant/peanut"
REPORTED = "/plant/peanut/cert/reported"
QUICK = {"base_s": 0.05, "cap_s": 0.2, "first_s": 0, "refused_cap_s": 0.2}


@pytest.mark.parametrize(("name", "check"), keys_checks.checks())
def test_on_cpython(name: str, check: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check."""
    monkeypatch.chdir(tmp_path)
    check()


def test_the_same_checks_on_the_unix_port(tmp_path: Path) -> None:
    """Every check passes on MicroPython, in a heap like the chip's."""
    assert on_the_unix_port(keys_checks.__file__, cwd=tmp_path) == [name for name, _ in keys_checks.checks()]


def successor(pki: Pki, issuer: Credential | None = None, days: tuple[float, float] = (-1, 30)) -> Credential:
    """A newer certificate of the same node, with another key."""
    name = x509.UniformResourceIdentifier("peanut:plant/peanut")
    return issue("peanut", issuer or pki.issuing, san=[name], days=days)


def parts(credential: Credential, **more: Any) -> str:
    der = credential.cert.public_bytes(Encoding.DER)
    return json.dumps({"key": _b64(credential.key_der()), "cert": _b64(der), **more})


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def serial(credential: Credential) -> str:
    return f"{credential.cert.serial_number:x}"


def shown(peer: Peer) -> str:
    """The serial number of the certificate that the node has shown."""
    der = peer._sock.getpeercert(binary_form=True)
    assert der is not None
    return f"{x509.load_der_x509_certificate(der).serial_number:x}"


def welcome(gateway: Gateway) -> tuple[Peer, dict[str, Any]]:
    """The node's next session: with it, what it says of its certificate."""
    peer = gateway.accept()
    peer.welcome()
    return peer, peer.expect(PUBLISH, REPORTED).json


def trial_passed(gateway: Gateway, new: Credential) -> None:
    """The node's next session is with the new certificate, and settles that it is kept."""
    peer, told = welcome(gateway)
    assert shown(peer) == serial(new)
    while told["trial"]:
        told = peer.expect(PUBLISH, REPORTED).json
    assert (told["serial"], told["errors"]) == (serial(new), [])


def still_in_force(gateway: Gateway, new: Credential) -> Peer:
    """The node's next session, with the new certificate, which is on trial no more."""
    peer, told = welcome(gateway)
    assert (shown(peer), told["serial"], told["trial"]) == (serial(new), serial(new), False)
    return peer


def test_a_new_certificate_is_tried_and_kept(pki: Pki, gateway: Gateway, make_node: MakeNode) -> None:
    node = make_node(gateway.port, link=QUICK)
    node.start()
    peer, told = welcome(gateway)
    old, new = pki.nodes["peanut"], successor(pki)
    assert shown(peer) == told["serial"] == serial(old)
    assert (told["trial"], told["errors"]) == (False, [])
    peer.send(publish(TOPIC, parts(new), qos=0))
    while told["serial"] != serial(new):
        told = peer.expect(PUBLISH, REPORTED).json
    peer.expect_closed()
    trial_passed(gateway, new)
    assert node.running
    node.kill()
    node.start()  # after a power cut
    still_in_force(gateway, new)
    for text in (_b64(new.key_der()), _b64(old.key_der())):
        assert text[:40] not in node.log


def test_one_that_the_gateway_does_not_let_in_is_given_up(pki: Pki, gateway: Gateway, make_node: MakeNode) -> None:
    """It comes from another CA: the handshake fails, until the node returns to what it had."""
    node = make_node(gateway.port, link={**QUICK, "trial_s": 6, "refused_cap_s": 0.6})
    node.start()
    peer, _ = welcome(gateway)
    bad = successor(pki, issue("Other CA", ca=True))
    peer.send(publish(TOPIC, parts(bad), qos=0))
    peer.expect_closed()
    refusals = 0
    while True:
        try:
            peer, told = welcome(gateway)
            break
        except (ssl.SSLError, ConnectionError):
            refusals += 1
    assert refusals
    assert shown(peer) == told["serial"] == serial(pki.nodes["peanut"])
    assert told["errors"] == [f"{serial(bad)}: no session in 6 s"]


def test_a_power_cut_on_trial_leaves_the_trial_and_a_clock_that_tls_can_use(
    pki: Pki, gateway: Gateway, make_node: MakeNode
) -> None:
    """The power goes before the first session with the new certificate, and the node starts in the year 2000: it goes
    on with the trial, at a time at which that certificate is valid, and a session settles it. So it does where nobody
    tells the time at all."""
    with TimeServer(None) as server:
        node = make_node(gateway.port, node=Unset, link=QUICK, gateway={"time_port": server.port})
        node.start()
        peer, _ = welcome(gateway)
        new = successor(pki, days=(-1 / 24, 30))
        peer.send(publish(TOPIC, parts(new), qos=0))
        peer.expect_closed()
        peer = gateway.accept()
        assert shown(peer) == serial(new)
        node.kill()  # before it was let in
        peer.close()
        server.unix = time.time()
        node.__class__ = Patient
        node.start()
        trial_passed(gateway, new)
        steps = re.findall(r"info time set from localhost, by \+(\d+) s", node.log)
        assert int(steps[0]) < 7200, "it began an hour before now, where the new certificate does; the old one, a day"
        node.kill()
        server.unix = None
        node.__class__ = Unset
        node.start()
        peer = still_in_force(gateway, new)
        assert peer.told("/plant/peanut/health").json["tq"] == "floor"


def test_what_cannot_be_used_is_refused_and_the_session_goes_on(
    pki: Pki, gateway: Gateway, make_node: MakeNode
) -> None:
    node = make_node(gateway.port)
    node.start()
    peer, _ = welcome(gateway)
    peer.send(publish(TOPIC, '{"cert":"QUJD"}', qos=0))
    told = peer.expect(PUBLISH, REPORTED).json
    assert (told["serial"], told["errors"]) == (serial(pki.nodes["peanut"]), ["key and cert belong together"])
    assert node.running


def _subscribe(peer: Peer, allowed: Callable[[str], bool]) -> Packet:
    """Answers the node's SUBSCRIBE."""
    asked = peer.expect(SUBSCRIBE)
    codes, at = [], 2
    while at < len(asked.body):
        size = int.from_bytes(asked.body[at : at + 2])
        codes.append(1 if allowed(asked.body[at + 2 : at + 2 + size].decode()) else 0x80)
        at += 3 + size
    peer.suback(asked, *codes)
    return asked


def test_where_it_may_only_be_renewed_it_waits_for_that(pki: Pki, gateway: Gateway, make_node: MakeNode) -> None:
    """The gateway grants the one topic: the node says nothing but what certificate it has, and takes a new one."""
    node = make_node(gateway.port, link=QUICK)
    node.start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    _subscribe(peer, lambda topic: topic == TOPIC)
    first = peer.read()
    assert first is not None
    assert (first.type, first.topic) == (PUBLISH, REPORTED)
    peer.puback(first)
    node.wait_for_log("let in only to have the certificate renewed")
    new = successor(pki)
    peer.send(publish(TOPIC, parts(new), qos=0))
    peer.expect(PUBLISH, REPORTED)
    peer.expect_closed()
    peer, told = welcome(gateway)
    assert shown(peer) == told["serial"] == serial(new)


def test_a_gateway_that_does_not_renew_is_no_obstacle(gateway: Gateway, make_node: MakeNode) -> None:
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.expect(CONNECT)
    peer.connack()
    _subscribe(peer, lambda topic: topic != TOPIC)
    peer.expect(PUBLISH, "/plant/peanut/status")


def test_both_roots_are_trusted_while_the_fleet_changes(pki: Pki, make_node: MakeNode) -> None:
    """The trust store comes the same way: then a gateway of the other root is trusted as well."""
    other_root = issue("Other root", ca=True)
    other_issuing = issue("Other issuing CA", other_root, ca=True)
    with Gateway(pki) as gateway:
        node = make_node(gateway.port, link=QUICK)
        node.start()
        peer, told = welcome(gateway)
        roots = [_b64(c.cert.public_bytes(Encoding.DER)) for c in (pki.root, other_root)]
        peer.send(publish(TOPIC, json.dumps({"ca": roots}), qos=0))
        peer.expect_closed()
        peer, told = welcome(gateway)
        while told["trial"]:
            told = peer.expect(PUBLISH, REPORTED).json
        assert len(told["ca"]) == 2
        good = pki.gateways["good"]
        names = good.cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        pki.gateways["other root"] = issue("localhost", other_issuing, san=list(names), server=True)
        with Gateway(pki, "other root", after=gateway) as other:
            peer.close()
            peer = other.accept()
            peer.welcome()
            assert shown(peer) == serial(pki.nodes["peanut"])
