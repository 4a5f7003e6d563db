"""How work grows: at one size and at four times that size. Linear work takes 4 times the time, quadratic work 16 times.

The rule it keeps: growth is measured, not speed; time is that of the thread's CPU, the best of several runs.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from tests.broker.house import House, subscribe, topic_filter
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


# --- work that several tests measure ---------------------------------------------------------------------------------


def subscribes_twice_and_leaves(subscribes: list[codec.Packet]) -> Work:
    """Subscriptions of one client: made, made again, and dropped with the session."""
    client = House(max_subscriptions=100_000).join()
    data = raw(subscribes)

    def work() -> None:
        client.feed(data)
        client.take()
        client.feed(data)
        client.lose()

    return work


def all_subscribe_and_leave(clients: int, filters: list[str]) -> Work:
    """Each to all the filters; who came first leaves first, which is the order that a list likes least."""
    house = House()
    joined = [house.join(f"c{k}") for k in range(clients)]
    data = raw([subscribe(topic_filter(text)) for text in filters])

    def work() -> None:
        for client in joined:
            client.link.feed(data, house.now)
        for client in joined:
            client.link.lost(house.now)

    return work
