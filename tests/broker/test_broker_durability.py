"""What waits for the disk and what does not, what is refused while the disk fails, and what damaged records cost.

The rule (issue "Nothing acknowledged is lost"): what says that something is kept is sent when it is on the disk; what
need not be kept is not slowed down by it.
"""

from __future__ import annotations

import pytest

from tests.broker.disk import QUEUED, RETAINED, SESSION, DiskHouse
from tests.broker.house import (
    PINGREQ,
    PINGRESP,
    SECOND,
    Client,
    ack,
    disconnect,
    publish,
    subscribe,
    topic_filter,
    unsubscribe,
    will,
)

QUOTA = 0x97


def types(client: Client) -> list[str]:
    return [packet["type"] for packet in client.read()]


def settled(house: DiskHouse, *clients: Client) -> None:
    """Everything is on the disk, and everybody has read what there was."""
    house.commit()
    for client in clients:
        client.read()


def listener(house: DiskHouse, name: str = "k", pattern: str = "#", qos: int = 2) -> Client:
    """A client with a session that is kept, and a subscription."""
    client = house.keeper(name)
    client.send(subscribe(topic_filter(pattern, qos)))
    settled(house, client)
    return client


# --- what waits -----------------------------------------------------------------------------------------------------


def test_a_session_that_is_kept_is_promised_when_it_is_on_the_disk() -> None:
    house = DiskHouse()
    client = house.keeper()
    assert client.connack is None
    house.commit()
    assert types(client) == ["CONNACK"]


def test_a_session_that_ends_with_its_connection_waits_for_nothing() -> None:
    house = DiskHouse()
    client = house.join()
    assert client.connack is not None
    client.send(subscribe(topic_filter("#", 2)), publish("a", b"x", 1))
    assert types(client) == ["SUBACK", "PUBLISH", "PUBACK"]
    assert house.broker.journal() is None  # and costs nothing


def test_clean_start_waits_until_the_old_session_is_gone_from_the_disk() -> None:
    house = DiskHouse()
    settled(house, listener(house))
    client = house.join("k", clean=True)
    assert client.connack is None
    house.commit()
    assert types(client) == ["CONNACK"]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_for_a_session_that_is_kept_is_acknowledged_when_it_is_on_the_disk(qos: int) -> None:
    house = DiskHouse()
    listener(house)
    client = house.join("p")
    client.send(publish("a", b"x", qos, 7))
    assert types(client) == []
    house.commit()
    assert types(client) == [["PUBACK"], ["PUBREC"]][qos - 1]


@pytest.mark.parametrize("packet", [subscribe(topic_filter("a", 1)), unsubscribe("#")], ids=["SUBACK", "UNSUBACK"])
def test_subscriptions_are_acknowledged_when_they_are_on_the_disk(packet: dict[str, object]) -> None:
    house = DiskHouse()
    client = listener(house)
    client.send(packet)
    assert types(client) == []
    house.commit()
    assert types(client) == [{"SUBSCRIBE": "SUBACK", "UNSUBSCRIBE": "UNSUBACK"}[str(packet["type"])]]


def test_a_retained_message_is_acknowledged_when_it_is_on_the_disk() -> None:
    house = DiskHouse()
    client = house.join()
    client.send(publish("a", b"x", 1, retain=True))
    assert types(client) == []
    house.commit()
    assert types(client) == ["PUBACK"]


def test_each_step_of_qos_2_waits_for_its_own_commit() -> None:
    """A PUBREL before its commit would have the client hear the message twice; a PUBCOMP, lose one (MQTT-4.3.3)."""
    house = DiskHouse()
    subscriber, publisher = listener(house), house.keeper("p")
    settled(house, publisher)
    publisher.send(publish("a", b"x", 2, 7))
    assert types(publisher) == []
    assert types(subscriber) == []  # its identifier could go to another message in a crash
    house.commit()
    assert types(publisher) == ["PUBREC"]
    (message,) = subscriber.read()
    for client, number, says, hears in (
        (publisher, 7, "PUBREL", "PUBCOMP"),
        (subscriber, message["id"], "PUBREC", "PUBREL"),
    ):
        client.send(ack(says, number))
        assert types(client) == []
        house.commit()
        assert types(client) == [hears]


