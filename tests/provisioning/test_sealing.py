"""What a vehicle seals, its own code on its own interpreter, is what `peanut unseal` opens, and nothing else is."""

import base64
import json
import subprocess
from pathlib import Path

import pytest

from peanut import sealing
from peanut.errors import PeanutError
from peanut.home import Home
from tools.fleet import find_micropython

from .conftest import Run

FIRMWARE = Path(__file__).parents[2] / "firmware"
KEY = bytes(range(32))
TEXTS = ["", "x" * 15, "x" * 16, '{"readings":{"latitude":[50.1109,"ok",0]}}']


def sealed(*texts: str) -> list[bytes]:
    """Each of them as the vehicle's firmware publishes it as telemetry."""
    script = f"from node.seal import Seal\nfor t in {list(texts)!r}: print(Seal({KEY!r}).close('telemetry', t))"
    done = subprocess.run(
        [find_micropython(), "-c", script], env={"MICROPYPATH": f"{FIRMWARE}:.frozen"}, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_what_is_sealed_is_opened_and_nothing_else() -> None:
    payloads = sealed(*TEXTS)
    assert [sealing.opened(KEY, "telemetry", payload) for payload in payloads] == TEXTS
    for key, topic in ((bytes(32), "telemetry"), (KEY, "state")):
        with pytest.raises(PeanutError, match="not sealed by that vehicle"):
            sealing.opened(key, topic, payloads[3])
    raw = base64.b64decode(json.loads(payloads[3])["sealed"])
    for place in range(0, len(raw), 7):
        changed = bytearray(raw)
        changed[place] ^= 1
        with pytest.raises(PeanutError, match="not sealed by that vehicle"):
            sealing.opened(KEY, "telemetry", json.dumps({"sealed": base64.b64encode(changed).decode()}).encode())
    for junk in (b"", b"[]", b'{"sealed":"?"}', b"{}"):
        with pytest.raises(PeanutError, match="is not sealed"):
            sealing.opened(KEY, "telemetry", junk)
    with pytest.raises(PeanutError):
        sealing.opened(KEY, "telemetry", b'{"sealed":""}')


def test_unseal_at_the_command_line(home: Home, run: Run) -> None:
    vin = "1M8GDM9AXKP042788"
    assert "is not a vehicle" in run("unseal", "peanut").stderr
    result = run("unseal", vin, input="{}\n")
    assert (result.exit_code, "is not sealed" in result.stderr) == (2, True)


def test_the_same_text_twice_is_two() -> None:
    """A random IV, and no block tells that it is the same as another (no ECB)."""
    one, other = (base64.b64decode(json.loads(p)["sealed"]) for p in sealed("y" * 64, "y" * 64))
    blocks = [raw[i : i + 16] for raw in (one, other) for i in range(0, 80, 16)]
    assert len(set(blocks)) == len(blocks)
