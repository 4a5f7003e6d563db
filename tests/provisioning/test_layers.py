"""The house's sixth law: dependencies point one way, and the command line's library is the leaf's business."""

import ast
from pathlib import Path

import peanut

PACKAGE = Path(peanut.__file__).parent

# Each file may use those before it.
ORDER = [
    "errors", "names", "home", "plan", "ca", "store", "control", "revocation", "credentials", "modes",
    "ledger", "fields", "chips", "pinout",
    "board", "settings", "bundle", "operators", "signing", "release", "updatekey", "sealing", "device",
    "renewal", "init",
    "password", "user", "session", "send", "rollout", "courier", "running", "wifi", "programs", "serialport", "loader",
    "fsimage", "prose", "image_names", "shorten", "application", "image", "flash", "watch", "install", "bench",
    "carton", "labels", "sightings", "crl", "audit", "rotation", "backup", "cli", "cli_audit", "cli_init", "cli_ca",
    "cli_backup",
    "cli_renew",
    "cli_board", "cli_device", "cli_user", "cli_send", "cli_unseal", "cli_update", "cli_flash", "cli_wifi", "cli_bench",
    "__main__",
]  # fmt: skip


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_dependencies_point_one_way() -> None:
    files = {p.stem: p for p in PACKAGE.glob("*.py") if p.stem != "__init__"}
    assert set(files) == set(ORDER)
    for position, name in enumerate(ORDER):
        used = {m.split(".")[1] for m in imports(files[name]) if m.startswith("peanut.")} & set(ORDER)
        assert used <= set(ORDER[:position]), name


def test_only_the_command_line_knows_click() -> None:
    for path in PACKAGE.glob("*.py"):
        if not path.stem.startswith(("cli", "__main__")):
            assert not {m for m in imports(path) if m.split(".")[0] in ("click", "rich")}, path
