"""Counting connections, addresses and identities: every limit at it and one beyond, and every place given back once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peanutd.access import Accept, Refuse, Slot
from peanutd.census import CONTEST, CONTEST_WINDOW, CONTESTS_MAX, Census, Limits


def operator(name: str, client_id: str) -> Accept:
    return Accept(f"operator/{name}/{client_id}", name, Slot.OPERATOR, owner=f"operator/{name}")


NODE = Accept("plant/peanut", "peanut", Slot.PLANT)


def test_connections_in_all() -> None:
    census = Census(Limits(connections=2))
    assert census.room(1) is None
    assert census.room(2) == "there are 2 already"


def test_connections_of_an_address() -> None:
    census = Census(Limits(per_address=2))
    assert [census.arrive("192.0.2.1") for _ in range(3)] == [None, None, "there are 2 from 192.0.2.1 already"]
    assert census.arrive("192.0.2.2") is None
    census.depart("192.0.2.1")
    assert census.arrive("192.0.2.1") is None


def test_an_ipv6_network_is_one_address_and_mapped_ones_are_ipv4() -> None:
    census = Census(Limits(per_address=1))
    assert census.arrive("2001:db8::1") is None
    assert census.arrive("2001:db8::ffff:0:0:2") == "there are 1 from 2001:db8::/64 already"
    assert census.arrive("2001:db8:0:1::1") is None
    assert census.arrive("::ffff:192.0.2.1") is None
    assert census.arrive("::ffff:192.0.2.2") is None
    assert census.arrive("192.0.2.1") is not None
    assert census.arrive("unix") is None
    assert census.arrive("unix") is not None


def test_clients_of_an_identity() -> None:
    census = Census(Limits(per_identity=2))
    first, second, third = (object() for _ in range(3))
    census.enter(first, operator("anna", "1"))
    assert census.judge(operator("anna", "2")) == operator("anna", "2")
    census.enter(second, operator("anna", "2"))
    refusal = census.judge(operator("anna", "3"))
    assert isinstance(refusal, Refuse)
    assert refusal.reason == 0x97
    assert census.judge(operator("ben", "3")) == operator("ben", "3")
    assert census.judge(NODE) is NODE
    assert census.judge(operator("anna", "2")) == operator("anna", "2"), "comes back to its own session"
    census.enter(third, operator("anna", "2"))
    assert census.online == 2
    assert not census.leave(second, operator("anna", "2")), "taken over: it is not offline"
    assert isinstance(census.judge(operator("anna", "3")), Refuse)
    assert census.leave(third, operator("anna", "2"))
    assert not census.leave(third, operator("anna", "2")), "once"
    assert census.judge(operator("anna", "3")) == operator("anna", "3")


def test_zero_is_no_limit() -> None:
    census = Census(Limits(per_address=0, per_identity=0))
    for number in range(200):
        assert census.arrive("192.0.2.1") is None
        census.enter(object(), operator("anna", str(number)))
    assert isinstance(census.judge(operator("anna", "more")), Accept)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 2)), max_size=60))
def test_whatever_happens_nothing_is_left_when_all_have_gone(steps: list[tuple[int, int, int]]) -> None:
    """Comings, takeovers and goings in any order, against a plain dictionary of who has which session."""
    census, sessions, here = Census(Limits(per_identity=2)), {}, {}
    for number, name, client_id in steps:
        verdict = operator(str(name), str(client_id))
        if number in here:
            census.leave(number, here.pop(number))
            sessions = {session: who for session, who in sessions.items() if who != number}
        elif isinstance(census.judge(verdict), Accept):
            census.enter(number, verdict)
            here[number] = verdict
            sessions[verdict.session] = number
        assert census.online == len(sessions)
        for owner in {session.rpartition("/")[0] for session in sessions}:
            assert sum(session.startswith(f"{owner}/") for session in sessions) <= 2
    for number, verdict in here.items():
        census.leave(number, verdict)
    assert census.online == 0
    assert not census._owners


def test_the_news_that_one_who_rested_is_gone_comes_after_the_next_one_is_in() -> None:
    """It has said goodbye to the core, and Python reads of that when the next one has its session already."""
    census, verdict = Census(Limits(per_identity=1)), operator("anna", "phone")
    for _ in range(3):
        first, second = object(), object()
        census.enter(first, verdict)
        assert census.rest(first, verdict)
        assert isinstance(census.judge(operator("anna", "pc")), Refuse), "it is counted while it rests"
        assert census.judge(verdict) == verdict, "comes back to its own session"
        census.enter(second, verdict)
        census.wake(first, verdict)
        assert not census.leave(first, verdict), "taken over: it is not offline"
        assert not census.rest(first, verdict)
        assert census.holder(verdict.session) is second
        assert census.online == 1
        assert census.leave(second, verdict)
    assert not census._owners
    assert isinstance(census.judge(operator("anna", "pc")), Accept)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 2)), max_size=60))
def test_whoever_rests_and_wakes_nothing_is_left_when_all_have_gone(steps: list[tuple[int, int, int]]) -> None:
    """The news of those who rest comes whenever it likes."""
    census, here, resting = Census(Limits(per_identity=2)), dict[int, Accept](), set[int]()

    def wake(number: int) -> None:
        if number in resting:
            resting.remove(number)
            census.wake(number, here[number])

    for number, client_id, act in steps:
        verdict = operator("anna", str(client_id))
        if number not in here:
            census.enter(number, verdict)
            here[number] = verdict
        elif act == 0:
            wake(number)
            census.leave(number, here.pop(number))
        elif number in resting:
            wake(number)
        elif census.rest(number, here[number]):
            resting.add(number)
        assert census._owners["operator/anna"] <= 2
    for number, verdict in here.items():
        wake(number)
        census.leave(number, verdict)
    assert census.online == 0
    assert not +census._owners
    assert not census._asleep


def test_who_takes_over_again_and_again_is_noticed_once_a_window() -> None:
    census = Census()
    assert [census.contested("plant/a", float(second)) for second in range(CONTEST + 1)] == [False, False, True, False]
    assert not census.contested("plant/b", 1.0)
    later = CONTEST_WINDOW
    assert [census.contested("plant/a", later + second) for second in range(CONTEST)] == [False, False, True]
    for number in range(CONTESTS_MAX):
        census.contested(f"plant/{number}", later)
    assert len(census._contests) == CONTESTS_MAX
    assert not census.contested("plant/a", later), "the oldest gave way"
