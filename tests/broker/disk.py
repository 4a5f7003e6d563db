"""A disk for the journal that is a dictionary, and a house that stands on it: what the tests of durability live in.

The rule it keeps: it reads batches as core/journal.h says they look, and knows nothing else of them. A crash is a new
broker that is given what was committed, and nothing else; its clock begins anew, as a monotonic clock does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from peanutd import _core
from tests.broker.house import EVERYTHING, SECOND, House

MESSAGE, SESSION, SENT, SUBSCRIPTION, RECEIVED, QUEUED, RETAINED = range(1, 8)

SEED = b"a fixed seed"


def records(batch: bytes) -> list[tuple[str, bytes, bytes]]:
    """The records of a batch that count: "P" (put) or "D" (delete), key, value."""
    found = []
    at = 0
    while at < len(batch):
        kind = chr(batch[at])
        key, value = int(batch[at + 1 : at + 6]), int(batch[at + 6 : at + 15])
        end = at + 15 + key + value
        assert end <= len(batch), "a record goes beyond its batch"
        assert kind in "PD-", f"a record of kind {kind}"
        if kind != "-":
            found.append((kind, batch[at + 15 : at + 15 + key], batch[at + 15 + key : end]))
        at = end
    return found


def run(first: bytes, last: bytes) -> list[bytes]:
    """The keys of a run that is deleted: they differ in the number at their end."""
    head, ends = first[:-8], (int.from_bytes(first[-8:]), int.from_bytes(last[-8:]))
    assert head == last[:-8]
    assert head[0] in (MESSAGE, QUEUED)
    return [head + number.to_bytes(8) for number in range(ends[0], ends[1] + 1)]


class DiskHouse(House):
    """A house whose broker keeps what it promises on `disk`. `wall` is the wall clock in milliseconds; a prompt disk
    has committed before anybody looks.
    """

    def __init__(self, *, waits: bool = True, prompt: bool = False, **limits: int) -> None:
        super().__init__(**limits)
        self.waits = waits
        self.prompt = prompt
        self.limits = limits
        self.disk: dict[bytes, bytes] = {}
        self.taken: list[tuple[int, bytes]] = []
        self.wall = 1_800_000_000_000
        self._base = self.now
        self.broker.keep(waits=waits, wall=self.wall - self.now)

    def handle(self, events: Sequence[_core.Event]) -> None:
        super().handle(events)
        if self.prompt and not self._events:
            self.commit()

    def take_batch(self) -> bool:
        """Takes what there is to be written."""
        batch = self.broker.journal()
        if batch is not None:
            self.taken.append(batch)
        return batch is not None

    def commit_one(self) -> bool:
        """Writes the oldest batch that was taken, and says so."""
        if not self.taken:
            return False
        number, batch = self.taken.pop(0)
        keys = set()
        for kind, key, value in records(batch):
            for one in [key] if kind == "P" or not value else run(key, value):
                assert one not in keys, "a key stands once in a batch"
                keys.add(one)
                if kind == "P":
                    self.disk[one] = value
                else:
                    self.disk.pop(one, None)
        super().handle(self.broker.committed(number, self.now))
        return True

    def commit(self) -> None:
        """Writes everything."""
        self.take_batch()
        while self.commit_one():
            pass

    def crash(self, down: float = 0, *, rules: bool = True) -> int:
        """A new process that finds what is on the disk, `down` seconds later. Returns how many records mean nothing."""
        self.taken.clear()
        self.wall += self.now - self._base + round(down * SECOND)
        self.now = self._base = 5_000
        self._events.clear()
        self.broker = _core.Broker(seed=SEED, **self.limits)
        if rules:
            self.broker.set_rules(0, EVERYTHING)
        self.broker.keep(waits=self.waits, wall=self.wall - self.now)
        rows = sorted(self.disk.items())
        half = len(rows) // 2
        bad: int = self.broker.restore(rows[:half], self.now) + self.broker.restore(rows[half:], self.now)
        self.handle(self.broker.restored(self.now))
        return bad

    def kinds(self) -> Counter[int]:
        """How many records of each kind are on the disk."""
        return Counter(key[0] for key in self.disk)
