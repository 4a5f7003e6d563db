"""Tells what a machine lacks before `make setup` begins, and the one command that installs it.

It runs on whatever Python is there, before any virtual environment, so it keeps to syntax that a Python 3.7 reads
and to the standard library. `--node-wheel` answers another question: exit 0 when MicroPython's unix port cannot be
installed here and the rest should go on without it, 1 when it can.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import sysconfig

LEAST = (3, 11)


def missing() -> list[tuple[str, str]]:
    """Debian package names of what is missing, and for each why it is needed."""
    found = []
    if shutil.which("gcc") is None:
        found.append(("gcc", "a C compiler builds the broker's core"))
    if not any(os.path.exists(os.path.join(d, "stdio.h")) for d in ("/usr/include", "/usr/local/include")):
        found.append(("libc6-dev", "the C library's headers build the broker's core"))
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        found.append(("python3-venv", "a virtual environment holds the Python packages"))
    if not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")):
        found.append(("python3-dev", "Python's headers bind the broker's core"))
    return found


def node_wheel_exists() -> bool:
    """Whether requirements-node.txt has a wheel for this machine."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info[:2] <= (3, 14)


def main() -> int:
    """Prints what is missing; 1 when something is."""
    version = f"Python {platform.python_version()}"
    if "--node-wheel" in sys.argv:
        if node_wheel_exists():
            return 1
        print(f"setup: no MicroPython unix port for {platform.machine()} with {version}; `make demo` needs one")
        return 0
    if sys.version_info < LEAST:
        least = ".".join(map(str, LEAST))
        print(f"make: Python {least} or later is needed, this is {version}. Then: make PYTHON=python{least} ...")
        return 1
    found = missing()
    for package, why in found:
        print(f"make: {package} is missing: {why}.")
    if found:
        print("Install it: sudo apt-get install " + " ".join(package for package, _ in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
