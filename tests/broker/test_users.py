"""users.json, the throttle and the login desk: who may log in, how often, and what it costs to be wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peanutd import access, argon, login, scram, throttle, users
from tests.broker.scram_client import LEAST, Client, user, write_users

PASSWORD = "correct horse"
MARIA = user(PASSWORD)
JOE = user("battery staple", "viewer")


# --- the file ---------------------------------------------------------------------------------------------------------


def test_users_are_read(tmp_path: Path) -> None:
    found = users.parse(write_users(tmp_path, maria=MARIA, joe=JOE).read_bytes())
    maria = found.get("maria")
    assert maria is not None
    assert maria.role is users.Role.OPERATOR
    assert found.by_name["joe"].role is users.Role.VIEWER
    assert scram.verify(scram.SHA_512, found.credential("maria", scram.SHA_512), PASSWORD.encode())
    assert found.get("nobody") is None


def test_a_decoy_has_the_iterations_that_most_users_have(tmp_path: Path) -> None:
    odd = user("another one", iterations=11_000)
    found = users.parse(write_users(tmp_path, maria=MARIA, joe=JOE, eve=odd).read_bytes())
    for name, mechanism in scram.MECHANISMS.items():
        assert found.credential("nobody", mechanism).iterations == LEAST[name]
    empty = users.parse(write_users(tmp_path).read_bytes())
    assert empty.credential("nobody", scram.SHA_256).iterations == 600_000


def document(**changes: Any) -> bytes:
    whole: dict[str, Any] = {"format": 1, "secret": "c3Nz" * 11, "users": {"maria": MARIA}}
    return json.dumps(whole | changes).encode()


def maria(**changes: Any) -> bytes:
    return document(users={"maria": MARIA | changes})


def credential(**changes: Any) -> bytes:
    return maria(**{"SCRAM-SHA-256": MARIA["SCRAM-SHA-256"] | changes})


BAD = {
    "not JSON": b"{",
    "not UTF-8": b'{"\xff": 1}',
    "nested": b"[" * 100_000,
    "no table": b"[]",
    "another format": document(format=2),
    "no secret": document(secret=None),
    "a short secret": document(secret="c3Nz"),
    "no base64": document(secret="*" * 44),
    "no users": document(users=[]),
    "a name with a slash": document(users={"a/b": MARIA}),
    "an empty name": document(users={"": MARIA}),
    "a user that is none": document(users={"maria": 1}),
    "no role": maria(role=None),
    "an unknown role": maria(role="root"),
    "a role that is a list": maria(role=[]),
    "no credential": maria(**{"SCRAM-SHA-512": None}),
    "too few iterations": credential(iterations=4095),
    "too many iterations": credential(iterations=scram.MAX_ITERATIONS + 1),
    "iterations in words": credential(iterations="4096"),
    "iterations that are true": credential(iterations=True),
    "no salt": credential(salt=None),
    "a short salt": credential(salt="c3Nz"),
    "a short key": credential(stored_key="c3Nz"),
    "another short key": credential(server_key="c3Nz"),
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
def test_a_file_that_is_wrong_is_not_used(raw: bytes) -> None:
    users.parse(document())
    with pytest.raises(users.UsersError):
        users.parse(raw)


def test_the_store_follows_the_file(tmp_path: Path) -> None:
    store = users.Store(tmp_path)
    assert store.refresh() == ()
    assert store.users.by_name == {}
    secret = store.users.secret
    assert len(secret) == 32
    assert users.Store(tmp_path).users.secret != secret

    path = write_users(tmp_path, maria=MARIA)
    assert store.refresh() == ()
    first = store.users
    assert set(first.by_name) == {"maria"}
    assert store.refresh() == ()
    assert store.users is first, "read again without a change"

    write_users(tmp_path, maria=MARIA, joe=JOE)
    assert store.refresh() == ()
    assert set(store.users.by_name) == {"maria", "joe"}

    path.write_bytes(b"{")
    (line,) = store.refresh()
    assert "users of before stay" in line
    assert store.refresh() == (), "said twice"
    assert set(store.users.by_name) == {"maria", "joe"}

    path.unlink()
    assert store.refresh() == ()
    assert store.users.by_name == {}


@pytest.mark.parametrize("content", [b"{", None], ids=["not JSON", "a directory"])
def test_a_file_that_cannot_be_used_at_the_start_lets_nobody_in(tmp_path: Path, content: bytes | None) -> None:
    """Fail closed, and no need to start again once it is mended."""
    path = tmp_path / "users.json"
    path.mkdir() if content is None else path.write_bytes(content)
    house = House(tmp_path)
    assert reason(house.ask("maria", PASSWORD)) == 0x86
    assert reason(house.scram(Client("maria", PASSWORD))) == 0x86
    (line,) = house.warnings
    assert "nobody can log in" in line
    if content is None:
        path.rmdir()
    write_users(tmp_path, maria=MARIA)
    assert isinstance(house.ask("maria", PASSWORD), login.Proved)


def test_a_file_that_others_can_read_is_pointed_out(tmp_path: Path) -> None:
    store = users.Store(tmp_path)
    write_users(tmp_path, maria=MARIA).chmod(0o640)
    (line,) = store.refresh()
    assert "chmod 600" in line
    assert "maria" in store.users.by_name


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    store = users.Store(tmp_path)
    write_users(tmp_path, maria=MARIA)
    assert store.refresh() == ()
    store.path.unlink()
    store.path.mkdir()  # whoever runs this, a directory cannot be read
    assert "cannot be read" in store.refresh()[0]
    assert store.refresh() == ()
    assert "maria" in store.users.by_name


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = users.Store(tmp_path)
    size = write_users(tmp_path, maria=MARIA).stat().st_size
    monkeypatch.setattr(users, "MAX_FILE_SIZE", size - 1)
    assert f"larger than {size - 1}" in store.refresh()[0]
    monkeypatch.setattr(users, "MAX_FILE_SIZE", size)
    write_users(tmp_path, maria=MARIA)
    assert store.refresh() == ()


# --- the throttle -----------------------------------------------------------------------------------------------------


def fail(guard: throttle.Throttle, times: int, address: str = "192.0.2.1", name: str = "maria", now: float = 0) -> None:
    for _ in range(times):
        guard.failed(address, name, now)


def test_failures_of_a_user_from_an_address_have_a_limit() -> None:
    guard = throttle.Throttle()
    fail(guard, throttle.PER_USER - 1)
    assert guard.wait("192.0.2.1", "maria", 1) == 0
    assert guard.failed("192.0.2.1", "maria", 1), "the last one allowed is not called that"
    assert guard.wait("192.0.2.1", "maria", 1) == throttle.WINDOW - 1
    assert guard.wait("192.0.2.2", "maria", 1) == 0
    assert guard.wait("192.0.2.1", "joe", 1) == 0
    assert guard.wait("192.0.2.1", "maria", throttle.WINDOW) == 0
    assert not guard.failed("192.0.2.1", "maria", throttle.WINDOW), "a new window begins"
    assert guard.wait("192.0.2.1", "maria", throttle.WINDOW) == 0


def test_failures_from_an_address_have_a_limit_whoever_the_user() -> None:
    guard = throttle.Throttle()
    for number in range(throttle.PER_ADDRESS):
        assert guard.wait("192.0.2.1", "joe", 1) == 0
        guard.failed("192.0.2.1", f"user{number}", 0)
    assert guard.wait("192.0.2.1", "joe", 1) == throttle.WINDOW - 1
    guard.succeeded("192.0.2.1", "user0")
    assert guard.wait("192.0.2.1", "joe", 1) > 0, "an account of one's own would buy guesses at others"


def test_a_right_password_is_forgiven_the_wrong_ones() -> None:
    guard = throttle.Throttle()
    fail(guard, throttle.PER_USER - 1)
    guard.succeeded("192.0.2.1", "maria")
    fail(guard, throttle.PER_USER - 1)
    assert guard.wait("192.0.2.1", "maria", 0) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("unix", "unix", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (throttle.network(one) == throttle.network(other)) == same


def test_what_is_remembered_has_a_limit() -> None:
    guard = throttle.Throttle()
    for number in range(throttle.KEYS):
        guard.failed(f"2001:db8:{number:x}::1", "x" * 10_000 + str(number), number / throttle.KEYS)
        assert len(guard) <= throttle.KEYS
    guard.sweep(throttle.WINDOW / 2)
    assert len(guard) == throttle.KEYS
    guard.sweep(throttle.WINDOW + 2)
    assert len(guard) == 0
    fail(guard, 1, name="x" * throttle.MAX_USER + "a")
    fail(guard, throttle.PER_USER - 1, name="x" * throttle.MAX_USER + "b")
    assert guard.wait("192.0.2.1", "x" * throttle.MAX_USER, 0) > 0


# --- the desk ---------------------------------------------------------------------------------------------------------


class House:
    """A desk whose clock and whose workers the test moves by hand."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.now = 0.0
        self.jobs: list[tuple[login.Work, Callable[[bool], None]]] = []
        self.warnings: list[str] = []
        self.answers: list[login.Verdict] = []
        self.desk = login.Desk(
            users.Store(home), lambda *job: self.jobs.append(job), lambda: self.now, self.warnings.append
        )

    def check(self, name: str, password: str, address: str = "192.0.2.1", wanted: bool = True) -> None:
        self.desk.check(name, password.encode(), address, lambda: wanted, self.answers.append)

    def work(self) -> None:
        """Does what is to be done, and what that brings with it."""
        while self.jobs:
            work, done = self.jobs.pop(0)
            done(work())

    def ask(self, name: str, password: str, address: str = "192.0.2.1") -> login.Verdict:
        self.check(name, password, address)
        self.work()
        return self.answers.pop()

    def scram(self, client: Client, address: str = "192.0.2.1") -> login.Verdict:
        exchange = self.desk.exchange(client.method, address)
        assert isinstance(exchange, login.Exchange)
        challenge = exchange.step(client.first())
        if isinstance(challenge, login.Challenge):
            verdict = exchange.step(client.final(challenge.data))
            assert not isinstance(verdict, login.Challenge)
            return verdict
        return challenge


