"""Checks of node/keys.py that run on CPython and on MicroPython alike: two slots, a trial, a bundle that is newer.

Rule: a function named check_* is a check; no pytest here. Certificates are a serial number, dates and a name in
DER: what the node reads of one. That the real ones work too is test_renewal.py's to show.
"""

import binascii
import json

from node import keys, slots

URI = "peanut:plant/peanut"


def date(unix_day):
    """UTCTime of that many days after 2026-01-01, within January."""
    return b"\x17\x0d26%02d%02d000000Z" % (1 + unix_day // 28, 1 + unix_day % 28)


def cert(serial, day=1, uri=URI):
    body = b"\x30\x82\x01\x00\x30\x81\xf0\xa0\x03\x02\x01\x02\x02" + bytes((len(serial) // 2,))
    return body + binascii.unhexlify(serial) + b"\x30\x1e" + date(day) + date(300) + uri.encode()


def text(der):
    return binascii.b2a_base64(der).decode().strip()


def sent(serial, day=2, **more):
    body = {"key": text(b"\x30key" + serial.encode()), "cert": text(cert(serial, day))}
    body.update(more)
    return json.dumps(body).encode()


def bundle(serial="ab01", day=1):
    files = {"cert.der": cert(serial, day), "key.der": b"\x30key" + serial.encode(), "ca.der": b"\x30root"}
    return lambda name: files[name]


def fresh(serial="ab01", day=1):
    for path in ("cert.a", "cert.b"):
        with open(path, "w") as f:
            f.write("")
    return bundle(serial, day)


def in_force(read, start=False):
    return keys.Keys(read).choose(start)[1].decode()[4:]


def check_the_bundle_counts_until_something_is_sent():
    read = fresh()
    assert keys.Keys(read).choose(True) == (read("cert.der"), read("key.der"), [b"\x30root"])
    told = keys.Keys(read).told()
    assert told["serial"] == "ab01"
    assert told["trial"] is False
    assert told["errors"] == []
    assert len(told["ca"][0]) == 16


def check_what_is_sent_is_tried_and_stays_when_it_is_proved():
    read = fresh()
    assert keys.judge(read, sent("cd02"), URI)[1] is True
    assert keys.judge(read, sent("cd02"), URI)[1] is False, "the same again"
    assert in_force(read, True) == "cd02"
    assert keys.Keys(read).told()["trial"] is True
    told, again = keys.settle(read, 0)
    assert (told["serial"], told["trial"], told["errors"], again) == ("cd02", False, [], False)
    assert in_force(read, True) == "cd02"
    # and the next one goes into the other slot
    assert keys.judge(read, sent("ef03", 3), URI)[1] is True
    assert slots.read("cert.a")["gen"] == 1
    assert slots.read("cert.b")["gen"] == 2
    keys.settle(read, 0)
    assert in_force(read) == "ef03"
    assert keys.judge(read, sent("ef04", 4), URI)[1] is True
    assert slots.read("cert.a")["gen"] == 3
    assert slots.read("cert.b")["gen"] == 2


def check_without_a_session_the_old_returns():
    read = fresh()
    keys.judge(read, sent("cd02"), URI)
    for _ in range(keys.TRIES):
        assert in_force(read, True) == "cd02"
    assert in_force(read, True) == "ab01", "no session in so many starts"
    told = keys.Keys(read).told()
    assert told["serial"] == "ab01"
    assert told["errors"] == ["cd02: no session in 3 starts"]
    assert keys.judge(read, sent("cd02"), URI) == (told, False), "it is not tried again"
    assert keys.judge(read, sent("cd05"), URI)[1] is True
    told, again = keys.settle(read, "no session in 600 s")
    assert again
    assert told["serial"] == "ab01"
    assert told["errors"] == ["cd05: no session in 600 s"]


def check_while_one_is_on_trial_no_other_is_taken():
    """It would take the place of the one to return to."""
    read = fresh()
    keys.judge(read, sent("cd02"), URI)
    told, again = keys.judge(read, sent("cd03", 3), URI)
    assert not again
    assert told["errors"] == ["busy: another certificate is on trial"]
    assert in_force(read) == "cd02"


def check_a_bundle_that_is_newer_counts():
    read = fresh()
    keys.judge(read, sent("cd02", 5), URI)
    keys.settle(read, 0)
    assert in_force(bundle("ab01", 4)) == "cd02"
    assert in_force(bundle("ab06", 6)) == "ab06", "whoever flashes a node means it"


def check_one_that_is_older_than_the_bundle_is_refused_by_its_serial_number():
    """The issuer's clock was set back: the bundle would go before it for ever, and the gateway wait for it. What an
    earlier firmware has stored is refused when it comes again."""
    read = fresh("ab01", 3)
    told, again = keys.judge(read, sent("cd02", 2), URI)
    assert again is False
    assert told["errors"] == ["cd02: older than what was flashed: the issuer's clock was set back"]
    assert (told["serial"], told["trial"]) == ("ab01", False)
    assert slots.read("cert.a") is None
    assert keys.judge(read, sent("cd03", 3), URI)[1] is True, "one of the same second counts"
    stored = bundle("ab01", 5)
    told, again = keys.judge(stored, sent("cd03", 3), URI)
    assert again is False
    assert told["errors"][0].startswith("cd03: older")
    assert in_force(stored, True) == "ab01"


def check_roots_alone_leave_the_key():
    read = fresh()
    both = [text(b"\x30root"), text(b"\x30new root")]
    assert keys.judge(read, json.dumps({"ca": both}).encode(), URI)[1] is True
    assert keys.Keys(read).choose()[1:] == (b"\x30keyab01", [b"\x30root", b"\x30new root"])
    keys.settle(read, 0)
    keys.judge(read, sent("cd02"), URI)
    assert keys.Keys(read).choose()[1:] == (b"\x30keycd02", [b"\x30root", b"\x30new root"]), "they stay"
    assert len(keys.Keys(read).told()["ca"]) == 2


def check_what_is_wrong_is_refused_and_nothing_changes():
    read = fresh()
    key = text(b"\x30key")
    other = text(cert("cd02", uri="peanut:plant/tomato"))
    for payload in (
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b" " * (keys.MAX_SIZE + 1),
        sent("cd02", gen=7),
        sent("cd02", trial=0),
        sent("cd02", ca=[]),
        sent("cd02", ca=[text(b"\x30")] * 3),
        sent("cd02", ca=["?"]),
        sent("cd02", ca=text(b"\x30")),
        sent("cd02", key=7),
        sent("cd02", key=text(b"key")),
        sent("cd02", key=text(b"\x30" * 1025)),
        json.dumps({"key": key}).encode(),
        json.dumps({"cert": other}).encode(),
        json.dumps({"key": key, "cert": other}).encode(),
        json.dumps({"key": key, "cert": text(b"\x30 peanut:plant/peanut no dates")}).encode(),
        sent("cd02")[:-3],
    ):
        told, again = keys.judge(read, payload, URI)
        assert again is False, payload
        assert len(told["errors"]) == 1, payload
        assert told["serial"] == "ab01"
        assert text(b"\x30keycd02")[:8] not in json.dumps(told), "no key is told"
    assert slots.read("cert.a") is None
    assert slots.read("cert.b") is None
    assert keys.judge(read, sent("cd02"), URI)[1] is True


def check_a_slot_that_is_spoilt_is_none():
    read = fresh()
    keys.judge(read, sent("cd02"), URI)
    with open("cert.a", "rb") as f:
        data = bytearray(f.read())
    data[60] ^= 1
    with open("cert.a", "wb") as f:
        f.write(data)
    assert in_force(read, True) == "ab01"


def check_serial_numbers():
    for number in ("01", "7f", "0100", "9" * 40):
        assert keys.serial(cert(number)) == number.lstrip("0")
    assert keys.serial(b"") == ""
    assert keys.serial(b"\xa0\x03\x02\x01\x02\x02") == ""


def checks():
    """(name, function) of every check in this file."""
    everything = globals()
    return [(name, everything[name]) for name in sorted(everything) if name.startswith("check_")]


if __name__ == "__main__":
    for _name, _check in checks():
        _check()
        print("ok", _name)
