"""Nothing that a peer controls costs more than in proportion, or a little more: whatever else a peer may do.

The rule it keeps: that of test_broker_growth.py, which has the work that there is most of.
"""

from __future__ import annotations

from tests.broker.growth import Work, all_subscribe_and_leave, grows_linearly, raw, subscribes_twice_and_leaves
from tests.broker.house import House, ack, properties, publish, subscribe, topic_filter, unsubscribe, will


def test_many_filters_in_one_packet() -> None:
    def make(n: int) -> Work:
        house = House(max_subscriptions=100_000)
        client = house.join()
        data = raw([subscribe(*(topic_filter(f"f/{k}") for k in range(n))), unsubscribe(*(f"f/{k}" for k in range(n)))])
        return lambda: client.feed(data)

    grows_linearly(make, 5000)


def test_many_clients_on_one_filter_that_all_leave() -> None:
    grows_linearly(lambda n: all_subscribe_and_leave(n, ["all"]), 1500)


def test_many_clients_with_many_shared_filters() -> None:
    """50 clients with n filters each, the same ones: each subscription costs no more than the shorter list."""
    grows_linearly(lambda n: all_subscribe_and_leave(50, [f"f/{k}" for k in range(n)]), 250)


def test_many_groups_on_one_filter() -> None:
    """$share/<n>/x, all in one packet."""

    def make(n: int) -> Work:
        return subscribes_twice_and_leaves([subscribe(*(topic_filter(f"$share/g{k}/x") for k in range(n)))])

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
