"""What somebody may see and command: the rules of MQTT, narrowed by scope and share.

The rule it keeps: over HTTPS nobody may do what the rules would not let him do over MQTT. To see a node is to be
allowed to subscribe to its state, to command it is to be allowed to publish the command. Who holds a share has what it
names, as far as the one who shares has it himself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from peanutd._core import MAY_PUBLISH, MAY_SUBSCRIBE
from peanutd.access import Role, slot_of
from peanutd.api import signing
from peanutd.api.bridge import Bridge
from peanutd.api.nodes import Node, Nodes
from peanutd.api.people import Person
from peanutd.api.problem import not_found

AT_ONCE: Final = 500
"""Questions to the rules in one turn of the broker's loop; each takes about a microsecond."""
REMEMBERED: Final = 2.0
"""Seconds for which what somebody may see is remembered."""
PEOPLE: Final = 512
"""Of whom it is remembered."""
UPDATE: Final = "UpdateTemperature"
GREENHOUSE_VERBS: Final = (UPDATE, "heater", "vent", "fan", "irrigation", "light", "identify")


class Rulebook(Protocol):
    """The rules in force, asked in the broker's loop: may this user do that with this topic?"""

    def __call__(self, role: Role, name: str, action: int, topic: str) -> bool: ...


class Groups(Protocol):
    """Who is in which group."""

    def members(self, group: str) -> frozenset[str]:
        """Names of devices; none where there is no such group."""

    def of(self, device: str) -> frozenset[str]:
        """Names of groups."""


class NoGroups:
    """None, until there are some."""

    def members(self, group: str) -> frozenset[str]:
        return frozenset()

    def of(self, device: str) -> frozenset[str]:
        return frozenset()


@dataclass(frozen=True, slots=True)
class _Seen:
    names: frozenset[str]
    at: float
    version: int


class Rights:
    """Asks the rules, and remembers for a moment what they said."""

    def __init__(
        self,
        bridge: Bridge,
        nodes: Nodes,
        rules: Rulebook,
        role_of: Callable[[str], Role | None],
        scope_of: Callable[[str], frozenset[str] | None],
        monotonic: Callable[[], float],
        groups: Groups,
    ) -> None:
        """role_of, scope_of: the role that a user has now, None if there is no such user; the groups that he is held
        to.
        """
        self._bridge = bridge
        self._nodes = nodes
        self._rules = rules
        self._role_of = role_of
        self._scope_of = scope_of
        self._monotonic = monotonic
        self.groups = groups
        self._seen: dict[tuple[str, Role], _Seen] = {}

    async def visible(self, person: Person) -> Mapping[str, Node]:
        """The nodes that somebody may see, by name, in the order of names."""
        await self._nodes.look(self._monotonic())
        nodes = self._nodes.all
        name, role = self._acts_as(person)
        if role is None:
            return {}
        names = await self._may_see(name, role)
        if person.share is not None:
            names &= {person.share.device}
        scope = self._scope_of(name)
        if scope is not None:
            names &= frozenset[str]().union(*(self.groups.members(group) for group in scope))
        return {key: node for key, node in nodes.items() if key in names}

    async def node(self, person: Person, name: str) -> Node:
        """The node of that name. Problem `not_found` if there is none for this person."""
        found = (await self.visible(person)).get(name)
        if found is None:
            raise not_found("device")
        return found

    async def commands(self, person: Person, nodes: Sequence[Node]) -> list[list[str]]:
        """What somebody may command these nodes to do, for each of them."""
        wanted = [(node, verb) for node in nodes for verb in verbs(node)]
        allowed = await self._ask(person, [(MAY_PUBLISH, topic(node, verb)) for node, verb in wanted])
        found: dict[str, list[str]] = {node.name: [] for node in nodes}
        for (node, verb), may in zip(wanted, allowed, strict=True):
            if may and self._shared(person, node, verb):
                found[node.name].append(verb)
        return [found[node.name] for node in nodes]

    async def may_command(self, person: Person, node: Node, verb: str) -> bool:
        """Whether somebody may give this command."""
        (allowed,) = await self._ask(person, [(MAY_PUBLISH, topic(node, verb))])
        return allowed and self._shared(person, node, verb)

    @staticmethod
    def _shared(person: Person, node: Node, verb: str) -> bool:
        share = person.share
        return share is None or (share.device == node.name and verb in share.commands)

    def _acts_as(self, person: Person) -> tuple[str, Role | None]:
        """Whose rules count: those of the one who shares, for who holds a share."""
        if person.share is not None:
            return person.share.by, self._role_of(person.share.by)
        return person.name, person.role

    async def _may_see(self, name: str, role: Role) -> frozenset[str]:
        now, version = self._monotonic(), self._nodes.version
        seen = self._seen.pop((name, role), None)
        if seen is None or seen.version != version or now - seen.at >= REMEMBERED:
            nodes = list(self._nodes.all.values())
            allowed = await self._judge(name, role, [(MAY_SUBSCRIBE, f"{node.root}/state") for node in nodes])
            names = frozenset(node.name for node, may in zip(nodes, allowed, strict=True) if may)
            seen = _Seen(names, now, version)
        if len(self._seen) >= PEOPLE:
            del self._seen[next(iter(self._seen))]
        self._seen[name, role] = seen
        return seen.names

    async def _ask(self, person: Person, questions: Sequence[tuple[int, str]]) -> list[bool]:
        name, role = self._acts_as(person)
        return [False] * len(questions) if role is None else await self._judge(name, role, questions)

    async def _judge(self, name: str, role: Role, questions: Sequence[tuple[int, str]]) -> list[bool]:
        found: list[bool] = []
        rules = self._rules
        for start in range(0, len(questions), AT_ONCE):
            some = questions[start : start + AT_ONCE]
            found += await self._bridge.ask(
                lambda some=some: [rules(role, name, action, topic) for action, topic in some]  # type: ignore[misc]
            )
        return found


def verbs(node: Node) -> tuple[str, ...]:
    """What such a node knows, as far as the gateway does."""
    return signing.VERBS if node.vehicle else GREENHOUSE_VERBS


def topic(node: Node, verb: str) -> str:
    """Where a command goes."""
    return f"{node.root}/{verb}" if node.vehicle or verb == UPDATE else f"{node.root}/cmd/{verb}"


def slot(role: Role) -> int:
    """The rule set of a user's role."""
    return slot_of("user", role).value
