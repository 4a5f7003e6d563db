"""The heap of a node over 100,000 turns of its control loop and 10,000 commands. For `make test-long`."""

import pytest

from .conftest import MakeNode
from .test_limits import no_growth


@pytest.mark.timeout(600)
def test_no_growth_over_100_000_turns(make_node: MakeNode) -> None:
    no_growth(make_node(1, simulate={"speed": 3600}), 10_000, 100_000)
