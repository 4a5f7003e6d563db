"""The rows of the table: what is measured by default, and what each must reach beside the yardstick.

The rule it keeps: a goal stands beside what was measured, reached or missed; it is a share of mosquitto's figure in
the same rounds, or where it says so an absolute one. 100 clients, unless a row says otherwise.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .generator import Case


@dataclass(frozen=True)
class Figure:
    """A number of a run."""

    unit: str
    pick: Callable[[dict[str, Any]], float]


CPU = Figure("us/message", lambda figures: float(figures["broker"]["cpu_us"]))
CONNECT = Figure("us/connect", lambda figures: float(figures["broker"]["connect_us"]))
FILTER = Figure("us/filter", lambda figures: float(figures["filters"]["subscribe_us"]))
MEMORY = Figure("KiB/connection", lambda figures: float(figures["broker"]["connect_bytes"]) / 1024)


@dataclass(frozen=True)
class Row:
    """A line of the table: `most` is its goal, None: there is none, and it runs only if its scenario is asked for."""

    name: str
    case: Case
    most: float | None = None
    figure: Figure = CPU
    absolute: bool = False


def _traffic(scenario: str, goals: dict[int, float | None], **case: Any) -> list[Row]:
    return [Row(scenario, Case(scenario, qos, **case), most) for qos, most in goals.items()]


ROWS: tuple[Row, ...] = (
    *_traffic("fan-in", {0: 0.37}, window=1),
    *_traffic("pairs", {0: 0.60}, window=1),
    *_traffic("fan-in", {0: 0.40}, transport="tls", window=1),
    *_traffic("pairs", {0: 0.66}, transport="tls", window=1),
    *_traffic("sparse", {0: 0.70, 1: 0.75}),
    *_traffic("sparse", {0: 0.75}, transport="tls"),
    *_traffic("fan-in", {0: 0.13, 1: 0.11, 2: 0.12}),
    *_traffic("fan-in", {0: 0.18}, payload=1024),
    *_traffic("fan-out", {0: 0.02, 1: 0.06}),
    *_traffic("pairs", {0: 0.18, 1: 0.22, 2: 0.18}),
    *_traffic("fan-in", {0: 0.04}, window=20),
    *_traffic("fan-in", {0: 0.06}, transport="tls", window=20),
    *_traffic("fan-in", {0: 0.18, 1: 0.16}, transport="tls"),
    *_traffic("fan-out", {0: 0.02}, transport="tls"),
    *_traffic("pairs", {0: 0.27}, transport="tls"),
    Row("mutual-TLS connect", Case("storm", transport="tls"), 0.55, CONNECT),
    Row("publish among wildcards", Case("wildcard"), 0.18),
    Row("subscribe wildcards", Case("wildcard"), 0.7, FILTER),
    *_traffic("retained", {0: 0.35}),
    *_traffic("drain", {1: 0.8}, sync="batch"),
    *_traffic("drain", {1: 1.0}),
    Row("memory, idle", Case("idle"), 1, MEMORY, absolute=True),
    Row("memory, idle", Case("idle", transport="tls"), 20, MEMORY, absolute=True),
    # Without a goal.
    *_traffic("broadcast", {0: None, 1: None, 2: None}),
    *_traffic("broadcast", {0: None, 1: None}, transport="tls"),
    *_traffic("kept", {1: None, 2: None}),
    *_traffic("retained", {1: None}),
    Row("plain connect", Case("storm"), None, CONNECT),
    Row("TLS connect", Case("storm", transport="server-tls"), None, CONNECT),
)
DECODER_LEAST = {"reference": 50.0, "mqtt5": 3.0}
"""How many times as fast the core must decode: the reference in Python, the fastest codec package of the registry."""


def cases(scenarios: list[str] | None, transports: list[str]) -> list[Case]:
    """What to run: the rows with a goal, or all rows of the scenarios that are asked for; each once."""
    return list(
        dict.fromkeys(
            row.case
            for row in ROWS
            if row.case.transport in transports
            and (row.most is not None if scenarios is None else row.case.scenario in scenarios)
        )
    )
