"""What `peanutd rules` and `peanutd explain` print: the rules in force, and which of them decides a question.

The rule it keeps: the answer is the core's own, from the same rules as the gateway has; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from peanutd._core import (
    MAY_PUBLISH,
    MAY_SHARE,
    MAY_SUBSCRIBE,
    RETAIN_ANY,
    RETAIN_ONLY,
    Broker,
)
from peanutd.access import Role, Slot, slot_of
from peanutd.rules import Book, Rule, parse_member
from peanutd.users import Users


@dataclass(frozen=True, slots=True)
class Question:
    """May `identity` (`user/maria`) do `action` ("publish" or "subscribe") with the topic?"""

    identity: str
    action: str
    topic: str
    qos: int = 0
    retain: bool = False
    role: Role | None = None
    """Of a token; of a user where users.json does not say it."""


@dataclass(frozen=True, slots=True)
class Answer:
    allowed: bool
    rule: Rule | None
    """None: no rule fits, which is a no."""
    text: str


def answer(book: Book, users: Users, question: Question) -> Answer:
    """Asks the rules. ValueError when the question is none: nobody has such an identity, or it is not a topic."""
    kind, name = parse_member(question.identity)
    slot = _slot(kind, name, users, question.role)
    broker = Broker(seed=bytes(8))
    book.install(broker)
    publish = question.action == "publish"
    _check_topic(question.topic, publish)
    allowed, rule, granted = book.explain(
        broker,
        slot,
        name,
        MAY_PUBLISH if publish else MAY_SUBSCRIBE,
        question.topic,
        retain=question.retain and publish,
        qos=question.qos,
    )
    word = "allowed" if allowed else "refused"
    lines = [f"{word} by {rule.place}: {describe(rule)}" if rule else f"{word}: no rule allows it ({book.source})"]
    if allowed and not publish and granted < question.qos:
        lines.append(f"granted QoS {granted}")
    lines.append(f"asked for {question.identity}" + (f", role {slot.role.value}" if slot.role else ""))
    return Answer(allowed, rule, "\n".join(lines))


def _slot(kind: str, name: str, users: Users, role: Role | None) -> Slot:
    user = users.get(name) if kind == "user" else None
    if kind in ("user", "token"):
        role = role or (user.role if user else None)
        if role is None:
            hint = "there is no such user" if kind == "user" else "a token brings its role along"
            raise ValueError(f"{kind}/{name}: {hint}; say which role it would have: --role viewer")
        return slot_of(kind, role)
    return slot_of(kind)


def _check_topic(topic: str, publish: bool) -> None:
    """ValueError when it is no topic (or filter): the rules would match it against nothing that can happen."""
    bare = topic.split("/", 2)[-1] if topic.startswith("$share/") and topic.count("/") >= 2 else topic
    try:
        Broker(seed=bytes(8)).set_rules(0, [(False, 0, 0, bare.replace("{id}", "x"))])
    except ValueError:
        raise ValueError(f'"{topic}" is not a topic filter') from None
    if publish and ("+" in topic or "#" in topic):
        raise ValueError(f'"{topic}" has wildcards; nobody publishes to several topics at once')


def listing(book: Book) -> str:
    """All rules in their order."""
    width = max((len(rule.place) for rule in book.rules), default=0)
    lines = [f"# {book.source}; the first that fits decides, and when none does the answer is no"]
    return "\n".join([*lines, *(f"{rule.place:{width}}  {describe(rule)}" for rule in book.rules)]) + "\n"


def describe(rule: Rule) -> str:
    """The rule on one line."""
    conditions = [
        "retained" if rule.retain == RETAIN_ONLY else "not retained" if rule.retain != RETAIN_ANY else "",
        f"QoS {rule.qos_max} at most" if rule.qos_max < 2 else "",
    ]
    what = " and ".join(_actions(rule.actions))
    told = ", ".join(filter(None, conditions))
    verdict = "allow" if rule.allow else "deny"
    return f"{verdict} {_who(rule)} to {what}{f' ({told})' if told else ''}: {' '.join(rule.topics)}"


def _actions(actions: int) -> Iterable[str]:
    if actions & MAY_PUBLISH:
        yield "publish"
    if actions & MAY_SUBSCRIBE:
        yield "subscribe" if actions & MAY_SHARE else "subscribe (not by $share)"
    elif actions & MAY_SHARE:
        yield "subscribe by $share"


def _who(rule: Rule) -> str:
    if rule.members is not None:
        members = sorted(f"{kind}/{name}" for kind, name in rule.members)
        shown = ", ".join(members[:8]) + (f" and {len(members) - 8} more" if len(members) > 8 else "")
        kinds = {kind for kind, _ in rule.members}
        narrowed = any(slot not in rule.slots for slot in Slot if slot.kind in kinds)
        return (shown or "nobody") + (f" (as {_classes(rule)})" if narrowed else "")
    return "everybody" if rule.slots == frozenset(Slot) else _classes(rule)


def _classes(rule: Rule) -> str:
    found = sorted((slot for slot in rule.slots if not slot.expired), key=lambda slot: slot.value)
    return (
        ", ".join(
            slot.kind if slot.kind not in ("user", "token") else f"{slot.kind} {slot.name.partition('_')[2].lower()}"
            for slot in found
        )
        or "nobody"
    )
