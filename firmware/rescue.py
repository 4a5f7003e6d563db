"""What runs when the application cannot: it keeps the plants, says what is wrong, and waits for somebody to mend it.

Rule: it leans on nothing that may be what is broken. The network is the stock image's own, umqtt.simple and a few lines
here; of ours it takes what knows no network: the control (node/control.py and the drivers), and does without if that
fails too: then the outputs stay safe; and the update (node/update.py), and does without that as well. umqtt.simple
waits where it should not, so the watchdog ends what hangs, and rescue begins again.

It holds the fallback set point of the configuration, says `online` with `rescue` and the reason, sends the last log
lines, answers every command with `rejected`, but obeys cmd/restart, and takes an update that is signed. After AGAIN_S
the application gets another try.
"""

import binascii
import json
import sys
import time

AGAIN_S = 3600
LAST_TRY = 5  # crashes: with one more, rescue is back
CONNECT_S = 60  # between two tries
ANSWER_S = 20  # for whom umqtt.simple connects to, at each of its steps
JOIN_S = 15  # for the radio, in each try
STATE_S = 60
KEEPALIVE_S = 120
WATCHDOG_MS = 60000
BENCH_MS = 3600000
MESSAGES = 8  # read in a turn, at the most: the plants do not wait for an update
WORK_MS = 500  # of an update in a turn
SELDOM = ("node.desired", "node.config", "node.slots", "node.strictjson", "node.schedule", "drivers.opening", "choice")
OFFERS = (10, 6000)  # of updates at once, and ms to one more, as node/assembly.py has it
FLOOR = 1767225600  # 2026-01-01, as node/__init__.py has it

_EPOCH = 946684800 if time.gmtime(0)[0] == 2000 else 0


def run(box, why=None):
    """box: node.blackbox.BlackBox, or None where there is not even that. Ends in a reset."""
    why = why or box.was
    print("rescue: " + why)
    if box is None and _returns(why):
        _reset()
    dog = None
    # What hung may hang again, and each start begins the heater's time off anew: after a hang the plants come first.
    hung = why.startswith("watchdog")
    try:
        import machine

        dog = machine.WDT(timeout=WATCHDOG_MS) if hasattr(machine, "WDT") else None
        hung = hung or machine.reset_cause() == machine.WDT_RESET
    except (ImportError, AttributeError):
        pass
    cfg = {}
    try:
        with open("node.json") as f:
            cfg = json.load(f)
    except Exception as e:
        print("rescue: node.json:", e)
    wifi = None
    try:  # the gateway may have moved, and told so
        from node.desired import Desired

        asked = Desired()
        cfg = asked.load(False)
        wifi = asked.wifi()
    except Exception as e:
        print("rescue: going by node.json:", e)
    house = _House(cfg)
    try:
        from node import forget

        forget(*SELDOM)
    except Exception as e:
        print("rescue: memory:", e)
    line = _Line(cfg, wifi, why, box.lines if box else "", house)
    if hung:
        line.first = 600  # seconds to the first try: the heater needs its time off, and on
    try:
        _serve(house, line, dog)
    except KeyboardInterrupt:  # whoever works there gets an hour: the watchdog cannot be stopped
        house.off()
        if dog is not None:
            machine.WDT(timeout=BENCH_MS)
        raise
    house.off()
    line.drop()
    if box is not None:
        box.crashes = 0 if line.restart else LAST_TRY
        box.ending("rescue is over", planned=True)
    _reset()


def _returns(why):
    """Whether what could not even be imported came over the air: then what was before it returns at the next start."""
    try:
        import choice

        return choice.back(why)
    except Exception as e:
        print("rescue: choice:", e)
        return False


def _serve(house, line, dog):
    turns = 0
    while turns < AGAIN_S and not line.restart:
        turns += 1
        if dog is not None:
            dog.feed()
        house.step()
        try:
            line.step(turns)
        except Exception as e:
            print("rescue: link: %s: %s" % (type(e).__name__, e))
            line.drop()
        time.sleep(1)


def _reset():
    import machine

    if hasattr(machine, "reset"):
        machine.reset()
    sys.exit(3)  # the unix port: whoever started it starts it again


