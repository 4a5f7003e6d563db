"""Checks of the drivers and of sensing, on byte-level fakes: the same file on CPython and on MicroPython.

Rule: as in pure_checks.py. Bytes and results are the worked examples of the data sheets, named beside them.
"""

import fakes
from drivers import bme280, ds18b20, sensirion
from drivers.opening import Opening
from node import config, sensing, ticks

I2C = {"i2c": {"kind": "i2c", "sda": 21, "scl": 22, "khz": 100}}


def house(machine, sensors, outputs=None, buses=I2C, wire=None):
    return Opening({"outputs": outputs or {}, "sensors": sensors, "buses": buses}, 0, machine, wire).house


def sensor(driver, quantity, **more):
    out = {"driver": driver, "quantity": quantity}
    out.update(more)
    return out


def near(pair, value, tolerance=0.01):
    assert pair[1] == "ok", pair
    assert abs(pair[0] - value) <= tolerance, (pair, value)


def turns(h, name, until, step=500, begin=0):
    """Reads every half second up to `until` ms: the last answer."""
    for now in range(begin, until + 1, step):
        out = h.read(name, now)
    return out


def scripted(address, answers, driver, quantities):
    """A board with one scripted I2C chip, a sensor a quantity."""
    m = fakes.Machine()
    chip = m.wire(21, 22, address, fakes.Scripted(answers))
    return m, chip, house(m, {q: sensor(driver, q, bus="i2c", address=address) for q in quantities})


# -- chips -----------------------------------------------------------------------------------------------------------


def check_sensirion_crc():
    """SHT3x table 20, SHT4x section 4.4, SCD4x section 3.12: CRC of 0xBEEF is 0x92."""
    assert sensirion.crc8(b"\xbe\xef") == 0x92
    assert sensirion.words(b"\xbe\xef\x92") == [0xBEEF]
    assert sensirion.words(b"\xbe\xef\x93") is None


def word(value):
    data = bytes((value >> 8, value & 255))
    return data + bytes((sensirion.crc8(data),))


def check_sht3x():
    """Section 4.13: T = -45 + 175 S / (2^16 - 1), RH = 100 S / (2^16 - 1); command 0x2400 of table 9."""
    _m, chip, h = scripted(0x44, {b"\x24\x00": word(0x6666) + word(0x8000)}, "sht3x", ("temperature", "humidity"))
    assert h.read("temperature", 0) == (None, "missing")  # measuring
    near(h.read("temperature", 1000), -45 + 175 * 0x6666 / 65535)
    near(h.read("humidity", 1000), 100 * 0x8000 / 65535)
    chip.answers[b"\x24\x00"] = word(0x6666)[:2] + b"\x00" + word(0x8000)
    assert turns(h, "temperature", 6000) == (None, "crc")


def check_sht4x():
    """Section 4.6: RH = -6 + 125 S / (2^16 - 1), cut to 0 to 100; command 0xFD of section 4.5."""
    m, chip, h = scripted(0x44, {b"\xfd": word(0x6666) + word(0xFFFF)}, "sht4x", ("temperature", "humidity"))
    near(turns(h, "temperature", 1000), 25.0)
    near(h.read("humidity", 1000), 100.0)
    chip.answers[b"\xfd"] = word(0xFFFF) + word(0)
    near(turns(h, "humidity", 6000, begin=1500), 0.0)
    assert abs(h.told("temperature", 6000)[0] - 130.0) < 0.001
    assert chip.seen == [b"\xfd"] * 2  # one measurement each five seconds
    assert m.transfers == 4  # and one answer fetched for each: nothing is waited for on the bus


