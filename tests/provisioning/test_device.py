"""`peanut device`: enrolling, completing, changing, showing and handing out devices."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from datetime import timedelta
from itertools import chain, combinations
from pathlib import Path

import pytest

from peanut import ca, device, ledger, names, store
from peanut.home import Home
from peanut.names import Kind
from tests.programs import program

from .conftest import Run, invoke, start, tree

FILES = {"key.der": 0o600, "cert.der": 0o644, "ca.der": 0o644, "node.json": 0o644, "update.pub": 0o644}


def node(home: Home, name: str) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((home.device(name) / "node.json").read_text())
    return found


def whole(home: Home, name: str, kind: Kind = Kind.GREENHOUSE, more: Sequence[str] = ()) -> None:
    folder = home.device(name)
    files = {p.name: p.stat().st_mode & 0o777 for p in folder.iterdir()}
    keys = {"sign.key": 0o600} if kind is Kind.VEHICLE else {}
    assert files == FILES | keys | dict.fromkeys(more, 0o644)
    assert folder.stat().st_mode & 0o777 == 0o700
    certificate = store.certificate(folder / "cert.der")
    assert ca.same_key(certificate, store.key(folder / "key.der"))
    assert ca.issued_by(certificate, store.issuing(home).certificate)
    assert ca.san_uris(certificate) == [names.device_uri(name, kind)]
    assert (folder / "ca.der").read_bytes() == ca.certificate_der(store.root_certificate(home))
    row = ledger.device(home.ledger, name)
    assert row is not None
    assert int(row.serial, 16) == certificate.serial_number
    assert row.not_after == certificate.not_valid_after_utc.timestamp()


def test_node_json_is_what_agreement_3_shows(made: Path) -> None:
    found = json.loads((made / "devices/peanut/node.json").read_text())
    assert list(found) == [
        "format", "name", "kind", "root", "gateway", "board", "control", "report", "link", "simulate",
    ]  # fmt: skip
    assert found["format"] == 1
    assert (found["name"], found["kind"], found["root"]) == ("peanut", "greenhouse", "/plant/peanut")
    assert found["gateway"] == {"host": "gateway.local", "port": 8883}
    assert found["board"]["name"] == "sim"
    assert found["board"]["chip"] == "unix"
    assert set(found["board"]["outputs"]) == {"heater", "vent"}
    assert set(found["board"]["sensors"]) == {"temperature", "outside"}
    assert found["control"] == {"setpoint": 18.0, "min": 2.0, "max": 40.0, "hysteresis": 0.5}
    assert found["report"] == {"telemetry_s": 2, "state_s": 30}
    assert found["link"] == {"base_s": 1, "cap_s": 10, "first_s": 2}
    assert found["simulate"]["speed"] == 60


def test_a_vehicle_has_relays_and_a_model_of_its_own(made: Path) -> None:
    found = json.loads((made / "devices/1M8GDM9AXKP042788/node.json").read_text())
    assert (found["kind"], found["root"]) == ("vehicle", "vin/1M8GDM9AXKP042788")
    assert "control" not in found
    assert found["simulate"] == {"speed": 1}
    assert set(found["board"]["outputs"]) == {"unlock", "lock", "start", "stop", "horn"}
    assert {"speed", "latitude", "locked"} <= set(found["board"]["sensors"])


def test_what_may_be_set_for_a_vehicle(home: Home, run: Run) -> None:
    vin = "1M8GDM9AXKP042788"
    assert run("device", "add", vin, "--kind", "vehicle", "--set", "vehicle.compat_plain=lock, horn").exit_code == 0
    assert json.loads((home.device(vin) / "node.json").read_text())["vehicle"] == {"compat_plain": "lock, horn"}
    for words, complaint in (
        ("vehicle.compat_plain=lock, unlock", "compat_unsafe"),
        ("vehicle.compat_plain=open", "unknown 'open'"),
        ("simulate.outside=3", "no such key"),
        ("control.setpoint=3", "has no control"),
    ):
        result = run("device", "add", vin, "--kind", "vehicle", "--set", words)
        assert (result.exit_code, complaint in result.stderr) == (2, True), result.stderr
    assert run("device", "add", "peanut", "--kind", "greenhouse", "--set", "vehicle.run_s=60").exit_code == 2
    words = ("--set", "vehicle.compat_unsafe=true", "--set", "vehicle.compat_plain=unlock")
    assert run("device", "add", vin, "--kind", "vehicle", *words).exit_code == 0


def test_adding_twice_changes_nothing(home: Home, run: Run) -> None:
    before = tree(home.path)
    result = run("device", "add", "peanut", "--kind", "greenhouse")
    assert result.exit_code == 0
    assert "already there" in result.stdout
    assert tree(home.path) == before


def test_dry_run(home: Home, run: Run) -> None:
    before = tree(home.path)
    assert "nothing was written" in run("device", "add", "bean", "--kind", "greenhouse", "--dry-run").stdout
    assert run("device", "bundle", "peanut", "--out", str(home.path / "out"), "--dry-run").exit_code == 0
    assert not home.device("bean").exists()
    assert tree(home.path) == before


SUBSETS = [set(s) for s in chain.from_iterable(combinations([*FILES, "row"], n) for n in range(7))]


@pytest.mark.parametrize("lost", SUBSETS, ids=lambda s: "+".join(sorted(s)) or "nothing")
def test_whatever_is_lost_adding_again_completes(home: Home, run: Run, lost: set[str]) -> None:
    folder, before = home.device("peanut"), tree(home.device("peanut"))
    for name in lost - {"row"}:
        (folder / name).unlink()
    if "row" in lost:
        with ledger.opened(home.ledger) as connection:
            connection.execute("DELETE FROM device WHERE name = 'peanut'")
    assert run("device", "add", "peanut", "--kind", "greenhouse").exit_code == 0
    whole(home, "peanut")
    after = tree(folder)
    if "key.der" not in lost:
        assert after["key.der"] == before["key.der"]
        assert "cert.der" in lost or after["cert.der"] == before["cert.der"]
    assert after["node.json"] == before["node.json"]
    assert "already there" in run("device", "add", "peanut", "--kind", "greenhouse").stdout


def test_set_at_first_and_later(home: Home, run: Run) -> None:
    words = ("device", "add", "bean", "--kind", "greenhouse")
    assert run(*words, "--set", "control.setpoint=16", "--set", "simulate.speed=120").exit_code == 0
    assert node(home, "bean")["control"]["setpoint"] == 16
    assert node(home, "bean")["simulate"]["speed"] == 120
    result = run(*words, "--set", "control.setpoint=17.5", "--set", "gateway.host=localhost")
    assert "control.setpoint: 16 -> 17.5" in result.stdout
    assert node(home, "bean")["control"]["setpoint"] == 17.5
    assert node(home, "bean")["simulate"]["speed"] == 120  # what was set before stays
    assert node(home, "bean")["gateway"]["host"] == "localhost"
    whole(home, "bean", more=["device.toml"])


def test_set_what_the_board_leaves_to_the_node(home: Home, run: Run) -> None:
    words = ("device", "add", "bean", "--kind", "greenhouse", "--set", "link.keepalive_s=5")
    assert run(*words, "--set", "control.vent_fail=open", "--set", "simulate.sun_w=0").exit_code == 0
    assert node(home, "bean")["link"]["keepalive_s"] == 5
    assert node(home, "bean")["control"]["vent_fail"] == "open"
    assert node(home, "bean")["simulate"]["sun_w"] == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("control.vent_fail=ajar", "Choose from: open, closed"),
        ("control", "is not SECTION.KEY=VALUE"),
        ("control=3", "is not SECTION.KEY=VALUE"),
        ("nothing.key=3", "no section"),
        ("board.name=x", "no section"),
        ("control.nothing=3", "no key"),
        ("control.setpoint=warm", "not a number"),
        ("control.setpoint=true", "not a number"),
        ("control.setpoint=NaN", "not a number"),
        ("control.setpoint=1e999", "not a number"),
        ("control.setpoint=99", "out of range"),
        ("control.setpoint=41", "not within"),
        ("control.max=17", "not within"),
        ("link.cap_s=0.5", "above cap_s"),
        ("report.telemetry_s=0", "out of range"),
        ("gateway.port=0", "out of range"),
        ("gateway.port=1.5", "not a whole number"),
        ("gateway.host=", "not a string"),
        ("gateway.host=elsewhere.org", "has no certificate for"),
    ],
)
def test_bad_settings_are_refused_untouched(home: Home, run: Run, text: str, complaint: str) -> None:
    before = tree(home.path)
    for name in ("peanut", "bean"):
        result = run("device", "add", name, "--kind", "greenhouse", "--set", text)
        assert result.exit_code == 2
        assert complaint in result.stderr
    assert tree(home.path) == before


def test_the_port_comes_from_gateway_toml(home: Home, run: Run) -> None:
    home.gateway_toml.write_text('[listen]\nmqtts = "127.0.0.1:18883"\n')
    run("device", "add", "bean", "--kind", "greenhouse")
    assert node(home, "bean")["gateway"] == {"host": "gateway.local", "port": 18883}


@pytest.mark.parametrize(
    "text",
    [
        "[listen]\nmqtts = ''",
        "[listen]\nmqtts = 3",
        "listen = 3",
        "[listen]\nmqtts = 'x:y'",
        "listener = 3\n[listen]\nmqtts = ''",
        "listener = [3]\n[listen]\nmqtts = ''",
    ],
)
def test_a_gateway_toml_without_a_tls_listener_is_named(home: Home, run: Run, text: str) -> None:
    home.gateway_toml.write_text(text)
    result = run("device", "add", "bean", "--kind", "greenhouse")
    assert result.exit_code == 2
    assert "gateway.toml" in result.stderr


def test_a_device_keeps_its_kind(home: Home, run: Run) -> None:
    assert run("device", "add", "1" * 17, "--kind", "vehicle").exit_code == 0
    result = run("device", "add", "1" * 17, "--kind", "greenhouse")
    assert result.exit_code == 2
    assert "VIN" in result.stderr
    whole(home, "1" * 17, Kind.VEHICLE)


# The gateway moves


def moved(home: Home, port: int, *hosts: str) -> None:
    """What the operator's editor does to gateway.toml and fleet.toml."""
    home.gateway_toml.write_text(f'[listen]\nmqtts = "0.0.0.0:{port}"\n')
    home.fleet_toml.write_text(f"hosts = {json.dumps(hosts)}\n")


