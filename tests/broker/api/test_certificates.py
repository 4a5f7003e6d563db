"""Certificates over HTTPS: what is listed, who may revoke, and what is asked of the program that does it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from peanutd.revoked import Entry
from tests.broker.api.conftest import PASSWORD, START, Refused, World


@pytest.fixture
def stated(world: World) -> World:
    """A fleet of two: peanut was seen, tomato is revoked and was never seen."""
    world.enrol("peanut", "tomato")
    watch = world.server.watch
    came = {"first": 1, "last": START, "address": "192.168.1.7", "serial": "3fa9", "not_after": START + 86400}
    watch.seen.records["plant/peanut"] = {**came, "chips": ["a", "b"]}
    watch.revoked.entries = {"plant/tomato": Entry(int(START), "stolen", frozenset())}
    return world


def program(world: World, path: Path, code: int) -> Path:
    """Puts a program in the place of `peanut` that writes down what it was asked, and ends so."""
    asked = path / "asked"
    path.joinpath("peanut").write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {shlex.quote(str(asked))}\necho no key; exit {code}\n"
    )
    path.joinpath("peanut").chmod(0o700)
    world.services.certificates.program = str(path / "peanut")
    return asked


def test_what_was_seen_and_what_is_revoked(stated: World) -> None:
    found = stated.ask("GET", "/certificates", token=stated.token("ada")).json()["certificates"]
    peanut, tomato = found
    assert (peanut["device"], peanut["serial"], peanut["chip"], peanut["revoked"]) == ("peanut", "3fa9", "b", None)
    assert peanut["not_after"] == START + 86400
    assert tomato["revoked"] == {"since": START, "why": "stolen"}
    assert (tomato["serial"], tomato["last"]) == (None, None)


def test_a_new_certificate_of_a_revoked_node_is_not_revoked(stated: World) -> None:
    stated.server.watch.revoked.entries = {"plant/peanut": Entry(int(START), "stolen", frozenset({"3fa9"}))}
    (peanut, _) = stated.ask("GET", "/certificates", token=stated.token("ada")).json()["certificates"]
    assert peanut["revoked"] is None


@pytest.mark.parametrize("name", ["maria", "vera"])
def test_only_an_admin(stated: World, refused: Refused, name: str, tmp_path: Path) -> None:
    asked, token = program(stated, tmp_path, 0), stated.token(name)
    refused(stated.ask("GET", "/certificates", token=token), "forbidden")
    for verb in ("revoke", "restore"):
        refused(stated.ask("POST", f"/devices/peanut/{verb}", {"password": PASSWORD}, token=token), "forbidden")
    assert not asked.exists()


def test_who_revokes_proves_it_once_more(stated: World, refused: Refused, tmp_path: Path) -> None:
    asked, token = program(stated, tmp_path, 0), stated.token("ada")
    refused(stated.ask("POST", "/devices/peanut/revoke", {"password": "no"}, token=token), "step_up")
    assert not asked.exists()
    assert [entry["outcome"] for entry in stated.entries(action="revoke")] == ["refused"]
    answer = stated.ask("POST", "/devices/peanut/revoke", {"password": PASSWORD, "why": "--stolen; rm"}, token=token)
    assert answer.status_code == 204
    home = str(stated.home)
    assert asked.read_text().split("\n")[:-1] == [
        "--home",
        home,
        "device",
        "revoke",
        "--why=--stolen; rm",
        "--",
        "peanut",
    ]
    assert stated.ask("POST", "/devices/peanut/restore", {"password": PASSWORD}, token=token).status_code == 204
    assert asked.read_text().split("\n")[:-1] == ["--home", home, "device", "restore", "--", "peanut"]
    assert [entry["outcome"] for entry in stated.entries(action="revoke")] == ["ok", "refused"]


def test_why_it_could_not_be_done_is_said(stated: World, refused: Refused, tmp_path: Path) -> None:
    token = stated.token("ada")
    program(stated, tmp_path, 3)
    found = refused(stated.ask("POST", "/devices/peanut/revoke", {"password": PASSWORD}, token=token), "unavailable")
    assert "no key" in found["detail"]
    stated.services.certificates.program = None
    found = refused(stated.ask("POST", "/devices/peanut/revoke", {"password": PASSWORD}, token=token), "unavailable")
    assert "peanut device revoke peanut" in found["detail"]
    refused(stated.ask("POST", "/devices/nobody/revoke", {"password": PASSWORD}, token=token), "not_found")


def test_a_program_that_hangs_is_ended(
    stated: World, refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("peanutd.api.certificates.TIMEOUT", 0.2)
    path = tmp_path / "peanut"
    path.write_text(f"#!{sys.executable}\nimport time; time.sleep(600)\n")
    path.chmod(0o700)
    stated.services.certificates.program = str(path)
    answer = stated.ask("POST", "/devices/peanut/revoke", {"password": PASSWORD}, token=stated.token("ada"))
    assert "too long" in refused(answer, "unavailable")["detail"]
