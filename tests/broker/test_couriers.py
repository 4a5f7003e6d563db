"""Couriers: people are told, by real servers of each kind; and what fails is tried again, for a day."""

from __future__ import annotations

import email
import email.policy
import io
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from peanutd import alert_rules, couriers, webpush
from peanutd.alerts import Alerts
from peanutd.couriers import GIVE_UP, LONGEST, PAUSE, Audience, Couriers
from peanutd.ear import Report
from peanutd.judges import Node
from peanutd.log import Log, clean
from peanutd.readings import Event
from peanutd.recorder import Said
from tests.broker.receivers import Browser, Post, Web, certificate, vapid

NOW = 1_763_740_800.0
RULE = '[[rule]]\nid = "node"\nwhat = "event"\nseverity = "critical"\n'


class Bench:
    def __init__(self, home: Path, ways: str, trust: ssl.SSLContext | None = None) -> None:
        self.now = NOW
        self.log = io.StringIO()
        (home / "alerts.toml").write_text(ways + RULE)
        log = Log("debug", self.log)
        self.alerts = Alerts(home, log, lambda: [Node("peanut", "/plant/peanut")], alert_rules.load(home), NOW)
        self.may: dict[str, frozenset[str]] | None = {"maria": frozenset({"peanut"})}
        self.couriers = Couriers(
            home, log, lambda: self.alerts.rulebook, self.audience, clock=lambda: self.now, context=trust
        )

    def audience(self) -> Audience | None:
        return None if self.may is None else self.may.get

    def happens(self, *names: str, over: bool = False) -> None:
        for name in names:
            event = Event("/plant/peanut", int(self.now), name, f"{name}: it is so", over)
            self.alerts.hear(Said(Report("/plant/peanut", "event", b"", False), {}, (), event), self.now)

    def turn(self, seconds: float = 0) -> int:
        self.now += seconds
        return self.couriers.step()

    def notices(self) -> list[tuple[str, int, str | None]]:
        return list(self.alerts._db.execute("SELECT state, tries, why FROM notice ORDER BY id"))


LOOK = """
import contextlib, sqlite3, sys
with contextlib.closing(sqlite3.connect(sys.argv[1])) as db:
    print(db.execute("SELECT count(*) FROM alert").fetchone()[0])
"""


def test_who_looks_from_outside_takes_nothing_away(tmp_path: Path) -> None:
    """A backup opens and closes the database while the gateway, with two connections of its own, writes on."""
    bench = Bench(tmp_path, "")

    def look() -> int:
        done = subprocess.run([sys.executable, "-c", LOOK, tmp_path / "alerts.db"], capture_output=True, check=True)
        return int(done.stdout)

    bench.happens("frost")
    assert look() == 1
    bench.happens("tank")
    assert look() == 2


@pytest.fixture
def web() -> Iterator[Web]:
    found = Web()
    yield found
    found.end()


def hook(web: Web, more: str = "") -> str:
    return f'[[tell]]\nname = "hook"\nwebhook = "{web.url}/alerts?x=1"\n{more}\n'


def test_a_web_hook_gets_what_is_raised_and_what_is_over(tmp_path: Path, web: Web) -> None:
    (tmp_path / "hook.token").write_text("secret\n")
    bench = Bench(tmp_path, hook(web, 'token_file = "hook.token"'))
    bench.happens("frost", "tank")
    assert bench.turn() == 2
    ((path, headers, body),) = web.got
    assert (path, headers["authorization"], headers["content-type"]) == (
        *("/alerts?x=1", "Bearer secret", "application/json"),
    )
    said = json.loads(body)["notices"]
    assert [(notice["happened"], notice["alert"]["text"]) for notice in said] == [
        *(("raised", "frost: it is so"), ("raised", "tank: it is so")),
    ]
    assert said[0]["alert"]["device"] == "peanut"
    assert bench.turn(1) == 0, "told is told"
    bench.happens("frost", over=True)
    bench.turn()
    (said,) = json.loads(web.got[1][2])["notices"]
    assert (said["happened"], said["alert"]["cleared"]) == ("cleared", bench.now)
    assert bench.notices() == [("told", 1, None)] * 3


def test_what_fails_is_tried_again_with_growing_pauses(tmp_path: Path, web: Web) -> None:
    bench = Bench(tmp_path, hook(web))
    web.answers += [(503, ""), (500, ""), (302, f"{web.url}/elsewhere")]
    bench.happens("frost")
    bench.turn()
    assert bench.notices() == [("waiting", 1, "answered 503 Service Unavailable")]
    assert bench.turn(PAUSE - 1) == 0
    assert bench.turn(1) == 1
    assert bench.turn(2 * PAUSE - 1) == 0
    assert bench.turn(1) == 1
    assert [path for path, _, _ in web.got] == ["/alerts?x=1"] * 3, "nobody follows where a server points"
    assert bench.turn(4 * PAUSE) == 1
    assert bench.notices() == [("told", 4, None)]
    assert bench.log.getvalue().count("could not tell, and tries again") == 3


