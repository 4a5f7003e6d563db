"""History, alerts, groups and recipes over HTTPS: what is shown, to whom, and what is refused."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import pytest

from peanutd import alert_rules
from peanutd.api import audience, past, telling
from peanutd.api.sessions import IDLE
from peanutd.config import Config, History
from peanutd.connection import now_ms
from peanutd.monitor import GATEWAY, Monitor
from peanutd.mouth import Mouth
from tests.broker.api.conftest import START, Node, Refused, World, asgi_scope
from tests.broker.receivers import Browser

RULES = """
[[rule]]
id = "cold"
what = "threshold"
below = 5
severity = "critical"
[[rule]]
id = "certificate"
what = "certificate"
"""
PATIENCE = 40.0
SPRING = {"title": "Tomato", "seasons": [{"from": "01-01", "curve": [{"at": "06:00", "setpoint": 20.0}]}]}


class Watched:
    """A world with the monitoring side, and the tokens of its users."""

    def __init__(self, world: World) -> None:
        self.world = world
        (world.home / "alerts.toml").write_text(RULES)
        mouth = Mouth(world.server.broker, world.server.run, world.loop, now_ms)
        ends = datetime.fromtimestamp(START, UTC) + timedelta(days=5)
        settings = Config(history=History(batch_seconds=1))
        self.monitor = Monitor(
            *(world.home, settings, world.log, alert_rules.load(world.home), mouth, lambda: ends),
            clock=lambda: world.now,
            monotonic=lambda: world.now,
        )
        world.monitor = self.monitor
        world.restart()
        world.ear.listen(self.monitor.recorder.hear)

    @cached_property
    def maria(self) -> str:
        return self.world.token("maria")

    @cached_property
    def vera(self) -> str:
        return self.world.token("vera")

    def ask(self, method: str, path: str, body: Any = None, *, token: str = "") -> Any:
        return self.world.ask(method, path, body, token=token or self.maria)

    def get(self, path: str, **more: Any) -> Any:
        answer = self.ask("GET", path, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def until(self, what: Callable[[], Any]) -> Any:
        """Waits for the recorder, which has a thread of its own."""
        end = time.monotonic() + PATIENCE
        while not (found := what()):
            assert time.monotonic() < end
            self.world.settle()
            self.world.now += 0.1  # an access token outlives PATIENCE by far
            time.sleep(0.01)
        return found

    def scoped(self, *groups: str) -> str:
        """The token of maria, who is held to these groups from now on."""
        self.world.run(self.world.services.scopes.set("maria", frozenset(groups)))
        return self.world.token("maria")


@pytest.fixture
def watched(world: World) -> Iterator[Watched]:
    found = Watched(world)
    with found.monitor:
        yield found


def measure(watched: Watched, node: Node, *values: float) -> int:
    """Temperatures, a minute apart until START; when they are written, the second of the first."""
    for number, value in enumerate(values, 1 - len(values)):
        ts = int(START) + 60 * number
        node.say("telemetry", {"ts": ts, "readings": {"temperature": [value, "ok", 0], "soil": [40, "ok", 0]}})
    written = watched.monitor.recorder.counts
    watched.until(lambda: written.written >= 2 * len(values))
    return int(START) - 60 * (len(values) - 1)


def test_what_was_measured_is_shown(watched: Watched) -> None:
    node = watched.world.node("peanut")
    begin = measure(watched, node, 15.0, 16.0, 17.5)
    end = int(START) + 1
    found = watched.get(f"/devices/peanut/history?quantity=temperature&from={begin}&to={end}&step_s=1")
    assert found == {
        "device": "peanut",
        "quantity": "temperature",
        "unit": "°C",
        "step_s": 1,
        "from": begin,
        "to": end,
        "points": [[begin + 60 * n, value, value, value, 1] for n, value in enumerate((15.0, 16.0, 17.5))],
        "cut": False,
    }
    series = watched.get(
        f"/devices/peanut/history?from={begin}&to={end}&step_s=3600&quantity=soil&quantity=temperature",
        token=watched.vera,
    )["series"]
    assert [(one["quantity"], sum(point[4] for point in one["points"])) for one in series] == [
        *(("soil", 3), ("temperature", 3)),
    ]
    assert watched.get("/devices/peanut/history?quantity=nothing")["points"] == []
    names = watched.get("/devices/peanut/quantities")["quantities"]
    assert {("soil", "%"), ("temperature", "°C")} <= {(one["name"], one["unit"]) for one in names}


def test_csv(watched: Watched) -> None:
    node = watched.world.node("peanut")
    begin = measure(watched, node, 15.0, 16.0)
    answer = watched.ask("GET", f"/devices/peanut/history.csv?quantity=temperature&from={begin}&to={int(START) + 1}")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == 'attachment; filename="peanut.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["node"], row["reading"], float(row["value"])) for row in rows] == [
        *(("peanut", "temperature", 15.0), ("peanut", "temperature", 16.0)),
    ]
    assert not past.PLACES._taken, "the place is free again"


def test_who_hangs_up_in_the_middle_of_a_csv_holds_nothing(watched: Watched) -> None:
    measure(watched, watched.world.node("peanut"), 15.0, 16.0)
    headers = [(b"host", b"gateway.local"), (b"authorization", f"Bearer {watched.maria}".encode())]
    scope = asgi_scope("/devices/peanut/history.csv", headers=headers)
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(PATIENCE)

    async def send(message: Any) -> None:
        sent.append(message["type"])
        if message["type"] == "http.response.body":
            raise ConnectionResetError

    gc.collect()
    gc.disable()  # nor does it wait for that
    try:
        with pytest.raises((ConnectionResetError, BaseExceptionGroup)):
            watched.world.run(watched.world.app(scope, receive, send))
        assert sent == ["http.response.start", "http.response.body"]
        assert not past.PLACES._taken
    finally:
        gc.enable()


def test_what_has_happened(watched: Watched) -> None:
    node = watched.world.node("peanut")
    for number in range(3):
        node.say("event", {"id": "frost", "text": f"frost {number}", "clear": False, "ts": int(START) + number})
    watched.until(lambda: len(watched.get("/devices/peanut/events")["events"]) == 3)
    first = watched.get("/devices/peanut/events?limit=2")
    assert [event["text"] for event in first["events"]] == ["frost 2", "frost 1"]
    rest = watched.get(f"/devices/peanut/events?limit=2&after={first['next']}")
    assert ([event["text"] for event in rest["events"]], rest["next"]) == (["frost 0"], None)


def test_the_past_is_for_who_may_see_the_device(watched: Watched, refused: Refused) -> None:
    watched.world.node("peanut")
    paths = ("history", "history.csv", "quantities", "events")
    for path in paths:
        assert refused(watched.world.ask("GET", f"/devices/peanut/{path}"), "unauthorized")
        assert refused(watched.ask("GET", f"/devices/walnut/{path}"), "not_found")
    token = watched.scoped("north")
    for path in paths:
        assert refused(watched.ask("GET", f"/devices/peanut/{path}", token=token), "not_found")


def test_a_time_that_is_none_is_refused(watched: Watched, refused: Refused) -> None:
    watched.world.node("peanut")
    many = "&".join(["quantity=a"] * 17)
    for query in ("from=5&to=5", "from=9&to=5", "step_s=-1", "step_s=x", "from=-1", "to=1e300", many):
        assert refused(watched.ask("GET", f"/devices/peanut/history?{query}"), "invalid")


def test_an_alert_is_shown_and_acknowledged(watched: Watched, refused: Refused) -> None:
    node = watched.world.node("peanut")
    measure(watched, node, 3.0)
    (alert,) = watched.until(lambda: watched.get("/alerts?device=peanut")["alerts"])
    assert (alert["rule"], alert["severity"], alert["state"], alert["value"]) == ("cold", "critical", "raised", 3.0)
    path = f"/alerts/{alert['id']}/acknowledge"
    assert refused(watched.ask("POST", path, {}, token=watched.vera), "forbidden")
    known = watched.ask("POST", path, {"note": "I am coming"}).json()
    assert (known["state"], known["acknowledged"]["by"]) == ("acknowledged", "user/maria")
    assert watched.get("/alerts?state=raised&device=peanut")["alerts"] == []
    assert watched.get("/alerts?state=acknowledged")["alerts"] == [known]
    assert refused(watched.ask("POST", "/alerts/999/acknowledge", {}), "not_found")
    assert refused(watched.ask("POST", "/alerts/x/acknowledge", {}), "not_found")
    (entry,) = watched.world.entries(action="acknowledge")
    assert (entry["who"], entry["target"]) == ("user/maria", "peanut")


def test_the_live_stream_tells_of_alerts_and_of_groups(watched: Watched) -> None:
    world = watched.world
    heard: list[Any] = []
    telling.connect(watched.monitor, world.services, world.loop)
    node = world.node("peanut")
    with world.services.nodes.following(heard.append):
        measure(watched, node, 3.0)
        watched.ask("PUT", "/groups/all/desired", {"setpoint": 15})
        watched.until(lambda: [news for news in heard if news.event == "group" and news.data["at"] == 1])
    (alert,) = [news for news in heard if news.event == "alert" and news.device == "peanut"]
    assert (alert.data["rule"], alert.data["state"]) == ("cold", "raised")
    assert all(news.data["devices"] == [] for news in heard if news.event == "group"), "names are not for everybody"


def test_alerts_are_for_who_may_see_the_device(watched: Watched, refused: Refused) -> None:
    node = watched.world.node("peanut")
    measure(watched, node, 3.0)
    found = watched.until(lambda: len(alerts := watched.get("/alerts")["alerts"]) == 2 and alerts)
    assert {alert["device"] for alert in found} == {"peanut", "gateway"}
    number = next(alert["id"] for alert in found if alert["device"] == "peanut")
    token = watched.scoped("north")
    assert watched.get("/alerts", token=token)["alerts"] == []
    assert refused(watched.ask("POST", f"/alerts/{number}/acknowledge", {}, token=token), "not_found")


def test_a_greenhouse_that_is_called_like_the_gateway_is_looked_after_too(watched: Watched) -> None:
    def found() -> list[tuple[str, str, float | None]]:
        return [(node.name, node.root, node.not_after) for node in watched.monitor.nodes()]

    ends = START + 5 * 86_400
    watched.world.enrol("peanut")
    assert found() == [("peanut", "/plant/peanut", None), (GATEWAY, "", ends)]
    watched.world.enrol(GATEWAY)
    assert found() == [("peanut", "/plant/peanut", None), (GATEWAY, "/plant/gateway", ends)]


def test_rules_can_be_read(watched: Watched) -> None:
    found = watched.get("/alert-rules")
    assert found["source"] == "alerts.toml"
    assert {"id": "cold", "what": "threshold", "below": 5.0, "severity": "critical"} in found["rules"]


def test_browsers_that_are_to_be_told(watched: Watched, refused: Refused) -> None:
    assert len(watched.get("/push/key")["key"]) == 87
    browser = Browser()
    keys = {"p256dh": browser.p256dh, "auth": browser.auth}
    good = {"endpoint": "https://fcm.googleapis.com/x", "expirationTime": None, "keys": keys}
    answer = watched.ask("POST", "/push/subscriptions", good)
    assert answer.status_code == 201
    number = answer.json()["id"]
    for endpoint in ("https://127.0.0.1:8443/x", "http://fcm.googleapis.com/x", "https://internal.local/"):
        assert refused(watched.ask("POST", "/push/subscriptions", {**good, "endpoint": endpoint}), "invalid")
    assert refused(watched.ask("DELETE", f"/push/subscriptions/{number}", token=watched.vera), "not_found")
    assert watched.ask("DELETE", f"/push/subscriptions/{number}").status_code == 204


def test_a_browser_is_told_no_more_when_its_sign_in_has_been_ended(watched: Watched) -> None:
    world = watched.world
    alerts = watched.monitor.alerts
    assert alerts is not None

    def users() -> list[str]:
        query = "SELECT user FROM subscription ORDER BY user"
        rows = watched.monitor.recorder.ask(lambda: alerts._db.execute(query).fetchall()).result(PATIENCE)
        return [user for (user,) in rows]

    def subscribe(token: str, number: int) -> None:
        browser = Browser()
        keys = {"p256dh": browser.p256dh, "auth": browser.auth}
        body = {"endpoint": f"https://fcm.googleapis.com/{number}", "keys": keys}
        assert watched.ask("POST", "/push/subscriptions", body, token=token).status_code == 201

    lost, ada = world.token("maria"), world.token("ada")
    for number, token in enumerate((watched.maria, lost, watched.vera)):
        subscribe(token, number)
    assert users() == ["maria", "maria", "vera"]
    assert watched.ask("DELETE", "/session", token=lost).status_code == 204
    assert users() == ["maria", "vera"], "that of the lost phone"
    assert watched.ask("DELETE", "/users/vera", token=ada).status_code == 204
    assert users() == ["maria"]
    world.now += IDLE + 1
    world.run(world.services.sessions.sweep(world.now))
    assert users() == ["maria"], "who has not looked for a month is told of frost all the same"


def test_alerts_are_told_to_who_may_see_the_device_by_push_as_on_the_page(watched: Watched) -> None:
    services = watched.world.services
    watched.world.node("peanut")
    watched.world.node("other")
    assert watched.ask("PUT", "/groups/north", {"members": ["peanut"]}).status_code == 201

    def told(name: str) -> frozenset[str] | None:
        return watched.world.run(audience.of_user(services, name))

    assert told("vera") == {"peanut", "other", GATEWAY}
    watched.scoped("north")
    assert told("maria") == {"peanut"}
    assert told("nobody") is None


def test_a_courier_that_asks_too_late_tries_again(watched: Watched) -> None:
    """A gateway that ends, or has no time, is no reason to tell somebody, or to forget him."""
    world = watched.world
    ask = audience.for_couriers(world.services, world.loop)
    asked = world.loop.run_in_executor(None, ask, "vera")
    assert world.run(asked) == {GATEWAY}
    ended = asyncio.new_event_loop()
    ended.close()
    with pytest.raises(OSError, match="ends"):
        audience.for_couriers(world.services, ended)("vera")


def test_a_group_is_brought_where_it_is_to_be(watched: Watched) -> None:
    world = watched.world
    nodes = {name: world.node(name) for name in ("a", "b")}
    nodes["b"].act = lambda verb, body: [{"id": body["id"], "stage": "rejected", "why": "range: 2 to 12"}]
    world.enrol("c")
    answer = watched.ask("PUT", "/groups/house", {"title": "The house", "members": ["a", "b", "c"]})
    assert (answer.status_code, answer.json()["members"]) == (201, ["a", "b", "c"])
    assert watched.ask("PUT", "/groups/house", {"members": ["a", "b", "c"]}).status_code == 200
    assert watched.get("/devices/a")["groups"] == ["house"]
    assert [one["name"] for one in watched.get("/devices?group=house")["devices"]] == ["a", "b", "c"]
    answer = watched.ask("PUT", "/groups/house/desired", {"setpoint": 15})
    assert (answer.status_code, answer.json()["members"]) == (202, 3)

    def settled() -> Any:
        found = watched.get("/groups/house/desired")
        return found if found["pending"] == 0 and found["at"] else None

    found = watched.until(settled)
    assert [(one["device"], one["state"], one["why"]) for one in found["devices"]] == [
        *(("a", "at", None), ("b", "refused", "range: 2 to 12"), ("c", "offline", None)),
    ]
    ((verb, body),) = nodes["a"].heard
    assert (verb, body["temperature"]) == ("UpdateTemperature", 15)
    c = Node(world, "/plant/c")
    watched.until(lambda: watched.get("/groups/house/desired")["at"] == 2)
    assert len(c.heard) == 1
    groups = watched.get("/groups")["groups"]
    assert [(one["name"], one["desired"] is not None) for one in groups] == [("all", False), ("house", True)]
    assert watched.ask("DELETE", "/groups/house/desired").status_code == 204
    assert watched.ask("DELETE", "/groups/house/desired").status_code == 404
    assert watched.ask("DELETE", "/groups/house").status_code == 204
    assert {entry["action"] for entry in world.entries(target="house")} == {
        *("group", "desired", "desired-removed", "group-removed"),
    }


def test_who_may_do_what_with_groups(watched: Watched, refused: Refused) -> None:
    world = watched.world
    for name in ("a", "b"):
        world.node(name)
    for body in ({"members": ["a"]},):
        assert refused(watched.ask("PUT", "/groups/north", body, token=watched.vera), "forbidden")
        assert watched.ask("PUT", "/groups/north", body).status_code == 201
    watched.ask("PUT", "/groups/south", {"members": ["b"]})
    assert refused(watched.ask("PUT", "/groups/north/desired", {"setpoint": 9}, token=watched.vera), "forbidden")
    token = watched.scoped("north")
    assert [one["name"] for one in watched.get("/groups", token=token)["groups"]] == ["all", "north"]
    assert watched.get("/groups", token=token)["groups"][0]["members"] == ["a"]
    assert refused(watched.ask("PUT", "/groups/north", {"members": ["a", "b"]}, token=token), "forbidden")
    assert refused(watched.ask("DELETE", "/groups/south", token=token), "forbidden")
    assert refused(watched.ask("PUT", "/groups/south/desired", {"setpoint": 9}, token=token), "not_found")
    assert refused(watched.ask("PUT", "/groups/all/desired", {"setpoint": 9}, token=token), "forbidden")
    assert refused(watched.ask("PUT", "/recipes/tomato", SPRING, token=token), "forbidden")
    assert watched.ask("PUT", "/groups/north/desired", {"setpoint": 9}, token=token).status_code == 202
    assert refused(watched.ask("GET", "/groups/south/desired", token=token), "not_found")


IMPOSSIBLE: list[tuple[str, Any]] = [
    ("/groups/all", {"members": []}),
    ("/groups/house", {"members": ["nobody"]}),
    ("/groups/house", {"members": ["a"] * 10_001}),
    ("/groups/house", {"title": "x" * 81, "members": []}),
    ("/groups/all/desired", {}),
    ("/groups/all/desired", {"setpoint": 46}),
    ("/groups/all/desired", {"setpoint": 15, "recipe": "tomato"}),
    ("/groups/all/desired", {"recipe": "nothing"}),
    ("/recipes/tomato", {"seasons": []}),
    ("/recipes/tomato", {"seasons": [{"from": "13-01", "curve": [{"at": "06:00", "setpoint": 20}]}]}),
]


def test_what_cannot_be_done_is_refused(watched: Watched, refused: Refused) -> None:
    watched.world.enrol("a")
    for path, body in IMPOSSIBLE:
        assert refused(watched.ask("PUT", path, body), "invalid"), (path, body)


def test_without_a_ledger_there_is_nobody_to_group(watched: Watched, refused: Refused) -> None:
    assert refused(watched.ask("PUT", "/groups/house", {"members": ["a"]}), "invalid")


def test_recipes(watched: Watched, refused: Refused) -> None:
    watched.world.enrol("a")
    assert watched.ask("PUT", "/recipes/tomato", SPRING).status_code == 201
    assert watched.ask("PUT", "/recipes/tomato", SPRING).status_code == 200
    assert watched.get("/recipes")["recipes"] == [{"name": "tomato", **SPRING}]
    assert watched.get("/recipes/tomato") == {"name": "tomato", **SPRING}
    assert watched.ask("PUT", "/groups/all/desired", {"recipe": "tomato"}).status_code == 202
    assert refused(watched.ask("DELETE", "/recipes/tomato"), "conflict")
    watched.ask("DELETE", "/groups/all/desired")
    assert watched.ask("DELETE", "/recipes/tomato").status_code == 204
    assert refused(watched.ask("GET", "/recipes/tomato"), "not_found")


def test_without_the_monitoring_side_it_says_so(world: World, refused: Refused) -> None:
    world.node("peanut")
    token = world.token("maria")
    for path in ("/devices/peanut/history", "/alerts", "/groups", "/recipes"):
        assert refused(world.ask("GET", path, token=token), "unavailable")
