"""What a board gets and what stays on it: the application, the file system as bytes, and the merge of old and new."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from peanut import application, ca, device, flash, fsimage, store, wifi
from peanut.errors import PeanutError
from peanut.home import Home
from peanut.loader import Chip
from peanut.names import Kind, device_uri

from .conftest import Run

FIRMWARE = Path(__file__).parents[2] / "firmware"
MIB = 1024 * 1024


def image(runs: dict[int, bytes], size: int, before: bytes) -> bytes:
    """A flash of `size` bytes that held `before` everywhere, with the runs written to it."""
    whole = bytearray((before * size)[:size])
    for at, data in runs.items():
        whole[at : at + len(data)] = data
    return bytes(whole)


@pytest.mark.parametrize("size", [512 * 1024, 2 * MIB, 14 * MIB])
def test_a_file_system_there_and_back(size: int) -> None:
    files = {"boot.py": b"x", "node/app.mpy": bytes(range(256)) * 100, "blank": b"\xff" * 9000, "a/b/c": b""}
    runs = fsimage.build(files, size)
    # what the flash held before makes no difference, though little of it is written
    assert sum(map(len, runs.values())) < 100_000
    assert all(at % 4096 == 0 and len(data) % 4096 == 0 for at, data in runs.items())
    for before in (b"\xff", b"\x00", b"\xa5\x5a\x17"):
        whole = image(runs, size, before)
        assert fsimage.is_one(whole[: fsimage.PEEK])
        assert fsimage.unpack(whole) == files


def test_what_is_no_file_system() -> None:
    for blank in (b"\xff" * MIB, b"\x00" * MIB):
        assert not fsimage.is_one(blank[: fsimage.PEEK])
        assert fsimage.unpack(blank) is None
    assert fsimage.unpack(b"littlefs" * (MIB // 8)) is None
    torn = bytearray(image(fsimage.build({"a/b": b"c"}, MIB), MIB, b"\xff"))
    torn[: 2 * 4096] = b"\x00" * (2 * 4096)
    assert fsimage.unpack(bytes(torn)) is None


def test_files_that_do_not_fit() -> None:
    with pytest.raises(PeanutError, match="do not fit: 600000 bytes, and the file system of the board has 524288"):
        fsimage.build({"a": b"x" * 600_000}, 512 * 1024)


def node(home: Home, name: str = "peanut") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home.device(name) / "node.json").read_text())
    return found


def test_a_node_gets_the_drivers_of_its_board_and_no_others(home: Home) -> None:
    here = node(home)
    assert "drivers/greenhouse_model.py" in application.sources(here, FIRMWARE)
    del here["simulate"]
    here["board"]["outputs"] = {"heater": {"driver": "pcf8574"}, "vent": {"driver": "gpio"}}
    here["board"]["sensors"] = {"temperature": {"driver": "ds18b20"}}
    found = application.sources(here, FIRMWARE)
    assert {"boot.py", "main.py", "node/app.py", "profiles/greenhouse.py"} <= set(found)
    assert {"drivers/pcf8574.py", "drivers/gpio.py", "drivers/ds18b20.py", "drivers/i2c.py"} <= set(found)
    assert not {"drivers/greenhouse_model.py", "drivers/scd4x.py", "drivers/sht3x.py"} & set(found)
    assert len(found) == len(set(found))
    here["board"]["sensors"]["temperature"]["driver"] = "crystal_ball"
    with pytest.raises(PeanutError, match="the firmware has no driver 'crystal_ball'"):
        application.sources(here, FIRMWARE)


def test_a_source_that_does_not_compile_is_named(home: Home, tmp_path: Path) -> None:
    shutil.copytree(FIRMWARE, tmp_path / "firmware", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "firmware/node/app.py").write_text("def broken(:\n")
    with pytest.raises(PeanutError, match=r"node/app\.py does not compile"):
        application.compiled(node(home), tmp_path / "firmware")
    (tmp_path / "firmware/manifest.toml").write_text("format = 2")
    with pytest.raises(PeanutError, match="newer format"):
        application.sources(node(home), tmp_path / "firmware")


def new(home: Home, name: str = "peanut") -> fsimage.Files:
    where = home.device(name)
    files = {n: (where / n).read_bytes() for n in (*flash.IDENTITY, "node.json")}
    return {**files, "node/app.mpy": b"new", "boot.py": b"new"}


def test_what_the_node_keeps_itself_stays_and_the_application_goes(home: Home) -> None:
    now = ca.utc_now()
    there = {**new(home), "node/app.mpy": b"old", "node/gone.mpy": b"old", "drivers/x.py": b"old", "state.json": b"{}"}
    there |= {"buf/1": b"reading", "config.a": b"sent", wifi.FILE: b"networks"}
    found = flash.merge(new(home), there, "peanut", home, now)
    assert found.kept == ("buf/1", "config.a", "state.json", wifi.FILE)
    assert found.files == {
        **new(home),
        "buf/1": b"reading",
        "config.a": b"sent",
        "state.json": b"{}",
        wifi.FILE: b"networks",
    }
    assert found.notes == ("the board keeps the Wi-Fi networks that it has",)
    assert flash.merge({**new(home), wifi.FILE: b"other"}, there, "peanut", home, now).files[wifi.FILE] == b"other"


def test_nothing_of_another_node_stays(home: Home) -> None:
    there = {**new(home, "tomato"), "state.json": b"{}"}
    found = flash.merge(new(home), there, "peanut", home, ca.utc_now())
    assert (found.files, found.kept) == (new(home), ())
    assert found.notes == ("this board was 'tomato' until now: nothing of it is kept",)
    assert "no node of ours" in flash.merge(new(home), {"main.py": b""}, "peanut", home, ca.utc_now()).notes[0]


def test_a_certificate_that_was_renewed_since_stays(home: Home) -> None:
    now = ca.utc_now()
    key, authority = ca.new_key(), store.issuing(home)
    uri = device_uri("peanut", Kind.GREENHOUSE)

    def board(days: int, uri: str = uri) -> fsimage.Files:
        made = ca.issue_client(key.public_key(), "peanut", uri, authority, now + timedelta(days=days))
        return {**new(home), "key.der": ca.key_der(key), "cert.der": ca.certificate_der(made)}

    renewed = board(1)  # BACKDATE makes it valid already, and it lives a day longer than ours
    found = flash.merge(new(home), renewed, "peanut", home, now)
    assert {p: found.files[p] for p in flash.IDENTITY} == {p: renewed[p] for p in flash.IDENTITY}
    assert "newer certificate" in found.notes[0]
    for worse in (
        board(-1),
        board(1, device_uri("tomato", Kind.GREENHOUSE)),
        {**renewed, "key.der": new(home)["key.der"]},
        {**renewed, "ca.der": b"another"},
        {**renewed, "cert.der": b"noise"},
        {p: d for p, d in renewed.items() if p != "key.der"},
    ):
        found = flash.merge(new(home), worse, "peanut", home, now)
        assert {p: found.files[p] for p in flash.IDENTITY} == {p: new(home)[p] for p in flash.IDENTITY}


def test_a_changed_configuration_is_said(home: Home) -> None:
    there = new(home)
    there["node.json"] = there["node.json"].replace(b'"speed": 60', b'"speed": 61')
    notes = flash.merge(new(home), there, "peanut", home, ca.utc_now()).notes
    assert notes == ("node.json changes: simulate.speed: 61 -> 60",)


def test_a_bundle_that_is_not_good_is_refused(home: Home) -> None:
    now = ca.utc_now()
    row = device.row(home, "peanut")
    assert flash.check_bundle(home, row, now)["name"] == "peanut"
    for moment in (now + timedelta(days=400), now - timedelta(days=400)):
        with pytest.raises(PeanutError, match=r"is valid from .* and today is"):
            flash.check_bundle(home, row, moment)
    where = home.device("peanut")
    server = ca.issue_gateway(store.key(where / "key.der").public_key(), [], store.issuing(home), now)
    (where / "cert.der").write_bytes(ca.certificate_der(server))
    with pytest.raises(PeanutError, match="names somebody else"):
        flash.check_bundle(home, row, now)
    (where / "key.der").write_bytes((home.device("tomato") / "key.der").read_bytes())
    with pytest.raises(PeanutError, match="is for another key"):
        flash.check_bundle(home, row, now)


def test_a_write_that_broke_off_is_made_good_by_the_next(home: Home) -> None:
    where, mac = home.device("peanut"), "24:0a:c4:00:00:01"
    runs = fsimage.build({"state.json": b"dear"}, MIB)
    before = image(runs, MIB, b"\xff")
    with pytest.raises(PeanutError), flash.safe(where, mac, before):
        raise PeanutError("unplugged")
    (copy,) = where.glob(".before-*")
    assert copy.stat().st_mode & 0o777 == 0o600  # a node's key is in it
    assert flash.interrupted(where, mac) == {"state.json": b"dear"}
    assert flash.interrupted(where, "24:0a:c4:00:00:02") is None
    with flash.safe(where, mac, b""):
        pass
    assert flash.interrupted(where, mac) is None


def test_a_refitted_device_keeps_what_was_set_for_it(run: Run, home: Home) -> None:
    run("device", "add", "leek", "--kind", "greenhouse", "--set", "control.setpoint=11", "--set", "simulate.speed=7")
    boards = Path(__file__).parents[2] / "boards"

    def refit(board: str | None, simulate: bool | None = None) -> dict[str, Any]:
        request = device.Request("leek", Kind.GREENHOUSE, board, simulate, refit=True)
        return device.wanted(home, request, boards)

    assert refit(None) == node(home, "leek")
    moved = refit("esp32-devkitc")
    assert moved["board"]["outputs"]["heater"]["pin"] == 25
    assert moved["control"]["setpoint"] == 11
    assert "simulate" not in moved
    assert refit("esp32-devkitc", True)["simulate"]["speed"] == 60


def test_a_board_is_one_device_at_a_time(home: Home) -> None:
    chip = Chip("ESP32", "ESP32-D0WD", "24:0a:c4:00:00:01", 4 * MIB)
    image_ = flash.Image("x.bin", b"", "", True)
    for name in ("peanut", "tomato"):
        flash.record(home, name, "/dev/ttyUSB0", chip, image_, ca.utc_now(), done=True)
        assert flash.device_on(home, chip.mac) == name
        assert flash.is_done(home, name)
        assert flash.recorded_port(home, name) == "/dev/ttyUSB0"
    assert not flash.is_done(home, "peanut")
    assert flash.device_on(home, "24:0a:c4:00:00:02") == ""
