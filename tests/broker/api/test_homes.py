"""What Home Assistant would have a vehicle do: signed by the gateway, with a code where one is needed, and recorded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from peanutd import rules
from peanutd._core import MAY_PUBLISH
from peanutd.access import Slot
from peanutd.api import homes as module
from peanutd.api.bridge import Relay
from peanutd.api.homes import UNDER_WAY, WINDOW, WRONG, Homes
from peanutd.config import HomeAssistant
from peanutd.ear import Report
from tests.broker.api.conftest import World
from tests.broker.api.test_devices import VIN, Car

ROOT = f"vin/{VIN}"


class Home:
    """The gateway's side, heard by the ear like everything else."""

    def __init__(self, world: World, code_file: str = "") -> None:
        self.world = world
        self.car = Car(world)
        made, settings = world.services, HomeAssistant(enabled=True, code_file=code_file)
        self.homes = Homes(world.home, settings, made.nodes, made.commands, made.audit, world.log, made.monotonic)
        self.relay: Relay[Report] = Relay(self.homes.take)
        self.relay.open(world.loop)
        self.deaf = world.ear.listen(lambda report: self.relay.put(report) if Homes.wants(report) else None)

    def wish(self, verb: str, *, retain: bool = False, **said: Any) -> None:
        """Home Assistant publishes, and the gateway does what it does."""
        self.car.node.say(f"ha/{verb}", said, retain=retain)
        self.world.settle()

        async def over() -> None:
            while self.homes._tasks:
                await asyncio.wait(set(self.homes._tasks))

        self.world.run(over())

    def lock(self, do: str, code: str = "") -> None:
        self.wish("lock", do=do, code=code)

    @property
    def entries(self) -> list[tuple[str, str, str | None]]:
        """Outcomes and reasons of its commands, the oldest first."""
        found = self.world.entries(who="home-assistant")
        return [(entry["action"], entry["outcome"], entry["why"]) for entry in reversed(found)]


@pytest.fixture
def home(world: World) -> Iterator[Callable[..., Home]]:
    made: list[Home] = []

    def make(**more: Any) -> Home:
        made.append(Home(world, **more))
        return made[-1]

    yield make
    for one in made:
        one.deaf()


def test_a_car_that_was_added_while_the_gateway_runs_is_obeyed(
    world: World, home: Callable[..., Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has asked the API for anything since: it is Home Assistant's wish that makes it look into the ledger."""
    nodes = world.services.nodes
    with monkeypatch.context() as patch:
        patch.setattr(nodes, "refresh", lambda: None)  # `peanut device add` in another process
        house = home()
    assert VIN not in nodes.all
    house.lock("lock")
    assert house.car.done == ["lock"]


def test_it_locks_sounds_the_horn_and_stops_the_engine(home: Callable[..., Home]) -> None:
    house = home()
    house.lock("lock")
    house.wish("horn")
    house.wish("stop")
    assert house.car.done == ["lock", "horn", "stop"], "signed: the vehicle has checked it"
    assert house.entries == [("command", "sent", None), ("answer", "done", None)] * 3


def test_unlocking_takes_the_code(home: Callable[..., Home], world: World) -> None:
    (world.home / "ha.code").write_text("2468\n")
    house = home(code_file="ha.code")
    house.lock("unlock")
    house.lock("unlock", "1234")
    assert house.car.done == []
    house.lock("unlock", "2468")
    assert house.car.done == ["unlock"]
    assert [why for _, outcome, why in house.entries if outcome == "refused"] == ["wrong code"] * 2


def test_there_is_an_end_to_guessing(home: Callable[..., Home], world: World) -> None:
    (world.home / "ha.code").write_text("2468\n")
    house = home(code_file="ha.code")
    for guess in range(WRONG):
        house.lock("unlock", f"000{guess}")
    house.lock("unlock", "2468")
    assert house.car.done == []
    assert house.entries[-1][2] == f"{WRONG} wrong codes; none counts for a while"
    house.lock("lock")
    assert house.car.done == ["lock"], "that needs no code"
    world.now += WINDOW
    house.lock("unlock", "2468")
    assert house.car.done == ["lock", "unlock"]


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("lock", {"do": "start"}),
        ("lock", {"do": 7}),
        ("lock", {}),
        ("start", {}),
        ("unlock", {}),
        ("lock", {"do": "unlock", "code": ""}),
        ("lock", {"do": "unlock", "code": "2468"}),
    ],
)
def test_what_it_may_not_is_refused_and_on_record(home: Callable[..., Home], verb: str, said: dict[str, Any]) -> None:
    house = home()
    house.wish(verb, **said)
    assert house.car.done == []
    ((action, outcome, why),) = house.entries
    assert (action, outcome) == ("command", "refused")
    assert why


def test_a_code_file_that_is_empty_or_not_there_opens_nothing(home: Callable[..., Home], world: World) -> None:
    house = home(code_file="ha.code")
    house.lock("unlock", "")
    (world.home / "ha.code").write_text("\n")
    house.lock("unlock", "")
    assert house.car.done == []
    assert len(house.entries) == 2


def test_what_is_retained_is_not_obeyed(home: Callable[..., Home]) -> None:
    wish = Report(ROOT, "ha/lock", json.dumps({"do": "lock"}).encode(), True)
    assert not Homes.wants(wish)
    assert Homes.wants(wish._replace(retained=False))
    assert not Homes.wants(wish._replace(leaf="state", retained=False))


def test_too_many_wishes_at_once_are_dropped(home: Callable[..., Home], world: World) -> None:
    house = home()

    async def flood() -> None:
        house.homes.take([Report(ROOT, "ha/horn", b"{}", False)] * (UNDER_WAY + 3), 0)
        await asyncio.wait(set(house.homes._tasks))

    world.run(flood())
    assert world.lines.text.count("too many wishes at once") == 3
    assert len(house.car.done) == UNDER_WAY


def test_the_rules_say_who_may_wish() -> None:
    """A viewer may not, whatever Home Assistant is signed in as; an operator may."""
    from peanutd import _core

    broker = _core.Broker(seed=b"a fixed seed")
    rules.built_in().install(broker)
    may = {slot: broker.explain(slot.value, "x", MAY_PUBLISH, f"{ROOT}/ha/lock")[0] for slot in Slot}
    assert {slot for slot, allowed in may.items() if allowed} == {
        *(Slot.OPERATOR, Slot.USER_OPERATOR, Slot.USER_ADMIN, Slot.TOKEN_OPERATOR, Slot.TOKEN_ADMIN, Slot.ANONYMOUS),
    }
    assert not broker.explain(Slot.OPERATOR.value, "x", MAY_PUBLISH, f"{ROOT}/ha/lock", True)[0], "never retained"
    assert module.ORIGIN.who == "home-assistant"