def test_a_node_follows_the_gateway_when_it_is_added_again(home: Home, run: Run) -> None:
    assert run("device", "list").stderr == ""
    moved(home, 18883, "192.168.1.20", "gateway.local")
    changed = ('gateway.host: "gateway.local" -> "192.168.1.20"', "gateway.port: 8883 -> 18883")
    warned = run("device", "list")
    assert warned.exit_code == 0
    assert "1M8GDM9AXKP042788, peanut, tomato: node.json is out of date" in warned.stderr
    shown = run("device", "show", "peanut").stdout
    result = run("device", "add", "peanut", "--kind", "greenhouse")
    for change in changed:
        assert change in warned.stderr
        assert change in shown
        assert change in result.stdout
    assert "give the node its new bundle" in result.stdout
    assert node(home, "peanut")["gateway"] == {"host": "192.168.1.20", "port": 18883}
    whole(home, "peanut")
    assert "1M8GDM9AXKP042788, tomato: node.json" in run("device", "list", "--json").stderr
    assert "outdated" not in run("device", "show", "peanut").stdout
    assert json.loads(run("device", "show", "tomato", "--json").stdout)["outdated"]
    assert "already there" in run("device", "add", "peanut", "--kind", "greenhouse").stdout


def test_what_was_set_stays_and_the_rest_follows(home: Home, run: Run) -> None:
    words = ("device", "add", "bean", "--kind", "greenhouse")
    assert "set for this device: gateway.host=localhost" in run(*words, "--set", "gateway.host=localhost").stdout
    moved(home, 18883, "gateway.local")
    result = run(*words)
    assert "gateway.port: 8883 -> 18883" in result.stdout
    assert node(home, "bean")["gateway"] == {"host": "localhost", "port": 18883}
    assert "localhost:18883 (host by --set)" in run("device", "show", "bean").stdout
    assert "bean: " not in run("device", "list").stderr
    run(*words, "--set", "gateway.port=28883")
    moved(home, 38883, "gateway.local")
    assert "already there" in run(*words).stdout
    assert node(home, "bean")["gateway"] == {"host": "localhost", "port": 28883}
    whole(home, "bean", more=["device.toml"])