def test_qos_1_is_delivered_at_once() -> None:
    """Whoever hears it twice after a crash has been promised no better."""
    house = DiskHouse()
    subscriber, publisher = listener(house, qos=1), house.join("p")
    publisher.send(publish("a", b"x", 1))
    assert types(subscriber) == ["PUBLISH"]
    assert types(publisher) == []


def test_packets_keep_their_order_behind_what_waits() -> None:
    house = DiskHouse()
    listener(house, pattern="kept")
    client = house.join("p")
    client.send(publish("other", b"x", 1, 1), publish("kept", b"x", 1, 2), publish("other", b"x", 1, 3), PINGREQ)
    assert client.read() == [ack("PUBACK", 1, 0x10)]
    house.commit()
    assert client.read() == [ack("PUBACK", 2), ack("PUBACK", 3, 0x10), PINGRESP]


def test_each_batch_lets_go_what_waited_for_it() -> None:
    house = DiskHouse()
    listener(house)
    client = house.join("p")
    for number in (1, 2, 3, 4):
        client.send(publish("a", b"x", 1, number))
        house.take_batch()
    assert client.read() == []
    told: list[int] = []
    for committed in (1, 2, 3, 4):
        house.commit_one()
        told += [packet["id"] for packet in client.read()]
        assert told == sorted(told)
        assert 1 in told, "what waits for the first batch waits for no other"
        assert max(told) <= committed, "told before it was on the disk"
    assert told == [1, 2, 3, 4]


def test_what_waits_is_taken_back_when_the_connection_ends() -> None:
    """Nobody is told after the end, and a DISCONNECT does not wait for the disk."""
    house = DiskHouse()
    listener(house)
    client = house.join("p")
    client.send(publish("a", b"x", 1))
    house.handle(client.link.close(0x98, house.now))
    assert types(client) == ["DISCONNECT"]
    house.commit()
    assert types(client) == []
    early = house.keeper("early")
    house.handle(early.link.close(0x98, house.now))
    assert types(early) == []  # MQTT-3.2.0-1: nothing before the CONNACK


def test_without_waiting_nothing_waits_but_everything_is_recorded() -> None:
    house = DiskHouse(waits=False)
    client = house.keeper()
    assert client.connack is not None
    client.send(subscribe(topic_filter("#", 2)), publish("a", b"x", 1, retain=True))
    assert types(client) == ["SUBACK", "PUBLISH", "PUBACK"]
    house.commit()
    assert house.kinds()[RETAINED] == 1


def test_without_a_journal_there_is_nothing_to_write() -> None:
    house = DiskHouse()
    house.broker = type(house.broker)(seed=b"a fixed seed")
    house.broker.set_rules(0, [(True, 3, 0, "#")])
    client = house.keeper()
    client.send(publish("a", b"x", 1, retain=True))
    assert types(client) == ["PUBACK"]
    assert house.broker.journal() is None


# --- what it costs --------------------------------------------------------------------------------------------------


def test_a_payload_is_stored_once_however_many_sessions_wait_for_it() -> None:
    house = DiskHouse()
    clients = [listener(house, f"k{n}") for n in range(10)]
    for client in clients:
        client.lose()
    house.publish("a", b"x" * 10_000, qos=1)
    house.commit()
    assert house.kinds()[QUEUED] == 10
    assert 10_000 < sum(map(len, house.disk.values())) < 12_000


def test_what_is_delivered_between_two_commits_never_reaches_the_disk() -> None:
    house = DiskHouse()
    subscriber, publisher = listener(house, qos=1), house.join("p")
    before = dict(house.disk)
    publisher.send(publish("a", b"x" * 100, 1))
    (message,) = subscriber.read()
    subscriber.send(ack("PUBACK", message["id"]))
    house.commit()
    changed = {key for key in house.disk if house.disk[key] != before.get(key)}
    assert [key[0] for key in changed] == [3]  # how far the client has been sent its queue
    assert types(publisher) == ["PUBACK"]


def test_the_gateways_numbers_are_not_kept() -> None:
    house = DiskHouse()
    house.publish("$SYS/broker/uptime", b"1 seconds", retain=True)
    house.publish("$other", b"x", retain=True)
    house.commit()
    assert house.kinds()[RETAINED] == 1


