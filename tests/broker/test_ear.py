"""The gateway's own ear: what it hears of the nodes, and that nothing it does is in anybody's way."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable

import pytest

from peanutd import _core
from peanutd.ear import LEAVES, REOPEN, Ear, Report, split
from peanutd.log import Log
from tests.broker.house import House


class Home:
    """What the server is to the ear: it handles events and pumps, and keeps what is to be done later."""

    def __init__(self, **limits: int) -> None:
        self.house = House(**limits)
        self.log = io.StringIO()
        self.later: list[tuple[float, Callable[..., object]]] = []
        self.ear = Ear(self.house.broker, self.run, self, Log("debug", self.log), lambda: self.house.now)
        self.heard: list[Report] = []
        self.ear.listen(self.heard.append)

    def call_later(self, delay: float, callback: Callable[..., object]) -> object:
        self.later.append((delay, callback))
        return None

    def run(self, events: Iterable[_core.Event]) -> None:
        for kind, link, reason, _ in events:
            if link.owner is self.ear:
                self.ear.told(kind, reason)

    def turn(self) -> list[Report]:
        """Lets the ear hear; what it has heard since the last turn."""
        while self.house.broker.busy:
            self.run(self.house.broker.work(self.house.now))
        self.ear.pump()
        heard, self.heard[:] = list(self.heard), []
        return heard


@pytest.mark.parametrize("root", ["/plant/peanut", "vin/WVWZZZ1JZXW000001"])
@pytest.mark.parametrize("leaf", LEAVES)
def test_every_report_of_a_node_is_heard(root: str, leaf: str) -> None:
    home = Home()
    home.ear.open()
    home.house.publish(f"{root}/{leaf}", b"said", qos=1)
    assert home.turn() == [Report(root, leaf, b"said", False)]
    assert split(f"{root}/{leaf}") == (root, leaf)


def test_what_is_retained_comes_first_and_is_said_to_be() -> None:
    home = Home()
    home.house.publish("/plant/peanut/state", b"{}", retain=True)
    home.ear.open()
    assert home.turn() == [Report("/plant/peanut", "state", b"{}", True)]
    home.house.publish("/plant/peanut/state", b"[]", retain=True)
    assert home.turn() == [Report("/plant/peanut", "state", b"[]", False)]


def test_commands_and_other_peoples_topics_are_not_heard() -> None:
    home = Home()
    home.ear.open()
    for topic in ("/plant/peanut/UpdateTemperature", "plant/peanut/state", "home/state", "vin/V/unlock", "a/b/c/state"):
        home.house.publish(topic)
    assert home.turn() == []


def test_a_listener_that_fails_keeps_nobody_else_from_hearing() -> None:
    home = Home()
    home.ear.open()

    def fails(report: Report) -> None:
        raise RuntimeError("no")

    end = home.ear.listen(fails)
    also: list[Report] = []
    home.ear.listen(also.append)
    home.house.publish("/plant/peanut/state")
    assert len(home.turn()) == len(also) == 1
    assert "a listener has failed" in home.log.getvalue()
    end()
    end()
    home.log.truncate(0)
    home.house.publish("/plant/peanut/state")
    assert len(home.turn()) == 1
    assert "failed" not in home.log.getvalue()


def test_it_is_no_subscriber_that_the_rules_can_shut_out() -> None:
    home = Home()
    home.house.broker.set_rules(0, [])
    home.ear.open()
    home.house.publish("/plant/peanut/state")
    assert len(home.turn()) == 1


def test_closed_by_the_core_it_comes_again() -> None:
    home = Home()
    home.ear.open()
    home.turn()
    link = home.ear._link
    assert link is not None
    home.run(link.close(0x97, home.house.now))
    assert [delay for delay, _ in home.later] == [REOPEN]
    home.house.publish("/plant/peanut/state", b"missed")
    assert home.turn() == []
    home.later.pop()[1]()
    home.house.publish("/plant/peanut/state", b"heard")
    assert [report.payload for report in home.turn()] == [b"heard"]


def test_deaf_without_wildcards_it_says_so() -> None:
    home = Home(wildcard_subscriptions=0)
    home.ear.open()
    home.turn()
    assert "deaf" in home.log.getvalue()


def test_its_own_subscriptions_are_told_apart() -> None:
    home = Home()
    home.ear.open()
    assert home.ear.own == {name: home.house.stat(name) for name in ("sessions", "subscriptions")}
