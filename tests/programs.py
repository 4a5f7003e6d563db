"""Programs that are not Python packages, and which tests need as witnesses that are not ours: openssl, mosquitto.

Rule: where one is missing its tests are skipped, and the reason names the fix; in CI, which installs them, they fail.
"""

import os
import shutil
from typing import NoReturn

import pytest


def program(name: str, package: str = "") -> str:
    """The path of a program, to be run. Without it the test is `lacking`.

    package: the Debian package that holds it, if that is called otherwise.
    """
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")  # Debian has its servers there
    if found is None:
        lacking(f"{name} is not installed: sudo apt-get install {package or name}")
    return found


def lacking(reason: str) -> NoReturn:
    """Skips the test, or fails it where CI is set. The reason names the fix."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
