"""No acknowledged message lost, no QoS 2 message twice: the core alone, with crashes between any two of its steps.

Clients that keep the standard talk to a core whose batches reach the disk late, one at a time, or never: at a random
moment the process is gone, with everything that was not committed. Every packet may be the last that a side hears of.
"""

from __future__ import annotations

import random

import pytest

from tests.broker.disk import DiskHouse
from tests.broker.durability.peers import Publisher, Subscriber, verdict
from tests.broker.house import Client
from tests.reference import codec

PROGRAMS = 80
STEPS = 250

Peer = Publisher | Subscriber


class Network:
    """Peers, each with a connection or none, around a house that crashes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.house = DiskHouse()
        version = self.random.choice([4, 5])
        window = self.random.choice([1, 3, 20])
        self.publishers = [
            Publisher("p1", "t/1", 1, version, window, limit=60),
            Publisher("p2", "t/2", 2, version, window, limit=60),
        ]
        self.subscribers = [Subscriber("s1", "t/#", version), Subscriber("s2", "t/+", version)]
        self.links: dict[str, Client] = {}
        self.crashes = 0

    @property
    def peers(self) -> list[Peer]:
        return [*self.publishers, *self.subscribers]

    def run(self) -> None:
        steps = [*[self.turn] * 12, *[self.house.take_batch] * 4, *[self.house.commit_one] * 4, self.lose, self.crash]
        for _ in range(STEPS):
            self.random.choice(steps)()
        self.house.prompt = True
        self.house.commit()
        for _ in range(400):  # everybody is online and all is well: now it has to come to its end
            for peer in self.peers:
                self.talk(peer)
            if all(publisher.done for publisher in self.publishers) and not any(peer.held for peer in self.subscribers):
                break

    def turn(self) -> None:
        self.talk(self.random.choice(self.peers))

    def talk(self, peer: Peer) -> None:
        """The peer connects, or reads what there is and answers."""
        link = self.links.get(peer.name)
        if link is None or link.closed is not None:
            link = self.links[peer.name] = self.house.open()
            link.version = peer.version
            link._decoder = codec.Decoder(peer.version)
            link.send(*peer.connected())
            return
        for packet in link.read():
            for answer in peer.heard(packet):
                link.send(answer)
        if self.subscribed and (said := peer.say()):
            link.send(*said)

    @property
    def subscribed(self) -> bool:
        """What is published before anybody has subscribed is promised to nobody."""
        return all(subscriber.subscribed for subscriber in self.subscribers)

    def lose(self) -> None:
        """A connection is lost, with what is in it."""
        peer = self.random.choice(self.peers)
        link = self.links.pop(peer.name, None)
        if link is not None:
            peer.online = False
            link.lose()

    def crash(self) -> None:
        self.crashes += 1
        self.links.clear()
        for peer in self.peers:
            peer.online = False
        assert self.house.crash() == 0


@pytest.mark.parametrize("batch", range(4))
def test_what_was_acknowledged_arrives_and_qos_2_arrives_once(batch: int) -> None:
    """A failure names its seed."""
    crashes = 0
    for seed in range(batch * PROGRAMS // 4, (batch + 1) * PROGRAMS // 4):
        network = Network(seed)
        network.run()
        crashes += network.crashes
        for publisher in network.publishers:
            assert publisher.done, f"seed {seed}: {publisher.name} has not come to its end"
            assert len(publisher.acknowledged) == publisher.limit
            for subscriber in network.subscribers:
                assert verdict(publisher, subscriber) == [], f"seed {seed}"
    assert crashes > PROGRAMS
