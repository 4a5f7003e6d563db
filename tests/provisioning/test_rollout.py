"""Roll-outs: stages, when they stop, what is said twice, late or never; a thousand nodes; what is kept."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peanut import rollout
from peanut.errors import PeanutError
from peanut.rollout import BAD, UNDER_WAY, Rollout, State, Step

SEQ = 100


def made(count: int, stages: str = "1,10%,100%", above: str = "2%") -> Rollout:
    """A roll-out to nodes that are all there."""
    names = [f"n{i}" for i in range(count)]
    plan = rollout.begin(
        "file", SEQ, "1", "greenhouse", False, names, rollout.stages(stages), rollout.percentage(above)
    )
    for name in names:
        plan.presence(name, True, 0)
    return plan


def say(plan: Rollout, name: str, stage: str, now: float = 0, **more: object) -> None:
    """A node's word: on this update, unless `offer` says another."""
    body = {"stage": stage, "seq": SEQ if stage == "running" else 1}
    plan.report(name, body | ({} if stage == "running" else {"offer": SEQ}) | more, now)


def keep(plan: Rollout, names: list[str]) -> None:
    """They receive it, try it, and keep it."""
    for name in names:
        for stage in ("receiving", "ready", "restarting", "trial", "running"):
            say(plan, name, stage)


def test_a_stage_begins_when_the_one_before_has_kept_it() -> None:
    plan = made(50)
    waiting = plan.due(0)
    stages = []
    while waiting:
        assert plan.due(0) == []  # nobody is offered it twice at once, and no more than PARALLEL receive
        assert len(waiting) <= rollout.PARALLEL
        assert len(plan.taken) <= plan.target(plan.stage)
        stages.append(plan.stage)
        keep(plan, waiting[:1])
        plan.judge(0)
        waiting = waiting[1:] + plan.due(0)
    assert stages[:6] == [0, 1, 1, 1, 1, 2]
    assert plan.state == State.DONE
    assert len(plan.taken) == 50


def test_it_stops_at_the_first_node_that_returns() -> None:
    plan = made(50)
    [first] = plan.due(0)
    say(plan, first, "receiving")
    say(plan, first, "restarting")
    say(plan, first, "returned", why="no session with the gateway")
    plan.judge(0)
    assert plan.state == State.STOPPED
    assert plan.why == f"1 of 1 did not keep it; {first}: returned, no session with the gateway"
    assert plan.due(0) == []
    assert plan.count(Step.WAITING) == 49


@pytest.mark.parametrize("stage", ["returned", "failed", "refused"])
def test_a_share_below_the_limit_does_not_stop_it(stage: str) -> None:
    plan = made(100, "50%,100%", "4%")
    taken: list[str] = []
    while len(taken) < 50:
        due = plan.due(0)
        taken += due
        keep(plan, [name for name in due if name not in taken[:3]])
    for name in taken[:2]:
        say(plan, name, stage, why="x")
    keep(plan, taken[2:3])
    plan.judge(0)
    assert plan.state == State.RUNNING
    assert plan.stage == 1  # two bad ones do not hold the stage up
    due = plan.due(0)
    for name in due[:4]:
        say(plan, name, stage, why="x")
    plan.judge(0)
    assert plan.state == State.STOPPED


def test_nodes_that_are_away_join_when_they_return() -> None:
    plan = made(3, "100%")
    plan.presence("n2", False, 0)
    keep(plan, plan.due(0))
    plan.judge(0)
    assert plan.state == State.RUNNING
    assert plan.idle()
    assert plan.due(50) == []
    plan.presence("n2", True, 60)
    assert plan.due(60) == ["n2"]
    keep(plan, ["n2"])
    plan.judge(60)
    assert plan.state == State.DONE


def test_who_comes_back_in_the_middle_is_offered_it_again() -> None:
    plan = made(1)
    assert plan.due(0) == ["n0"]
    say(plan, "n0", "receiving", at=4096, of=8192)
    assert plan.nodes["n0"].share == 0.5
    plan.presence("n0", False, 1)
    assert plan.due(2) == []
    plan.presence("n0", True, 3)
    assert plan.due(3) == ["n0"]
    assert plan.due(3 + rollout.OFFER_S - 1) == []
    assert plan.due(3 + rollout.OFFER_S + 1) == ["n0"]  # silent, and online: the offer was lost
    say(plan, "n0", "trial")
    plan.presence("n0", True, 90)
    assert plan.due(200) == []  # what is tried is not offered again


def test_a_node_that_was_written_anew_begins_anew() -> None:
    plan = made(1)
    plan.due(0)
    say(plan, "n0", "restarting")
    plan.report("n0", {"stage": "running", "seq": 0}, 5)
    assert plan.due(6) == ["n0"]


def test_silence_ends_in_lost() -> None:
    plan = made(1)
    plan.due(0)
    say(plan, "n0", "trial")
    plan.presence("n0", False, 10)
    plan.judge(10 + rollout.PATIENCE_S - 1)
    assert plan.state == State.RUNNING
    plan.judge(10 + rollout.PATIENCE_S + 1)
    assert (plan.state, plan.nodes["n0"].step) == (State.STOPPED, Step.LOST)


