"""Checks of what stands between the node and its network, on CPython and on MicroPython alike: the black box, Wi-Fi,
the time, the pulses. The same file, both interpreters; run like pure_checks.py.
"""

import json

from node import clock, config, dns, keys, powerup, sntp, ticks, wifi
from node.blackbox import ACTUATORS, CRASHES_TO_RESCUE, HEALTHY_S, SIZE, BlackBox
from node.command import parse
from node.recent import RECENT, Recent
from node.supervisor import Supervisor


class Ram:
    """RTC memory: 2048 bytes that outlive a reset."""

    def __init__(self):
        self.data = b""

    def __call__(self, data=None):
        if data is None:
            return self.data
        self.data = bytes(data)
        return None


def check_a_power_cut_is_no_crash_and_leaves_nothing():
    ram = Ram()
    for cause in ("power", "power", "power", "power", "power", "power", "power"):
        box = BlackBox(ram, cause)
        assert (box.was, box.crashes, box.starts, box.lines, box.before) == ("power", 0, 1, "", None)


def check_crashes_are_counted_by_their_cause():
    """Watchdog, panic and soft reset count; a planned reset and sleep do not, and do not forgive either."""
    ram = Ram()
    BlackBox(ram, "power")
    expected = 0
    for cause, planned, counts in (
        ("watchdog", False, 1),
        ("reset", False, 1),
        ("reset", True, 0),
        ("soft", False, 1),
        ("sleep", False, 0),
        ("watchdog", True, 1),  # it hung on the way out
        ("reset", False, 1),
        ("reset", False, 1),
    ):
        if planned:
            BlackBox(ram, "sleep").ending("configuration", planned=True)
        box = BlackBox(ram, cause)
        expected += counts
        assert box.crashes == expected, (cause, planned, box.crashes)
    assert expected == CRASHES_TO_RESCUE


def check_health_ends_a_row_of_crashes():
    ram = Ram()
    BlackBox(ram, "power")
    for _ in range(4):
        box = BlackBox(ram, "watchdog")
    box.note(HEALTHY_S - 1, 40000, 0)
    assert BlackBox(ram, "watchdog").crashes == 5
    box = BlackBox(ram, "watchdog")
    assert box.crashes == 6
    box.note(HEALTHY_S, 40000, 0)
    assert BlackBox(ram, "watchdog").crashes == 1


def check_the_last_life_is_told():
    ram = Ram()
    box = BlackBox(ram, "power")
    box.line("12:00:00 info app one")
    box.line("12:00:01 warn link two \u00e9\n\x1b")
    box.keep(actuators=b"\x01\x02\x00\x03", ids=b"12345678")
    box.note(77, 40000, 30000)
    box.ending("no progress of link for 121 s")
    after = BlackBox(ram, "watchdog")
    assert after.was == "watchdog: no progress of link for 121 s"
    assert after.before == (77, 40000, 30000)
    assert after.lines.split("\n")[0] == "12:00:00 info app one"
    assert after.lines.split("\n")[1].startswith("12:00:01 warn link two ??")
    assert "\x1b" not in after.lines
    assert after.actuators == b"\x01\x02\x00\x03"
    assert after.ids[:8] == b"12345678"
    assert after.starts == 2
    # What a life did not end itself is not told of the one before it.
    assert BlackBox(ram, "reset").was == "crash: no word of it"
    assert BlackBox(ram, "reset").actuators == b"\x01\x02\x00\x03"
    BlackBox(ram, "reset").line("12:00:02 error app the last word")
    assert BlackBox(ram, "watchdog").lines == "12:00:02 error app the last word\n"


def check_any_damage_is_as_good_as_nothing():
    ram = Ram()
    box = BlackBox(ram, "power")
    box.line("12:00:00 info app hello")
    box.ending("x")
    good = ram.data
    for at in range(0, SIZE, 13):
        ram.data = good[:at] + bytes((good[at] ^ 0x10,)) + good[at + 1 :]
        box = BlackBox(ram, "watchdog")
        assert (box.was, box.crashes, box.lines, box.actuators) == ("power", 0, "", b""), at
    for data in (good[:-1], b"", b"\xff" * 2048, bytes(2048)):
        ram.data = data
        assert BlackBox(ram, "watchdog").lines == ""


