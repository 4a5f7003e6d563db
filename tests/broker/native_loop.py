"""A mark for tests of the native loop.

Rule: where it was not built they are skipped, and the reason names the fix; in CI, which installs what it wants, they
run, and fail.
"""

import os

import pytest

from peanutd import native

needs_loop = pytest.mark.skipif(
    not native.AVAILABLE and not os.environ.get("CI"),
    reason="the native loop was not built: sudo apt-get install libssl-dev, then make setup",
)
