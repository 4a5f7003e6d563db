"""Judges: each holds what nodes report to one rule of alerts.toml, and says of a node that it is bad, or fine.

The rule it keeps: a judge decides by the times of the readings, forward only: what comes late changes no judgement of
now. Between bad and fine it says nothing, which is what hysteresis is. When the clock is put, silence lasts as long as
it lasts, and what is judged by the times of readings begins anew. No clock, no disk, nobody told.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final, NamedTuple, Protocol

from peanutd.alert_rules import Rule
from peanutd.readings import Reading
from peanutd.recorder import Said

LATE: Final = 900
"""Seconds that a reading may be old to be judged."""
SAMPLES: Final = 60
"""Readings of a window that are remembered."""
HOUR: Final = 3_600


class Verdict(NamedTuple):
    """What a judge says of a node."""

    device: str
    bad: bool
    text: str = ""
    value: float | None = None
    about: str = ""
    """Which of several things of one rule: the id of an event."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node as the ledger has it."""

    name: str
    root: str
    """Empty: it says nothing; the gateway itself is one."""
    not_after: float | None = None
    """When its certificate ends, Unix seconds."""


class Judge(Protocol):
    """One rule."""

    rule: Rule

    def hear(self, device: str, said: Said, now: float) -> Iterator[Verdict]:
        """A report of a node that the rule is for."""

    def tick(self, nodes: Mapping[str, Node], now: float) -> Iterator[Verdict]:
        """Every few seconds. nodes: those that the rule is for, by name."""

    def shift(self, by: float) -> None:
        """The clock was put, by so many seconds."""


def judge(rule: Rule, now: float) -> Judge:
    """The judge of a rule, who begins `now`."""
    return _JUDGES[rule.what](rule, now)


@dataclass
class _Base:
    rule: Rule
    began: float

    def hear(self, device: str, said: Said, now: float) -> Iterator[Verdict]:
        yield from ()

    def tick(self, nodes: Mapping[str, Node], now: float) -> Iterator[Verdict]:
        yield from ()

    def shift(self, by: float) -> None:
        self.began += by


class _Forward(_Base, ABC):
    """Readings of some names, in the order of their times."""

    def __init__(self, rule: Rule, began: float, *names: str) -> None:
        super().__init__(rule, began)
        self._names = names
        self._last: dict[tuple[str, str], int] = {}

    def hear(self, device: str, said: Said, now: float) -> Iterator[Verdict]:
        for reading in said.readings:
            key = (device, reading.name)
            if reading.name in self._names and reading.ts > max(now - LATE, self._last.get(key, 0)):
                self._last[key] = reading.ts
                yield from self._judge(device, reading)

    def shift(self, by: float) -> None:
        super().shift(by)
        self._last.clear()  # times of another clock

    @abstractmethod
    def _judge(self, device: str, reading: Reading) -> Iterator[Verdict]:
        """Of each reading, once."""


class _Threshold(_Forward):
    """Below or above, for a while; fine again when it is better by the hysteresis."""

    def __init__(self, rule: Rule, began: float) -> None:
        super().__init__(rule, began, rule.reading)
        self._since: dict[str, int] = {}

    def shift(self, by: float) -> None:
        super().shift(by)
        self._since.clear()

    def _judge(self, device: str, reading: Reading) -> Iterator[Verdict]:
        rule, value = self.rule, reading.value
        sign, limit, word = (-1, rule.above, "above") if rule.below is None else (1, rule.below, "below")
        assert limit is not None
        if sign * value < sign * limit:
            since = self._since.setdefault(device, reading.ts)
            if reading.ts - since >= rule.for_s:
                while_ = f" for {duration(rule.for_s)}" if rule.for_s else ""
                yield Verdict(device, True, f"{rule.reading} is {value:g}, {word} {limit:g}{while_}", value)
        else:
            self._since.pop(device, None)
            if sign * value >= sign * limit + rule.hysteresis:
                yield Verdict(device, False, f"{rule.reading} is {value:g}", value)


class _Rate(_Forward):
    """Rises or falls too fast; fine again at half of that."""

    def __init__(self, rule: Rule, began: float) -> None:
        super().__init__(rule, began, rule.reading)
        self._windows: dict[str, deque[tuple[int, float]]] = {}

    def shift(self, by: float) -> None:
        super().shift(by)
        self._windows.clear()

    def _judge(self, device: str, reading: Reading) -> Iterator[Verdict]:
        rule = self.rule
        window = self._windows.setdefault(device, deque())
        while window and window[0][0] < reading.ts - rule.within_s:
            window.popleft()
        sign, limit, word = (1, rule.fall, "fallen") if rule.rise is None else (-1, rule.rise, "risen")
        assert limit is not None
        change = max((sign * (value - reading.value) for _, value in window), default=0.0)
        if not window or reading.ts - window[-1][0] >= rule.within_s / SAMPLES:
            window.append((reading.ts, reading.value))
        if change >= limit:
            text = f"{rule.reading} has {word} by {change:.3g} within {duration(rule.within_s)}, to {reading.value:g}"
            yield Verdict(device, True, text, reading.value)
        elif change < limit / 2:
            yield Verdict(device, False, f"{rule.reading} is {reading.value:g}", reading.value)


