"""rules.toml: what it says about whom, what is wrong with a bad one, and that no name widens a rule.

How the core matches is proved in core/test_topic.c, that it asks at every packet in test_broker_rules.py.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from peanutd import explain, rules
from peanutd.__main__ import main
from peanutd._core import MAY_PUBLISH, MAY_SUBSCRIBE, Broker
from peanutd.access import Role, Slot, slot_of
from peanutd.rules import Book, ConfigError
from peanutd.users import Users, parse
from tests.broker.conftest import Dial, Fleet, Start
from tests.broker.house import House, Verdict, publish
from tests.broker.scram_client import user, write_users
from tests.reference import codec

VIN = "WVWZZZ1JZXW000001"


def book(text: str) -> Book:
    return rules.parse(text, "rules.toml", "rules.toml")


NOBODY = Users({}, b"")


def ask(found: Book, identity: str, action: str, topic: str, **more: Any) -> explain.Answer:
    """Who has the role behind a colon: `user/maria:viewer`."""
    who, _, role = identity.partition(":")
    return explain.answer(
        found, NOBODY, explain.Question(who, action, topic, role=Role(role) if role else None, **more)
    )


# --- a table of cases: who, what, topic, and the line of the rule that decides ----------------------------------------

FILE = """\
[groups]
growers = ["user/maria", "operator/anna", "plant/peanut"]
empty = []
[[rule]]
kind = "user"
name = "eve"
deny = "both"
topic = ["#", "$SYS/#"]
[[rule]]
group = "growers"
allow = "both"
topic = "growers/{id}/#"
qos_max = 1
[[rule]]
allow = "both"
topic = "home/{user}/#"
[[rule]]
kind = "vehicle"
allow = "subscribe"
topic = "/plant/+/telemetry"
share = false
[[rule]]
role = "viewer"
allow = "subscribe"
topic = ["/plant/+/state", "pool/#"]
[[rule]]
role = ["operator", "admin"]
allow = "publish"
retain = false
topic = "/plant/+/cmd/+"
[[rule]]
role = "admin"
kind = ["user", "token"]
allow = "publish"
retain = true
topic = "/plant/+/config/desired"
[[rule]]
kind = "token"
name = ["7f3d@idp", "auth0|9"]
allow = "both"
topic = "tokens"
[[rule]]
group = "empty"
allow = "both"
topic = "#"
"""

CASES: list[tuple[str, str, str, int | None, bool]] = [
    # a denial in front of everything, for one name of one kind
    ("user/eve:admin", "publish", "/plant/x/cmd/y", 4, False),
    ("user/eve:viewer", "subscribe", "#", 4, False),
    ("user/eve:viewer", "subscribe", "$SYS/#", 4, False),
    ("operator/eve", "publish", "/plant/x/cmd/y", 26, True),
    ("token/eve:operator", "publish", "/plant/x/cmd/y", 26, True),
    # a group, with members of several kinds; the placeholder is each one's own name
    ("user/maria:viewer", "publish", "growers/maria/a/b", 9, True),
    ("user/maria:viewer", "publish", "growers/anna/a", None, False),
    ("operator/anna", "subscribe", "growers/anna/#", 9, True),
    ("operator/anna", "subscribe", "growers/+/x", None, False),
    ("operator/anna", "subscribe", "growers/#", None, False),
    ("plant/peanut", "subscribe", "growers/peanut/x", 9, True),
    ("plant/maria", "subscribe", "growers/maria/x", None, False),
    ("operator/maria", "subscribe", "growers/maria/x", None, False),
    ("token/maria:admin", "subscribe", "growers/maria/x", None, False),
    ("user/mari:viewer", "subscribe", "growers/mari/x", None, False),
    # {user}: people only
    ("user/joe:viewer", "publish", "home/joe/light", 14, True),
    ("operator/joe", "publish", "home/joe/light", 14, True),
    ("token/auth0|9:viewer", "publish", "home/auth0|9/light", 14, True),
    ("plant/joe", "publish", "home/joe/light", None, False),
    ("anonymous", "publish", "home/anonymous/light", None, False),
    ("user/joe:viewer", "subscribe", "home/joe/#", 14, True),
    ("user/joe:viewer", "subscribe", "home/+/#", None, False),
    ("user/joe:viewer", "publish", "home/{user}/x", None, False),
    # kinds, and subscriptions that are not shared
    (f"vin/{VIN}", "subscribe", "/plant/+/telemetry", 17, True),
    (f"vin/{VIN}", "subscribe", "$share/g//plant/+/telemetry", None, False),
    ("plant/peanut", "subscribe", "/plant/+/telemetry", None, False),
    # roles; an operator's certificate is an operator
    ("user/joe:viewer", "subscribe", "/plant/+/state", 22, True),
    ("token/joe:viewer", "subscribe", "$share/g/pool/1", 22, True),
    ("operator/joe", "subscribe", "pool/1", None, False),
    ("operator/anna", "publish", "/plant/x/cmd/y", 26, True),
    ("user/joe:operator", "publish", "/plant/x/cmd/y", 26, True),
    ("user/joe:admin", "publish", "/plant/x/cmd/y", 26, True),
    ("user/joe:viewer", "publish", "/plant/x/cmd/y", None, False),
    ("token/joe:admin", "publish retained", "/plant/x/config/desired", 31, True),
    ("user/joe:admin", "publish", "/plant/x/config/desired", None, False),
    ("user/joe:admin", "publish retained", "/plant/x/cmd/y", None, False),
    ("operator/anna", "publish retained", "/plant/x/config/desired", None, False),
    # several names
    ("token/7f3d@idp:viewer", "publish", "tokens", 37, True),
    ("token/auth0|9:viewer", "subscribe", "tokens", 37, True),
    ("token/auth0:viewer", "subscribe", "tokens", None, False),
    # the group of nobody, and deny at the end
    ("user/joe:viewer", "publish", "x", None, False),
    ("anonymous", "subscribe", "#", None, False),
    ("plant/peanut", "publish", "/plant/peanut/state", None, False),
]


@pytest.mark.parametrize(("who", "what", "topic", "line", "allowed"), CASES)
def test_cases(who: str, what: str, topic: str, line: int | None, allowed: bool) -> None:
    action, _, retained = what.partition(" ")
    found = ask(book(FILE), who, action, topic, retain=bool(retained))
    assert found.allowed is allowed, found.text
    assert (found.rule.place if found.rule else None) == (f"rules.toml:{line}" if line else None)
    assert found.text.startswith(f"allowed by rules.toml:{line}: allow " if allowed else "refused")


def test_a_qos_that_is_too_high() -> None:
    found = book(FILE)
    assert ask(found, "operator/anna", "publish", "growers/anna/a", qos=1).allowed
    assert not ask(found, "operator/anna", "publish", "growers/anna/a", qos=2).allowed
    answer = ask(found, "operator/anna", "subscribe", "growers/anna/a", qos=2)
    assert answer.allowed
    assert "granted QoS 1" in answer.text
    broker = Broker(seed=bytes(8))
    found.install(broker)
    why = found.why(broker, Slot.OPERATOR, "anna", "publish growers/anna/a")
    assert why == "its QoS is too high for rules.toml:9"


def test_otherwise_the_rules_that_are_built_in() -> None:
    rule = '[[rule]]\nname = "joe"\nkind = "user"\ndeny = "subscribe"\ntopic = "secret/#"\n'
    alone, front = book(rule), book('otherwise = "built-in"\n' + rule)
    assert not ask(alone, "plant/peanut", "publish", "/plant/peanut/state").allowed
    answer = ask(front, "plant/peanut", "publish", "/plant/peanut/state", retain=True)
    assert answer.allowed
    assert answer.text.startswith("allowed by built-in rules:")
    assert not ask(front, "user/joe:viewer", "subscribe", "#").allowed
    assert ask(front, "user/eve:viewer", "subscribe", "#").allowed


def test_an_empty_file_allows_nothing() -> None:
    for who in ("plant/peanut", "operator/anna", "user/maria:admin", "anonymous"):
        for action in ("publish", "subscribe"):
            assert not ask(book(""), who, action, "a").allowed


def test_the_built_in_rules_can_be_a_file_of_ones_own(tmp_path: Path) -> None:
    assert rules.load(tmp_path) == rules.built_in()
    (tmp_path / "rules.toml").write_text(rules.built_in_text())
    own = rules.load(tmp_path)
    for slot in Slot:
        assert [item for item, _ in own.sets[slot]] == [item for item, _ in rules.built_in().sets[slot]]
    text = explain.listing(own)
    assert len(text.splitlines()) == 1 + len(own.rules)
    assert "rules.toml:5 " in text


def test_denials_of_the_settings_come_first(tmp_path: Path) -> None:
    found = rules.load(tmp_path, rules.denials(["secret/#"], ["command/{id}"]))
    answer = ask(found, "operator/anna", "subscribe", "#")
    assert (answer.allowed, answer.rule and answer.rule.place) == (False, "deny_subscribe in [mqtt]")
    assert not ask(found, "anonymous", "publish", "command/anonymous").allowed
    assert ask(found, "anonymous", "publish", "command/anna").allowed


def test_the_role_is_looked_up(tmp_path: Path) -> None:
    users = parse(write_users(tmp_path, joe=user("battery staple", "viewer")).read_bytes())

    def may(identity: str, role: Role | None = None) -> bool:
        question = explain.Question(identity, "publish", "/plant/x/cmd/y", role=role)
        return explain.answer(rules.built_in(), users, question).allowed

    assert not may("user/joe")
    assert may("user/joe", Role.ADMIN)
    for who in ("user/nobody", "token/7"):
        with pytest.raises(ValueError, match="--role viewer"):
            may(who)


@pytest.mark.parametrize(
    "who", ["joe", "user/", "user/Joe", "user/a/b", "vin/1", "plant/+", "root/joe", "", "anonymous/x"]
)
def test_who_is_nobody(who: str) -> None:
    with pytest.raises(ValueError, match=r"nobody|no name of that kind"):
        ask(rules.built_in(), who, "publish", "a")


@pytest.mark.parametrize(
    ("action", "topic"), [("publish", "a/+"), ("publish", ""), ("subscribe", "a#"), ("subscribe", "")]
)
def test_what_is_no_topic(action: str, topic: str) -> None:
    with pytest.raises(ValueError, match=r"not a topic filter|wildcards"):
        ask(rules.built_in(), "operator/anna", action, topic)


# --- files that are wrong ---------------------------------------------------------------------------------------------

GOOD = '[[rule]]\nallow = "both"\ntopic = "a"\n'
BAD = {
    "not TOML": ("[[rule]]\nallow = \n", "rules.toml:2:9: "),
    "an unknown table": ("[[rules]]\n", 'rules.toml:1: rules: unknown; did you mean "rule"?'),
    "an unknown key": (GOOD + 'topics = "b"\n', 'rules.toml:4: [[rule]] 1 topics: unknown; did you mean "topic"?'),
    "one bracket": ('[rule]\nallow = "both"\ntopic = "a"\n', "rules.toml:1: [[rule]]: must be tables"),
    "no verdict": ('[[rule]]\ntopic = "a"\n', "rules.toml:1: [[rule]] 1: needs one of allow and deny"),
    "both verdicts": (GOOD + 'deny = "both"\n', "rules.toml:1: [[rule]] 1: needs one of allow and deny"),
    "a verdict that is none": (
        '[[rule]]\nallow = true\ntopic = "a"\n',
        "rules.toml:2: [[rule]] 1 allow: must be one of",
    ),
    "no topic": ('[[rule]]\nallow = "both"\n', "rules.toml:1: [[rule]] 1 topic: is missing"),
    "no topics": ('[[rule]]\nallow = "both"\ntopic = []\n', "rules.toml:3: [[rule]] 1 topic: is missing"),
    "a number": ('[[rule]]\nallow = "both"\ntopic = 1\n', "rules.toml:3: [[rule]] 1 topic: must be a string"),
    "no filter": ('[[rule]]\nallow = "both"\ntopic = "a/#/b"\n', 'rules.toml:3: [[rule]] 1 topic: "a/#/b" is not'),
    "half a level": ('[[rule]]\nallow = "both"\ntopic = "a-{id}"\n', 'rules.toml:3: [[rule]] 1 topic: "a-{id}" is not'),
    "half a user": ('[[rule]]\nallow = "both"\ntopic = "a/x{user}"\n', "rules.toml:3: "),
    "no such placeholder": (
        '[[rule]]\ndeny = "both"\ntopic = "a/{uid}"\n',
        'rules.toml:3: [[rule]] 1 topic: "a/{uid}": {uid} is',
    ),
    "a group of subscribers": ('[[rule]]\nallow = "both"\ntopic = "$share/g/a"\n', "rules.toml:3: "),
    "an unknown kind": (GOOD + 'kind = "robot"\n', "rules.toml:4: [[rule]] 1 kind: must be one of"),
    "no kinds": (GOOD + "kind = []\n", "rules.toml:4: [[rule]] 1 kind: is empty"),
    "an unknown role": (GOOD + 'role = "root"\n', "rules.toml:4: [[rule]] 1 role: must be one of"),
    "a role of nobody": (GOOD + 'kind = "vehicle"\nrole = "viewer"\n', "rules.toml:5: [[rule]] 1 role: nobody"),
    "a name without a kind": (GOOD + 'name = "joe"\n', "rules.toml:4: [[rule]] 1 name: needs one kind"),
    "a name of two kinds": (GOOD + 'kind = ["user", "token"]\nname = "joe"\n', "rules.toml:5: [[rule]] 1 name: needs"),
    "a name that is none": (GOOD + 'kind = "user"\nname = "Joe"\n', "rules.toml:5: [[rule]] 1 name: "),
    "an unknown group": (
        GOOD + 'group = "g"\n',
        "rules.toml:4: [[rule]] 1 group: must be one of the groups in [groups]",
    ),
    "a member that is none": ('[groups]\n\ng = ["joe"]\n', 'rules.toml:3: groups g: "joe" names nobody'),
    "groups in a list": ("groups = []\n", "rules.toml:1: groups: must be a table"),
    "a QoS of 3": (GOOD + "qos_max = 3\n", "rules.toml:4: [[rule]] 1 qos_max: must be 0, 1 or 2"),
    "a QoS of true": (GOOD + "qos_max = true\n", "rules.toml:4: [[rule]] 1 qos_max: must be 0, 1 or 2"),
    "a QoS of what is denied": ('[[rule]]\ndeny = "both"\ntopic = "a"\nqos_max = 1\n', "rules.toml:4: "),
    "retain in words": (GOOD + 'retain = "no"\n', "rules.toml:4: [[rule]] 1 retain: must be true or false"),
    "retain for reading": ('[[rule]]\nallow = "subscribe"\ntopic = "a"\nretain = false\n', "rules.toml:4: "),
    "share for writing": ('[[rule]]\nallow = "publish"\ntopic = "a"\nshare = false\n', "rules.toml:4: "),
    "otherwise what": ('otherwise = "allow"\n', "rules.toml:1: otherwise: must be one of deny, built-in"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_with_its_line(text: str, words: str) -> None:
    book(GOOD)
    with pytest.raises(ConfigError) as caught:
        book(text)
    assert str(caught.value).startswith(words)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        book(GOOD + "retain = 1\n" + '[[rule]]\nallow = "write"\ntopic = "a"\n')
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == ["rules.toml:4", "rules.toml:6"]


def test_limits(tmp_path: Path) -> None:
    """MAX_FILTERS, MAX_MEMBERS, MAX_FILE_SIZE."""

    def filters(number: int) -> str:
        return f'[[rule]]\nallow = "both"\ntopic = {[f"a/{n}" for n in range(number - 1)]}\n'.replace("'", '"') + GOOD

    assert len(book(filters(rules.MAX_FILTERS)).rules) == 2
    with pytest.raises(ConfigError, match="more than 1000 topic filters"):
        book(filters(rules.MAX_FILTERS + 1))

    def members(number: int) -> str:
        return f"[groups]\ng = {[f'user/u{n}' for n in range(number)]}\n"

    book(members(rules.MAX_MEMBERS))
    with pytest.raises(ConfigError, match="more than 10000 members"):
        book(members(rules.MAX_MEMBERS + 1))
    path = tmp_path / "rules.toml"
    path.write_bytes(b"#" * rules.MAX_FILE_SIZE)
    rules.load(tmp_path)
    path.write_bytes(b"#" * (rules.MAX_FILE_SIZE + 1))
    with pytest.raises(ConfigError, match="larger than"):
        rules.load(tmp_path)


def test_what_cannot_be_read_is_not_no_file(tmp_path: Path) -> None:
    """Fail closed: only where there is nothing at all, the built-in rules count."""
    path = tmp_path / "rules.toml"
    path.symlink_to(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="link leads nowhere"):
        rules.load(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        rules.load(tmp_path)
    path.rmdir()
    path.write_bytes(b"# \xff\n")
    with pytest.raises(ConfigError, match=r"rules\.toml:1: not UTF-8"):
        rules.load(tmp_path)


def test_slots_are_told_apart() -> None:
    assert {slot_of(slot.kind, slot.role) for slot in Slot} == {slot for slot in Slot if not slot.expired}
    assert [slot.value for slot in Slot] == list(range(13)), "kept with sessions: a number never gets another meaning"
    assert slot_of("operator") is Slot.OPERATOR


# --- a gateway with a rules.toml --------------------------------------------------------------------------------------

SETTINGS = '[listen]\nmqtts = "127.0.0.1:0"\n'
FIRST = 'otherwise = "built-in"\n[[rule]]\nkind = "operator"\nname = "anna"\nallow = "both"\ntopic = "house/#"\n'


def test_a_reload_drops_no_session(fleet: Fleet, start: Start, dial: Dial) -> None:
    """New rules count for the next publication and end the subscriptions that they do not allow; nobody is cut."""
    fleet.settings(SETTINGS)
    path = fleet.home / "rules.toml"
    path.write_text(FIRST)
    daemon = start(fleet.home)
    anna, peanut = (
        dial(daemon.port(), fleet.context(fleet.issue(uri))) for uri in ("peanut:operator/anna", "peanut:plant/peanut")
    )
    assert anna.connect("phone")[1] == 0
    assert peanut.connect("peanut")[1] == 0
    assert anna.subscribe("house/lamp", "/plant/+/state") == b"\x01\x01"
    assert anna.publish("house/lamp", b"1") == 0
    assert anna.message()[:2] == ("house/lamp", b"1")

    path.write_text(FIRST.replace('allow = "both"', 'deny = "both"'))
    daemon.signal(signal.SIGHUP)
    daemon.line(r"info  peanutd: reloaded rules=.*rules\.toml")
    assert anna.publish("house/lamp", b"2") == 0x87
    daemon.line(r'denied who=operator/anna/phone .* what="publish house/lamp" why="refused by rules.toml:2"')
    assert peanut.publish("/plant/peanut/state", b"{}") == 0
    assert anna.message()[:2] == ("/plant/peanut/state", b"{}"), "the other subscription stands"

    path.write_text(FIRST.replace("allow", "alow"))
    daemon.signal(signal.SIGHUP)
    daemon.line(
        r"error peanutd: not reloaded, the old .* stay: .*rules\.toml:5: \[\[rule\]\] 1 alow: unknown; did you mean"
    )
    assert anna.publish("house/lamp", b"3") == 0x87
    path.unlink()
    path.symlink_to(fleet.home / "gone")
    daemon.signal(signal.SIGHUP)
    daemon.line(r"error peanutd: not reloaded, .*rules\.toml: cannot be read: the link leads nowhere")
    assert anna.publish("house/lamp", b"4") == 0x87

    path.unlink()
    path.write_text(FIRST)
    daemon.signal(signal.SIGHUP)
    daemon.line(r"info  peanutd: reloaded rules=.*rules\.toml", 2)
    assert anna.publish("house/lamp", b"5") == 0x10, "allowed again; the subscription that was ended does not come back"
    assert peanut.publish("/plant/peanut/state", b"{}") == 0
    assert anna.message()[0] == "/plant/peanut/state"


def test_rules_that_changed_while_the_gateway_was_down(fleet: Fleet, start: Start, dial: Dial) -> None:
    """A session that comes back from the disk is judged by the rules of now before anything reaches it."""
    fleet.settings(SETTINGS)
    path = fleet.home / "rules.toml"
    ben = '[[rule]]\nkind = "operator"\nname = "ben"\nallow = "publish"\ntopic = "house/#"\n'
    path.write_text(FIRST + ben)
    contexts = {name: fleet.context(fleet.issue(f"peanut:operator/{name}")) for name in ("anna", "ben")}
    daemon = start(fleet.home)
    phone = dial(daemon.port(), contexts["anna"], version=4)
    assert phone.connect("phone", clean=False) == b"\x00\x00"
    assert phone.subscribe("house/lamp", "fleet/time") == b"\x01\x01"
    daemon.process.kill()
    daemon.wait()

    path.write_text(FIRST.replace('allow = "both"', 'deny = "both"') + ben)
    daemon = start(fleet.home)
    sender = dial(daemon.port(), contexts["ben"])
    assert sender.connect("x")[1] == 0
    assert sender.publish("house/lamp", b"1") == 0x10, "no matching subscribers"
    assert sender.publish("fleet/time", b"2") == 0
    phone = dial(daemon.port(), contexts["anna"], version=4)
    assert phone.connect("phone", clean=False) == b"\x01\x00", "the session is there"
    assert phone.message()[:2] == ("fleet/time", b"2")


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def peanutd(capsys: pytest.CaptureFixture[str]) -> Run:
    """The program in this process: exit status, output and errors."""

    def run(home: Path, *arguments: str) -> tuple[int, str, str]:
        status = main(["--home", str(home), *arguments])
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return run


@pytest.mark.parametrize("content", ["[[rule]]\n", None], ids=["wrong", "a directory"])
def test_no_start_with_a_bad_file(fleet: Fleet, peanutd: Run, content: str | None) -> None:
    """Fail closed: neither the built-in rules nor half of the file's. Exit status 2, as for gateway.toml."""
    fleet.settings(SETTINGS)
    path = fleet.home / "rules.toml"
    path.mkdir() if content is None else path.write_text(content)
    for arguments in ((), ("--check",), ("rules",), ("explain", "operator/anna", "publish", "a")):
        status, out, errors = peanutd(fleet.home, *arguments)
        assert (status, out) == (2, "")
        assert errors.startswith(f"peanutd: {path}:")