def check_scd4x():
    """Section 3.6.2: 0x01f4 33, 0x6667 a2, 0x5eb9 3c is 500 ppm, 25 deg C, 37 %; 0x8000 a2 is not ready (3.9.2)."""
    answer = b"\x01\xf4\x33\x66\x67\xa2\x5e\xb9\x3c"
    ready = {b"\x3f\x86": None, b"\x21\xb1": None, b"\xe4\xb8": b"\x80\x00\xa2", b"\xec\x05": answer}
    _m, chip, h = scripted(0x62, ready, "scd4x", ("co2", "temperature", "humidity"))
    assert turns(h, "co2", 3000) == (None, "missing")
    assert chip.seen[:3] == [b"\x3f\x86", b"\x21\xb1", b"\xe4\xb8"]  # stopped, started again, asked
    assert b"\xec\x05" not in chip.seen
    chip.answers[b"\xe4\xb8"] = word(0x8006)
    near(turns(h, "co2", 5000, begin=3500), 500)
    near(h.read("temperature", 5000), 25.0)
    near(h.read("humidity", 5000), 37.0)
    before = len(chip.seen)
    turns(h, "co2", 16000, begin=5500)
    assert b"\x3f\x86" not in chip.seen[before:]  # it is not begun anew each time
    chip.answers[b"\xec\x05"] = answer[:8] + b"\x00"
    assert turns(h, "co2", 26000, begin=16500) == (None, "crc")
    chip.answers[b"\xe4\xb8"] = b"\x80\x00\xa2"
    assert turns(h, "co2", 50000, begin=26500) == (None, "missing")  # never ready again


def check_bh1750():
    """Data sheet page 7: 10000011 10010000 is 28067 lx."""
    _m, _chip, h = scripted(0x23, {b"\x20": b"\x83\x90"}, "bh1750", ("light",))
    near(turns(h, "light", 500), 28067, 0.5)


# BMP280 data sheet (BST-BMP280-DS001), section 3.12: its worked example; the BME280's formulas for temperature and
# pressure are the same. The BME280's sheet has no example for humidity: compared with section 4.2.3 in integers below.
BOSCH = (27504, 26435, -1000, 36477, -10685, 3024, 2855, 140, -7, 15500, -14600, 6000)
HUMIDITY = (75, 362, 0, 313, 50, 30)


def check_bme280_formulas():
    t, rh, p = bme280.compensate(BOSCH + HUMIDITY, 519888, 415148, 30000)
    assert abs(t - 25.08) < 0.005, t
    assert abs(p - 1006.5327) < 0.01, p
    fine = 128422  # t_fine of the same example
    for raw in (20000, 25000, 30000, 35000):
        for cal in (HUMIDITY, (75, 355, 0, 340, 0, 30), (0, 370, 3, 300, 50, -5)):
            _t, rh, _p = bme280.compensate(BOSCH + cal, 519888, 415148, raw)
            assert abs(rh - bosch_humidity(fine, raw, *cal)) < 0.05, (raw, cal, rh)


def bosch_humidity(fine, raw, h1, h2, h3, h4, h5, h6):
    """Section 4.2.3, bme280_compensate_H_int32, in %."""
    v = fine - 76800
    v = (((raw << 14) - (h4 << 20) - h5 * v + 16384) >> 15) * (
        ((((((v * h6) >> 10) * (((v * h3) >> 11) + 32768)) >> 10) + 2097152) * h2 + 8192) >> 14
    )
    v = v - ((((v >> 15) * (v >> 15)) >> 7) * h1 >> 4)
    return min(max(v, 0), 419430400) / 4096 / 1024


def bme280_memory():
    memory = dict.fromkeys(range(256), 0)

    def put(at, data):
        for i, byte in enumerate(data):
            memory[at + i] = byte

    def little(*values):
        return b"".join([bytes((v & 255, v >> 8 & 255)) for v in values])

    h1, h2, h3, h4, h5, h6 = HUMIDITY
    put(0xD0, b"\x60")
    put(0x88, little(*BOSCH) + bytes((0, h1)))
    put(0xE1, little(h2) + bytes((h3, h4 >> 4, (h4 & 15) | (h5 & 15) << 4, h5 >> 4, h6)))
    put(0xF7, bytes((415148 >> 12, 415148 >> 4 & 255, (415148 & 15) << 4)))
    put(0xFA, bytes((519888 >> 12, 519888 >> 4 & 255, (519888 & 15) << 4, 30000 >> 8, 30000 & 255)))
    return memory


