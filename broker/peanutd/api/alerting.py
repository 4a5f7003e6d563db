"""Alerts: shown, acknowledged by a person; and the browsers that are to be told by Web Push.

The rule it keeps: an alert is for who may see its device (audience.py), and a browser that is to be told ends with the
sign-in that subscribed it, when that is ended.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import JSONResponse

from peanutd import alerts, webpush
from peanutd.access import Role
from peanutd.alert_rules import SEVERITIES
from peanutd.api import asking, audience, shape
from peanutd.api.devices import LIMIT
from peanutd.api.problem import Problem, not_found
from peanutd.api.shape import COUNT, NUMBER, TEXT, TIME, listed, or_null, table, text, words
from peanutd.api.table import PATHS, Call, Operation

PATHS["alert"] = text(15, 1, "^[0-9]+$")
PATHS["subscription"] = text(40, 1)

ALERT: Final = shape.name(
    "Alert",
    table(
        {
            "id": COUNT,
            "rule": TEXT,
            "device": TEXT,
            "severity": words(*SEVERITIES),
            "state": words(*alerts.STATES),
            "text": TEXT,
            "value": or_null(NUMBER),
            "raised": TIME,
            "acknowledged": or_null(table({"by": TEXT, "ts": TIME, "note": TEXT})),
            "cleared": or_null(TIME),
        }
    ),
)
SUBSCRIPTION: Final = table(
    {"endpoint": text(webpush.MAX_ENDPOINT, 1), "keys": table({"p256dh": text(200, 1), "auth": text(50, 1)})},
    {"expirationTime": or_null(NUMBER)},
)


async def listing(call: Call) -> Any:
    """GET /alerts."""
    query, names = call.query, await audience.devices(call.services, call.person)
    wanted = names & {query["device"]} if "device" in query else names
    limit = query["limit"]
    found = await asking.ask_alerts(
        call.services,
        lambda alerts: alerts.alerts(
            state=query.get("state"), devices=sorted(wanted), before=query.get("after"), limit=limit + 1
        ),
    )
    page = found[:limit]
    return {"alerts": [alert.as_json() for alert in page], "next": page[-1].id if len(found) > limit else None}


async def acknowledge(call: Call) -> Any:
    """POST /alerts/{alert}/acknowledge."""
    services, number = call.services, int(call.path["alert"])
    found = await asking.ask_alerts(services, lambda alerts: alerts.alert(number))
    if found is None or found.device not in await audience.devices(services, call.person):
        raise not_found("alert")
    await services.audit.add(call.origin, "acknowledge", found.device, "ok", alert=number, rule=found.rule)
    by, note, now = call.person.who, call.body.get("note", ""), services.clock()
    known = await asking.ask_alerts(services, lambda alerts: alerts.acknowledge(number, by, note, now))
    if known is None:
        raise not_found("alert")
    return known.as_json()


async def rules(call: Call) -> Any:
    """GET /alert-rules."""
    book = await asking.ask_alerts(call.services, lambda alerts: alerts.rulebook)
    source = "alerts.toml" if book.source.endswith("alerts.toml") else book.source
    return {"rules": alerts.about(book), "source": source}


async def push_key(call: Call) -> Any:
    """GET /push/key."""
    return {"key": await asking.ask_alerts(call.services, lambda alerts: alerts.push_key())}


async def subscribe(call: Call) -> Any:
    """POST /push/subscriptions."""
    endpoint, keys = call.body["endpoint"], call.body["keys"]
    person, now = call.person, call.services.clock()

    def work(found: alerts.Alerts) -> str:
        webpush.check(endpoint, keys["p256dh"], keys["auth"], found.rulebook.services)
        return found.subscribe(person.name, person.session, endpoint, keys["p256dh"], keys["auth"], now)

    try:
        return JSONResponse({"id": await asking.ask_alerts(call.services, work)}, 201)
    except webpush.PushError as error:
        raise Problem("invalid", str(error)) from None


async def unsubscribe(call: Call) -> Any:
    """DELETE /push/subscriptions/{subscription}."""
    user, number = call.person.name, call.path["subscription"]
    if not await asking.ask_alerts(call.services, lambda alerts: alerts.unsubscribe(user, number)):
        raise not_found("subscription")


_UNAVAILABLE: Final = ("unavailable",)

OPERATIONS: Final = (
    Operation(
        *("GET", "/alerts", listing, "What is wrong, and what was, the newest first"),
        answers={200: table({"alerts": listed(ALERT), "next": or_null(COUNT)})},
        query={"state": words(*alerts.STATES), "device": text(32, 1), "after": COUNT, "limit": LIMIT},
        problems=_UNAVAILABLE,
    ),
    Operation(
        *("POST", "/alerts/{alert}/acknowledge", acknowledge, "I know of it"),
        answers={200: ALERT},
        role=Role.OPERATOR,
        body=table({}, {"note": text(alerts.MAX_NOTE)}),
        problems=_UNAVAILABLE,
    ),
    Operation(
        *("GET", "/alert-rules", rules, "What is worth an alert"),
        answers={200: table({"rules": listed({"type": "object"}), "source": TEXT})},
        problems=_UNAVAILABLE,
    ),
    Operation(
        *("GET", "/push/key", push_key, "The key that push services know the gateway by"),
        answers={200: table({"key": TEXT})},
        problems=_UNAVAILABLE,
    ),
    Operation(
        *("POST", "/push/subscriptions", subscribe, "Tell this browser"),
        answers={201: table({"id": TEXT})},
        body=SUBSCRIPTION,
        problems=("invalid", *_UNAVAILABLE),
    ),
    Operation(
        *("DELETE", "/push/subscriptions/{subscription}", unsubscribe, "Tell it no more"),
        problems=_UNAVAILABLE,
    ),
)
