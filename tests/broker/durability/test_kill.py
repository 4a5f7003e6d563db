"""kill -9 at random moments under load: nothing acknowledged is lost, and nothing of QoS 2 comes twice.

Each round starts the gateway on what the one before left behind, lets everybody talk for a random time, and kills it.
After the last round everybody comes to an end, and the sequence numbers are counted. `make soak SOAK_ROUNDS=300` runs
it long; a failure names the seed (SOAK_SEED runs it again, as far as machines repeat themselves).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo
from paho.mqtt.enums import CallbackAPIVersion

from tests.broker.durability.gateway import Gateway, on_tcp, wait_for
from tests.broker.durability.peers import Publisher, Subscriber, verdict

ROUNDS = int(os.environ.get("SOAK_ROUNDS", "3"))
SEED = int(os.environ.get("SOAK_SEED", random.randrange(1 << 30)))
ROUND_SECONDS = (0.05, 0.8)
"""How long a round lasts once the gateway listens."""

PAHO_WAITING = 100
"""Messages that paho has not had acknowledged. It sends all of them at once when it comes back, whatever it was told to
have in flight at most, and beyond `receive_maximum` the gateway ends the connection again and again."""

pytestmark = pytest.mark.timeout(120 + ROUNDS * 20)


@pytest.mark.parametrize("version", [5, 4])
def test_our_own_clients_across_kills(tmp_path: Path, version: int) -> None:
    chosen = random.Random(SEED + version)
    gateway = Gateway(tmp_path / "home")
    publishers = [Publisher(f"p{qos}{n}", f"t/{qos}", qos, version) for qos in (1, 2) for n in (1, 2)]
    here, away = Subscriber("here", "t/#", version), Subscriber("away", "t/+", version)
    gateway.start()
    gateway.ready()
    with on_tcp(gateway.port, *publishers, here, away) as threads:
        wait_for(lambda: here.subscribed and away.subscribed, "subscriptions")
        for thread in threads:
            thread.speaks.set()
        for number in range(ROUNDS):
            if chosen.random() < 0.5:  # for one of them it queues, and the queue outlives a crash or several
                threads[-1].away.set()
            else:
                threads[-1].away.clear()
            time.sleep(chosen.uniform(*ROUND_SECONDS))
            gateway.kill()
            gateway.start()
            if number % 3:
                gateway.ready()  # else it may be killed while it starts
        gateway.ready()
        threads[-1].away.clear()
        for publisher in publishers:
            publisher.limit = publisher.count
        wait_for(lambda: all(publisher.done for publisher in publishers), "everything acknowledged")
        wrong: list[str] = []

        def well() -> bool:
            wrong[:] = [text for p in publishers for s in (here, away) for text in verdict(p, s)]
            return not any("never heard" in text for text in wrong)

        try:
            wait_for(well, "everything heard")
        except AssertionError:
            pytest.fail("\n".join([f"SOAK_SEED={SEED}", *wrong]))
        assert not wrong, f"SOAK_SEED={SEED}: {wrong}"
    assert gateway.end() == 0
    assert sum(len(publisher.acknowledged) for publisher in publishers) > 20 * ROUNDS
    assert "records that mean nothing" not in gateway.log
    assert "damaged" not in gateway.log


class Paho:
    """paho's client, which keeps its own side across reconnects. It is told when: each attempt to connect makes of a
    PUBREL that it has to send again a PUBLISH if the one before failed (paho 2.1), and then comes a message twice.
    """

    def __init__(self, name: str, port: int) -> None:
        self.heard: Counter[bytes] = Counter()
        self.subscribed = threading.Event()
        self.client = Client(
            CallbackAPIVersion.VERSION2, client_id=name, clean_session=False, reconnect_on_failure=False
        )
        self.client.on_connect = lambda *_: None if self.subscribed.is_set() else self.client.subscribe("t/#", 2)
        self.client.on_subscribe = lambda *_: self.subscribed.set()
        self.client.on_message = self._message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _message(self, client: Client, data: object, message: MQTTMessage) -> None:
        self.heard[message.payload] += 1

    def back(self) -> None:
        """Reconnects."""
        self.client.loop_stop()
        self.client.reconnect()
        self.client.loop_start()
        wait_for(self.client.is_connected, "paho back")

    def end(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_paho_across_kills(tmp_path: Path) -> None:
    chosen = random.Random(SEED)
    gateway = Gateway(tmp_path / "home")
    gateway.start()
    gateway.ready()
    publisher, subscriber = Paho("publisher", gateway.port), Paho("subscriber", gateway.port)
    try:
        assert subscriber.subscribed.wait(60)
        sent: list[tuple[int, bytes, MQTTMessageInfo]] = []
        waiting: list[MQTTMessageInfo] = []
        for _ in range(max(1, ROUNDS // 2)):
            end = time.monotonic() + chosen.uniform(*ROUND_SECONDS)
            while time.monotonic() < end:
                qos = chosen.choice([1, 2])
                payload = b"%d %d" % (qos, len(sent))
                sent.append((qos, payload, publisher.client.publish(f"t/{qos}", payload, qos)))
                waiting = [info for info in waiting if not info.is_published()] + [sent[-1][2]]
                while len(waiting) >= PAHO_WAITING and time.monotonic() < end:
                    time.sleep(0.005)
                    waiting = [info for info in waiting if not info.is_published()]
            gateway.kill()
            gateway.start()
            gateway.ready()
            for client in chosen.sample([publisher, subscriber], 2):
                client.back()
        for _, payload, info in sent:
            info.wait_for_publish(60)
            assert info.is_published(), f"SOAK_SEED={SEED}: {payload!r} never acknowledged\n{gateway.log}"

        def missing() -> list[bytes]:
            return [payload for _, payload, _ in sent if not subscriber.heard[payload]]

        try:
            wait_for(lambda: not missing(), "everything heard")
        except AssertionError:
            pytest.fail(f"SOAK_SEED={SEED}: of {len(sent)} never heard: {missing()[:50]}\n{gateway.log}")
        twice = [payload for qos, payload, _ in sent if qos == 2 and subscriber.heard[payload] > 1]
        assert not twice, f"SOAK_SEED={SEED}"
    finally:
        publisher.end()
        subscriber.end()
        gateway.end()
