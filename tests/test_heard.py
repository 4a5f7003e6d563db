"""That a secret would be found, whichever way it was printed: what hears the whole suite hears these as well."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests import heard
from tests.heard import Transcript, leaks, secrets_below

PASSWORD = "not the password of any test"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Files with the names that secrets have in a fleet home."""
    (tmp_path / "wifi.toml").write_text(f'[[network]]\nssid = "house"\npassword = "{PASSWORD}"\n')
    (tmp_path / "key.der").write_bytes(bytes(range(0, 250, 2)))
    (tmp_path / "root.pass").write_text("seven words of no great length here\n")
    (tmp_path / "some.key").write_text(
        "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIBlooddlebloodlebloodle\n-----END EC PRIVATE KEY-----\n"  # of nobody
    )
    return tmp_path


def test_the_secrets_of_a_home_are_known(home: Path) -> None:
    """Each file's, in each spelling."""
    known = secrets_below(home)
    assert {PASSWORD, bytes(range(0, 250, 2)).hex(), "seven words of no great length here"} <= set(known)
    assert "MHcCAQEEIBlooddlebloodlebloodle" in known
    assert {path.name for path in known.values()} == {"wifi.toml", "key.der", "root.pass", "some.key"}


@pytest.mark.parametrize("way", ["one pipe", "two pipes", "lines", "file", "error", "late", "run"])
def test_a_program_that_prints_one_is_heard(way: str, home: Path) -> None:
    """Through pipes however they are read, into a file, on standard error, and from who did not end in time."""
    own = Transcript()  # the suite's own must not hear this
    popen = own.popen()
    line, pipe = ["sed", "-n", "s/password = //p", str(home / "wifi.toml")], subprocess.PIPE
    if way == "one pipe":
        popen(line, stdout=pipe).communicate()
    elif way == "two pipes":
        popen(line, stdout=pipe, stderr=pipe, text=True).communicate(timeout=20)
    elif way == "lines":
        with popen(line, stdout=pipe, text=True) as process:
            assert process.stdout is not None
            assert [text.strip() for text in process.stdout] == [f'"{PASSWORD}"']
    elif way == "file":
        with (home / "log").open("ab") as log:
            popen(line, stdout=log).wait(20)
    elif way == "error":
        with popen(["sh", "-c", '"$@" >&2', "sh", *line], stderr=pipe) as process:
            assert process.stderr is not None
            process.stderr.read()
    elif way == "late":
        with popen(["sh", "-c", '"$@"; exec sleep 60', "sh", *line], stdout=pipe, stderr=pipe) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
    else:
        before, subprocess.Popen = subprocess.Popen, popen  # type: ignore[misc,assignment]
        try:
            subprocess.run(line, capture_output=True, check=True)
        finally:
            subprocess.Popen = before  # type: ignore[misc,assignment]
    assert leaks(own.text(), secrets_below(home)) == [f"a line of {home / 'wifi.toml'}"]


def test_a_private_key_is_found_whosever_it_is() -> None:
    """Its heading is enough."""
    own = Transcript()
    own.hear("x\n-----BEGIN " + "PRIVATE KEY-----\n")
    assert leaks(own.text(), {}) == ["a private key"]


def test_the_suite_is_heard() -> None:
    """What a test runs reaches the transcript that is looked through at the end."""
    subprocess.run(["echo", "heard, by and by"], capture_output=True, check=True)
    assert b"heard, by and by" in heard.transcript.text()
