"""Groups: one act, and every member is brought there; who is away when it comes; and what each of them has said."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from peanutd import groups as module
from peanutd import recipes
from peanutd.ear import Report
from peanutd.groups import ALL, AT_ONCE, BUSY, LIFETIME, LOOK, PAUSE, GroupError, Groups, Progress
from peanutd.judges import Node
from peanutd.log import Log
from peanutd.recorder import Said

NOW = datetime(2026, 5, 1, 12).timestamp()
VIN = "WVWZZZ1JZXW000001"


class Fleet:
    """Greenhouses that do as they are told, unless a test says otherwise; and the gateway's mouth."""

    def __init__(self, home: Path, *names: str) -> None:
        self.home = home
        self.now = NOW
        self.names = names or ("a", "b", "c")
        self.nodes: Sequence[Node] = [Node(n, f"/plant/{n}") for n in self.names] + [Node(VIN, f"vin/{VIN}")]
        self.answers: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.retained: dict[str, bytes] = {}
        self.told: list[Progress] = []
        self.waiting: list[tuple[str, str, dict[str, Any]]] = []
        self.groups = self.open()

    def open(self) -> Groups:
        log = Log("debug", io.StringIO())
        self.groups = Groups(self.home, log, lambda: self.nodes, self, self.now, told=self.told.append)
        self.groups.tick(self.now)
        return self.groups

    # the mouth

    def say(self, topic: str, payload: bytes, lifetime: float) -> None:
        assert lifetime == LIFETIME
        said = json.loads(payload)
        name = topic.split("/")[2]
        assert topic == f"/plant/{name}/UpdateTemperature"
        assert said["exp"] == int(self.now) + LIFETIME
        self.asked.append((name, said))
        usual = [{"stage": "accepted"}, {"stage": "done"}]
        for answer in self.answers.get(name, lambda _: usual)(said):
            self.waiting.append((name, "ack", {"id": said["id"], **answer}))

    def amend(self, topic: str, change: Callable[[bytes | None], bytes | None]) -> None:
        made = change(self.retained.get(topic))
        if made is None:
            return
        self.retained[topic] = made
        name, said = topic.split("/")[2], json.loads(made)
        self.asked.append((name, said))
        for answer in self.answers.get(name, lambda said: [{"gen": said["gen"], "errors": []}])(said):
            self.waiting.append((name, "config/reported", answer))

    # the nodes

    def hear(self, name: str, leaf: str, said: dict[str, Any], *, retained: bool = False) -> None:
        root = next(node.root for node in self.nodes if node.name == name)
        self.groups.hear(Said(Report(root, leaf, b"", retained), said), self.now)

    def come(self, *names: str) -> None:
        for name in names:
            self.hear(name, "status", {"state": "online"})

    def go(self, *names: str) -> None:
        for name in names:
            self.hear(name, "status", {"state": "offline"})

    def turn(self, seconds: float = 0.25) -> list[str]:
        """Time passes, the gateway speaks, the nodes answer; who was asked."""
        self.now += seconds
        before = len(self.asked)
        self.groups.tick(self.now)
        waiting, self.waiting = self.waiting, []
        for name, leaf, said in waiting:
            self.hear(name, leaf, said)
        return sorted(name for name, _ in self.asked[before:])

    def states(self, group: str = "house") -> dict[str, str]:
        progress = self.groups.progress(group, self.now)
        assert progress is not None
        return {member.device: member.state for member in progress.devices}

    def why(self, device: str, group: str = "house") -> str | None:
        progress = self.groups.progress(group, self.now)
        assert progress is not None
        return next(member.why for member in progress.devices if member.device == device)


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    found = Fleet(tmp_path)
    found.groups.put("house", "The house", ["a", "b", "c"])
    return found


