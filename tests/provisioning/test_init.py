"""`peanut init`: complete, idempotent, completable after any interruption, and silent about secrets."""

import json
import os
import pty
import re
import select
import shutil
import signal
import ssl
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from peanut import ca, init, ledger, plan, release, store
from peanut import settings as fleet_settings
from peanut.errors import PeanutError
from peanut.home import Home
from tests.effort import tries
from tests.heard import transcript

from .conftest import Run, invoke, start, tree

# Agreement 1, and the modes it asks for
FILES = {
    "ca/root.crt": 0o644,
    "ca/root.key": 0o600,
    "ca/root.pass": 0o600,
    "ca/issuing.crt": 0o644,
    "ca/issuing.key": 0o600,
    "gateway/gateway.crt": 0o644,
    "gateway/gateway.key": 0o600,
    "operators/operator/operator.crt": 0o644,
    "operators/operator/operator.key": 0o600,
    "operators/operator/ca.crt": 0o644,
    "updates/signing.key": 0o600,
    "updates/update.pub": 0o644,
    "fleet.toml": 0o644,
    "gateway.toml": 0o644,
    "ledger.db": 0o600,
}


def whole(home: Path) -> None:
    """The home is what init promises: every file with its mode, and the chains hold."""
    assert {name: mode for name, (mode, _) in tree(home).items()} == FILES
    for directory in ("", "ca", "gateway", "operators", "operators/operator", "updates"):
        assert (home / directory).stat().st_mode & 0o777 == 0o700
    h = Home(home)
    issuing, root = store.issuing(h).certificate, store.root_certificate(h)
    assert ca.issued_by(issuing, root)
    assert ca.same_key(root, store.key(h.ca / "root.key", (h.ca / "root.pass").read_bytes().strip()))
    for folder, name in ((h.gateway, "gateway"), (h.operator("operator"), "operator")):
        certificate = store.certificate(folder / f"{name}.crt")
        assert ca.issued_by(certificate, issuing)
        assert ca.same_key(certificate, store.key(folder / f"{name}.key"))
    assert (h.operator("operator") / "ca.crt").read_bytes() == (h.ca / "root.crt").read_bytes()
    chain = (h.gateway / "gateway.crt").read_bytes()
    assert chain.endswith((h.ca / "issuing.crt").read_bytes())
    assert chain.count(b"BEGIN CERTIFICATE") == 2
    assert ledger.devices(h.ledger) == []


@pytest.fixture(scope="module")
def signing_key() -> release.SigningKey:
    """One key for updates."""
    return release.new_key()