def check_bme280_on_the_bus():
    """Identity, calibration (table 16), forced mode of all three, status bit 3, data registers (table 18)."""
    m = fakes.Machine()
    chip = m.wire(21, 22, 0x76, fakes.Registers(bme280_memory()))
    three = ("temperature", "humidity", "pressure")
    h = house(m, {q: sensor("bme280", q, bus="i2c", address=0x76) for q in three})
    chip.memory[0xF3] = 8
    assert turns(h, "temperature", 1000) == (None, "missing")
    assert chip.written == [b"\xf2\x01", b"\xf4\x25"]
    chip.memory[0xF3] = 0
    near(h.read("temperature", 2000), 25.08)
    near(h.read("pressure", 2000), 1006.53)
    near(h.read("humidity", 2000), bosch_humidity(128422, 30000, *HUMIDITY), 0.05)
    chip.memory[0xFA], chip.memory[0xFB], chip.memory[0xFC] = 0x80, 0, 0
    assert turns(h, "temperature", 8000, begin=2500) == (None, "range")
    chip.memory[0xD0] = 0x58  # a BMP280 in its place, after it was away
    chip.away = True
    assert turns(h, "humidity", 14000, begin=8500) == (None, "missing")
    chip.away = False
    assert turns(h, "humidity", 22000, begin=14500) == (None, "missing")


ROM = bytes((0x28, 0x1C, 0xB8, 0x01, 0x00, 0x00, 0x00))


def scratchpad(raw):
    data = bytes((raw & 255, raw >> 8, 0x4B, 0x46, 0x7F, 0xFF, 0x0C, 0x10))
    return data + bytes((ds18b20.crc8(data),))


def check_ds18b20():
    """Application note 27: ROM 02 1C B8 01 00 00 00 has CRC A2. Data sheet table 1: temperatures and their codes."""
    assert ds18b20.crc8(b"\x02\x1c\xb8\x01\x00\x00\x00") == 0xA2
    wire = fakes.Wire(ROM + bytes((ds18b20.crc8(ROM),)), scratchpad(0x0191))
    m = fakes.Machine()
    wires = {"w": {"kind": "onewire", "pin": 4}}
    h = house(m, {"t": sensor("ds18b20", "temperature", bus="w")}, buses=wires, wire=wire)
    assert h.read("t", 0) == (None, "missing")
    assert wire.orders == [0x33, 0xCC, 0x44]
    assert h.read("t", 700) == (None, "missing")  # 750 ms to convert
    near(h.read("t", 1000), 25.0625, 0)
    now = 1000
    for raw, value in ((0x07D0, 125), (0x00A2, 10.125), (0x0008, 0.5), (0, 0), (0xFFF8, -0.5), (0xFC90, -55)):
        wire.scratchpad = scratchpad(raw)
        h.read("t", now + 6000)
        h.read("t", now + 7000)
        assert h.told("t", now + 7000) == [value, "ok", 0]
        now += 7000
    wire.scratchpad = scratchpad(0x0550)  # 85.0: the power-on value of table 1
    h.read("t", now + 6000)
    assert h.read("t", now + 7000) == (None, "range")
    for bad, quality in ((scratchpad(0x0191)[:8] + b"\x00", "crc"), (bytes(9), "crc"), (b"\xff" * 9, "crc")):
        wire.scratchpad = bad
        h.read("t", now + 12000)
        assert h.read("t", now + 13000) == (None, quality)
        now += 7000
    wire.away = True
    assert h.read("t", now + 20000) == (None, "missing")
    wire.away = False
    wire.scratchpad = scratchpad(0x0191)
    other = b"\x10" + ROM[1:]
    for rom in (other + bytes((ds18b20.crc8(other),)), b"\x00" * 8, ROM + b"\x00"):
        wire.rom = rom  # a DS18S20, whose figures mean something else; a bus held down; two that answer at once
        now += 10000
        h.read("t", now + 30000)
        assert h.read("t", now + 31000) == (None, "missing")


