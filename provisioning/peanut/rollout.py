"""A roll-out: which nodes get an update, in which order, and when it stops by itself.

Rule: pure; what nodes say and the time are arguments. A stage begins when every node of the one before has proved
itself, and no node is counted as good on anybody's word but its own. What is written to the fleet home is enough to go
on after any end: what nodes did is asked of them again, not remembered.
"""

import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from peanut.errors import PeanutError
from peanut.names import printable

FORMAT = 1
STAGES = "1,1%,10%,100%"
STOP_ABOVE = "2%"
PARALLEL = 16  # nodes that receive at the same time
PATIENCE_S = 3600.0  # for a node that was reached and says nothing more: then it counts as lost
OFFER_S = 20.0  # without a word from a node that is online, before it is offered again
_STAGE = re.compile(r"([0-9]{1,6})(%?)")


class State(StrEnum):
    """Of a roll-out."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"  # by itself: too many came back
    WITHDRAWN = "withdrawn"
    DONE = "done"


class Step(StrEnum):
    """Of one node."""

    WAITING = "waiting"
    RECEIVING = "receiving"
    TRIAL = "on trial"
    GOOD = "good"  # it runs the update, and keeps it
    RETURNED = "returned"  # it tried, and runs what it had before
    REFUSED = "refused"
    FAILED = "failed"  # it did not get it whole
    LOST = "lost"  # it was reached, and then was silent for longer than PATIENCE_S


UNDER_WAY = (Step.RECEIVING, Step.TRIAL)
BAD = (Step.RETURNED, Step.REFUSED, Step.FAILED, Step.LOST)


@dataclass
class Node:
    """Of one node: step; why, where it is bad; share: of the update that it has; heard, offered: monotonic seconds."""

    step: Step = Step.WAITING
    why: str = ""
    share: float = 0.0
    online: bool = False
    heard: float = 0.0
    offered: float = -math.inf


def stages(text: str) -> tuple[str, ...]:
    """`1,1%,10%,100%` as written; PeanutError unless each is a number or a percentage, and the last is 100%."""
    found = tuple(part.strip() for part in text.split(","))
    for part in found:
        match = _STAGE.fullmatch(part)
        if match is None or int(match[1]) == 0 or (match[2] and int(match[1]) > 100):
            raise PeanutError(f"--stages {printable(text)}: {printable(part)!r} is no stage", f"For example: {STAGES}")
    return found if found[-1] == "100%" else (*found, "100%")


def percentage(text: str) -> float:
    """`2%` as 0.02."""
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,3})?)%?", text.strip())
    if match is None or float(match[1]) > 100:
        raise PeanutError(f"--stop-above {printable(text)!r} is no percentage", f"For example: {STOP_ABOVE}")
    return float(match[1]) / 100


@dataclass
class Rollout:
    """One update on its way to these nodes. file: where it is; seq, image: what nodes that have it report."""

    file: str
    seq: int
    version: str
    kind: str
    image: bool
    stages: tuple[str, ...]
    stop_above: float
    nodes: dict[str, Node]
    state: State = State.RUNNING
    why: str = ""
    taken: list[str] = field(default_factory=list)  # the nodes that it has been begun with, in that order

    # -- what is wanted ----------------------------------------------------------------------------------------------

    def target(self, stage: int) -> int:
        """How many nodes have the update at the end of a stage."""
        text = self.stages[stage]
        count = math.ceil(len(self.nodes) * int(text[:-1]) / 100) if text.endswith("%") else int(text)
        return min(max(1, count), len(self.nodes))

    @property
    def stage(self) -> int:
        """The stage that is under way: the first for which not enough nodes have been through it, to whatever end."""
        through = self.count(Step.GOOD, *BAD)
        for number in range(len(self.stages)):
            if through < self.target(number):
                return number
        return len(self.stages) - 1

    def count(self, *steps: Step) -> int:
        """How many nodes are at one of these steps."""
        return sum(node.step in steps for node in self.nodes.values())

    # -- what happens ------------------------------------------------------------------------------------------------

    def presence(self, name: str, online: bool, now: float) -> None:
        """A node came or went."""
        node = self.nodes.get(name)
        if node is not None:
            node.online = online
            node.heard = now
            node.offered = -math.inf  # whoever comes back is offered it anew, and goes on where it was

    def report(self, name: str, body: dict[str, Any], now: float) -> None:
        """What a node says on ota/status, about this update or another."""
        node = self.nodes.get(name)
        if node is None:
            return
        node.heard = now
        runs = body.get("image") if self.image else [body.get("seq")]
        runs = runs[0] if isinstance(runs, list) and runs else None
        stage, why = body.get("stage"), printable(body.get("why") or "")
        if body.get("offer") != self.seq or stage == "running":
            if isinstance(runs, int) and runs >= self.seq and stage != "trial":
                self._set(name, Step.GOOD, "" if runs == self.seq else f"has a newer one ({runs})")
            elif stage == "running" and node.step in UNDER_WAY:  # it was written anew meanwhile, or its flash was lost
                self._set(name, Step.WAITING, "")
                node.offered = -math.inf
            return
        if stage == "receiving":
            at, of = body.get("at"), body.get("of")
            node.share = at / of if isinstance(at, int) and isinstance(of, int) and of > 0 else node.share
            self._set(name, Step.RECEIVING, why)
        elif stage in ("ready", "restarting", "trial"):
            self._set(name, Step.TRIAL, "")
        elif stage == "refused" and why.startswith("busy"):
            node.why = why  # it is asked again
        elif why == "withdrawn":
            self._set(name, Step.WAITING if self.state == State.RUNNING else Step.RETURNED, why)
        elif stage in ("refused", "failed", "returned"):
            self._set(name, Step(str(stage)), why)

    def _set(self, name: str, step: Step, why: str) -> None:
        if step != Step.WAITING and name not in self.taken:
            self.taken.append(name)
        self.nodes[name].step, self.nodes[name].why = step, why

    # -- what follows from it ----------------------------------------------------------------------------------------

    def judge(self, now: float) -> None:
        """Whether it goes on: who is lost, whether too many came back, whether all have it."""
        for node in self.nodes.values():
            if node.step in UNDER_WAY and now - node.heard > PATIENCE_S:
                node.step, node.why = Step.LOST, f"silent for {PATIENCE_S / 60:.0f} minutes"
        bad = self.count(*BAD)
        if self.state == State.RUNNING and bad > self.stop_above * max(self.target(self.stage), len(self.taken)):
            self.state = State.STOPPED
            first = next(name for name in self.taken if self.nodes[name].step in BAD)
            node = self.nodes[first]
            self.why = f"{bad} of {len(self.taken)} did not keep it; {first}: {node.step}, {node.why}"
        elif self.state == State.RUNNING and self.count(Step.GOOD, *BAD) == len(self.nodes):
            self.state = State.DONE

    def due(self, now: float) -> list[str]:
        """The nodes to offer the update to now: those of this stage that are there and not there yet with it."""
        if self.state != State.RUNNING:
            return []
        found = []
        receiving = 0
        for name in self.taken:
            node = self.nodes[name]
            receiving += node.online and node.step in (Step.WAITING, Step.RECEIVING)
            quiet = now - max(node.offered, node.heard) > OFFER_S or node.offered == -math.inf
            if node.online and quiet and node.step in (Step.WAITING, Step.RECEIVING):
                found.append(name)
        target = self.target(self.stage)
        for name, node in self.nodes.items():
            if len(self.taken) >= target or receiving >= PARALLEL:
                break
            if node.step == Step.WAITING and node.online and name not in self.taken:
                self.taken.append(name)
                receiving += 1
                found.append(name)
        for name in found:
            self.nodes[name].offered = now
            self.nodes[name].heard = max(self.nodes[name].heard, now)
        return found

    def idle(self) -> bool:
        """Whether nothing can happen before a node comes online: those under way, or still to come, are away."""
        open_ = [n for n in self.nodes.values() if n.step == Step.WAITING or n.step in UNDER_WAY]
        return bool(open_) and not any(n.online for n in open_)

    # -- kept --------------------------------------------------------------------------------------------------------

    def render(self) -> bytes:
        """What is written to the fleet home."""
        body = {key: getattr(self, key) for key in _KEPT}
        nodes = {name: [node.step, node.why] for name, node in self.nodes.items()}
        return (json.dumps({"format": FORMAT, **body, "nodes": nodes}, indent=1) + "\n").encode()


_KEPT = ("file", "seq", "version", "kind", "image", "stages", "stop_above", "state", "why", "taken")


def parse(data: bytes, where: str) -> Rollout:
    """What `render` made."""
    try:
        body = json.loads(data)
        if body["format"] != FORMAT:
            raise PeanutError(f"{where} was written by a newer `peanut`", "Use that one.")
        nodes = {name: Node(Step(step), why) for name, (step, why) in body["nodes"].items()}
        kept = {key: body[key] for key in _KEPT} | {"stages": tuple(body["stages"]), "state": State(body["state"])}
        return Rollout(**kept, nodes=nodes)
    except (ValueError, KeyError, TypeError) as error:
        raise PeanutError(
            f"{where} is damaged ({error})", "Move it away, and push again: nodes know what they have."
        ) from None


def begin(
    file: str, seq: int, version: str, kind: str, image: bool, names: Iterable[str], plan: Sequence[str], above: float
) -> Rollout:
    """A new roll-out to these nodes."""
    nodes = {name: Node() for name in names}
    if not nodes:
        raise PeanutError(
            f"there is no node for this update: none is a {kind} on such a board", "See peanut device list."
        )
    return Rollout(file, seq, version, kind, image, tuple(plan), above, nodes)