# --- after a crash --------------------------------------------------------------------------------------------------


def test_what_was_not_committed_was_not_promised() -> None:
    house = DiskHouse()
    house.keeper("forgotten")
    house.crash()
    house.prompt = True
    again = house.keeper("forgotten")
    assert again.connack is not None
    assert not again.connack["session_present"]


def test_time_passes_while_the_gateway_is_down() -> None:
    """5.0 §3.1.2.11.2, MQTT-3.3.2-5, -6."""
    house = DiskHouse(prompt=True)
    for name, expiry in (("short", 10), ("long", 1000)):
        client = house.join(name, props=[["session_expiry_interval", expiry]])
        client.send(subscribe(topic_filter("#", 1)))
        client.lose()
    publisher = house.join("p")
    for lifetime in (10, 1000):
        publisher.send(publish("a", b"%d" % lifetime, 1, props=[["message_expiry_interval", lifetime]]))
    house.crash(100)
    assert house.stat("sessions") == 1
    client = house.keeper("long")
    (message,) = client.read()
    assert message["payload"] == b"1000"
    assert dict(message["properties"])["message_expiry_interval"] == 900


def test_a_delayed_will_comes_when_it_is_due_and_not_before() -> None:
    """5.0 §3.1.3.2.2: the delay began when the connection was lost, before the crash."""
    house = DiskHouse(prompt=True)
    left = will("w", b"gone", qos=1, retain=True, will_delay_interval=60)
    client = house.join("k", props=[["session_expiry_interval", 3600]], will=left)
    client.lose()
    house.crash(20)
    house.wait(39)
    assert house.broker.retained("w") is None
    house.wait(1)
    assert house.broker.retained("w") == b"gone"
    house.crash(20)
    house.broker.publish("w", b"", retain=True, now=house.now)
    house.wait(3600)
    assert house.broker.retained("w") is None  # it came once


def test_the_crash_is_the_end_of_a_connection_and_publishes_its_will() -> None:
    """Also of a session that is not kept: its will is (5.0 §3.1.2.5)."""
    house = DiskHouse(prompt=True)
    watcher = listener(house, "watcher")
    for name, expiry in (("a", 0), ("b", 3600)):
        house.join(name, props=[["session_expiry_interval", expiry]], will=will(f"w/{name}", b"gone", qos=1))
    said_goodbye = house.join("c", will=will("w/c", b"gone", qos=1))
    said_goodbye.send(disconnect())
    watcher.read()
    house.crash()
    assert house.keeper("watcher").payloads() == [b"gone", b"gone"]
    assert house.kinds()[SESSION] == 2  # the watcher's and b's


def test_shared_subscriptions_hand_over_after_a_crash_as_before_it() -> None:
    """5.0 §4.8.2: what one session of the group has not acknowledged goes to another when it ends."""
    house = DiskHouse(prompt=True)
    for name, expiry in (("a", 10), ("b", 1000)):
        client = house.join(name, props=[["session_expiry_interval", expiry]])
        client.send(subscribe(topic_filter("$share/g/x", 1)))
        client.lose()
    house.publish("x", b"1", qos=1)
    house.publish("x", b"2", qos=1)
    house.crash(5)
    house.wait(10)
    assert house.stat("sessions") == 1
    assert sorted(house.keeper("b").payloads()) == [b"1", b"2"]


def test_rules_that_have_changed_meanwhile_count() -> None:
    house = DiskHouse(prompt=True)
    listener(house, "k", "a").lose()
    house.crash(rules=False)  # none at all: nothing is allowed
    assert house.stat("subscriptions") == 0


def test_packet_identifiers_go_on_where_they_were() -> None:
    """MQTT-4.4.0-1: the original identifiers, also where others between them are done."""
    house = DiskHouse(prompt=True)
    client = listener(house, qos=2)
    for _ in range(5):
        house.publish("a", qos=2)
    numbers = [packet["id"] for packet in client.read()]
    client.send(*(ack("PUBREC", numbers[n]) for n in (0, 2)), ack("PUBCOMP", numbers[2]))
    house.crash()
    client = house.keeper("k")
    again = [(packet["type"], packet["id"]) for packet in client.read()]
    kinds = {0: "PUBREL", 1: "PUBLISH", 3: "PUBLISH", 4: "PUBLISH"}
    assert again == [(kind, numbers[n]) for n, kind in kinds.items()]
    house.publish("a", qos=2)
    assert client.only()["id"] == numbers[4] + 1