def check_dht22():
    """AM2302 data sheet, section 7: 0x028C 0x015F, sum 0xEE is 65.2 % and 35.1 deg C; 0x8065 is -10.1 deg C."""
    m = fakes.Machine()
    h = house(m, {q: sensor("dht22", q, pin=4) for q in ("temperature", "humidity")})
    m.pulses = fakes.dht_pulses(b"\x02\x8c\x01\x5f\xee")
    near(h.read("temperature", 0), 35.1)
    near(h.read("humidity", 0), 65.2)
    assert ("low for", 1200) in m.changes  # the start signal
    m.pulses = fakes.dht_pulses(b"\x02\x8c\x80\x65\x73", head=(80,))  # the first high was missed
    h.read("temperature", 10000)
    assert h.told("temperature", 10000) == [-10.1, "ok", 0]
    m.pulses = fakes.dht_pulses(b"\x02\x8c\x01\x5f\xef")
    assert h.read("temperature", 20000) == (None, "crc")
    m.pulses = fakes.dht_pulses(b"\x02\x8c\x01\x5f")  # the end is missing
    assert h.read("humidity", 30000) == (None, "crc")
    m.pulses = []
    assert h.read("humidity", 40000) == (None, "missing")
    m.pulses = fakes.dht_pulses(b"\x03\xe9\x00\x00\xec")  # 100.1 %
    assert h.read("humidity", 50000) == (None, "range")
    assert not m.masked


def check_dht22_that_sticks():
    """99.9 % for six hours is `stuck`; the temperature stays good, and one dry reading heals it."""
    m = fakes.Machine()
    h = house(m, {q: sensor("dht22", q, pin=4) for q in ("temperature", "humidity")})
    six_hours = 6 * 3600 * 1000
    for now in range(0, six_hours + 20000, 10000):
        m.changes = []
        m.pulses = fakes.dht_pulses(b"\x03\xe7\x00\xd2\xbc")
        quality = h.read("humidity", now)[1]
        assert quality == ("ok" if now < six_hours else "stuck"), now
    near(h.read("temperature", now), 21.0)
    m.pulses = fakes.dht_pulses(b"\x03\x20\x00\xd2\xf5")
    near(h.read("humidity", now + 10000), 80.0)


def check_contact():
    """1.0 while the contact is closed: to ground, where nothing else is said. Once in half a second: it may bounce."""
    m = fakes.Machine()
    for active in (0, 1):
        spec = sensor("contact", "contact", pin=14)
        if active:
            spec["active"] = 1
        h = house(m, {"tank": spec})
        for i, level in enumerate((0, 1, 0)):
            m.sense = lambda number, level=level: level
            near(h.read("tank", i * 500), 1.0 if level == active else 0.0)
            m.sense = lambda number, level=level: 1 - level
            near(h.read("tank", i * 500 + 499), 1.0 if level == active else 0.0)


def check_no_heating_on_a_reading_of_a_minute_ago():
    """From the chip that falls silent to the heater: what the drivers still hold counts with its age."""
    from control_checks import STALE_MS, climate

    _m, chip, h = scripted(0x44, {b"\xfd": word(0x4000) + word(0x8000)}, "sht4x", ("temperature", "humidity"))
    c = climate(25.0, {"heater": {"min_on_s": 3600, "min_off_s": 0}})
    last = None
    for now in range(0, 200000, 500):
        if now == 20000:
            chip.away = True
        reading = h.read("temperature", now)
        c.step(now, {"temperature": reading})
        if reading[1] == "ok":
            last = now - reading[2]
        if now > 1000:
            assert c.heater.on == (now - last <= STALE_MS), now
    assert last == 15500, last


