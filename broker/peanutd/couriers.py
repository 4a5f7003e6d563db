"""Couriers: they take what alerts.py has put down to the people, by web hook, mail and Web Push.

The rule it keeps: what is to be told survives a restart, is tried again with growing pauses for a day, and each attempt
is in the database and in the log. What is due for the same person goes together: a thousand nodes that fall silent are
one mail. A browser is told what its user may know of at that moment. One thread, which may wait for the network; nobody
waits for it.
"""

from __future__ import annotations

import contextlib
import json
import smtplib
import sqlite3
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from peanutd import webpush
from peanutd.alert_rules import Rulebook, Way
from peanutd.alerts import FILE_NAME, connect
from peanutd.log import Log

TURN: Final = 1.0
"""Seconds between two looks at what is due."""
PAUSE: Final = 30.0
"""Seconds until the second attempt; twice that until the third, and so on."""
LONGEST: Final = 3600.0
"""Seconds between two attempts at the most."""
GIVE_UP: Final = 86_400.0
"""Seconds after which there is no further attempt."""
TOGETHER: Final = 200
"""Notices that go together at the most."""
SHOWN: Final = 50
"""Of these, how many are told in full."""
MAX_BODY: Final = 400
"""Characters of what a telephone shows."""
TIMEOUT: Final = 10.0
"""Seconds that a server may take for each answer."""
END_TIMEOUT: Final = 1.0
"""Seconds that the gateway waits for the thread at its end; what is under way is tried again next time."""
GONE: Final = (404, 410)
"""Statuses by which a push service says that the browser wants no more."""