def test_without_its_line_in_device_toml_it_follows_again(home: Home, run: Run) -> None:
    words = ("device", "add", "bean", "--kind", "greenhouse")
    run(*words, "--set", "gateway.host=localhost", "--set", "gateway.port=9")
    remembered = home.device("bean") / "device.toml"
    assert tomllib.loads(remembered.read_text()) == {"gateway": {"host": "localhost", "port": 9}}
    remembered.write_text("[gateway]\nport = 9\n")
    assert 'gateway.host: "localhost" -> "gateway.local"' in run(*words).stdout
    remembered.unlink()
    assert "gateway.port: 9 -> 8883" in run(*words).stdout


def test_a_lost_node_json_is_made_with_what_was_set(home: Home, run: Run) -> None:
    run("device", "add", "bean", "--kind", "greenhouse", "--set", "gateway.host=localhost")
    (home.device("bean") / "node.json").unlink()
    run("device", "add", "bean", "--kind", "greenhouse")
    assert node(home, "bean")["gateway"]["host"] == "localhost"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[gateway", "not valid TOML"),
        ("[gatway]", "unknown key 'gatway'"),
        ("[gateway]\nhots = 'x'", "unknown key 'hots'"),
        ("[gateway]\nport = 0", "out of range"),
        ("gateway = 3", "is not a table"),
    ],
)
def test_a_bad_device_toml_is_named(home: Home, run: Run, text: str, complaint: str) -> None:
    (home.device("peanut") / "device.toml").write_text(text)
    before = tree(home.path)
    result = run("device", "add", "peanut", "--kind", "greenhouse")
    assert result.exit_code == 2
    for said in (result.stderr, run("device", "list").stderr, run("device", "show", "peanut").stdout):
        assert "device.toml" in said
        assert complaint in said
    assert tree(home.path) == before


