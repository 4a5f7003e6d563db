"""The journal against the model of test_broker_model: the same random programs, with crashes in between.

After a crash a new broker is given what the journal has put on the disk, and has to go on as the model says: queues in
their order with their identifiers, subscriptions, retained messages, what is half way through QoS 2, wills that are due
later, and time that has passed meanwhile (MQTT-3.1.2-4, -5; 3.1.3.2.2; 3.3.2-5; 4.1.0-1; 4.4.0-1).
"""

from __future__ import annotations

from collections import Counter
from typing import cast

import pytest

from tests.broker.disk import MESSAGE, QUEUED, RETAINED, SENT, SESSION, SUBSCRIPTION, DiskHouse
from tests.broker.test_broker_model import Model, Program
from tests.effort import tries

SEEDS = tries(160)


class CrashProgram(Program):
    """A random program that crashes now and then, always after everything was committed."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.disk = DiskHouse(waits=seed % 2 == 0, prompt=True)
        self.house = self.disk
        self.crashes = 0

    def compare(self) -> None:
        self.disk.commit()
        super().compare()
        if self.random.random() < 0.08:
            self.crash()

    def crash(self) -> None:
        down = self.random.choice([0, 0, 1, 6])
        self.log.append(f"crash {down}")
        self.crashes += 1
        self.clients.clear()
        assert self.disk.crash(down) == 0, self.story("records that mean nothing")
        self.tell(lambda model: crash(model, down))
        self.disk.commit()
        kinds = self.disk.kinds()
        assert any(is_kept(model, kinds) for model in self.worlds), self.story(kinds)
        assert self.house.stat("sessions") == len(self.model.sessions), self.story()


def crash(model: Model, down: int) -> None:
    """What must have become of everything when the gateway is back after `down` seconds."""
    model.now += down
    for session in model.sessions.values():
        model.expected[session.name] = []
        if session.online:
            session.online = False
            session.ends_at = model.now + session.expiry
            session.will_at = min(model.now + session.will_delay, session.ends_at)
            for entry in session.entries:  # any of them may have been sent: nobody knows any more
                entry.state = "published" if entry.state == "waiting" else entry.state
    for session in list(model.sessions.values()):
        if session.will_at <= model.now:
            model.publish_will(session)
        if not session.expiry:  # nobody has been promised its queue, so it leaves nothing to its groups
            session.entries.clear()
        if session.ends_at <= model.now:
            model.end(session)


def is_kept(model: Model, kinds: Counter[int]) -> bool:
    """The disk has what the model has, and nothing more."""
    sessions = model.sessions.values()
    lasting = sum(message.expires > model.now for message in model.retained.values())
    return (
        kinds[SESSION] == len(sessions)
        and kinds[SUBSCRIPTION] == sum(len(session.subscriptions) for session in sessions)
        and kinds[QUEUED] == sum(len(session.entries) for session in sessions)
        and kinds[MESSAGE] <= kinds[QUEUED]
        and kinds[SENT] <= kinds[SESSION]
        and lasting <= kinds[RETAINED] <= len(model.retained)  # what has expired is forgotten in time
    )


@pytest.mark.parametrize("batch", range(4))
def test_a_broker_goes_on_after_a_crash_as_the_model_says(batch: int) -> None:
    """A failure prints the program, and its seed runs it again."""
    for seed in range(batch * SEEDS // 4, (batch + 1) * SEEDS // 4):
        CrashProgram(seed).run()


def test_the_programs_crash_in_the_midst_of_everything() -> None:
    seen: set[str] = set()
    for seed in range(250):
        program = CrashProgram(seed)
        program.run()
        seen |= {"crash"} if program.crashes else set()
        for line in program.log:
            if line.startswith("crash"):
                seen.add(line)
        program.crash()
        seen |= {f"entry {entry.state}" for s in program.model.sessions.values() for entry in s.entries}
        seen |= {"delayed will" for s in program.model.sessions.values() if s.will and not s.online}
    assert {"crash", "crash 0", "crash 6", "entry published", "entry released", "delayed will"} <= seen


def test_nothing_is_left_on_the_disk_when_every_session_has_ended() -> None:
    for seed in range(40):
        program = CrashProgram(seed)
        program.run()
        house = cast(DiskHouse, program.house)
        house.publish("r", b"", retain=True)
        house.commit()
        house.crash()
        house.wait(10_000_000)
        house.publish("r", b"", retain=True)
        house.commit()
        assert house.disk == {}, program.story(house.kinds())
