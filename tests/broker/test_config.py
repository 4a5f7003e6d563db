"""gateway.toml: safe defaults, and every mistake named with line, key and remedy."""

from __future__ import annotations

import contextlib
import os
import time
import tomllib
from dataclasses import fields
from functools import partial
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peanutd import _core
from peanutd.access import Role
from peanutd.config import (
    LOOPBACK,
    MAX_DEPTH,
    MAX_FILE_SIZE,
    ROLES,
    UNIX_PATH_MAX,
    Address,
    BanRules,
    Config,
    ConfigError,
    Jwt,
    Listen,
    Listener,
    Mqtt,
    Policy,
    UnixPath,
    load,
    loops_for,
    parse,
    parse_address,
)
from peanutd.toml_lines import lines_of_keys

LIMITS = {"max_packet_size": 1048576, "max_inflight": 64}


def read(text: str) -> Config:
    return parse(text, "gateway.toml", LIMITS)


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value).splitlines()


def mistake(text: str) -> str:
    (line,) = mistakes(text)
    return line


def test_the_core_s_limits_may_be_words() -> None:
    limits = {"rate_action": 0}
    for text, number in (("throttle", 0), ("disconnect", 1)):
        assert parse(f'[mqtt]\nrate_action = "{text}"', "gateway.toml", limits).limits == {"rate_action": number}
    for wrong in ("1", '"kill"'):
        with pytest.raises(ConfigError, match="rate_action: must be one of throttle, disconnect"):
            parse(f"[mqtt]\nrate_action = {wrong}", "gateway.toml", limits)


# --- defaults ---


def test_without_a_file_only_mutual_tls_listens(tmp_path: Path) -> None:
    config = load(tmp_path, LIMITS)
    assert config.listen.mqtts == Address("0.0.0.0", 8883)
    assert config.listen.mqtt is None
    assert config.listen.time == config.listen.mqtts
    (listener,) = config.listeners
    assert (listener.address, listener.transport) == (Address("0.0.0.0", 8883), "tls")
    assert listener.policy == Policy("required", password=False, anonymous=False)
    assert listener.proxy_from is None
    assert not config.access.anonymous
    assert not config.limits
    assert not config.warnings, "defaults make no noise"
    assert config == read("")


@pytest.mark.parametrize(("cores", "loops"), [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3), (8, 4), (64, 4)])
def test_there_are_loops_by_cores(cores: int, loops: int) -> None:
    assert loops_for(cores) == loops


@pytest.mark.parametrize("loops", [0, 17])
def test_there_is_one_loop_at_least_and_not_any_number(loops: int) -> None:
    with pytest.raises(ConfigError, match="loops"):
        read(f"[listen]\nloops = {loops}")


def test_every_key_is_read() -> None:
    config = read("""
        [listen]
        mqtts = "[::1]:1"
        mqtt = "127.0.0.1:2"
        time = "127.0.0.1:3"
        insecure = true
        max_handshakes = 5
        handshake_timeout = 4
        handshake_rate = 7
        accept_rate = 0
        handshake_threads = 3
        loops = 5
        session_tickets = 600
        stall_timeout = 8
        metrics = "127.0.0.1:9"
        [bans]
        window = 10
        duration = 20
        connects = 1
        failures = 2
        user_failures = 0
        v4_prefix = 24
        v6_prefix = 128
        never = ["10.0.0.0/8"]
        [access]
        anonymous = true
        [mqtt]
        max_packet_size = 5
        sys_interval = 0
        mqtt31 = true
        server_reference = "a.example:1 [::1]"
        deny_subscribe = ["secret/#", "+/x"]
        deny_publish = ["#"]
        response_information = "answers/{id}"
        max_connections = 3
        max_connections_per_address = 0
        max_connections_per_identity = 6
        [log]
        level = "debug"
        format = "json"
    """)
    assert config.listen.mqtts == Address("::1", 1)
    assert config.listen.mqtt == Address("127.0.0.1", 2)
    assert config.listen.time == Address("127.0.0.1", 3)
    assert config.listen.insecure
    assert config.listen.max_handshakes == 5
    assert config.listen.handshake_timeout == 4
    assert (config.listen.handshake_rate, config.listen.accept_rate, config.listen.stall_timeout) == (7, 0, 8)
    assert (config.listen.handshake_threads, config.listen.loops, config.listen.session_tickets) == (3, 5, 600)
    assert config.listen.metrics == Address("127.0.0.1", 9)
    assert config.bans == BanRules(10, 20, 1, 2, 0, 24, 128, (IPv4Network("10.0.0.0/8"),))
    assert config.log_format == "json"
    assert config.mqtt == Mqtt(0, True, "a.example:1 [::1]", ("secret/#", "+/x"), ("#",), "answers/{id}", 3, 0, 6)
    assert config.access.anonymous
    assert dict(config.limits) == {"max_packet_size": 5}
    assert config.log_level == "debug"
    assert [(str(listener), listener.policy.anonymous) for listener in config.listeners] == [
        ("mqtts [::1]:1", False),
        ("mqtt 127.0.0.1:2", True),
    ]
    assert not config.warnings