def test_a_host_that_the_gateway_gave_up_is_told(home: Home, run: Run) -> None:
    run("device", "add", "bean", "--kind", "greenhouse", "--set", "gateway.host=192.168.1.20")
    moved(home, 8883, "gateway.local")
    assert "bean: the gateway has no certificate for 192.168.1.20" in run("device", "list").stderr


def test_list_and_show_live_with_a_broken_gateway_toml(home: Home, run: Run) -> None:
    home.gateway_toml.write_text("[listen")
    result = run("device", "list")
    assert result.exit_code == 0
    assert "tomato" in result.stdout
    assert "gateway.toml" in result.stderr
    result = run("device", "show", "peanut")
    assert result.exit_code == 0
    assert "fingerprint" in result.stdout


def test_names_and_boards_that_are_none(home: Home, run: Run) -> None:
    before = tree(home.path)
    for words, complaint in (
        (("Peanut", "--kind", "greenhouse"), "a-z, 0-9"),
        (("../peanut", "--kind", "greenhouse"), "a-z, 0-9"),
        (("bean", "--kind", "vehicle"), "17 capital letters"),
        (("bean", "--kind", "greenhouse", "--board", "esp99"), ", sim,"),
        (("bean", "--kind", "greenhouse", "--board", "../sim"), ", sim,"),
        (("peanut", "--kind", "boat"), "greenhouse"),
        (("1" * 17, "--kind", "vehicle", "--board", "olimex-esp32-evb"), "the board 'olimex-esp32-evb' is no vehicle"),
    ):
        result = run("device", "add", *words)
        assert result.exit_code == 2
        assert complaint in result.stderr
    assert tree(home.path) == before