def test_everybody_is_brought_there_and_who_is_away_when_he_comes(fleet: Fleet) -> None:
    fleet.come("a", "b")
    progress = fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    assert progress.as_json() == {
        "group": "house",
        "desired": {"setpoint": 15, "by": "user/maria", "ts": NOW},
        "members": 3,
        "at": 0,
        "pending": 2,
        "offline": 1,
        "refused": 0,
        "devices": [
            {"device": "a", "state": "pending", "why": None},
            {"device": "b", "state": "pending", "why": None},
            {"device": "c", "state": "offline", "why": None},
        ],
    }
    assert fleet.turn() == ["a", "b"]
    assert fleet.states() == {"a": "at", "b": "at", "c": "offline"}
    assert fleet.asked[0][1]["temperature"] == 15
    assert fleet.turn() == []
    fleet.come("c")
    assert fleet.states()["c"] == "pending"
    assert fleet.turn() == ["c"]
    assert fleet.states()["c"] == "at"
    fleet.go("c")
    fleet.come("c")
    assert fleet.turn() == [], "once is enough"


def test_what_a_node_refuses_is_shown_with_its_reason(fleet: Fleet) -> None:
    fleet.come("a", "b", "c")
    fleet.answers["b"] = lambda _: [{"stage": "rejected", "why": "range: 2 to 12"}]
    fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    fleet.turn()
    assert fleet.states() == {"a": "at", "b": "refused", "c": "at"}
    assert fleet.why("b") == "range: 2 to 12"
    assert fleet.turn(LOOK) == [], "no is no"


def test_who_is_busy_is_asked_again_and_who_does_not_answer_more_and_more_rarely(fleet: Fleet) -> None:
    fleet.come("a", "b")
    fleet.answers["a"] = lambda _: [{"stage": "rejected", "why": "busy: too many changes"}]
    fleet.answers["b"] = lambda _: []
    fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    assert fleet.turn() == ["a", "b"]
    assert fleet.turn(BUSY - 1) == []
    del fleet.answers["a"]
    assert fleet.turn(1) == ["a"]
    assert fleet.states() == {"a": "at", "b": "pending", "c": "offline"}
    assert fleet.why("b") == "asked"
    times = []
    for _ in range(2000):
        if fleet.turn(1):
            times.append(fleet.now)
    gaps = [late - early for early, late in itertools.pairwise(times)]
    assert gaps[:3] == [LIFETIME + PAUSE * 2.0**tries + tail for tries, tail in ((1, 1), (2, 1), (3, 1))]
    fleet.go("b")
    fleet.come("b")
    assert fleet.turn() == ["b"], "who comes is asked at once"


def test_answers_to_other_commands_are_not_taken_for_ours(fleet: Fleet) -> None:
    fleet.come("a")
    fleet.answers["a"] = lambda _: []
    fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    fleet.turn()
    fleet.hear("a", "ack", {"id": "other", "stage": "done"})
    fleet.hear("a", "ack", {"id": fleet.asked[0][1]["id"], "stage": "done"}, retained=True)
    assert fleet.states()["a"] == "pending"
    fleet.hear("a", "ack", {"id": fleet.asked[0][1]["id"], "stage": "done"})
    assert fleet.states()["a"] == "at"


def test_what_a_person_does_at_a_node_is_not_fought_but_shown(fleet: Fleet) -> None:
    fleet.come("a")
    fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    fleet.turn()
    fleet.hear("a", "state", {"setpoint": 15.0})
    fleet.now += 60
    fleet.hear("a", "state", {"setpoint": 18.0})
    assert fleet.turn(LOOK) == []
    assert (fleet.states()["a"], fleet.why("a")) == ("refused", "changed since: its set point is 18")
    fleet.hear("a", "state", {"setpoint": 15.0})
    assert fleet.states()["a"] == "at"


def test_the_last_act_counts_where_a_node_is_in_several_groups(fleet: Fleet) -> None:
    fleet.come("a", "b")
    fleet.groups.put("one", "", ["a"])
    fleet.groups.want("one", "user/maria", fleet.now, setpoint=20)
    fleet.turn()
    fleet.groups.want("house", "user/tom", fleet.now, setpoint=15)
    assert fleet.turn() == ["a", "b"]
    assert [said["temperature"] for name, said in fleet.asked if name == "a"] == [20, 15]
    assert fleet.states("one") == {"a": "refused"}
    assert fleet.why("a", "one") == "group house wants something else of it, and said so later"
    fleet.groups.unwant("house")
    assert fleet.states("one") == {"a": "at"}