def test_a_slow_node_has_the_time_that_it_gives_itself() -> None:
    """Ten seconds of TLS on an emulated chip are no reason to hang up: the node's own link.connect_s is 30."""
    assert Listen().handshake_timeout == 30


def test_the_time_is_told_where_mqtts_listens_unless_it_is_said_or_off() -> None:
    """The same number for UDP, so that a node needs no second one."""
    assert read('[listen]\nmqtts = "127.0.0.1:18883"').listen.time == Address("127.0.0.1", 18883)
    assert read('[listen]\nmqtts = ""\nmqtt = "127.0.0.1:1"').listen.time is None
    assert read('[listen]\ntime = ""').listen.time is None


def test_config_is_frozen() -> None:
    config = read("[mqtt]\nmax_inflight = 1")
    with pytest.raises(AttributeError):
        config.log_level = "debug"  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.limits["max_inflight"] = 2  # type: ignore[index]


# --- mistakes ---


@pytest.mark.parametrize(
    ("text", "place", "remedy"),
    [
        ('\n[listen]\nmqts = ""', "gateway.toml:3: [listen] mqts", 'did you mean "mqtts"?'),
        ("[listn]\n", "gateway.toml:1: [listn]", 'did you mean "listen"?'),
        ('[listen]\nmetrics = "0.0.0.0:1"', "gateway.toml:2: [listen] metrics", 'write "127.0.0.1:1"'),
        ("[bans]\nv4_prefix = 33", "gateway.toml:2: [bans] v4_prefix", "it must be 1 to 32"),
        ("[bans]\nwindow = 0", "gateway.toml:2: [bans] window", "it must be 1 to"),
        ('[bans]\nnever = ["x"]', "gateway.toml:2: [bans] never", "write networks"),
        ('[log]\nformat = "xml"', "gateway.toml:2: [log] format", "plain, json"),
        ("[access]\n\nzebra = 1", "gateway.toml:3: [access] zebra", "known here: anonymous"),
        ("[mqtt]\nmax_inflght = 1", "gateway.toml:2: [mqtt] max_inflght", 'did you mean "max_inflight"?'),
        ("[listen]\nmqtts = 8883", "gateway.toml:2: [listen] mqtts", "must be a string"),
        ('[listen]\nmqtts = "0.0.0.0"', "gateway.toml:2: [listen] mqtts", "an address and a port"),
        ('[listen]\nmqtts = "0.0.0.0:66000"', "gateway.toml:2: [listen] mqtts", "0 to 65535"),
        ('[listen]\nmqtts = "10.0.0.300:1"', "gateway.toml:2: [listen] mqtts", "not an IP address"),
        ('[listen]\nmqtts = "::1:1"', "gateway.toml:2: [listen] mqtts", "in brackets"),
        ('[listen]\nmqtts = "[::g]:1"', "gateway.toml:2: [listen] mqtts", "not an IPv6 address"),
        ('[listen]\ninsecure = "yes"', "gateway.toml:2: [listen] insecure", "true or false, without quotes"),
        ("[mqtt]\nmax_connections = 0", "gateway.toml:2: [mqtt] max_connections", "1 to"),
        ("[mqtt]\nmax_connections = true", "gateway.toml:2: [mqtt] max_connections", "whole number"),
        ("[mqtt]\nmax_inflight = -1", "gateway.toml:2: [mqtt] max_inflight", "0 to"),
        ("[mqtt]\nmax_inflight = 1.5", "gateway.toml:2: [mqtt] max_inflight", "whole number"),
        ("\nlistn.x = 1", "gateway.toml:2: [listn]", 'did you mean "listen"?'),
        ('[log]\nlevel = "loud"', "gateway.toml:2: [log] level", "debug, info, warning, error"),
        ("listen = 1", "gateway.toml:1: [listen]", "write [listen] on a line of its own"),
        ('[listen]\nmqtts = ""', "gateway.toml:2: [listen] mqtts", 'set mqtts = "0.0.0.0:8883"'),
    ],
)
def test_a_mistake_is_named_with_line_key_and_remedy(text: str, place: str, remedy: str) -> None:
    line = mistake(text)
    assert line.startswith(place + ": ")
    assert remedy in line


