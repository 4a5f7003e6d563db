"""Bans: who is counted for what, when it is too much, and that nobody else pays for it."""

from __future__ import annotations

import json
import os
import stat
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peanutd import bans
from peanutd.bans import BANS_MAX, COUNTS_MAX, FILE_MAX, KEY_MAX, Ban, Bans
from peanutd.config import BanRules

RULES = BanRules(window=60, duration=300)


def test_one_more_than_the_limit_in_a_window_is_a_ban() -> None:
    table = Bans(RULES)
    for second in range(5):
        assert table.offence("client", "plant/a", 5, "connects", second) is None
    assert table.find("client", "plant/a", 5) is None
    ban = table.offence("client", "plant/a", 5, "connects", 5)
    assert ban == Ban("client", "plant/a", "6 connects in 5 s", 5, 305)
    assert table.find("client", "plant/a", 304.9) is ban
    assert table.find("client", "plant/a", 305) is None
    assert table.find("client", "plant/b", 6) is None
    assert table.find("user", "plant/a", 6) is None
    assert [str(entry) for entry in table] == ["client plant/a"]


def test_what_is_spread_over_windows_is_no_ban() -> None:
    table = Bans(RULES)
    assert not any(table.offence("address", "10.0.0.1/32", 5, "x", second) for second in range(0, 6000, 12))


def test_a_clock_that_is_set_back_begins_a_new_window() -> None:
    table = Bans(RULES)
    for second in (1000, 1001, 10, 11):
        assert table.offence("address", "a", 3, "x", second) is None


def test_no_limit_and_nobody_to_blame() -> None:
    table = Bans(RULES)
    assert not any(table.offence("address", "a", 0, "x", 1) for _ in range(100))
    assert not any(table.offence("address", None, 1, "x", 1) for _ in range(100))
    assert table.find("address", None, 1) is None


@pytest.mark.parametrize(
    ("host", "prefix"),
    [
        ("192.168.1.9", "192.168.1.9/32"),
        ("::ffff:192.168.1.9", "192.168.1.9/32"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.1", None),
        ("::1", None),
        ("unix", None),
        ("", None),
    ],
)
def test_prefixes(host: str, prefix: str | None) -> None:
    assert Bans(RULES).prefix(host) == prefix


def test_the_width_of_a_prefix_and_who_is_never_banned_are_settings() -> None:
    table = Bans(BanRules(v4_prefix=24, v6_prefix=48, never=(ip_network("10.0.0.0/8"),)))
    assert table.prefix("192.168.1.9") == "192.168.1.0/24"
    assert table.prefix("2001:db8:1:2::1") == "2001:db8:1::/48"
    assert table.prefix("10.1.2.3") is None
    assert table.prefix("127.0.0.1") == "127.0.0.0/24"


def test_what_is_remembered_has_a_limit() -> None:
    table = Bans(RULES)
    table.offence("address", "first", 1, "x", 0)
    for number in range(COUNTS_MAX):
        table.offence("address", str(number), 1, "x", 0)
    assert table.offence("address", "first", 1, "x", 0) is None, "it was forgotten"
    for number in range(BANS_MAX + 1):
        table.add("address", str(number), "x", 100 + number, 0)
    assert len(table) == BANS_MAX
    assert table.find("address", "0", 1) is None, "the first to end gives way"
    assert table.find("address", "1", 1) is not None
    ban = table.add("client", "c" * 100_000, "x", 5, 0)
    assert len(ban.key) == KEY_MAX
    assert table.find("client", "c" * 100_000, 1) is ban


def test_an_operator_ends_a_ban() -> None:
    table = Bans(RULES)
    table.add("user", "anna", "x", 5, 0)
    assert not table.remove("client", "anna")
    assert table.remove("user", "anna")
    assert not table.remove("user", "anna")
    assert len(table) == 0


def test_sweeping_tells_which_are_over() -> None:
    table = Bans(RULES)
    table.add("user", "anna", "x", 5, 0)
    later = table.add("user", "bert", "x", 50, 0)
    table.changed = False
    assert table.sweep(4) == []
    assert not table.changed
    assert [ban.key for ban in table.sweep(5)] == ["anna"]
    assert table.changed
    assert list(table) == [later]


# --- the file ---


@given(st.lists(st.tuples(st.sampled_from(bans.KINDS), st.text(max_size=20), st.text(max_size=20)), max_size=5))
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, str, str]]) -> None:
    home = tmp_path_factory.mktemp("home")
    found = [Ban(kind, key, reason, 1, 100 + number) for number, (kind, key, reason) in enumerate(entries)]
    bans.save(home, found)
    assert stat.S_IMODE((home / bans.FILE_NAME).stat().st_mode) == 0o600
    assert os.listdir(home) == [bans.FILE_NAME]
    assert bans.load(home, 100) == ([ban for ban in found if ban.until > 100], None)


def test_no_file_is_no_ban(tmp_path: Path) -> None:
    assert bans.load(tmp_path, 0) == ([], None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '{"bans": 1}',
        '{"bans": [{"kind": "user"}]}',
        json.dumps({"bans": [{"kind": "nobody", "key": "a", "reason": "b", "since": 1, "until": 2}]}),
        json.dumps({"bans": [{"kind": "user", "key": "a", "reason": "b", "since": 1, "until": "for ever"}]}),
        "[" * 100_000,
        " " * (FILE_MAX + 1),
    ],
)
def test_a_file_that_is_none_bans_nobody_and_is_pointed_out(tmp_path: Path, text: str) -> None:
    (tmp_path / bans.FILE_NAME).write_text(text)
    found, problem = bans.load(tmp_path, 0)
    assert found == []
    assert problem is not None
    assert bans.FILE_NAME in problem
    assert "nobody is banned by it" in problem