def check_soil():
    """Median of nine, two-point calibration, rails, and a voltage that never moves."""
    m = fakes.Machine()
    m.volts[34] = [3300000, 1950000, 1949000, 1951000, 0, 1950500, 1949500, 1950000, 1950000]
    spec = sensor("soil", "moisture", pin=34, dry_uv=2700000, wet_uv=1200000)
    h = house(m, {"soil": spec})
    near(h.read("soil", 0), 50.0)  # two spikes among nine do not count
    for volts, value in ((2800000, 0.0), (1200000, 100.0), (1100000, 100.0), (2400000, 20.0)):
        m.volts[34] = [volts]
        h = house(m, {"soil": spec})
        near(h.read("soil", 0), value)
    for dry, wet, value in ((2000000, 1000000, 50.0), (1000000, 2000000, 50.0), (1500000, 1000000, 0.0)):  # the board's
        m.volts[34] = [1500000]
        spec = sensor("soil", "moisture", pin=34, dry_uv=dry, wet_uv=wet)
        near(house(m, {"soil": spec}).read("soil", 0), value)
    for volts in (0, 3200000):
        m.volts[34] = [volts]
        assert house(m, {"soil": spec}).read("soil", 0) == (None, "range")


def check_soil_that_does_not_move():
    m = fakes.Machine()
    m.volts[34] = [2000000]
    h = house(m, {"soil": sensor("soil", "moisture", pin=34)})
    for now in range(0, 3700000, 10000):
        assert h.read("soil", now)[1] == ("ok" if now < 3600000 else "stuck"), now
    week = 0
    for day in range(1, 30):
        week = ticks.add(3700000, day * 86400000)
        assert h.read("soil", week)[1] == "stuck"
    for i in range(400):  # an ADC that breathes by 1.5 mV
        m.volts[34] = [2000000 + i % 4 * 500]
        assert h.read("soil", ticks.add(week, (i + 1) * 10000))[1] == ("ok" if i > 1 else "stuck")


# -- buses and outputs -----------------------------------------------------------------------------------------------


def check_a_bus_that_hangs_is_freed():
    """UM10204 section 3.1.16: up to nine clocks until SDA is let go; at boot, and after three failures in a row."""
    m = fakes.Machine()
    m.wire(21, 22, 0x44, fakes.Scripted({b"\xfd": word(0x6666) + word(0x8000)}))
    m.held = 9
    h = house(m, {"t": sensor("sht4x", "temperature", bus="i2c", address=0x44)})
    assert m.held == 0
    near(turns(h, "t", 1000), 25.0)
    m.held = 5
    assert turns(h, "t", 13000, begin=1500) == (None, "missing")
    near(turns(h, "t", 25000, begin=13500), 25.0)
    assert m.held == 0
    # STOP at the end: SDA rises while SCL is high.
    lines = [change for change in m.changes if change[0] in (21, 22)]
    assert lines[-2:] == [(22, 1), (21, 1)], lines[-4:]


def check_absent_at_boot_and_back():
    """A sensor that is not there is `missing` and no more; plugged in, it is begun anew and read."""
    m = fakes.Machine()
    chip = m.wire(21, 22, 0x62, fakes.Scripted({b"\x3f\x86": None, b"\x21\xb1": None}))
    chip.answers[b"\xe4\xb8"] = word(0x8006)
    chip.answers[b"\xec\x05"] = b"\x01\xf4\x33\x66\x67\xa2\x5e\xb9\x3c"
    h = house(m, {"co2": sensor("scd4x", "co2", bus="i2c", address=0x62)})
    chip.away = True
    assert turns(h, "co2", 60000) == (None, "missing")
    chip.away = False
    near(turns(h, "co2", 80000, begin=60500), 500)
    chip.away = True
    assert turns(h, "co2", 100000, begin=80500) == (None, "missing")
    before = len(chip.seen)
    chip.away = False
    near(turns(h, "co2", 120000, begin=100500), 500)
    assert chip.seen[before : before + 2] == [b"\x3f\x86", b"\x21\xb1"]


def check_gpio_outputs():
    """The level comes with the direction, `safe` and `on` are honoured."""
    m = fakes.Machine()
    outputs = {
        "heater": {"driver": "gpio", "pin": 25, "safe": "off"},
        "vent": {"driver": "gpio", "pin": 26, "on": 0, "safe": "on"},
        "fan": {"driver": "gpio", "pin": 27, "on": 0, "safe": "off"},
    }
    h = house(m, {}, outputs)
    out = fakes.Pin.OUT
    assert sorted(m.log) == [("init", 25, out, 0), ("init", 26, out, 0), ("init", 27, out, 1)]
    h.write("heater", True, 1)
    h.write("fan", True, 1)
    assert (m.levels[25], m.levels[27]) == (1, 0)
    h.write("heater", False, 2)
    assert m.levels[25] == 0


