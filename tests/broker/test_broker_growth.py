"""How work grows: nothing that a peer controls costs more than in proportion, or a little more.

The rule it keeps: growth is measured, not speed. Each scenario runs at one size and at four times that size: linear
work takes 4 times the time, quadratic work 16 times. Time is that of the thread's CPU, the best of several runs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from tests.broker.house import House, ack, disconnect, properties, publish, subscribe, topic_filter, unsubscribe, will
from tests.reference import codec

Work = Callable[[], None]
FACTOR = 4
MOST = 8.5
"""Twice the growth of linear work: the caches of this machine are part of the measurement."""


def cpu(make: Callable[[int], Work], size: int, least: float) -> float:
    """Seconds of CPU that the work takes; what prepares it does not count. Repeats until `least` have been seen."""
    best, spent = float("inf"), 0.0
    for _ in range(3):
        work = make(size)
        gc.collect()
        gc.disable()
        try:
            begin = time.thread_time()
            work()
            took = time.thread_time() - begin
        finally:
            gc.enable()
        best, spent = min(best, took), spent + took
        if spent > least:
            break
    return best


def grows_linearly(make: Callable[[int], Work], size: int) -> None:
    ratios = []
    for _ in range(3):  # a neighbour on the machine may spoil one comparison, not three
        ratios.append(cpu(make, FACTOR * size, 0.2) / cpu(make, size, 0.05))
        if ratios[-1] < MOST:
            return
    pytest.fail(f"{FACTOR} times the size takes {', '.join(f'{ratio:.1f}' for ratio in ratios)} times the time")


def raw(packets: list[codec.Packet], version: int = 5) -> bytes:
    return b"".join(codec.encode(packet, version) for packet in packets)


def test_many_subscriptions_of_one_client() -> None:
    """Made, made again, and dropped with the session."""

    def make(n: int) -> Work:
        house = House(max_subscriptions=100_000)
        client = house.join()
        data = raw([subscribe(topic_filter(f"f/{k}/+")) for k in range(n)])

        def work() -> None:
            client.feed(data)
            client.take()
            client.feed(data)
            client.lose()

        return work

    grows_linearly(make, 2500)


def test_many_filters_in_one_packet() -> None:
    def make(n: int) -> Work:
        house = House(max_subscriptions=100_000)
        client = house.join()
        data = raw([subscribe(*(topic_filter(f"f/{k}") for k in range(n))), unsubscribe(*(f"f/{k}" for k in range(n)))])
        return lambda: client.feed(data)

    grows_linearly(make, 5000)


def test_many_clients_on_one_filter_that_all_leave() -> None:
    """The oldest first, which is the order that a list likes least."""

    def make(n: int) -> Work:
        house = House()
        clients = [house.join(f"c{k}") for k in range(n)]
        data = raw([subscribe(topic_filter("all"))])

        def work() -> None:
            for client in clients:
                client.link.feed(data, house.now)
            for client in clients:
                client.link.lost(house.now)

        return work

    grows_linearly(make, 1500)


def test_many_clients_with_many_shared_filters() -> None:
    """n clients with n filters each, the same ones: n² subscriptions, and each costs no more than the shorter list."""

    def make(n: int) -> Work:
        house = House()
        clients = [house.join(f"c{k}") for k in range(50)]
        data = raw([subscribe(topic_filter(f"f/{k}")) for k in range(n)])

        def work() -> None:
            for client in clients:
                client.link.feed(data, house.now)
            for client in clients:
                client.link.lost(house.now)

        return work

    grows_linearly(make, 250)


def test_many_groups_on_one_filter() -> None:
    """$share/<n>/x: made, made again, and dropped with the session."""

    def make(n: int) -> Work:
        house = House(max_subscriptions=100_000)
        client = house.join()
        data = raw([subscribe(*(topic_filter(f"$share/g{k}/x") for k in range(n)))])

        def work() -> None:
            client.feed(data)
            client.take()
            client.feed(data)
            client.lose()

        return work

    grows_linearly(make, 2500)


def test_a_storm_of_takeovers() -> None:
    def make(n: int) -> Work:
        house = House()
        links = [house.broker.open(None, house.now) for _ in range(n)]
        data = raw(
            [
                {
                    "type": "CONNECT",
                    "version": 5,
                    "clean_start": False,
                    "keep_alive": 0,
                    "client_id": "same",
                    "properties": properties(session_expiry_interval=100),
                    "will": will(will_delay_interval=5),
                    "username": None,
                    "password": None,
                }
            ]
        )

        def work() -> None:
            for link in links:
                link.feed(data, house.now)
                link.accept(session="same", identity="me", rules=0, now=house.now)

        return work

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


def test_a_chunk_of_many_small_packets() -> None:
    def make(n: int) -> Work:
        house = House(max_output_bytes=100_000_000)
        client = house.join()
        data = b"\xc0\0" * n
        return lambda: client.feed(data)

    grows_linearly(make, 100_000)


def test_output_that_is_taken_in_small_pieces() -> None:
    def make(n: int) -> Work:
        house = House(max_output_bytes=100_000_000)
        client = house.join()
        client.feed(b"\xc0\0" * n)

        def work() -> None:
            while client.link.take(8):
                pass

        return work

    grows_linearly(make, 100_000)


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


def test_acknowledgements_from_the_back() -> None:
    """The one acknowledged is always the farthest from the head; then come many that are not known."""

    def make(n: int) -> Work:
        house = House(max_inflight=16384)
        client = house.join()
        client.subscribe("#", qos=1)
        for _ in range(n):
            house.publish("a", qos=1)
        client.take()
        data = raw([ack("PUBACK", k) for k in range(n, 0, -1)] * 2)
        return lambda: client.feed(data)

    grows_linearly(make, 4000)


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


def test_many_wildcards_in_one_packet_before_a_full_output() -> None:
    """Many filters, each of which finds every retained message: once nothing more fits, none costs a whole walk."""

    def make(n: int) -> Work:
        house = House(max_output_bytes=10_000)
        client = house.join()
        for k in range(n):
            house.publish(f"r/{k}", b"x" * 20, retain=True)
        data = raw([subscribe(*[topic_filter("r/#")] * n)])
        return lambda: client.feed(data)

    grows_linearly(make, 1500)


def test_retained_messages_that_expire_all_at_once() -> None:
    def make(n: int) -> Work:
        house = House()
        client = house.join()
        expiring = properties(message_expiry_interval=1)
        client.feed(raw([publish(f"r/{k}", b"x", retain=True, props=expiring) for k in range(n)]))
        return lambda: house.wait(10)

    grows_linearly(make, 6000)


def test_retained_messages_that_expire_one_by_one_do_not_cost_a_walk_each() -> None:
    """The store is looked through once in a while, however cleverly the intervals are chosen."""

    def make(n: int) -> Work:
        house = House()
        client = house.join()
        for k in range(n):
            house.publish(f"keep/{k}", b"x", retain=True)
        client.feed(
            raw(
                [
                    publish(f"r/{k}", b"x", retain=True, props=properties(message_expiry_interval=k + 1))
                    for k in range(n)
                ]
            )
        )

        def work() -> None:
            for _ in range(n // 10):
                house.wait(1)

        return work

    grows_linearly(make, 1000)


def test_sessions_that_expire_all_at_once() -> None:
    def make(n: int) -> Work:
        house = House()
        for k in range(n):
            client = house.join(f"c{k}", props=properties(session_expiry_interval=5), will=will(will_delay_interval=9))
            client.subscribe("a")
            client.lose()
        return lambda: house.wait(5)

    grows_linearly(make, 1000)


def test_qos_2_identifiers_that_are_never_released() -> None:
    """Up to receive_maximum, which bounds the search among them."""

    def make(n: int) -> Work:
        house = House()
        client = house.join()
        client.feed(raw([publish("a", qos=2, number=k + 1) for k in range(256)]))
        data = raw([publish("a", qos=2, number=k % 256 + 1, dup=True) for k in range(n)])
        return lambda: client.feed(data)

    grows_linearly(make, 8000)


def test_new_rules_for_many_sessions() -> None:
    def make(n: int) -> Work:
        house = House()
        for k in range(n):
            house.join(f"c{k}").subscribe("a", f"b/{k}")
        return lambda: house.broker.set_rules(0, [])

    grows_linearly(make, 1000)


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
