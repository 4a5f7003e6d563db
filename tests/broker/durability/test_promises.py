"""No acknowledged message lost, no QoS 2 message twice: the core alone, with crashes between any two of its steps.

Clients that keep the standard talk to a core whose batches reach the disk late, one at a time, or never: at a random
moment the process is gone, with everything that was not committed. Every packet may be the last that a side hears of.
In half of the programs the disk fails for a while now and then, and a crash may come then as well.
"""

from __future__ import annotations

import random

import pytest

from tests.broker.disk import DiskHouse
from tests.broker.durability.peers import Publisher, Subscriber, verdict
from tests.broker.house import Client
from tests.reference import codec

PROGRAMS = 160
STEPS = 250

Peer = Publisher | Subscriber


class Network:
    """Peers, each with a connection or none, around a house that crashes."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.house = DiskHouse()
        self.fails = False
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
        steps = [*[self.turn] * 12, *[self.house.take_batch] * 4, *[self.commit_one] * 4, self.lose, self.crash]
        if self.random.random() < 0.5:
            steps += [self.fail, self.heal]
        for _ in range(STEPS):
            self.random.choice(steps)()
        self.heal()
        self.house.prompt = True
        self.house.commit()
        for _ in range(400):  # everybody is online and all is well: now it has to come to its end
            quiet = [self.talk(peer) for peer in self.peers]
            if all(quiet) and all(publisher.done for publisher in self.publishers):
                break

    def turn(self) -> None:
        self.talk(self.random.choice(self.peers))

    def commit_one(self) -> None:
        if not self.fails:
            self.house.commit_one()

    def fail(self) -> None:
        """The disk takes nothing any more. Before that everybody has a session, or would not get one."""
        if not self.fails and self.subscribed and all(publisher.count for publisher in self.publishers):
            self.fails = True
            self.house.handle(self.house.broker.failing(True, self.house.now))

    def heal(self) -> None:
        if self.fails:
            self.fails = False
            self.house.handle(self.house.broker.failing(False, self.house.now))

    def talk(self, peer: Peer) -> bool:
        """The peer connects, or reads what there is and answers. Whether there was nothing."""
        link = self.links.get(peer.name)
        if link is None or link.closed is not None:
            link = self.links[peer.name] = self.house.open()
            link.version = peer.version
            link._decoder = codec.Decoder(peer.version)
            link.send(*peer.connected())
            return False
        packets = link.read()
        for packet in packets:
            for answer in peer.heard(packet):
                link.send(answer)
        if self.subscribed and (said := peer.say()):
            link.send(*said)
        return not packets

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
        self.fails = False
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
            assert len(publisher.acknowledged) + publisher.refused == publisher.limit
            for subscriber in network.subscribers:
                assert verdict(publisher, subscriber) == [], f"seed {seed}"
    assert crashes > PROGRAMS