@pytest.fixture
def house(tmp_path: Path) -> House:
    write_users(tmp_path, maria=MARIA, joe=JOE)
    return House(tmp_path)


def reason(verdict: login.Verdict | login.Challenge) -> int:
    assert isinstance(verdict, access.Refuse)
    return verdict.reason


def test_a_right_password(house: House) -> None:
    verdict = house.ask("maria", PASSWORD)
    assert isinstance(verdict, login.Proved)
    assert verdict.user.name == "maria"


def test_wrong_password_and_unknown_user_are_told_the_same(house: House) -> None:
    wrong, unknown, nobody = (house.ask(name, "wrong") for name in ("maria", "eve", "a/b"))
    assert wrong == unknown == nobody == access.Refuse(0x86, "wrong user name or password")


def test_an_unknown_user_costs_as_much_as_a_wrong_password(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds: list[int] = []
    derive = scram.derive

    def count(mechanism: scram.Mechanism, password: bytes, salt: bytes, iterations: int) -> scram.Credential:
        rounds.append(iterations)
        return derive(mechanism, password, salt, iterations)

    monkeypatch.setattr(scram, "derive", count)
    for name, password in (("maria", "wrong"), ("eve", "wrong"), ("maria", "\x07"), ("maria", "x" * 5000)):
        house.ask(name, password, address=f"192.0.2.{len(rounds) + 1}")
    assert rounds == [LEAST["SCRAM-SHA-512"]] * 4


# --- argon2id ---------------------------------------------------------------------------------------------------------


def argon_house(path: Path) -> House:
    """Most have argon2id; joe is a user of before."""
    write_users(path, maria=user(PASSWORD, argon=True), ada=user("lovelace", argon=True), joe=JOE)
    return House(path)


def test_a_password_is_held_against_argon2id(tmp_path: Path) -> None:
    house = argon_house(tmp_path)
    for password, name in ((PASSWORD, "maria"), ("correct\u00a0horse", "maria"), ("battery staple", "joe")):
        verdict = house.ask(name, password)
        assert isinstance(verdict, login.Proved)
        assert verdict.user.name == name
    for password in ("", "wrong", "lovelace", "correct horse ", "\x07", "x" * 5000):
        assert house.ask("maria", password, f"198.51.100.{len(password) % 250}") == access.Refuse(0x86, house_words)
    assert isinstance(house.scram(Client("maria", PASSWORD)), login.Proved), "SCRAM goes on beside it"


house_words = "wrong user name or password"


def test_what_counts_is_argon2id_where_there_is_one(tmp_path: Path) -> None:
    """Of keys that contradict each other (a file changed by hand), the stronger one decides about passwords."""
    write_users(tmp_path, maria=user("of scram") | {"argon2id": user("of argon", argon=True)["argon2id"]})
    house = House(tmp_path)
    assert reason(house.ask("maria", "of scram")) == 0x86
    assert isinstance(house.ask("maria", "of argon"), login.Proved)


def test_an_unknown_user_costs_as_much_with_argon2id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = argon_house(tmp_path)
    costs: list[tuple[int, int, int]] = []
    verify = argon.verify
    monkeypatch.setattr(argon, "verify", lambda stored, password: costs.append(stored.cost) or verify(stored, password))
    for name in ("maria", "eve", "a/b", ""):
        assert house.ask(name, "wrong", f"192.0.2.{len(costs)}") == access.Refuse(0x86, house_words)
    assert costs == [(7 * 1024, 1, 1)] * 4
    assert users.Store(tmp_path / "none").users.password_check("eve").args[0].cost == argon.USUAL_COST


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "plain",
        "$argon2i$v=19$m=65536,t=3,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=16$m=65536,t=3,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=1024,t=3,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=131073,t=3,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=65536,t=17,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=65536,t=3,p=9$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=65536,t=0,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=65536,t=3,p=1$c2FsdA$aGFzaGhhc2hoYXNoaGFzaA",
        "$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHRzYWx0$aGFzaA",
        "$argon2id$v=19$m=65536,t=3,p=1$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA\n",
    ],
)
def test_a_hash_that_is_none_or_costs_too_much_is_not_used(text: str | None) -> None:
    """MEMORY_MIN, MEMORY_MAX, TIME_MAX, LANES_MAX: before anything is computed."""
    users.parse(maria(argon2id="$argon2id$v=19$m=131072,t=16,p=8$c2FsdHNhbHRzYWx0$aGFzaGhhc2hoYXNoaGFzaA"))
    with pytest.raises(users.UsersError, match="maria: argon2id: "):
        users.parse(maria(argon2id=text))