# --- damage ---------------------------------------------------------------------------------------------------------


def test_a_damaged_record_costs_itself_and_nothing_else() -> None:
    """Each record in turn: cut short, changed in each byte, missing. The rest of the house stands."""
    house = DiskHouse(prompt=True)
    left = will("w", b"gone", qos=1, will_delay_interval=60)
    client = house.join("k", props=[["session_expiry_interval", 3600]], will=left)
    client.send(subscribe(topic_filter("#", 2), topic_filter("$share/g/x", 1)), publish("x", b"1", 2, 9))
    client.lose()
    for n in range(3):
        house.publish("x", b"%d" % n, qos=2)
    house.publish("r", b"kept", retain=True)
    healthy = dict(house.disk)
    for key, value in healthy.items():
        damaged = [value[:at] + bytes([value[at] ^ 0xFF]) + value[at + 1 :] for at in range(len(value))]
        damaged += [value[:at] for at in range(len(value))]
        for wrong in damaged:
            house.disk = healthy | {key: wrong}
            assert house.crash() >= 1, (key, wrong)
            if key[0] != RETAINED:
                assert house.broker.retained("r") == b"kept"
            if key[0] != SESSION:
                assert house.stat("sessions") == 1
            house.keeper("k").lose()
        for other in (key[:-1], key + b"\0", b"\xff" + key[1:], b""):
            house.disk = {k: v for k, v in healthy.items() if k != key} | {other: value}
            assert house.crash() >= 1, (key, other)


def test_a_session_that_was_lost_does_not_leave_its_queue_to_another() -> None:
    house = DiskHouse(prompt=True)
    listener(house, "old").lose()
    house.publish("a", b"for the old one", qos=1)
    (key,) = (key for key in house.disk if key[0] == SESSION)
    del house.disk[key]
    assert house.crash() == 2  # a subscription and what was queued
    house.keeper("new").lose()
    assert house.crash() == 2
    assert house.keeper("new").payloads() == []


# --- a disk that fails ----------------------------------------------------------------------------------------------


def failing(house: DiskHouse) -> None:
    house.handle(house.broker.failing(True, house.now))


def recovered(house: DiskHouse) -> None:
    house.handle(house.broker.failing(False, house.now))
    house.commit()


def test_while_the_disk_fails_what_cannot_be_kept_is_refused_and_the_rest_is_served() -> None:
    house = DiskHouse()
    kept, publisher, other = listener(house, pattern="kept"), house.join("p"), house.join("o")
    other.send(subscribe(topic_filter("#", 2)))
    settled(house, publisher, other)
    failing(house)
    publisher.send(publish("kept", b"1", 1, 1), publish("kept", b"2", 2, 2), publish("r", b"3", 1, 3, retain=True))
    assert publisher.read() == [ack("PUBACK", 1, QUOTA), ack("PUBREC", 2, QUOTA), ack("PUBACK", 3, QUOTA)]
    assert other.read() == []  # refused is refused: nobody has it
    assert house.broker.retained("r") is None
    assert house.stat("dropped_unkept") == 3
    publisher.send(publish("free", b"4", 1, 1), publish("free", b"5", 2, 2), publish("kept", b"6", 0))
    assert types(publisher) == ["PUBACK", "PUBREC"]
    assert [packet["payload"] for packet in other.read()] == [b"4", b"5", b"6"]
    assert [packet["payload"] for packet in kept.read()] == [b"6"]
    recovered(house)
    publisher.send(publish("kept", b"7", 1, 1))
    house.commit()
    assert publisher.only() == ack("PUBACK", 1)
    assert [packet["payload"] for packet in kept.read()] == [b"7"]


def test_a_client_before_5_0_loses_its_connection_and_is_not_told_that_anything_is_kept() -> None:
    """3.1.1 MQTT-3.3.5-2 leaves nothing else."""
    house = DiskHouse()
    listener(house)
    failing(house)
    for packet in (publish("a", b"x", 1), publish("a", b"x", 2)):
        client = house.join("p", 4)
        client.send(packet)
        assert types(client) == []
        assert client.closed == QUOTA


