"""Identities, rules and verdicts, against the README's agreements 1 and 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from peanutd._core import MAY_PUBLISH, MAY_SHARE, MAY_SUBSCRIBE, Broker
from peanutd.access import (
    Accept,
    Identity,
    IdentityError,
    Kind,
    Refuse,
    Slot,
    decide,
    identify,
    parse_uri,
)
from peanutd.config import Policy
from peanutd.rules import built_in

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
VIN = "WVWZZZ1JZXW000001"


# --- identity ---


def name_of(fleet: Any, leaf: Any, now: datetime = NOW) -> Identity:
    return identify(leaf.der, [fleet.root.certificate, fleet.issuing.certificate], now).identity


def refusal(fleet: Any, leaf: Any, now: datetime = NOW) -> str:
    with pytest.raises(IdentityError) as caught:
        name_of(fleet, leaf, now)
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "kind", "name"),
    [
        ("peanut:plant/peanut", Kind.PLANT, "peanut"),
        ("peanut:plant/7", Kind.PLANT, "7"),
        (f"peanut:plant/{'x' * 32}", Kind.PLANT, "x" * 32),
        (f"peanut:vin/{VIN}", Kind.VIN, VIN),
        ("peanut:operator/anna-2", Kind.OPERATOR, "anna-2"),
    ],
)
def test_a_certificate_names_a_member_of_the_fleet(shared_fleet: Any, uri: str, kind: Kind, name: str) -> None:
    identity = name_of(shared_fleet, shared_fleet.issue(uri))
    assert identity == Identity(kind, name)
    assert f"peanut:{identity}" == uri


@pytest.mark.parametrize(
    "uri",
    [
        "peanut:",
        "peanut:plant",
        "peanut:plant/",
        "peanut:plant/-a",
        "peanut:plant/a-",
        "peanut:plant/A",
        "peanut:plant/a/b",
        "peanut:plant/+",
        "peanut:plant/#",
        "peanut:plant/a b",
        "peanut:plant/a\n",
        "peanut:plant/ä",
        f"peanut:plant/{'x' * 33}",
        "peanut:vin/WVWZZZ1JZXW00000",
        "peanut:vin/WVWZZZ1JZXW00000I",
        f"peanut:vin/{VIN.lower()}",
        "peanut:operator/*",
        "peanut:admin/anna",
        "peanut:Plant/a",
        "PEANUT:plant/a",
        "xpeanut:plant/a",
        "plant/a",
    ],
)
def test_names_that_no_fleet_gives(uri: str) -> None:
    with pytest.raises(IdentityError, match="none that a fleet gives"):
        parse_uri(uri)


def test_no_name_and_two_names(shared_fleet: Any) -> None:
    assert "has no peanut: name in it" in refusal(shared_fleet, shared_fleet.issue())
    assert "has no peanut: name in it" in refusal(shared_fleet, shared_fleet.issue("https://example.org/plant/a"))
    two = shared_fleet.issue("peanut:plant/a", "peanut:plant/b")
    assert refusal(shared_fleet, two) == (
        "client certificate has 2 peanut: names (peanut:plant/a, peanut:plant/b); one is allowed"
    )
    assert name_of(shared_fleet, shared_fleet.issue("urn:x", "peanut:plant/a")).name == "a", "other URIs do not matter"


def test_the_common_name_is_not_read(shared_fleet: Any) -> None:
    leaf = shared_fleet.issue("x:plant/other", "peanut:plant/peanut")
    assert leaf.certificate.subject.rfc4514_string() == "CN=other"
    assert name_of(shared_fleet, leaf).name == "peanut"


def test_validity_is_judged_to_the_second(shared_fleet: Any, signer: Any) -> None:
    start, end = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, 12, 30, tzinfo=UTC)
    ca = signer("root", start=datetime(2020, 1, 1, tzinfo=UTC))
    leaf = shared_fleet.issue("peanut:plant/peanut", issuer=ca, start=start, end=end)
    second = timedelta(seconds=1)

    def at(now: datetime) -> Identity:
        return identify(leaf.der, [ca.certificate], now).identity

    assert at(start).name == "peanut"
    assert at(end).name == "peanut"
    with pytest.raises(IdentityError, match="greenhouse peanut not yet valid before 2026-03-01 00:00 UTC"):
        at(start - second)
    with pytest.raises(IdentityError, match="certificate of greenhouse peanut expired since 2026-04-01 12:30 UTC"):
        at(end + second)


def test_an_expired_ca_lets_nobody_in(fleet: Any, signer: Any) -> None:
    fleet.issuing = signer("issuing", fleet.root, start=NOW - 400 * DAY, days=399)
    leaf = fleet.issue(f"peanut:vin/{VIN}")
    assert "this fleet's CA certificate issuing expired since" in refusal(fleet, leaf)
    fleet.root = signer("root", start=NOW - 400 * DAY, days=399)
    fleet.issuing = signer("issuing", fleet.root)
    assert "this fleet's CA certificate root expired since" in refusal(fleet, fleet.issue("peanut:plant/a"))
    fleet.root = signer("root", start=NOW + DAY)
    fleet.issuing = signer("issuing", fleet.root)
    assert "CA certificate root not yet valid before" in refusal(fleet, fleet.issue("peanut:plant/a"))


def test_a_credential_ends_with_the_first_of_its_chain(fleet: Any, signer: Any) -> None:
    fleet.issuing = signer("issuing", fleet.root, days=30)
    leaf = fleet.issue("peanut:plant/a")
    credential = identify(leaf.der, [fleet.root.certificate, fleet.issuing.certificate], NOW)
    assert credential.not_after == fleet.issuing.certificate.not_valid_after_utc < leaf.certificate.not_valid_after_utc


def test_other_issuers(fleet: Any, signer: Any) -> None:
    foreign = "certificate of greenhouse peanut is not issued by this fleet's CA"
    other = signer("issuing", signer("root"))  # the same names, other keys
    assert refusal(fleet, fleet.issue("peanut:plant/peanut", issuer=other)) == foreign
    assert refusal(fleet, fleet.issue("peanut:plant/peanut", self_signed=True)) == foreign
    # Issued by somebody below the issuing CA: only our own files count.
    below = signer("below", fleet.issuing)
    assert refusal(fleet, fleet.issue("peanut:plant/peanut", issuer=below)) == foreign
    # An issuing CA whose root is not ours.
    leaf = fleet.issue("peanut:plant/peanut")
    with pytest.raises(IdentityError, match="not issued by this fleet's CA"):
        identify(leaf.der, [fleet.issuing.certificate], NOW)
    with pytest.raises(IdentityError, match="not issued by this fleet's CA"):
        identify(leaf.der, [], NOW)


def test_of_two_cas_with_the_same_key_the_first_counts(fleet: Any, signer: Any) -> None:
    """A CA that was renewed with its key: tls.load puts the one that is valid longest first."""
    old = signer("issuing", fleet.root, start=NOW - 400 * DAY, days=399)
    fleet.issuing = signer("issuing", fleet.root, key=old.key)
    leaf = fleet.issue("peanut:plant/peanut")
    new = fleet.issuing.certificate
    assert identify(leaf.der, [new, old.certificate, fleet.root.certificate], NOW).identity.name == "peanut"
    with pytest.raises(IdentityError, match="CA certificate issuing expired"):
        identify(leaf.der, [old.certificate, new, fleet.root.certificate], NOW)


@pytest.mark.parametrize(
    "more",
    [
        {"usages": [ExtendedKeyUsageOID.SERVER_AUTH]},
        {"no_usage": True},
        {"usages": [ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]},
    ],
)
def test_a_certificate_that_is_not_for_clients(shared_fleet: Any, more: dict[str, Any]) -> None:
    assert "has no clientAuth" in refusal(shared_fleet, shared_fleet.issue("peanut:plant/peanut", **more))


@pytest.mark.parametrize("der", [None, b"", b"\x30", b"no certificate", b"\x30\x80" + b"\x00" * 64])
def test_what_is_no_certificate_names_nobody(shared_fleet: Any, der: bytes | None) -> None:
    with pytest.raises(IdentityError):
        identify(der, [shared_fleet.root.certificate, shared_fleet.issuing.certificate], NOW)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")
def test_every_changed_byte_of_a_certificate_is_noticed(shared_fleet: Any) -> None:
    """What was signed cannot be changed by a bit; only the padding around the signature may, and that says nothing."""
    leaf = shared_fleet.issue("peanut:plant/peanut")
    der, signed = leaf.der, leaf.certificate.tbs_certificate_bytes
    authorities = [shared_fleet.root.certificate, shared_fleet.issuing.certificate]
    assert identify(der, authorities, NOW).identity.name == "peanut"
    refused = 0
    for at in range(len(der)):
        changed = der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]
        try:
            identify(changed, authorities, NOW)
        except IdentityError:
            refused += 1
        else:
            assert x509.load_der_x509_certificate(changed).tbs_certificate_bytes == signed
    assert refused >= len(der) - 1


# --- rules: the README's topic table ---

COMMANDS = {
    Kind.PLANT: ["UpdateTemperature", "cmd/ventilate"],
    Kind.VIN: ["unlock", "lock", "start", "stop", "horn", "cmd/locate"],
}
TO_NODE = ["config/desired", "ota/desired", "ota/chunk"]
KEPT = ["status", "state", "config/reported", "ota/status"]
REPORTS = ["ack", "telemetry", "health", "event", "log"]
MINE = {Kind.PLANT: ("peanut", "/plant/peanut"), Kind.VIN: (VIN, f"vin/{VIN}")}
ANOTHER = {Kind.PLANT: "/plant/tomato", Kind.VIN: "vin/WVWZZZ1JZXW000002"}
SLOTS = {Kind.PLANT: Slot.PLANT, Kind.VIN: Slot.VIN, Kind.OPERATOR: Slot.OPERATOR}
NODES = [Kind.PLANT, Kind.VIN]

May = Callable[..., bool]


@pytest.fixture(scope="module")
def broker() -> Broker:
    broker = Broker(seed=b"not a secret")
    built_in().install(broker)
    return broker


@pytest.fixture
def publish(broker: Broker) -> May:
    return lambda slot, name, topic, retain=False: broker.explain(slot.value, name, MAY_PUBLISH, topic, retain)[0]


@pytest.fixture
def subscribe(broker: Broker) -> May:
    return lambda slot, name, topic: broker.explain(slot.value, name, MAY_SUBSCRIBE, topic)[0]


@pytest.mark.parametrize("kind", NODES)
def test_a_node_reads_its_own_commands_and_nothing_else(kind: Kind, subscribe: May) -> None:
    name, root = MINE[kind]
    slot = SLOTS[kind]
    for topic in [*COMMANDS[kind], "cmd/+", *TO_NODE]:
        assert subscribe(slot, name, f"{root}/{topic}")
        assert not subscribe(slot, name, f"{ANOTHER[kind]}/{topic}"), "another node's commands"
    assert subscribe(slot, name, "fleet/time")
    assert subscribe(slot, name, "fleet/#")
    pattern = root.rpartition("/")[0] + "/+"
    for topic in [
        "#",
        "+/#",
        f"{root}/#",
        f"{root}/+",
        f"{pattern}/cmd/+",
        f"{pattern}/state",
        "$SYS/#",
        "$SYS/broker",
        "+",
    ]:
        assert not subscribe(slot, name, topic), topic
    for topic in [*KEPT, *REPORTS]:
        assert not subscribe(slot, name, f"{ANOTHER[kind]}/{topic}")


@pytest.mark.parametrize("kind", NODES)
def test_a_node_writes_its_own_reports_and_nothing_else(kind: Kind, publish: May) -> None:
    name, root = MINE[kind]
    slot = SLOTS[kind]
    for topic in KEPT:
        assert publish(slot, name, f"{root}/{topic}", True)
        assert publish(slot, name, f"{root}/{topic}", False)
    for topic in REPORTS:
        assert publish(slot, name, f"{root}/{topic}", False)
        assert not publish(slot, name, f"{root}/{topic}", True), "only status, state and config/reported are kept"
    for topic in [*KEPT, *REPORTS]:
        for retain in (False, True):
            assert not publish(slot, name, f"{ANOTHER[kind]}/{topic}", retain), "another node's report"
    for topic in [*COMMANDS[kind], *TO_NODE]:
        for node in (root, ANOTHER[kind]):
            for retain in (False, True):
                assert not publish(slot, name, f"{node}/{topic}", retain), "a command, even its own"
    for topic in ["fleet/time", "$SYS/broker", root, f"{root}/", f"{root}/state/x", f"{root}/other", "x"]:
        assert not publish(slot, name, topic), topic


def test_the_leading_slash_counts(publish: May, subscribe: May) -> None:
    assert not publish(Slot.PLANT, "peanut", "plant/peanut/state")
    assert not subscribe(Slot.PLANT, "peanut", "plant/peanut/UpdateTemperature")
    assert not publish(Slot.OPERATOR, "anna", "plant/peanut/UpdateTemperature")
    assert not publish(Slot.OPERATOR, "anna", f"/vin/{VIN}/unlock")


@pytest.mark.parametrize("kind", NODES)
def test_a_greenhouse_is_no_vehicle(kind: Kind, publish: May, subscribe: May) -> None:
    """The same name under the other kind's root opens nothing."""
    name, _ = MINE[kind]
    other = f"vin/{name}" if kind is Kind.PLANT else f"/plant/{name}"
    assert not publish(SLOTS[kind], name, f"{other}/state")
    assert not subscribe(SLOTS[kind], name, f"{other}/cmd/+")