def test_a_clock_that_was_ahead_keeps_nobody_from_being_told(tmp_path: Path, web: Web) -> None:
    bench = Bench(tmp_path, hook(web))
    web.answers.append((503, ""))
    bench.happens("frost")
    bench.turn()
    bench.now -= 365 * 86_400
    assert bench.turn() == 1
    assert bench.notices() == [("told", 2, None)]


def test_after_a_day_it_gives_up(tmp_path: Path, web: Web) -> None:
    bench = Bench(tmp_path, hook(web))
    web.answers += [(503, "")] * 1000
    bench.happens("frost")
    pauses = 0
    while bench.notices()[0][0] == "waiting":
        bench.turn(LONGEST)
        pauses += 1
    assert bench.notices()[0][0] == "failed"
    assert pauses * LONGEST == pytest.approx(GIVE_UP, abs=2 * LONGEST)
    assert "gives up" in bench.log.getvalue()


def test_nobody_there_is_a_failure_like_any_other(tmp_path: Path, web: Web) -> None:
    web.end()
    bench = Bench(tmp_path, hook(web))
    bench.happens("frost")
    bench.turn()
    ((state, tries, why),) = bench.notices()
    assert (state, tries) == ("waiting", 1)
    assert why is not None
    assert "refused" in why


def test_what_is_to_be_told_survives_a_restart(tmp_path: Path, web: Web) -> None:
    bench = Bench(tmp_path, hook(web))
    bench.happens("frost")
    again = Bench(tmp_path, hook(web))
    with again.couriers:
        end = time.monotonic() + 60
        while not web.got and time.monotonic() < end:
            time.sleep(0.01)
    assert len(web.got) == 1


def test_a_way_that_is_no_more(tmp_path: Path, web: Web) -> None:
    bench = Bench(tmp_path, hook(web))
    bench.happens("frost")
    (tmp_path / "alerts.toml").write_text(RULE)
    again = Bench(tmp_path, "")
    again.turn()
    ((state, _, why),) = again.notices()
    assert state == "failed"
    assert why is not None
    assert "no [[tell]] of that name" in why


@pytest.fixture
def post() -> Iterator[Post]:
    found = Post()
    yield found
    found.end()


LOGIN = ("peanut", "secret")


def mail(post: Post, security: str = "none") -> str:
    head = '[[tell]]\nname = "mail"\nmail_to = ["a@example.org", "b@example.org"]\nmail_from = "p@example.org"\n'
    more = "" if security == "none" else 'user = "peanut"\npassword_file = "smtp.pass"\n'
    return f'{head}smtp = "{post.place}"\nsecurity = "{security}"\n{more}'


def test_a_mail(tmp_path: Path, post: Post) -> None:
    bench = Bench(tmp_path, mail(post))
    bench.happens("frost")
    bench.turn()
    ((sender, receivers, text),) = post.got
    assert (sender, receivers) == ("p@example.org", ["a@example.org", "b@example.org"])
    message = email.message_from_string(text, policy=email.policy.default)
    assert message["Subject"] == "Peanut: peanut: frost: it is so"
    assert message["Auto-Submitted"] == "auto-generated"
    assert "critical  peanut: frost: it is so (node)" in message.get_content()
    assert post.logins == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_mail_goes_encrypted_and_with_a_login_to_whom_the_machine_trusts(tmp_path: Path, security: str) -> None:
    pem, trust = certificate(tmp_path)
    (tmp_path / "smtp.pass").write_text("wrong\n")
    post = Post(pem, security=security, login=LOGIN)
    bench = Bench(tmp_path, mail(post, security), trust)
    bench.happens("frost")
    bench.turn()
    ((state, tries, why),) = bench.notices()
    assert (state, tries, post.got) == ("waiting", 1, [])
    assert why is not None
    assert "535" in why
    assert "wrong" not in why + bench.log.getvalue(), "the password is nobody's"
    (tmp_path / "smtp.pass").write_text("secret\n")
    bench.turn(PAUSE)
    assert bench.notices() == [("told", 2, None)]
    assert post.logins[-1] == LOGIN
    ((_, receivers, _),) = post.got
    assert len(receivers) == 2
    stranger = Bench(tmp_path, mail(post, security))
    stranger.happens("tank")
    before = len(post.logins)
    stranger.turn(1)
    assert "certificate verify failed" in str(stranger.notices()[-1][2])
    assert (len(post.got), len(post.logins)) == (1, before), "no password to somebody whom nobody knows"
    post.end()