def test_all_mistakes_are_named_at_once_in_the_order_of_the_file() -> None:
    lines = mistakes('[log]\nlevel = "x"\n[listen]\nmqts = ""\ninsecure = 1\n')
    assert [line.split(":")[1] for line in lines] == ["2", "4", "5"]


def test_a_syntax_error_has_line_and_column() -> None:
    assert mistake('[listen]\nmqtts = "a\n').startswith("gateway.toml:2:11: ")
    assert mistake("[listen]\n\nmqtts 1").startswith("gateway.toml:3:7: ")
    assert mistake("x = [1,\n").startswith("gateway.toml:1: ")


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_bytes(b"# one\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"gateway\.toml:2: not UTF-8"):
        load(tmp_path, LIMITS)
    path.write_bytes(b"#" * MAX_FILE_SIZE)
    assert load(tmp_path, LIMITS) == Config()
    path.write_bytes(b"#" * MAX_FILE_SIZE + b"#")
    with pytest.raises(ConfigError, match="larger than 65536 bytes"):
        load(tmp_path, LIMITS)
    for make in (path.mkdir, partial(os.mkfifo, path)):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
        make()
        with pytest.raises(ConfigError, match=r"cannot be read: (it is not a regular file|Is a directory)"):
            load(tmp_path, LIMITS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\na" + ".a" * MAX_DEPTH + " = 1", "gateway.toml:2: a key of more than 16 parts"),
        ("[" + "a." * 30_000 + "a]", "gateway.toml:1: a key of more than 16 parts"),
        ("x = {" + '"a" . ' * 10_000 + "a = 1}", "gateway.toml:1: a key of more than 16 parts"),
        ("x = " + "[" * 30_000, "nested too deeply"),
        ("x = " + "[" * 30_000 + "]" * 30_000, "nested too deeply"),
        ("x = " + "{a=" * 20_000, "nested too deeply"),
    ],
    ids=["dots", "table", "inline", "open lists", "lists", "inline tables"],
)
def test_a_file_made_to_cost_time_or_depth(text: str, words: str) -> None:
    begin = time.process_time()
    assert words in mistake(text)
    assert time.process_time() - begin < 2.0