def test_a_wrong_check_digit_is_a_warning_only(home: Home, run: Run) -> None:
    result = run("device", "add", "1M8GDM9A1KP042788", "--kind", "vehicle")
    assert result.exit_code == 0
    assert "check digit" in result.stderr
    assert "check digit" not in run("device", "add", "1M8GDM9AXKP042788", "--kind", "vehicle").stderr


def test_an_expiring_certificate_is_renewed_by_adding_again(home: Home, run: Run) -> None:
    key = (home.device("peanut") / "key.der").read_bytes()
    # the same home, seen 340 days on
    later = ca.utc_now() + timedelta(days=340)
    request = device.Request("peanut", Kind.GREENHOUSE)
    steps = device.plan(home, request, Path(device.__file__).parent / "boards", later)
    assert [s.what for s in steps if s.act] == ["devices/peanut/cert.der", "ledger.db"]
    for step in steps:
        if step.act:
            step.act()
    assert ca.days_left(store.certificate(home.device("peanut") / "cert.der"), later) >= 363
    assert (home.device("peanut") / "key.der").read_bytes() == key
    whole(home, "peanut")


def test_show(home: Home, run: Run) -> None:
    certificate = home.device("peanut") / "cert.der"
    command = [program("openssl"), "x509", "-in", certificate, "-inform", "DER", "-noout"]
    printed = subprocess.run(
        [*command, "-fingerprint", "-sha256", "-serial"], capture_output=True, text=True, check=True
    ).stdout
    fingerprint, serial = (line.partition("=")[2] for line in printed.splitlines())
    shown = run("device", "show", "peanut").stdout
    for part in ("/plant/peanut", fingerprint, "days left", "gateway.local:8883", "sim (simulated)", "greenhouse"):
        assert part in shown
    assert "problem" not in shown
    found = json.loads(run("device", "show", "peanut", "--json").stdout)
    assert found["fingerprint"] == fingerprint
    assert int(found["serial"], 16) == int(serial, 16)
    assert found["root"] == "/plant/peanut"
    assert found["days_left"] in (363, 364)


def test_show_tells_of_a_problem(home: Home, run: Run) -> None:
    (home.device("peanut") / "key.der").unlink()
    assert "problem      key.der is missing" in run("device", "show", "peanut").stdout
    shutil.copy(home.device("tomato") / "key.der", home.device("peanut") / "key.der")
    assert "cert.der is for another key" in run("device", "show", "peanut").stdout


def test_an_unknown_device_is_met_with_those_there_are(run: Run) -> None:
    for words in (("show", "tomatto"), ("bundle", "tomatto", "--out", "x")):
        result = run("device", *words)
        assert result.exit_code == 2
        assert "Devices: 1M8GDM9AXKP042788, peanut, tomato." in result.stderr


def test_list_is_aligned_text_without_a_terminal(run: Run) -> None:
    lines = run("device", "list").stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["NAME", "KIND", "BOARD"],
        ["1M8GDM9AXKP042788", "vehicle", "sim"],
        ["peanut", "greenhouse", "sim"],
        ["tomato", "greenhouse", "sim"],
    ]
    assert len({line.index(word) for line, word in zip(lines, ("KIND", "veh", "green", "green"), strict=True)}) == 1