@pytest.mark.parametrize("name", ["+", "#", "a/b", "", "a/+"])
def test_an_identity_is_no_pattern(name: str, publish: May, subscribe: May) -> None:
    assert not subscribe(Slot.PLANT, name, "/plant/peanut/UpdateTemperature")
    assert not subscribe(Slot.PLANT, name, f"/plant/{name}/UpdateTemperature")
    assert not publish(Slot.PLANT, name, "/plant/peanut/state")


def test_an_operator_reads_everything(subscribe: May) -> None:
    for topic in ["#", "$SYS/#", "/plant/+/telemetry", f"vin/{VIN}/state", "plant/#", "+/+"]:
        assert subscribe(Slot.OPERATOR, "anna", topic), topic


@pytest.mark.parametrize("kind", NODES)
def test_an_operator_commands_all_and_forges_no_report(kind: Kind, publish: May) -> None:
    for root in (MINE[kind][1], ANOTHER[kind]):
        for topic in [*COMMANDS[kind], "ota/desired", "ota/chunk"]:
            assert publish(Slot.OPERATOR, "anna", f"{root}/{topic}", False)
            assert not publish(Slot.OPERATOR, "anna", f"{root}/{topic}", True), "a retained command"
        for retain in (False, True):
            assert publish(Slot.OPERATOR, "anna", f"{root}/config/desired", retain)
            for topic in [*KEPT, *REPORTS]:
                assert not publish(Slot.OPERATOR, "anna", f"{root}/{topic}", retain), "a node's report"
    assert publish(Slot.OPERATOR, "anna", "fleet/time", False)
    assert not publish(Slot.OPERATOR, "anna", "fleet/time", True), "a time that is kept is wrong"
    assert not publish(Slot.OPERATOR, "anna", "$SYS/x")
    assert not publish(Slot.OPERATOR, "anna", "something/else")