def test_the_commands(tmp_path: Path, peanutd: Run) -> None:
    (tmp_path / "gateway.toml").write_text('[mqtt]\ndeny_publish = ["nowhere"]\n')
    (tmp_path / "rules.toml").write_text(FIRST)
    write_users(tmp_path, joe=user("battery staple", "viewer"))
    status, out, _ = peanutd(tmp_path, "rules")
    assert status == 0
    assert "deny_publish in [mqtt]  deny everybody to publish: nowhere" in out
    assert "rules.toml:2            allow operator/anna to publish and subscribe: house/#" in out
    assert peanutd(tmp_path, "rules", "--built-in")[1] == rules.built_in_text()
    status, out, _ = peanutd(tmp_path, "explain", "user/joe", "publish", "/plant/peanut/state")
    assert (status, out.splitlines()[0][:8]) == (1, "refused:")
    assert peanutd(tmp_path, "explain", "user/joe", "subscribe", "$share/g/a")[0] == 1
    status, out, _ = peanutd(
        tmp_path, "explain", "plant/peanut", "publish", "/plant/peanut/state", "--retain", "--qos", "1"
    )
    assert (status, out.split(":")[0]) == (0, "allowed by built-in rules")
    status, out, errors = peanutd(tmp_path, "explain", "plant/+", "publish", "a")
    assert (status, out) == (2, "")
    assert "no name of that kind" in errors