@pytest.mark.parametrize("filler", ["a", '"', "'", ".", "a.", " ", "-."])
def test_the_look_at_depth_takes_no_time(filler: str) -> None:
    """64 KiB that could be the beginning of a deep key all along."""
    begin = time.process_time()
    with contextlib.suppress(ConfigError):
        read("# " + filler * (MAX_FILE_SIZE // len(filler)))
    assert time.process_time() - begin < 1.0


def test_at_the_limit_of_depth_a_key_is_only_unknown() -> None:
    assert "unknown table" in mistake("a" + ".a" * (MAX_DEPTH - 1) + " = 1")


# --- what is too dangerous to be set by accident ---


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1883", ":1883", "192.168.1.2:1883", "[::]:1883", "[::ffff:127.0.0.1]:1883"]
)
def test_plaintext_on_a_public_address_is_refused(address: str) -> None:
    text = f'[listen]\nmqtt = "{address}"\n'
    line = mistake(text)
    assert line.startswith("gateway.toml:2: [listen] mqtt: ")
    assert "without encryption" in line
    assert "insecure = true" in line
    assert read(text + "insecure = true").listen.mqtt == parse_address(address)


@pytest.mark.parametrize("address", ["127.0.0.1:1883", "127.9.9.9:1883", "[::1]:1883", "localhost:1883"])
def test_plaintext_on_loopback_needs_no_word(address: str) -> None:
    assert read(f'[listen]\nmqtt = "{address}"').listen.mqtt == parse_address(address)


@pytest.mark.parametrize("listen", ["", '[listen]\nmqtt = "0.0.0.0:1883"\ninsecure = true\n'])
def test_anonymous_is_refused_unless_the_plaintext_listener_is_loopback(listen: str) -> None:
    line = mistake(listen + "[access]\nanonymous = true")
    assert "[access] anonymous: true lets everybody do everything" in line
    assert read('[listen]\nmqtt = "127.0.0.1:1883"\n[access]\nanonymous = true').access.anonymous


def test_plaintext_without_anonymous_is_pointed_out() -> None:
    (warning,) = read('[listen]\nmqtt = "127.0.0.1:1883"').warnings
    assert warning.startswith("gateway.toml:2: [listen] mqtt: ")


def test_https_is_on_unless_other_addresses_are_named() -> None:
    assert Config().listen.https == Address("0.0.0.0", 8443)
    assert read('[listen]\nmetrics = "127.0.0.1:9883"').listen.https == Address("0.0.0.0", 8443)
    assert read('[listen]\nmqtts = "127.0.0.1:1"').listen.https is None
    assert read('[listen]\nmqtts = "127.0.0.1:1"\nhttps = "127.0.0.1:2"').listen.https == Address("127.0.0.1", 2)
    assert read('[listen]\nhttps = ""').listen.https is None
    assert "address and a port" in mistake('[listen]\nhttps = "x"')


def test_a_certificate_for_https_needs_its_key() -> None:
    found = read('[https]\ncertificate = "web.crt"\nkey = "web.key"').https
    assert (found.certificate, found.key) == ("web.crt", "web.key")
    assert "[https] key: is missing" in mistake('[https]\ncertificate = "web.crt"')
    assert "[https] certificate: is missing" in mistake('[https]\nkey = "web.key"')
    assert "must be the name of a file" in mistake("[https]\nkey = 1")


def test_plain_http_is_for_this_machine_only() -> None:
    assert Config().https.local is None
    assert read('[https]\nlocal = "127.0.0.1:8442"').https.local == Address("127.0.0.1", 8442)
    assert read('[https]\nlocal = "[::1]:8442"').https.local == Address("::1", 8442)
    for other in ("0.0.0.0:8442", "192.168.1.5:8442", ":8442"):
        assert "only this machine" in mistake(f'[https]\nlocal = "{other}"')


# --- [[listener]] ---


def listeners(text: str) -> tuple[Listener, ...]:
    return read('[listen]\nmqtts = ""\n' + text).listeners


def test_every_key_of_a_listener_is_read() -> None:
    page, proxied, local = listeners("""
        [[listener]]
        address = "0.0.0.0:8443"
        transport = "wss"
        certificate = "optional"
        password = true
        origins = ["https://app.example.org", "*"]
        path = "/broker"
        [[listener]]
        address = "10.0.0.1:1"
        proxy_protocol = true
        proxy_from = ["10.0.0.0/8", "::1"]
        [[listener]]
        address = "unix:/run/peanut.sock"
        transport = "unix"
        anonymous = true
        mode = "0600"
    """)
    assert str(page) == "wss 0.0.0.0:8443/broker"
    assert page.policy == Policy("optional", password=True)
    assert page.origins == ("https://app.example.org", "*")
    assert page.where == "[[listener]] 1 of gateway.toml"
    assert str(proxied) == "mqtts 10.0.0.1:1"
    assert [str(network) for network in proxied.proxy_from or ()] == ["10.0.0.0/8", "::1/128"]
    assert str(local) == "mqtt unix:/run/peanut.sock"
    assert (local.address, local.mode) == (UnixPath("/run/peanut.sock"), 0o600)
    assert local.policy == Policy("none", anonymous=True)


def test_the_defaults_of_a_listener_are_the_safe_ones() -> None:
    (listener,) = listeners('[[listener]]\naddress = "0.0.0.0:1"')
    assert listener.transport == "tls"
    assert listener.policy == Policy("required", password=False, anonymous=False)
    assert (listener.proxy_from, listener.origins, listener.path) == (None, (), "/mqtt")
    (listener,) = listeners('[[listener]]\naddress = "0.0.0.0:1"\nproxy_protocol = true')
    assert listener.proxy_from == LOOPBACK
    (listener,) = listeners('[[listener]]\naddress = "unix:/s"\nanonymous = true')
    assert (listener.transport, listener.mode) == ("tcp", 0o660)


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ("", "address", "missing; write where to listen"),
        ('address = ""', "address", "empty; write where to listen"),
        ("address = 1", "address", "must be a string"),
        ('address = "x"', "address", "an address and a port"),
        ('address = "unix:peanut.sock"', "address", "the whole path"),
        (f'address = "unix:/{"x" * UNIX_PATH_MAX}"', "address", f"the system allows {UNIX_PATH_MAX}"),
        ('address = "127.0.0.1:1"\ntransport = "udp"', "transport", "must be one of tcp, tls, ws, wss, unix"),
        ('address = "127.0.0.1:1"\ntransport = "unix"', "transport", "needs a path"),
        ('address = "127.0.0.1:1"\ncertificate = "maybe"', "certificate", "required, optional, none"),
        ('address = "127.0.0.1:1"\ncertificate = true', "certificate", "it is true"),
        ('address = "127.0.0.1:1"\ntransport = "tcp"\ncertificate = "required"', "certificate", "needs TLS"),
        ('address = "127.0.0.1:1"\ncertificate = "none"', "certificate", "nobody could come in"),
        ('address = "127.0.0.1:1"\ntransport = "tcp"', "certificate", "nobody could come in"),
        ('address = "unix:/s"', "certificate", "nobody could come in"),
        ('address = "0.0.0.0:1"\ntransport = "tcp"\npassword = true', "address", "without encryption"),
        ('address = "0.0.0.0:1"\ntransport = "ws"\npassword = true', "address", 'transport = "wss"'),
        ('address = "0.0.0.0:1"\ncertificate = "none"\nanonymous = true', "anonymous", "only this machine"),
        ('address = "127.0.0.1:1"\nanonymous = true', "anonymous", 'certificate = "optional"'),
        (
            'address = "127.0.0.1:1"\ntransport = "tcp"\nanonymous = true\nproxy_protocol = true',
            "anonymous",
            "behind a proxy",
        ),
        ('address = "127.0.0.1:1"\npassword = "yes"', "password", "true or false"),
        ('address = "127.0.0.1:1"\nproxy_protocol = 2', "proxy_protocol", "true or false"),
        ('address = "127.0.0.1:1"\nproxy_from = ["127.0.0.1"]', "proxy_from", "without proxy_protocol = true"),
        (
            'address = "127.0.0.1:1"\nproxy_protocol = true\nproxy_from = ["10.0.0.1/8"]',
            "proxy_from",
            "has host bits set; write networks",
        ),
        ('address = "127.0.0.1:1"\nproxy_protocol = true\nproxy_from = "all"', "proxy_from", "list of strings"),
        ('address = "127.0.0.1:1"\norigins = ["*"]', "origins", 'without transport = "ws" or "wss"'),
        ('address = "127.0.0.1:1"\ntransport = "wss"\norigins = ["app.example"]', "origins", "not an origin"),
        ('address = "127.0.0.1:1"\ntransport = "wss"\norigins = ["https://a.example/"]', "origins", "not an origin"),
        ('address = "127.0.0.1:1"\npath = "/x"', "path", 'without transport = "ws" or "wss"'),
        ('address = "127.0.0.1:1"\ntransport = "wss"\npath = "mqtt"', "path", 'begins with "/"'),
        ('address = "127.0.0.1:1"\ntransport = "wss"\npath = "/a?b"', "path", 'begins with "/"'),
        ('address = "127.0.0.1:1"\nmode = "0600"', "mode", 'without address = "unix:/path"'),
        ('address = "unix:/s"\nanonymous = true\nmode = 600', "mode", "octal, as a string"),
        ('address = "unix:/s"\nanonymous = true\nmode = "0999"', "mode", "octal, as a string"),
        ('address = "127.0.0.1:1"\nadress = "x"', "adress", 'did you mean "address"?'),
        ('address = "127.0.0.1:1"\npsk = "psk.toml"', "psk", "true or false"),
        ('address = "127.0.0.1:1"\npsk = true\ntransport = "wss"', "transport", "does not go with psk = true"),
        ('address = "127.0.0.1:1"\npsk = true\ntransport = "tcp"', "transport", 'set transport = "tls"'),
        ('address = "unix:/s"\npsk = true', "address", "an address and a port"),
        ('address = "127.0.0.1:1"\npsk = true\nproxy_protocol = true', "proxy_protocol", "leave it out"),
        ('address = "127.0.0.1:1"\npsk = true\ncertificate = "optional"', "certificate", "a listener for each"),
        ('address = "127.0.0.1:1"\npsk = true\npassword = true', "password", "a listener for each"),
    ],
)
def test_a_mistake_in_a_listener_is_named_with_number_and_key(text: str, key: str, remedy: str) -> None:
    line = mistake('[[listener]]\naddress = "127.0.0.1:2"\n[[listener]]\n' + text)
    where = next((n for n, row in enumerate(text.splitlines(), 4) if row.startswith(f"{key} ")), 3)
    assert line.startswith(f"gateway.toml:{where}: [[listener]] 2 {key}: ")
    assert remedy in line


