"""What is done to a gateway before anybody knows who it is, or by somebody who is in: the slow and the greedy.

The rule it keeps: that of conftest.py; what happened is in the metrics. long_attacks.py has the storms and floods.
"""

from __future__ import annotations

import re
from typing import Any

from tests.broker.attack.conftest import LISTEN, OPEN, SECONDS, Attack, sums
from tests.broker.conftest import wait_for
from tests.broker.test_operate import scrape


def test_slow_loris(gateway: Any, attack: Attack) -> None:
    """Bytes that come one at a time do not keep a connection alive: it has a time to be done in, and all are cut."""
    daemon = gateway(LISTEN + "handshake_timeout = 1\nmax_handshakes = 100\n" + OPEN)
    again = lambda done: done["opened"] > 300  # noqa: E731  what was cut came again
    attack(daemon, "slow_loris", again, many=300, scheme="mqtts", seconds=max(SECONDS, 2))

    def over() -> bool:
        now = scrape(daemon)
        return now['peanut_connections{state="coming_in"}'] == 0 and now['peanut_connections{state="online"}'] == 1

    wait_for(over, "the end of all of them")
    found = scrape(daemon)
    assert found['peanut_turned_away_total{reason="newcomers"}'] > 0
    assert sums(found, "handshakes_failed_total") > 0


def test_half_open_storm(gateway: Any, attack: Attack, fleet: Any, dial: Any) -> None:
    """A storm of handshakes that are never finished; and a node comes in meanwhile and afterwards."""
    daemon = gateway(LISTEN + "handshake_timeout = 2\nmax_handshakes = 200\n" + OPEN)
    attack(daemon, "half_open", lambda done: done["opened"] > 100, many=1000, scheme="mqtts")
    node = dial(daemon.port(), fleet.context(fleet.issue("peanut:plant/peanut")))
    assert node.connect("peanut")[1] == 0
    assert scrape(daemon)['peanut_connections{state="coming_in"}'] <= 200


def test_readers_that_never_read(gateway: Any, attack: Attack) -> None:
    """What they do not read has a bound, and so has the time until they are cut."""
    daemon = gateway(LISTEN + "stall_timeout = 1\n" + OPEN)

    def stuck(_: object) -> bool:
        cut = [line for line in daemon.lines if re.search("cut who=.*stuck.* why=.it has read nothing for 1 s", line)]
        return bool(cut) and scrape(daemon)['peanut_dropped_total{reason="slow_reader"}'] > 0

    attack(daemon, "never_reads", stuck, seconds=max(SECONDS, 2.5))
    assert scrape(daemon)["peanut_memory_bytes"] < 100e6


def test_the_ceiling_of_memory(gateway: Any, attack: Attack, dial: Any) -> None:
    """What is beyond it is refused; the probe, which was there before, goes on."""
    daemon = gateway(LISTEN + OPEN + '[mqtt]\nmax_memory = 8\n[store]\nsync = "off"\n')

    def refused(done: dict[str, int]) -> bool:
        """More was sent than there is room for, and it has been read."""
        return done["sent"] > 8 << 20 and scrape(daemon).get('peanut_dropped_total{reason="max_memory"}', 0) > 0

    attack(daemon, "memory", refused, many=20, seconds=max(SECONDS, 3))
    found = scrape(daemon)
    assert 6 << 20 < found["peanut_memory_bytes"] < 8 << 20
    assert found['peanut_dropped_total{reason="max_memory"}'] > 0
    assert dial(daemon.port("mqtt")).connect("new")[1] == 0x97
    assert scrape(daemon)["peanut_refused_memory_total"] > 0
