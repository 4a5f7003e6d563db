"""A vehicle through everything there is: `peanut send`, the gateway, the firmware, the bytes of its lines, its pins."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.firmware import lines
from tools.fleet import Node

from .car import OTHER_VIN, VIN, Car
from .conftest import BIN, House, Watcher, wait_for

ROOT = f"vin/{VIN}"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One house for all of these."""
    made = House(tmp_path_factory.mktemp("vehicle") / "fleet")
    made.start()
    yield made
    assert made.process is not None
    made.process.kill()
    made.process.wait()


@pytest.fixture(scope="module")
def car(house: House) -> Iterator[Car]:
    """A car that stands with its engine off, and says so."""
    made = Car(house)
    made.elm.codes = ["0133"]
    made.node.start()
    made.node.wait_for_log("online")
    yield made
    made.close()


@pytest.fixture
def watcher(house: House, car: Car) -> Iterator[Watcher]:
    """An operator that hears all that the car says; the car has been asked something by then."""
    with house.watch(f"{ROOT}/#") as heard:
        wait_for(lambda: "speed" in car_readings(heard), "telemetry")
        yield heard


def car_readings(watcher: Watcher) -> dict[str, Any]:
    """What was measured, and ok, by the last telemetry."""
    told = watcher.latest(f"{ROOT}/telemetry").get("readings", {})
    return {name: value for name, (value, quality, _) in told.items() if quality == "ok"}


def test_unlock_end_to_end(car: Car, watcher: Watcher) -> None:
    """Signed, judged, the relay closed and open again, a receipt that `peanut send` believes."""
    before = car.closed()
    status, said = car.send("unlock")
    assert (status, "done" in said) == (0, True), said
    assert car.closed()[len(before) :] == ["unlock"]
    car.wait_open()
    command = json.loads(wait_for(lambda: car.commands(watcher, "unlock"), "the command")[-1])
    done = car.answer(watcher, "done", 0)
    assert (done["id"], done["state"]["locked"]) == (command["id"], False)
    assert [ack["stage"] for ack in watcher.all(f"{ROOT}/ack") if ack.get("id") == command["id"]] == [
        "accepted",
        "done",
    ]
    wait_for(lambda: watcher.latest(f"{ROOT}/session")["ctr"] == command["ctr"], "the session tells the counter")


def test_what_the_lines_tell(car: Car, watcher: Watcher) -> None:
    """A drive replayed into the GPS line, what the adapter knows beside it: both arrive."""
    car.elm.fuel, car.elm.volts, car.elm.ambient = 40, 14.2, -3
    places = [place for second in lines.seconds() if (place := lines.fix(second)) is not None][20:40]
    track = [second for second in lines.seconds() if lines.fix(second) in places]
    for second in track:
        car.gps.say(second)
        time.sleep(0.05)  # the receiver's own pace, twenty times as fast
    latitude, longitude, _ = places[-1]
    said = time.monotonic()

    def arrived() -> bool:
        nonlocal said
        if time.monotonic() - said > 2:  # it stands there, and goes on saying so
            car.gps.say(track[-1])
            said = time.monotonic()
        told = car_readings(watcher)
        return abs(told.get("latitude", 0) - latitude) < 2e-5 and abs(told.get("longitude", 0) - longitude) < 2e-5

    wait_for(arrived, "the last place of the drive")
    on_the_way = {entry["readings"]["latitude"][0] for entry in watcher.all(f"{ROOT}/telemetry")}
    assert on_the_way & {round(place[0], 5) for place in places}
    wait_for(lambda: car_readings(watcher).get("battery") == 14.2, "the adapter's volts")
    wait_for(lambda: car_readings(watcher).get("ambient") == -3, "the cold")
    wait_for(lambda: abs(car_readings(watcher).get("fuel", 0) - 40) < 0.3, "the fuel")
    wait_for(lambda: watcher.latest(f"{ROOT}/telemetry").get("codes") == ["P0133"], "the fault code")
    wait_for(lambda: "latitude" not in car_readings(watcher), "a receiver that says nothing more is nowhere")


def test_replay_forgery_and_hoarding_open_nothing(car: Car, watcher: Watcher) -> None:
    """Whoever may publish, but has no key: a recorded unlock, one with another field, one kept over a reboot."""
    assert car.send("unlock")[0] == 0
    car.wait_open()
    recorded = wait_for(lambda: car.commands(watcher, "unlock"), "the command")[-1]
    car.answer(watcher, "done", 0)
    before, acks = car.closed(), len(watcher.all(f"{ROOT}/ack"))
    watcher.client.publish(f"{ROOT}/unlock", recorded, qos=1)
    again = car.answer(watcher, "done", acks)
    assert again["id"] == json.loads(recorded)["id"]  # the same answer, and no second act
    fields = json.loads(recorded)
    forged = {"ctr": fields["ctr"] + 1, "exp": car.session(watcher)["up"] + 25}
    for verb, payload, why in (
        ("unlock", json.dumps({**fields, **forged}), "bad_sig"),
        ("unlock", json.dumps({**fields, **forged, "ctr": 1 << 50}), "bad_sig"),
        ("unlock", json.dumps({**fields, "epoch": "0" * 16}), "replay"),
        ("unlock", json.dumps({**fields, "args": "again"}), "replay"),
        ("start", recorded, "malformed"),
        ("unlock", "unlock", "malformed"),
        ("unlock", "", "malformed"),
    ):
        acks = len(watcher.all(f"{ROOT}/ack"))
        watcher.client.publish(f"{ROOT}/{verb}", payload, qos=1)
        car.answer(watcher, "rejected", acks, why)
    hoarded = car.signed("unlock", watcher)
    car.node.kill()
    watcher.client.publish(f"{ROOT}/unlock", hoarded, qos=1)  # while it is away: a clean session keeps nothing
    after = len(car.node.log)
    car.node.start()
    car.node.wait_for_log("online", after=after)
    wait_for(lambda: watcher.latest(f"{ROOT}/session")["epoch"] != json.loads(hoarded)["epoch"], "another session")
    assert watcher.latest(f"{ROOT}/session")["ctr"] == json.loads(recorded)["ctr"]  # the counter outlived the power cut
    acks = len(watcher.all(f"{ROOT}/ack"))
    watcher.client.publish(f"{ROOT}/unlock", hoarded, qos=1)
    car.answer(watcher, "rejected", acks, "replay")
    assert car.closed() == before