def check_a_pad_is_latched_at_its_safe_level_and_at_no_other():
    """So a reset at any moment leaves the pad where it is safe, or lets go of it; and what is written is on the pad."""
    m = fakes.Machine()
    outputs = {
        "heater": {"driver": "gpio", "pin": 25, "safe": "off", "hold": True},
        "vent": {"driver": "gpio", "pin": 26, "on": 0, "safe": "on", "hold": True},
        "fan": {"driver": "gpio", "pin": 27, "safe": "off"},
    }
    h = house(m, {}, outputs)
    assert (m.levels, m.latched) == ({25: 0, 26: 0, 27: 0}, {25: 0, 26: 0})
    for name in outputs:
        h.write(name, True, 1)
    assert (m.levels, m.latched) == ({25: 1, 26: 0, 27: 1}, {26: 0})
    for name in outputs:
        h.write(name, False, 2)
    assert (m.levels, m.latched) == ({25: 0, 26: 1, 27: 0}, {25: 0})


def check_pcf8574_outputs():
    """KC868-A8: active low at 0x24; all bits in one byte; what could not be written comes with the next write."""
    m = fakes.Machine()
    port = m.wire(4, 5, 0x24, fakes.Latch())
    buses = {"i2c": {"kind": "i2c", "sda": 4, "scl": 5}}
    table = {"driver": "pcf8574", "bus": "i2c", "address": 0x24, "on": 0, "safe": "off"}
    outputs = {name: dict(table, bit=bit) for name, bit in (("heater", 0), ("vent", 3))}
    h = house(m, {}, outputs, buses)
    assert port.bits == 0xFF
    h.write("heater", True, 1)
    assert port.bits == 0xFE
    h.write("vent", True, 1)
    assert port.bits == 0xF6
    port.away = True
    h.write("heater", False, 2)  # raises nothing
    port.away = False
    port.bits = 0xFF  # it had lost its supply
    h.write("vent", True, 3)
    assert port.bits == 0xF7
    port.away = True
    assert house(m, {}, outputs, buses) is not None  # absent at boot


def check_shift595_outputs():
    """LilyGO T-Relay-S3: the first latch shows zeros; bit 0 is the first output of the first register."""
    m = fakes.Machine()
    chain = fakes.Chain595(m, 7, 5, 6)
    buses = {"relays": {"kind": "shift595", "data": 7, "clock": 5, "latch": 6}}
    outputs = {name: {"driver": "shift595", "bus": "relays", "bit": b} for name, b in (("heater", 0), ("vent", 9))}
    h = house(m, {}, outputs, buses)
    assert chain.shown
    assert not any(chain.shown)
    h.write("vent", True, 1)
    assert chain.shown[-1] == 1 << 9
    h.write("heater", True, 1)
    assert chain.shown[-1] == 1 << 9 | 1
    h.write("vent", False, 1)
    assert chain.shown[-1] == 1


def check_boards_that_cannot_be_opened():
    """Each fault names the output, sensor or bus; nothing else comes out."""
    m = fakes.Machine()
    for outputs, sensors, buses, said in (
        ({"heater": {"driver": "nosuch"}}, {}, {}, "board.outputs.heater: cannot be opened ("),
        ({"heater": {}}, {}, {}, "board.outputs.heater"),
        ({"heater": {"driver": "gpio", "pin": 99}}, {}, {}, "board.outputs.heater: cannot be opened (ValueError"),
        ({"heater": {"driver": "gpio"}}, {}, {}, "board.outputs.heater: cannot be opened (KeyError"),
        ({}, {"t": {"driver": "sht4x", "bus": "i2c"}}, {}, "board.sensors.t: cannot be opened (KeyError"),
        ({}, {"t": {"driver": "sht4x", "bus": "i2c", "quantity": "co2"}}, I2C, "sht4x does not measure co2"),
        ({}, {"t": {"driver": "sht4x", "bus": "b"}}, {"b": {"kind": "i2c", "sda": 21}}, "board.buses.b"),
    ):
        try:
            house(m, sensors, outputs, buses)
            told = "opened"
        except config.ConfigError as e:
            told = str(e)
        assert said in told, (said, told)


