"""People with passwords and rules of their own: the README's examples of "Who may do what", lived through.

The rule it keeps: the rules are the text of the README, the user is made by `peanut user add`, the client is
mosquitto's. What `peanutd explain` says is what happens.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from peanutd.__main__ import main
from tests.programs import program
from tests.system.conftest import House, wait_for
from tools.ports import free_port

README = (Path(__file__).parents[2] / "README.md").read_text()
PASSWORD = "correct horse battery"


def examples() -> list[str]:
    """The rule files that the README shows."""
    section = README[README.index("### Who may do what") : README.index("`peanutd explain user/tom")]
    blocks = re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", section, re.MULTILINE)
    return ["\n".join(line[4:] for line in block.splitlines()) for block in blocks if "[[rule]]" in block]


def explain(house: House, *question: str) -> bool:
    """Whether `peanutd explain` says yes."""
    status = main(["--home", str(house.home), "explain", *question])
    assert status in (0, 1)
    return status == 0


def test_the_readme_has_three_examples_that_are_rule_files(house: House) -> None:
    found = examples()
    assert len(found) == 3
    for text in found:
        (house.home / "rules.toml").write_text(text)
        assert explain(house, "user/x", "subscribe", "#", "--role", "viewer"), "everybody else as ever"
    assert explain(house, "user/tom", "publish", "home/tom/light", "--role", "viewer")
    assert not explain(house, "user/tom", "publish", "home/maria/light", "--role", "viewer")


@pytest.fixture
def neighbour(house: House, tmp_path: Path) -> House:
    """A house with Tom, who waters greenhouse 3."""
    port = free_port()
    listener = f'[[listener]]\naddress = "127.0.0.1:{port}"\ncertificate = "optional"\npassword = true\n'
    settings = house.home / "gateway.toml"
    settings.write_text(settings.read_text() + listener)
    (house.home / "rules.toml").write_text(examples()[0])
    (tmp_path / "password").write_text(PASSWORD + "\n")
    house.peanut("user", "add", "tom", "--password-file", str(tmp_path / "password"), check=True)
    house.stop()
    house.start()
    wait_for(lambda: f"listening mqtts 127.0.0.1:{port}" in house.log, "the listener for users")
    house.port = port
    return house


def publish(house: House, topic: str, *more: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    command = [
        program("mosquitto_pub", "mosquitto-clients"),
        *("-V", "5", "-h", "localhost", "-p", str(house.port), "--cafile", str(house.operator[0])),
        *("-u", "tom", "-P", password, "-q", "1", "-t", topic, "-m", "temperature:15", *more),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_neighbour_waters_one_greenhouse(neighbour: House, capsys: pytest.CaptureFixture[str]) -> None:
    """The argon2id that `peanut` has written lets him in; the rules let him do what they say."""
    asked = {
        ("/plant/greenhouse-3/UpdateTemperature",): True,
        ("/plant/greenhouse-3/cmd/vent",): True,
        ("/plant/peanut/UpdateTemperature",): False,
        ("/plant/greenhouse-3/state",): False,
        ("/plant/greenhouse-3/UpdateTemperature", "-r"): False,
    }
    for (topic, *more), allowed in asked.items():
        done = publish(neighbour, topic, *more)
        assert ("ot authorized" not in done.stdout + done.stderr) == allowed, (topic, done.stdout + done.stderr)
        assert explain(neighbour, "user/tom", "publish", topic, *(["--retain"] if more else [])) == allowed
        assert re.search(r"rules\.toml:\d+: ", capsys.readouterr().out)
    assert "refused by rules.toml:" in neighbour.log
    assert publish(neighbour, "/plant/greenhouse-3/cmd/vent", password="wrong horse").returncode != 0