def check_lines_are_bounded_and_the_newest_kept():
    ram = Ram()
    box = BlackBox(ram, "power")
    for i in range(1000):
        box.line("12:00:00 info app line " + "x" * (i % 90) + f" {i}")
    assert len(ram.data) == SIZE <= 2048
    lines = BlackBox(ram, "reset").lines.strip().split("\n")
    assert len(lines) >= 8
    assert [int(line.split(" ")[-1]) for line in lines] == list(range(1000 - len(lines), 1000))
    box.keep(actuators=bytes(ACTUATORS + 1))  # too long: not kept, nothing overwritten
    assert BlackBox(ram, "reset").actuators == b""


def order(i, name="UpdateTemperature"):
    return parse(name, json.dumps({"temperature": 15, "id": f"id-{i}"}).encode())


def check_commands_are_known_again_after_a_reset():
    """The same id and content: done, not again; other content: another command. Refused ones are judged anew."""
    recent = Recent()
    for i in range(RECENT + 4):
        recent.note(order(i), "accepted" if i % 5 else "rejected")
    ram = Ram()
    BlackBox(ram, "power").keep(ids=recent.export())
    known = Recent(BlackBox(ram, "watchdog").ids)
    for i in range(RECENT + 4):
        found = known.find(order(i))
        if i < 4 or not i % 5:
            assert found is None, i
        else:
            assert found[1:] == [order(i).crc, "done", None]
            assert found[1] != parse("UpdateTemperature", b'{"temperature":16,"id":"id-%d"}' % i).crc
    assert Recent(bytes(128)).export() == b""


# -- Wi-Fi ---------------------------------------------------------------------------------------------------------


class Wlan:
    """A station whose world the check moves; it keeps ESP32's rule that `connect` while connecting is an error."""

    def __init__(self, air):
        self.air = air  # {ssid: (password, rssi)}
        self.on = False
        self.joined = self.trying = None
        self.now = 0
        self.calls = []
        self.at = []  # when each of them came

    def _called(self, what):
        self.calls.append(what)
        self.at.append(self.now)

    def active(self, on):
        self._called("on" if on else "off")
        self.on = on
        self.joined = self.trying = None

    def connect(self, ssid, password):
        self._called(ssid)
        if self.trying is not None or self.joined is not None or not self.on:
            raise OSError("Wifi Internal Error")
        self.trying = (ssid, password)

    def disconnect(self):
        self._called("disconnect")
        self.joined = self.trying = None

    def scan(self):
        return [(ssid.encode(), b"", 1, self.air[ssid][1], 3, False) for ssid in self.air]

    def turn(self):
        """What the radio does in a while: a known network with the right password lets in."""
        want = self.joined or self.trying
        good = want is not None and want[0] in self.air and self.air[want[0]][0] == want[1]
        self.joined = want if good else None
        if self.joined:
            self.trying = None

    def isconnected(self):
        return self.joined is not None

    def ifconfig(self):
        return ("192.0.2.7", "", "", "")

    def config(self, what):
        return {"channel": 6}[what]

    def status(self, what=None):
        if what == "rssi":
            return -60
        if self.trying is None:
            return 1010 if self.joined else 200
        return 201 if self.trying[0] not in self.air else 202


def drive(w, radio, now, ms):
    end = now + ms
    while now < end:
        radio.now = now
        now += max(1, w.step(now & (ticks.PERIOD - 1)))
        radio.turn()
    return now


NETWORKS = [("house", "secret"), ("barn", "")]


def check_wifi_joins_the_strongest_and_comes_back():
    for start in (0, ticks.PERIOD - 5000):  # the tick counter may wrap meanwhile
        air = {"house": ("secret", -80), "barn": (None, -50), "other": ("x", -10)}
        radio = Wlan(air)
        w = wifi.Wifi(radio, NETWORKS, start)
        now = drive(w, radio, start, 5000)
        assert w.up
        assert radio.joined[0] == "barn"
        air.pop("barn")
        now = drive(w, radio, now, 60000)
        assert w.up
        assert w.lost == 1
        assert radio.joined == ("house", "secret")
        assert w.facts() == {"rssi": -60, "channel": 6, "wifi_lost": 1, "wifi_why": 200}
        air.clear()
        drive(w, radio, now, 5000)
        assert w.facts() == {"rssi": None, "channel": None, "wifi_lost": 2, "wifi_why": 200}


