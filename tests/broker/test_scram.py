"""SCRAM against RFC 5802, RFC 7677 and RFC 4013: the published exchange, an independent client, every refusal."""

from __future__ import annotations

import base64
import time
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peanutd import scram
from tests.broker.scram_client import LEAST, Client, credential, digest, mac, salted

NONCE = "3rfcNHYJY1ZVvWVs7j+x0aB9"  # of a server, 24 characters
METHODS = sorted(scram.MECHANISMS)


def stored(method: str, password: str) -> scram.Credential:
    made = credential(method, password)
    salt, first, second = (base64.b64decode(made[key]) for key in ("salt", "stored_key", "server_key"))
    return scram.Credential(salt, made["iterations"], first, second)


@pytest.fixture(scope="module")
def pencil() -> scram.Credential:
    return stored("SCRAM-SHA-256", "pencil")


def begin(known: scram.Credential, client: Client) -> tuple[scram.Server, bytes]:
    server = scram.Server(scram.MECHANISMS[client.method], lambda name: known, NONCE)
    return server, server.first(client.first())


def error_of(server: scram.Server, step: str, data: bytes) -> str:
    with pytest.raises(scram.ScramError) as caught:
        getattr(server, step)(data)
    assert caught.value.message == b"e=" + caught.value.error.encode()
    return caught.value.error


def fresh(known: scram.Credential) -> scram.Server:
    return scram.Server(scram.SHA_256, lambda name: known, NONCE)


# --- the exchange -----------------------------------------------------------------------------------------------------


