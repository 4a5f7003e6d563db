"""`peanut user`: the file it writes, held against another implementation of SCRAM, and what it says."""

import base64
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

from peanut import password, user
from peanut.errors import PeanutError
from peanut.home import Home, write_file
from tests.heard import transcript

from .conftest import Run, start, tree

PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few iterations: these tests are not about how slow it is."""
    quick = tuple(password.Mechanism(m.name, m.digest, 10_000) for m in password.MECHANISMS)
    monkeypatch.setattr(password, "MECHANISMS", quick)
    monkeypatch.setattr(password, "ARGON", password.ARGON | {"memory_cost": 7 * 1024, "time_cost": 1})


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "password"
    path.write_text(PASSWORD + "\nmore\n")
    return str(path)


def document(home: Home) -> dict[str, Any]:
    found = json.loads(home.users.read_bytes())
    assert isinstance(found, dict)
    return found


def fits(entry: dict[str, Any], name: str, algorithm: hashes.HashAlgorithm, text: str) -> bool:
    """RFC 5802 §3 with another library: are these the keys of this password?"""

    def mac(key: bytes, what: bytes) -> bytes:
        made = hmac.HMAC(key, algorithm)
        made.update(what)
        return made.finalize()

    keys = entry[name]
    kdf = PBKDF2HMAC(algorithm, algorithm.digest_size, base64.b64decode(keys["salt"]), keys["iterations"])
    salted = kdf.derive(text.encode())
    stored = hashes.Hash(algorithm)
    stored.update(mac(salted, b"Client Key"))
    return (
        keys["stored_key"] == base64.b64encode(stored.finalize()).decode()
        and keys["server_key"] == base64.b64encode(mac(salted, b"Server Key")).decode()
    )


def knows(home: Home, name: str, text: str) -> bool:
    """All three, by libraries that are not those which made them (argon2id by cryptography's)."""
    entry = document(home)["users"][name]
    try:
        Argon2id.verify_phc_encoded(text.encode(), entry["argon2id"])
    except InvalidKey:
        return False
    return fits(entry, "SCRAM-SHA-256", hashes.SHA256(), text) and fits(entry, "SCRAM-SHA-512", hashes.SHA512(), text)


def test_add_list_passwd_remove(run: Run, home: Home, secret: str, tmp_path: Path) -> None:
    assert run("user", "add", "maria", "--role", "operator", "--password-file", secret).exit_code == 0
    assert run("user", "add", "joe", "--password-file", secret).exit_code == 0
    assert home.users.stat().st_mode & 0o777 == 0o600
    found = document(home)
    assert found["format"] == 1
    assert len(base64.b64decode(found["secret"])) == 32
    assert {name: entry["role"] for name, entry in found["users"].items()} == {"joe": "viewer", "maria": "operator"}
    assert knows(home, "maria", PASSWORD)
    assert not knows(home, "maria", "another")
    assert PASSWORD.encode() not in home.users.read_bytes()
    salts = {entry[m]["salt"] for entry in found["users"].values() for m in ("SCRAM-SHA-256", "SCRAM-SHA-512")}
    assert len(salts) == 4

    listed = json.loads(run("user", "list", "--json").stdout)
    assert [(entry["name"], entry["role"]) for entry in listed] == [("joe", "viewer"), ("maria", "operator")]
    assert all(set(entry) == {"name", "role", "created"} for entry in listed)
    assert run("user", "list").stdout.splitlines()[0].split() == ["NAME", "ROLE", "SINCE"]

    fresh = tmp_path / "fresh"
    fresh.write_text("battery staple")
    assert run("user", "passwd", "maria", "--password-file", str(fresh)).exit_code == 0
    assert knows(home, "maria", "battery staple")
    assert document(home)["users"]["maria"]["role"] == "operator"
    assert document(home)["secret"] == found["secret"], "the decoys' salts would change"

    assert run("user", "remove", "maria").exit_code == 0
    assert set(document(home)["users"]) == {"joe"}


def test_again_is_safe_and_a_role_can_change(run: Run, home: Home, secret: str) -> None:
    run("user", "add", "maria", "--password-file", secret)
    before = tree(home.path)
    again = run("user", "add", "maria")
    assert again.exit_code == 0
    assert "nothing was changed" in again.stdout
    assert tree(home.path) == before
    assert "viewer becomes admin" in run("user", "add", "maria", "--role", "admin").stdout
    assert document(home)["users"]["maria"]["role"] == "admin"
    assert knows(home, "maria", PASSWORD)


def test_a_mode_that_is_too_open_is_mended(run: Run, home: Home, secret: str) -> None:
    run("user", "add", "maria", "--password-file", secret)
    home.users.chmod(0o644)
    assert "others could read" in run("user", "add", "maria").stdout
    assert home.users.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "arguments",
    [("add", "eve", "--role", "admin"), ("passwd", "maria"), ("remove", "maria"), ("add", "maria", "--role", "admin")],
)
def test_a_dry_run_writes_nothing_and_asks_nothing(
    run: Run, home: Home, secret: str, arguments: tuple[str, ...]
) -> None:
    run("user", "add", "maria", "--password-file", secret)
    before = tree(home.path)
    result = run("user", *arguments, "--dry-run")
    assert result.exit_code == 0
    assert "nothing was written" in result.stdout
    assert tree(home.path) == before