def test_keys_of_devices_stand_alone_and_need_the_native_loop() -> None:
    text = '[[listener]]\naddress = "0.0.0.0:1"\npsk = true\n'
    (listener,) = read(f'[listen]\nmqtts = ""\ndriver = "native"\n{text}').listeners
    assert (listener.transport, listener.policy) == ("tls", Policy("none", psk=True))
    line = mistake(f'[listen]\ndriver = "asyncio"\n{text}')
    assert line.startswith('gateway.toml:2: [listen] driver: "asyncio" cannot do psk, which [[listener]] 1')
    assert 'set driver = "native"' in line
    jwt = '[jwt]\nkeys = "k"\nissuer = "i"\naudience = "a"\n'
    assert "jwt: does not go with psk" in mistake(f"{jwt}{text}jwt = true")
    assert "anonymous: does not go with psk" in mistake(text.replace("0.0.0.0", "127.0.0.1") + "anonymous = true")


def test_listeners_that_are_none() -> None:
    assert "[[listener]]: must be tables" in mistake("listener = 1")
    assert "with two brackets" in mistake('[listener]\naddress = "127.0.0.1:1"')
    assert "nothing to listen on" in mistake('[listen]\nmqtts = ""')
    assert [str(listener) for listener in listeners('[[listener]]\naddress = "[::1]:1"')] == ["mqtts [::1]:1"]