def check_wifi_never_connects_twice_without_a_pause():
    radio = Wlan({})
    w = wifi.Wifi(radio, NETWORKS, 0)
    drive(w, radio, 0, 600000)
    tries = [i for i, call in enumerate(radio.calls) if call in ("house", "barn")]
    assert len(tries) > 20
    for i in tries:
        assert radio.calls[i - 1] in ("disconnect", "on"), radio.calls[max(0, i - 3) : i + 1]
        assert radio.calls[i - 1] == "on" or radio.at[i] - radio.at[i - 1] >= wifi.PAUSE_MS, i
    assert {"house", "barn"} <= set(radio.calls)


def check_wifi_switches_the_radio_off_and_on_after_its_rounds():
    radio = Wlan({"house": ("changed", -40), "barn": ("too", -40)})
    w = wifi.Wifi(radio, NETWORKS, 0)
    drive(w, radio, 0, 600000)
    assert w.facts() == {"rssi": None, "channel": None, "wifi_lost": 0, "wifi_why": 202}
    first = radio.calls.index("off")
    assert radio.calls[first + 1] == "on"
    assert radio.at[first + 1] - radio.at[first] >= wifi.OFF_MS
    tries = [call for call in radio.calls[:first] if call in ("house", "barn")]
    assert len(tries) == wifi.ROUNDS * len(NETWORKS)
    assert radio.calls[first + 1] == "on"
    assert not w.up


def check_wifi_asks_for_a_restart_only_after_half_an_hour_without():
    radio = Wlan({})
    w = wifi.Wifi(radio, NETWORKS, 0)
    now = drive(w, radio, 0, wifi.HOPELESS_MS - 60000)
    assert not w.hopeless
    now = drive(w, radio, now, 120000)
    assert w.hopeless
    radio.air["house"] = ("secret", -50)
    now = drive(w, radio, now, 120000)
    assert w.up
    assert not w.hopeless
    radio.air.clear()
    drive(w, radio, now, 60000)
    assert not w.hopeless  # counted from the loss


def check_wifi_survives_a_radio_that_raises():
    radio = Wlan({"house": ("secret", -50)})
    w = wifi.Wifi(radio, NETWORKS, 0)
    real = radio.connect
    faults = []

    def connect(*a):
        if len(faults) < 5:
            faults.append(1)
            raise OSError("Wifi Internal Error")
        real(*a)

    radio.connect = connect
    drive(w, radio, 0, 60000)
    assert w.up


class Network:
    """Stands for the module `network`: notes what is set, in its order."""

    STA_IF = 0

    def __init__(self):
        self.calls = []

    def hostname(self, name):
        self.calls.append(("hostname", name))

    def country(self, code):
        self.calls.append(("country", code))

    def WLAN(self, kind):
        return self

    PM_NONE = 7

    def active(self, on):
        self.calls.append(("active", on))

    def config(self, **settings):
        self.calls.append(("config", settings["pm"]))


def check_the_radio_has_name_and_country_before_it_is_on_and_never_sleeps():
    real = powerup.network
    powerup.network = radio = Network()
    assert powerup.wlan("peanut", "DE") is radio
    powerup.network = None
    assert powerup.wlan("peanut", "DE") is None
    powerup.network = real
    assert sorted(radio.calls[:2]) == [("country", "DE"), ("hostname", "peanut")], radio.calls
    assert radio.calls[2:] == [("active", True), ("config", radio.PM_NONE)], radio.calls


def check_wifi_json():
    good = b'{"format":1,"country":"DE","networks":[{"ssid":"a","password":"b"},{"ssid":"open","password":""}]}'
    assert config.networks(good) == ("DE", [("a", "b"), ("open", "")])
    for bad in (
        b"",
        b"[]",
        b'{"format":2,"networks":[]}',
        b'{"format":1,"networks":[]}',
        b'{"format":1,"networks":[{"password":"hunter22"}]}',
        b'{"format":1,"networks":[{"ssid":"' + b"x" * 33 + b'","password":"hunter22"}]}',
    ):
        said = ""
        try:
            config.networks(bad)
        except ValueError as e:
            said = str(e)
        assert said, bad
        assert "hunter22" not in said


# -- pulses --------------------------------------------------------------------------------------------------------