class DeliveryError(Exception):
    """Why it could not be told; `gone`: and never will be."""

    def __init__(self, text: str, gone: bool = False) -> None:
        super().__init__(text)
        self.gone = gone


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell."""

    id: int
    happened: str
    """raised or cleared."""
    made: float
    tries: int
    alert: Mapping[str, Any]


class Audience(Protocol):
    """Whom alerts may be told to; for any thread."""

    def __call__(self, user: str, /) -> frozenset[str] | None:
        """The devices that a user may know of; None: there is no such user. OSError when nobody can say it now."""


class Couriers:
    """The thread. `step` is for it, or for a test."""

    def __init__(
        self,
        home: Path,
        log: Log,
        rulebook: Callable[[], Rulebook],
        audience: Callable[[], Audience | None],
        *,
        clock: Callable[[], float] = time.time,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """rulebook, audience: as they are now. context: whom to trust; as this machine does, if nothing is said.
        sqlite3.Error when the database cannot be used.
        """
        self._home = home
        self._log = log
        self._rulebook = rulebook
        self._audience = audience
        self._clock = clock
        self._context = context or ssl.create_default_context()
        self._db = connect(home / FILE_NAME)
        self._key: ec.EllipticCurvePrivateKey | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="couriers", daemon=True)

    def __enter__(self) -> Couriers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(END_TIMEOUT)

    def step(self) -> int:
        """Tells what is due; how many notices that were."""
        now = self._clock()
        rows = self._db.execute(
            "SELECT way, target, notice.id, happened, made, tries, alert.id, rule, device, severity, text, value, "
            "raised, cleared FROM notice JOIN alert ON alert.id = notice.alert "
            "WHERE state = 'waiting' AND (due <= ? OR due > ?) ORDER BY way, target, notice.id",
            (now, now + LONGEST),  # later than ever: the clock was ahead when that was written
        ).fetchall()
        parcels: dict[tuple[str, str], list[Notice]] = {}
        for way, target, number, happened, made, tries, *alert in rows:
            keys = ("id", "rule", "device", "severity", "text", "value", "raised", "cleared")
            notice = Notice(number, happened, made, tries, dict(zip(keys, alert, strict=True)))
            parcels.setdefault((way, target), []).append(notice)
        rulebook = self._rulebook()
        ways = {way.name: way for way in rulebook.ways}
        for (name, target), notices in parcels.items():
            for first in range(0, len(notices), TOGETHER):
                if self._ending.is_set():
                    return 0
                self._deliver(ways.get(name), name, target, notices[first : first + TOGETHER], rulebook, now)
        return len(rows)

    def _run(self) -> None:
        while not self._ending.wait(TURN):
            try:
                self.step()
            except Exception as error:  # a full disk, say: what is to be told waits
                self._log.error("couriers", "have failed, and try again", why=repr(error))
                self._ending.wait(PAUSE)
        with contextlib.suppress(sqlite3.Error):
            self._db.close()

    def _deliver(
        self, way: Way | None, name: str, target: str, notices: Sequence[Notice], rulebook: Rulebook, now: float
    ) -> None:
        try:
            if way is None:
                raise DeliveryError("alerts.toml has no [[tell]] of that name any more", gone=True)
            if way.kind == "webhook":
                self._hook(way, notices)
            elif way.kind == "mail":
                self._mail(way, notices)
            else:
                notices = self._push(target, notices, rulebook, now)
        except DeliveryError as error:
            self._failed(name, notices, str(error), error.gone, now)
        except (OSError, smtplib.SMTPException, ValueError) as error:
            self._failed(name, notices, str(error) or repr(error), False, now)
        else:
            self._db.executemany(
                "UPDATE notice SET state = 'told', done = ?, tries = tries + 1, why = NULL WHERE id = ?",
                [(now, notice.id) for notice in notices],
            )
            if notices:
                self._log.info("couriers", "told", way=name, alerts=len(notices))

    def _failed(self, name: str, notices: Sequence[Notice], why: str, gone: bool, now: float) -> None:
        """Puts down that it was tried, and when to try again."""
        for notice in notices:
            over = gone or now - notice.made >= GIVE_UP
            due = now + min(LONGEST, PAUSE * 2**notice.tries)
            self._db.execute(
                "UPDATE notice SET state = ?, due = ?, tries = tries + 1, why = ?, done = ? WHERE id = ?",
                ("failed" if over else "waiting", due, why[:500], now if over else None, notice.id),
            )
        again = not gone and any(now - notice.made < GIVE_UP for notice in notices)
        text = "could not tell, and tries again" if again else "could not tell, and gives up"
        self._log.warning("couriers", text, way=name, alerts=len(notices), why=why)

    # --- the three ways ---

    def _hook(self, way: Way, notices: Sequence[Notice]) -> None:
        headers = {"Content-Type": "application/json"}
        if way.token_file:
            headers["Authorization"] = f"Bearer {self._secret(way.token_file)}"
        said = {"notices": [{"happened": notice.happened, "alert": notice.alert} for notice in notices]}
        self._post(way.webhook, json.dumps(said).encode(), headers)

    def _mail(self, way: Way, notices: Sequence[Notice]) -> None:
        message = EmailMessage()
        message["From"], message["To"] = way.mail_from, ", ".join(way.mail_to)
        message["Subject"] = _title(notices)
        message["Date"], message["Message-ID"] = formatdate(self._clock()), make_msgid(domain="peanut.invalid")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content("\n".join(_lines(notices)) + "\n")
        host, _, port = way.smtp.rpartition(":")
        host = host.strip("[]")
        if way.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, int(port), timeout=TIMEOUT, context=self._context)
        else:
            server = smtplib.SMTP(host, int(port), timeout=TIMEOUT)
        with server:
            if way.security == "starttls":
                server.starttls(context=self._context)
            if way.user:
                server.login(way.user, self._secret(way.password_file))
            refused = server.send_message(message)
        if refused:
            raise DeliveryError(f"refused for {', '.join(refused)}")

    def _push(self, target: str, notices: Sequence[Notice], rulebook: Rulebook, now: float) -> Sequence[Notice]:
        """Those that were for this browser."""
        query = "SELECT endpoint, p256dh, auth, user FROM subscription WHERE id = ?"
        rows = self._db.execute(query, (target,)).fetchall()
        if not rows:
            raise DeliveryError("the browser is not subscribed any more", gone=True)
        ((endpoint, p256dh, auth, user),) = rows
        notices = self._for(user, notices, now)
        if not notices:
            return notices
        try:
            webpush.check(endpoint, p256dh, auth, rulebook.services)
        except webpush.PushError as error:
            raise DeliveryError(str(error), gone=True) from None
        said = {
            "title": _title(notices),
            "body": "\n".join(_lines(notices[:3]))[:MAX_BODY],
            "alerts": [notice.alert["id"] for notice in notices[:SHOWN]],
            "severity": _severity(notices),
        }
        if self._key is None:
            self._key = webpush.key(self._home)
        body = webpush.encrypt(json.dumps(said, ensure_ascii=False).encode(), p256dh, auth)
        headers = {
            "Authorization": webpush.authorization(endpoint, self._key, rulebook.contact, now),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(int(GIVE_UP)),
            "Urgency": "high" if _severity(notices) == "critical" else "normal",
        }
        try:
            self._post(endpoint, body, headers)
        except DeliveryError as error:
            if error.gone:
                self._db.execute("DELETE FROM subscription WHERE id = ?", (target,))
            raise
        return notices

    def _for(self, user: str, notices: Sequence[Notice], now: float) -> Sequence[Notice]:
        """Those that a user may know of: he may see less by now than when he subscribed, and be gone altogether."""
        audience = self._audience()
        if audience is None:
            raise DeliveryError("the API is not served, and nobody else can say who may know of it")
        devices = audience(user)
        if devices is None:
            self._db.execute("DELETE FROM subscription WHERE user = ?", (user,))
            raise DeliveryError(f"there is no user {user} any more", gone=True)
        others = [(now, notice.id) for notice in notices if notice.alert["device"] not in devices]
        self._db.executemany(
            "UPDATE notice SET state = 'left out', done = ?, why = 'its user may not see the device' WHERE id = ?",
            others,
        )
        return [notice for notice in notices if notice.alert["device"] in devices]

    def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> None:
        request = urllib.request.Request(url, body, dict(headers), method="POST")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context), _NoRedirection()
        )
        try:
            with opener.open(request, timeout=TIMEOUT):
                pass
        except urllib.error.HTTPError as error:
            with error:
                raise DeliveryError(f"answered {error.code} {error.reason}", gone=error.code in GONE) from None
        except urllib.error.URLError as error:
            raise DeliveryError(str(error.reason)) from None

    def _secret(self, name: str) -> str:
        """The first line of a file of the operator's."""
        return (self._home / name).read_text().split("\n", 1)[0].strip()


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """Whoever is told is told, and not whom he names."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _severity(notices: Sequence[Notice]) -> str:
    return "critical" if any(notice.alert["severity"] == "critical" for notice in notices) else "warning"


def _title(notices: Sequence[Notice]) -> str:
    """One line for all."""
    raised = sum(notice.happened == "raised" for notice in notices)
    if len(notices) == 1:
        over = "" if raised else "over: "
        return f"Peanut: {over}{notices[0].alert['device']}: {notices[0].alert['text']}"[:200]
    parts = [f"{count} {word}" for count, word in ((raised, "raised"), (len(notices) - raised, "over")) if count]
    return f"Peanut: alerts: {', '.join(parts)}"


def _lines(notices: Sequence[Notice]) -> list[str]:
    """A line for each, SHOWN at the most."""
    lines = []
    for notice in notices[:SHOWN]:
        alert = notice.alert
        at = alert["raised"] if notice.happened == "raised" else alert["cleared"]
        when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))
        word = alert["severity"] if notice.happened == "raised" else "over"
        lines.append(f"{when}  {word}  {alert['device']}: {alert['text']} ({alert['rule']})")
    if len(notices) > SHOWN:
        lines.append(f"... and {len(notices) - SHOWN} more")
    return lines