# --- [jwt] ------------------------------------------------------------------------------------------------------------

JWT = '[jwt]\nkeys = "jwks.json"\nissuer = "https://id.example.org/"\naudience = "peanut"\n'


def test_tokens() -> None:
    found = read(JWT).jwt
    assert found == Jwt("jwks.json", "https://id.example.org/", "peanut")
    assert not found.remote
    assert found.algorithms == ("ES256", "EdDSA", "RS256"), "those with a secret must be asked for"
    assert found.role == "viewer"
    assert read("").jwt is None
    assert read(JWT + 'algorithms = ["HS512"]').jwt == Jwt(
        "jwks.json", "https://id.example.org/", "peanut", algorithms=("HS512",)
    )
    more = 'algorithms = ["EdDSA"]\nrefresh = 10\nleeway = 0\nname_claim = "email"\nrole_claim = "r"\nrole = "admin"\n'
    found = read(JWT.replace("jwks.json", "https://id.example.org/keys") + more).jwt
    assert found is not None
    assert found.remote
    assert (found.algorithms, found.refresh, found.leeway) == (("EdDSA",), 10, 0)
    assert (found.name_claim, found.role_claim, found.role) == ("email", "r", "admin")
    assert set(ROLES) == {role.value for role in Role}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (JWT.replace('issuer = "https://id.example.org/"\n', ""), "gateway.toml:1: [jwt] issuer: is missing"),
        (JWT.replace('"peanut"', '""'), "gateway.toml:4: [jwt] audience: must be a string"),
        (JWT.replace('"peanut"', '["peanut"]'), "gateway.toml:4: [jwt] audience: must be a string; it is a list"),
        (JWT + 'algorithms = ["none"]', 'gateway.toml:5: [jwt] algorithms: "none"; write some of ES256'),
        (JWT + "algorithms = []", "gateway.toml:5: [jwt] algorithms: "),
        (
            JWT.replace("jwks.json", "https://id.example.org/keys") + 'algorithms = ["ES256", "HS256"]',
            "gateway.toml:5: [jwt] algorithms: HS… work with a secret, which no URL gives away",
        ),
        (JWT + 'role = "root"', "gateway.toml:5: [jwt] role: must be one of viewer, operator, admin"),
        (JWT + "refresh = 9", "gateway.toml:5: [jwt] refresh: is 9; it must be 10 to"),
        (JWT + 'isuer = "x"', 'gateway.toml:5: [jwt] isuer: unknown key; did you mean "issuer"?'),
        ("jwt = 1", "gateway.toml:1: [jwt]: must be a table"),
        (JWT.replace("jwks.json", "http://id.example.org/keys"), "gateway.toml:2: [jwt] keys: must be a file or begin"),
        (JWT.replace("jwks.json", "ftp://id.example.org/keys"), "gateway.toml:2: [jwt] keys: must be a file or begin"),
        (
            JWT.replace("jwks.json", "https://me@id.example.org/k"),
            "gateway.toml:2: [jwt] keys: must be a file or begin",
        ),
    ],
)
def test_bad_settings_of_tokens(text: str, words: str) -> None:
    assert any(line.startswith(words) for line in mistakes(text)), mistakes(text)


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "[::1]:80"])
def test_keys_from_this_machine_may_come_in_plaintext(host: str) -> None:
    found = read(JWT.replace("jwks.json", f"http://{host}/keys")).jwt
    assert found is not None
    assert found.remote