def test_list_without_users_makes_no_file(run: Run, home: Home) -> None:
    result = run("user", "list")
    assert result.exit_code == 0
    assert "no users yet" in result.stderr
    assert not home.users.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("add", "Maria"), "is not a user's name"),
        (("add", "a/b"), "is not a user's name"),
        (("add", "-x"), "No such option"),
        (("add", "maria", "--role", "root"), "Invalid value for '--role'"),
        (("passwd", "nobody"), "there is no user"),
        (("remove", "nobody"), "there is no user"),
        (("add", "maria"), "there is no terminal"),
        (("add", "maria", "--password-file", "/nowhere"), "does not exist"),
    ],
)
def test_what_is_refused(run: Run, home: Home, arguments: tuple[str, ...], words: str) -> None:
    before = tree(home.path)
    result = run("user", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert tree(home.path) == before


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "is empty"),
        (b"\nsecond line", "is empty"),
        (b"ninechars", "too short: 9 characters"),
        (b"pw-maria\xff\xff\xff", "not UTF-8"),
        (b"tab\tin a password", "U+0009"),
        ("smile \U0001f600 and wave".encode(), "U+1F600"),
        ("\u0627\u0628\u062a\u062b\u062c\u062d\u062e\u062f\u0630x".encode(), "mixes writing"),
        (b"x" * 1025, "too long"),
        (b"mariamaria", "is the name"),
    ],
)
def test_passwords_that_are_not_taken(run: Run, home: Home, tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "password"
    path.write_bytes(text)
    result = run("user", "add", "maria", "--password-file", str(path))
    assert result.exit_code == 2
    assert words in result.stderr
    shown = text.decode(errors="replace").strip()
    assert not shown or shown not in result.stdout + result.stderr
    assert not home.users.exists()


@pytest.mark.parametrize("text", ["x" * 10, "x" * 1024, "spaces and \u00fcml\u00e4uts"])
def test_passwords_that_are_taken(run: Run, home: Home, tmp_path: Path, text: str) -> None:
    path = tmp_path / "password"
    path.write_text(text)
    assert run("user", "add", "maria", "--password-file", str(path)).exit_code == 0
    assert knows(home, "maria", text)


def test_saslprep_of_the_password() -> None:
    """RFC 4013 §3 and §2.1: typed differently, the same."""
    assert password.prepare("pass\u00adword \u2168 \u00aa") == "password IX a"
    assert password.prepare("pass\u00a0word word") == "pass word word"


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
        (b'{"format": 2, "secret": "", "users": {}}', "newer"),
        (b'{"format": 1, "secret": "", "users": {"A": {}}}', "is damaged"),
        (b'{"format": 1, "secret": "", "users": {"a": {"role": "root", "created": 1}}}', "is damaged"),
    ],
)
def test_a_damaged_file_is_left_alone(run: Run, home: Home, secret: str, raw: bytes, words: str) -> None:
    write_file(home.users, raw, 0o600)
    for arguments in (("add", "maria", "--password-file", secret), ("list",), ("remove", "maria")):
        result = run("user", *arguments)
        assert result.exit_code == 2
        assert words in result.stderr
    assert home.users.read_bytes() == raw