def test_no_hash_in_a_traceback() -> None:
    found = users.parse(maria(argon2id=user(PASSWORD, argon=True)["argon2id"]))
    assert "$argon2id" not in repr(found)


# --- how many at once -------------------------------------------------------------------------------------------------


def test_few_work_and_few_wait(house: House) -> None:
    for number in range(login.WORKERS + login.WAITING):
        house.check("maria", PASSWORD, f"192.0.2.{number}")
    assert len(house.jobs) == login.WORKERS
    assert house.answers == []
    house.check("maria", PASSWORD, "198.51.100.1")
    assert reason(house.answers.pop()) == 0x89
    house.work()
    assert len(house.answers) == login.WORKERS + login.WAITING
    assert all(isinstance(answer, login.Proved) for answer in house.answers)


def test_who_is_gone_costs_no_work(house: House) -> None:
    for _ in range(login.WORKERS):
        house.check("maria", PASSWORD)
    house.check("maria", PASSWORD, wanted=False)
    house.check("joe", "battery staple")
    house.work()
    assert [answer.user.name for answer in house.answers if isinstance(answer, login.Proved)] == [
        "maria",
        "maria",
        "joe",
    ]


def test_who_is_gone_takes_no_place(house: House) -> None:
    for _ in range(login.WORKERS + login.WAITING):
        house.check("maria", PASSWORD, wanted=False)
    assert house.jobs == []
    gone: list[bool] = []
    for number in range(login.WORKERS + login.WAITING):
        house.desk.check("maria", b"x", f"192.0.2.{number}", lambda: not gone, house.answers.append)
    gone.append(True)
    house.check("joe", "battery staple", "198.51.100.1")
    assert house.answers == []
    assert len(house.jobs) == login.WORKERS
    house.work()
    assert [type(answer) for answer in house.answers] == [access.Refuse] * login.WORKERS + [login.Proved]


