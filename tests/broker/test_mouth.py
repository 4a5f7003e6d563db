"""The gateway's own mouth: said in the loop, whoever says it, and nothing any more when the loop has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from peanutd import _core
from peanutd.mouth import Mouth
from tests.broker.house import House


class Loop:
    """What was asked of it, until `turn`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., object], tuple[object, ...]]] = []
        self.closed = False

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: object) -> object:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.calls.append((callback, args))
        return None

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for callback, args in calls:
            callback(*args)


def made() -> tuple[House, Loop, Mouth]:
    house, loop = House(), Loop()

    def run(events: Iterable[_core.Event]) -> None:
        house.handle(list(events))

    return house, loop, Mouth(house.broker, run, loop, lambda: house.now)


def test_it_is_said_in_the_loop() -> None:
    house, loop, mouth = made()
    client = house.join()
    client.subscribe("#", qos=1)
    mouth.say("/plant/peanut/UpdateTemperature", b"temperature:15", 60)
    assert client.messages() == []
    loop.turn()
    assert client.messages() == [("/plant/peanut/UpdateTemperature", b"temperature:15", 1)]
    assert house.broker.retained("/plant/peanut/UpdateTemperature") is None


def test_it_waits_for_nobody_beyond_its_lifetime() -> None:
    house, loop, mouth = made()
    keeper = house.keeper()
    keeper.subscribe("a", qos=1)
    keeper.lose()
    mouth.say("a", b"old", 60)
    loop.turn()
    house.wait(61)
    mouth.say("a", b"new", 60)
    loop.turn()
    again = house.keeper()
    assert again.payloads() == [b"new"]


def test_what_is_retained_is_changed_in_one_piece() -> None:
    house, loop, mouth = made()
    mouth.keep("a", b"1")
    mouth.amend("a", lambda old: (old or b"") + b"2")
    mouth.amend("a", lambda old: (old or b"") + b"3")
    mouth.amend("a", lambda old: None)
    loop.turn()
    assert house.broker.retained("a") == b"123"
    mouth.amend("a", lambda old: b"")
    loop.turn()
    assert house.broker.retained("a") is None


def test_nothing_is_said_when_the_loop_has_ended() -> None:
    _, loop, mouth = made()
    loop.closed = True
    mouth.say("a", b"x", 60)
    mouth.amend("a", lambda old: b"x")
    assert loop.calls == []
