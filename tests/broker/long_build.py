"""A gateway with an OpenSSL of its own in the native loop, beside the system's in Python's ssl.

Run by `make test-long`. The prefix is made of the system's static libraries (libssl-dev has them), so nothing has to be
built but the module; PEANUT_TEST_OPENSSL names another one.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.programs import lacking

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    given = os.environ.get("PEANUT_TEST_OPENSSL")
    if given:
        return Path(given)
    found = subprocess.run(
        ["gcc", "-print-file-name=libssl.a"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(found).is_file():
        lacking("no libssl.a: sudo apt-get install libssl-dev")
    made = tmp_path / "openssl"
    (made / "lib").mkdir(parents=True)
    (made / "include").mkdir()
    for name in ("libssl.a", "libcrypto.a"):
        (made / "lib" / name).symlink_to(Path(found).with_name(name))
    return made


@pytest.mark.timeout(600)
def test_two_openssl_in_one_process(
    prefix: Path, tmp_path: Path, fleet: Any, start: Any, dial: Any, monkeypatch: Any
) -> None:
    """MQTT by the native loop, WebSockets by Python's ssl: handshakes of both take turns."""
    build = [
        sys.executable,
        "setup.py",
        "--quiet",
        "build_ext",
        f"--build-lib={tmp_path}/lib",
        f"--build-temp={tmp_path}/temp",
    ]
    subprocess.run(build, cwd=ROOT / "broker", env={**os.environ, "PEANUT_OPENSSL": str(prefix)}, check=True)
    package = tmp_path / "python" / "peanutd"
    shutil.copytree(ROOT / "broker" / "peanutd", package, ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
    module = shutil.copy(next((tmp_path / "lib" / "peanutd").glob("_core*.so")), package)
    needed = subprocess.run(["ldd", module], capture_output=True, text=True, check=True).stdout
    assert "libssl" not in needed
    assert "libcrypto" not in needed
    shown = ["nm", "--dynamic", "--defined-only", "-j", module]
    assert subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split() == ["PyInit__core"]
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.delenv("PEANUTD_DRIVER", raising=False)
    fleet.settings(
        '[listen]\nmqtts = "127.0.0.1:0"\nmqtt = ""\ntime = ""\n'
        '[[listener]]\naddress = "127.0.0.1:0"\ntransport = "wss"\n'
    )
    daemon = start(fleet.home)
    leaf = fleet.issue("peanut:plant/bean")
    for _ in range(5):
        wire = dial(daemon.port(), fleet.context(leaf))
        assert wire.connect("bean")[1] == 0
        wire.ping()
        tcp = socket.create_connection(("127.0.0.1", daemon.port("wss")), 60)
        with tcp, fleet.context(leaf).wrap_socket(tcp, server_hostname="localhost") as web:
            web.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert web.recv(12).startswith(b"HTTP/1.1 4")
    mapped = Path(f"/proc/{daemon.process.pid}/maps").read_text()
    assert str(module) in mapped
    assert "libssl.so" in mapped
