"""Checks of the configuration from the gateway, in the current directory: the same file on CPython and MicroPython.

Rule: as in pure_checks.py. node.json is written by the first lines of each check.
"""

import json
import os

from node import config, desired, store
from node.desired import Desired

BODY = {
    "format": 1,
    "name": "peanut",
    "kind": "greenhouse",
    "root": "/plant/peanut",
    "gateway": {"host": "old.local", "port": 8883},
    "board": {"name": "sim", "chip": "unix", "outputs": {"heater": {}, "vent": {}}, "sensors": {"temperature": {}}},
    "control": {"setpoint": 18, "min": 2, "max": 40},
    "simulate": {},
}


def fresh(**more):
    """A node that was never configured: (Desired, its configuration)."""
    for name in os.listdir("."):
        if name.startswith("config."):
            os.remove(name)
    body = dict(BODY)
    body.update(more)
    with open("node.json", "w") as f:
        f.write(json.dumps(body))
    return again()


def again():
    """A start: (Desired, the configuration in force)."""
    d = Desired()
    return d, d.load()


def doc(gen, **tables):
    tables["gen"] = gen
    return json.dumps(tables).encode()


def check_no_slot_is_node_json():
    d, cfg = fresh()
    assert cfg["control"]["setpoint"] == 18
    assert d.told() == {"gen": 0, "hash": None, "trial": False, "errors": []}
    assert not d.trial


def check_a_generation_is_laid_over_and_survives():
    d, _ = fresh()
    new = d.take(doc(1, control={"setpoint": 21, "max": 30}, report={"telemetry_s": 5}))
    assert (new["control"]["setpoint"], new["control"]["min"], new["report"]["telemetry_s"]) == (21, 2, 5)
    d, cfg = again()
    assert cfg == new
    told = d.told()
    assert (told["gen"], told["trial"], told["errors"], len(told["hash"])) == (1, False, [], 16)
    assert d.take(doc(1, control={"setpoint": 21, "max": 30}, report={"telemetry_s": 5})) is None
    assert d.errors == []
    new = d.take(doc(5, control={"setpoint": 22}))  # a generation is whole: what it does not name is node.json's
    assert (new["control"]["setpoint"], new["control"]["max"], new["report"]["telemetry_s"]) == (22, 40, 60)
    for gen in (6, 7, 8):
        d.take(doc(gen, control={"setpoint": gen}))
        d, cfg = again()
        assert cfg["control"]["setpoint"] == gen
    d, cfg = fresh()
    assert cfg["control"]["setpoint"] == 18


def check_refusals_name_the_key_and_change_nothing():
    d, _ = fresh()
    before = d.take(doc(3, control={"setpoint": 20}))
    for payload, said in (
        (doc(4, control={"setpoint": 99}), "control.setpoint: 99 is not within -20 to 44"),
        (doc(4, control={"setpoint": 1}), "control.setpoint: must lie between"),
        (doc(4, control={"colour": 1}), "control.colour: unknown key"),
        (doc(4, colour={}), "colour: unknown key"),
        (doc(4, board={}), "board: unknown key"),
        (doc(4, simulate={}), "simulate: unknown key"),
        (doc(4, name="other"), "name: unknown key"),
        (doc(4, control=[]), "control: must be a table"),
        (doc(4, gateway={"port": 0}), "gateway.port: 0"),
        (doc(4, link={"base_s": 100}), "link.base_s"),
        (doc(3, control={"setpoint": 21}), "gen: a whole number above 3 is needed"),
        (doc(2), "gen:"),
        (doc(True), "gen:"),
        (doc(1.5), "gen:"),
        (doc("4"), "gen:"),
        (doc(1 << 30), "gen:"),
        (b"{}", "gen:"),
        (b"[]", "gen:"),
        (b"", "unexpected end"),
        (b'{"gen":4,"gen":5}', "key given twice"),
        (b'{"gen":4,}', "quotes"),
        (b"\xff", "UTF-8"),
        (b'{"gen":4,"control":' + b" " * desired.MAX_SIZE + b"{}}", "more than 2048 bytes"),
    ):
        assert d.take(payload) is None, payload
        assert said in d.errors[0], (said, d.errors)
        assert d.told()["gen"] == 3
        assert again()[1] == before
    several = doc(4, control={"setpoint": 99, "a": 1, "min": -99})
    assert d.take(several) is None
    assert len(d.errors) == 3
    assert d.take(doc(4, control={"setpoint": 23})) is not None
    assert d.errors == []