def test_the_last_act_counts_although_the_clock_was_ahead_at_the_one_before(fleet: Fleet) -> None:
    fleet.come("a")
    fleet.groups.put("one", "", ["a"])
    fleet.groups.want("one", "user/maria", fleet.now + 365 * 86_400, setpoint=20)
    fleet.groups.want("house", "user/tom", fleet.now, setpoint=15)
    fleet.turn()
    assert (fleet.states()["a"], fleet.states("one")["a"]) == ("at", "refused")


@pytest.mark.parametrize("jump", [-40 * 86_400.0, 40 * 86_400.0])
def test_a_clock_that_is_put_changes_nobodys_turn(fleet: Fleet, jump: float) -> None:
    fleet.come("a", "b")
    fleet.answers["a"] = lambda said: []
    fleet.answers["b"] = lambda said: [{"stage": "rejected", "why": "busy: later"}]
    fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    assert fleet.turn() == ["a", "b"]
    fleet.answers.clear()
    fleet.now += jump
    fleet.groups.shift(jump)
    assert fleet.turn() == []
    assert fleet.turn(BUSY + 1) == ["b"]
    assert fleet.turn(LIFETIME + 1) == []
    assert fleet.turn(PAUSE + 1) == ["a"]
    fleet.come("c")
    fleet.turn()
    fleet.now += jump
    fleet.groups.shift(jump)
    fleet.turn(module.SETTLE + 1)
    fleet.hear("a", "state", {"setpoint": 20})
    assert fleet.states() == {"a": "refused", "b": "at", "c": "at"}
    fleet.open()
    fleet.come("a", "b", "c")
    fleet.hear("a", "state", {"setpoint": 20})
    assert fleet.states()["a"] == "refused", "also after a restart"


def test_all_is_a_group_and_a_vehicle_in_it_has_no_set_point(fleet: Fleet) -> None:
    fleet.come("a", VIN)
    fleet.groups.want(ALL, "user/maria", fleet.now, setpoint=15)
    assert fleet.turn() == ["a"]
    assert fleet.states(ALL) == {"a": "at", "b": "offline", "c": "offline", VIN: "refused"}
    assert fleet.why(VIN, ALL) == "a vehicle has no set point"
    assert fleet.groups.members(ALL) == {"a", "b", "c", VIN}


def test_members_that_come_to_a_group_are_brought_there_too(fleet: Fleet) -> None:
    fleet.come("a", "b", "c")
    fleet.groups.put("house", "", ["a"])
    fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    assert fleet.turn() == ["a"]
    assert not fleet.groups.put("house", "", ["a", "b"])
    assert fleet.turn() == ["b"]


def test_a_restart_forgets_nothing_and_asks_nobody_twice(fleet: Fleet) -> None:
    fleet.come("a")
    fleet.answers["a"] = lambda _: [{"stage": "rejected", "why": "range: no"}]
    fleet.come("b")
    fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    fleet.turn()
    fleet.groups.close()
    fleet.open()
    fleet.come("a", "b")
    assert fleet.turn() == []
    assert fleet.states() == {"a": "refused", "b": "at", "c": "offline"}
    fleet.come("c")
    assert fleet.turn() == ["c"]
    assert fleet.groups.of("c") == {"house"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in fleet.home.glob("groups.db*")} == {0o600}


def test_a_thousand_are_asked_a_few_at_a_time(tmp_path: Path) -> None:
    names = [f"g{number:04d}" for number in range(1000)]
    fleet = Fleet(tmp_path, *names)
    fleet.come(*names[:990])
    for name in names[:4]:
        fleet.answers[name] = lambda _: [{"stage": "rejected", "why": "range: no"}]
    fleet.groups.want(ALL, "user/maria", fleet.now, setpoint=15)
    turns = [len(fleet.turn()) for _ in range(50)]
    assert max(turns) == AT_ONCE
    assert sum(turns) == 990
    progress = fleet.groups.progress(ALL, fleet.now)
    assert progress is not None
    found = progress.as_json()
    assert [found[key] for key in ("members", "at", "pending", "offline", "refused")] == [1001, 986, 0, 10, 5]
    assert len(fleet.told) <= 1 + 50 * 0.25 / module.TELL