def check_a_task_is_late_after_what_it_declared():
    for start in (0, ticks.PERIOD - 50000):
        all_of_them = Supervisor()
        a = all_of_them.watch("a", 3000, start)
        b = all_of_them.watch("b", 120000, start)
        at = ticks.add(start, 3000)
        assert all_of_them.late(at) is None
        at = ticks.add(at, 1)
        assert all_of_them.late(at) is a
        a.beat(at)
        assert all_of_them.late(at) is None
        b.beat(at, 300000)
        at = ticks.add(at, 400000)
        a.beat(at)
        assert all_of_them.late(at) is None
        at = ticks.add(at, 20001)
        a.beat(at)
        assert all_of_them.late(at) is b
        assert b.silent(at) == 120001


# -- the time ------------------------------------------------------------------------------------------------------


class Time:
    """Stands before `time` in node/clock.py: a clock of the hardware that can be wrong, and is not set by us."""

    def __init__(self, unix):
        self.unix = unix

    def time(self):
        return self.unix - clock._EPOCH

    def localtime(self):
        return (2000, 1, 1, 0, 0, 0, 5, 1)


class At:
    """node/clock.py on a hardware clock that says `unix`, for a `with`."""

    def __init__(self, unix):
        self.hardware = Time(unix)

    def __enter__(self):
        self.real = (clock.time, clock._offset, clock._quality)
        clock.time, clock._offset, clock._quality = self.hardware, 0, "none"
        return self.hardware

    def __exit__(self, *_):
        clock.time, clock._offset, clock._quality = self.real


Y2000 = 946684800
GOOD = clock.FLOOR + 40000000


def check_a_start_in_2000_goes_to_the_floor_and_gives_out_no_time():
    with At(Y2000):
        clock.begin(0)
        assert (clock.quality(), clock.unix()) == ("floor", None)
        assert clock._raw() == clock.FLOOR  # what TLS sees
    with At(Y2000) as hardware:
        clock.begin(GOOD)  # as noted in flash before the power cut
        hardware.unix += 100
        assert (clock.quality(), clock._raw()) == ("floor", GOOD + 100)
        assert clock.put(GOOD + 5000, "gateway")
        assert (clock.quality(), clock.unix()) == ("ntp", GOOD + 5000)


def check_a_clock_that_outlived_the_reset_is_believed():
    with At(GOOD):
        clock.begin(0)
        assert (clock.quality(), clock.unix()) == ("rtc", GOOD)


def check_no_time_before_the_build_or_beyond_the_ceiling():
    for said in (0, Y2000, clock.FLOOR - 1, clock.CEILING + 1, 1 << 40):
        with At(GOOD):
            clock.begin(0)
            assert not clock.put(said, "gateway")
            assert (clock.quality(), clock.unix()) == ("rtc", GOOD)
    with At(clock.CEILING + 1000):
        clock.begin(clock.CEILING * 2)
        assert clock.quality() == "floor"
        assert clock.FLOOR <= clock._raw() <= clock.CEILING


def check_jumps_of_the_clock_are_followed_and_ticks_do_not_care():
    with At(GOOD):
        clock.begin(0)
        for said in (GOOD + 86400, GOOD - 86400, GOOD):
            before = ticks.diff(5, 0)
            assert clock.put(said, "gateway")
            assert clock.unix() == said
            assert ticks.diff(5, 0) == before


COOKIE = b"12345678"


def ntp(seconds=GOOD, first=0x24, stratum=8, cookie=COOKIE, fraction=0):
    stamp = ((seconds + 2208988800) & 0xFFFFFFFF).to_bytes(4, "big") + bytes((fraction, 0, 0, 0))
    return bytes((first, stratum, 0, 0)) + bytes(20) + cookie + stamp + stamp


def check_answers_of_a_time_server():
    """RFC 4330, section 5: mode, leap indicator, stratum and the echo are checked; the era of 2036 is known."""
    assert sntp.parse(ntp(fraction=128), COOKIE) == GOOD * 1000 + 500
    assert sntp.parse(ntp(2085978496 + 7), COOKIE) == (2085978496 + 7) * 1000
    for bad in (
        b"",
        ntp()[:47],
        ntp(first=0x23),  # a question
        ntp(first=0xE4),  # leap indicator 3: not synchronised
        ntp(stratum=0),  # kiss of death
        ntp(stratum=16),
        ntp(cookie=b"87654321"),  # an answer to somebody else, or made up
    ):
        assert sntp.parse(bad, COOKIE) is None, bad


