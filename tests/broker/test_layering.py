"""The laws of the house that a machine can check: who may import whom, and who may await."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
GATEWAY = CHECKOUT / "broker" / "peanutd"

# Each module of the gateway may import those before it, and nobody behind it.
ORDER = (
    *(
        "log",
        "store",
        "keeper",
        "toml_lines",
        "toml_file",
        "config",
        "tally",
        "access",
        "psk",
        "known",
        "revoked",
        "seen",
    ),
    *("rules", "tokens", "keyring"),
    *("scram", "argon", "users", "explain", "throttle", "login", "bearer"),
    *("ocsp", "tls", "fleet", "census", "proxy", "ws", "sockets", "sntp", "status", "bans", "crowd", "door", "ear"),
    *("readings", "sqlfile", "history", "recorder", "alert_rules", "judges", "webpush", "alerts", "couriers"),
    *("recipes", "mouth", "groups", "discovery", "monitor"),
    *(
        "connection",
        "native",
        "control",
        "operate",
        "metrics",
        "watch",
        "confined",
        "reception",
        "server",
        "stamps",
        "caretaker",
    ),
    "__main__",
)

# The same of the API, which only __main__ knows: in there may be awaited, and everything of the gateway imported.
API_ORDER = (
    *("problem", "shape", "database", "keys", "sessions", "passwords", "quota", "audit", "bridge", "people", "scopes"),
    *("shares", "proofs", "passkeys", "userfile", "nodes", "live", "certificates", "signing"),
    *("rights", "commands", "services", "table", "openapi"),
    *("signin", "devices", "asking", "audience", "past", "alerting", "grouping", "telling"),
    *("keying", "stepup", "events", "accounts", "sharing", "auditing", "revoking", "static", "splice", "app", "door"),
    *("homes", "serve"),
)


def imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, `from a import b` as a and a.b."""
    return imports_of(ast.parse(path.read_text(), str(path)), path)


def imports_of(tree: ast.AST, path: Path) -> set[str]:
    """The same of a part of a file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def gateway_modules() -> list[Path]:
    return sorted(GATEWAY.glob("*.py"))


def test_the_order_names_every_module_of_the_gateway() -> None:
    assert {path.stem for path in gateway_modules()} - {"__init__"} == set(ORDER)


@pytest.mark.parametrize("path", gateway_modules(), ids=lambda path: path.stem)
def test_dependencies_of_the_gateway_point_one_way(path: Path) -> None:
    own = {name.split(".")[1] for name in imports(path) if name.startswith("peanutd.")} & set(ORDER)
    behind = ORDER[ORDER.index(path.stem) :] if path.stem in ORDER else ORDER
    assert not own & set(behind)


def test_the_order_names_every_module_of_the_api() -> None:
    assert {path.stem for path in (GATEWAY / "api").glob("*.py")} - {"__init__"} == set(API_ORDER)


@pytest.mark.parametrize("path", sorted((GATEWAY / "api").glob("*.py")), ids=lambda path: f"api/{path.stem}")
def test_dependencies_of_the_api_point_one_way(path: Path) -> None:
    found = [line for line in ast.parse(path.read_text()).body if not isinstance(line, ast.If)]  # TYPE_CHECKING
    names = imports_of(ast.Module(found, []), path)
    own = {name.split(".")[2] for name in names if name.startswith("peanutd.api.")} & set(API_ORDER)
    behind = API_ORDER[API_ORDER.index(path.stem) :] if path.stem in API_ORDER else API_ORDER
    assert not own & set(behind)


@pytest.mark.parametrize("path", gateway_modules(), ids=lambda path: path.stem)
def test_only_the_start_knows_the_api(path: Path) -> None:
    assert path.stem == "__main__" or not any(name.startswith("peanutd.api") for name in imports(path))


@pytest.mark.parametrize("path", gateway_modules(), ids=lambda path: path.stem)
def test_only_the_server_awaits(path: Path) -> None:
    waits = (ast.Await, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith)
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, waits)]
    assert bool(found) == (path.stem == "server")


@pytest.mark.parametrize("path", sorted((CHECKOUT / "broker" / "core").glob("*.[ch]")), ids=lambda path: path.name)
def test_only_module_c_knows_python(path: Path) -> None:
    knows = re.search(r'#\s*include\s*[<"]Python\.h[>"]', path.read_text()) is not None
    assert knows == (path.name == "module.c")


@pytest.mark.parametrize("path", sorted((CHECKOUT / "broker" / "native").glob("*.[ch]")), ids=lambda path: path.name)
def test_only_two_files_of_the_native_loop_know_python(path: Path) -> None:
    knows = re.search(r'#\s*include\s*[<"]Python\.h[>"]', path.read_text()) is not None
    assert knows == (path.name in ("pyguest.c", "pyloop.c"))


@pytest.mark.parametrize("path", sorted((CHECKOUT / "broker" / "core").glob("*.[ch]")), ids=lambda path: path.name)
def test_the_core_does_not_know_its_drivers(path: Path) -> None:
    """But module.c, which makes the objects of Python that they share."""
    assert path.name == "module.c" or "native/" not in path.read_text()


def test_gateway_and_command_line_share_no_code() -> None:
    for package, other in (("broker/peanutd", "peanut"), ("provisioning/peanut", "peanutd")):
        for path in (CHECKOUT / package).rglob("*.py"):
            assert other not in {name.split(".")[0] for name in imports(path)}, path


# Control logic runs on CPython, on MicroPython's unix port and on the chip alike (law 7).
PURE = ("control.py", "command.py", "backoff.py")
OF_THE_CHIP = {"machine", "network", "asyncio", "uasyncio", "socket", "ssl", "esp", "esp32"}


@pytest.mark.parametrize("name", PURE)
def test_control_logic_of_the_firmware_is_pure(name: str) -> None:
    found = list((CHECKOUT / "firmware").rglob(name))
    assert found, f"no {name} in firmware/: this test looks at nothing"
    for path in found:
        assert not {module.split(".")[0] for module in imports(path)} & OF_THE_CHIP, path
