"""Plan, then do: what a command is going to write is settled before anything is written, and said as it is written.

Rule: a plan is made by looking only. Each step names one thing on disk, says whether it is there already, and holds the
act that makes it; acts run in order, each leaving the home in a state from which the same command can go on. A line
that says "make" or "change" stands for what has been done, so that the last line shows how far an interrupted run got.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """What a step finds."""

    THERE = "there"  # nothing to do
    MAKE = "make"  # missing
    CHANGE = "change"  # there, and to be replaced or mended


@dataclass(frozen=True)
class Step:
    """One thing on disk. `what`: its path from the fleet home on; `note`: what it is, or why it changes."""

    state: State
    what: str
    note: str
    act: Callable[[], None] | None = None


def there(what: str, note: str = "") -> Step:
    """A step with nothing to do."""
    return Step(State.THERE, what, note)


def render(steps: Sequence[Step]) -> list[str]:
    """The plan as lines of plain text, aligned."""
    width = max((len(s.what) for s in steps), default=0)
    return [f"  {s.state:<6}  {s.what:<{width}}  {s.note}".rstrip() for s in steps]


def carry_out(steps: Sequence[Step], say: Callable[[str], None], *, dry_run: bool) -> int:
    """Do each step, then say it; on a dry run say them all. Returns the number of steps with something to do."""
    todo = sum(s.state is not State.THERE for s in steps)
    for step, line in zip(steps, render(steps), strict=True):
        if step.state is not State.THERE and not dry_run:
            assert step.act is not None, step
            step.act()
        say(line)
    if not todo:
        say("Everything is already there; nothing was changed.")
    elif dry_run:
        say(f"Dry run: {todo} of {len(steps)} steps to do; nothing was written.")
    return todo