def test_progress_for_somebody_who_may_not_see_all(fleet: Fleet) -> None:
    progress = fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    found = progress.as_json(frozenset({"a", "elsewhere"}))
    assert (found["members"], [one["device"] for one in found["devices"]]) == (1, ["a"])


def test_nothing_is_wanted_any_more(fleet: Fleet) -> None:
    fleet.groups.want("house", "user/maria", fleet.now, setpoint=15)
    assert fleet.groups.unwant("house")
    assert not fleet.groups.unwant("house")
    fleet.come("a")
    assert fleet.turn() == []
    assert fleet.groups.progress("house", fleet.now) is None
    assert fleet.groups.remove("house")
    assert not fleet.groups.remove("house")
    assert [group.name for group in fleet.groups.groups()] == [ALL]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (lambda groups: groups.put("all", "", []), 'not "all"'),
        (lambda groups: groups.put("A", "", []), "small letters"),
        (lambda groups: groups.put("a", "x" * 81, []), "title"),
        (lambda groups: groups.put("a", "two\nlines", []), "title"),
        (lambda groups: groups.put("a", "", ["nobody"]), "no device nobody"),
        (lambda groups: groups.want("house", "u", NOW), "either"),
        (lambda groups: groups.want("house", "u", NOW, setpoint=15, recipe="r"), "either"),
        (lambda groups: groups.want("nobody", "u", NOW, setpoint=15), "no group nobody"),
        (lambda groups: groups.want("house", "u", NOW, setpoint=100), "-10 to 45"),
        (lambda groups: groups.want("house", "u", NOW, recipe="r"), "no recipe r"),
        (lambda groups: groups.put_recipe("R", TOMATO), "small letters"),
    ],
)
def test_what_cannot_be_done_is_said(fleet: Fleet, what: Callable[[Groups], object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        what(fleet.groups)


def test_there_is_an_end_to_everything(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MAX_GROUPS", "MAX_RECIPES", "MAX_MEMBERS"):
        monkeypatch.setattr(module, name, 1)
    with pytest.raises(GroupError, match="1 groups"):
        fleet.groups.put("more", "", [])
    with pytest.raises(GroupError, match="1 members"):
        fleet.groups.put("house", "", ["a", "b"])
    fleet.groups.put_recipe("one", TOMATO)
    with pytest.raises(recipes.RecipeError, match="1 recipes"):
        fleet.groups.put_recipe("two", TOMATO)


# --- recipes ----------------------------------------------------------------------------------------------------------

TOMATO: dict[str, Any] = {
    "title": "Tomato",
    "seasons": [
        {"from": "03-01", "curve": [{"at": "20:00", "setpoint": 16}, {"at": "06:00", "setpoint": 21.5}]},
        {"from": "10-15", "curve": [{"at": "00:00", "setpoint": 8}]},
    ],
}
SPRING, WINTER = "06:00 21.5, 20:00 16", "00:00 8"


@pytest.mark.parametrize(
    ("day", "schedule"),
    [
        (date(2026, 3, 1), SPRING),
        (date(2026, 10, 14), SPRING),
        (date(2026, 10, 15), WINTER),
        (date(2026, 12, 31), WINTER),
        (date(2027, 1, 1), WINTER),
        (date(2027, 2, 28), WINTER),
    ],
)
def test_the_season_of_a_day(day: date, schedule: str) -> None:
    recipe = recipes.parse("tomato", TOMATO)
    assert recipe.on(day).schedule == schedule
    assert recipes.parse("tomato", recipe.as_json()) == recipe


def _changed(**changes: Any) -> dict[str, Any]:
    return {**TOMATO, **changes}


def _season(begins: Any = "03-01", *points: Any) -> dict[str, Any]:
    return _changed(seasons=[{"from": begins, "curve": list(points) or [{"at": "06:00", "setpoint": 20}]}])


@pytest.mark.parametrize(
    "said",
    [
        _changed(title=7),
        _changed(title="x" * 81),
        _changed(seasons=[]),
        _changed(seasons="none"),
        _changed(seasons=TOMATO["seasons"][:1] * 2),
        _changed(seasons=TOMATO["seasons"] * 7),
        _changed(seasons=[7]),
        _season("13-01"),
        _season("02-30"),
        _season(7),
        _season("03-01", {"at": "24:00", "setpoint": 20}),
        _season("03-01", {"at": "06:00", "setpoint": 46}),
        _season("03-01", {"at": "06:00", "setpoint": True}),
        _season("03-01", {"at": "06:00", "setpoint": float("nan")}),
        _season("03-01", {"at": "06:00", "setpoint": 20}, {"at": "06:00", "setpoint": 21}),
        _season("03-01", 7),
        _season("03-01", *({"at": f"{hour:02d}:00", "setpoint": 20} for hour in range(13))),
    ],
)
def test_a_recipe_that_is_none_is_refused(said: dict[str, Any]) -> None:
    with pytest.raises(recipes.RecipeError):
        recipes.parse("r", said)


def test_a_recipe_goes_into_the_configuration_of_each_member_beside_what_is_there(fleet: Fleet) -> None:
    fleet.come("a", "b")
    topic = "/plant/a/config/desired"
    fleet.retained[topic] = b'{"gen":7,"control":{"max":30,"schedule":"00:00 1"},"report":{"telemetry_s":30}}'
    assert fleet.groups.put_recipe("tomato", TOMATO)
    fleet.groups.want("house", "user/maria", fleet.now, recipe="tomato")
    assert fleet.turn() == ["a", "b"]
    said = json.loads(fleet.retained[topic])
    assert said["gen"] == 8, "one more than what was there"
    ahead = datetime.fromtimestamp(NOW).astimezone().utcoffset()
    assert ahead is not None
    control = {"max": 30, "schedule": SPRING, "utc_offset_h": ahead.total_seconds() / 3600}
    assert (said["control"], said["report"]) == (control, {"telemetry_s": 30})
    assert fleet.states() == {"a": "at", "b": "at", "c": "offline"}
    with pytest.raises(GroupError, match="holds it"):
        fleet.groups.remove_recipe("tomato")


def test_its_generation_is_above_that_of_what_is_in_force(fleet: Fleet) -> None:
    """And no further: a node counts to 2**30."""
    fleet.hear("a", "config/reported", {"gen": 41, "errors": []}, retained=True)
    fleet.come("a")
    fleet.groups.put_recipe("tomato", TOMATO)
    fleet.groups.want("house", "user/maria", fleet.now, recipe="tomato")
    fleet.turn()
    assert json.loads(fleet.retained["/plant/a/config/desired"])["gen"] == 42
    assert fleet.states()["a"] == "at"


def test_a_node_that_cannot_take_it_says_why(fleet: Fleet) -> None:
    fleet.come("a")
    fleet.answers["a"] = lambda said: [{"gen": 1, "errors": ["control.schedule: not like it"]}]
    fleet.groups.put_recipe("tomato", TOMATO)
    fleet.groups.want("house", "user/maria", fleet.now, recipe="tomato")
    fleet.turn()
    assert (fleet.states()["a"], fleet.why("a")) == ("refused", "control.schedule: not like it")


def test_what_it_says_of_an_older_configuration_is_no_answer(fleet: Fleet) -> None:
    fleet.come("a")
    fleet.answers["a"] = lambda said: [{"gen": 1, "errors": ["control.max: too much"], "ts": NOW - 60}]
    fleet.groups.put_recipe("tomato", TOMATO)
    fleet.groups.want("house", "user/maria", fleet.now, recipe="tomato")
    fleet.turn()
    assert fleet.states()["a"] == "pending"


def test_another_season_and_another_recipe_are_sent_by_themselves(fleet: Fleet) -> None:
    fleet.come("a")
    fleet.groups.put_recipe("tomato", TOMATO)
    fleet.groups.want("house", "user/maria", fleet.now, recipe="tomato")
    fleet.turn()
    fleet.now = datetime(2026, 10, 14, 23, 59).timestamp()
    assert fleet.turn() == []
    assert fleet.turn(LOOK + 1) == ["a"]
    assert json.loads(fleet.retained["/plant/a/config/desired"])["control"]["schedule"] == WINTER
    fleet.groups.put_recipe("tomato", _season("01-01"))
    fleet.turn()
    assert json.loads(fleet.retained["/plant/a/config/desired"])["control"]["schedule"] == "06:00 20"
    assert fleet.groups.recipe("tomato") is not None
    assert [recipe.name for recipe in fleet.groups.recipes()] == ["tomato"]


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The gateway is there."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        yield
    time.tzset()


def test_a_recipe_goes_by_the_gateways_clock_on_the_wall(fleet: Fleet, berlin: None) -> None:
    """Also over the beginning and the end of summer time, over midnight, and over a restart in between."""

    def at(*when: int) -> float:
        return datetime(*when, tzinfo=UTC).timestamp()  # type: ignore[arg-type, misc]

    def control() -> tuple[Any, Any]:
        found = json.loads(fleet.retained["/plant/a/config/desired"])["control"]
        return found["schedule"], found["utc_offset_h"]

    fleet.now = at(2026, 2, 28, 22, 58)
    fleet.open()
    fleet.come("a")
    fleet.groups.put_recipe("tomato", TOMATO)
    fleet.groups.want("house", "user/maria", fleet.now, recipe="tomato")
    fleet.turn()
    assert control() == (WINTER, 1.0)
    fleet.turn(LOOK)
    assert control() == (WINTER, 1.0), "23:59 on the wall"
    assert fleet.turn(LOOK + 1) == ["a"]
    assert control() == (SPRING, 1.0), "March has begun where the gateway is"
    fleet.now = at(2026, 3, 29, 0, 59)
    assert fleet.turn() == []
    fleet.groups.close()
    fleet.open()
    fleet.come("a")
    assert fleet.turn() == [], "asked once"
    assert fleet.turn(LOOK + 1) == ["a"]
    assert control() == (SPRING, 2.0)
    assert fleet.turn(LOOK + 1) == []
    assert fleet.states()["a"] == "at"
    fleet.now = at(2026, 10, 25, 0, 59)
    fleet.turn(LOOK + 1)
    assert control() == (WINTER, 1.0)


def test_wishes_of_a_gateway_from_before_they_had_an_hour_go_on(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "groups.db")) as old:
        for table in (
            "team (name TEXT PRIMARY KEY, title TEXT NOT NULL)",
            "member (team TEXT NOT NULL REFERENCES team, device TEXT NOT NULL, PRIMARY KEY (team, device))",
            "desired (team TEXT PRIMARY KEY, setpoint REAL, recipe TEXT, by TEXT NOT NULL, ts REAL NOT NULL, "
            "schedule TEXT)",
            "outcome (team TEXT NOT NULL REFERENCES desired, device TEXT NOT NULL, good INTEGER NOT NULL, why TEXT, "
            "ts REAL NOT NULL, PRIMARY KEY (team, device))",
            "recipe (name TEXT PRIMARY KEY, said TEXT NOT NULL)",
        ):
            old.execute(f"CREATE TABLE {table}")
        old.execute("INSERT INTO desired VALUES ('all', NULL, 'tomato', 'user/maria', ?, '06:00 20')", (NOW,))
        old.execute("INSERT INTO recipe VALUES ('tomato', ?)", (json.dumps(_season("01-01")),))
        old.execute("PRAGMA user_version = 1")
        old.commit()
    fleet = Fleet(tmp_path, "a")
    fleet.come("a")
    fleet.turn()
    assert fleet.states(ALL)["a"] == "at"


def test_a_configuration_that_has_no_room_is_left_as_it_is(fleet: Fleet) -> None:
    fleet.come("a")
    fleet.retained["/plant/a/config/desired"] = json.dumps({"gen": 1, "wifi": "x" * 2000}).encode()
    fleet.groups.put_recipe("tomato", TOMATO)
    fleet.groups.want("house", "user/maria", fleet.now, recipe="tomato")
    assert fleet.turn() == []
    assert fleet.states()["a"] == "pending"
    assert json.loads(fleet.retained["/plant/a/config/desired"])["gen"] == 1