def test_list_of_an_empty_fleet(tmp_path: Path, made: Path, run: Run) -> None:
    with ledger.opened(tmp_path / "fleet/ledger.db") as connection:
        connection.execute("DELETE FROM device")
    result = run("device", "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No devices yet" in result.stderr
    assert json.loads(run("device", "list", "--json").stdout) == []


def test_bundle(home: Home, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a/out"
    before = os.umask(0)
    try:
        assert run("device", "bundle", "peanut", "--out", str(out)).exit_code == 0
    finally:
        os.umask(before)
    assert {p.name: p.stat().st_mode & 0o777 for p in out.iterdir()} == FILES
    assert tree(out) == tree(home.device("peanut"))
    assert out.stat().st_mode & 0o777 == 0o700


def test_bundle_does_not_overwrite_unasked(home: Home, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes").write_text("mine")
    result = run("device", "bundle", "peanut", "--out", str(out))
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert [p.name for p in out.iterdir()] == ["notes"]
    assert run("device", "bundle", "peanut", "--out", str(out), "--force").exit_code == 0
    assert (out / "notes").read_text() == "mine"
    assert run("device", "bundle", "peanut", "--out", str(home.device("peanut")), "--force").exit_code == 2
    assert run("device", "bundle", "peanut", "--out", str(out / "notes")).exit_code == 2


def test_a_bundle_again_is_the_present_one(home: Home, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("device", "bundle", "peanut", "--out", str(out))
    assert run(*words).exit_code == run(*words).exit_code == 0
    run("device", "add", "peanut", "--kind", "greenhouse", "--set", "control.setpoint=16", "--set", "gateway.port=9")
    for lost in ((), ("node.json",), ("node.json", "ca.der", "cert.der"), FILES):  # as interrupted copies leave it
        for name in lost:
            (out / name).unlink()
        assert run(*words).exit_code == 0
        assert tree(out) == {n: f for n, f in tree(home.device("peanut")).items() if n in FILES}
    moved(home, 18883, "localhost")
    assert "out of date" in run(*words).stderr


def test_a_bundle_does_not_replace_that_of_another_device(home: Home, run: Run, tmp_path: Path) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    assert run("device", "bundle", "tomato", "--out", str(out)).exit_code == 0
    # the same name in another fleet
    assert invoke(other, "init").exit_code == 0
    assert invoke(other, "device", "add", "peanut", "--kind", "greenhouse").exit_code == 0
    for name in (None, "node.json", "cert.der"):
        if name:
            (out / name).unlink()
        for place in (out, other / "devices/peanut"):
            before = tree(place)
            result = run("device", "bundle", "peanut", "--out", str(place))
            assert result.exit_code == 2
            assert "holds something else than a bundle of peanut" in result.stderr
            assert tree(place) == before
    (out / "key.der").unlink()
    (out / "node.json").write_text("{")
    assert run("device", "bundle", "peanut", "--out", str(out)).exit_code == 2


def test_a_bundle_that_is_not_whole_is_not_handed_out(home: Home, run: Run, tmp_path: Path) -> None:
    shutil.copy(home.device("tomato") / "cert.der", home.device("peanut") / "cert.der")
    result = run("device", "bundle", "peanut", "--out", str(tmp_path / "out"))
    assert result.exit_code == 2
    assert "peanut device add peanut" in result.stderr
    assert not (tmp_path / "out").exists()


def test_many_at_once(home: Home) -> None:
    wanted = [f"bed-{n}" for n in range(5)]
    processes = [start(home.path, "device", "add", name, "--kind", "greenhouse") for name in wanted]
    for process in processes:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    for name in wanted:
        whole(home, name)


def test_list_on_a_terminal_is_drawn(home: Home) -> None:
    import pty

    main, other = pty.openpty()
    command = [sys.executable, "-m", "peanut", "--home", str(home.path), "device", "list"]
    with subprocess.Popen(command, stdout=other, stdin=subprocess.DEVNULL) as process:
        os.close(other)
        shown = b""
        while True:
            try:
                shown += os.read(main, 4096)
            except OSError:  # the other side is closed
                break
        os.close(main)
    assert process.returncode == 0
    assert "━" in shown.decode()
    assert b"tomato" in shown
