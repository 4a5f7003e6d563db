"""Tells what a machine lacks before `make setup` begins, and the one command that installs it.

It runs on whatever Python is there, before any virtual environment, so it keeps to old syntax and the standard library.
`--node-wheel` answers another question: exit 0 when MicroPython's unix port cannot be installed here and
the rest should go on without it, 1 when it can.
"""

import os
import platform
import shutil
import sys
import sysconfig

LEAST = (3, 11)


def missing():
    """Debian package names of what is missing, and for each the sentence that says why."""
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


def node_wheel_exists():
    return platform.machine() in ("x86_64", "AMD64") and sys.platform == "linux" and sys.version_info[:2] <= (3, 14)


def main():
    if "--node-wheel" in sys.argv:
        if node_wheel_exists():
            return 1
        print(
            "setup: no MicroPython unix port for %s: `make demo` and the firmware's tests need one (firmware/README.md)"
            % platform.machine()
        )
        return 0
    if sys.version_info < LEAST:
        print(
            "make: Python %d.%d or later is needed, this is %s. Install it and say PYTHON=python3.%d"
            % (LEAST + (platform.python_version(), LEAST[1]))
        )
        return 1
    found = missing()
    for package, why in found:
        print("make: {} is missing: {}.".format(package, why))
    if found:
        print("Install it: sudo apt-get install " + " ".join(package for package, _ in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