def test_a_viewer_joins_nobody_s_group(broker: Broker, subscribe: May) -> None:
    """Reading takes nothing from anybody; a member of a shared subscription takes messages away from the others."""
    assert subscribe(Slot.USER_VIEWER, "joe", "#")
    for slot, may in (
        (Slot.USER_VIEWER, False),
        (Slot.TOKEN_VIEWER, False),
        (Slot.OPERATOR, True),
        (Slot.ANONYMOUS, True),
    ):
        assert broker.explain(slot.value, "joe", MAY_SHARE, "/plant/+/telemetry")[0] is may
    assert broker.explain(Slot.PLANT.value, "peanut", MAY_SHARE, "/plant/peanut/cmd/+")[0]


def test_the_anonymous_may_do_everything(publish: May, subscribe: May) -> None:
    for topic in ["a", "/plant/peanut/cmd/x", "fleet/time"]:
        assert publish(Slot.ANONYMOUS, "anonymous", topic, True)
        assert subscribe(Slot.ANONYMOUS, "anonymous", topic)
    assert subscribe(Slot.ANONYMOUS, "anonymous", "#")
    assert subscribe(Slot.ANONYMOUS, "anonymous", "$SYS/#")


# --- verdicts ---


@dataclass(frozen=True)
class Connect:
    """A CONNECT with only what the verdict depends on."""

    client_id: str = ""
    version: int = 5
    username: str | None = None
    clean_start: bool = True
    authentication_method: str | None = None