def test_safe_states(car: Car, watcher: Watcher) -> None:
    """A car that moves is not stopped; one that stands is; the speed is what its lines say."""
    car.elm.speed, car.elm.rpm = 30, 2000
    wait_for(lambda: car_readings(watcher).get("speed") == 30, "it moves")
    before = car.closed()
    for verb in ("stop", "start"):
        status, said = car.send(verb)
        assert (status, "unsafe: moving at 30 km/h" in said) == (1, True), said
    assert car.closed() == before
    car.elm.speed, car.elm.rpm = 0, 0
    wait_for(lambda: car_readings(watcher).get("speed") == 0, "it stands")
    wait_for(lambda: car_readings(watcher).get("rpm") == 0, "its engine is off")
    status, said = car.send("stop")
    assert status == 0, said
    assert car.closed()[len(before) :] == ["stop"]
    car.wait_open()


def test_a_flood_of_forgeries_locks_remote_commands_out_and_says_so(car: Car, watcher: Watcher) -> None:
    """Five bad signatures; then the owner's own command waits as well, and the alarm is told. Last of this car."""
    before = car.closed()
    good = json.loads(car.signed("unlock", watcher))
    for i in range(5):
        forged = {**good, "ctr": good["ctr"] + 1 + i, "exp": good["exp"] + 15}
        watcher.client.publish(f"{ROOT}/unlock", json.dumps(forged), qos=1)
    alarm = wait_for(lambda: [e for e in watcher.all(f"{ROOT}/event") if e["id"] == "lockout"], "the alarm")
    assert alarm[0]["clear"] is False
    status, said = car.send("unlock")
    assert (status, "busy: locked for" in said) == (1, True), said
    assert car.closed() == before


def test_a_foreign_client_in_compatibility_mode(house: House) -> None:
    """mosquitto_pub with a bare payload: what was allowed is done, nothing else is; announced at every boot."""
    root = f"vin/{OTHER_VIN}"
    settings = ["vehicle.compat_plain=lock, horn", "simulate.parked_s=3600", "link.base_s=0.2", "vehicle.seal=true"]
    sets = [word for setting in (*settings, "report.telemetry_s=0.5") for word in ("--set", setting)]
    house.peanut("device", "add", OTHER_VIN, "--kind", "vehicle", *sets, check=True)

    def publish(verb: str, payload: str, stage: str) -> None:
        command = house.mosquitto("mosquitto_pub", "-q", "1", "-t", f"{root}/{verb}", "-m", payload)
        subprocess.run(command, check=True, timeout=60, stdin=subprocess.DEVNULL)
        heard = lambda: [a for a in watcher.all(f"{root}/ack") if (a["cmd"], a["stage"]) == (verb, stage)]  # noqa: E731
        assert wait_for(heard, f"{verb} {stage}")[0]["echo"] == payload

    with house.watch(f"{root}/#") as watcher, Node(house.home / "devices" / OTHER_VIN) as node:
        wait_for(lambda: announced(watcher, root), "the announcement")
        publish("lock", "lock", "done")
        publish("horn", "please", "done")
        publish("unlock", "unlock", "rejected")
        wait_for(lambda: watcher.latest(f"{root}/state").get("compat") == ["lock", "horn"], "the state tells it")
        sealed_telemetry(house, watcher, root)
        node.stop()
        node.start()
        said = wait_for(lambda: announced(watcher, root)[1:], "the announcement after another boot")
        assert said[0]["text"] == "obeyed without a signature: lock, horn"


def announced(watcher: Watcher, root: str) -> list[dict[str, Any]]:
    """The events that say what is obeyed unsigned."""
    return [event for event in watcher.all(f"{root}/event") if event["id"] == "compat"]


def sealed_telemetry(house: House, watcher: Watcher, root: str) -> None:
    """Nobody on the way can read where it is; who has the key can."""
    told = wait_for(lambda: watcher.latest(f"{root}/telemetry"), "telemetry")
    assert list(told) == ["sealed"]
    done = subprocess.run(
        [BIN / "peanut", "--home", house.home, "unseal", OTHER_VIN],
        input=json.dumps(told), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["readings"]["latitude"][1] == "ok"