def test_who_waits_when_the_disk_begins_to_fail_is_told_by_the_end_of_the_connection() -> None:
    house = DiskHouse()
    kept, publisher = listener(house), house.join("p")
    publisher.send(publish("a", b"x", 1))
    house.take_batch()
    failing(house)
    (farewell,) = publisher.read()
    assert (farewell["type"], farewell["reason"]) == ("DISCONNECT", QUOTA)
    assert kept.closed is None
    recovered(house)


def test_sessions_while_the_disk_fails() -> None:
    """Those on the disk are gone on with. New ones that are to be kept, and clean starts, are refused."""
    house = DiskHouse()
    listener(house, "old").lose()
    house.commit()
    failing(house)
    for name, clean, reason in (("old", False, 0), ("new", False, QUOTA), ("old", True, QUOTA)):
        client = house.keeper(name, clean=clean)
        assert client.connack is not None
        assert client.connack["reason"] == reason
        assert client.connack["session_present"] is (reason == 0)
        client.lose()
    assert house.join("fleeting").connack is not None
    refused = house.keeper("new", 4)
    assert refused.connack is not None
    assert refused.connack["reason"] == 3


def test_subscriptions_while_the_disk_fails() -> None:
    house = DiskHouse()
    client, before = listener(house), house.keeper("b", 4)
    settled(house, before)
    failing(house)
    client.send(subscribe(topic_filter("a", 1)), unsubscribe("#"))
    assert [packet["reasons"] for packet in client.read()] == [[QUOTA], [0x80]]
    before.send(subscribe(topic_filter("a", 1)))
    assert before.only()["reasons"] == [0x80]
    before.send(unsubscribe("a"))
    assert before.closed == QUOTA
    house.publish("still/there")
    assert client.payloads() == [b"x"]


def test_qos_2_on_its_way_while_the_disk_fails() -> None:
    """It can go neither on nor back: the connection ends, and what was begun is gone on with afterwards, once."""
    house = DiskHouse()
    subscriber, publisher = listener(house), house.keeper("p")
    settled(house, publisher)
    publisher.send(publish("a", b"x", 2, 7))
    house.commit()
    (message,) = subscriber.read()
    failing(house)
    publisher.send(publish("a", b"x", 2, 7, dup=True))
    assert publisher.closed == QUOTA
    subscriber.send(ack("PUBREC", message["id"]))
    assert subscriber.closed == QUOTA
    publisher = house.keeper("p")
    publisher.send(ack("PUBREL", 7))
    assert publisher.closed == QUOTA
    recovered(house)
    publisher = house.keeper("p")
    house.commit()
    publisher.read()
    publisher.send(publish("a", b"x", 2, 7, dup=True), ack("PUBREL", 7))
    house.commit()
    assert types(publisher) == ["PUBREC", "PUBCOMP"]
    subscriber = house.keeper("k")
    house.commit()
    _, again = subscriber.read()
    assert (again["type"], again["id"], again["dup"]) == ("PUBLISH", message["id"], True)


def test_what_waits_in_a_queue_is_delivered_while_the_disk_fails() -> None:
    house = DiskHouse()
    listener(house).lose()
    for qos in (1, 2):
        house.publish("a", b"%d" % qos, qos=qos)
    house.commit()
    failing(house)
    assert house.keeper("k").payloads() == [b"1", b"2"]


def test_a_will_that_cannot_be_kept_is_published_all_the_same() -> None:
    house = DiskHouse()
    kept, client = listener(house, qos=1), house.join("p", will=will("w", b"gone", qos=1))
    settled(house, client)
    failing(house)
    client.lose()
    assert kept.payloads() == [b"gone"]


def test_a_long_failure_does_not_fill_the_memory() -> None:
    """Sessions come and go a thousand times; what waits for the disk is their last state."""
    house = DiskHouse()
    settled(house, listener(house))
    failing(house)
    for _ in range(1000):
        house.now += SECOND
        house.keeper("k").lose()
    house.handle(house.broker.failing(False, house.now))
    batch = house.broker.journal()
    assert batch is not None
    assert len(batch[1]) < 2_000
