"""The configuration from the gateway: the shared checks on both interpreters, and whole nodes that are configured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from . import desired_checks
from .conftest import MakeNode, on_the_unix_port
from .gateway import PUBLISH, Gateway, Peer, closed_port, publish
from .test_pure import JSON

from node import desired  # isort: skip

TOPIC = "/plant/peanut/config/desired"
REPORTED = "/plant/peanut/config/reported"


@pytest.mark.parametrize(("name", "check"), desired_checks.checks())
def test_on_cpython(name: str, check: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check."""
    monkeypatch.chdir(tmp_path)
    check()


def test_the_same_checks_on_the_unix_port(tmp_path: Path) -> None:
    """Every check passes on MicroPython, in a heap like the chip's."""
    assert on_the_unix_port(desired_checks.__file__, cwd=tmp_path) == [name for name, _ in desired_checks.checks()]


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200),
        JSON.map(lambda v: json.dumps(v).encode()),
        st.dictionaries(st.sampled_from(["gen", *desired.TABLES, "x"]), JSON, max_size=4).map(
            lambda v: json.dumps(v).encode()
        ),
    )
)
def test_no_document_breaks_the_node(payload: bytes) -> None:
    """Any bytes: refused with words, or a configuration that the schema accepts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("node.store.replace", lambda path, data: None)
        patch.setattr("node.config.read", lambda: desired_checks.BODY)
        d = desired.Desired(("none.a", "none.b"))
        found = d.take(payload)
        assert (found is None) == bool(d.errors)
        json.dumps(d.told())


def configure(peer: Peer, gen: int, **tables: Any) -> None:
    """Retained, as the gateway keeps it."""
    peer.send(publish(TOPIC, json.dumps({"gen": gen, **tables}), ident=gen, flags=1))


def reported(peer: Peer) -> Any:
    found = peer.expect(PUBLISH, REPORTED)
    assert (found.qos, found.first & 1) == (1, 1)
    return found.json


def test_what_can_be_changed_live_is(gateway: Gateway, make_node: MakeNode) -> None:
    """A new interval and a new set point without a restart; a refusal is reported by its key and changes nothing."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.welcome()
    configure(peer, 1, report={"state_s": 1, "telemetry_s": 0.2}, control={"setpoint": 21})
    first = reported(peer)
    assert (first["gen"], first["trial"], first["errors"]) == (1, False, [])
    while peer.expect(PUBLISH, "/plant/peanut/state").json["setpoint"] != 21:
        pass
    configure(peer, 2, control={"setpoint": 21, "max": 20, "colour": "red"})
    second = reported(peer)
    assert (second["gen"], second["hash"]) == (1, first["hash"])
    assert second["errors"] == ["control.colour: unknown key"]
    assert node.running
    assert "boot 2" not in node.log


def test_a_restart_in_order_and_the_same_again(gateway: Gateway, make_node: MakeNode) -> None:
    """What wants a restart gets one, said in the status; the retained document, delivered again, does nothing more."""
    node = make_node(gateway.port)
    node.start()
    peer = gateway.accept()
    peer.welcome()
    configure(peer, 7, control={"hysteresis": 2})
    while (status := peer.expect(PUBLISH, "/plant/peanut/status").json)["state"] != "offline":
        pass
    assert status["why"] == "config"
    peer.expect_closed()
    peer = gateway.accept()
    peer.welcome()
    assert reported(peer)["gen"] == 7
    configure(peer, 7, control={"hysteresis": 2})
    told = reported(peer)
    assert (told["gen"], told["errors"]) == (7, [])
    assert node.running


def test_network_settings_that_cut_the_node_off_come_back(gateway: Gateway, make_node: MakeNode) -> None:
    """A gateway that is not there: the node tries it for `trial_s`, returns, and tells why; it does not try again."""
    node = make_node(gateway.port, link={"trial_s": 1})
    node.start()
    peer = gateway.accept()
    peer.welcome()
    wrong = {"gateway": {"port": closed_port()}, "link": {"trial_s": 1}}
    configure(peer, 3, **wrong)
    peer.expect_closed()
    peer = gateway.accept()
    peer.welcome()
    told = reported(peer)
    assert (told["gen"], told["errors"]) == (0, ["gen 3: no session in 1 s"])
    configure(peer, 3, **wrong)
    assert reported(peer)["errors"] == ["gen 3: no session in 1 s"]
    assert node.running


def test_network_settings_that_work_stay(pki: Any, gateway: Gateway, make_node: MakeNode) -> None:
    """The new gateway is there: the session ends the trial, and a power cut afterwards finds it settled."""
    with Gateway(pki) as second:
        node = make_node(gateway.port)
        node.start()
        peer = gateway.accept()
        peer.welcome()
        configure(peer, 3, gateway={"port": second.port})
        peer.expect_closed()
        peer = second.accept()
        peer.welcome()
        while (told := reported(peer))["trial"]:
            assert told["gen"] == 3
        assert (told["gen"], told["errors"]) == (3, [])
        node.kill()
        node.start()
        second.accept().welcome()
        assert "on trial" not in node.log