def check_network_settings_are_on_trial():
    d, _ = fresh()
    d.take(doc(1, control={"setpoint": 20}))
    new = d.take(doc(2, gateway={"host": "new.local"}))
    assert (new["gateway"]["host"], new["gateway"]["port"]) == ("new.local", 8883)
    d, cfg = again()
    assert (d.trial, d.told()["trial"], cfg["gateway"]["host"]) == (True, True, "new.local")
    d.mark("no session in 600 s")
    d, cfg = again()
    assert not d.trial
    assert (cfg["gateway"]["host"], cfg["control"]["setpoint"]) == ("old.local", 20)
    assert (d.told()["gen"], d.told()["errors"]) == (1, ["gen 2: no session in 600 s"])
    # The gateway still wants it (it is retained), and does not get it again.
    assert d.take(doc(2, gateway={"host": "new.local"})) is None
    assert (d.told()["gen"], d.told()["errors"]) == (1, ["gen 2: no session in 600 s"])
    assert again()[1] == cfg
    new = d.take(doc(3, gateway={"host": "newer.local"}))
    d, cfg = again()
    assert d.trial
    d.mark(0)
    d, cfg = again()
    assert (d.trial, cfg["gateway"]["host"], d.told()["errors"]) == (False, "newer.local", [])


def check_a_trial_that_never_lives_long_enough():
    """Starts that end before the trial's time is over, a crash in each: after three the old settings return."""
    d, _ = fresh()
    d.take(doc(1, link={"connect_s": 1}))
    for _ in range(desired.TRIES):
        d, cfg = again()
        assert (d.trial, cfg["link"]["connect_s"]) == (True, 1)
    d, cfg = again()
    assert (d.trial, cfg["link"]["connect_s"]) == (False, 30)
    assert d.told()["errors"] == ["gen 1: no session in 3 starts"]


def check_both_given_up():
    d, _ = fresh()
    for gen in (1, 2, 3):
        d.take(doc(gen, gateway={"host": "g" + str(gen)}))
        d.mark("no session in 600 s")
        d, cfg = again()
        assert cfg["gateway"]["host"] == "old.local"
        assert d.told()["gen"] == 0


def check_secrets_are_not_told():
    d, _ = fresh()
    secret = "correct horse"
    good = {"format": 1, "networks": [{"ssid": "farm", "password": secret}]}
    for table in (
        {"format": 1, "networks": [{"ssid": "", "password": secret}]},
        {"format": 1, "networks": [{"ssid": 5, "password": secret}]},
        {"format": 1, "networks": secret},
        {"format": 2, "networks": [{"ssid": "farm", "password": secret}]},
        {"networks": []},
    ):
        assert d.take(doc(1, wifi=table)) is None
        assert d.errors[0].startswith("wifi: "), d.errors
        assert secret not in json.dumps(d.told())
    assert d.take(doc(1, wifi=good)) is not None
    assert secret not in json.dumps(d.told())
    d, cfg = again()
    assert d.trial
    assert json.loads(d.wifi()) == good
    assert secret not in json.dumps(cfg)