def test_busy_is_no_refusal_and_newer_is_good() -> None:
    plan = made(2, "100%")
    plan.due(0)
    say(plan, "n0", "refused", why="busy: too many offers")
    plan.judge(0)
    assert plan.state == State.RUNNING
    plan.report("n1", {"stage": "running", "seq": SEQ + 5}, 0)
    assert (plan.nodes["n1"].step, plan.nodes["n1"].why) == (Step.GOOD, f"has a newer one ({SEQ + 5})")


def test_withdrawn_nodes_are_no_fault_of_the_update() -> None:
    plan = made(1)
    plan.due(0)
    say(plan, "n0", "receiving")
    say(plan, "n0", "failed", why="withdrawn")
    plan.judge(0)
    assert plan.state == State.RUNNING  # somebody else took it back: it is offered again
    assert plan.nodes["n0"].step == Step.WAITING


def test_an_image_is_known_by_its_own_number() -> None:
    plan = made(1)
    plan.image = True
    plan.due(0)
    plan.report("n0", {"stage": "running", "seq": SEQ, "image": [SEQ - 1, "1.28"]}, 0)
    assert plan.nodes["n0"].step == Step.WAITING
    plan.report("n0", {"stage": "running", "seq": 1, "image": [SEQ, "1.29"]}, 0)
    assert plan.nodes["n0"].step == Step.GOOD


JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 200), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)
STAGE = st.sampled_from(["running", "receiving", "ready", "restarting", "trial", "returned", "failed", "refused", "x"])
WORD = st.tuples(
    st.sampled_from(["n0", "n1", "n2", "stranger"]),
    st.one_of(
        st.booleans(),
        st.fixed_dictionaries(
            {"stage": st.one_of(STAGE, JUNK)},
            optional=dict.fromkeys(("why", "at", "of", "seq", "image"), JUNK)
            | {"offer": st.one_of(st.just(SEQ), JUNK)},
        ),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(WORD, max_size=30))
def test_whatever_nodes_say_nobody_is_counted_good_but_on_his_word(words: list[tuple[str, object]]) -> None:
    plan = made(3, "1,100%", "0%")
    heard: set[str] = set()
    for now, (name, body) in enumerate(words):
        if isinstance(body, dict):
            plan.report(name, body, now)
            if body.get("stage") != "trial" and any(isinstance(body.get(k), int) and body[k] >= SEQ for k in ("seq",)):
                heard.add(name)
        else:
            plan.presence(name, bool(body), now)
        plan.judge(now)
        due = plan.due(now)
        assert set(due) <= {n for n in plan.nodes if plan.nodes[n].online}
        assert plan.state == State.RUNNING or not due
        assert {n for n in plan.nodes if plan.nodes[n].step == Step.GOOD} <= heard
        assert plan.count(*BAD) == 0 or plan.state in (State.STOPPED, State.DONE)
        assert plan.count(*UNDER_WAY) <= len(plan.taken)
    again = rollout.parse(plan.render(), "rollout.json")
    assert again.render() == plan.render()


def test_a_thousand_nodes_are_quick() -> None:
    """Every word of 1,000 nodes, each followed by a look at all of them and, now and then, by a file: CPU seconds."""
    plan = made(1000, "1,1%,10%,100%")
    begun = time.process_time()
    turns = 0
    while plan.state == State.RUNNING and turns < 1000:
        turns += 1
        plan.judge(turns)
        due = plan.due(turns)
        keep(plan, due)
        plan.render()
    assert plan.state == State.DONE
    assert len(plan.taken) == 1000
    assert time.process_time() - begun < 15  # a second or two


def test_stages_and_shares_are_read_strictly() -> None:
    assert rollout.stages("1, 5%,50%") == ("1", "5%", "50%", "100%")
    for text in ("", "0", "1,", "x", "101%", "0%", "-1", "1%%"):
        with pytest.raises(PeanutError, match="stage"):
            rollout.stages(text)
    assert (rollout.percentage("2%"), rollout.percentage("0.5")) == (0.02, 0.005)
    for text in ("", "x", "101", "-1%"):
        with pytest.raises(PeanutError, match="percentage"):
            rollout.percentage(text)
    plan = made(1000, "1,1%,10%")
    assert [plan.target(i) for i in range(4)] == [1, 10, 100, 1000]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format":2}', '{"format":1,"nodes":{"a":["x",""]}}'])
def test_a_damaged_state_is_said(text: str) -> None:
    with pytest.raises(PeanutError):
        rollout.parse(text.encode(), "rollout.json")


def test_nobody_to_update() -> None:
    with pytest.raises(PeanutError, match="no node"):
        made(0)


def test_what_is_kept_is_small() -> None:
    assert len(made(1000).render()) < 100_000
    assert json.loads(made(2).render())["nodes"]["n0"] == ["waiting", ""]