# --- no identity, however it is spelled, widens a placeholder ---------------------------------------------------------

TEMPLATES = ["{id}", "{id}/#", "a/{id}", "a/{id}/#", "a/{user}/+", "{user}/b", "/{id}/{id}", "+/{user}/#", "$x/{id}/#"]
WORDS = st.sampled_from(
    ["a", "b", "", "+", "#", "$SYS", "$share", "{id}", "{user}", "n", "$x", "ä", "n\n", "A", "a\u0301"]
)
NAMES = st.one_of(WORDS, st.text(max_size=6), st.lists(WORDS, min_size=1, max_size=3).map("/".join))
TOPICS = st.lists(st.one_of(WORDS, st.text("ab+#$/{}", max_size=3)), min_size=1, max_size=4).map("/".join)


def matches(template: list[str], topic: list[str], name: str) -> bool:
    """MQTT 5.0 §4.7, level by level; a placeholder is the name and nothing else."""
    if not template:
        return not topic
    if template[0] == "#":
        return True
    if not topic:
        return False
    here = template[0] == "+" or topic[0] == (name if template[0] in ("{id}", "{user}") else template[0])
    return here and matches(template[1:], topic[1:], name)


def covered(template: str, filter_: str, name: str) -> bool:
    """Whether every topic of the filter is one of the template; wildcards of the filter need wildcards there."""
    outer, inner = template.split("/"), filter_.split("/")
    for at, level in enumerate(outer):
        if level == "#":
            return True
        if at == len(inner) or inner[at] == "#":
            return False
        if level != "+" and (inner[at] == "+" or inner[at] != (name if level in ("{id}", "{user}") else level)):
            return False
    return len(inner) == len(outer)