def test_a_listener_for_tokens() -> None:
    text = '[[listener]]\naddress = "0.0.0.0:1"\ncertificate = "none"\njwt = true\n'
    (listener,) = listeners(JWT + text)
    assert listener.policy == Policy("none", jwt=True)
    assert "nothing says whose tokens count" in mistake(text)
    plain = text.replace('certificate = "none"', 'transport = "tcp"\ninsecure = true')
    assert "send tokens in the clear" in mistake(JWT + plain)
    assert listeners(JWT + plain.replace("0.0.0.0", "127.0.0.1"))[0].policy.jwt


def test_plaintext_of_a_listener_needs_a_word_unless_it_is_loopback() -> None:
    text = '[[listener]]\naddress = "0.0.0.0:1"\ntransport = "ws"\npassword = true\n'
    assert "insecure = true" in mistake(text)
    assert "send passwords in the clear" in mistake(text + "insecure = true"), "and for passwords no word is enough"
    assert listeners(text.replace("0.0.0.0", "127.0.0.1"))[0].policy.password


# --- addresses ---


@pytest.mark.parametrize(
    ("text", "address", "shown", "loopback"),
    [
        ("0.0.0.0:8883", Address("0.0.0.0", 8883), "0.0.0.0:8883", False),
        ("127.0.0.1:0", Address("127.0.0.1", 0), "127.0.0.1:0", True),
        ("[::1]:8883", Address("::1", 8883), "[::1]:8883", True),
        ("[::]:1", Address("::", 1), "[::]:1", False),
        (":8883", Address("", 8883), ":8883", False),
        ("localhost:1", Address("127.0.0.1", 1), "127.0.0.1:1", True),
    ],
)
def test_addresses(text: str, address: Address, shown: str, loopback: bool) -> None:
    assert parse_address(text) == address
    assert str(address) == shown
    assert address.loopback is loopback


@pytest.mark.parametrize(
    "text", ["8883", "a:b", "host.example:1", "1.2.3.4:", "[::1]", "[]:1", "1.2.3.4:-1", "1.2.3.4:٣", " :1"]
)
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match='"'):
        parse_address(text)


# --- the scanner that knows where keys stand ---

DOCUMENT = '''# a comment with [brackets] and key = "value"
top = 1
[a] # x
b = """
[not.a.table]
c = 1
"""
c = [ 1, # ]
  [ "]", '\\' ],
]
d = { e = 1, "f g" = { h = [ {i = 2} ] } }
'q"' . r = 2024-01-01 00:00:00
[ a . "dotted\\u0041" ]
k = \'\'\'
x = 1\'\'\'
"" = ""
[[many]]
m = +1.5e3
[[many]]
n = true
[many.inner]
o = 1'''


def test_the_line_of_every_key() -> None:
    tomllib.loads(DOCUMENT)
    assert lines_of_keys(DOCUMENT) == {
        ("top",): 2,
        ("a",): 3,
        ("a", "b"): 4,
        ("a", "c"): 8,
        ("a", "d"): 11,
        ("a", "d", "e"): 11,
        ("a", "d", "f g"): 11,
        ("a", "d", "f g", "h"): 11,
        ("a", "d", "f g", "h", "i"): 11,
        ("a", 'q"'): 12,
        ("a", 'q"', "r"): 12,
        ("a", "dottedA"): 13,
        ("a", "dottedA", "k"): 14,
        ("a", "dottedA", ""): 16,
        ("many",): 17,
        ("many", "1"): 17,
        ("many", "1", "m"): 18,
        ("many", "2"): 19,
        ("many", "2", "n"): 20,
        ("many", "2", "inner"): 21,
        ("many", "2", "inner", "o"): 22,
    }


VALUES = st.sampled_from(
    [
        "1",
        "true",
        '"#x"',
        "'[y]'",
        '"""\nz = 1\n"""',
        "'''\n[t]\n'''",
        "[1,\n2, # k = 1\n]",
        "{ x = 1 }",
        '["]", "\\""]',
        "1.5",
        "{}",
    ]
)


