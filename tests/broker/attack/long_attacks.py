"""Storms of connections and floods in MQTT, at the rates that this machine can make. `make test-long`, `make soak`.

The rule it keeps: that of conftest.py; what happened is in the metrics.
"""

from __future__ import annotations

import time
from typing import Any

from tests.broker.attack.conftest import ATTEMPTS, LISTEN, LONG, OPEN, SECONDS, Attack
from tests.broker.conftest import wait_for
from tests.broker.test_operate import scrape


def test_ten_thousand_connections_a_second(gateway: Any, attack: Attack) -> None:
    """From everywhere, without a handshake: accept_rate of them are looked at, and who is in does not wait."""
    daemon = gateway(LISTEN + "accept_rate = 500\n" + OPEN)
    begin = time.monotonic()
    done = attack(daemon, "knock", lambda done: done["knocked"] > 1000 * SECONDS, many=10_000, scheme="mqtts")
    accepted = scrape(daemon)["peanut_connections_accepted_total"]
    assert accepted < 500 * (time.monotonic() - begin + 1)
    assert accepted < done["knocked"] * ATTEMPTS


def test_a_storm_from_one_address_is_banned(gateway: Any, attack: Attack, dial: Any) -> None:
    daemon = gateway(LISTEN + OPEN + "[bans]\nnever = []\nfailures = 20\nv4_prefix = 16\n")
    attack(daemon, "knock", lambda done: done["knocked"] > 20, many=2000, scheme="mqtts", seconds=1)
    daemon.line(r'bans: banned ban="address 127\.5\.0\.0/16"')
    found = scrape(daemon)
    assert found['peanut_banned_total{kind="address"}'] == 1
    assert found["peanut_connections_accepted_total"] > 20


def test_a_million_subscriptions(gateway: Any, attack: Attack) -> None:
    """They end at max_subscriptions; asking on costs others nothing, and neither does the client's end."""
    daemon = gateway(LISTEN + OPEN)
    much = lambda done: done["sent"] > 100_000  # noqa: E731
    attack(daemon, "subscriptions", much, many=1_000_000, seconds=20 if LONG else SECONDS)
    found = scrape(daemon)
    assert found["peanut_subscriptions"] <= 10_001
    wait_for(lambda: scrape(daemon)["peanut_subscriptions"] == 1, "the end of its session")


def test_deep_topics(gateway: Any, attack: Attack) -> None:
    """Thousands of filters that a publication visits in vain."""
    daemon = gateway(LISTEN + OPEN)
    publishing = lambda done: done["sent"] > 500_000  # noqa: E731
    attack(daemon, "deep_topics", publishing, many=4096, seconds=max(SECONDS, 3))


def test_retained_and_wildcard_floods(gateway: Any, attack: Attack) -> None:
    """First a flood of retained messages, then a client that asks for all of them over and over."""
    daemon = gateway(LISTEN + OPEN + "[mqtt]\nmax_retained = 50000\n")
    attack(daemon, "retained", lambda _: scrape(daemon)["peanut_retained_messages"] > 10_000, many=200_000)
    assert scrape(daemon)["peanut_retained_messages"] <= 50_000
    attack(daemon, "wildcards", lambda done: done["got"] > 10_000)