SETS = {template: book(f'[[rule]]\nallow = "both"\ntopic = "{template}"\n') for template in TEMPLATES}


@given(st.sampled_from(TEMPLATES), NAMES, TOPICS, st.sampled_from(list(Slot)))
@example("{id}/#", "$SYS", "$SYS/broker", Slot.USER_ADMIN)
@example("a/{id}", "+", "a/+", Slot.TOKEN_VIEWER)
@example("a/{id}", "#", "a/#", Slot.PLANT)
@example("a/{id}/#", "b/c", "a/b/c", Slot.OPERATOR)
@example("{id}", "", "", Slot.ANONYMOUS)
@example("a/{user}/+", "n", "a/n/x", Slot.PLANT)
def test_no_name_widens_a_placeholder(template: str, name: str, topic: str, slot: Slot) -> None:
    """What is allowed lies under the literal name, and a name that could be more than one level opens nothing."""
    try:
        name.encode(), topic.encode()
    except UnicodeEncodeError:
        return  # a lone surrogate is no UTF-8: neither MQTT nor TLS carries it
    broker = Broker(seed=bytes(8))
    found = SETS[template]
    found.install(broker)
    literal = bool(name) and name[0] != "$" and not set(name) & set("/+#")
    person = slot.person or "{user}" not in template
    if "+" not in topic and "#" not in topic:
        allowed = found.explain(broker, slot, name, MAY_PUBLISH, topic)[0]
        wild = template[0] in "+#" and topic.startswith("$")
        wanted = literal and person and not wild and matches(template.split("/"), topic.split("/"), name)
        assert allowed == wanted
    if found.explain(broker, slot, name, MAY_SUBSCRIBE, topic)[0]:
        bare = topic.split("/", 2)[-1] if topic.startswith("$share/") else topic
        assert literal
        assert person
        assert covered(template, bare, name)