@given(st.lists(st.tuples(st.sampled_from(["", " ", "# k = 1\n", "\n\n", "\t"]), VALUES), max_size=8))
def test_the_scanner_finds_each_key_where_it_was_written(rows: list[tuple[str, str]]) -> None:
    text, expected = "", {}
    for number, (before, value) in enumerate(rows):
        text += before
        expected[f"key{number}",] = text.count("\n") + 1
        text += f"key{number} = {value}\n"
    tomllib.loads(text)
    found = lines_of_keys(text)
    assert {key: line for key, line in found.items() if len(key) == 1} == expected


@given(st.text(alphabet="ab.[]{}=\"'#\\\n ,", max_size=60))
def test_the_scanner_ends_on_anything(text: str) -> None:
    lines = lines_of_keys(text)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


class _Counted(str):
    """A text that knows how much of it was gone through for its lines."""

    gone = 0

    def count(self, what: str, begin: int = 0, end: int | None = None) -> int:  # type: ignore[override]
        self.gone += len(self) if end is None else end - begin
        return super().count(what, begin, end)


def test_lines_are_counted_once() -> None:
    """A psk.toml has thousands of keys, and everybody waits while it is read."""
    text = _Counted("".join(f'"d{number}" = {{ key = "x" }}\n' for number in range(200)))
    assert lines_of_keys(text)["d199", "key"] == 200
    assert 0 < text.gone <= len(text)


@pytest.mark.parametrize(
    "value", ['"a b:x"', '" "', '"a:1  b:2"', '"mqtts://a:1"', '"' + "a" * 257 + '"', "1", '["a:1"]']
)
def test_a_server_reference_that_is_none(value: str) -> None:
    """MQTT 5.0 §4.11: servers with spaces between, and a bound."""
    assert mistake(f"[mqtt]\nserver_reference = {value}").startswith(
        "gateway.toml:2: [mqtt] server_reference: must be a"
    )


def test_the_readme_has_every_key_of_mqtt_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "broker" / "README.md").read_text()
    rows = [
        row.split("|")[1:-1]
        for row in text.partition("## Limits")[2].partition("## ")[0].splitlines()
        if "`" in row[:4]
    ]
    found = {key.strip(" `"): default.strip() for key, default, *_ in rows}
    words = {
        "sys_interval": "10",
        "mqtt31": "false",
        "server_reference": '""',
        "deny_subscribe": "[]",
        "deny_publish": "[]",
        "response_information": '""',
        "max_connections": "20000",
        "max_connections_per_address": "2000",
        "max_connections_per_identity": "64",
    }
    words_shown = {key: f"{int(value):,}" if value.isdigit() else value for key, value in words.items()}
    limits = {name: f"{value:,}" for name, value in _core.LIMITS.items()}
    switches = {name: str(bool(_core.LIMITS[name])).lower() for name in SWITCHES}
    assert found == {**limits, **switches, **words_shown, "rate_action": '"throttle"'}
    usual = read("[mqtt]\n" + "".join(f"{key} = {value}\n" for key, value in words.items()))
    assert usual.mqtt == Mqtt(), "what the table says is what there is without it"
    assert set(words) == {entry.name for entry in fields(Mqtt)}


@pytest.mark.parametrize(
    ("text", "place"),
    [("[listen]\nmax_connections = 5", "[mqtt]"), ("[mqtt]\nmax_handshakes = 5", "[listen]")],
)
def test_a_key_in_the_wrong_table_is_sent_to_the_right_one(text: str, place: str) -> None:
    assert mistake(text).endswith(f"belongs in {place}")


SWITCHES = ("retain_available", "wildcard_subscriptions", "shared_subscriptions", "payload_format_check")


@pytest.mark.parametrize(("said", "meant"), [("true", 1), ("false", 0), ("1", 1), ("0", 0)])
def test_switches_may_be_written_as_words(said: str, meant: int) -> None:
    for key in SWITCHES:
        assert parse(f"[mqtt]\n{key} = {said}", "gateway.toml", _core.LIMITS).limits == {key: meant}


@pytest.mark.parametrize("value", ["1", '"answers/#"', '"a\\u0000"', '"' + "a" * 257 + '"'])
def test_response_information_that_begins_no_topic(value: str) -> None:
    """MQTT 5.0 §3.2.2.3.14: it is the beginning of a topic."""
    assert mistake(f"[mqtt]\nresponse_information = {value}").startswith(
        "gateway.toml:2: [mqtt] response_information: must be the beginning of a topic"
    )