ID = b"\x12\x34"
# RFC 1035, section 4.1.2: example.com, A, IN
ASKED = ID + b"\x01\0\0\x01\0\0\0\0\0\0" + b"\x07example\x03com\0" + b"\0\x01\0\x01"


def record(data, kind=1, name=b"\xc0\x0c", group=1):
    return name + bytes((0, kind, group >> 8, group & 255, 0, 0, 1, 44, 0, len(data))) + data


def told(*records, head=b"\x81\x80", ident=ID, count=None):
    counts = b"\0\x01" + bytes((0, len(records) if count is None else count)) + bytes(4)
    return ident + head + counts + ASKED[12:] + b"".join(records)


def check_a_question_for_an_address():
    assert dns.question("example.com", ID) == dns.question("example.com.", ID) == ASKED
    assert dns.question("localhost", ID)[12:] == b"\x09localhost\0\0\x01\0\x01"
    for name in ("", ".", "a..b", "a" * 64 + ".com"):
        assert dns.question(name, ID) is None, name


def check_answers_of_a_name_server():
    """Addresses in their order; aliases, other records and mDNS's bit are understood; what answers something else, or
    is cut off, gives none and harms nothing."""
    one, two = record(b"\xc0\x00\x02\x01"), record(b"\xc0\x00\x02\x02")
    alias = record(b"\x03www\xc0\x0c", 5)
    full = record(b"\x0a\0\0\x01", name=b"\x03www\x07example\x03com\0")
    half = record(b"\x0a\0\0\x02", name=b"\x03www\xc0\x0c", group=0x8001)
    assert dns.parse(told(one, two), ASKED) == ["192.0.2.1", "192.0.2.2"]
    assert dns.parse(told(alias, full, half), ASKED) == ["10.0.0.1", "10.0.0.2"]
    assert dns.parse(told(one, record(bytes(16), 28)), ASKED) == ["192.0.2.1"], "no IPv6"
    assert dns.parse(told(record(b"\xc0\0\x02\x01", group=3)), ASKED) == [], "another network's"
    assert dns.parse(told(record(b"12345")), ASKED) == [], "no address has five bytes"
    assert dns.parse(told(head=b"\x81\x83"), ASKED) == [], "there is no such name"
    upper = told(one).replace(b"example", b"EXAMPLE")
    assert dns.parse(upper, ASKED) == ["192.0.2.1"]
    for bad in (b"", told(one)[:11], ASKED, told(one, ident=b"\x12\x35"), told(one).replace(b"example", b"exemple")):
        assert dns.parse(bad, ASKED) is None, bad
    whole = told(alias, full, half, one)
    for cut in range(len(ASKED), len(whole)):
        assert dns.parse(whole[:cut], ASKED) in ([], ["10.0.0.1"], ["10.0.0.1", "10.0.0.2"])
    assert dns.parse(told(one, count=255), ASKED) == ["192.0.2.1"]
    for loop in (b"\xc0\x0c" * 200, b"\xff" * 400, bytes(400)):
        dns.parse(told(loop, count=255), ASKED)


def check_samples_must_agree():
    assert sntp.agree([1000, 1500, 1200]) == 1200
    assert sntp.agree([1000, 3001, 1200]) is None
    assert sntp.agree([1000, 1200]) is None


def check_the_validity_of_a_certificate_is_read():
    """Two UTCTime in a row (RFC 5280, 4.1.2.5); 2024-02-29 and the ends of years are right."""
    for text, unix in (
        (b"240229120000Z", 1709208000),
        (b"700101000000Z", 3155760000),
        (b"261231235959Z", 1798761599),
        (b"270101000000Z", 1798761600),
        (b"260301000000Z", 1772323200),
    ):
        body = b"\x30\x1e\x17\x0d" + text + b"\x17\x0d" + text
        assert keys.validity(b"head" + body + b"tail") == (unix, unix), text
    assert keys.validity(b"") == (0, 0)


def checks():
    """(name, function) of every check."""
    return [(name, check) for name, check in sorted(globals().items()) if name.startswith("check_")]


if __name__ == "__main__":
    for _name, _check in checks():
        _check()
        print("ok", _name)
