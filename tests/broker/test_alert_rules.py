"""alerts.toml: what it says, and that whatever is wrong with it is said with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from peanutd import alert_rules
from peanutd.alert_rules import BUILT_IN, Rule, Way, load, parse
from peanutd.toml_file import ConfigError

GOOD = """
push_services = ["push.example.org"]
contact = "mailto:grower@example.org"
[[rule]]
id = "too-cold"
what = "threshold"
below = 5
hysteresis = 1
for_s = 300
devices = ["peanut", "north-*"]
severity = "critical"
tell = ["mail", "hook"]
[[rule]]
id = "falls"
what = "rate"
reading = "soil"
fall = 10
within_s = 3600
[[rule]]
id = "silent"
what = "silence"
for_s = 600
[[rule]]
id = "heater"
what = "heater"
rise = 0.5
within_s = 1800
[[rule]]
id = "certificate"
what = "certificate"
days = 30
[[rule]]
id = "node"
what = "event"
event = "frost"
[[tell]]
name = "mail"
mail_to = ["a@example.org", "b@example.org"]
mail_from = "peanut@example.org"
smtp = "mail.example.org:465"
user = "peanut"
password_file = "smtp.pass"
severities = ["critical"]
[[tell]]
name = "hook"
webhook = "https://example.org/hook"
token_file = "hook.token"
[[tell]]
name = "push"
push = true
"""


def test_everything_that_there_is() -> None:
    found = parse(GOOD, "alerts.toml")
    assert found.rules[0] == Rule(
        "too-cold",
        "threshold",
        "critical",
        ("peanut", "north-*"),
        ("mail", "hook"),
        below=5,
        hysteresis=1,
        for_s=300,
    )
    assert [rule.what for rule in found.rules] == ["threshold", "rate", "silence", "heater", "certificate", "event"]
    assert found.ways[1] == Way("hook", webhook="https://example.org/hook", token_file="hook.token")
    assert [way.kind for way in found.ways] == ["mail", "webhook", "push"]
    assert found.services == ("push.example.org",)


def test_who_is_told() -> None:
    found = parse(GOOD, "alerts.toml")
    told = [
        [way.name for way in found.ways_for(rule, severity)]
        for rule, severity in (("too-cold", "critical"), ("falls", "warning"), ("silent", "critical"))
    ]
    assert told == [["mail", "hook"], ["hook", "push"], ["mail", "hook", "push"]]


def test_whom_a_rule_is_for() -> None:
    rule = parse(GOOD, "alerts.toml").rules[0]
    names = ("peanut", "north-1", "north", "peanuts", "south-1")
    assert [rule.concerns(name) for name in names] == [True, True, False, False, False]


def test_without_a_file_there_are_rules_that_every_fleet_wants(tmp_path: Path) -> None:
    assert load(tmp_path) == BUILT_IN
    assert {rule.what for rule in BUILT_IN.rules} == {"silence", "certificate", "event"}
    (tmp_path / "alerts.toml").write_text("")
    assert load(tmp_path).rules == ()


RULE = '[[rule]]\nid = "a"\nwhat = "threshold"\nbelow = 5\n'
MAIL = '[[tell]]\nname = "m"\nmail_to = ["a@b.c"]\nmail_from = "a@b.c"\nsmtp = "h:25"\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("rule = 7", 1, "must be tables"),
        ("rules = []", 1, 'did you mean "rule"'),
        ('[[rule]]\nid = "a"\nwhat = "thresold"', 3, "must be one of threshold"),
        ('[[rule]]\nid = "a"\nwhat = ["threshold"]', 3, "must be one of threshold"),
        (RULE.replace('"a"', '"A b"'), 2, "small letters"),
        (RULE + "above = 7", 1, "needs one of below and above"),
        (RULE.replace("below = 5\n", ""), 1, "needs one of below and above"),
        (RULE.replace("5", "true"), 4, "must be a number; it is true"),
        (RULE.replace("5", "nan"), 4, "it must be"),
        (RULE + "for_s = -1", 5, "it must be 0 to 604800"),
        (RULE + "within_s = 10", 5, "unknown key"),
        (RULE + 'severity = "bad"', 5, "must be one of warning, critical"),
        (RULE + "severity = []", 5, "must be one of warning, critical"),
        (RULE + "devices = []", 5, "a list of strings"),
        (RULE + 'reading = "A;"', 5, "name of a reading"),
        (RULE + 'tell = ["mail"]', 5, 'no [[tell]] with the name "mail"'),
        (RULE + RULE, 1, '"a" is there twice'),
        ('[[rule]]\nid = "a"\nwhat = "silence"', 1, "needs for_s"),
        ('[[tell]]\nname = "a"', 1, "one of webhook, mail_to and push"),
        ('[[tell]]\nname = "a"\nwebhook = "ftp://a"', 3, "https://"),
        ('[[tell]]\nname = "a"\nwebhook = "https://a:b"', 3, "https://"),
        ('[[tell]]\nname = "a"\nwebhook = 7', 3, "must be a string"),
        ('[[tell]]\nname = "a"\npush = false', 3, "must be true"),
        ("[[tell]]\npush = true", 1, "small letters"),
        (MAIL.replace('"h:25"', '"h"'), 5, "a host and a port"),
        (MAIL.replace('mail_from = "a@b.c"\n', ""), 1, "is missing"),
        (MAIL.replace('["a@b.c"]', '["a@b.c\\r\\nBcc: x@y.z"]'), 3, "is no address"),
        (MAIL + 'security = "none"', 6, "for this machine"),
        (MAIL + 'user = "u"', 6, "go together"),
        ('contact = "me"', 1, "mailto:"),
    ],
)
def test_what_is_wrong_is_said(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text, "alerts.toml")
    assert f"alerts.toml:{line}: " in str(caught.value)
    assert words in str(caught.value)


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(RULE.replace("5", '"5"') + 'severity = "bad"\n' + MAIL + 'security = "ssl"', "alerts.toml")
    assert len(str(caught.value).splitlines()) == 3


def test_there_is_an_end_to_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alert_rules, "MAX_RULES", 1)
    with pytest.raises(ConfigError, match="more than 1 rules"):
        parse(RULE + RULE.replace('"a"', '"b"'), "alerts.toml")
