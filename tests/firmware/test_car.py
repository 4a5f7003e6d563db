"""What a vehicle does: its safe states, and what it hears from GPS and OBD. Sections 6 and 1.9 of the field notes.

Time is a number. The bytes of the receivers are the worked examples of their own documents: NMEA 0183 as the manuals of
receivers print it, the ELM327 data sheet (chapters "Talking to the Vehicle" and "Interpreting Trouble Codes").
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from . import pure_checks  # puts the firmware on the path  # noqa: F401

from drivers.elm327 import ANSWER_MS, MAX_ANSWER, ROUND_MS, SETUP, Elm327  # isort: skip
from drivers.nmea import MAX_SENTENCE, OLD_MS, Nmea  # isort: skip
from node import ticks  # isort: skip
from node.car import HORNS, PULSES, QUIET_MS, RELOCK_MS, RUN_S, STARTS, UNKNOWN_MS, Car  # isort: skip

SENSORS = ("speed", "rpm", "door", "brake", "parked", "ambient")
PARKED = {"speed": 0, "rpm": 0, "door": False, "brake": False, "parked": True, "ambient": 20}


class Street:
    """A car and the time; what its sensors say is said again at every step, unless it is None."""

    def __init__(self, sensors: tuple[str, ...] = SENSORS, begin: int = 0, **said: Any) -> None:
        self.now = begin
        self.car = Car(sensors, begin)
        self.said = {**PARKED, **said}
        self.pulses: list[tuple[str, int]] = []
        self.step(0)

    def step(self, seconds: float = 1, **said: Any) -> list[tuple[str, int]]:
        self.said.update(said)
        self.now = ticks.add(self.now, int(seconds * 1000))
        for name, value in self.said.items():
            if value is not None:
                self.car.sense(name, value, "ok", self.now)
        pulses: list[tuple[str, int]] = []
        while end := self.car.step(self.now):
            pulses.append((end[0], self.car.act(end[0], self.now, end[1])))
        self.pulses += pulses
        return pulses

    def pass_time(self, seconds: int, **said: Any) -> None:
        for _ in range(seconds):
            self.step(1, **said)

    def order(self, verb: str) -> str | None:
        why: str | None = self.car.refuse(verb, self.now)
        if why is None:
            self.pulses.append((verb, self.car.act(verb, self.now)))
        return why


# --- safe states ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", sorted(PULSES))
def test_a_command_is_one_pulse(verb: str) -> None:
    street = Street()
    assert street.order(verb) is None
    assert street.pulses == [(verb, PULSES[verb])]
    assert 200 <= PULSES[verb] <= 800


def test_nothing_moves_by_itself() -> None:
    """Neither a boot nor an hour of readings, lost or not, closes a relay."""
    street = Street()
    street.pass_time(1800)
    street.pass_time(1800, speed=None, rpm=None, door=None)
    assert street.pulses == []
    assert street.car.reason == "no command since the start", "true of a car that drives, too"


@pytest.mark.parametrize("verb", ["stop", "start"])
@pytest.mark.parametrize(
    ("speed", "why"),
    [(1, "unsafe: moving at 1 km/h"), (0.4, "unsafe: moving at 1 km/h"), (120, "unsafe: moving at 120 km/h")],
)
def test_a_car_that_moves_is_neither_stopped_nor_started(verb: str, speed: float, why: str) -> None:
    street = Street(speed=speed)
    assert street.order(verb) == why
    assert street.pulses == []


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_a_speed_that_is_old_is_not_known(verb: str) -> None:
    street = Street()
    street.step(UNKNOWN_MS / 1000, speed=None)
    assert street.car.refuse(verb, street.now) is None, "for so long a reading holds"
    street.step(0.001)
    assert street.order(verb) == "unsafe: the speed is not known"
    street.step(ticks.PERIOD / 1000 - UNKNOWN_MS / 1000)
    assert street.order(verb) == "unsafe: the speed is not known", "a tick counter that wraps makes nothing young"


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_of_two_speeds_the_faster_is_true_and_one_is_enough(verb: str) -> None:
    """An OBD that says 0 (its bus asleep, a sensor torn off) stops no car that the GPS sees moving, and the reverse."""
    street = Street(("gps_speed", *SENSORS), gps_speed=80)
    assert street.order(verb) == "unsafe: moving at 80 km/h"
    street.step(1, gps_speed=0, speed=50)
    assert street.order(verb) == "unsafe: moving at 50 km/h"
    street.step(1, speed=None)
    street.pass_time(1 + UNKNOWN_MS // 1000)
    assert street.car.refuse("stop", street.now) is None, "the GPS alone"
    street.step(1, gps_speed=None)
    street.pass_time(1 + UNKNOWN_MS // 1000)
    assert street.order(verb) == "unsafe: the speed is not known"


def test_doors_and_horn_ask_for_no_speed() -> None:
    street = Street(speed=None, rpm=None, door=None, brake=None, parked=None, ambient=None)
    assert [street.order(verb) for verb in ("unlock", "lock", "horn")] == [None, None, None]


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"rpm": 800}, "unsafe: the engine is running"),
        ({"rpm": None}, "unsafe: whether the engine runs is not known"),
        ({"parked": False}, "unsafe: the car is not parked"),
        ({"parked": None}, "unsafe: parked is not known"),
        ({"door": True}, "unsafe: a door is open"),
        ({"brake": True}, "unsafe: the brake is pressed"),
        ({"brake": None}, "unsafe: brake is not known"),
        ({"ambient": -31}, "unsafe: ambient temperature -31 C"),
        ({"ambient": 46}, "unsafe: ambient temperature 46 C"),
        ({"ambient": None}, "unsafe: ambient temperature is not known"),
    ],
)
def test_a_start_wants_a_parked_car_that_is_off(said: dict[str, Any], why: str) -> None:
    street = Street(**said)
    assert street.order("start") == why
    assert street.pulses == []


def test_what_the_board_cannot_read_is_not_asked_for() -> None:
    street = Street(("speed", "rpm"), door=None, brake=None, parked=None, ambient=None)
    assert street.order("start") is None


def test_a_second_start_is_refused_while_the_first_lasts() -> None:
    street = Street()
    assert street.order("start") is None
    assert street.order("start") == "unsafe: it was started already"


@pytest.mark.parametrize("now", [{"speed": 1}, {"door": True}, {"brake": True}, {"parked": False}, {"rpm": 800}])
def test_what_was_accepted_is_judged_as_the_car_is_now_and_takes_nothing_from_the_limits(now: dict[str, Any]) -> None:
    street = Street()
    assert [street.car.unsafe("start", street.now) for _ in range(2 * STARTS[0])] == [None] * (2 * STARTS[0])
    assert street.car.refuse("start", street.now) is None
    street.step(0.1, **now)
    assert street.car.unsafe("start", street.now).startswith("unsafe: ")
    street.step(0.1, **PARKED)
    assert street.order("start") is None, "only one of three was taken"


def test_an_end_is_asked_for_until_it_is_carried_out() -> None:
    """The relay may be in use: nothing is forgotten meanwhile, and the car is judged at each asking."""
    street = Street()
    assert street.order("start") is None
    street.car.sense("brake", True, "ok", street.now)
    asked = [street.car.step(street.now) for _ in range(3)]
    assert asked == [("stop", "remote start ended: the brake was pressed")] * 3
    street.car.sense("speed", 3, "ok", street.now)
    assert street.car.step(street.now) is None, "who drives off has taken over"
    street.car.sense("speed", 0, "ok", street.now)
    assert street.car.step(street.now) is None


def test_a_reading_that_is_bad_is_none() -> None:
    street = Street(speed=None)
    for value, quality in ((0, "crc"), (None, "ok"), (float("nan"), "ok")):
        street.car.sense("speed", value, quality, street.now)
        assert street.order("stop") == "unsafe: the speed is not known"


@pytest.mark.parametrize(("verb", "limit"), [("horn", HORNS), ("start", STARTS)])
def test_how_often(verb: str, limit: tuple[int, int]) -> None:
    """Three horns in a minute, three starts in ten minutes."""
    street = Street()
    for _ in range(limit[0]):
        assert street.order(verb) is None
        street.car.act("stop", street.now)
    assert street.order(verb) == f"busy: the next {verb} in {limit[1] // 1000} s"
    street.step(limit[1] / 1000)
    assert street.order(verb) is None


# --- what a command sets going ----------------------------------------------------------------------------------------


def test_a_door_that_nobody_opens_is_locked_again() -> None:
    street = Street()
    street.order("unlock")
    assert street.car.locked is False
    street.pass_time(RELOCK_MS // 1000 - 1)
    assert street.pulses == [("unlock", 300)]
    street.step()
    assert street.pulses == [("unlock", 300), ("lock", 300)]
    assert street.car.locked is True
    assert street.car.reason.startswith("locked again")


@pytest.mark.parametrize("then", ["door", "lock"])
def test_a_door_that_is_opened_or_locked_is_left_alone(then: str) -> None:
    street = Street()
    street.order("unlock")
    if then == "door":
        street.step(1, door=True)
        street.step(1, door=False)
    else:
        street.order("lock")
    done = list(street.pulses)
    street.pass_time(2 * RELOCK_MS // 1000)
    assert street.pulses == done


@pytest.mark.parametrize(
    ("said", "why"),
    [({"door": True}, "a door was opened"), ({"brake": True}, "the brake was pressed"), ({}, "its time is over")],
)
def test_a_remote_start_ends(said: dict[str, Any], why: str) -> None:
    street = Street()
    street.order("start")
    street.pass_time(RUN_S - 1, rpm=800)
    assert street.pulses == [("start", 800)]
    assert street.car.running is True
    street.step(1, **said)
    assert street.pulses == [("start", 800), ("stop", 500)]
    assert street.car.reason == "remote start ended: " + why


def test_a_remote_start_is_not_ended_blindly() -> None:
    """It waits until the car is known to stand; and who drives off has taken over."""
    street = Street()
    street.order("start")
    street.pass_time(RUN_S + 60, speed=None, rpm=800)
    assert street.pulses == [("start", 800)]
    street.step(1, speed=0)
    assert street.pulses == [("start", 800), ("stop", 500)]
    street.order("start")
    street.step(1, rpm=0)
    assert street.order("start") is None
    street.step(1, speed=5, rpm=900)
    street.pass_time(RUN_S + 60, speed=0)
    assert street.pulses[-1] == ("start", 800)


STEP = st.one_of(
    st.tuples(st.just("order"), st.sampled_from(sorted(PULSES))),
    st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 4.0, 6.0, 31.0, 700.0, 1_000_000.0])),
    st.tuples(st.sampled_from(["speed", "gps_speed", "rpm"]), st.sampled_from([None, 0, 0, 0.3, 50])),
    st.tuples(st.sampled_from(["door", "brake", "parked"]), st.sampled_from([None, True, False])),
)


@given(st.lists(STEP, max_size=60), st.sampled_from([0, ticks.PERIOD - 5000]))
def test_no_engine_relay_closes_unless_the_car_is_known_to_stand(steps: list[tuple[str, Any]], begin: int) -> None:
    """Whatever is ordered, said or left unsaid: at every pulse of start or stop one speed at least is known, and all
    that are known are 0."""
    street = Street(("gps_speed", *SENSORS), begin=begin)
    heard = {"speed": (0, 0.0)}  # the last word, seconds since then
    for kind, value in steps:
        before = len(street.pulses)
        if kind == "order":
            street.order(value)
        elif kind == "wait":
            street.step(value)
            for name, (said, age) in heard.items():
                heard[name] = (said, 0.0 if street.said.get(name) is not None else age + value)
        else:
            street.said[kind] = value
            street.step(0)
            if kind.endswith("speed") and value is not None:
                heard[kind] = (value, 0.0)
        for verb, _ in street.pulses[before:]:
            if verb in ("start", "stop"):
                assert {said for said, age in heard.values() if age <= UNKNOWN_MS / 1000} == {0}


# --- GPS --------------------------------------------------------------------------------------------------------------

RMC = b"$GPRMC,123519,A,4807.038,N,01131.000,E,022.4,084.4,230394,003.1,W*6A\r\n"
SOUTH = b"$GPRMC,081836,A,3751.65,S,14507.36,E,000.0,360.0,130998,011.3,E*62\r\n"
GGA = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n"


def sentence(body: str) -> bytes:
    code = 0
    for b in body.encode():
        code ^= b
    return b"$%s*%02X\r\n" % (body.encode(), code)


def test_a_fix() -> None:
    gps = Nmea()
    assert gps.fix(0)[5] == "missing"
    gps.feed(GGA + RMC, 1000)
    latitude, longitude, speed, course, satellites, quality = gps.fix(1000)
    assert (round(latitude, 4), round(longitude, 4)) == (48.1173, 11.5167)
    assert (round(speed, 2), course, satellites, quality) == (41.48, 84.4, 8, "ok")
    gps.feed(SOUTH, 2000)
    assert [round(value, 4) for value in gps.fix(2000)[:2]] == [-37.8608, 145.1227]
    assert gps.bad == 0


@given(st.lists(st.integers(1, 30)))
def test_sentences_may_come_in_pieces(cuts: list[int]) -> None:
    data = GGA + RMC
    gps = Nmea()
    for size in [*cuts, len(data)]:
        gps.feed(data[:size], 0)
        data = data[size:]
    assert gps.fix(0)[5] == "ok"


@pytest.mark.parametrize(
    "bad",
    [
        RMC.replace(b"*6A", b"*6B"),
        RMC.replace(b"*6A", b""),
        RMC.replace(b"4807", b"4907"),
        b"$" + b"A" * (MAX_SENTENCE + 1) + b"\r\n",
        sentence("GPRMC,123519,A,9107.038,N,01131.000,E,022.4,084.4,230394,003.1,W"),
        sentence("GPRMC,123519,A,4867.038,N,01131.000,E,022.4,084.4,230394,003.1,W"),
        sentence("GPRMC,123519,A,4807.038,X,01131.000,E,022.4,084.4,230394,003.1,W"),
        sentence("GPRMC,123519,A,4807.038,N,01131.000,E,99999,084.4,230394,003.1,W"),
        sentence("GPRMC,123519,A"),
        RMC[:20] + b"$",
    ],
)
def test_a_sentence_that_is_damaged_is_counted_and_changes_nothing(bad: bytes) -> None:
    gps = Nmea()
    gps.feed(SOUTH, 0)
    gps.feed(bad, 100)
    assert gps.bad == 1
    assert round(gps.fix(100)[0], 4) == -37.8608


def test_a_fix_that_is_void_or_old_is_none() -> None:
    gps = Nmea()
    gps.feed(RMC, 0)
    gps.feed(sentence("GPRMC,123520,V,,,,,,,230394,,"), 100)
    assert gps.fix(100)[5] == "missing"
    gps.feed(RMC, 200)
    assert gps.fix(200 + OLD_MS)[5] == "ok"
    assert gps.fix(201 + OLD_MS)[5] == "stale"
    assert gps.fix(ticks.add(200, ticks.PERIOD - 1))[5] == "missing", "it does not come back when ticks wrap"


@given(st.binary(max_size=300))
def test_noise_on_the_line_of_the_gps(noise: bytes) -> None:
    gps = Nmea()
    gps.feed(noise, 0)
    gps.feed(b"\r\n" + RMC, 1)
    assert gps.fix(1)[5] == "ok"


# --- OBD --------------------------------------------------------------------------------------------------------------

ANSWERS = {
    "ATZ": b"\r\rELM327 v1.5\r\r>",
    "010C": b"SEARCHING...\r41 0C 1A F8\r\r>",  # the data sheet's 1726 rpm
    "010D": b"410D32\r\r>",
    "012F": b"412F80\r\r>",
    "0146": b"NO DATA\r\r>",
    "ATRV": b"12.6V\r\r>",
    "03": b"43 01 33 00 00 00 00\r\r>",  # the data sheet's P0133
}


def converse(elm: Any, answers: dict[str, bytes], now: int = 0, turns: int = 40) -> list[str]:
    """Asks and answers until there is nothing to ask; what was asked."""
    asked: list[str] = []
    for _ in range(turns):
        question = elm.poll(now)
        if not question:
            break
        asked.append(question.decode().strip())
        elm.feed(answers.get(asked[-1], b"OK\r\r>"), now)
    return asked


def test_a_round_of_questions() -> None:
    elm = Elm327()
    asked = converse(elm, ANSWERS)
    assert asked[: len(SETUP)] == list(SETUP)
    assert asked[len(SETUP) :] == ["010C", "010D", "012F", "0146", "ATRV", "03"]
    values = {name: value for name, (value, _) in elm.values.items()}
    assert values == {"rpm": 1726, "speed": 50, "fuel": pytest.approx(50.2, abs=0.01), "battery": 12.6}
    assert elm.codes == ["P0133"]
    assert elm.errors == 1, "this car has no ambient temperature"
    assert elm.poll(ROUND_MS - 1) == b""
    assert elm.poll(ROUND_MS) == b"010C\r"


@pytest.mark.parametrize(
    ("answer", "codes"),
    [
        (b"NO DATA\r\r>", []),
        (b"4300\r\r>", []),
        (b"43 01 01 33\r\r>", ["P0133"]),  # on CAN, with the count
        (b"43 01 33 D0 16 00 00\r43 40 01 80 01 00 00\r\r>", ["P0133", "U1016", "C0001", "B0001"]),
    ],
)
def test_fault_codes(answer: bytes, codes: list[str]) -> None:
    elm = Elm327()
    converse(elm, {**ANSWERS, "03": answer})
    assert elm.codes == codes


@pytest.mark.parametrize(
    "bad", [b"?\r\r>", b"410D3\r\r>", b"410C32\r\r>", b"410DZZ\r\r>", b"\xff\xfe\r>", b">", b"BUS INIT: ERROR\r\r>"]
)
def test_an_answer_that_is_none_leaves_no_value(bad: bytes) -> None:
    elm = Elm327()
    converse(elm, {**ANSWERS, "010D": bad})
    assert "speed" not in elm.values
    assert elm.errors == 2
    assert "battery" in elm.values, "the next question was asked all the same"


def test_silence_costs_one_question() -> None:
    elm = Elm327()
    assert elm.poll(0) == b"ATZ\r"
    assert elm.poll(ANSWER_MS - 1) == b""
    assert elm.poll(ANSWER_MS) == b"ATE0\r"
    assert elm.errors == 1
    elm.feed(ANSWERS["ATZ"], ANSWER_MS + 1)  # late: it ends the wait for ATE0, and is taken for no value
    assert elm.values == {}


@given(st.binary(max_size=2000))
def test_noise_on_the_line_of_the_adapter(noise: bytes) -> None:
    elm = Elm327()
    elm.poll(0)
    elm.feed(noise.replace(b">", b""), 0)
    assert len(elm._rx) <= MAX_ANSWER
    elm.feed(b">", 0)
    converse(elm, ANSWERS)
    assert elm.values["speed"][0] == 50


def test_it_stands_when_it_says_so_and_when_it_has_been_silent_for_long() -> None:
    """What restarts the node waits for that: moving, engine running or out of park it does not stand; unknown, it
    stands only after ten minutes, for an engine that is off tells nothing. Over a wrap of the ticks, too."""
    road = Street(begin=ticks.PERIOD - 5000)
    assert road.car.stands()
    for moving in ({"speed": 3}, {"rpm": 800}, {"parked": False}):
        road.step(**moving)
        assert not road.car.stands(), moving
        road.step(**{name: PARKED[name] for name in moving})
        assert road.car.stands(), moving
    road.step(speed=50)
    road.step(**dict.fromkeys(PARKED))
    for _ in range(int((UNKNOWN_MS + QUIET_MS) / 1000) - 2):
        assert not road.car.stands()
        road.step()
    road.step(3)
    assert road.car.stands()
    road.step(speed=10, rpm=900)
    assert not road.car.stands()
    assert not Car(SENSORS, 0).stands()  # and at the start nothing is known