@pytest.fixture(autouse=True)
def _a_key_for_updates_at_once(signing_key: release.SigningKey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making 3,072 bits of RSA takes as long as all the rest of `init`: what runs in this process gets a key that is
    made already. The processes that are started here, and the homes of all other tests, make their own."""
    monkeypatch.setattr(release, "new_key", lambda: signing_key)


def test_everything_is_made_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    first = invoke(tmp_path / "f", "init")
    assert first.exit_code == 0
    whole(tmp_path / "f")
    before = tree(tmp_path / "f")
    second = invoke(tmp_path / "f", "init")
    assert second.exit_code == 0
    assert "already there" in second.stdout
    assert "make " not in second.stdout
    assert tree(tmp_path / "f") == before


def test_no_output_holds_a_secret(tmp_path: Path) -> None:
    home = tmp_path / "f"
    (tmp_path / "pass").write_text("correct horse battery\n")
    outputs = [invoke(home, "init", "--passphrase-file", str(tmp_path / "pass")).output]
    outputs += [invoke(home, *words).output for words in (
        ("init",), ("operator", "add", "maria"), ("device", "add", "peanut", "--kind", "greenhouse"),
        ("device", "show", "peanut"), ("device", "show", "peanut", "--json"), ("device", "list", "--json"),
        ("device", "bundle", "peanut", "--out", str(tmp_path / "out")),
    )]  # fmt: skip
    generated = tmp_path / "g"
    outputs.append(invoke(generated, "init").output)
    text = "\n".join(outputs)
    assert "correct horse" not in text
    assert (generated / "ca/root.pass").read_text().strip() not in text
    assert "PRIVATE KEY" not in text
    for path in (home / "ca/issuing.key", home / "gateway/gateway.key", home / "operators/maria/operator.key"):
        body = "".join(path.read_text().splitlines()[1:-1])
        assert body[40:80] not in text
    assert (home / "devices/peanut/key.der").read_bytes()[8:24].hex() not in text.lower()


def test_dry_run_writes_nothing_and_asks_nothing(tmp_path: Path) -> None:
    result = invoke(tmp_path / "f", "init", "--dry-run")
    assert result.exit_code == 0
    assert "ca/root.key" in result.stdout
    assert "nothing was written" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_dry_run_tells_of_root_pass_when_it_would_be_made(tmp_path: Path) -> None:
    for words in ((), ("--generate-passphrase",)):
        assert "make    ca/root.pass " in invoke(tmp_path / "f", "init", "--dry-run", *words).stdout
    (tmp_path / "pass").write_text("correct horse battery\n")
    assert (
        "root.pass"
        not in invoke(tmp_path / "f", "init", "--dry-run", "--passphrase-file", str(tmp_path / "pass")).stdout
    )
    assert [p.name for p in tmp_path.iterdir()] == ["pass"]


def test_dry_run_at_a_terminal_asks_nothing_and_says_that_init_will(tmp_path: Path) -> None:
    status, shown = on_a_terminal(tmp_path / "f", [], "--dry-run")
    assert status == 0
    assert b"that you will be asked for" in shown
    assert not (tmp_path / "f").exists()


def test_dry_run_on_a_half_made_home(home: Home, run: Run) -> None:
    (home.gateway / "gateway.crt").unlink()
    before = tree(home.path)
    assert "make    gateway/gateway.crt" in run("init", "--dry-run").stdout
    assert tree(home.path) == before


class Killed(BaseException):
    """Stands for SIGKILL at a rename."""


@pytest.mark.parametrize("survived", range(12))
def test_killed_at_any_file_the_next_run_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    home, real, count = tmp_path / "f", os.replace, 0

    def dying(source: Path, target: Path) -> None:
        nonlocal count
        if count == survived:
            raise Killed
        count += 1
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            invoke(home, "init")
    left = tree(home)
    left.pop("ledger.db", None)  # it is not written by a rename, and grows
    assert len(left) == survived
    assert invoke(home, "init").exit_code == 0
    whole(home)
    assert {name: tree(home)[name] for name in left} == left  # what was there was kept


SUBSETS = st.sets(st.sampled_from(sorted(FILES)))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("plain") / "fleet"
    assert invoke(home, "init", "--host", "gateway.local").exit_code == 0
    return home


@settings(max_examples=tries(10), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lost=SUBSETS)
@example(lost={"ca/root.key", "ca/root.pass"})
@example(lost={"gateway/gateway.key"})
@example(lost={"operators/operator/operator.key"})
@example(lost={"fleet.toml"})
@example(lost={"ca/root.crt"})
@example(lost={"ca/root.pass", "ca/issuing.crt"})
def test_whatever_is_lost_init_completes_or_refuses_untouched(plain: Path, tmp_path: Path, lost: set[str]) -> None:
    home = tmp_path / "f"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(plain, home)
    for name in lost:
        (home / name).unlink()
    for leftover in home.glob("ledger.db-*"):
        leftover.unlink()
    before = tree(home)
    result = invoke(home, "init")
    after = tree(home)
    # What cannot be made anew without breaking the fleet: a CA's certificate whose signature others carry, a CA's key
    # in use, and what the root must sign while its key or its passphrase is away.
    root_kept, issuing_kept = "ca/root.crt" not in lost, "ca/issuing.crt" not in lost
    hopeless = (
        (issuing_kept and "ca/issuing.key" in lost)
        or (issuing_kept and not root_kept)
        or (root_kept and not issuing_kept and "ca/root.key" in lost)
        or (not issuing_kept and "ca/root.key" not in lost and "ca/root.pass" in lost)
    )
    if hopeless:
        assert result.exit_code == 2
        assert result.stderr.startswith("peanut: ")
        assert after == before
        return
    assert result.exit_code == 0, result.output
    optional = {"ca/root.key", "ca/root.pass"} if root_kept and issuing_kept else set()
    optional |= set() if "updates/update.pub" in lost else {"updates/signing.key"}
    assert set(FILES) - set(after) <= optional
    reissued = {"gateway/gateway.crt", "operators/operator/operator.crt", "operators/operator/ca.crt"}
    changed = {name for name in before if after[name] != before[name]} - {"ledger.db"}
    assert changed <= reissued
    if root_kept and issuing_kept and not {"gateway/gateway.key", "operators/operator/operator.key"} & lost:
        assert changed == set()
    if not {"fleet.toml", "gateway/gateway.crt"} <= lost:
        assert fleet_settings.hosts(Home(home)) == ["gateway.local"]
    assert "already there" in invoke(home, "init").output


def test_a_root_key_kept_elsewhere_is_not_missed(home: Home, run: Run) -> None:
    (home.ca / "root.key").unlink()
    (home.ca / "root.pass").unlink()
    result = run("init", "--host", "new.local")
    assert result.exit_code == 0
    assert "kept elsewhere" in result.stdout
    assert result.stderr == ""


def test_a_new_host_reissues_the_gateways_certificate_for_all(home: Home, run: Run) -> None:
    key = (home.gateway / "gateway.key").read_bytes()
    result = run("init", "--host", "New.Local", "--host", "10.0.0.7")
    assert result.exit_code == 0
    assert "adds new.local, 10.0.0.7" in result.stdout
    wanted = ["gateway.local", "192.168.1.20", "new.local", "10.0.0.7"]
    assert fleet_settings.hosts(home) == wanted
    certificate = store.certificate(home.gateway / "gateway.crt")
    assert ca.san_hosts(certificate) == [*wanted, "localhost", "127.0.0.1", "::1"]
    assert ca.common_name(certificate) == "gateway.local"
    assert (home.gateway / "gateway.key").read_bytes() == key
    assert "already there" in run("init", "--host", "new.local").stdout


def test_fleet_toml_keeps_what_the_operator_wrote(home: Home, run: Run) -> None:
    home.fleet_toml.write_text('# ours\nhosts = ["gateway.local"] # the big one\n[site]\ncity = "Bern"\n')
    assert run("init", "--host", "b.local").exit_code == 0
    text = home.fleet_toml.read_text()
    assert "# ours" in text
    assert 'city = "Bern"' in text
    assert fleet_settings.hosts(home) == ["gateway.local", "b.local"]


@pytest.mark.parametrize("text", ["hosts = 3", "hosts = []", "hosts = [3]", "", "hosts = ['a b']", "hosts = ["])
def test_a_bad_fleet_toml_is_named(home: Home, run: Run, text: str) -> None:
    home.fleet_toml.write_text(text)
    before = tree(home.path)
    result = run("init")
    assert result.exit_code == 2
    assert "fleet.toml" in result.stderr or "'a b'" in result.stderr
    assert tree(home.path) == before


def test_an_expiring_gateway_certificate_is_renewed(home: Home, run: Run) -> None:
    issuing, now = store.issuing(home), ca.utc_now()
    key = store.key(home.gateway / "gateway.key")
    hosts = fleet_settings.hosts(home)
    # 62 days old: issued by a CA that is old enough
    founded = now - timedelta(days=62)
    root = ca.Authority(ca.issue_root(issuing.key, founded), issuing.key)
    old = ca.Authority(ca.issue_issuing(issuing.key.public_key(), root, founded), issuing.key)
    (home.ca / "root.crt").write_bytes(ca.certificate_pem(root.certificate))
    (home.ca / "issuing.crt").write_bytes(ca.certificate_pem(old.certificate))
    stale = ca.issue_gateway(key.public_key(), hosts, old, founded)
    (home.gateway / "gateway.crt").write_bytes(ca.certificate_pem(stale, old.certificate))
    result = run("init")
    assert "expires on" in result.stdout
    assert ca.days_left(store.certificate(home.gateway / "gateway.crt"), now) >= 88


def test_open_modes_are_mended(home: Home, run: Run) -> None:
    for path, mode in ((home.ca, 0o755), (home.ca / "issuing.key", 0o644), (home.gateway / "gateway.key", 0o640)):
        path.chmod(mode)
    result = run("init")
    assert "mode 0644 becomes 0600" in result.stdout
    assert home.ca.stat().st_mode & 0o777 == 0o700
    assert (home.ca / "issuing.key").stat().st_mode & 0o777 == 0o600
    assert (home.gateway / "gateway.key").stat().st_mode & 0o777 == 0o600


def test_the_operators_name(tmp_path: Path) -> None:
    assert invoke(tmp_path, "init", "--operator", "maria").exit_code == 0
    assert [p.name for p in (tmp_path / "operators").iterdir()] == ["maria"]
    # a second run without the option does not invent another account
    assert "already there" in invoke(tmp_path, "init").stdout
    assert invoke(tmp_path, "init", "--operator", "No").exit_code == 2


def test_operator_add(home: Home, run: Run) -> None:
    assert run("operator", "add", "maria", "--dry-run").exit_code == 0
    assert not home.operator("maria").exists()
    assert run("operator", "add", "maria").exit_code == 0
    certificate = store.certificate(home.operator("maria") / "operator.crt")
    assert ca.san_uris(certificate) == ["peanut:operator/maria"]
    context = ssl.create_default_context(cafile=home.operator("maria") / "ca.crt")
    context.load_cert_chain(home.operator("maria") / "operator.crt", home.operator("maria") / "operator.key")
    assert "already there" in run("operator", "add", "maria").stdout
    assert run("operator", "add", "../x").exit_code == 2


def test_gateway_toml_is_all_comments_and_never_overwritten(home: Home, run: Run) -> None:
    lines = home.gateway_toml.read_text().splitlines()
    assert all(line == "" or line.startswith(("#", "[")) for line in lines)
    text = home.gateway_toml.read_text()
    for default in ('mqtts   = "0.0.0.0:8883"', 'https   = "0.0.0.0:8443"', 'mqtt    = ""', "anonymous = false",
                    'metrics = "127.0.0.1:9883"'):  # fmt: skip
        assert default in text
    home.gateway_toml.write_text("[listen]\n")
    run("init")
    assert home.gateway_toml.read_text() == "[listen]\n"


def test_default_hosts_are_those_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Barn.example.org")
    monkeypatch.setattr(fleet_settings, "_lan_address", lambda: "192.168.7.7")
    assert fleet_settings.default_hosts() == ["barn", "barn.local", "192.168.7.7"]
    monkeypatch.setattr("socket.gethostname", lambda: "bad_name")
    monkeypatch.setattr(fleet_settings, "_lan_address", lambda: "")
    assert fleet_settings.default_hosts() == ["localhost"]


def test_a_lost_ledger_is_made_anew_from_the_bundles(home: Home, run: Run) -> None:
    before = ledger.devices(home.ledger)
    for path in home.path.glob("ledger.db*"):
        path.unlink()
    assert run("init").exit_code == 0
    after = ledger.devices(home.ledger)
    assert [(d.name, d.kind, d.board, d.serial, d.not_after) for d in after] == [
        (d.name, d.kind, d.board, d.serial, d.not_after) for d in before
    ]


@pytest.mark.parametrize("name", ["ca/root.crt", "ca/issuing.crt", "ca/issuing.key", "gateway/gateway.crt"])
@pytest.mark.parametrize("garbage", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n"])
def test_a_broken_file_is_named_and_nothing_is_touched(home: Home, run: Run, name: str, garbage: bytes) -> None:
    (home.path / name).write_bytes(garbage)
    before = tree(home.path)
    result = run("init")
    assert result.exit_code == 2
    assert name in result.stderr
    assert tree(home.path) == before


def test_files_of_two_fleets_do_not_mix(home: Home, run: Run, plain: Path) -> None:
    shutil.copy(plain / "ca/root.crt", home.ca / "root.crt")
    assert "not signed by root.crt" in run("init").stderr
    shutil.copy(plain / "ca/issuing.crt", home.ca / "issuing.crt")
    assert "does not belong to issuing.crt" in run("init").stderr


# The passphrase


@pytest.mark.parametrize(("text", "complaint"), [("", "is empty"), ("\n", "is empty"), ("short\n", "fewer than 12")])
def test_bad_passphrase_files(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "pass").write_text(text)
    result = invoke(tmp_path / "f", "init", "--passphrase-file", str(tmp_path / "pass"))
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert not (tmp_path / "f/ca").exists()


def test_limits_of_a_passphrase() -> None:
    assert init.check_passphrase(b"x" * 12).value == b"x" * 12
    assert init.check_passphrase(b"x" * 1000).generated is False
    for bad in (b"x" * 11, b"x" * 1001):
        with pytest.raises(PeanutError):
            init.check_passphrase(bad)
    assert "x" * 12 not in repr(init.check_passphrase(b"x" * 12))
    assert len(init.generate_passphrase().value) >= 32


def test_passphrase_file_opens_the_key_and_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("correct horse battery\nsecond line\n")
    result = invoke(tmp_path / "f", "init", "--passphrase-file", str(tmp_path / "pass"))
    assert result.exit_code == 0
    assert not (tmp_path / "f/ca/root.pass").exists()
    assert "root.pass" not in result.stderr
    assert f"Move {tmp_path / 'f/ca/root.key'} to a place off this machine" in result.stderr
    pem = (tmp_path / "f/ca/root.key").read_bytes()
    serialization.load_pem_private_key(pem, b"correct horse battery")


def test_the_root_key_is_needed_again_only_to_sign(tmp_path: Path) -> None:
    home = tmp_path / "f"
    (tmp_path / "pass").write_text("correct horse battery\n")
    (tmp_path / "wrong").write_text("correct horse batteri\n")
    invoke(home, "init", "--passphrase-file", str(tmp_path / "pass"))
    assert invoke(home, "init").exit_code == 0  # nothing to sign: nobody asks
    (home / "ca/issuing.crt").unlink()
    before = tree(home)
    assert "Give --passphrase-file" in invoke(home, "init").stderr
    assert "does not open" in invoke(home, "init", "--passphrase-file", str(tmp_path / "wrong")).stderr
    assert tree(home) == before
    assert invoke(home, "init", "--passphrase-file", str(tmp_path / "pass")).exit_code == 0


def test_two_ways_to_give_a_passphrase_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("correct horse battery\n")
    result = invoke(tmp_path, "init", "--generate-passphrase", "--passphrase-file", str(tmp_path / "pass"))
    assert result.exit_code == 2
    assert "exclude each other" in result.stderr


def on_a_terminal(home: Path, answers: list[tuple[bytes, bytes]], *words: str) -> tuple[int, bytes]:
    """`peanut init` on a pseudo-terminal; each answer is typed when its prompt has appeared."""
    command = [sys.executable, "-m", "peanut", "--home", str(home), "init", "--host", "g.local", *words]
    pid, fd = pty.fork()
    if pid == 0:  # pragma: no cover
        os.execv(sys.executable, command)
    shown, searched, deadline = b"", 0, time.monotonic() + 60
    try:
        while True:
            if answers and answers[0][0] in shown[searched:]:
                searched = len(shown)
                os.write(fd, answers.pop(0)[1] + b"\n")
            if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no end after {shown!r}")
            try:
                chunk = os.read(fd, 4096)
            except OSError:  # Linux's way to say that the other side is closed
                break
            shown += chunk
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        _, status = os.waitpid(pid, 0)
        os.close(fd)
    transcript.hear(shown)
    return os.waitstatus_to_exitcode(status), shown


def test_the_terminal_asks_twice_and_shows_nothing(tmp_path: Path) -> None:
    phrase = b"typed at the terminal"
    status, shown = on_a_terminal(tmp_path / "f", [(b"empty: generate", phrase), (b"Once more", phrase)])
    assert status == 0
    assert phrase not in shown
    assert not (tmp_path / "f/ca/root.pass").exists()
    serialization.load_pem_private_key((tmp_path / "f/ca/root.key").read_bytes(), phrase)


def test_a_typed_passphrase_that_is_not_good_is_asked_for_again(tmp_path: Path) -> None:
    phrase, prompt = b"typed at the terminal", b"empty: generate"
    typed = [(prompt, phrase), (b"Once more", b"typed otherwise"), (prompt, phrase), (b"Once more", phrase)]
    answers = [(prompt, b"short"), *typed]
    status, shown = on_a_terminal(tmp_path / "f", answers)
    assert status == 0
    assert b"fewer than 12 characters" in shown
    assert b"not the same" in shown
    assert f"Move {tmp_path / 'f/ca/root.key'} to".encode() in shown
    serialization.load_pem_private_key((tmp_path / "f/ca/root.key").read_bytes(), phrase)


def test_three_bad_passphrases_are_enough(tmp_path: Path) -> None:
    answers = [(b"empty: generate", b"short")] * (init.PASSPHRASE_TRIES + 1)
    status, shown = on_a_terminal(tmp_path / "f", answers)
    assert status == 2
    assert shown.count(b"empty: generate") == init.PASSPHRASE_TRIES
    assert not (tmp_path / "f/ca").exists()


def test_an_empty_answer_generates_one(tmp_path: Path) -> None:
    status, shown = on_a_terminal(tmp_path / "f", [(b"empty: generate", b"")])
    assert status == 0
    assert b"Once more" not in shown
    phrase = (tmp_path / "f/ca/root.pass").read_bytes().strip()
    assert phrase not in shown
    assert b"Move " in shown
    serialization.load_pem_private_key((tmp_path / "f/ca/root.key").read_bytes(), phrase)


# Processes


def test_two_at_once_found_one_fleet(tmp_path: Path) -> None:
    both = [start(tmp_path / "f", "init") for _ in range(2)]
    results = [(p.communicate(timeout=60), p.returncode) for p in both]
    assert [status for _, status in results] == [0, 0], results
    assert sum("already there" in out for (out, _), _ in results) == 1
    whole(tmp_path / "f")


def test_without_a_terminal_there_is_no_prompt_and_no_escape_code(tmp_path: Path) -> None:
    for words in (("init",), ("device", "add", "peanut", "--kind", "greenhouse"), ("device", "list"), ("--help",),
                  ("device", "show", "peanut"), ("device", "list", "--json"), ("send", "nobody", "x")):  # fmt: skip
        process = start(tmp_path / "f", *words)
        out, err = process.communicate(timeout=60)
        assert "\x1b" not in out + err
        assert process.returncode == (2 if "nobody" in words else 0), err


def test_errors_name_the_fix(tmp_path: Path) -> None:
    result = invoke(tmp_path / "none", "device", "list")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "there is no fleet at" in result.stderr
    assert "peanut init" in result.stderr
    (tmp_path / "file").write_text("")
    assert "not a directory" in invoke(tmp_path / "file", "init").stderr
    assert not (tmp_path / "none").exists()


def test_a_line_stands_for_what_has_been_done() -> None:
    said: list[str] = []

    def fail() -> None:
        raise OSError(28, "No space left on device")

    first = plan.Step(plan.State.MAKE, "a", "", lambda: said.append("act"))
    second = plan.Step(plan.State.MAKE, "b", "", fail)
    with pytest.raises(OSError, match="No space"):
        plan.carry_out([first, second], said.append, dry_run=False)
    assert said == ["act", "  make    a"]


def test_every_certificate_is_told_by_the_day_on_which_it_ends(home: Home, tmp_path: Path) -> None:
    """What is promised before is what is found after: notBefore lies a day back, so 365 days are 364 from now."""
    fresh = tmp_path / "other"
    lines = invoke(fresh, "init").stdout + invoke(fresh, "device", "add", "bean", "--kind", "greenhouse").stdout
    promised = re.findall(r"make +(\S+) .*valid until (\S+?),?(?: |$)", lines, re.MULTILINE)
    assert [what for what, _ in promised] == [
        "ca/root.crt", "ca/issuing.crt", "gateway/gateway.crt", "operators/operator/operator.crt",
        "devices/bean/cert.der",
    ]  # fmt: skip
    for what, day in promised:
        assert f"{store.certificate(fresh / what).not_valid_after_utc:%Y-%m-%d}" == day
    again = invoke(fresh, "init").stdout
    for what, day in promised[:-1]:
        (line,) = (text for text in again.splitlines() if f" {what} " in text)
        assert re.search(rf"valid until {day} \(\d+ days left\)$", line), line


def test_why_a_certificate_is_replaced_is_a_sentence(home: Home, run: Run) -> None:
    (home.operator("operator") / "operator.key").unlink()
    assert "the present one is for a key that is gone" in run("init", "--dry-run").stdout
    (home.ca / "issuing.crt").unlink()
    (home.operator("operator") / "operator.key").write_bytes(ca.key_pem(ca.new_key()))
    assert "the present one was issued by a CA that is gone" in run("init", "--dry-run").stdout


def test_a_plan_is_aligned_text() -> None:
    steps = [plan.there("a"), plan.Step(plan.State.MAKE, "long/name", "note", lambda: None)]
    assert plan.render(steps) == ["  there   a", "  make    long/name  note"]


def test_list_json_is_json(run: Run) -> None:
    assert [d["name"] for d in json.loads(run("device", "list", "--json").stdout)] == [
        "1M8GDM9AXKP042788",
        "peanut",
        "tomato",
    ]