PEANUT = Identity(Kind.PLANT, "peanut")
CAR = Identity(Kind.VIN, VIN)
ANNA = Identity(Kind.OPERATOR, "anna")
CERTIFICATE = Policy("required")
ANYBODY = Policy("optional", anonymous=True)


def test_a_node_comes_in_under_its_own_name() -> None:
    for version in (3, 4, 5):
        assert decide(Connect("peanut", version), PEANUT, CERTIFICATE) == Accept("plant/peanut", "peanut", Slot.PLANT)
        assert decide(Connect(VIN, version), CAR, CERTIFICATE) == Accept(f"vin/{VIN}", VIN, Slot.VIN)
    named = decide(Connect("peanut", username="peanut"), PEANUT, CERTIFICATE)
    assert named == Accept("plant/peanut", "peanut", Slot.PLANT)


@pytest.mark.parametrize("client_id", ["", "tomato", "Peanut", "peanut ", "peanut/1", "plant/peanut"])
def test_a_node_under_another_name_is_refused(client_id: str) -> None:
    verdict = decide(Connect(client_id), PEANUT, CERTIFICATE)
    assert isinstance(verdict, Refuse)
    assert verdict.reason == 0x85
    assert f'client id "{client_id}" is not the certificate\'s name "peanut"' in verdict.text