def test_guesses_side_by_side_do_not_add_up(house: House) -> None:
    """Whatever waits when the limit is reached is refused without a look; those at work were too early for that."""
    for _ in range(login.WAITING):
        house.check("maria", "wrong")
    done = 0
    while house.jobs:
        work, finish = house.jobs.pop(0)
        done += 1
        finish(work())
    assert done <= throttle.PER_USER + login.WORKERS - 1
    reasons = [reason(answer) for answer in house.answers]
    assert (reasons.count(0x86), reasons.count(0x9F)) == (done, login.WAITING - done)


def test_who_guesses_too_often_waits(house: House) -> None:
    for _ in range(throttle.PER_USER):
        assert reason(house.ask("maria", "wrong")) == 0x86
    refused = house.ask("maria", PASSWORD)
    assert refused == access.Refuse(0x9F, "too many failed logins; try again in 60 s")
    assert reason(house.scram(Client("maria", PASSWORD))) == 0x9F
    assert isinstance(house.ask("maria", PASSWORD, "192.0.2.2"), login.Proved)
    house.now = throttle.WINDOW
    assert isinstance(house.ask("maria", PASSWORD), login.Proved)
    house.desk.sweep()
    assert len(house.desk.throttle) == 0


def test_the_last_guess_is_told_so(house: House) -> None:
    texts = [
        verdict.text for _ in range(throttle.PER_USER) if isinstance(verdict := house.ask("eve", "x"), access.Refuse)
    ]
    assert [text.endswith("for a while") for text in texts] == [False] * (throttle.PER_USER - 1) + [True]