class _House:
    """The control at the fallback set point; without it, if it fails."""

    def __init__(self, cfg):
        self.control = self._house = None
        self._outputs = ()
        try:
            from node import clock, config
            from profiles import greenhouse

            whole = config.check(cfg)
            self._time = clock.LoopTime(whole["simulate"]["speed"] if "simulate" in whole else 1)
            self._house = greenhouse.house(whole, self._time.now)
            self._outputs = sorted(whole["board"]["outputs"])
            self._sensors = [name for name in ("temperature", "override", "tank") if name in whole["board"]["sensors"]]
            control = whole["control"]
            control["schedule"] = control["light"] = None  # there is no clock to trust
            fallback = control["setpoint"] if control["fallback"] is None else control["fallback"]
            self.control = greenhouse.climate(whole, self._time.now, fallback, -1)
        except Exception as e:
            self._fail(e)

    def step(self):
        if self.control is None:
            return
        try:
            now = self._time.turn()
            self.control.step(now, {name: self._house.read(name, now) for name in self._sensors})
            self.control.move(self._house.write, now)
        except Exception as e:
            self._fail(e)

    def _fail(self, e):
        print("rescue: control: %s: %s" % (type(e).__name__, e))
        self.off()
        self.control = None

    def off(self):
        try:
            for name in self._outputs:
                self._house.write(name, False, self._time.now)
        except Exception as e:
            print("rescue: off:", e)

    def idle(self):
        return self.control is None or not self.control.heater.on

    def reason(self):
        return self.control.reason if self.control is not None else "no control: outputs are off"


class _Updates:
    """Updates over the air. To node.update.Job it is what node.app.App is in the application; a trial is the
    application's alone: rescue proves nothing."""

    def __init__(self, cfg, house, line):
        self._cfg = cfg
        self._house = house
        self._line = line
        self._job = self._clock = None
        try:
            from node import clock, limit

            self._changes = {"ota": limit.Bucket(OFFERS[0], OFFERS[1], clock.now())}
            self._clock = clock
        except Exception as e:
            self._fail(e)

    def _fail(self, e):
        print("rescue: update: %s: %s" % (type(e).__name__, e))
        self._job = None

    def topics(self):
        """What is to be subscribed to for them."""
        return ("/ota/desired", "/ota/chunk") if self._clock else ()

    def take(self, verb, payload):
        """A message on one of these."""
        try:
            if self._job is None and verb == "desired":
                from node import update

                self._job = update.Job(self)
            if self._job is not None:
                (self._job.desired if verb == "desired" else self._job.chunk)(payload, self._clock.now())
        except Exception as e:
            self._fail(e)

    def step(self):
        """A turn. Returns what is to be told, as node.update.Job.tell does."""
        told = None
        try:
            begun = self._clock and self._clock.now()
            while self._job is not None and self._clock.since(begun) < WORK_MS:
                soon = self._job.step(self._clock.now())
                told = self._job.tell() or told
                if self._job.over:
                    self._job = None
                if not soon:
                    break
        except Exception as e:
            self._fail(e)
        return told

    def _idle(self):
        return self._house.idle()

    def _ailing(self):
        return self._house.control.faults if self._house.control is not None else []

    def restart(self, why):
        self._line.restart = True