def test_the_exchange_of_rfc_7677() -> None:
    """RFC 7677 §3, byte for byte."""
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    known = scram.derive(scram.SHA_256, b"pencil", salt, 4096)
    server = scram.Server(scram.SHA_256, {"user": known}.__getitem__, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    assert server.first(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    final = server.final(
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    assert final == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert server.user == "user"


@pytest.mark.parametrize("method", METHODS)
def test_both_sides_prove_themselves(method: str) -> None:
    client = Client("maria", "correct horse", method)
    server, challenge = begin(stored(method, "correct horse"), client)
    assert client.check(server.final(client.final(challenge)))
    assert client.iterations == LEAST[method]


@pytest.mark.parametrize("method", METHODS)
def test_a_wrong_password_is_an_invalid_proof(method: str) -> None:
    client = Client("maria", "wrong", method)
    server, challenge = begin(stored(method, "correct horse"), client)
    assert error_of(server, "final", client.final(challenge)) == "invalid-proof"


@pytest.mark.parametrize("method", METHODS)
def test_derive_and_verify(method: str) -> None:
    mechanism = scram.MECHANISMS[method]
    known = scram.derive(mechanism, b"pencil", b"12345678", LEAST[method])
    key = salted(method, "pencil", b"12345678", LEAST[method])
    assert known.stored_key == digest(method, mac(method, key, b"Client Key"))
    assert known.server_key == mac(method, key, b"Server Key")
    assert scram.verify(mechanism, known, b"pencil")
    assert scram.verify(mechanism, known, "pen\u00adcil".encode())  # a soft hyphen maps to nothing
    for wrong in (b"", b"Pencil", b"pencil\0", b"\xff", b"pencil" * 200, "\u0627a".encode()):
        assert not scram.verify(mechanism, known, wrong)


def test_no_empty_password_even_where_one_is_stored() -> None:
    assert not scram.verify(scram.SHA_256, scram.derive(scram.SHA_256, b"", b"12345678", 4096), b"")


def test_a_credential_does_not_show_its_keys(pencil: scram.Credential) -> None:
    assert "key" not in repr(pencil)
    assert "salt" not in repr(pencil)


def test_extensions_that_are_not_mandatory_are_passed_over(pencil: scram.Credential) -> None:
    """RFC 5802 §5.1; they are part of what is signed."""
    client = Client("maria", "pencil")
    client.bare += ",x=future"
    server, challenge = begin(pencil, client)
    assert client.check(server.final(client.final(challenge)))


def test_a_client_that_thinks_we_have_no_channel_binding_is_right(pencil: scram.Credential) -> None:
    """RFC 5802 §6: "y" and no -PLUS on offer."""
    client = Client("maria", "pencil")
    client.header = "y,,"
    server, challenge = begin(pencil, client)
    assert client.check(server.final(client.final(challenge)))


def test_acting_for_oneself_is_allowed_and_for_another_not(pencil: scram.Credential) -> None:
    client = Client("maria", "pencil")
    client.header = "n,a=maria,"
    server, challenge = begin(pencil, client)
    assert client.check(server.final(client.final(challenge)))
    assert error_of(fresh(pencil), "first", b"n,a=joe,n=maria,r=abc") == "other-error"


def test_names_are_unescaped_and_prepared(pencil: scram.Credential) -> None:
    seen: list[str] = []
    server = scram.Server(scram.SHA_256, lambda name: seen.append(name) or pencil, NONCE)  # type: ignore[func-returns-value]
    server.first("n,,n=a=2Cb=3D2C\u2163,r=abc".encode())
    assert seen == ["a,b=2CIV"]


FIRST = [
    # bytes, error, why
    (b"", "invalid-encoding", "empty"),
    (b"n", "invalid-encoding", "only a flag"),
    (b"n,,", "invalid-encoding", "no name"),
    (b"n,,n=maria", "invalid-encoding", "no nonce"),
    (b"n,,r=abc,n=maria", "invalid-encoding", "in the wrong order"),
    (b"n,,n=maria,r=", "invalid-encoding", "an empty nonce"),
    (b"n,,n=maria,r=a b", "invalid-encoding", "a space in the nonce"),
    (b"n,,n=maria,r=a\x7f", "invalid-encoding", "DEL in the nonce"),
    ("n,,n=maria,r=\u00e4".encode(), "invalid-encoding", "a nonce beyond ASCII"),
    (b"n,,n=maria,r=abc,", "invalid-encoding", "an empty extension"),
    (b"n,,n=maria,r=abc,xx", "invalid-encoding", "an extension that is none"),
    (b"n,,n=maria,r=abc,m=1", "extensions-not-supported", "mandatory, behind the nonce"),
    (b"n,,m=1,n=maria,r=abc", "extensions-not-supported", "mandatory, in front"),
    (b"p=tls-unique,,n=maria,r=abc", "channel-binding-not-supported", "channel binding"),
    (b"x,,n=maria,r=abc", "invalid-encoding", "an unknown flag"),
    (b"n,b=maria,n=maria,r=abc", "invalid-encoding", "not a name to act for"),
    (b"n,,n=,r=abc", "invalid-username-encoding", "an empty name"),
    ("n,,n=\u00ad,r=abc".encode(), "invalid-username-encoding", "nothing is left of the name"),
    (b"n,,n=a=b,r=abc", "invalid-username-encoding", "a bare ="),
    (b"n,,n=a=2c,r=abc", "invalid-username-encoding", "an escape in lower case"),
    (b"n,,n=a\x07,r=abc", "invalid-username-encoding", "a control character"),
    (b"n,,n=\xff,r=abc", "invalid-encoding", "not UTF-8"),
    (b"n,,n=a\0,r=abc", "invalid-encoding", "NUL"),
]


@pytest.mark.parametrize(("data", "error"), [case[:2] for case in FIRST], ids=[case[2] for case in FIRST])
def test_first_messages_that_are_none(pencil: scram.Credential, data: bytes, error: str) -> None:
    assert error_of(fresh(pencil), "first", data) == error


def test_sizes_have_a_limit(pencil: scram.Credential) -> None:
    longest = b"n,,n=maria,r=" + b"x" * scram.MAX_NONCE
    fresh(pencil).first(longest)
    assert error_of(fresh(pencil), "first", longest + b"x") == "other-error"
    head = b"n,,n=maria,r=abc,x="
    whole = head + b"x" * (scram.MAX_MESSAGE - len(head))
    fresh(pencil).first(whole)
    assert error_of(fresh(pencil), "first", whole + b"x") == "other-error"
    server = fresh(pencil)
    server.first(b"n,,n=maria,r=abc")
    assert error_of(server, "final", b"c=" + b"x" * scram.MAX_MESSAGE) == "other-error"


@pytest.mark.parametrize(
    ("bend", "error"),
    [
        (lambda m: m.replace(b"c=biws", b"c=eSws"), "channel-bindings-dont-match"),  # "y,,"
        (lambda m: m.replace(b"c=biws", b"c=biwsbiws"), "channel-bindings-dont-match"),
        (lambda m: m.replace(b"c=biws", b"c=b*"), "invalid-encoding"),
        (lambda m: m.replace(NONCE.encode(), b"x" * len(NONCE)), "other-error"),
        (lambda m: m.replace(NONCE.encode(), b""), "other-error"),
        (lambda m: m.rpartition(b",p=")[0], "invalid-encoding"),
        (lambda m: m[:-4], "invalid-encoding"),
        (lambda m: m + b",x=1", "invalid-encoding"),
        (lambda m: b"m=1," + m, "invalid-encoding"),
        (lambda m: m.replace(b",p=", b",m=1,p="), "extensions-not-supported"),
        (lambda m: m.replace(b",p=", b",p=AAAA,p="), "invalid-proof"),
        (lambda m: m.replace(b",p=", b",x=1,p="), "invalid-proof"),  # it was not signed
        (lambda m: m.replace(b",r=", b",s="), "invalid-encoding"),
        (lambda m: m[:-5] + (b"A" if m[-5:-4] != b"A" else b"B") + m[-4:], "invalid-proof"),
        (lambda m: b"", "invalid-encoding"),
        (lambda m: b"p=", "invalid-encoding"),
    ],
)
def test_final_messages_that_prove_nothing(pencil: scram.Credential, bend: object, error: str) -> None:
    client = Client("maria", "pencil")
    server, challenge = begin(pencil, client)
    right = client.final(challenge)
    bent = bend(right)  # type: ignore[operator]
    assert bent != right
    assert error_of(server, "final", bent) == error


def test_a_proof_counts_for_its_own_exchange_only(pencil: scram.Credential) -> None:
    """Replayed in another exchange, whose nonce is another, it is worth nothing."""
    client = Client("maria", "pencil", nonce="always-the-same")
    server, challenge = begin(pencil, client)
    proof = client.final(challenge)
    server.final(proof)
    other = scram.Server(scram.SHA_256, lambda name: pencil, "another-nonce-24-long---")
    other.first(client.first())
    assert error_of(other, "final", proof) == "other-error"


def test_a_decoy_is_steady_and_fits_nothing() -> None:
    """RFC 5802 §9: who asks about a user who does not exist gets a salt as well, and the same one again."""
    for mechanism in scram.MECHANISMS.values():
        one = scram.decoy(mechanism, "nobody", b"s" * 32, 4096)
        assert one == scram.decoy(mechanism, "nobody", b"s" * 32, 4096)
        assert (len(one.salt), len(one.stored_key), len(one.server_key)) == (16, mechanism.size, mechanism.size)
        others = [
            scram.decoy(mechanism, "nobodi", b"s" * 32, 4096),
            scram.decoy(mechanism, "nobody", b"t" * 32, 4096),
        ]
        assert len({one.salt, *(other.salt for other in others)}) == 3
        client = Client("nobody", "anything", mechanism.name)
        server, challenge = begin(one, client)
        assert error_of(server, "final", client.final(challenge)) == "invalid-proof"


@settings(max_examples=300)
@given(st.binary(max_size=200), st.binary(max_size=200))
@example(b"n,,n=\xc2\xad,r=a", b"c=biws,r=a,p=")
def test_whatever_is_sent_ends_in_an_answer_or_a_scram_error(first: bytes, final: bytes) -> None:
    known = scram.decoy(scram.SHA_256, "x", b"s" * 32, 4096)
    for data in (first, b"n,,n=maria,r=" + first):
        server = fresh(known)
        try:
            server.first(data)
        except scram.ScramError:
            continue
        with pytest.raises(scram.ScramError):
            server.final(final)


# --- SASLprep ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "result"),
    [
        # RFC 4013 §3
        ("I\u00adX", "IX"),
        ("user", "user"),
        ("USER", "USER"),
        ("\u00aa", "a"),
        ("\u2168", "IX"),
        # §2.1: spaces become one sort of space
        ("a\u00a0b\u3000c", "a b c"),
        ("\u0627\u0661\u0628", "\u0627\u0661\u0628"),  # right to left, a digit between
        ("", ""),
    ],
)
def test_saslprep(text: str, result: str) -> None:
    assert scram.prepare(text) == result
    assert scram.prepare(text, stored=True) == result


@pytest.mark.parametrize(
    "text",
    [
        "\u0007",  # RFC 4013 §3: prohibited
        "\u0627\u0031",  # RFC 4013 §3: bidirectional check
        "\u0627a\u0628",  # RFC 3454 §6, 2
        "a\u0000b",
        "\u0080",
        "\u0340\ufffd",
        "\ue000",
        "\u2ff0",
        "\ud800",
        "\U000e0001",
        "\ufdd0",
    ],
)
def test_saslprep_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"U\+|mixed"):
        scram.prepare(text)


def test_saslprep_of_what_unicode_3_2_did_not_know() -> None:
    """RFC 3454 §7: not in what is stored, but in a query."""
    assert unicodedata.ucd_3_2_0.category("\U0001f600") == "Cn"
    assert scram.prepare("\U0001f600") == "\U0001f600"
    with pytest.raises(ValueError, match=r"U\+1F600"):
        scram.prepare("\U0001f600", stored=True)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_saslprep_leaves_printable_ascii_alone(text: str) -> None:
    assert scram.prepare(text, stored=True) == text


def test_the_longest_name_does_not_hold_up_the_loop(pencil: scram.Credential) -> None:
    """A hundred of them in a second: at most 10 ms each on any machine that we know."""
    data = b"n,,n=" + "\u00c5".encode() * 500 + b",r=abc"
    assert len(data) <= scram.MAX_MESSAGE
    start = time.process_time()
    for _ in range(10):
        fresh(pencil).first(data)
    assert time.process_time() - start < 0.5