def test_the_file_has_a_limit(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime

    add = user.plan_add(home, "maria", None, datetime.now(UTC), lambda: PASSWORD)[-1].act
    assert add is not None
    monkeypatch.setattr(user, "FILE_MAX", 500)
    with pytest.raises(PeanutError, match="larger than 500"):
        add()
    assert not home.users.exists()


def test_two_at_once_do_not_lose_a_user(home: Home, secret: str) -> None:
    running = [start(home.path, "user", "add", name, "--password-file", secret) for name in ("maria", "joe")]
    for process in running:
        assert process.wait(60) == 0
        process.communicate()
    assert set(document(home)["users"]) == {"maria", "joe"}
    joe = document(home)["users"]["joe"]  # made by a process that no fixture has made quick
    assert (joe["SCRAM-SHA-256"]["iterations"], joe["SCRAM-SHA-512"]["iterations"]) == (600_000, 210_000)
    assert joe["argon2id"].startswith("$argon2id$v=19$m=65536,t=3,p=1$")


def test_a_user_of_before_is_upgraded_by_another_password(run: Run, home: Home, secret: str) -> None:
    """A users.json without argon2id goes on; whoever gets another password gets all of it."""
    for name in ("maria", "joe"):
        run("user", "add", name, "--password-file", secret)
    found = document(home)
    for entry in found["users"].values():
        del entry["argon2id"]
    write_file(home.users, json.dumps(found).encode(), 0o600)
    assert run("user", "add", "maria", "--role", "admin").exit_code == 0
    assert "argon2id" not in document(home)["users"]["maria"], "the password is not known then"
    assert run("user", "passwd", "maria", "--password-file", secret).exit_code == 0
    assert knows(home, "maria", PASSWORD)
    assert "argon2id" not in document(home)["users"]["joe"]


def at_terminal(home: Home, *lines: str) -> tuple[int, str]:
    """Runs `peanut user add maria` at a terminal and types the lines; returns exit status and everything it showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "peanut", "--home", str(home.path), "user", "add", "maria"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    shown = bytearray()
    guard = threading.Timer(30, process.kill)
    guard.start()
    typed = 0
    try:
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # EIO: the program has closed its side
                break
            if not chunk:
                break
            shown += chunk
            # A prompt ends with ": "; what is typed before it would be thrown away.
            if typed < len(lines) and shown.rstrip(b"\r\n").endswith(b": "):
                os.write(ours, lines[typed].encode() + b"\n")
                shown += b"|"
                typed += 1
        return process.wait(60), shown.decode()
    finally:
        guard.cancel()
        os.close(ours)
        transcript.hear(bytes(shown))


def test_at_a_terminal_the_password_is_asked_for_twice_and_not_shown(home: Home) -> None:
    status, shown = at_terminal(home, PASSWORD, PASSWORD)
    assert status == 0, shown
    assert PASSWORD not in shown
    assert "Once more" in shown
    assert knows(home, "maria", PASSWORD)


def test_at_a_terminal_a_typing_mistake_is_asked_again(home: Home) -> None:
    status, shown = at_terminal(home, PASSWORD, "correct hrose", PASSWORD, PASSWORD)
    assert status == 0, shown
    assert knows(home, "maria", PASSWORD)