class _Line:
    """Wi-Fi, time, umqtt.simple; one try in CONNECT_S."""

    def __init__(self, cfg, wifi, why, lines, house):
        self._cfg = cfg
        self._wifi = wifi  # in place of wifi.json, or None
        self._why = why
        self._lines = lines
        self._house = house
        self._client = None
        self._tries = 0
        self._heard = False
        self.first = 0  # turn from which it tries
        self.restart = False
        self.updates = _Updates(cfg, house, self)

    def step(self, turn):
        if self._client is None:
            if turn >= self.first and turn % CONNECT_S == 2:
                self._tries += 1
                self._join()
                self._connect()
            return
        for _ in range(MESSAGES):
            self._heard = False
            self._client.check_msg()
            if not self._heard:
                break
        told = self.updates.step()
        if told:
            self._client.publish(self._cfg["root"] + "/ota/status", told[0], told[1], 1 if told[1] else 0)
        if turn % (KEEPALIVE_S // 4) == 0:
            self._client.ping()
        if turn % STATE_S == 0:
            self._state()

    def drop(self):
        if self._client is not None:
            try:
                self._client.sock.close()
            except Exception:
                pass
        self._client = None

    def _join(self):
        try:
            import network
        except ImportError:
            return
        wlan = network.WLAN(network.STA_IF)
        if wlan.isconnected():
            return
        try:
            if self._wifi is None:
                with open("wifi.json") as f:
                    self._wifi = f.read()
        except OSError:  # a node that needs no Wi-Fi has none
            return
        networks = json.loads(self._wifi)["networks"]
        one = networks[self._tries % len(networks)]
        wlan.active(False)
        wlan.active(True)
        wlan.connect(one["ssid"], one.get("password") or None)
        for _ in range(JOIN_S):
            time.sleep(1)
            self._house.step()  # the plants do not wait for the radio
            if wlan.isconnected():
                return
        raise OSError("Wi-Fi does not let us in")

    def _clock(self, host):
        """After a power cut the clock is not set; TLS wants it, and only the gateway can tell it."""
        if time.time() + _EPOCH > FLOOR:
            return
        import socket

        import machine

        gateway = self._cfg["gateway"]
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            s.settimeout(2)
            s.sendto(b"\x23" + bytes(47), socket.getaddrinfo(host, gateway.get("time_port") or gateway["port"])[0][-1])
            told = int.from_bytes(s.recv(48)[40:44], "big") - 2208988800
        finally:
            s.close()
        if FLOOR < told < FLOOR + 15 * 31557600:
            t = time.gmtime(told - _EPOCH)
            machine.RTC().datetime((t[0], t[1], t[2], t[6], t[3], t[4], t[5], 0))

    def _connect(self):
        import socket as stock
        import ssl

        from umqtt import simple

        cfg, gateway = self._cfg, self._cfg["gateway"]
        host = gateway["second"] if gateway.get("second") and self._tries % 2 == 0 else gateway["host"]
        self._clock(host)
        ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        ctx.verify_mode = ssl.CERT_REQUIRED
        cert, key, roots = _papers()
        ctx.load_cert_chain(cert, key)
        for root in roots:
            ctx.load_verify_locations(cadata=root)

        class Tls:
            """What umqtt.simple is given as `ssl=`; an old one ignores that and asks a module `ussl`, which is this
            too. So there is no umqtt.simple that connects without verification."""

            @staticmethod
            def wrap_socket(sock, **_):
                return ctx.wrap_socket(sock, server_hostname=host)

        class Sockets:
            """What umqtt.simple takes for `socket`: none that waits for ever for a gateway that hangs."""

            getaddrinfo = stock.getaddrinfo

            @staticmethod
            def socket():
                made = stock.socket()
                made.settimeout(ANSWER_S)
                return made

        simple.socket = Sockets
        sys.modules["ussl"] = Tls
        client = simple.MQTTClient(cfg["name"], host, gateway["port"], keepalive=KEEPALIVE_S, ssl=Tls)
        root = cfg["root"]
        client.set_callback(self._message)
        will = {"state": "offline", "why": "connection lost", "kind": cfg["kind"]}
        client.set_last_will(root + "/status", json.dumps(will), True, 1)
        # The session stays: what was sent meanwhile gets an answer, if only a refusal. A vehicle's does not, ever.
        client.connect(cfg["kind"] == "vehicle")
        self._client = client
        for topic in ("/cmd/+",) + self.updates.topics():
            client.subscribe(root + topic, 1)
        status = {"state": "online", "rescue": self._why, "kind": cfg["kind"]}
        client.publish(root + "/status", json.dumps(status), True, 1)
        print("rescue: online at %s:%d" % (host, gateway["port"]))
        self._state()
        if self._lines:
            lines, self._lines = self._lines, ""
            client.publish(root + "/log", json.dumps({"was": self._why, "lines": lines.strip().split("\n")}))

    def _state(self):
        c = self._house.control
        body = {"mode": "rescue", "reason": self._house.reason(), "faults": ["rescue"]}
        if c is not None:
            body.update({"setpoint": c.setpoint, "temperature": c.temperature, "heater": c.heater.on})
            body["vent"] = c.vent.on
        self._client.publish(self._cfg["root"] + "/state", json.dumps(body), True, 1)

    def _message(self, topic, payload):
        self._heard = True
        sort, verb = topic.decode().rsplit("/", 2)[1:]
        if sort == "ota":
            self.updates.take(verb, payload)
            return
        ack = {"cmd": verb, "stage": "rejected", "why": "busy: this node is in rescue (%s)" % self._why}
        try:
            body = json.loads(payload)
            ack["id"] = str(body["id"])[:64]
            if verb == "restart":
                self.restart = True
                ack = {"cmd": verb, "stage": "done", "id": ack["id"]}
        except (ValueError, KeyError, TypeError):
            ack["echo"] = "".join([chr(c) if 32 <= c < 127 else "?" for c in payload[:128]])
        self._client.publish(self._cfg["root"] + "/ack", json.dumps(ack))


def _papers():
    """(certificate, key, roots) in force, in DER: the newest that the gateway has sent and a session has proved (see
    node/keys.py), or the bundle where that is newer."""
    best = (_read("cert.der"), _read("key.der"), [_read("ca.der")])
    newest = 0
    for name in ("cert.a", "cert.b"):
        try:
            data = _read(name)
            slot = json.loads(data[8:])
            if int(data[:8], 16) != binascii.crc32(data[8:]) or slot["trial"] != 0 or slot["gen"] < newest:
                continue
            der = [binascii.a2b_base64(part) for part in [slot["cert"], slot["key"]] + slot["ca"]]
            if _since(der[0]) >= _since(best[0]):
                newest, best = slot["gen"], (der[0], der[1], der[2:])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none, or not whole
    return best


def _since(cert):
    """When a certificate begins, as text that can be compared."""
    at = cert.find(b"\x30\x1e\x17\x0d")
    return cert[at + 4 : at + 17]


def _read(path):
    with open(path, "rb") as f:
        return f.read()
