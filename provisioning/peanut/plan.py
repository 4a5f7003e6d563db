"""Plan, then do: what a command is going to write, said before it is written.

Rule: a plan is made by looking only. Each step names one thing on disk, says whether it is there already, and holds the
act that makes it; acts run in order, each leaving the home in a state from which the same command can go on.
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
    """Say the plan, then do it (or not, on a dry run). Returns the number of steps with something to do."""
    for line in render(steps):
        say(line)
    todo = [s for s in steps if s.state is not State.THERE]
    if not todo:
        say("Everything is already there; nothing was changed.")
    elif dry_run:
        say(f"Dry run: {len(todo)} of {len(steps)} steps to do; nothing was written.")
    else:
        for step in todo:
            assert step.act is not None, step
            step.act()
    return len(todo)
