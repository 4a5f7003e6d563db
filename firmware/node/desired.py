"""Configuration from the gateway: tables that lie over node.json's, in two slots with a generation and a checksum.

Rule: judged whole before anything of it is in force; written to the slot that is not in force, so that a power cut
leaves the old or the new. What could cut the node off (gateway, Wi-Fi, link) is on trial: without a session the
generation before it returns. No value is told in a refusal, for it may be a secret.

In memory only while somebody asks (see node.forget).

A slot is {"gen", "hash", "trial", "set"}: trial is 0 once it has proved itself, the number of starts while on trial,
and the reason if it was given up; set, the tables.
"""

import binascii
import hashlib
import json

from node import ConfigError, config, log, slots, strictjson

MAX_SIZE = 2048  # bytes of a document
TRIES = 3  # starts on trial without a session

TABLES = ("control", "report", "link", "gateway", "wifi")
RISKY = ("link", "gateway", "wifi")
LIVE = ("report.telemetry_s", "report.state_s", "report.keep_s", "control.setpoint", "control.min", "control.max")


class Desired:
    """errors: what is wrong with the document that came last, or why a generation was given up."""

    def __init__(self, paths=("config.a", "config.b")):
        self._paths = paths
        self._slots = [slots.read(path) for path in paths]
        self._slot = None  # the one in force
        self.errors = []

    def load(self, start=True):
        """The configuration in force, as config.check gives it; `start` counts as one on trial, where there is one.

        Raises ConfigError if node.json is wrong.
        """
        body = config.read()
        for slot in sorted([s for s in self._slots if s], key=lambda s: -s["gen"]):
            self._slot = slot
            try:
                if self.trial and start:
                    self.mark("no session in %d starts" % TRIES if slot["trial"] > TRIES else slot["trial"] + 1)
                if not isinstance(slot["trial"], str):
                    return lay(body, slot["set"])
            except ConfigError as e:  # node.json is another one now
                self.mark(str(e))
            self.errors = ["gen %d: %s" % (slot["gen"], slot["trial"])]
        self._slot = None
        return config.check(body, config.NODE_JSON + ": ")

    @property
    def trial(self):
        """Whether what is in force must still prove itself by a session."""
        return self._slot is not None and self._slot["trial"] in range(1, TRIES + 2)

    def wifi(self):
        """What the gateway wants in place of wifi.json, or None."""
        table = self._slot and self._slot["set"].get("wifi")
        return table and json.dumps(table)

    def take(self, payload):
        """Judge a document and store it. Returns the configuration to be in force, or None: nothing changes.

        Raises OSError if it cannot be stored.
        """
        digest = binascii.hexlify(hashlib.sha256(payload).digest()[:8]).decode()
        newest = 0
        for slot in self._slots:
            if slot:
                if slot["hash"] == digest:  # known; if it was given up, `errors` has said so since the start
                    if slot is self._slot:
                        self.errors = []
                    return None
                newest = max(newest, slot["gen"])
        try:
            if len(payload) > MAX_SIZE:
                raise ValueError("more than %d bytes" % MAX_SIZE)
            tables = strictjson.loads(payload)
            gen = tables.pop("gen", None) if isinstance(tables, dict) else None
            if isinstance(gen, bool) or not isinstance(gen, int) or not newest < gen < 1 << 30:
                raise ValueError("gen: a whole number above %d is needed" % newest)
            cfg = lay(config.read(), tables)
        except ValueError as e:
            self.errors = str(e).split("\n")[:8]
            log.warn("config", "refused: " + self.errors[0])
            return None
        trial = int(any(name in tables for name in RISKY))
        slot = {"gen": gen, "hash": digest, "trial": trial, "set": tables}
        self._write(1 if self._slot and self._slot is self._slots[0] else 0, slot)
        self.errors = []
        self._slot = slot
        log.info("config", "generation %d stored" % gen)
        return cfg

    def told(self):
        """For <root>/config/reported."""
        slot = self._slot or {"gen": 0, "hash": None}
        return {"gen": slot["gen"], "hash": slot["hash"], "trial": self.trial, "errors": self.errors}

    def mark(self, trial):
        """The trial of what is in force is over: 0, there is a session; or a reason, and the next `load` gives what was
        before."""
        slot = self._slot
        slot["trial"] = trial
        log.info("config", "generation %d: %s" % (slot["gen"], trial or "in force"))
        try:
            self._write(self._slots.index(slot), slot)
        except OSError as e:
            log.error("config", "cannot be stored (%s)" % e)

    def _write(self, i, slot):
        slots.write(self._paths[i], slot)
        self._slots[i] = slot


def lay(body, tables):
    """The configuration that node.json's `body` and these tables make. Raises ConfigError with every fault found."""
    body = dict(body)
    for key in tables:
        if key not in TABLES:
            raise ConfigError(key + ": unknown key")
        if not isinstance(tables[key], dict):
            raise ConfigError(key + ": must be a table")
        if key == "wifi":
            try:
                config.networks(json.dumps(tables[key]))
            except ValueError as e:
                raise ConfigError("wifi: %s" % e)
        else:
            body[key] = dict(body.get(key, {}))
            body[key].update(tables[key])
    return config.check(body)


def live(old, new):
    """Put `new` in force in `old`, as far as that goes without a restart. Returns whether that was all."""
    whole = True
    for table in TABLES[:4]:
        for key in new.get(table, ()):
            if new[table][key] != old[table].get(key):
                if "%s.%s" % (table, key) in LIVE:
                    old[table][key] = new[table][key]
                else:
                    whole = False
    return whole


def judge(payload, cfg):
    """Take a document, and put in force in `cfg` what can be. Returns (what is to be reported, whether the rest needs
    a restart)."""
    d = Desired()
    restart = False
    try:
        d.load(False)
        new = d.take(payload)
        restart = new is not None and not live(cfg, new)
    except (OSError, ValueError, MemoryError) as e:  # flash is full, node.json was damaged, no room to judge it
        d.errors = ["busy: %s" % e]
    return d.told(), restart


def settle(trial):
    """The end of a trial, see Desired.mark. Returns as `judge`."""
    d = Desired()
    d.load(False)
    d.mark(trial)
    return d.told(), trial != 0