# -- sensing ---------------------------------------------------------------------------------------------------------


def fed(values, step=5000, limited=True):
    probe = sensing.Probe(limited)
    now = 0
    out = []
    for value in values:
        probe.feed(now, value)
        out.append(probe.read(now)[0])
        now += step
    return probe, now - step, out


def check_one_spike_is_cut():
    """Median of three: one wild reading never reaches control, but the reports tell it."""
    probe, now, out = fed([20.0, 20.1, 20.0, 80.0, 20.1, 20.0, -40.0, 20.1, 20.0])
    assert all(19.9 < value < 20.2 for value in out), out
    probe.feed(now + 5000, 80.0)
    assert probe.told(now + 5000) == [80.0, "ok", 0]
    probe, now, out = fed([20.0, 80.0], limited=False)
    assert out == [20.0, 80.0]  # light and moisture may jump


def check_three_kelvin_a_minute():
    """Two wild readings move control by 3 K a minute at the most; what insists for a minute is true."""
    _probe, _now, out = fed([20.0, 20.0, 20.0, 60.0, 60.0, 20.0, 20.0, 20.0, 20.0])
    assert max(out) <= 20.0 + 2 * 0.25 + 1e-6, out
    _probe, _now, out = fed([20.0] * 3 + [60.0] * 20)
    assert out[10] < 22.0
    assert out[-1] == 60.0
    assert out.index(60.0) <= 3 + 15  # 75 s: two readings for the median, a minute of doubt
    _probe, _now, out = fed([20.0 + i * 0.2 for i in range(60)])  # 2.4 K a minute passes
    assert abs(out[-1] - (20.0 + 58 * 0.2)) < 1e-6


def check_nonsense_and_silence():
    for nonsense in (float("nan"), float("inf"), -1e12):
        probe, now, _ = fed([20.0, 20.0, nonsense])
        assert probe.read(now) == (None, "range")
    probe, now, _ = fed([20.0, 20.0])
    assert probe.read(now + sensing.STALE_MS) == (20.0, "ok")
    assert probe.read(now + sensing.STALE_MS + 1) == (20.0, "stale")
    assert probe.told(now + 60000) == [20.0, "stale", 60]
    assert probe.told(now + sensing.OLD_MS + 1)[2] is None
    for day in range(1, 40):  # weeks of silence do not wrap into health
        assert probe.read(ticks.add(now, day * 86400000))[1] == "stale"
    probe, now, _ = fed([20.0, 20.0, 20.0])
    probe.feed(now + 60000, 5.0)
    assert probe.read(now + 60000) == (5.0, "ok")  # what was a minute ago takes no part in the median
    probe.feed(ticks.add(now, 40 * 86400000), 5.0)
    assert probe.read(ticks.add(now, 40 * 86400000)) == (5.0, "ok")  # the old ones take no part


def check_the_wrap_of_the_clock():
    """A chip is asked each five seconds over the wrap of the ticks too."""
    m = fakes.Machine()
    chip = m.wire(21, 22, 0x44, fakes.Scripted({b"\xfd": word(0x6666) + word(0x8000)}))
    begin = ticks.PERIOD - 30000
    board = {"outputs": {}, "sensors": {"t": sensor("sht4x", "temperature", bus="i2c")}, "buses": I2C}
    h = Opening(board, begin, m).house
    for i in range(1, 61):
        pair = h.read("t", ticks.add(begin, i * 1000))
        assert i == 1 or pair[1] == "ok"
    assert 10 <= len(chip.seen) <= 12, len(chip.seen)


def checks():
    """(name, function) of every check in this file."""
    everything = globals()
    return [(name, everything[name]) for name in sorted(everything) if name.startswith("check_")]


if __name__ == "__main__":
    for _name, _check in checks():
        _check()
        print("ok", _name)
