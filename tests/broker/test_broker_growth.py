"""Nothing that a peer controls costs more than in proportion, or a little more; and much work is done in shares.

The rule it keeps: growth is measured (growth.py). Those here are of the work that there is most of; long_growth.py has
the others.
"""

from __future__ import annotations

from tests.broker.growth import Work, grows_linearly, raw, subscribes_twice_and_leaves
from tests.broker.house import House, ack, disconnect, publish, subscribe, topic_filter


def test_many_subscriptions_of_one_client() -> None:
    def make(n: int) -> Work:
        return subscribes_twice_and_leaves([subscribe(topic_filter(f"f/{k}/+")) for k in range(n)])

    grows_linearly(make, 2500)


def test_a_packet_that_comes_in_small_pieces() -> None:
    def make(n: int) -> Work:
        house = House()
        client = house.join()
        data = raw([publish("a", b"x" * n)])
        pieces = [data[k : k + 16] for k in range(0, len(data), 16)]

        def work() -> None:
            for piece in pieces:
                client.link.feed(piece, house.now)

        return work

    grows_linearly(make, 150_000)


def test_a_backlog_that_is_built_and_worked_off() -> None:
    def make(n: int) -> Work:
        house = House(max_queued_messages=1_000_000)
        client = house.keeper("k")
        client.subscribe("#", qos=1)
        client.lose()
        publisher = house.join("p")
        data = raw([publish("a", qos=1)] * n)
        acks = [raw([ack("PUBACK", k % 65535 + 1)]) for k in range(n)]

        def work() -> None:
            publisher.feed(data)
            back = house.keeper("k")
            for one in acks:
                back.link.feed(one, house.now)
                back.link.take()

        return work

    grows_linearly(make, 5000)


def test_many_retained_messages_set_found_and_cleared() -> None:
    def make(n: int) -> Work:
        house = House(max_output_bytes=100_000_000)
        client, reader = house.join("c"), house.join("r")
        data = raw([publish(f"r/{k}/x", b"x", retain=True) for k in range(n)])
        clear = raw([publish(f"r/{k}/x", b"", retain=True) for k in range(n)])

        def work() -> None:
            client.feed(data)
            reader.feed(raw([subscribe(topic_filter("r/#"))]))
            client.feed(clear)

        return work

    grows_linearly(make, 4000)


# --- a share of a turn ------------------------------------------------------------------------------------------------


def test_what_one_client_has_others_do_is_done_in_shares() -> None:
    """A few bytes that make much work wait for their turn: another client's come before the rest, and nothing is lost,
    whatever comes behind in whatever pieces.
    """
    house = House()
    readers = [house.join(f"r{number}") for number in range(100)]
    for reader in readers:
        reader.subscribe("all")
    talker, other = house.join("t"), house.join("o")
    data = raw([publish("all", bytes([number % 256])) for number in range(500)])
    talker.feed(data[: len(data) - 3])
    assert talker.paused
    talker.feed(data[len(data) - 3 :])
    talker.send({"type": "PINGREQ"})
    assert talker.read() == []
    first = len(readers[0].payloads())
    assert 20 < first < 200
    other.send(publish("all", b"other"))
    assert readers[0].payloads() == [b"other"]
    turns = 0
    while house.broker.busy:
        house.handle(house.broker.work(house.now))
        turns += 1
    assert 3 < turns < 50
    assert readers[0].payloads() == [bytes([number % 256]) for number in range(first, 500)]
    assert [packet["type"] for packet in talker.read()] == ["PINGRESP"]
    assert not talker.paused
    assert house.stat("throttled") == 0


def test_filters_that_are_made_to_be_visited_in_vain() -> None:
    """8,192 filters of `a` and `+` that never match: each publication visits them all, and others wait for few."""
    house = House()
    hostile = house.join("h")
    for first in range(0, 4096, 512):
        filters = [
            "/".join("a+"[number >> bit & 1] for bit in range(12)) + "/x" for number in range(first, first + 512)
        ]
        hostile.send(subscribe(*[topic_filter(text) for text in filters]))
    hostile.read()
    hostile.send(*[publish("/".join("a" * 12) + "/y")] * 500)
    assert hostile.paused
    assert house.stat("publishes_in") < 10
    hostile.lose()
    assert not house.broker.busy


def test_a_client_that_is_behind_may_end_at_any_moment() -> None:
    """By itself, by force, taken over, or with what it has sent last."""
    for end in ("lose", "close", "taken", "sent"):
        house = House()
        readers = [house.join(f"r{number}") for number in range(100)]
        for reader in readers:
            reader.subscribe("all")
        talker, second = house.join("t"), house.join("u")
        for client in (talker, second):
            client.feed(raw([publish("all")] * 500 + [disconnect()] * (end == "sent")))
            assert client.paused
        if end == "lose":
            talker.lose()
        elif end == "close":
            house.handle(talker.link.close(0x98, house.now))
        elif end == "taken":
            house.join("t")
        for _ in range(100):
            house.handle(house.broker.work(house.now))
        assert not house.broker.busy
        assert len(readers[0].payloads()) >= 500
        assert (end == "lose") == (talker.closed is None)
