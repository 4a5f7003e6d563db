"""How the module peanutd._core is built with OpenSSL: what it shows of it, and which one can be chosen.

A whole build with another one takes a while: long_build.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from peanutd import _core, native
from tests.broker.native_loop import needs_loop

ROOT = Path(__file__).resolve().parents[2]


def test_the_module_shows_python_its_entry_and_nothing_else() -> None:
    """OpenSSL within it would otherwise be taken for that of Python's ssl, or the other way round."""
    command = ["nm", "--dynamic", "--defined-only", "-j", _core.__file__]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found == ["PyInit__core"]


def test_an_openssl_that_is_not_there_is_no_build(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "setup.py",
        "--quiet",
        "build_ext",
        f"--build-lib={tmp_path}",
        f"--build-temp={tmp_path}",
    ]
    environment = {**os.environ, "PEANUT_OPENSSL": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT / "broker", env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"no libssl.a in {tmp_path}/lib or lib64" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


@needs_loop
def test_it_says_which_openssl_it_has() -> None:
    command = [sys.executable, "-m", "peanutd", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert str(native.OPENSSL).startswith("OpenSSL 3.")
    assert f"(native loop: {native.OPENSSL}; Python's ssl: OpenSSL " in done.stdout