def check_damaged_slots_are_as_good_as_none():
    d, _ = fresh()
    d.take(doc(1, control={"setpoint": 20}))
    d.take(doc(2, control={"setpoint": 21}))
    newest = "config.b"
    with open(newest, "rb") as f:
        whole = f.read()
    assert b"21" in whole
    for damaged in (b"", whole[:-1], whole[:20], b"x" * 100, whole.replace(b"21", b"29"), b"zzzzzzzz{}"):
        with open(newest, "wb") as f:
            f.write(damaged)
        assert again()[1]["control"]["setpoint"] == 20


def check_another_bundle_under_old_slots():
    """node.json was written anew, and a slot does not fit it any more: given up, and said."""
    d, _ = fresh()
    d.take(doc(1, control={"setpoint": 35}))
    body = dict(BODY, control={"setpoint": 18, "min": 2, "max": 30})
    with open("node.json", "w") as f:
        f.write(json.dumps(body))
    d, cfg = again()
    assert cfg["control"]["setpoint"] == 18
    assert d.told()["errors"][0].startswith("gen 1: control.setpoint")
    with open("node.json", "w") as f:
        f.write("{")
    try:
        again()
        said = ""
    except config.ConfigError as e:
        said = str(e)
    assert said.startswith("node.json: "), said


def check_what_is_live():
    d, cfg = fresh()
    assert desired.live(cfg, d.take(doc(1, report={"telemetry_s": 5}, control={"setpoint": 20, "max": 30})))
    assert (cfg["report"]["telemetry_s"], cfg["control"]["setpoint"], cfg["control"]["max"]) == (5, 20, 30)
    assert not desired.live(cfg, d.take(doc(2, control={"hysteresis": 2})))
    d, cfg = fresh()
    assert not desired.live(cfg, d.take(doc(1, gateway={"host": "new.local"})))


def check_a_full_disk_is_told():
    d, cfg = fresh()
    real = store.replace

    def full(path, data):
        raise OSError(28)

    store.replace = full
    try:
        d.take(doc(1, control={"setpoint": 20}))
        said = False
    except OSError:
        said = True
    told, restart = desired.judge(doc(1, control={"setpoint": 20}), cfg)
    store.replace = real
    assert said
    assert told["errors"][0].startswith("busy: "), told
    assert not restart
    assert again()[1] == cfg
    assert d.take(doc(1, control={"setpoint": 20})) is not None  # the same again, once there is room


class Nvs:
    """Stands for esp32.NVS."""

    def __init__(self):
        self.blobs = {}
        self.committed = {}

    def set_blob(self, key, data):
        self.blobs[key] = bytes(data)

    def get_blob(self, key, buf):
        if key not in self.committed:
            raise OSError(-4354)  # ESP_ERR_NVS_NOT_FOUND
        data = self.committed[key]
        buf[: len(data)] = data
        return len(data)

    def commit(self):
        self.committed = dict(self.blobs)


def check_the_second_home_of_the_set_point():
    """NVS answers when the file is gone or spoilt; the file stands above it; without both, the default."""
    nvs = Nvs()
    store.Store("s.json", nvs).put("setpoint", 21)
    for damage in (None, b"", b"{", b"[]"):
        if damage is None:
            os.remove("s.json")
        else:
            with open("s.json", "wb") as f:
                f.write(damage)
        assert store.Store("s.json", nvs).number("setpoint", 2, 40, 18) == 21
        assert store.Store("s.json").number("setpoint", 2, 40, 18) == 18
    store.Store("s.json", nvs).put("setpoint", 22)
    nvs.committed = {"state": b'{"setpoint": 5}'}
    assert store.Store("s.json", nvs).number("setpoint", 2, 40, 18) == 22
    nvs.committed = {"state": b"\xff\x00"}
    os.remove("s.json")
    assert store.Store("s.json", nvs).number("setpoint", 2, 40, 18) == 18


def checks():
    """(name, function) of every check in this file."""
    everything = globals()
    return [(name, everything[name]) for name in sorted(everything) if name.startswith("check_")]


if __name__ == "__main__":
    for _name, _check in checks():
        _check()
        print("ok", _name)
