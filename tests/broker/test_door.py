"""The door: budgets, and whose turn it is. Real time stands still here: the loop's clock is set by the test."""

from __future__ import annotations

from typing import Any

from peanutd.door import BURST, STEPS_PER_TURN, Budget, Handshakes


class Clock:
    """A loop whose time is set, and whose calls are made when they are due."""

    def __init__(self) -> None:
        self.now = 100.0
        self.calls: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_soon(self, what: Any) -> None:
        self.calls.append((self.now, what))

    def call_later(self, delay: float, what: Any) -> None:
        self.calls.append((self.now + delay, what))

    def run(self, seconds: float) -> None:
        """Lets time pass."""
        end = self.now + seconds
        while due := [call for call in self.calls if call[0] <= end]:
            call = min(due, key=lambda entry: entry[0])
            self.calls.remove(call)
            self.now = max(self.now, call[0])
            call[1]()
        self.now = end


class Peer:
    def __init__(self, name: str, done: list[str]) -> None:
        self.name, self.done, self.gone = name, done, False

    def step(self) -> None:
        if not self.gone:
            self.done.append(self.name)


def handshakes(clock: Clock, rate: float) -> Handshakes:
    loop: Any = clock
    assert isinstance(loop.time(), float)
    return Handshakes(loop, rate)


def test_a_budget_is_so_much_a_second_and_not_more_at_once() -> None:
    budget = Budget(100, 0.0)
    spent = 0
    while budget.has(0.0):
        budget.spend()
        spent += 1
    assert spent == 100 * BURST
    assert budget.wait() == 0.01
    for millisecond in range(1, 10_001):
        while budget.has(millisecond / 1000):
            budget.spend()
            spent += 1
    assert 1000 <= spent - 100 * BURST <= 1001
    assert budget.has(1e6)
    for _ in range(int(100 * BURST)):
        budget.spend()
    assert not budget.has(1e6)


def test_a_budget_of_one_and_one_without_a_limit() -> None:
    one = Budget(1, 0.0)
    assert one.has(0.0)
    one.spend()
    assert not one.has(0.9)
    assert one.has(1.0)
    none = Budget(0, 0.0)
    none.spend(1e9)
    assert none.has(0.0)
    assert none.wait() == 0.0


def test_what_was_spent_without_a_limit_is_not_owed_when_there_is_one() -> None:
    budget = Budget(0, 0.0)
    for _ in range(1000):
        assert budget.has(0.0)
        budget.spend()
    budget.rate = 10
    assert budget.has(0.0)
    assert budget.wait() == 0.0


def test_handshakes_begin_as_the_budget_allows() -> None:
    clock, done = Clock(), list[str]()
    queue = handshakes(clock, 20)
    for number in range(100):
        queue.begin(Peer(str(number), done), "10.0.0.1")
    clock.run(0)
    assert len(done) == 20 * BURST
    clock.run(1.0)
    assert 24 <= len(done) <= 26
    assert queue.waiting == 100 - len(done)
    clock.run(10.0)
    assert done == [str(number) for number in range(100)]
    assert not clock.calls, "nothing is left to be done"


def test_at_once_is_for_when_there_is_room_and_nobody_waits() -> None:
    clock, done = Clock(), list[str]()
    queue = handshakes(clock, 10)
    assert [queue.at_once() for _ in range(4)] == [True, True, False, False], "a burst: a quarter of a second"
    queue.begin(Peer("a", done), "x")
    clock.run(0.04)
    assert not done, "those that began at once have spent what there was"
    clock.run(0.06)
    assert done == ["a"]
    clock.run(0.1)
    assert queue.at_once()
    queue.begin(Peer("b", done), "x")
    assert not queue.at_once(), "who waits comes first"
    unpaced = handshakes(clock, 0)
    assert all(unpaced.at_once() for _ in range(1000))


def test_nobody_saves_up_handshakes_in_silence() -> None:
    """Those that may begin at once and have not are those of one second, however long they say nothing."""
    clock = Clock()
    queue = handshakes(clock, 10)
    allowed = 0
    for _ in range(300):  # thirty seconds of sockets that say nothing
        allowed += queue.at_once()
        clock.run(0.1)
    assert allowed == 10
    queue.kept()
    assert queue.at_once()
    assert not queue.at_once()


def test_what_has_begun_goes_on_whatever_the_budget_says() -> None:
    clock, done = Clock(), list[str]()
    queue = handshakes(clock, 1)
    for number in range(5):
        queue.begin(Peer(f"new {number}", done), "10.0.0.1")
    for number in range(STEPS_PER_TURN + 1):
        queue.add(Peer(str(number), done))
    clock.run(0)
    assert done == [*map(str, range(STEPS_PER_TURN)), "new 0", str(STEPS_PER_TURN)]


def test_who_sends_many_waits_for_itself() -> None:
    clock, done = Clock(), list[str]()
    queue = handshakes(clock, 10)
    for number in range(1000):
        queue.begin(Peer(f"storm {number}", done), "10.0.0.1")
    for number in range(3):
        queue.begin(Peer(f"node {number}", done), f"10.0.0.{number + 2}")
    clock.run(0.4)
    assert {"node 0", "node 1", "node 2"} <= set(done)


def test_who_has_gone_costs_nothing() -> None:
    clock, done = Clock(), list[str]()
    queue = handshakes(clock, 1)
    dead = [Peer("dead", done) for _ in range(1000)]
    for peer in dead:
        queue.begin(peer, "10.0.0.1")
        peer.gone = True
    queue.begin(Peer("alive", done), "10.0.0.1")
    clock.run(1.0)
    assert done == ["alive"]


def test_a_step_that_fails_stops_nobody() -> None:
    clock, done = Clock(), list[str]()
    queue = handshakes(clock, 0)

    class Broken(Peer):
        def step(self) -> None:
            raise RuntimeError

    queue.begin(Broken("broken", done), "a")
    queue.begin(Peer("next", done), "b")
    for _ in range(2):
        try:
            clock.run(0)
        except RuntimeError:
            done.append("broken")
    assert done == ["broken", "next"]