class _Heater(_Forward):
    """On all the time, and it does not get warmer."""

    def __init__(self, rule: Rule, began: float) -> None:
        super().__init__(rule, began, "temperature", "heater")
        self._warmth: dict[str, float] = {}
        self._begun: dict[str, tuple[int, float | None]] = {}

    def shift(self, by: float) -> None:
        super().shift(by)
        self._begun.clear()

    def _judge(self, device: str, reading: Reading) -> Iterator[Verdict]:
        rule = self.rule
        assert rule.rise is not None
        if reading.name == "heater" and not reading.value:
            self._begun.pop(device, None)
            yield Verdict(device, False, "the heater is off")
            return
        if reading.name == "heater":
            self._begun.setdefault(device, (reading.ts, self._warmth.get(device)))
            return
        self._warmth[device] = reading.value
        if device not in self._begun:
            return
        since, warmth = self._begun[device]
        if warmth is None:
            self._begun[device] = (since, reading.value)
        elif reading.value - warmth >= rule.rise:
            self._begun[device] = (reading.ts, reading.value)
            yield Verdict(device, False, f"it is {reading.value:g}, and getting warmer", reading.value)
        elif reading.ts - since >= rule.within_s:
            text = f"the heater has been on for {duration(reading.ts - since)}, from {warmth:g} to {reading.value:g}"
            yield Verdict(device, True, text, reading.value)


class _Silence(_Base):
    """Nothing is heard. A node that has said that it sleeps may be silent."""

    def __init__(self, rule: Rule, began: float) -> None:
        super().__init__(rule, began)
        self._heard: dict[str, float] = {}
        self._asleep: set[str] = set()

    def shift(self, by: float) -> None:
        super().shift(by)
        self._heard = {device: heard + by for device, heard in self._heard.items()}

    def hear(self, device: str, said: Said, now: float) -> Iterator[Verdict]:
        if said.report.retained:
            return
        if said.report.leaf == "status":
            self._asleep.discard(device)
            if said.body.get("state") == "sleeping":
                self._asleep.add(device)
            if said.body.get("state") == "offline":
                return  # that is its will: somebody else says it
        self._heard[device] = now
        yield Verdict(device, False, "it is heard again")

    def tick(self, nodes: Mapping[str, Node], now: float) -> Iterator[Verdict]:
        for device, node in nodes.items():
            heard = self._heard.get(device)
            if (
                node.root
                and now - (self.began if heard is None else heard) > self.rule.for_s
                and device not in self._asleep
            ):
                since = "since the gateway has begun" if heard is None else f"for {duration(now - heard)}"
                yield Verdict(device, True, f"nothing heard {since}")


class _Certificate(_Base):
    """Ends soon."""

    def __init__(self, rule: Rule, began: float) -> None:
        super().__init__(rule, began)
        self._due = began

    def shift(self, by: float) -> None:
        super().shift(by)
        self._due = 0.0  # another day: at once

    def tick(self, nodes: Mapping[str, Node], now: float) -> Iterator[Verdict]:
        if now < self._due:
            return
        self._due = now + HOUR
        for device, node in nodes.items():
            if node.not_after is None:
                continue
            left = (node.not_after - now) / 86_400
            text = f"the certificate ends in {left:.0f} days" if left > 0 else "the certificate has ended"
            yield Verdict(device, left < self.rule.days, text, round(left, 1))


class _Event(_Base):
    """The node says so itself, and when it is over."""

    def hear(self, device: str, said: Said, now: float) -> Iterator[Verdict]:
        event = said.event
        if event is not None and fnmatchcase(event.id, self.rule.event) and event.id not in TELLS:
            yield Verdict(device, not event.clear, event.text or event.id, None, event.id)


TELLS: Final = ("alone",)
"""Events that tell what was, and are never over."""

_JUDGES: Final = {
    "threshold": _Threshold,
    "rate": _Rate,
    "silence": _Silence,
    "heater": _Heater,
    "certificate": _Certificate,
    "event": _Event,
}


def duration(seconds: float) -> str:
    """Seconds in words: 90 s, 5 min, 3 h, 2 days."""
    for unit, word in ((86_400, "days"), (HOUR, "h"), (60, "min")):
        if seconds >= 2 * unit or (seconds >= unit and seconds % unit == 0 and unit != 86_400):
            return f"{seconds / unit:.0f} {word}"
    return f"{seconds:.0f} s"
