"""The reference codec against a table that is not ours: what paho-mqtt says of properties and reason codes.

Vectors and reference come from one reading of the standard; this proves that somebody else read the same tables.
"""

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.reference import codec

PAHO_TYPES = {number: name for name, number in vars(PacketTypes).items() if isinstance(number, int)}
PAHO_TYPES[PacketTypes.WILLMESSAGE] = "will"

PAHO_FORMS = {
    "Byte": "byte",
    "Two Byte Integer": "two",
    "Four Byte Integer": "four",
    "Variable Byte Integer": "varint",
    "Binary Data": "binary",
    "UTF-8 Encoded String": "string",
    "UTF-8 String Pair": "pair",
}


def test_packet_types_are_the_same() -> None:
    assert {n: name for n, name in PAHO_TYPES.items() if 1 <= n <= 15} == codec.TYPES


def test_properties_are_the_same() -> None:
    """5.0 table 2-4: identifier, name, form, packets."""
    theirs = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    names = {number: name.lower().replace(" ", "_") for name, number in theirs.names.items()}
    table = {
        number: (names[number], PAHO_FORMS[theirs.types[form]], frozenset(PAHO_TYPES[place] for place in where))
        for number, (form, where) in theirs.properties.items()
    }
    assert table == codec.PROPERTIES


def test_reason_codes_are_the_same() -> None:
    """5.0 table 2-6. paho leaves 0x99 out of CONNACK, where table 3-1 has it (the will's payload may be meant)."""
    theirs: dict[str, set[int]] = {"CONNACK": {0x99}}
    for code, meanings in ReasonCode(PacketTypes.CONNACK).names.items():
        for where in meanings.values():
            for packet_type in where:
                theirs.setdefault(PAHO_TYPES[packet_type], set()).add(code)
    assert theirs == {packet_type: set(codes) for packet_type, codes in codec.REASONS.items()}


def test_an_error_says_code_and_reason() -> None:
    with pytest.raises(codec.MqttError) as refused:
        codec.decode(b"\x00", 5)
    assert refused.value.code == 0x81
    assert str(refused.value) == "0x81: packet type 0 is reserved"