# --- what it costs ----------------------------------------------------------------------------------------------------


def crowded(number: int) -> Book:
    """That many filters for other people and topics, then the built-in rules."""
    others = [f"other/{n}/+" for n in range(number - 10)]
    text = f'otherwise = "built-in"\n[[rule]]\nrole = "operator"\ndeny = "both"\ntopic = {others}\n'.replace("'", '"')
    return book(text + f"[[rule]]\nkind = 'user'\nname = {[f'u{n}' for n in range(500)]}\ndeny = 'both'\ntopic = '#'\n")


class Loop:
    """An operator who publishes to nobody under rules."""

    def __init__(self, found: Book) -> None:
        self.house = House()
        found.install(self.house.broker)
        self.client = self.house.join(verdict=Verdict(slot=Slot.OPERATOR.value, identity="anna"))
        # No two neighbours alike: the core remembers the last topic that was allowed.
        self.chunk = b"".join(codec.encode(publish(f"/plant/peanut/cmd/{n % 7}"), 5) for n in range(2000))

    def run(self) -> float:
        begin = time.thread_time()
        events = self.client.link.feed(self.chunk, self.house.now)
        assert events == ()
        return time.thread_time() - begin


def test_a_publication_costs_no_python() -> None:
    """2,000 publications through 1,000 filters, and not one Python function or callback is called meanwhile."""
    loop = Loop(crowded(rules.MAX_FILTERS))
    calls: list[str] = []
    before = loop.house.stat("publishes_in")
    sys.setprofile(lambda frame, event, argument: calls.append(f"{event} {frame.f_code.co_name}"))
    try:
        loop.client.link.feed(loop.chunk, 1_000_000)
    finally:
        sys.setprofile(None)
    assert loop.house.stat("publishes_in") - before == 2000
    assert [call for call in calls if call.startswith("call")] == []
    assert loop.house.stat("dropped_denied") == 0


def test_a_publication_is_not_slower_for_many_rules() -> None:
    """Interleaved, and the best of each: a walk through the trie costs what the topic costs, not what the rules do."""
    few, many = Loop(rules.built_in()), Loop(crowded(rules.MAX_FILTERS))
    best = {few: 1.0, many: 1.0}
    for _ in range(30):
        for loop in best:
            best[loop] = min(best[loop], loop.run())
    assert best[many] < best[few] * 2, "a rule after the other would be dozens of times slower"