@pytest.mark.parametrize("identity", [PEANUT, CAR, ANNA])
def test_a_user_name_that_contradicts_the_certificate_is_refused(identity: Identity) -> None:
    verdict = decide(Connect(identity.name, username="root"), identity, CERTIFICATE)
    assert isinstance(verdict, Refuse)
    assert verdict.reason == 0x86
    assert '"root"' in verdict.text
    assert isinstance(decide(Connect(identity.name, username=""), identity, CERTIFICATE), Refuse)


def test_sessions_of_operators_belong_to_operator_and_client_id() -> None:
    one = decide(Connect("peanut"), ANNA, CERTIFICATE)
    assert one == Accept("operator/anna/peanut", "anna", Slot.OPERATOR, owner="operator/anna")
    two = decide(Connect("peanut"), Identity(Kind.OPERATOR, "ben"), CERTIFICATE)
    assert isinstance(two, Accept)
    assert isinstance(one, Accept)
    assert two.session != one.session, "nobody takes over the session of another identity"


def test_no_two_identities_share_a_session_key() -> None:
    keys = {
        verdict.session
        for identity in (PEANUT, CAR, ANNA, Identity(Kind.OPERATOR, "peanut"), Identity(Kind.PSK, "peanut"), None)
        for client_id in ("peanut", VIN, "anna", "plant/peanut", "operator/anna/peanut", "/peanut")
        if isinstance(verdict := decide(Connect(client_id), identity, ANYBODY), Accept)
    }
    assert len(keys) == 1 + 1 + 6 + 6 + 6 + 6


@pytest.mark.parametrize(("identity", "start"), [(ANNA, "operator/anna/"), (None, "anonymous/")])
def test_an_empty_client_id_gets_a_new_one_each_time(identity: Identity | None, start: str) -> None:
    verdicts = [decide(Connect(""), identity, ANYBODY) for _ in range(20)]
    assigned = {verdict.assigned for verdict in verdicts if isinstance(verdict, Accept)}
    assert len(assigned) == 20
    for verdict in verdicts:
        assert isinstance(verdict, Accept)
        assert verdict.assigned
        assert verdict.session == start + verdict.assigned


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("identity", [ANNA, None])
def test_before_5_an_empty_client_id_needs_a_clean_session(identity: Identity | None, version: int) -> None:
    """MQTT-3.1.3-8 of 3.1.1; 5.0 gives the assigned name back to the client, so there it makes sense."""
    verdict = decide(Connect("", version, clean_start=False), identity, ANYBODY)
    assert isinstance(verdict, Refuse)
    assert verdict.reason == 0x85
    assert isinstance(decide(Connect("", version, clean_start=True), identity, ANYBODY), Accept)
    assert isinstance(decide(Connect("", 5, clean_start=False), identity, ANYBODY), Accept)


@pytest.mark.parametrize("identity", [PEANUT, ANNA, None])
def test_authentication_methods_are_not_supported(identity: Identity | None) -> None:
    verdict = decide(Connect("peanut", authentication_method="SCRAM-SHA-256"), identity, ANYBODY)
    assert isinstance(verdict, Refuse)
    assert verdict.reason == 0x8C


def test_without_a_certificate_only_where_the_listener_says_so() -> None:
    assert decide(Connect("x", username="who"), None, ANYBODY) == Accept("anonymous/x", "anonymous", Slot.ANONYMOUS)
    for policy, word in ((Policy("none"), "anonymous"), (Policy("optional"), "no client certificate given")):
        verdict = decide(Connect("x"), None, policy)
        assert isinstance(verdict, Refuse)
        assert verdict.reason == 0x87
        assert word in verdict.text


def test_a_certificate_is_never_worth_less_than_the_rules_of_its_kind() -> None:
    """On a listener that lets the anonymous in, an identity still gets its own rules."""
    verdict = decide(Connect("peanut"), PEANUT, ANYBODY)
    assert isinstance(verdict, Accept)
    assert verdict.slot is Slot.PLANT