def test_who_offers_no_encryption_is_told_neither_password_nor_news(tmp_path: Path, post: Post) -> None:
    (tmp_path / "smtp.pass").write_text("secret\n")
    bench = Bench(tmp_path, mail(post, "starttls"))
    bench.happens("frost")
    bench.turn()
    ((state, _, why),) = bench.notices()
    assert state == "waiting"
    assert "STARTTLS" in str(why)
    assert (post.got, post.logins) == ([], [])


def test_what_a_node_says_makes_no_lines_of_a_mail(tmp_path: Path, post: Post) -> None:
    bench = Bench(tmp_path, mail(post))
    text = "frost\r\nBcc: everybody@example.org\r\n\r\n.\r\nMAIL FROM:<x@example.org>"
    event = Event("/plant/peanut", int(NOW), "frost", text, False)
    bench.alerts.hear(Said(Report("/plant/peanut", "event", b"", False), {}, (), event), NOW)
    bench.turn()
    ((sender, receivers, said),) = post.got
    assert (sender, len(receivers)) == ("p@example.org", 2)
    message = email.message_from_string(said, policy=email.policy.default)
    assert message["Bcc"] is None
    assert message["Subject"] == clean(f"Peanut: peanut: {text}")


def test_a_thousand_alerts_are_a_few_mails(tmp_path: Path, post: Post) -> None:
    bench = Bench(tmp_path, mail(post))
    bench.happens(*(f"e{number}" for number in range(couriers.TOGETHER + 1)))
    bench.turn()
    assert len(post.got) == 2
    message = email.message_from_string(post.got[0][2], policy=email.policy.default)
    assert message["Subject"] == f"Peanut: alerts: {couriers.TOGETHER} raised"
    assert f"... and {couriers.TOGETHER - couriers.SHOWN} more" in message.get_content()


def test_a_mail_that_is_refused_is_tried_again(tmp_path: Path) -> None:
    post = Post()
    post.refuse = "450 later"
    bench = Bench(tmp_path, mail(post))
    bench.happens("frost")
    bench.turn()
    ((state, _, why),) = bench.notices()
    assert state == "waiting"
    assert why is not None
    assert "later" in why
    post.refuse = ""
    bench.turn(PAUSE)
    assert len(post.got) == 1
    post.end()


def test_a_browser_reads_what_nobody_else_can(tmp_path: Path) -> None:
    pem, trust = certificate(tmp_path)
    service = Web(pem)
    ways = f'push_services = ["{service.place}"]\n[[tell]]\nname = "push"\npush = true\n'
    bench = Bench(tmp_path, ways, trust)
    browser = Browser()
    bench.alerts.subscribe("maria", "sign-in", f"{service.url}/maria", browser.p256dh, browser.auth, NOW)
    bench.happens("frost")
    bench.turn()
    ((path, headers, body),) = service.got
    assert path == "/maria"
    assert b"frost" not in body
    said = json.loads(browser.read(body))
    assert said["title"] == "Peanut: peanut: frost: it is so"
    assert (said["alerts"], said["severity"]) == ([1], "critical")
    assert (headers["content-encoding"], headers["urgency"], headers["ttl"]) == ("aes128gcm", "high", "86400")
    claims, key = vapid(headers["authorization"])
    assert claims["aud"] == service.url
    assert key == webpush.public(webpush.key(tmp_path))
    service.answers.append((410, ""))
    bench.happens("tank")
    bench.turn()
    assert bench.notices()[1][0] == "failed"
    assert list(bench.alerts._db.execute("SELECT * FROM subscription")) == [], "it wants no more"
    service.end()


def test_a_browser_is_told_what_its_user_may_know_of(tmp_path: Path) -> None:
    pem, trust = certificate(tmp_path)
    service = Web(pem)
    ways = f'push_services = ["{service.place}"]\n[[tell]]\nname = "push"\npush = true\n'
    bench = Bench(tmp_path, ways, trust)
    for user in ("maria", "tom", "gone"):
        browser = Browser()
        bench.alerts.subscribe(user, f"of-{user}", f"{service.url}/{user}", browser.p256dh, browser.auth, NOW)
    bench.may = None
    bench.happens("frost")
    bench.turn()
    assert {state for state, _, _ in bench.notices()} == {"waiting"}, "nobody can say yet who may know of it"
    bench.may = {"maria": frozenset({"peanut"}), "tom": frozenset({"another"})}
    bench.turn(PAUSE)
    assert [path for path, _, _ in service.got] == ["/maria"]
    assert sorted(state for state, _, _ in bench.notices()) == ["failed", "left out", "told"]
    assert {user for (user,) in bench.alerts._db.execute("SELECT user FROM subscription")} == {"maria", "tom"}
    bench.alerts.forget(["of-maria"])
    bench.happens("tank")
    bench.turn()
    assert len(service.got) == 1, "she has ended that sign-in"
    service.end()