@pytest.mark.parametrize("change", ["removed", "another password", "another role"])
def test_a_user_who_changes_while_the_password_is_checked_is_not_let_in(house: House, change: str) -> None:
    house.check("maria", PASSWORD)
    exchange = house.desk.exchange("SCRAM-SHA-256", "192.0.2.9")
    client = Client("maria", PASSWORD)
    assert isinstance(exchange, login.Exchange)
    challenge = exchange.step(client.first())
    assert isinstance(challenge, login.Challenge)
    proof = client.final(challenge.data)
    if change == "removed":
        write_users(house.home, joe=JOE)
    elif change == "another password":
        write_users(house.home, maria=user("a new one"))
    else:
        write_users(house.home, maria=MARIA | {"role": "viewer"})
    house.work()
    assert reason(house.answers.pop()) == 0x86
    assert reason(exchange.step(proof)) == 0x87


def test_what_is_wrong_with_the_file_is_said(house: House) -> None:
    house.ask("maria", PASSWORD)
    (house.home / "users.json").write_bytes(b"{")
    assert isinstance(house.ask("maria", PASSWORD), login.Proved)
    assert ["not JSON" in line for line in house.warnings] == [True]


@pytest.mark.parametrize("method", sorted(scram.MECHANISMS))
def test_scram(house: House, method: str) -> None:
    client = Client("joe", "battery staple", method)
    verdict = house.scram(client)
    assert isinstance(verdict, login.Proved)
    assert verdict.user.role is users.Role.VIEWER
    assert client.check(verdict.data)


def test_scram_wrong_password_and_unknown_user_are_told_the_same(house: House) -> None:
    first, second, third = Client("maria", "wrong"), Client("eve", "wrong"), Client("eve", "other")
    verdicts = [house.scram(client) for client in (first, second, third)]
    assert {(reason(verdict), verdict.text) for verdict in verdicts if isinstance(verdict, access.Refuse)} == {
        (0x86, "SCRAM-SHA-256: wrong user name or password")
    }
    assert first.iterations == second.iterations
    assert second.salt == third.salt != first.salt
    assert len(first.salt) == len(second.salt)


def test_scram_counts_failures(house: House) -> None:
    for _ in range(throttle.PER_USER):
        assert reason(house.scram(Client("maria", "wrong"))) == 0x86
    assert reason(house.scram(Client("maria", PASSWORD))) == 0x9F
    assert reason(house.ask("maria", PASSWORD)) == 0x9F


def test_scram_exchanges_side_by_side_do_not_add_up(house: House) -> None:
    begun = []
    for _ in range(throttle.PER_USER + 3):
        exchange, client = house.desk.exchange("SCRAM-SHA-256", "192.0.2.1"), Client("maria", "wrong")
        assert isinstance(exchange, login.Exchange)
        challenge = exchange.step(client.first())
        assert isinstance(challenge, login.Challenge)
        begun.append((exchange, client.final(challenge.data)))
    reasons = [reason(exchange.step(proof)) for exchange, proof in begun]
    assert reasons == [0x86] * throttle.PER_USER + [0x9F] * 3


def test_messages_that_are_none_count_as_failures(house: House) -> None:
    for _ in range(throttle.PER_ADDRESS):
        exchange = house.desk.exchange("SCRAM-SHA-512", "192.0.2.1")
        assert isinstance(exchange, login.Exchange)
        verdict = exchange.step(b"nonsense")
        assert isinstance(verdict, access.Refuse)
        assert verdict.reason == 0x87
    assert reason(house.ask("maria", PASSWORD)) == 0x9F


def test_a_method_without_data_is_asked_for_it_once(house: House) -> None:
    """RFC 4422 §5.1: a mechanism in which the client speaks first begins with an empty challenge then."""
    exchange = house.desk.exchange("SCRAM-SHA-256", "192.0.2.1")
    client = Client("maria", PASSWORD)
    assert isinstance(exchange, login.Exchange)
    assert exchange.step(b"") == login.Challenge(b"")
    challenge = exchange.step(client.first())
    assert isinstance(challenge, login.Challenge)
    assert isinstance(exchange.step(client.final(challenge.data)), login.Proved)
    again = house.desk.exchange("SCRAM-SHA-256", "192.0.2.1")
    assert isinstance(again, login.Exchange)
    again.step(b"")
    assert reason(again.step(b"")) == 0x87


@pytest.mark.parametrize("method", ["", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "scram-sha-256", "PLAIN"])
def test_unknown_methods(house: House, method: str) -> None:
    """MQTT-4.12.0-1."""
    refusal = house.desk.exchange(method, "192.0.2.1")
    assert isinstance(refusal, access.Refuse)
    assert refusal.reason == 0x8C
    assert "SCRAM-SHA-256 and SCRAM-SHA-512" in refusal.text
